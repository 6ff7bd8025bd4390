//! `[guard]` over a domain of the lab, with real names and a webhook: an MX host that the policy does not
//! name is told and, where that is allowed, repaired; what is over is told too.

use crate::ground::Ground;
use crate::patience::whole_lines;
use crate::postfix::unpacked;
use crate::support::{Running, daemon, in_a_room_of_its_own, mount_over, shell, until, until_some};
use lab::pki::{Cert, Pki};
use std::path::Path;

/// Takes what is POSTed, one body a line.
const WEBHOOK: &str = "
import http.server, sys
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length'])).decode()
        open(sys.argv[1], 'a').write(body + '\\n')
        self.send_response(204); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(('127.0.0.1', 8099), Hook).serve_forever()
";

/// Exim as a relay that wants a name and a password, at relay.test; what it takes goes into a file.
fn relay(place: &Path, pki: &Pki) -> Running {
    let root = unpacked("exim");
    for folder in ["etc", "spool"] {
        std::fs::create_dir_all(place.join(folder)).unwrap();
    }
    let identity = pki.issue("relay.test", Cert::Good).unwrap();
    std::fs::write(place.join("spool/relay.pem"), identity.chain_pem()).unwrap();
    std::fs::write(place.join("spool/relay.key"), identity.key_pem()).unwrap();
    let config = "primary_hostname = relay.test\nlocal_interfaces = 127.0.0.90\ndaemon_smtp_ports = 587\ndisable_ipv6\nhost_lookup =\nnever_users =\n\
         log_file_path = /var/spool/exim4/log-%s\npid_file_path = /var/spool/exim4/pid\ntls_advertise_hosts = *\ntls_certificate = /var/spool/exim4/relay.pem\n\
         tls_privatekey = /var/spool/exim4/relay.key\nauth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}\nacl_smtp_rcpt = rcpt\nacl_smtp_data = data\n\
         begin acl\nrcpt:\n  accept authenticated = *\n  deny message = log in first\ndata:\n  accept\n\
         begin routers\nall:\n  driver = accept\n  transport = file\n\
         begin transports\nfile:\n  driver = appendfile\n  file = /var/spool/exim4/taken\n  user = Debian-exim\n\
         begin authenticators\nplain:\n  driver = plaintext\n  public_name = LOGIN\n  server_prompts = <| Username: | Password:\n\
         \x20 server_condition = ${if and{{eq{$auth1}{alerts}}{eq{$auth2}{open sesame}}}}\n  server_set_id = $auth1\n";
    std::fs::write(place.join("etc/exim4.conf"), config).unwrap();
    mount_over(&place.join("etc"), &root.join("etc/exim4"));
    mount_over(&place.join("spool"), &root.join("var/spool/exim4"));
    shell(&format!("chroot {} chown -R Debian-exim /var/spool/exim4", root.display()));
    let running = daemon(&format!("chroot {} exim4 -bdf -q1s", root.display()), &place.join("exim.log"));
    until("the relay listens", || std::net::TcpStream::connect("127.0.0.90:587").is_ok());
    running
}

fn told(path: &Path) -> Vec<serde_json::Value> {
    whole_lines(path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The metrics of the running program; nothing while it can't be reached.
fn metrics() -> String {
    shell("curl -s http://127.0.0.1:8463/metrics || true")
}

#[test]
fn what_another_process_is_just_writing_is_not_read_until_its_line_is_whole() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (written, whole) in
        [("", 0), ("{\"a\":", 0), ("{\"a\":1}", 0), ("{\"a\":1}\n{\"b", 1), ("{}\n{}\n", 2)]
    {
        std::fs::write(file.path(), written).unwrap();
        assert_eq!(told(file.path()).len(), whole, "{written}");
    }
    assert_eq!(told(Path::new("/nonexistent")).len(), 0);
}

#[test]
fn an_mx_host_past_the_plan_is_told_to_the_webhook_with_its_remedy_and_so_is_its_end() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut ground = Ground::new(place.path(), &["good-enforce", "good-testing"], "good-enforce");
        let alerts = place.path().join("alerts");
        let exim = place.path().join("relay");
        std::fs::create_dir_all(&exim).unwrap();
        std::fs::write(exim.join("hosts"), "127.0.0.90 relay.test\n").unwrap();
        mount_over(&exim.join("hosts"), Path::new("/etc/hosts"));
        let _relay = relay(&exim, &ground.lab.pki);
        std::fs::write(place.path().join("relay.password"), "open says me\n").unwrap();
        std::fs::write(place.path().join("hook.py"), WEBHOOK).unwrap();
        ground.configure(
            "",
            "[[domain]]\nname = \"good-enforce.test\"\n[guard]\nevery = 1\nwebhook = \"http://127.0.0.1:8099/\"\n\
             mail = [\"ops@example.org\"]\nmail_from = \"sternpost@example.org\"\nmail_deliver = \"smarthost:relay.test:587\"\nmail_user = \"alerts\"\nmail_password_file = \"relay.password\"\n[metrics]\nlisten = \"127.0.0.1:8463\"\n[answers]\n",
        );
        // The first look takes what is there into the standing.
        let planned = ground.operator("plan good-enforce.test");
        assert!(planned.contains("in the desired state (enforce)"), "{planned}");
        ground.run();
        until("the guard watches", || ground.log().contains("guard started"));
        let record = "good-enforce.test. 300 IN MX 10 mx1.good-enforce.test.";
        let other = "good-enforce.test. 300 IN MX 20 mx1.good-testing.test.";
        ground.names.change("good-enforce.test.", record, &format!("{record}\n{other}"));
        let is = |event: &str, kind: &str| {
            told(&alerts).into_iter().find(|told| told["event"] == event && told["alert"]["kind"] == kind)
        };
        // News waits for a webhook that is away.
        until("the webhook is missed", || ground.log().contains("the webhook can't be reached"));
        for line in [
            "sternpost_alerts{kind=\"mx-uncovered\"} 1",
            "sternpost_alerts{kind=\"record-gone\"} 0",
            "sternpost_domain_alerts{domain=\"good-enforce.test\",kind=\"mx-uncovered\"} 1",
        ] {
            until(line, || metrics().contains(line));
        }
        // A wrong password is told, and not shown.
        until("the relay refuses", || ground.log().contains("AUTH was refused: 535"));
        assert!(!ground.log().contains("open says me") && !ground.log().contains("b3BlbiBzYXlzIG1l"));
        assert!(ground.log().contains("mx1.good-testing.test is an MX host"), "{}", ground.log());
        ground.stop();
        std::fs::write(place.path().join("relay.password"), "open sesame\n").unwrap();
        ground.run();
        let mail = until_some("it is mailed with its remedy", || {
            Some(whole_lines(&exim.join("spool/taken"))).filter(|mail| mail.contains("What to do:"))
        });
        assert!(mail.contains("good-enforce.test"), "{mail}");
        let _hook = daemon(
            &format!("python3 {}/hook.py {}", place.path().display(), alerts.display()),
            &place.path().join("hook.log"),
        );
        let alert = until_some("the alert comes", || is("raised", "mx-uncovered"));
        assert_eq!(alert["domain"], "good-enforce.test");
        assert!(alert["alert"]["remedy"].as_str().unwrap().contains("sternpost apply good-enforce.test"));
        ground.names.change("good-enforce.test.", &format!("{other}\n"), "");
        until("its end is told", || is("over", "mx-uncovered").is_some());
        // Told once each, however often it was looked at.
        let raised = told(&alerts)
            .iter()
            .filter(|told| told["event"] == "raised" && told["alert"]["kind"] == "mx-uncovered")
            .count();
        assert_eq!(raised, 1);
    });
}

#[test]
fn what_is_wrong_with_certificates_records_and_policy_hosts_is_told_by_its_kind() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let domains = ["good-enforce", "mx-expired", "mx-expiring", "cert-expiring"];
        let mut ground = Ground::new(place.path(), &domains, "good-enforce");
        let wanted = domains.map(|domain| format!("[[domain]]\nname = \"{domain}.test\"\n")).concat();
        ground.configure(
            "",
            &format!("{wanted}[guard]\nevery = 1\n[metrics]\nlisten = \"127.0.0.1:8463\"\n[answers]\n"),
        );
        // The first look takes what is there into the standing.
        ground.operator("plan");
        ground.run();
        let line = |domain: &str, kind: &str| format!("{{domain=\"{domain}.test\",kind=\"{kind}\"}} 1");
        let stands = |domain: &str, kind: &str| metrics().contains(&line(domain, kind));
        for (domain, kind) in [
            ("mx-expired", "mx-unverified"),
            ("mx-expiring", "mx-certificate-ends"),
            ("cert-expiring", "policy-certificate-ends"),
        ] {
            let alerts = until_some(kind, || Some(metrics()).filter(|all| all.contains(&line(domain, kind))));
            for other in domains.iter().filter(|other| **other != domain) {
                assert!(!alerts.contains(&line(other, kind)), "{other} has {kind}: {alerts}");
            }
        }
        let (name, other) = ("_mta-sts.good-enforce.test. ", "_gone.good-enforce.test. ");
        ground.names.change("good-enforce.test.", name, other);
        until("the record is missed", || stands("good-enforce", "record-gone"));
        ground.names.change("good-enforce.test.", other, name);
        until("it is there again", || {
            let metrics = metrics();
            metrics.contains("sternpost_alerts{") && !metrics.contains(&line("good-enforce", "record-gone"))
        });
        ground.lab.sites.block("mta-sts.good-enforce.test", true);
        until("the policy is missed", || stands("good-enforce", "policy-unserved"));
        ground.lab.sites.block("mta-sts.good-enforce.test", false);
        until("all is well again", || {
            let metrics = metrics();
            metrics.contains("sternpost_alerts{") && !metrics.contains("{domain=\"good-enforce.test\"")
        });
        let log = ground.log();
        assert!(log.contains("alert ended") && log.contains("certificate"), "{log}");
    });
}
