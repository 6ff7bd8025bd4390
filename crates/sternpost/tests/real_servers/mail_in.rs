//! Reports come in: from a real Postfix by SMTP with verified TLS and by LMTP, from swaks, from curl by
//! HTTPS POST; signed by another implementation of DKIM; and forged, slow, too many, and onto a full disk.

use crate::ground::Ground;
use crate::postfix::{Postfix, Release};
use crate::support::{in_a_room_of_its_own, shell, until};
use lab::pki::Cert;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// Makes a report mail, and signs it where a key is given: `make.py DAY OK FAILED ID [KEY]`.
const MAKE: &str = r#"
import sys, json, gzip, base64, time, dkim
day, ok, failed, ident = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
details = [{'result-type': 'certificate-expired', 'receiving-mx-hostname': 'mx1.good-enforce.test', 'failed-session-count': failed}] if failed else []
report = {'organization-name': 'Big <b>&', 'date-range': {'start-datetime': day + 'T00:00:00Z', 'end-datetime': day + 'T23:59:59Z'},
  'contact-info': 't@good-testing.test', 'report-id': ident, 'policies': [{'policy': {'policy-type': 'sts', 'policy-string': ['version: STSv1'],
  'policy-domain': 'good-enforce.test', 'mx-host': ['mx1.good-enforce.test']}, 'summary': {'total-successful-session-count': ok,
  'total-failure-session-count': failed}, 'failure-details': details}]}
packed = base64.encodebytes(gzip.compress(json.dumps(report).encode())).decode().replace('\n', '\r\n')
mail = ('From: t@good-testing.test\r\nTo: r@good-enforce.test\r\nTLS-Report-Domain: good-enforce.test\r\n'
  'TLS-Report-Submitter: good-testing.test\r\nSubject: Report Domain: good-enforce.test Submitter: good-testing.test Report-ID: <' + ident + '>\r\n'
  'MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=tlsrpt; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n'
  '--b\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n' + packed + '--b--\r\n').encode()
if len(sys.argv) > 5:
    mail = dkim.sign(mail, b's', b'good-testing.test', open(sys.argv[5], 'rb').read(), include_headers=[b'from', b'subject', b'tls-report-submitter', b'tls-report-domain']) + mail
sys.stdout.buffer.write(mail)
"#;

struct Inbox {
    ground: Ground,
    place: tempfile::TempDir,
}

impl Inbox {
    /// The inbox of good-enforce.test, and a key of good-testing.test in DNS. The store lies on `disk`.
    fn open(first: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let ground = Ground::new(place.path(), &["good-enforce", "good-testing"], "good-enforce");
        let at = place.path().display();
        std::fs::write(place.path().join("make.py"), MAKE).unwrap();
        shell(&format!("openssl genrsa -traditional -out {at}/dkim.pem 2048 2>/dev/null"));
        let key =
            shell(&format!("openssl rsa -in {at}/dkim.pem -pubout -outform DER 2>/dev/null | base64 -w0"));
        let (head, tail) = key.trim().split_at(200);
        let mx = "good-testing.test. 300 IN MX 10 mx1.good-testing.test.";
        let record = format!(
            "s._domainkey.good-testing.test. 300 IN TXT \"v=DKIM1; k=rsa; s=tlsrpt; p={head}\" \"{tail}\""
        );
        ground.names.change("good-testing.test.", mx, &format!("{mx}\n{record}"));
        for (name, host) in [("mail", "mx1.good-enforce.test"), ("web", "localhost")] {
            let identity = ground.lab.pki.issue(host, Cert::Good).unwrap();
            std::fs::write(place.path().join(format!("{name}.pem")), identity.chain_pem()).unwrap();
            std::fs::write(place.path().join(format!("{name}.key")), identity.key_pem()).unwrap();
        }
        ground.configure(
            first,
            "[inbox]\naddresses = [\"r@good-enforce.test\"]\nname = \"mx1.good-enforce.test\"\nsmtp = [\"127.0.0.1:2525\"]\nlmtp = [\"unix:lmtp.sock\"]\n\
             certificate = \"mail.pem\"\nkey = \"mail.key\"\nhttp = \"/in\"\n[dashboard]\nlisten = [\"127.0.0.1:8460\"]\nurl = \"https://localhost:8460\"\ncertificate = \"web.pem\"\nkey = \"web.key\"\n\
             [answers]\ncontrol = \"sternpost.sock\"\n[[domain]]\nname = \"good-enforce.test\"\n",
        );
        let mut this = Self { ground, place };
        this.ground.run();
        this
    }

    fn file(&self, name: &str) -> String {
        self.place.path().join(name).display().to_string()
    }

    /// A mail in a file.
    fn mail(&self, name: &str, words: &str) -> String {
        let (script, out) = (self.file("make.py"), self.file(name));
        shell(&format!("/usr/bin/python3 {script} {words} > {out}"));
        out
    }

    fn signed(&self, name: &str, words: &str) -> String {
        self.mail(name, &format!("{words} {}", self.file("dkim.pem")))
    }

    fn listed(&self) -> Vec<Value> {
        let all: Value =
            serde_json::from_str(&self.ground.operator("reports list --json --limit 10000")).unwrap();
        all["reports"].as_array().unwrap().clone()
    }

    fn swaks(&self, mail: &str, more: &str) -> String {
        let to = "r@good-enforce.test";
        shell(&format!(
            "swaks --server 127.0.0.1 --port 2525 --from t@good-testing.test --to {to} --data @{mail} {more} 2>&1 || true"
        ))
    }
}

fn is(report: &Value, id: &str, trust: &str, way: &str) -> bool {
    report["report_id"] == id && report["trust"] == trust && report["way"] == way
}

#[test]
fn postfix_hands_reports_over_by_smtp_with_verified_tls_and_by_lmtp() {
    in_a_room_of_its_own(|| {
        let inbox = Inbox::open("");
        let lmtp = inbox.file("lmtp.sock");
        let lines = format!(
            "transport_maps = inline:{{ r@good-enforce.test=smtp:[mx1.good-enforce.test]:2525, l@good-enforce.test=lmtp:unix:{lmtp} }}\n\
             smtp_tls_security_level = verify\nsmtp_tls_verify_cert_match = hostname\nsmtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt\n\
             lmtp_tls_security_level = none\nsmtp_host_lookup = native, dns\nvirtual_alias_maps = inline:{{ x=y }}\n"
        );
        let address = inbox.ground.address("mx1.good-enforce.test");
        // Where the lab's MX host is, the inbox is now on port 2525.
        shell(&format!("ip addr add {address}/32 dev lo 2>/dev/null || true"));
        let postfix = Postfix::start(
            Release::V3_7,
            inbox.place.path(),
            &lines
                .replace("mx1.good-enforce.test", "127.0.0.1")
                .replace("match = hostname", "match = mx1.good-enforce.test"),
        );
        let by_smtp = inbox.signed("smtp.eml", "2026-11-20 9 0 one");
        let said = postfix.send_file("r@good-enforce.test", Path::new(&by_smtp));
        assert!(
            said.contains("Verified TLS connection") && said.contains("status=sent (250 kept)"),
            "{said}"
        );
        // A recipient that is not ours is refused, and is ours by LMTP neither.
        let said = postfix.send_file("l@good-enforce.test", Path::new(&by_smtp));
        assert!(said.contains("status=bounced") && said.contains("no such recipient"), "{said}");
        let there = inbox.listed();
        assert!(there.len() == 1 && is(&there[0], "one", "verified", "smtp"), "{there:?}");
        drop(postfix);
    });
}

#[test]
fn a_mail_server_of_ones_own_hands_reports_over_by_lmtp() {
    in_a_room_of_its_own(|| {
        let inbox = Inbox::open("");
        let lines = format!(
            "transport_maps = inline:{{ r@good-enforce.test=lmtp:unix:{} }}\nlmtp_tls_security_level = none\n",
            inbox.file("lmtp.sock")
        );
        let postfix = Postfix::start(Release::V3_7, inbox.place.path(), &lines);
        let mail = inbox.signed("lmtp.eml", "2026-11-21 4 1 two");
        let said = postfix.send_file("r@good-enforce.test", Path::new(&mail));
        assert!(said.contains("status=sent (250 kept)"), "{said}");
        let there = inbox.listed();
        assert!(there.len() == 1 && is(&there[0], "two", "verified", "lmtp"), "{there:?}");
    });
}

#[test]
fn rec_03_by_https_a_report_is_answered_once_it_is_stored() {
    in_a_room_of_its_own(|| {
        let inbox = Inbox::open("");
        let url = inbox.ground.operator("reports address");
        let url = url.lines().next().unwrap().to_owned();
        assert!(url.starts_with("https://localhost:8460/in/") && url.len() > 60, "{url}");
        let ca = inbox.file("ca.pem");
        let post = |url: &str, body: &str| {
            shell(&format!(
                "curl -s --cacert {ca} -o /dev/null -w '%{{http_code}}' -H 'Content-Type: application/tlsrpt+gzip' --data-binary {body} {url}"
            ))
        };
        let mail = inbox.mail("post.eml", "2026-11-20 9 0 three");
        let packed = inbox.file("r.json.gz");
        shell(&format!(
            "/usr/bin/python3 -c \"import email, sys; m = email.message_from_file(open('{mail}')); open('{packed}', 'wb').write(m.get_payload()[1].get_payload(decode=True))\""
        ));
        assert_eq!(post(&url, &format!("@{packed}")), "201");
        assert_eq!(post(&url, &format!("@{packed}")), "200");
        assert_eq!(post(&url, "hello"), "202");
        assert_eq!(post(&url, "''"), "400");
        // Without the secret there is nothing; neither is there by other ways along the path.
        for other in
            ["https://localhost:8460/in/", "https://localhost:8460/in/x", "https://localhost:8460/in/..%2f"]
        {
            assert_eq!(post(other, &format!("@{packed}")), "404", "{other}");
        }
        shell(&format!("head -c 11000000 /dev/zero > {}", inbox.file("zeros")));
        assert_eq!(post(&url, &format!("@{}", inbox.file("zeros"))), "413");
        let there = inbox.listed();
        assert!(there.len() == 1 && is(&there[0], "three", "unverified", "https"), "{there:?}");
    });
}

#[test]
fn what_is_forged_slow_too_much_or_meets_a_full_disk_loses_no_report() {
    in_a_room_of_its_own(|| {
        let disk = tempfile::tempdir().unwrap();
        let at = disk.path().display().to_string();
        shell(&format!("mount -t tmpfs -o size=2m none {at}"));
        let inbox = Inbox::open(&format!("store = \"sqlite:{at}/s.db\"\n"));
        // Forged: the same words with other numbers under a signature that was for the true ones.
        let genuine = inbox.signed("genuine.eml", "2026-11-20 500 0 four");
        let forged = inbox.file("forged.eml");
        shell(&format!(
            "/usr/bin/python3 -c \"t = open('{genuine}').read(); open('{forged}', 'w').write(t.replace('\\nhi', '\\nho'))\""
        ));
        let said = inbox.swaks(&forged, "--tls");
        assert!(said.contains("250 kept"), "{said}");
        assert!(inbox.swaks(&genuine, "--tls").contains("250 kept"));
        let there = inbox.listed();
        assert!(there.iter().any(|report| report["trust"] == "verified"), "{there:?}");
        // Slow, and many: the others are served meanwhile.
        let idle: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect("127.0.0.1:2525").unwrap()).collect();
        let mut slow = TcpStream::connect("127.0.0.1:2525").unwrap();
        slow.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        slow.write_all(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<r@good-enforce.test>\r\nDATA\r\nSubj")
            .unwrap();
        let mut said = [0; 1024];
        assert!(slow.read(&mut said).unwrap() > 0);
        let other = inbox.signed("other.eml", "2026-11-21 5 0 five");
        assert!(inbox.swaks(&other, "--tls").contains("250 kept"));
        drop(idle);
        drop(slow);
        assert!(inbox.swaks(&other, "--to stranger@elsewhere.test").contains("550 no such recipient here"));
        // Full: a later try is asked for, and the report comes then.
        shell(&format!("dd if=/dev/zero of={at}/fill bs=4k 2>/dev/null || true"));
        let late = inbox.signed("late.eml", "2026-11-22 6 0 six");
        let said = inbox.swaks(&late, "--tls");
        assert!(said.contains("451 the report can't be kept now"), "{said}");
        shell(&format!("rm {at}/fill"));
        until("there is room again", || inbox.swaks(&late, "--tls").contains("250 kept"));
        assert!(inbox.listed().iter().any(|report| is(report, "six", "verified", "smtp")));
        shell(&format!("sync; umount -l {at}"));
    });
}
