//! `/metrics` and `/readyz` of a running program with every role: every row of the table of metrics is shown and nothing else,
//! and failed sign-ins are in the log in the form that docs/monitoring.md documents.

use super::*;
use lab::pki::Cert;
use net::metrics::{MetricType, TABLE, Values};
use std::collections::{BTreeMap, BTreeSet};

const DOMAIN: &str = "good-enforce.test";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A program with every role, at these addresses.
struct Everything {
    place: Place,
    running: Running,
    host: SocketAddr,
    smtp: SocketAddr,
    dashboard: SocketAddr,
    admin: SocketAddr,
    sessions: SocketAddr,
}

/// A report of today with failures, which the operator vouches for.
fn report() -> String {
    let today = SystemClock.now().strftime("%Y-%m-%d");
    format!(
        r#"{{"organization-name":"Big","date-range":{{"start-datetime":"{today}T00:00:00Z","end-datetime":"{today}T23:59:59Z"}},"contact-info":"tls@big.example","report-id":"1","policies":[{{"policy":{{"policy-type":"sts","policy-string":["version: STSv1"],"policy-domain":"{DOMAIN}","mx-host":["mx1.{DOMAIN}"]}},"summary":{{"total-successful-session-count":90,"total-failure-session-count":10}},"failure-details":[{{"result-type":"certificate-expired","receiving-mx-hostname":"mx1.{DOMAIN}","failed-session-count":10}}]}}]}}"#
    )
}

impl Everything {
    fn new() -> Self {
        let place = Place::new();
        let [host, smtp, dashboard, admin, sessions] = [(); 5].map(|()| ports::unused());
        let identity = place.lab.pki.issue(&format!("mta-sts.{DOMAIN}"), Cert::Good).unwrap();
        for (file, text) in [
            ("host.pem", identity.chain_pem()),
            ("host-key.pem", identity.key_pem()),
            ("token", TOKEN.to_owned()),
            ("password", "secret".to_owned()),
            ("report.json", report()),
        ] {
            std::fs::write(place.path(file), text).unwrap();
        }
        place.configure(
            "",
            &format!(
                "[host]\nlisten = [\"{host}\"]\ncertificates = [{{ certificate = \"host.pem\", key = \"host-key.pem\" }}]\n\
                 [guard]\nevery = 1\nwebhook = \"http://127.0.0.1:9/\"\n\
                 [inbox]\naddresses = [\"tlsrpt@{DOMAIN}\"]\nname = \"reports.{DOMAIN}\"\nsmtp = [\"{smtp}\"]\nhttp = \"/reports\"\nwebhook = \"http://127.0.0.1:9/\"\nwebhook_private = true\n\
                 imap = {{ host = \"imap.good-enforce.test\", user = \"tlsrpt\", password_file = \"password\" }}\n\
                 [dashboard]\nlisten = [\"{dashboard}\"]\nurl = \"http://{dashboard}\"\n\
                 [admin]\nlisten = \"{admin}\"\ntoken_file = \"token\"\n\
                 [collector]\nsocket = \"tlsrpt.sock\"\nhttp = \"{sessions}\"\ntoken_file = \"token\"\n\
                 [reporter]\nfrom = \"tlsrpt@{DOMAIN}\"\ndkim = {{ selector = \"tlsrpt\", key_file = \"dkim.pem\" }}\n\
                 [[domain]]\nname = \"{DOMAIN}\"\nmode = \"enforce\"\n"
            ),
        );
        // The first look takes what is published into the state, so that the guard judges the reports.
        let (_, out, err) = place.run(&["plan", DOMAIN]);
        assert!(!out.is_empty(), "{err}");
        let (code, out, err) = place.run(&["reports", "import", "--trusted", "report.json"]);
        assert_eq!(code, 0, "{out}{err}");
        let (code, out, err) = place.run(&["reports", "key"]);
        assert_eq!(code, 0, "{out}{err}");
        let running = place.start();
        Self { place, running, host, smtp, dashboard, admin, sessions }
    }

    fn metrics(&self) -> String {
        let (status, text) = get(self.place.metrics, "/metrics");
        assert_eq!(status, 200, "{text}");
        text
    }
}

/// The families of an OpenMetrics text, each with its type and the labels of its samples.
fn families(text: &str) -> BTreeMap<String, (String, Vec<BTreeMap<String, String>>)> {
    let mut all: BTreeMap<String, (String, Vec<BTreeMap<String, String>>)> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap();
            let before = all.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
            assert!(before.is_none(), "{name} occurs twice");
            current = name.to_owned();
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&current), "{line} is not of {current}");
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.rsplit_once('}'))
                .map_or("", |(labels, _)| labels);
            let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
            let pairs = pairs.map(|pair| {
                let (name, value) = pair.split_once("=\"").unwrap();
                (name.to_owned(), value.trim_end_matches('"').to_owned())
            });
            all.get_mut(&current).unwrap().1.push(pairs.filter(|(name, _)| name != "le").collect());
        }
    }
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    all
}

/// A program that hands sessions over to another machine, and so sends no reports itself.
fn forwarding() -> (Place, Running) {
    let place = Place::new();
    std::fs::write(place.path("token"), TOKEN).unwrap();
    let role = "[collector]\nsocket = \"tlsrpt.sock\"\ntoken_file = \"token\"\nforward_to = \"https://collector.good-enforce.test/v1/sessions\"\n";
    place.configure("", role);
    let running = place.start();
    (place, running)
}

#[test]
fn metrics_show_every_row_of_the_table_and_nothing_else() {
    let everything = Everything::new();
    let expected: BTreeSet<&str> = TABLE.iter().map(|row| row.family).collect();
    let (other, _running) = forwarding();
    let missing = std::cell::RefCell::new(Vec::new());
    let shown = until_some_or(
        || format!("in vain: {:?}\n{}", missing.borrow(), everything.place.log()),
        || {
            let mut shown = families(&everything.metrics());
            let of_other = families(&get(other.metrics, "/metrics").1);
            let unknown: Vec<_> = shown
                .keys()
                .chain(of_other.keys())
                .filter(|name| !expected.contains(name.as_str()))
                .collect();
            assert!(unknown.is_empty(), "{unknown:?}");
            let is_others = |name: &str| name.contains("_forward") || name.starts_with("sternpost_sessions_");
            shown.extend(of_other.into_iter().filter(|(name, _)| is_others(name)));
            let has_samples = |name: &str| shown.get(name).is_some_and(|(_, samples)| !samples.is_empty());
            *missing.borrow_mut() =
                expected.iter().copied().filter(|name| !has_samples(name)).collect::<Vec<_>>();
            missing.borrow().is_empty().then_some(shown)
        },
    );
    for row in TABLE {
        let (kind, samples) = &shown[row.family];
        assert_eq!(kind, row.metric_type.as_str(), "{}", row.family);
        for labels in samples {
            let names: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
            assert_eq!(names, row.labels.iter().map(|label| label.name).collect(), "{}", row.family);
            for label in row.labels {
                if let Values::Listed(listed) = label.values {
                    let value = &labels[label.name];
                    assert!(listed.contains(&value.as_str()), "{}: {value}", row.family);
                }
            }
        }
        let combinations: usize = row
            .labels
            .iter()
            .map(|label| match label.values {
                Values::Listed(listed) => listed.len(),
                Values::Bounded(_) => 0,
            })
            .product();
        if combinations > 0 && row.metric_type != MetricType::Histogram {
            assert_eq!(samples.len(), combinations, "{}: not all series exist from the start", row.family);
        }
    }
    let roles = ["answers", "host", "guard", "inbox", "dashboard", "admin", "collector", "reporter"];
    let ready = roles.map(|role| format!("sternpost_role_ready{{role=\"{role}\"}} 1\n"));
    for line in [
        format!("sternpost_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")),
        format!("sternpost_domain_alerts{{domain=\"{DOMAIN}\",kind=\"reported-failure\"}} 1\n"),
    ]
    .iter()
    .chain(&ready)
    {
        everything.place.until(line, || everything.metrics().contains(line));
    }
}

#[test]
fn events_are_counted_and_prometheus_accepts_the_text_and_all_names() {
    let everything = Everything::new();
    // A client that speaks no TLS, one that is refused, and a message that is accepted.
    drop(TcpStream::connect(everything.host).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n"));
    let mut smtp = TcpStream::connect(everything.smtp).unwrap();
    let mut told = BufReader::new(smtp.try_clone().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let to = format!("tlsrpt@{DOMAIN}");
    for command in [
        "HELO a.example",
        "MAIL FROM:<a@a.example>",
        &format!("RCPT TO:<{to}>"),
        "DATA",
        "Subject: hello\r\n\r\n.",
    ] {
        write!(smtp, "{command}\r\n").unwrap();
        line.clear();
        told.read_line(&mut line).unwrap();
    }
    assert!(line.starts_with("250"), "{line}");
    let counted = |line: &str| everything.metrics().contains(&format!("{line}\n"));
    for line in [
        "sternpost_policy_host_handshakes_total{outcome=\"failed\"} 1",
        "sternpost_inbox_messages_total{protocol=\"smtp\",outcome=\"accepted\"} 1",
        "sternpost_inbox_connections{protocol=\"smtp\"} 1",
    ] {
        everything.place.until(line, || counted(line));
    }
    let (is_fine, said) = promtool(&everything.metrics());
    assert!(is_fine, "{said}");
    // What the rules forbid is found, so that the check says something.
    for (family, other) in [("gauge", "sternpost_x_total"), ("counter", "sternpost_x_milliseconds")] {
        let text = format!("# HELP {other} X.\n# TYPE {other} {family}\n{other} 1\n# EOF\n");
        assert!(!promtool(&text).0, "{text}");
    }
    let text = everything.metrics();
    let unhelpful: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("# HELP sternpost_role_ready ")).collect();
    let (is_fine, said) = promtool(&unhelpful.join("\n"));
    assert!(!is_fine && said.contains("no help text"), "{said}");
}

/// Whether Prometheus's own linter, `promtool check metrics`, accepts an OpenMetrics text, and what it says. It reads the
/// older text format, in which the family of a counter has the name of its series.
fn promtool(text: &str) -> (bool, String) {
    let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
    let older = text.lines().map(|line| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(word), Some(name), Some(rest))
                if is_counter(name) && !name.ends_with("_total") =>
            {
                format!("# {word} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        }
    });
    let older: String = older.collect();
    let mut check = Command::new("promtool");
    let check =
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // promtool is in the Debian package prometheus.
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(older.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

/// A report of 4 KB whose sums exceed the integers of the database once stopped the guard for its domain.
#[test]
fn n1_the_guard_judges_a_domain_about_which_there_is_a_report_with_huge_counts() {
    let everything = Everything::new();
    let place = &everything.place;
    let mut huge: Value = serde_json::from_str(&report()).unwrap();
    let mut entry = huge["policies"][0].clone();
    entry["summary"]["total-successful-session-count"] = (1_u64 << 53).into();
    entry["summary"]["total-failure-session-count"] = (1_u64 << 53).into();
    huge["policies"] = vec![entry; 1024].into();
    huge["contact-info"] = "tls@huge.example".into();
    for (trust, id) in [(&[][..], "anonymous"), (&["--trusted"], "trusted")] {
        huge["report-id"] = id.into();
        std::fs::write(place.path("huge.json"), huge.to_string()).unwrap();
        let (code, out, err) = place.run(&[&["reports", "import", "huge.json"], trust].concat());
        assert_eq!(code, 0, "{out}{err}");
        let looks = || {
            let text = everything.metrics();
            let line = text.lines().find_map(|line| line.strip_prefix("sternpost_guard_looks_total "));
            line.unwrap().parse::<f64>().unwrap()
        };
        // The look that began before the import, and one after it.
        let before = looks();
        place.until("the guard looks again", || looks() >= before + 2.0);
        let text = everything.metrics();
        assert!(text.contains("sternpost_guard_failed_looks_total 0\n"), "{text}\n{}", place.log());
    }
    // One sender with a failure rate of a half: the rate is seen only if the sums of the week can be read.
    let alert = format!("sternpost_domain_alerts{{domain=\"{DOMAIN}\",kind=\"failure-rate\"}} 1\n");
    place.until("the failure rate is alerted", || everything.metrics().contains(&alert));
    assert!(!place.log().contains("can't be read"), "{}", place.log());
}

#[test]
fn a_role_whose_part_fails_is_not_ready_and_the_others_are() {
    let everything = Everything::new();
    let place = &everything.place;
    let ready = |query: &str| get(place.metrics, &format!("/readyz{query}"));
    place.until("all roles are ready", || ready("") == (200, "ready\n".into()));
    assert_eq!(ready("?role=host"), (200, "ready\n".into()));
    let (status, text) = ready("?role=policy");
    assert!(status == 404 && text.contains("answers, host, guard"), "{text}");
    let (status, text) = ready("?format=json");
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &json["schema"], &json["ready"]), (200, &1.into(), &true.into()));
    assert_eq!(json["roles"].as_array().unwrap().len(), 8);
    // The store is taken away and comes back.
    std::fs::rename(place.path("sternpost.db"), place.path("aside.db")).unwrap();
    place.until("the store fails", || ready("?role=host").0 == 503);
    let (status, text) = ready("?role=host&format=json");
    let json: Value = serde_json::from_str(&text).unwrap();
    let problem = &json["roles"][0]["problems"][0];
    assert_eq!((status, &json["ready"], &problem["part"]), (503, &false.into(), &"store".into()), "{json}");
    assert!(problem["why"].as_str().unwrap().contains("removed or replaced"), "{json}");
    assert!(problem["since"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{json}");
    place.until("both roles are not ready", || {
        let (_, text) = ready("");
        text.contains("answers: not ready since ") && text.contains("host: not ready since ")
    });
    place.until("that is in the metrics", || {
        everything.metrics().contains("sternpost_role_ready{role=\"host\"} 0\n")
    });
    std::fs::rename(place.path("aside.db"), place.path("sternpost.db")).unwrap();
    place.until("the store works again", || ready("").0 == 200);
}

/// The expression of the fail2ban filter in docs/monitoring.md, as one for `grep -P`.
fn documented_filter() -> String {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/monitoring.md")).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix("failregex = ")).unwrap();
    line.replace("<HOST>", "(?<host>[0-9A-Fa-f.:]+)")
}

/// The addresses that the filter finds in a log.
fn banned(log: &str) -> Vec<String> {
    let mut grep = Command::new("perl");
    grep.args(["-ne", "print \"$+{host}\\n\" if /$ENV{FILTER}/"]).env("FILTER", documented_filter());
    let mut grep = grep.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    grep.stdin.take().unwrap().write_all(log.as_bytes()).unwrap();
    let output = grep.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn every_failed_sign_in_is_logged_with_the_address_and_the_documented_filter_finds_it() {
    let everything = Everything::new();
    let post = |address: SocketAddr, head: &str, body: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{head}\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let form = "POST /sign-in HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded";
    // The second name tries to forge a line with another address.
    for name in [
        "ann",
        "x%20address%3D198.51.100.9%0A2026-11-27T00:00:00Z%20WARN%20sign-in%20failed%20name%3Dx%20address%3D198.51.100.8",
    ] {
        assert_eq!(post(everything.dashboard, form, &format!("name={name}&password=wrong-password")), 401);
    }
    let bearer = "Authorization: Bearer guess";
    assert_eq!(post(everything.admin, &format!("GET /v1/domains HTTP/1.1\r\n{bearer}"), ""), 401);
    assert_eq!(post(everything.sessions, &format!("POST /v1/sessions HTTP/1.1\r\n{bearer}"), "{}"), 401);
    let found = || everything.place.log().matches("sign-in failed name=").count();
    everything.place.until("all four are in the log", || found() >= 4);
    let log = everything.place.log();
    assert_eq!(banned(&log), ["127.0.0.1"; 4], "{log}");
    assert!(log.contains("WARN sign-in failed name=ann address=127.0.0.1\n"), "{log}");
    assert!(log.contains("sign-in failed name=admin address=127.0.0.1\n"), "{log}");
    assert!(log.contains("sign-in failed name=collector address=127.0.0.1\n"), "{log}");
    for line in [
        "sternpost_dashboard_sign_ins_total{outcome=\"failed\"} 2",
        "sternpost_token_refusals_total{interface=\"admin\"} 1",
        "sternpost_token_refusals_total{interface=\"collector\"} 1",
        "sternpost_session_requests_total{code=\"401\"} 1",
    ] {
        everything.place.until(line, || everything.metrics().contains(&format!("{line}\n")));
    }
    let mail = "Nov 27 17:12:03 mx sternpost[7]: 2026-11-27T17:12:03.123456Z  WARN sign-in failed name=ann address=2001:db8::7";
    assert_eq!(banned(mail), ["2001:db8::7"]);
    for other in [
        "WARN sign-in failed name=a b address=192.0.2.1",
        "ERROR the name=a address=192.0.2.1 sign-in failed",
    ] {
        assert_eq!(banned(other), [] as [&str; 0], "{other}");
    }
    drop(everything.running);
}
