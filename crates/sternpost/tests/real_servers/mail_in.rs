//! Reports come in: from a real Postfix by SMTP with verified TLS and by LMTP, from swaks, from curl by
//! HTTPS POST; signed by another implementation of DKIM; and forged, slow, too many, and onto a full disk.

use crate::ground::Ground;
use crate::patience::{PATIENCE, away_from_midnight};
use crate::postfix::{Postfix, Release};
use crate::support::{Running, daemon, in_a_room_of_its_own, shell, until};
use lab::pki::Cert;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

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
        Self::open_with(first, "")
    }

    /// The same, with more lines in the configuration.
    fn open_with(first: &str, last: &str) -> Self {
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
        let config = "[inbox]\naddresses = [\"r@good-enforce.test\"]\nname = \"mx1.good-enforce.test\"\nsmtp = [\"127.0.0.1:2525\"]\nlmtp = [\"unix:lmtp.sock\"]\n\
             certificate = \"mail.pem\"\nkey = \"mail.key\"\nhttp = \"/in\"\n[dashboard]\nlisten = [\"127.0.0.1:8460\"]\nurl = \"https://localhost:8460\"\ncertificate = \"web.pem\"\nkey = \"web.key\"\n\
             [answers]\ncontrol = \"sternpost.sock\"\n[[domain]]\nname = \"good-enforce.test\"\n";
        ground.configure(first, &format!("{config}{last}"));
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
        // The address of a domain.
        assert_eq!(post(&format!("{url}/good-enforce.test"), &format!("@{packed}")), "200");
        assert_eq!(post(&format!("{url}/no_domain..test"), &format!("@{packed}")), "404");
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
        // Slow, and many of one address, of which some are declined: the others are served meanwhile.
        let mut slow = TcpStream::connect("127.0.0.1:2525").unwrap();
        slow.set_read_timeout(Some(PATIENCE)).unwrap();
        slow.write_all(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<r@good-enforce.test>\r\nDATA\r\nSubj")
            .unwrap();
        let mut said = [0; 1024];
        assert!(slow.read(&mut said).unwrap() > 0);
        let mut idle: Vec<TcpStream> =
            (0..500).map(|_| TcpStream::connect("127.0.0.1:2525").unwrap()).collect();
        let one_too_many = idle.last_mut().unwrap();
        one_too_many.set_read_timeout(Some(PATIENCE)).unwrap();
        let count = one_too_many.read(&mut said).unwrap();
        assert!(said[..count].starts_with(b"421 4.7.0"), "an address gets as many as it likes");
        let other = inbox.signed("other.eml", "2026-11-21 5 0 five");
        assert!(inbox.swaks(&other, "--tls --local-interface 127.0.0.3").contains("250 kept"));
        drop(idle);
        drop(slow);
        // The connections that were dropped count until the server has noticed.
        until("a recipient that is not ours is refused", || {
            inbox.swaks(&other, "--to stranger@elsewhere.test").contains("550 no such recipient here")
        });
        // Full: a later try is asked for, and the report comes then.
        let url = inbox.ground.operator("reports address");
        let url = url.lines().next().unwrap().to_owned();
        shell(&format!("dd if=/dev/zero of={at}/fill bs=4k 2>/dev/null || true"));
        let body = inbox.file("post.json");
        std::fs::write(&body, "{}").unwrap();
        let status = format!("curl -sk -o /dev/null -w '%{{http_code}}' --data-binary @{body} {url}");
        assert_eq!(shell(&status), "503");
        let late = inbox.signed("late.eml", "2026-11-22 6 0 six");
        let said = inbox.swaks(&late, "--tls");
        assert!(said.contains("451 the report can't be stored now"), "{said}");
        shell(&format!("rm {at}/fill"));
        until("there is room again", || inbox.swaks(&late, "--tls").contains("250 kept"));
        assert!(inbox.listed().iter().any(|report| is(report, "six", "verified", "smtp")));
        shell(&format!("sync; umount -l {at}"));
    });
}

/// A real IMAP server over one maildir, which anybody reads with the password. `more` is further configuration.
fn dovecot(inbox: &Inbox, more: &str) -> Running {
    let at = inbox.place.path().display().to_string();
    let config = format!(
        "protocols = imap\nbase_dir = {at}/dovecot\nlog_path = {at}/dovecot.log\nmail_location = maildir:{at}/Maildir\nssl = required\n\
         ssl_cert = <{at}/mail.pem\nssl_key = <{at}/mail.key\nfirst_valid_uid = 1\npassdb {{\n driver = static\n args = password=correct-horse-7\n}}\n\
         userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={at}/home\n}}\nservice imap-login {{\n inet_listener imap {{\n port = 143\n }}\n inet_listener imaps {{\n port = 993\n }}\n}}\n{more}"
    );
    std::fs::write(inbox.place.path().join("dovecot.conf"), config).unwrap();
    shell(&format!(
        "mkdir -p {at}/Maildir/cur {at}/Maildir/new {at}/Maildir/tmp {at}/home && chown -R nobody:nogroup {at}/Maildir {at}/home"
    ));
    daemon(&format!("dovecot -F -c {at}/dovecot.conf"), &inbox.place.path().join("dovecot.out"))
}

/// A mailbox at Dovecot with more configuration on both sides: the reports are moved, and private mail stays unread.
fn a_mailbox_is_read(mailbox: &str, more: &str) {
    let place = tempfile::tempdir().unwrap();
    let password = place.path().join("password");
    std::fs::write(&password, "correct-horse-7\n").unwrap();
    let inbox = Inbox::open_with(
        "",
        &format!(
            "[inbox.imap]\nhost = \"mx1.good-enforce.test\"\nuser = \"reports\"\npassword_file = \"{}\"\nmove_to = \"TLS reports\"\n{mailbox}",
            password.display()
        ),
    );
    let at = inbox.place.path().display().to_string();
    let _server = dovecot(&inbox, more);
    until("the folders are there", || Path::new(&format!("{at}/Maildir/new")).exists());
    std::fs::write(
        inbox.place.path().join("note"),
        "From: boss@good-enforce.test\nSubject: lunch\n\nat one\n",
    )
    .unwrap();
    for (mail, name) in [
        (inbox.signed("m1.eml", "2026-11-20 9 0 m1"), "1.m1"),
        (inbox.file("note"), "2.note"),
        (inbox.signed("m3.eml", "2026-11-21 9 0 m3"), "3.m3"),
    ] {
        shell(&format!(
            "install -o nobody -g nogroup -m 600 {mail} {at}/Maildir/tmp/{name} && mv {at}/Maildir/tmp/{name} {at}/Maildir/new/{name}"
        ));
    }
    until("both reports are read", || inbox.listed().len() == 2);
    let moved = || {
        shell(&format!(
            "ls {at}/Maildir/'.TLS reports'/cur {at}/Maildir/'.TLS reports'/new 2>/dev/null | grep -c '^[0-9]' || true"
        ))
    };
    until("both are moved", || moved().trim() == "2");
    let left = || shell(&format!("ls {at}/Maildir/cur {at}/Maildir/new | grep '^[0-9]'"));
    until("their originals are gone", || left().lines().count() == 1);
    assert!(left().contains("2.note") && !left().contains(",S"), "{}", left());
    assert!(inbox.listed().iter().all(|report| report["trust"] == "verified"));
    assert!(!inbox.ground.log().contains("correct-horse"));
}

#[test]
fn at_dovecot_with_a_namespace_prefix_reports_are_moved_below_it() {
    in_a_room_of_its_own(|| {
        a_mailbox_is_read("", "namespace inbox {\n inbox = yes\n prefix = INBOX.\n separator = .\n}\n");
    });
}

#[test]
fn at_dovecot_without_move_reports_are_copied_and_expunged_over_starttls() {
    in_a_room_of_its_own(|| {
        a_mailbox_is_read(
            "tls = \"starttls\"\n",
            "imap_capability = IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ NAMESPACE UIDPLUS\nnamespace inbox {\n inbox = yes\n}\n",
        );
    });
}

#[test]
fn a_mailbox_is_read_by_imap_its_reports_are_moved_and_a_server_that_goes_away_loses_none() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let password = place.path().join("password");
        std::fs::write(&password, "correct-horse-7\n").unwrap();
        let inbox = Inbox::open_with(
            "",
            &format!(
                "[inbox.imap]\nhost = \"mx1.good-enforce.test\"\nuser = \"reports\"\npassword_file = \"{}\"\nmove_to = \"Taken\"\n",
                password.display()
            ),
        );
        let at = inbox.place.path().display().to_string();
        let deliver = |mail: &str, name: &str| {
            shell(&format!(
                "install -o nobody -g nogroup -m 600 {mail} {at}/Maildir/tmp/{name} && mv {at}/Maildir/tmp/{name} {at}/Maildir/new/{name}"
            ))
        };
        let first = dovecot(&inbox, "");
        let has = |id: &str| inbox.listed().iter().any(|report| is(report, id, "verified", "imap"));
        until("the folders are there", || Path::new(&format!("{at}/Maildir/new")).exists());
        std::fs::write(
            inbox.place.path().join("note"),
            "From: boss@good-enforce.test\nSubject: lunch\n\nat one\n",
        )
        .unwrap();
        deliver(&inbox.file("note"), "0.note");
        deliver(&inbox.signed("m1.eml", "2026-11-20 9 0 m1"), "1.m1");
        until("what lies there is taken", || has("m1"));
        // By IDLE, without a look being due.
        deliver(&inbox.signed("m2.eml", "2026-11-21 9 0 m2"), "2.m2");
        until("what comes is taken", || has("m2"));
        drop(first);
        until("it is noticed", || inbox.ground.log().contains("can't import reports from the mailbox"));
        deliver(&inbox.signed("m3.eml", "2026-11-22 9 0 m3"), "3.m3");
        let _second = dovecot(&inbox, "");
        until("it goes on", || has("m3"));
        assert_eq!(inbox.listed().len(), 3);
        // Reports are moved; the other mail is where it was, unread.
        let count = |folder: &str| {
            shell(&format!(
                "ls {at}/Maildir/{folder}/cur {at}/Maildir/{folder}/new | grep -c '^[0-9]' || true"
            ))
            .trim()
            .to_owned()
        };
        until("the last is moved", || count(".Taken") == "3");
        let left = || shell(&format!("ls {at}/Maildir/cur {at}/Maildir/new"));
        until("its original is gone", || !left().contains(".m"));
        assert!(left().contains("0.note") && !left().contains(",S"), "{}", left());
        assert!(!inbox.ground.log().contains("correct-horse"));
    });
}

#[test]
fn a_mailbox_at_a_server_that_hangs_does_not_keep_another_one_from_being_read() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let password = place.path().join("password");
        std::fs::write(&password, "correct-horse-7\n").unwrap();
        let mailbox = |port: u16, user: &str| {
            format!(
                "[[inbox.imap]]\nhost = \"mx1.good-enforce.test\"\nport = {port}\nuser = \"{user}\"\npassword_file = \"{}\"\n",
                password.display()
            )
        };
        // It accepts connections, at any address, and says nothing, not even in the TLS handshake.
        let silent = std::net::TcpListener::bind("0.0.0.0:994").unwrap();
        let (connected, is_connected) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let open: Vec<_> =
                silent.incoming().inspect(|_| connected.send(()).unwrap_or_default()).collect();
            drop(open);
        });
        let inbox = Inbox::open_with("", &format!("{}{}", mailbox(994, "hangs"), mailbox(993, "reports")));
        let at = inbox.place.path().display().to_string();
        is_connected.recv_timeout(PATIENCE).unwrap();
        let _server = dovecot(&inbox, "");
        until("the folders are there", || Path::new(&format!("{at}/Maildir/new")).exists());
        let mail = inbox.signed("m1.eml", "2026-11-20 9 0 m1");
        shell(&format!("install -o nobody -g nogroup -m 600 {mail} {at}/Maildir/new/1.m1"));
        until("the other mailbox is read", || {
            inbox.listed().iter().any(|report| is(report, "m1", "verified", "imap"))
        });
    });
}

#[test]
fn a_maildir_that_dovecot_has_compressed_is_imported_and_other_compressions_are_named() {
    in_a_room_of_its_own(|| {
        let inbox = Inbox::open("");
        let at = inbox.place.path().display().to_string();
        let home = format!("{at}/home");
        shell(&format!("chmod 755 {at} && mkdir {home} && chown nobody:nogroup {home}"));
        let save = |mail: &str, form: &str| {
            let config = format!(
                "mail_location = maildir:{home}/{form}\nmail_plugins = zlib\nfirst_valid_uid = 0\nfirst_valid_gid = 0\n\
                 mail_uid = nobody\nmail_gid = nogroup\nplugin {{\n zlib_save = {form}\n zlib_save_level = 6\n}}\n"
            );
            std::fs::write(format!("{home}/conf"), config).unwrap();
            shell(&format!(
                "setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME={home} USER=nobody doveadm -c {home}/conf save <{mail}"
            ));
        };
        let note = inbox.file("note");
        std::fs::write(&note, "From: boss@good-enforce.test\nSubject: lunch\n\nat one\n").unwrap();
        let report = inbox.signed("m1.eml", "2026-11-20 9 0 m1");
        for mail in [&report, &note] {
            save(mail, "gz");
        }
        let import = |form: &str| -> Value {
            let said = inbox.ground.operator(&format!("reports import {home}/{form} --json || true"));
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
        };
        let told = import("gz");
        let counts = ["new", "verified", "left_alone", "quarantined", "unreadable"];
        assert_eq!(counts.map(|name| told[name].as_u64().unwrap()), [1, 1, 1, 0, 0], "{told}");
        for (form, name) in [("zstd", "zstd"), ("lz4", "lz4"), ("bz2", "bzip2")] {
            save(&report, form);
            let told = import(form);
            let why = told["problems"][0]["why"].as_str().unwrap();
            assert!(why.starts_with(&format!("compressed with {name}")), "{told}");
        }
    });
}

/// The days before today, the newest first.
fn days(count: i64) -> Vec<String> {
    let now = jiff::Timestamp::now();
    (1..=count)
        .map(|back| (now - jiff::SignedDuration::from_hours(24 * back)).strftime("%Y-%m-%d").to_string())
        .collect()
}

#[test]
fn a_forged_report_opens_no_gate_and_closes_none() {
    in_a_room_of_its_own(|| {
        away_from_midnight();
        // The test has one true sender.
        let inbox = Inbox::open_with("", "[gate]\nsenders = 1\n");
        // In testing for twenty days, as the plan has found it.
        let since = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 20);
        let rollout = format!("{{\"mode\":{{\"mode\":\"testing\",\"since\":\"{since}\"}}}}");
        let statement = format!(
            "INSERT INTO rollout (tenant, domain, state) VALUES (0, 'good-enforce.test', '{rollout}')"
        );
        shell(&format!(
            "python3 -c \"import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=10); c.execute(sys.argv[2]); c.commit()\" {} \"$(cat <<'S'\n{statement}\nS\n)\"",
            inbox.file("sternpost.db")
        ));
        let send_all = |name: &str, make: &dyn Fn(usize, &str) -> String| {
            let mails: Vec<String> = days(14).iter().enumerate().map(|(n, day)| make(n, day)).collect();
            for mail in mails {
                assert!(inbox.swaks(&mail, "").contains("250 kept"), "{name}");
            }
        };
        let promote = || inbox.ground.operator("promote good-enforce.test || true");
        // A stranger says that all is well, under the name and the ids of a true sender: no gate opens.
        send_all("forged to open", &|n, day| {
            inbox.mail(&format!("open-{n}.eml"), &format!("{day} 5000 0 id-{n}"))
        });
        let said = promote();
        assert!(said.contains("no verified report about a day in testing has arrived yet"), "{said}");
        // The true sender's reports come under the same ids, and count.
        send_all("true", &|n, day| inbox.signed(&format!("true-{n}.eml"), &format!("{day} 90 0 id-{n}")));
        let status: Value = serde_json::from_str(&inbox.ground.operator("status --json")).unwrap();
        let seen = &status["domains"][0];
        assert_eq!(seen["gate"]["state"], "ready", "{seen}");
        assert_eq!(
            (&seen["evidence"]["senders"], &seen["evidence"]["unverified_reports"]),
            (&1.into(), &14.into())
        );
        // A stranger says that all fails, by a signature that does not hold and by none: no gate closes.
        send_all("forged to close", &|n, day| {
            let mail = inbox.signed(&format!("close-{n}.eml"), &format!("{day} 0 700 late-{n}"));
            if n % 2 == 0 {
                shell(&format!("sed -i 's/^hi/ho/' {mail}"));
                return mail;
            }
            inbox.mail(&format!("close-{n}.eml"), &format!("{day} 0 700 late-{n}"))
        });
        let status: Value = serde_json::from_str(&inbox.ground.operator("status --json")).unwrap();
        let seen = &status["domains"][0];
        assert_eq!(seen["gate"]["state"], "ready", "{seen}");
        assert_eq!(seen["failures"], Value::Array(vec![]));
        assert_eq!(inbox.listed().len(), 42);
        // A verified failure closes it, until it is excused with a reason.
        let day = &days(1)[0];
        assert!(
            inbox.swaks(&inbox.signed("bad.eml", &format!("{day} 3 2 bad")), "--tls").contains("250 kept")
        );
        let said = promote();
        assert!(
            said.contains("7 more clean days needed, since good-testing.test reported certificate-expired"),
            "{said}"
        );
        inbox
            .ground
            .operator("excuse good-enforce.test certificate-expired mx1.good-enforce.test --reason 'mended'");
        let said = promote();
        assert!(said.contains("Enforcement of good-enforce.test is allowed"), "{said}");
        let said = inbox.ground.operator("hold good-enforce.test --reason 'not on a Friday'");
        assert!(said.contains("stays in testing"), "{said}");
        let said = inbox.ground.operator("status");
        for line in [
            "held in testing by operator: not on a Friday",
            "does not count. Reason: mended",
            "enforcement allowed",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    });
}
