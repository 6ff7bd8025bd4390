//! The story of three nodes on one PostgreSQL with a standby, told by `./test cluster`. Each node has PIDs, mounts, a host name and
//! a state folder of its own, as on a machine of its own, and the clock of one is ten minutes ahead. Under load, each is killed and
//! started again, the database fails over to its standby, and one stands still for longer than its leases. What was promised is
//! counted outside of the program: at the webhook, at the mail program, and at the policy hosts. A promise that is broken fails it.

mod load;
mod nodes;
mod promises;

use crate::ground::Ground;
use crate::patience::{until_some, until_some_or};
use crate::postgresql::Server;
use crate::several::{WEBHOOK, sessions};
use crate::support::{Running, by_a_clock_of_its_own, daemon, in_a_room_of_its_own, shell, until};
use lab::Case;
use lab::policy_host::HttpBehavior;
use load::{Askers, Watcher};
use nodes::{NAMES, Node, STORE};
use promises::{Hooked, Promise};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Domains that are only watched.
const WATCHED: usize = 120;
/// Domains with an alert, one for each part of the story.
const ALERTED: usize = 5;
/// Domains that the nodes are asked about, and that no guard fetches.
const ASKED: usize = 4;
/// Reports that are to be sent: more than two nodes claim at once.
const REPORTS: usize = 1100;
/// How often each domain is checked.
const EVERY: Duration = Duration::from_secs(20);
/// How long the check of a domain is claimed for.
const CLAIM: Duration = Duration::from_secs(30);

fn names(letter: char, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{letter}{number}")).collect()
}

/// A correct domain of this name.
fn domain(pattern: &Case, name: &str) -> Case {
    let mut case = pattern.clone();
    // As in the lab's table, whose names live as long as the program.
    case.name = Box::leak(name.to_owned().into_boxed_str());
    let policy = format!("version: STSv1\r\nmode: enforce\r\nmx: mx1.{name}.test\r\nmax_age: 604800\r\n");
    case.setup.answers = HttpBehavior::Policy(policy);
    case.setup.tlsrpt_records = vec![vec![format!("v=TLSRPTv1; rua=mailto:tlsrpt@{name}.test")]];
    case
}

struct Story {
    place: PathBuf,
    ground: Ground,
    primary: Server,
    standby: Server,
    has_failed_over: bool,
    nodes: Vec<Node>,
    askers: Askers,
    watcher: Watcher,
    killed: usize,
    /// How many alerts have begun.
    alerted: usize,
    begun: Instant,
    _hook: Running,
}

#[test]
fn three_nodes_keep_what_is_promised_through_kills_a_failover_a_pause_and_a_wrong_clock() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut story = Story::begin(place.path());
        story.kill();
        story.kill();
        story.failover();
        story.kill();
        story.pause();
        let promises = story.end();
        println!("{}", promises::table(&promises));
        let broken: Vec<&Promise> = promises.iter().filter(|promise| !promise.is_kept()).collect();
        assert!(broken.is_empty(), "{broken:#?}\n{}", story.logs());
    });
}

impl Story {
    /// Everything runs, and each domain was checked.
    fn begin(place: &Path) -> Self {
        let begun = Instant::now();
        let all = lab::cases::all();
        let pattern = all.iter().find(|case| case.name == "good-enforce").unwrap();
        let guarded = [names('a', ALERTED), names('w', WATCHED)].concat();
        let every_name = [guarded.clone(), names('q', ASKED)].concat();
        let cases: Vec<Case> = every_name.iter().map(|name| domain(pattern, name)).collect();
        let ground = Ground::of(443, place, &cases, "q0");
        // Before PostgreSQL begins to use shared memory.
        let ahead = by_a_clock_of_its_own(place);
        std::fs::write(place.join("time"), "+600").unwrap();
        let (primary, standby) = replicated(place);
        sessions(&place.join("s.db"), REPORTS);
        let at = place.display();
        shell(&format!(
            "printf 'store = \"sqlite:{at}/s.db\"\\n' >{at}/copy.toml && sternpost --config {at}/copy.toml store copy sqlite:{at}/s.db {STORE}",
        ));
        std::fs::write(place.join("hook.py"), WEBHOOK).unwrap();
        let hook = daemon(&format!("python3 {at}/hook.py {at}/hooked"), &place.join("hook.log"));
        let sections = sections(&guarded);
        ground.configure(&format!("store = \"{STORE}\"\nstate_folder = \".\"\n"), &sections);
        // The first look takes what is there into the standing.
        ground.operator("plan");
        std::fs::write(place.join("pace"), "2").unwrap();
        let clock = |number| if number == 1 { ahead.as_str() } else { "" };
        let nodes: Vec<Node> =
            (0..NAMES.len()).map(|number| Node::start(place, number, clock(number), &sections)).collect();
        let askers = Askers::start(nodes.iter().map(|node| node.http), &names('q', ASKED));
        let watcher = Watcher::start(&ground.lab.sites, &names('w', WATCHED));
        watcher.until_all_are_checked();
        let story = Self {
            place: place.to_owned(),
            ground,
            primary,
            standby,
            has_failed_over: false,
            nodes,
            askers,
            watcher,
            killed: 0,
            alerted: 0,
            begun,
            _hook: hook,
        };
        story.tell("three nodes serve, and each domain was checked");
        story
    }

    fn tell(&self, what: &str) {
        println!("{:>4} s: {what}", self.begun.elapsed().as_secs());
    }

    fn logs(&self) -> String {
        self.nodes.iter().map(Node::log).collect()
    }

    /// Rows of the server that accepts writes.
    fn sql(&self, statement: &str) -> String {
        let server = if self.has_failed_over { &self.standby } else { &self.primary };
        server.sql("sternpost", statement).trim().to_owned()
    }

    /// The node that keeps the alerts.
    fn keeper(&self) -> usize {
        let holder = "SELECT split_part(holder, ' ', 1) FROM lease WHERE name = 'leader guard-alerts'";
        until_some("a node keeps the alerts", || {
            let holder = self.sql(holder);
            NAMES.iter().position(|name| *name == holder)
        })
    }

    fn hooked(&self) -> Hooked {
        Hooked::read(&self.place.join("hooked"))
    }

    /// The newest domain with an alert: its zone, its MX record, and the one that its policy does not cover.
    fn newest(&self) -> (String, String, String) {
        let number = self.alerted - 1;
        let mx = |preference: u32, host: &str| {
            format!("a{number}.test. 300 IN MX {preference} mx1.{host}{number}.test.")
        };
        (format!("a{number}.test."), mx(10, "a"), mx(20, "w"))
    }

    /// The problem of the next domain begins.
    fn break_one(&mut self) {
        self.alerted += 1;
        let (zone, own, other) = self.newest();
        self.ground.names.change(&zone, &own, &format!("{own}\n{other}"));
    }

    fn until_told(&self, event: &str) {
        let (zone, ..) = self.newest();
        let domain = zone.trim_end_matches('.');
        until_some_or(
            || format!("in vain: the alert of {domain} is {event}\n{}", self.logs()),
            || (!self.hooked().uncovered(domain, event).is_empty()).then_some(()),
        );
    }

    /// Its problem ends, and that is announced.
    fn mend_one(&self) {
        let (zone, _, other) = self.newest();
        self.ground.names.change(&zone, &format!("{other}\n"), "");
        self.until_told("over");
    }

    /// A node is killed, and its work goes on; then it is started again. First the one that keeps the alerts, then those that
    /// were not killed yet.
    fn kill(&mut self) {
        let keeper = self.keeper();
        let is_left = |node: &usize| !self.nodes[*node].was_killed;
        let victim = Some(keeper).filter(is_left).or_else(|| (0..NAMES.len()).find(is_left)).unwrap();
        self.break_one();
        self.askers.stop_asking(victim);
        self.nodes[victim].kill();
        self.killed += 1;
        let role = if victim == keeper { ", which keeps the alerts," } else { "" };
        self.tell(&format!("node {}{role} is killed", NAMES[victim]));
        self.until_told("raised");
        self.tell("the others have announced a new alert");
        self.nodes[victim].start_again();
        self.askers.ask_again(victim);
        self.mend_one();
        self.tell("it serves again, and the end of the alert was announced");
    }

    /// The database is killed as by a crash of its machine, and its standby takes its place.
    fn failover(&mut self) {
        self.break_one();
        let away = self.watcher.now();
        self.primary.kill();
        self.tell("PostgreSQL is killed");
        self.askers.until_each_was_asked();
        self.standby.promote();
        self.has_failed_over = true;
        self.watcher.was_away_since(away);
        self.tell("its standby is promoted; the nodes were asked meanwhile");
        self.until_told("raised");
        self.mend_one();
        self.tell("an alert was announced, and its end");
    }

    /// The node that keeps the alerts stands still until another one keeps them, and then goes on.
    fn pause(&mut self) {
        let paused = self.keeper();
        self.askers.stop_asking(paused);
        self.nodes[paused].signal("STOP");
        self.tell(&format!("node {}, which keeps the alerts, stands still", NAMES[paused]));
        until("another node keeps the alerts", || self.keeper() != paused);
        self.break_one();
        self.until_told("raised");
        self.tell("another one keeps them, and has announced a new one");
        self.nodes[paused].signal("CONT");
        self.askers.ask_again(paused);
        self.mend_one();
        self.tell("the first one goes on, and the end of the alert was announced");
    }

    /// Each node is stopped in an orderly way and started again, so that what the killed ones had claimed is sent. Then it is
    /// counted.
    fn end(&mut self) -> Vec<Promise> {
        let jobs = self.jobs();
        let (watched, asked) = (self.watcher.promise(), self.askers.stop());
        for node in &mut self.nodes {
            node.stop();
        }
        let sent = "SELECT count(*) FROM outgoing WHERE state = 'sent'";
        self.tell(&format!("all nodes were stopped; {} of {REPORTS} reports were sent", self.sql(sent)));
        // The claims of the killed nodes end after a quarter of an hour, which the story does not wait for.
        self.sql("UPDATE outgoing SET due = due - 900 WHERE state = 'waiting'");
        std::fs::write(self.place.join("pace"), "0.1").unwrap();
        for node in &mut self.nodes {
            node.start_again();
        }
        until("all reports are sent", || self.sql(sent) == REPORTS.to_string());
        self.tell("all nodes serve again, and all reports were sent");
        let targets = self.sql("SELECT count(*) FROM outgoing_target WHERE state = 'accepted'");
        let mails = promises::mails(&self.place.join("sent"), REPORTS, targets.parse().unwrap(), self.killed);
        let panics = Promise::none("internal errors", self.logs().matches("panicked").count());
        // A node that stood still may have been delivering a notice.
        let notices = self.hooked().promises(ALERTED, self.killed + 1);
        [notices, mails, vec![watched, asked, jobs, panics]].concat()
    }

    /// Each job that is done once for all nodes has one node.
    fn jobs(&self) -> Promise {
        let line =
            format!("sternpost --config {}/one/sternpost.toml nodes --json || true", self.place.display());
        let jobs = until_some("three nodes run, and one of them removes old data", || {
            let told: Value = serde_json::from_str(&shell(&line)).ok()?;
            let running: Vec<&Value> =
                told["nodes"].as_array()?.iter().filter(|node| node["state"] == "running").collect();
            let jobs = running.iter().filter_map(|node| node["jobs"].as_array()).flatten();
            let jobs: Vec<String> = jobs.map(ToString::to_string).collect();
            (running.len() == NAMES.len() && jobs.iter().any(|job| job.contains("retention"))).then_some(jobs)
        });
        promises::once_each("jobs that one node does", &jobs)
    }
}

/// What all nodes have in their configuration.
fn sections(guarded: &[String]) -> String {
    let domains: String =
        guarded.iter().map(|name| format!("[[domain]]\nname = \"{name}.test\"\n")).collect();
    format!("{domains}[guard]\nevery = {}\nwebhook = \"http://127.0.0.1:8099/\"\n", EVERY.as_secs())
}

/// A server, and a standby that has all that the server has confirmed.
fn replicated(place: &Path) -> (Server, Server) {
    let primary = Server::new(place, 5501);
    let standby = primary.standby(place, 5502);
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    until("the standby is synchronous", || {
        primary.sql("postgres", "SELECT sync_state FROM pg_stat_replication").trim() == "sync"
    });
    (primary, standby)
}
