//! The load on the nodes, and what is seen of it outside: policy answers of each node, and checks at the policy hosts.

use super::promises::Promise;
use super::{CLAIM, EVERY};
use crate::patience::until;
use lab::policy_host::PolicyHosts;
use lab::traffic::{Fetch, FetchStep, Observed, Traffic};
use net::clock::{Clock, SystemClock};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long Postfix waits for an answer.
const POSTFIX_WAITS: Duration = Duration::from_secs(100);

/// The questions to one node.
struct Asked {
    port: u16,
    /// Held while a question is open, so that a node is not killed meanwhile.
    may_ask: Mutex<bool>,
    right: AtomicUsize,
    wrong: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
}

/// Ask each node that lives, one question after the other.
pub struct Askers {
    nodes: Vec<Arc<Asked>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// The answer for a domain.
fn ask(port: u16, name: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(POSTFIX_WAITS))?;
    write!(stream, "GET /v1/policy/{name}.test HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Asked {
    fn new(port: u16) -> Self {
        let (right, wrong, longest) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
        Self { port, may_ask: Mutex::new(true), right, wrong, longest }
    }

    fn ask(&self, name: &str) {
        let may_ask = self.may_ask.lock().unwrap();
        if !*may_ask {
            return;
        }
        let begun = Instant::now();
        let answer = ask(self.port, name);
        let mut longest = self.longest.lock().unwrap();
        *longest = begun.elapsed().max(*longest);
        match answer {
            Ok(answer) if answer.contains(&format!("secure match=mx1.{name}.test")) => {
                self.right.fetch_add(1, Ordering::SeqCst);
            }
            other => self.wrong.lock().unwrap().push(format!("port {}, {name}: {other:?}", self.port)),
        }
    }

    fn count(&self) -> usize {
        self.right.load(Ordering::SeqCst) + self.wrong.lock().unwrap().len()
    }
}

impl Askers {
    pub fn start(ports: impl Iterator<Item = u16>, names: &[String]) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let nodes: Vec<Arc<Asked>> = ports.map(|port| Arc::new(Asked::new(port))).collect();
        let asker = |asked: &Arc<Asked>| {
            let (asked, names, is_over) = (asked.clone(), names.to_vec(), is_over.clone());
            std::thread::spawn(move || {
                for name in names.iter().cycle() {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    asked.ask(name);
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        };
        let threads = nodes.iter().map(asker).collect();
        Self { nodes, is_over, threads }
    }

    /// From when this returns, the node is not asked.
    pub fn stop_asking(&self, node: usize) {
        *self.nodes[node].may_ask.lock().unwrap() = false;
    }

    pub fn ask_again(&self, node: usize) {
        *self.nodes[node].may_ask.lock().unwrap() = true;
    }

    /// Waits until each node was asked about each domain some more times.
    pub fn until_each_was_asked(&self) {
        let before: Vec<usize> = self.nodes.iter().map(|node| node.count()).collect();
        until("each node answers", || {
            self.nodes.iter().zip(&before).all(|(node, before)| node.count() > before + 20)
        });
    }

    pub fn stop(&mut self) -> Promise {
        self.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        let right: usize = self.nodes.iter().map(|node| node.right.load(Ordering::SeqCst)).sum();
        let wrong: Vec<String> =
            self.nodes.iter().flat_map(|node| node.wrong.lock().unwrap().clone()).collect();
        let longest = self.nodes.iter().map(|node| *node.longest.lock().unwrap()).max().unwrap_or_default();
        Promise {
            what: "policy answers of the nodes that ran".to_owned(),
            expected: (right + wrong.len()).to_string(),
            happened: format!("{right}, the slowest in {:.1} s", longest.as_secs_f64()),
            twice: "-".to_owned(),
            broken: wrong.into_iter().take(5).collect(),
        }
    }
}

/// The time between two checks of one domain.
struct Pause {
    domain: String,
    from: Duration,
    to: Duration,
}

/// Sees at the policy hosts when each domain is checked. Its times are those of the clock.
pub struct Watcher {
    clock: Arc<SystemClock>,
    traffic: Traffic,
    hosts: BTreeSet<String>,
    /// When the database was away, and nothing was checked.
    away: Vec<(Duration, Duration)>,
}

impl Watcher {
    pub fn start(sites: &PolicyHosts, names: &[String]) -> Self {
        let clock = Arc::new(SystemClock);
        let traffic = Traffic::new(clock.clone());
        sites.observe(&traffic);
        let hosts = names.iter().map(|name| format!("mta-sts.{name}.test")).collect();
        Self { clock, traffic, hosts, away: Vec::new() }
    }

    pub fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// When each domain was checked.
    fn checks(&self) -> BTreeMap<String, Vec<Duration>> {
        let mut found: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
        for event in self.traffic.events() {
            if let Observed::Fetch(Fetch { host, step: FetchStep::Hello }) = event.what
                && self.hosts.contains(&host)
            {
                found.entry(host).or_default().push(event.at);
            }
        }
        found
    }

    pub fn until_all_are_checked(&self) {
        until("each domain is checked", || self.checks().len() == self.hosts.len());
    }

    /// The database was away from this time until now.
    pub fn was_away_since(&mut self, from: Duration) {
        self.away.push((from, self.now()));
    }

    /// How long a domain was unwatched while the database was there.
    fn unwatched(&self, pause: &Pause) -> Duration {
        let overlap =
            |(from, to): &(Duration, Duration)| (*to).min(pause.to).saturating_sub((*from).max(pause.from));
        pause.to.saturating_sub(pause.from).saturating_sub(self.away.iter().map(overlap).sum())
    }

    /// Until now, no domain may have been unwatched for too long.
    pub fn promise(&self) -> Promise {
        // In this order: a check may end while they are read.
        let checks = self.checks();
        let now = self.now();
        let count: usize = checks.values().map(Vec::len).sum();
        let mut pauses = Vec::new();
        for (domain, mut times) in checks {
            times.push(now);
            let of_this =
                times.windows(2).map(|two| Pause { domain: domain.clone(), from: two[0], to: two[1] });
            pauses.extend(of_this);
        }
        let allowed = 2 * EVERY + CLAIM;
        let longest = pauses.iter().map(|pause| self.unwatched(pause)).max().unwrap_or_default();
        let late = pauses.iter().filter(|pause| self.unwatched(pause) > allowed);
        let told = |pause: &Pause| format!("{}: {:.1} s", pause.domain, self.unwatched(pause).as_secs_f64());
        Promise {
            what: format!("domains never unwatched for over {} s", allowed.as_secs()),
            expected: self.hosts.len().to_string(),
            happened: format!("{count} checks, the longest pause {:.1} s", longest.as_secs_f64()),
            twice: "-".to_owned(),
            broken: late.map(told).collect(),
        }
    }
}
