//! Several processes with one store in PostgreSQL: each alert is announced once and each report is sent once, also when one of
//! them is killed or stands still, and when the clock of one is ten minutes ahead.

use crate::ground::Ground;
use crate::patience::{until_ready, whole_lines};
use crate::postgresql::Server;
use crate::support::{
    Running, by_a_clock_of_its_own, daemon, in_a_room_of_its_own, shell, until, until_some,
};
use formats::DomainName;
use formats::report::{DateRange, PolicyReport};
use formats::result_type::PolicyType;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A process of Sternpost with a configuration, a folder and ports of its own.
struct Node {
    folder: PathBuf,
    metrics: u16,
    running: Running,
}

impl Node {
    /// Starts a process. `before` stands before it in the command line.
    fn start(place: &Path, name: &str, metrics: u16, before: &str, sections: &str) -> Self {
        Self::start_with(place, name, metrics, before, sections, "127.0.0.1:53")
    }

    /// Starts a process with this resolver.
    fn start_with(
        place: &Path,
        name: &str,
        metrics: u16,
        before: &str,
        sections: &str,
        resolver: &str,
    ) -> Self {
        let folder = place.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let at = place.display();
        let config = format!(
            "store = \"postgres://sternpost@127.0.0.1:5501/sternpost\"\nstore_migrate = true\nstate_folder = \"{}\"\n\
             [dns]\nservers = [\"{resolver}\"]\ntrust_anchor = \"{at}/names/root.key\"\ndnssec = \"validate\"\n\
             [trust]\nca_file = \"{at}/ca.pem\"\nallow_private_addresses = true\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n{sections}",
            folder.display()
        );
        let file = folder.join("sternpost.toml");
        std::fs::write(&file, config).unwrap();
        let log = folder.join("log");
        let line = format!("{before}{} --config {} serve", env!("CARGO_BIN_EXE_sternpost"), file.display());
        let mut running = daemon(&line, &log);
        until_ready(&mut running.0, &log);
        Self { folder, metrics, running }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The value of a metric without labels; `None` while the process can't be reached.
    fn metric(&self, name: &str) -> Option<f64> {
        let all = shell(&format!("curl -s http://127.0.0.1:{}/metrics || true", self.metrics));
        all.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    fn pid(&self) -> u32 {
        self.running.0.id()
    }

    fn signal(&self, signal: &str) {
        shell(&format!("kill -{signal} {}", self.pid()));
    }

    /// The number of checks that the process has begun.
    fn looks(&self) -> f64 {
        self.metric("sternpost_guard_looks_total ").unwrap_or_default()
    }

    /// Ends the process as a crash does.
    fn kill(&mut self) {
        self.running.0.kill().unwrap();
        self.running.0.wait().unwrap();
    }
}

/// Takes what is POSTed, one line a request: the ID and the body.
pub const WEBHOOK: &str = "
import http.server, sys
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length'])).decode()
        open(sys.argv[1], 'a').write(self.headers['webhook-id'] + ' ' + body + '\\n')
        self.send_response(204); self.end_headers()
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(('127.0.0.1', 8099), Hook).serve_forever()
";

/// The events of a kind that the webhook got, and their IDs.
fn told(path: &Path, event: &str) -> Vec<String> {
    let is_it = |line: &&str| {
        let (_, body) = line.split_once(' ').unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["event"] == event && body["alert"]["kind"] == "mx-uncovered"
    };
    whole_lines(path).lines().filter(is_it).map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// The process that keeps the alerts, and the fence of its lease. `None` while there is none.
fn keeper(server: &Server) -> Option<(u32, i64)> {
    let select =
        "SELECT split_part(holder, ' ', 2) || ' ' || fence FROM lease WHERE name = 'leader guard-alerts'";
    let row = server.sql("sternpost", select);
    let (pid, fence) = row.trim_end().split_once(' ')?;
    Some((pid.parse().ok()?, fence.parse().ok()?))
}

#[test]
fn a_node_that_stood_still_changes_no_alert_and_a_node_whose_clock_is_ahead_takes_no_lease() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut ground = Ground::new(place.path(), &["good-enforce", "good-testing"], "good-enforce");
        // Before PostgreSQL begins to use shared memory.
        let ahead = by_a_clock_of_its_own(place.path());
        std::fs::write(place.path().join("time"), "+600").unwrap();
        let server = Server::new(place.path(), 5501);
        let hooked = place.path().join("hooked");
        std::fs::write(place.path().join("hook.py"), WEBHOOK).unwrap();
        let line = format!("python3 {}/hook.py {}", place.path().display(), hooked.display());
        let _hook = daemon(&line, &place.path().join("hook.log"));
        let sections = "[[domain]]\nname = \"good-enforce.test\"\n[[domain]]\nname = \"good-testing.test\"\n\
             [guard]\nevery = 1\nwebhook = \"http://127.0.0.1:8099/\"\n";
        let first = "store = \"postgres://sternpost@127.0.0.1:5501/sternpost\"\nstore_migrate = true\nstate_folder = \".\"\n";
        ground.configure(first, sections);
        ground.operator("plan");
        // Its own checks fail, since it has no resolver. So what its alerts say was found by the other one.
        let one = Node::start_with(place.path(), "one", 8463, "", sections, "127.0.0.1:1");
        let fence = until_some("the first keeps the alerts", || {
            keeper(&server).filter(|(pid, _)| *pid == one.pid()).map(|(_, fence)| fence)
        });
        let two = Node::start(place.path(), "two", 8563, &ahead, sections);
        let record = "good-enforce.test. 300 IN MX 10 mx1.good-enforce.test.";
        let other = "good-enforce.test. 300 IN MX 20 mx1.good-testing.test.";
        ground.names.change("good-enforce.test.", record, &format!("{record}\n{other}"));
        until("the alert is announced", || !told(&hooked, "raised").is_empty());
        assert_eq!(keeper(&server), Some((one.pid(), fence)), "a clock that is ahead ends no lease");

        one.signal("STOP");
        until("the other one keeps the alerts", || keeper(&server) == Some((two.pid(), fence + 1)));
        ground.names.change("good-enforce.test.", &format!("{other}\n"), "");
        until("its end is announced", || !told(&hooked, "over").is_empty());
        one.signal("CONT");
        until("the first stops its jobs", || one.log().contains("this node stops the job"));
        let (before, of_two) = (one.looks(), two.looks());
        until("both check domains", || one.looks() > before && two.looks() > of_two + 4.0);
        assert_eq!((told(&hooked, "raised").len(), told(&hooked, "over").len()), (1, 1), "{}", one.log());
        assert_eq!(keeper(&server), Some((two.pid(), fence + 1)));

        two.signal("TERM");
        until("the first keeps the alerts again", || keeper(&server) == Some((one.pid(), fence + 2)));
        for node in [&one, &two] {
            assert!(!node.log().contains("panicked"), "{}", node.log());
        }
        ground.stop();
    });
}

#[test]
fn two_processes_watch_the_same_domains_and_an_alert_of_one_that_is_killed_is_ended_by_the_other() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut ground = Ground::new(place.path(), &["good-enforce", "good-testing"], "good-enforce");
        let server = Server::new(place.path(), 5501);
        let hooked = place.path().join("hooked");
        std::fs::write(place.path().join("hook.py"), WEBHOOK).unwrap();
        let line = format!("python3 {}/hook.py {}", place.path().display(), hooked.display());
        let _hook = daemon(&line, &place.path().join("hook.log"));
        let sections = "[[domain]]\nname = \"good-enforce.test\"\n[[domain]]\nname = \"good-testing.test\"\n\
             [guard]\nevery = 1\nwebhook = \"http://127.0.0.1:8099/\"\n";
        let first = "store = \"postgres://sternpost@127.0.0.1:5501/sternpost\"\nstore_migrate = true\nstate_folder = \".\"\n";
        ground.configure(first, sections);
        // The first look takes what is there into the standing.
        ground.operator("plan");
        let mut nodes = vec![
            Node::start(place.path(), "one", 8463, "", sections),
            Node::start(place.path(), "two", 8563, "", sections),
        ];
        let all_looks = |nodes: &[Node]| nodes.iter().map(Node::looks).sum::<f64>();
        until("domains are checked", || all_looks(&nodes) >= 4.0);
        let record = "good-enforce.test. 300 IN MX 10 mx1.good-enforce.test.";
        let other = "good-enforce.test. 300 IN MX 20 mx1.good-testing.test.";
        ground.names.change("good-enforce.test.", record, &format!("{record}\n{other}"));
        until("the alert is announced", || !told(&hooked, "raised").is_empty());
        // More checks, after which it is still announced once.
        let before = all_looks(&nodes);
        until("there are further checks", || all_looks(&nodes) > before + 6.0);
        // The one that keeps the alerts is killed.
        let (pid, _) = keeper(&server).unwrap();
        let place_of = nodes.iter().position(|node| node.pid() == pid).unwrap();
        let mut killed = nodes.remove(place_of);
        killed.kill();
        ground.names.change("good-enforce.test.", &format!("{other}\n"), "");
        until("its end is announced", || !told(&hooked, "over").is_empty());
        let before = nodes[0].looks();
        until("the other checks all", || nodes[0].looks() > before + 4.0);
        assert_eq!(
            (told(&hooked, "raised").len(), told(&hooked, "over").len()),
            (1, 1),
            "{}",
            nodes[0].log()
        );
        assert!(!nodes[0].log().contains("panicked"), "{}", nodes[0].log());
        ground.stop();
    });
}

/// Accepts a mail, after a while: writes the ID of the mail and of the process that sent it.
const SENDMAIL: &str = "#!/bin/sh
id=$(tr -d '\\r' | grep -m1 '^Message-ID:')
sleep 0.2
echo \"$PPID $id\" >>OUT
";

const REPORTS: usize = 40;

/// A store with sessions of the day before yesterday, for reports to so many domains.
pub fn sessions(file: &Path, reports: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = store::Store::open(file, store::Tenant::FIRST).await.unwrap();
        let ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(48);
        for number in 0..reports {
            let entry = PolicyReport {
                policy_type: PolicyType::NoPolicyFound,
                policy_string: vec![],
                policy_domain: Some(DomainName::parse(&format!("d{number}.test")).unwrap()),
                mx_host: vec![],
                successful: 3,
                failed: 0,
                details: vec![],
            };
            store.add_to_tally(DateRange::utc_day(ago).start, &[entry]).await.unwrap();
        }
        store.close().await;
    });
}

#[test]
fn reports_of_a_process_that_is_killed_are_sent_by_the_other_each_once_although_a_clock_is_ahead() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let _ground = Ground::new(place.path(), &["good-enforce"], "good-enforce");
        // Before PostgreSQL begins to use shared memory.
        let ahead = by_a_clock_of_its_own(place.path());
        std::fs::write(place.path().join("time"), "+600").unwrap();
        let server = Server::new(place.path(), 5501);
        sessions(&place.path().join("s.db"), REPORTS);
        shell(&format!(
            "printf 'store = \"sqlite:{at}/s.db\"\\n' >{at}/copy.toml && sternpost --config {at}/copy.toml store copy sqlite:{at}/s.db postgres://sternpost@127.0.0.1:5501/sternpost",
            at = place.path().display()
        ));
        let (sent, script) = (place.path().join("sent"), place.path().join("sendmail"));
        std::fs::write(&script, SENDMAIL.replace("OUT", &sent.display().to_string())).unwrap();
        shell(&format!("chmod 755 {}", script.display()));
        let sections = format!(
            "[reporter]\nfrom = \"tlsrpt@good-enforce.test\"\ndeliver = \"sendmail:{}\"\n\
             [[reporter.targets]]\ndomain = \"*\"\nsend_to = [\"mailto:reports@good-enforce.test\"]\n",
            script.display()
        );
        let mut nodes = vec![
            Node::start(place.path(), "one", 8463, "", &sections),
            Node::start(place.path(), "two", 8563, &ahead, &sections),
        ];
        let lines = || whole_lines(&sent).lines().map(str::to_owned).collect::<Vec<_>>();
        let first = until_some("some reports are sent", || Some(lines()).filter(|lines| lines.len() > 5));
        let pid: u32 = first[0].split(' ').next().unwrap().parse().unwrap();
        let place_of = nodes.iter().position(|node| node.pid() == pid).unwrap();
        nodes.remove(place_of).kill();
        let at_the_kill = lines();
        assert!(at_the_kill.iter().all(|line| line.starts_with(&format!("{pid} "))), "{at_the_kill:?}");
        assert!(at_the_kill.len() < REPORTS, "all were sent before the kill");
        // The claims of the killed process end after a quarter of an hour, which the test does not wait for.
        server.sql("sternpost", "UPDATE outgoing SET due = due - 900 WHERE state = 'waiting'");
        until("all reports are sent", || {
            server.sql("sternpost", "SELECT count(*) FROM outgoing WHERE state = 'sent'").trim()
                == REPORTS.to_string()
        });
        let all = lines();
        let ids: BTreeSet<&str> =
            all.iter().filter_map(|line| line.split_once("Message-ID:")).map(|(_, id)| id).collect();
        assert_eq!(ids.len(), REPORTS);
        // Twice only what was under way at the kill.
        let again = all.len() - ids.len();
        println!("{} sent before the kill, {again} of {REPORTS} again after it", at_the_kill.len());
        assert!(again <= formats::limits::REPORTS_PER_HOST, "{again} were sent again");
    });
}
