//! Sessions for TLS reports from real mail servers and between machines: Postfix 3.10, Exim and Haraka, each configured by
//! the very lines of docs/tlsrpt-sending.md, and two Sternposts of which one hands its sessions over to the other.

use crate::exim;
use crate::ground::{Ground, block};
use crate::postfix::{Postfix, Release, unpacked};
use crate::support::{daemon, in_a_room_of_its_own, mount_over, shell, until};
use lab::pki::Cert;
use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

const PAGE: &str = "tlsrpt-sending.md";

fn metric_at(address: &str, name: &str) -> Option<u64> {
    let all = shell(&format!("curl -s http://{address}/metrics || true"));
    let line = all.lines().find(|line| line.starts_with(&format!("sternpost_{name}_total ")));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok())
}

fn metric(name: &str) -> u64 {
    metric_at("127.0.0.1:8463", name).unwrap_or(0)
}

/// Policy type, successful and failed sessions of the report about a domain.
fn preview(ground: &Ground, name: &str) -> (String, u64, u64) {
    let report: Value =
        serde_json::from_str(&ground.operator(&format!("reports preview {name}.test --raw"))).unwrap();
    let policy = &report["policies"][0];
    let count = |name: &str| policy["summary"][name].as_u64().unwrap();
    let kind = policy["policy"]["policy-type"].as_str().unwrap().to_owned();
    (kind, count("total-successful-session-count"), count("total-failure-session-count"))
}

const REPORTER: &str = "[reporter]\nfrom = \"tlsrpt@good-enforce.test\"\ndeliver = \"folder:out\"\n";

#[test]
fn rpt_18_with_the_documented_transport_sessions_that_deliver_reports_are_not_reported() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        let mut ground = Ground::new(place, &["good-enforce"], "good-enforce");
        let own = place.join("sender");
        ground.configure(
            "",
            &format!(
                "[answers]\nlisten = [\"127.0.0.1:8461\"]\ncontrol = \"sternpost.sock\"\n[collector]\nsocket = \"{}/spool/run/tlsrpt/tlsrpt.sock\"\n[metrics]\nlisten = \"127.0.0.1:8463\"\n",
                own.display()
            ),
        );
        std::fs::create_dir_all(&own).unwrap();
        std::fs::copy(place.join("ca.pem"), own.join("ca.pem")).unwrap();
        let lines = block("postfix.md", "main.cf 3.10") + &block(PAGE, "main.cf reports");
        let lines = format!("{lines}smtp_connection_cache_on_demand = no\n");
        let postfix = Postfix::start_with(Release::V3_10, &own, &lines, &block(PAGE, "master.cf reports"));
        ground.run();
        shell(&format!("chmod 755 {}", place.display()));
        let to = "b@good-enforce.test";
        let send = |from: &str| {
            let line = format!("printf \"Subject: hello\\n\\nhello\\n\" | sendmail -f {from} {to}");
            let fate = postfix.after(to, || drop(postfix.run(&line)));
            assert!(fate.contains("status=sent"), "{fate}");
        };
        // The session of the report comes first, so its datagram would be there when that of the other mail is.
        send("tlsrpt@example.org");
        send("a@sender.test");
        until("the other mail is counted", || metric("sessions_stored") > 0);
        assert_eq!(metric("sessions_received"), 1, "{}", ground.log());
        // Without the map, the session of the report is counted too: a datagram does not name the sender.
        postfix.run("postconf -X sender_dependent_default_transport_maps && postfix reload");
        until("the report is counted", || {
            // The first of these may still be delivered by the settings from before.
            send("tlsrpt@example.org");
            metric("sessions_received") >= 2
        });
    });
}

#[test]
fn sessions_in_the_log_of_a_real_exim_count_once_under_their_policies() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let root = unpacked("exim");
        let expected = [
            ("good-enforce", ("sts", 1, 0)),
            ("mx-expired", ("sts", 0, 1)),
            ("mx-no-starttls", ("sts", 0, 1)),
            ("no-mta-sts", ("no-policy-found", 1, 0)),
            ("plain-no-starttls", ("no-policy-found", 0, 1)),
            ("dane-ee", ("tlsa", 1, 0)),
            ("dane-mismatch", ("tlsa", 0, 1)),
        ];
        let names = expected.map(|(name, _)| name);
        let mut ground = Ground::new(place.path(), &names, "good-enforce");
        exim::configure(place.path(), &root);
        let lines =
            format!("[answers]\nlines = [\"unix:{}/spool/lines.sock\"]\n{REPORTER}", place.path().display());
        ground.configure("", &lines);
        ground.run();
        for name in names {
            let send = format!(
                "printf \"Subject: hello\\n\\nhello\\n\" | exim4 -odf -f a@sender.test b@{name}.test"
            );
            shell(&format!("chroot {} bash -c '{send}' 2>&1 || true", root.display()));
        }
        let log = place.path().join("spool/log-main");
        let collect = format!("reports collect --exim-log {}", log.display());
        assert_eq!(ground.operator(&collect).trim(), "Sessions counted: 7.");
        assert_eq!(ground.operator(&collect).trim(), "Sessions counted: 0.");
        let text = std::fs::read_to_string(&log).unwrap();
        for (name, (kind, ok, failed)) in expected {
            assert_eq!(preview(&ground, name), (kind.to_owned(), ok, failed), "{name}\n{text}");
        }
    });
}

/// Lets Haraka take mail from anybody on this machine.
const RELAY: &str = "exports.hook_mail = function (next, connection) { connection.relaying = true; next(OK) }\n\
    exports.hook_rcpt = function (next, connection) { connection.relaying = true; next(OK) }\n";

#[test]
fn a_session_of_haraka_that_the_collector_refuses_costs_only_itself() {
    let test = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/haraka/sternpost.test.js");
    let run = std::process::Command::new("node").arg(test).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn a_real_haraka_hands_its_sessions_over_by_the_plugin() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let haraka = unpacked("haraka").join("node_modules/Haraka");
        let mut ground = Ground::new(place.path(), &["good-enforce", "plain-no-starttls"], "good-enforce");
        ground.configure(
            "",
            &format!(
                "[answers]\nlisten = [\"127.0.0.1:8461\"]\n[collector]\nsocket = \"s.sock\"\nhttp = \"127.0.0.1:8464\"\n[metrics]\nlisten = \"127.0.0.1:8463\"\n{REPORTER}"
            ),
        );
        ground.run();
        // The policy is in the store once somebody has asked for it.
        ground.until_answered("good-enforce", "secure");
        let own = place.path().join("haraka");
        for folder in ["config", "plugins", "queue"] {
            std::fs::create_dir_all(own.join(folder)).unwrap();
        }
        let write = |file: &str, text: &str| std::fs::write(own.join(file), text).unwrap();
        write("plugins/relay.js", RELAY);
        write("config/plugins", "relay\nsternpost\n");
        write("config/smtp.ini", "listen=127.0.0.1:2600\nnodes=0\n");
        write("config/outbound.ini", "local_mx_ok=true\nenable_tls=true\n");
        write("config/me", "sender.test\n");
        write("config/sternpost.ini", &block(PAGE, "ini haraka"));
        std::fs::copy(haraka.join("config/connection.ini"), own.join("config/connection.ini")).unwrap();
        let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/haraka/sternpost.js");
        std::fs::copy(plugin, own.join("plugins/sternpost.js")).unwrap();
        std::fs::write(place.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        mount_over(&place.path().join("resolv.conf"), Path::new("/etc/resolv.conf"));
        let log = place.path().join("haraka.log");
        let _haraka = daemon(&format!("node {}/bin/haraka -c {}", haraka.display(), own.display()), &log);
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        until("Haraka listens", || shell("ss -Hltn").contains("127.0.0.1:2600"));
        for name in ["good-enforce", "plain-no-starttls"] {
            shell(&format!(
                "swaks --server 127.0.0.1:2600 --helo sender.test --from a@sender.test --to b@{name}.test --silent 2"
            ));
        }
        until("both sessions are counted", || metric("sessions_stored") >= 2);
        assert_eq!(preview(&ground, "good-enforce"), ("sts".to_owned(), 1, 0), "{}", said());
        assert_eq!(preview(&ground, "plain-no-starttls"), ("no-policy-found".to_owned(), 0, 1), "{}", said());
    });
}

#[test]
fn a_second_machine_hands_its_sessions_over_and_keeps_them_while_the_first_is_down() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        let mut ground = Ground::new(place, &["good-enforce"], "good-enforce");
        let mx = "good-enforce.test. 300 IN MX 10 mx1.good-enforce.test.";
        let host = "reports.good-enforce.test";
        ground.names.change("good-enforce.test.", mx, &format!("{mx}\n{host}. 300 IN A 127.0.0.10"));
        let identity = ground.lab.pki.issue(host, Cert::Good).unwrap();
        std::fs::write(place.join("fullchain.pem"), identity.chain_pem()).unwrap();
        std::fs::write(place.join("key.pem"), identity.key_pem()).unwrap();
        std::fs::write(place.join("collector.token"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let at = place.display().to_string();
        let lines = |mark: &str| {
            let text = block(PAGE, mark).replace("/etc/sternpost", &at).replace("reports.example.org", host);
            // Each machine of the test has a store of its own.
            text.strip_prefix("store = \"sqlite:/var/lib/sternpost/sternpost.db\"\n\n").unwrap().to_owned()
        };
        ground.configure(
            "",
            &format!(
                "{}socket = \"b.sock\"\n[metrics]\nlisten = \"127.0.0.1:8473\"\n",
                lines("toml sending machine")
            ),
        );
        let sending = std::fs::read_to_string(place.join("sternpost.toml")).unwrap();
        std::fs::write(place.join("sending.toml"), format!("store = \"sqlite:b.db\"\n{sending}")).unwrap();
        ground.configure(
            "",
            &format!(
                "[answers]\nlisten = [\"127.0.0.1:8461\"]\n{}socket = \"a.sock\"\n{REPORTER}[metrics]\nlisten = \"127.0.0.1:8463\"\n",
                lines("toml reporting machine")
            ),
        );
        ground.run();
        let log = place.join("b.log");
        let program = env!("CARGO_BIN_EXE_sternpost");
        let second = daemon(&format!("{program} --config {at}/sending.toml serve"), &log);
        let at_second = |name: &str| metric_at("127.0.0.1:8473", name);
        until("the second machine serves", || at_second("sessions_received") == Some(0));
        let client = UnixDatagram::unbound().unwrap();
        client.connect(place.join("b.sock")).unwrap();
        let send = |count: u32| {
            for _ in 0..count {
                client
                    .send(br#"{"d":"good-enforce.test","policies":[{"policy-type":9,"t":0,"f":0}]}"#)
                    .unwrap();
            }
        };
        send(100);
        until("they are counted on the first machine", || metric("sessions_stored") == 100);
        ground.stop();
        send(50);
        until("they wait", || at_second("forward_failures") > Some(0));
        ground.run();
        until("they are counted too", || metric("sessions_stored") == 50);
        assert_eq!(preview(&ground, "good-enforce"), ("no-policy-found".to_owned(), 150, 0));
        // The second machine counts them once it has the answer of the first.
        until("all are forwarded", || at_second("sessions_forwarded") == Some(150));
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(at_second("sessions_lost"), Some(0), "{said}");
        // Without the token, nothing is taken.
        let answer = shell(&format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --cacert {at}/ca.pem --resolve {host}:8464:127.0.0.10 -H 'Content-Type: application/json' -d '[]' https://{host}:8464/v1/sessions"
        ));
        assert_eq!(answer.trim(), "401");
        drop(second);
    });
}
