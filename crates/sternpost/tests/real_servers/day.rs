//! A day of TLS reporting: Postfix 3.10 with the real libtlsrpt delivers to good and broken domains, midnight
//! passes, reports go out by mail to another Postfix and by HTTPS to nginx; there they are taken in by an inbox of
//! ours, and judged by parsedmarc, dkimpy and JSON Schema. What was received, tallied and reported is the same,
//! number by number. What it prints is in `target/day.txt`.

use crate::ground::{Ground, block};
use crate::patience::{away_from_midnight, whole_lines};
use crate::postfix::{Postfix, Release};
use crate::support::{
    Running, by_a_clock_of_its_own, daemon, in_a_room_of_its_own, shell, until, until_some,
};
use lab::pki::Cert;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// A domain, how many messages go there, and what its report has to say: the policy, successes, failures, results.
type Expected = (&'static str, u32, &'static str, u64, u64, &'static [&'static str]);

const MAIL: &[Expected] = &[
    ("good-enforce", 3, "sts", 3, 0, &[]),
    ("good-testing", 2, "sts", 2, 0, &[]),
    ("no-mta-sts", 2, "no-policy-found", 2, 0, &[]),
    ("policy-wildcard", 1, "sts", 1, 0, &[]),
    ("dane-ee", 2, "tlsa", 2, 0, &[]),
    ("mx-expired", 1, "sts", 0, 1, &["certificate-expired"]),
    ("mx-wrong-name", 2, "sts", 0, 2, &["certificate-host-mismatch"]),
    // What Postfix calls a certificate that nobody but itself signed.
    ("mx-self-signed", 1, "sts", 0, 1, &["validation-failure"]),
    ("mx-no-starttls", 1, "sts", 0, 1, &["starttls-not-supported"]),
    ("dane-mismatch", 1, "tlsa", 0, 1, &["certificate-not-trusted"]),
    // Postfix calls these successes; the handshakes of our own do not.
    ("mx-expired-testing", 2, "sts", 0, 2, &["certificate-expired"]),
    ("mx-not-listed-testing", 1, "sts", 0, 1, &["validation-failure"]),
];

const BOX: &str = "box.good-enforce.test";

/// Reads reports as parsedmarc does, checks their signatures by dkimpy and their text by JSON Schema, and prints
/// what they say: `judge.py SCHEMA FILE…`.
const JUDGE: &str = r#"
import sys, json, gzip, base64, email, jsonschema, parsedmarc
sys.path.insert(0, '/usr/lib/python3/dist-packages')
import dkim
schema = json.load(open(sys.argv[1]))
out = []
for path in sys.argv[2:]:
    raw = open(path, 'rb').read()
    if path.endswith('.gz'):
        text = gzip.decompress(raw)
        report, signed = parsedmarc.parse_smtp_tls_report_json(text), None
    else:
        raw = raw[raw.index(b'DKIM-Signature'):]
        signed = dkim.DKIM(raw.replace(b'\n', b'\r\n') if b'\r\n' not in raw else raw, tlsrpt='strict').verify()
        parsed = parsedmarc.parse_report_email(raw, offline=True)
        assert parsed['report_type'] == 'smtp_tls', parsed['report_type']
        report = parsed['report']
        part = [p for p in email.message_from_bytes(raw).walk() if p.get_content_type() == 'application/tlsrpt+gzip'][0]
        text = gzip.decompress(part.get_payload(decode=True))
    jsonschema.validate(json.loads(text), schema)
    for policy in report['policies']:
        out.append({'id': report['report_id'], 'signed': signed, 'type': policy['policy_type'], 'domain': policy['policy_domain'],
            'ok': policy['successful_session_count'], 'failed': policy['failed_session_count'],
            'results': sorted({d['result_type'] for d in policy.get('failure_details', [])}),
            'reasons': [d.get('failure_reason_code') for d in policy.get('failure_details', [])]})
print(json.dumps(out))
"#;

/// Which domain a report is about.
fn about(id: &str) -> &str {
    id.split_once('.').unwrap().1.split_once(".test@").unwrap().0
}

/// The name that the reporter sends in EHLO.
const HELO: &str = "out.sender.good-enforce.test";

struct Day {
    ground: Ground,
    place: std::path::PathBuf,
    told: String,
}

impl Day {
    fn tell(&mut self, line: &str) {
        let _ = writeln!(self.told, "{line}");
        println!("{line}");
    }

    fn metric(&self, name: &str) -> u64 {
        let all = shell("curl -s http://127.0.0.1:8463/metrics");
        let line = all.lines().find(|line| line.starts_with(&format!("sternpost_{name}_total ")));
        line.and_then(|line| line.split(' ').nth(1))
            .unwrap_or_else(|| panic!("no {name} in {all}"))
            .parse()
            .unwrap()
    }

    fn sent(&self) -> Vec<Value> {
        let all: Value = serde_json::from_str(&self.ground.operator("reports list --sent --json")).unwrap();
        all["sent"].as_array().unwrap().clone()
    }
}

impl Drop for Day {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.ground.log(), self.ground.operator("reports list --sent"));
        }
    }
}

/// The sender's Sternpost, and the names of the day: everybody's reports go to the box, those of one domain to
/// nginx too.
fn begin(place: &Path) -> Day {
    let names: Vec<&str> = MAIL.iter().map(|(name, ..)| *name).collect();
    let mut ground = Ground::new(place, &names, "good-testing");
    ground.before = by_a_clock_of_its_own(place);
    ground.configure(
        "",
        &format!(
            "[answers]\nlisten = [\"127.0.0.1:8461\"]\ncontrol = \"sternpost.sock\"\n[collector]\nsocket = \"{}/spool/run/tlsrpt/tlsrpt.sock\"\n\
             [reporter]\nhelo = \"{HELO}\"\nfrom = \"tlsrpt@sender.good-enforce.test\"\norganization = \"Sender Mail\"\n\
             dkim = {{ selector = \"tlsrpt\", key_file = \"dkim.pem\" }}\n[metrics]\nlisten = \"127.0.0.1:8463\"\n",
            place.join("sender").display()
        ),
    );
    let said = ground.operator("reports key");
    let record =
        said.lines().find(|line| line.contains("_domainkey")).unwrap().replace(".  TXT  ", ". 300 IN TXT ");
    for name in &names {
        let (from, to) = (format!("tlsrpt@{name}.test"), format!("tlsrpt@{BOX}"));
        let to = match *name {
            "good-testing" => format!("{to},https://reports.good-enforce.test/in"),
            _ => to,
        };
        ground.names.change(&format!("{name}.test."), &from, &to);
    }
    let mx = "good-enforce.test. 300 IN MX 10 mx1.good-enforce.test.";
    let more = format!(
        "{mx}\n{BOX}. 300 IN MX 10 mx.{BOX}.\nmx.{BOX}. 300 IN A 127.0.0.9\nreports.good-enforce.test. 300 IN A 127.0.0.10\n{record}"
    );
    ground.names.change("good-enforce.test.", mx, &more);
    Day { ground, place: place.to_owned(), told: String::new() }
}

/// The Postfix that delivers, by the documented lines, and each message over a connection of its own.
fn sender(place: &Path) -> Postfix {
    let own = place.join("sender");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(place.join("ca.pem"), own.join("ca.pem")).unwrap();
    let lines = block("postfix.md", "main.cf 3.10");
    Postfix::start(Release::V3_10, &own, &format!("{lines}smtp_connection_cache_on_demand = no\n"))
}

/// The Postfix that receives reports, into a maildir.
fn receiver(place: &Path) -> Postfix {
    // Postfix looks for it among the addresses of interfaces.
    shell("ip addr add 127.0.0.9/32 dev lo");
    let own = place.join("receiver");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(place.join("ca.pem"), own.join("ca.pem")).unwrap();
    let lines = format!(
        "inet_interfaces = 127.0.0.9\nvirtual_mailbox_domains = {BOX}\nvirtual_mailbox_base = /var/spool/postfix/box\n\
         virtual_mailbox_maps = inline:{{ tlsrpt@{BOX}=tlsrpt/ }}\nvirtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n\
         virtual_minimum_uid = 1\nsmtpd_tls_security_level = may\nsmtpd_peername_lookup = no\n"
    );
    let postfix = Postfix::start_with(Release::V3_7, &own, &lines, "127.0.0.9:25 inet n - n - - smtpd\n");
    shell("mkdir -p /var/spool/postfix/box && chown nobody /var/spool/postfix/box");
    postfix
}

/// nginx keeps the bodies of what is posted to it.
fn nginx(day: &Day) -> Running {
    let at = day.place.join("web");
    std::fs::create_dir_all(at.join("bodies")).unwrap();
    let identity = day.ground.lab.pki.issue("reports.good-enforce.test", Cert::Good).unwrap();
    std::fs::write(at.join("web.pem"), identity.chain_pem()).unwrap();
    std::fs::write(at.join("web.key"), identity.key_pem()).unwrap();
    let at = at.display();
    let config = format!(
        "daemon off; user root; pid {at}/nginx.pid; error_log {at}/error.log; events {{}}\nhttp {{ access_log {at}/access.log; log_format kind '$request $content_type';\n\
         server {{ listen 127.0.0.10:443 ssl; ssl_certificate {at}/web.pem; ssl_certificate_key {at}/web.key;\n\
         location = /in {{ access_log {at}/in.log kind; client_max_body_size 1m; client_body_in_file_only on; client_body_temp_path {at}/bodies;\n\
         if ($content_type != application/tlsrpt+gzip) {{ return 415; }}\n if ($request_method != POST) {{ return 405; }}\n proxy_pass http://127.0.0.10:8080; }} }}\n\
         server {{ listen 127.0.0.10:8080; location / {{ return 201; }} }} }}\n"
    );
    let file = day.place.join("web/nginx.conf");
    std::fs::write(&file, config).unwrap();
    daemon(&format!("nginx -c {}", file.display()), &day.place.join("web/nginx.log"))
}

fn files(dir: &Path) -> Vec<String> {
    let found = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    found.filter(|path| path.is_file()).map(|path| path.display().to_string()).collect()
}

fn below(dir: &Path) -> Vec<String> {
    shell(&format!("find {} -type f", dir.display())).lines().map(str::to_owned).collect()
}

fn judged(day: &Day, files: &[String]) -> Vec<Value> {
    let place = &day.place;
    let script = place.join("judge.py");
    std::fs::write(&script, JUDGE).unwrap();
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tlsrpt.schema.json");
    let python = crate::postfix::unpacked("judge").join("bin/python");
    let said = shell(&format!(
        "{}{} {} {} {} 2>{errors} || {{ cat {errors} >&2; exit 1; }}",
        day.ground.before,
        python.display(),
        script.display(),
        schema.display(),
        files.join(" "),
        errors = place.join("judge.err").display()
    ));
    serde_json::from_str(&said).unwrap()
}

#[test]
fn a_day_of_reports_received_tallied_and_reported_are_the_same() {
    in_a_room_of_its_own(|| {
        away_from_midnight();
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        let mut day = begin(place);
        let sender = sender(place);
        day.ground.run();
        shell(&format!("chmod 755 {}", place.display()));
        // The whole of a day's mail.
        let mut messages = 0;
        for (name, count, ..) in MAIL {
            for _ in 0..*count {
                sender.send(&format!("b@{name}.test"));
                messages += u64::from(*count > 0);
            }
        }
        until("all sessions are stored", || day.metric("sessions_stored") >= messages);
        let received = day.metric("sessions_received");
        assert_eq!(
            (received, day.metric("sessions_refused"), day.metric("sessions_dropped")),
            (messages, 0, 0),
            "{}",
            day.ground.log()
        );
        day.tell(&format!(
            "messages by Postfix {messages}, sessions received {received}, stored {}",
            day.metric("sessions_stored")
        ));
        // Policies in testing are looked at before the day is over.
        for name in ["mx-expired-testing", "mx-not-listed-testing"] {
            until(&format!("{name} is looked at"), || {
                day.ground.operator(&format!("reports preview {name}.test")).contains("separate handshake")
            });
        }
        let receiver = receiver(place);
        let nginx = nginx(&day);
        until("nginx serves", || shell("ss -Hltn").contains("127.0.0.10:443"));
        // Five hours into the next day every report has gone.
        let seconds: i64 = shell("date -u +%s").trim().parse().unwrap();
        let left = 86_400 - seconds.rem_euclid(86_400) + 5 * 3600;
        std::fs::write(place.join("time"), format!("+{left}")).unwrap();
        until("all reports are sent", || {
            let sent = day.sent();
            sent.len() == MAIL.len() && sent.iter().all(|report| report["state"] == "sent")
        });
        let maildir = receiver.spool().join("box/tlsrpt/new");
        until("all reports have arrived", || files(&maildir).len() == MAIL.len());
        for mail in files(&maildir) {
            // The receiving server writes down the name of the EHLO.
            let text = std::fs::read_to_string(&mail).unwrap();
            assert!(text.contains(&format!("Received: from {HELO} (")), "{text}");
        }
        let mails = judged(&day, &files(&maildir));
        compare(&mut day, &mails, messages);
        by_https(&day);
        into_our_inbox(&mut day, &maildir);
        each_once(&day, &maildir);
        drop((sender, receiver, nginx));
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        std::fs::create_dir_all(&target).unwrap();
        std::fs::write(target.join("day.txt"), &day.told).unwrap();
    });
}

/// What parsedmarc read against what was sent, domain by domain.
fn compare(day: &mut Day, mails: &[Value], messages: u64) {
    let tallied: u64 = day
        .sent()
        .iter()
        .map(|report| report["successful"].as_u64().unwrap() + report["failed"].as_u64().unwrap())
        .sum();
    let by_domain: BTreeMap<&str, &Value> =
        mails.iter().map(|policy| (about(policy["id"].as_str().unwrap()), policy)).collect();
    let mut reported = 0;
    for (name, count, kind, ok, failed, results) in MAIL {
        let seen = by_domain.get(name).unwrap_or_else(|| panic!("no report about {name}: {mails:?}"));
        let (worked, not) = (seen["ok"].as_u64().unwrap(), seen["failed"].as_u64().unwrap());
        reported += worked + not;
        let shown: Vec<&str> =
            seen["results"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        day.tell(&format!(
            "{name:<24} {count} messages; reported {kind}: {worked} worked, {not} failed {}",
            shown.join(" ")
        ));
        assert_eq!(
            (seen["type"].as_str().unwrap(), worked, not, shown.as_slice()),
            (*kind, *ok, *failed, *results),
            "{name}"
        );
        assert_eq!(seen["signed"], true, "{name}");
        // DANE policies belong to the MX host (the TLSA base domain), all others to the domain of the mail.
        let (domain, zone) = (seen["domain"].as_str().unwrap(), format!("{name}.test"));
        match *kind {
            "tlsa" => assert!(domain.ends_with(&format!(".{zone}")), "{name}: {domain}"),
            _ => assert_eq!(domain, zone, "{name}"),
        }
        let tested = name.ends_with("-testing") && *failed > 0;
        assert_eq!(
            seen["reasons"].to_string().contains("separate handshake"),
            tested,
            "{name}: {}",
            seen["reasons"]
        );
    }
    day.tell(&format!(
        "received {messages} = tallied {tallied} = reported, as parsedmarc reads it, {reported}"
    ));
    assert_eq!((tallied, reported), (messages, messages));
}

/// What nginx got, once, whole, under its media type.
fn by_https(day: &Day) {
    let bodies = below(&day.place.join("web/bodies"));
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let packed = format!("{}.json.gz", bodies[0]);
    std::fs::copy(&bodies[0], &packed).unwrap();
    let read = judged(day, &[packed]);
    assert_eq!(about(read[0]["id"].as_str().unwrap()), "good-testing");
    // nginx writes the line after it has answered.
    let log = until_some("the request is in nginx's log", || {
        Some(whole_lines(&day.place.join("web/in.log"))).filter(|log| !log.is_empty())
    });
    assert_eq!(log.trim(), "POST /in HTTP/1.1 application/tlsrpt+gzip");
}

/// An inbox of ours takes the maildir, and believes all of it.
fn into_our_inbox(day: &mut Day, maildir: &Path) {
    let config = std::fs::read_to_string(day.place.join("sternpost.toml")).unwrap();
    let ours = config.split("[answers]").next().unwrap();
    let mut text = format!("store = \"sqlite:inbox.db\"\n{ours}");
    for (name, ..) in MAIL {
        let _ = writeln!(text, "[[domain]]\nname = \"{name}.test\"");
    }
    std::fs::write(day.place.join("inbox.toml"), text).unwrap();
    let said = shell(&format!(
        "{}sternpost --config {}/inbox.toml reports import --json {}",
        day.ground.before,
        day.place.display(),
        maildir.parent().unwrap().display()
    ));
    let counts: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(
        (counts["new"].as_u64(), counts["verified"].as_u64()),
        (Some(MAIL.len() as u64), Some(MAIL.len() as u64)),
        "{said}"
    );
    day.tell(&format!("our inbox took {} reports, {} of them verified", counts["new"], counts["verified"]));
}

/// Each report went once, and every target took it at the first try.
fn each_once(day: &Day, maildir: &Path) {
    until("all are counted", || day.metric("reports_sent") >= MAIL.len() as u64);
    assert_eq!(day.metric("reports_sent"), MAIL.len() as u64);
    assert_eq!(day.metric("report_failures"), 0, "{:?}", day.sent());
    assert_eq!(files(maildir).len(), MAIL.len());
}

#[test]
fn while_the_disk_is_full_sessions_wait_in_memory_and_it_says_so() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let at = place.path().display().to_string();
        shell(&format!("mkdir {at}/disk && mount -t tmpfs -o size=8m none {at}/disk"));
        let config = "store = \"sqlite:disk/s.db\"\n[collector]\nsocket = \"s.sock\"\n[metrics]\nlisten = \"127.0.0.1:8463\"\n[dns]\nservers = [\"127.0.0.1:1\"]\n";
        std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
        let log = place.path().join("log");
        let line = format!("{} --config {at}/sternpost.toml serve", env!("CARGO_BIN_EXE_sternpost"));
        let _serving = daemon(&line, &log);
        let metric = |name: &str| {
            let all = shell("curl -s http://127.0.0.1:8463/metrics || true");
            let line =
                all.lines().find(|line| line.starts_with(&format!("sternpost_sessions_{name}_total ")));
            line.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok())
        };
        until("it serves", || metric("received") == Some(0));
        let client = std::os::unix::net::UnixDatagram::unbound().unwrap();
        client.connect(place.path().join("s.sock")).unwrap();
        let send = |from: u32, to: u32| {
            for n in from..to {
                let session =
                    format!(r#"{{"d":"d{n}.example","policies":[{{"policy-type":9,"t":0,"f":0}}]}}"#);
                client.send(session.as_bytes()).unwrap();
            }
        };
        send(0, 10);
        until("the first are stored", || metric("stored") == Some(10));
        shell(&format!("dd if=/dev/zero of={at}/disk/filler bs=1k 2>/dev/null || true"));
        send(10, 3010);
        until("the store fails", || metric("store_failures") > Some(1));
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(said.matches("sessions can't be stored").count(), 1, "it says so once: {said}");
        shell(&format!("rm {at}/disk/filler"));
        until("all are stored", || metric("stored") == Some(3010));
        assert_eq!((metric("received"), metric("dropped")), (Some(3010), Some(0)));
        shell(&format!("umount -l {at}/disk"));
    });
}
