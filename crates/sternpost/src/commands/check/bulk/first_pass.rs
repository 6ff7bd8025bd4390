//! The first pass over a list of names: which of them have a TXT record at `_mta-sts` or `_smtp._tls` at all, and with `dane`
//! whether one of their MX hosts has TLSA records. Only those are checked afterwards. The queries are those of a
//! [`Batch`], without validation and without a cache: two for each name, one more for MX, and one for each MX host that was not
//! queried before. Memory is bounded whatever the length of the list.

use super::list::Listed;
use super::{LineResult, ToCheck};
use formats::DomainName;
use formats::limits::MX_HOSTS;
use net::dns::batch::{Batch, BatchCounts, Outcome, ResolverFault};
use net::dns::{Data, Exchange, Kind, Mx};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::mpsc::{Receiver, Sender};

/// What the first pass found at a name, as in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FirstPass {
    /// TXT records at `_mta-sts`.
    pub mta_sts: State,
    /// TXT records at `_smtp._tls`.
    pub tlsrpt: State,
    /// MX records; only with `--dane`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<State>,
    /// TLSA records of the MX hosts; `None` without MX hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tlsa: Option<State>,
}

/// What a resolver said to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// There is a record, whatever its value.
    Record,
    /// NOERROR without such a record.
    NoRecord,
    /// NXDOMAIN, or a name that is too long to exist.
    Nxdomain,
    /// SERVFAIL.
    Servfail,
    /// REFUSED.
    Refused,
    /// Another response code.
    OtherCode,
    /// No response to any attempt.
    NoResponse,
    /// The server offers no recursion and is not authoritative for the name, so it does not know.
    NoRecursion,
}

impl State {
    /// All states, in the order of the summary's columns.
    pub const ALL: [Self; 8] = [
        Self::Record,
        Self::NoRecord,
        Self::Nxdomain,
        Self::Servfail,
        Self::Refused,
        Self::OtherCode,
        Self::NoResponse,
        Self::NoRecursion,
    ];

    /// The head of its column in a table.
    pub fn label(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::NoRecord => "no record",
            Self::Nxdomain => "NXDOMAIN",
            Self::Servfail => "SERVFAIL",
            Self::Refused => "REFUSED",
            Self::OtherCode => "other code",
            Self::NoResponse => "no answer",
            Self::NoRecursion => "no recursion",
        }
    }

    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Response { code: 0, records } if records.is_empty() => Self::NoRecord,
            Outcome::Response { code: 0, .. } => Self::Record,
            Outcome::Response { code: 2, .. } => Self::Servfail,
            Outcome::Response { code: 3, .. } | Outcome::NameTooLong => Self::Nxdomain,
            Outcome::Response { code: 5, .. } => Self::Refused,
            Outcome::Response { .. } => Self::OtherCode,
            Outcome::NoResponse => Self::NoResponse,
            Outcome::NoRecursion => Self::NoRecursion,
        }
    }

    /// True if it is not known whether there is a record.
    fn is_failure(self) -> bool {
        self >= Self::Servfail
    }

    /// The state of several hosts: a record at one of them counts most, and a failure more than absence.
    fn or(self, other: Self) -> Self {
        let weight = |state: Self| (state == Self::Record, state.is_failure());
        if weight(self) >= weight(other) { self } else { other }
    }
}

impl FirstPass {
    fn states(self) -> impl Iterator<Item = State> {
        [self.mta_sts, self.tlsrpt].into_iter().chain(self.tlsa)
    }

    /// True if the name has something to check.
    pub fn has_something(self) -> bool {
        self.states().any(|state| state == State::Record)
    }

    /// True if it is not known whether the name has something to check.
    pub fn is_undetermined(self) -> bool {
        !self.has_something()
            && (self.states().any(State::is_failure) || self.mx.is_some_and(State::is_failure))
    }
}

/// What the whole pass did.
#[derive(Debug, Clone, Default)]
pub struct PassCounts {
    /// The names that were queried.
    pub names: u64,
    /// The time from the first to the last query. Includes what the pass waited for the checks of names with records.
    pub time: Duration,
    /// The queries.
    pub queries: BatchCounts,
    /// The resolvers with a fault.
    pub faults: Vec<(SocketAddr, ResolverFault)>,
}

/// Names that wait for their check before the pass stops and lets the checks catch up.
const BACKLOG: usize = 256;

/// How often the TLSA records of an MX host are looked up again after a failure.
const HOST_RETRIES: usize = 2;

/// The pause before that.
const HOST_PAUSE: Duration = Duration::from_secs(3);

/// Names that wait for MX hosts whose lookup failed. With more, these hosts are looked up again before the list goes on, and
/// otherwise after its last name.
const HELD_NAMES: usize = 4096;

/// MX hosts whose TLSA records are remembered, by a hash of the name. All are forgotten when there are more.
const KNOWN_HOSTS: usize = 1 << 18;

/// The query of a tag: tags are places in a list, four for each place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    MtaSts = 0,
    Tlsrpt = 1,
    Mx = 2,
    Tlsa = 3,
}

/// A name whose queries are in flight.
struct Asked {
    domain: DomainName,
    found: FirstPass,
    /// Queries without an outcome.
    open: usize,
}

/// An MX host whose TLSA records are being looked up.
struct AskedHost {
    /// The hash of its name.
    hash: u64,
    host: DomainName,
    /// The names that wait for it.
    names: Vec<usize>,
    /// Lookups that failed.
    failures: usize,
    /// True between a failed lookup and the next one.
    is_held: bool,
}

/// A list whose entries keep their place, in which free places are used again.
struct Places<T> {
    all: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Places<T> {
    fn put(&mut self, value: T) -> usize {
        match self.free.pop() {
            Some(place) => {
                if let Some(entry) = self.all.get_mut(place) {
                    *entry = Some(value);
                }
                place
            }
            None => {
                self.all.push(Some(value));
                self.all.len() - 1
            }
        }
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.all.get_mut(place)?.as_mut()
    }

    fn take(&mut self, place: usize) -> Option<T> {
        let value = self.all.get_mut(place)?.take();
        if value.is_some() {
            self.free.push(place);
        }
        value
    }

    fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }
}

/// A running pass.
pub struct Pass {
    batch: Batch,
    dane: bool,
    names: Places<Asked>,
    hosts: Places<AskedHost>,
    /// The hosts whose lookup failed and that are looked up again, with the number of names that wait for them, and when.
    failed_hosts: Vec<usize>,
    held_names: usize,
    retry_at: Option<tokio::time::Instant>,
    host_pause: Duration,
    /// The places of `hosts`, by a hash of the name.
    hosts_in_flight: HashMap<u64, usize>,
    known_hosts: HashMap<u64, State>,
    hash: RandomState,
    /// Queries that were not sent yet.
    waiting: VecDeque<(usize, Question)>,
    outcomes: Vec<(usize, Outcome)>,
    lines: VecDeque<LineResult>,
    checks: VecDeque<ToCheck>,
    count: u64,
}

impl Pass {
    /// Prepares a pass; `dane` includes MX and TLSA.
    pub fn new(batch: Batch, dane: bool) -> Self {
        Self {
            batch,
            dane,
            names: Places { all: Vec::new(), free: Vec::new() },
            hosts: Places { all: Vec::new(), free: Vec::new() },
            failed_hosts: Vec::new(),
            held_names: 0,
            retry_at: None,
            host_pause: HOST_PAUSE,
            hosts_in_flight: HashMap::new(),
            known_hosts: HashMap::new(),
            hash: RandomState::new(),
            waiting: VecDeque::new(),
            outcomes: Vec::new(),
            lines: VecDeque::new(),
            checks: VecDeque::new(),
            count: 0,
        }
    }

    /// Passes over the list. What needs no check goes to `lines`, the rest to `checks`. Ends early when one of these is closed.
    pub async fn run(
        mut self,
        mut list: Receiver<Listed>,
        lines: Sender<LineResult>,
        checks: Sender<ToCheck>,
    ) -> PassCounts {
        let begun = Instant::now();
        let mut has_ended = false;
        loop {
            while self.batch.has_room() {
                if let Some((place, question)) = self.waiting.pop_front() {
                    self.ask(place, question);
                } else if has_ended || !self.takes_names() {
                    break;
                } else {
                    match list.try_recv() {
                        Ok(listed) => self.take(listed),
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => has_ended = true,
                    }
                }
            }
            self.conclude();
            if !drain(&mut self.lines, &lines) || !drain(&mut self.checks, &checks) {
                break;
            }
            // What was just learned may have led to more queries.
            if !self.outcomes.is_empty() || !self.waiting.is_empty() && self.batch.has_room() {
                continue;
            }
            let is_idle = self.names.len() == 0 && self.waiting.is_empty();
            if has_ended && is_idle && self.lines.is_empty() && self.checks.is_empty() {
                break;
            }
            let (has_room, in_flight) = (self.batch.has_room(), self.batch.in_flight());
            self.plan_retry(has_ended && in_flight == 0);
            let retry_at = self.retry_at;
            let wants_names = !has_ended && has_room && self.waiting.is_empty() && self.takes_names();
            tokio::select! {
                () = self.batch.outcomes(&mut self.outcomes), if in_flight > 0 || !has_room => {}
                listed = list.recv(), if wants_names => match listed {
                    Some(listed) => self.take(listed),
                    None => has_ended = true,
                },
                () = until(retry_at), if retry_at.is_some() => self.retry_hosts(),
                permit = lines.reserve(), if !self.lines.is_empty() => drop(permit),
                permit = checks.reserve(), if !self.checks.is_empty() => drop(permit),
                else => {}
            }
        }
        PassCounts {
            names: self.count,
            time: begun.elapsed(),
            queries: self.batch.counts(),
            faults: self.batch.faults(),
        }
    }

    /// Decides when the hosts whose lookup failed are looked up again. `is_last` is true after the last name.
    fn plan_retry(&mut self, is_last: bool) {
        let is_time = is_last && self.waiting.is_empty() || self.held_names >= HELD_NAMES;
        if self.retry_at.is_none() && !self.failed_hosts.is_empty() && is_time {
            self.retry_at = Some(tokio::time::Instant::now() + self.host_pause);
        }
    }

    /// Looks up the hosts whose lookup failed again.
    fn retry_hosts(&mut self) {
        (self.retry_at, self.held_names) = (None, 0);
        for place in std::mem::take(&mut self.failed_hosts) {
            if let Some(asked) = self.hosts.get_mut(place) {
                asked.is_held = false;
                self.waiting.push_back((place, Question::Tlsa));
            }
        }
    }

    /// True unless the checks or the output lag behind.
    fn takes_names(&self) -> bool {
        self.checks.len() < BACKLOG && self.lines.len() < BACKLOG && self.held_names < HELD_NAMES
    }

    fn take(&mut self, listed: Listed) {
        let domain = match listed {
            Listed::Domain(domain) => domain,
            Listed::NotADomain(text, error) => {
                return self.lines.push_back(LineResult::NotADomain(text, error));
            }
            Listed::Repeated => return self.lines.push_back(LineResult::Repeated),
            Listed::Unreadable(error) => return self.lines.push_back(LineResult::Unreadable(error)),
        };
        self.count += 1;
        let nothing = State::NoResponse;
        let mx = self.dane.then_some(nothing);
        let found = FirstPass { mta_sts: nothing, tlsrpt: nothing, mx, tlsa: None };
        let questions = [Question::MtaSts, Question::Tlsrpt].into_iter().chain(mx.map(|_| Question::Mx));
        let place = self.names.put(Asked { domain, found, open: questions.clone().count() });
        self.waiting.extend(questions.map(|question| (place, question)));
    }

    fn ask(&mut self, place: usize, question: Question) {
        let (prefix, kind) = match question {
            Question::MtaSts => ("_mta-sts", Kind::Txt),
            Question::Tlsrpt => ("_smtp._tls", Kind::Txt),
            Question::Mx => ("", Kind::Mx),
            Question::Tlsa => ("_25._tcp", Kind::Tlsa),
        };
        let name = match question {
            Question::Tlsa => self.hosts.get_mut(place).map(|asked| &asked.host),
            _ => self.names.get_mut(place).map(|asked| &asked.domain),
        };
        let Some(name) = name else { return };
        let tag = place * 4 + question as usize;
        if let Some(known) = self.batch.ask(tag, prefix, name, kind) {
            self.outcomes.push((tag, known));
        }
    }

    /// Takes the outcomes of queries.
    fn conclude(&mut self) {
        for (tag, outcome) in std::mem::take(&mut self.outcomes) {
            let (place, state) = (tag / 4, State::of(&outcome));
            if tag % 4 == Question::Tlsa as usize {
                self.host_ended(place, state);
                continue;
            }
            let Some(asked) = self.names.get_mut(place) else { continue };
            match tag % 4 {
                0 => asked.found.mta_sts = state,
                1 => asked.found.tlsrpt = state,
                _ => asked.found.mx = Some(state),
            }
            if let Outcome::Response { records, .. } = &outcome
                && tag % 4 == Question::Mx as usize
            {
                self.mail_hosts(place, records);
            }
            self.answered(place);
        }
    }

    /// Looks up the TLSA records of MX hosts, each host once.
    fn mail_hosts(&mut self, place: usize, records: &[Data]) {
        let hosts = records.iter().filter_map(|record| match record {
            Data::Mx(Mx { exchange: Exchange::Host(host), .. }) => Some(host),
            _ => None,
        });
        for host in hosts.take(MX_HOSTS) {
            let hash = self.hash.hash_one(host.as_str());
            let Some(asked) = self.names.get_mut(place) else { return };
            if let Some(state) = self.known_hosts.get(&hash) {
                asked.found.tlsa = Some(asked.found.tlsa.map_or(*state, |other| other.or(*state)));
                continue;
            }
            asked.open += 1;
            let in_flight = self.hosts_in_flight.get(&hash).copied();
            match in_flight.and_then(|in_flight| self.hosts.get_mut(in_flight)) {
                Some(asked) => {
                    asked.names.push(place);
                    self.held_names += usize::from(asked.is_held);
                }
                None => {
                    let (host, names) = (host.clone(), vec![place]);
                    let new = self.hosts.put(AskedHost { hash, host, names, failures: 0, is_held: false });
                    self.hosts_in_flight.insert(hash, new);
                    self.waiting.push_back((new, Question::Tlsa));
                }
            }
        }
    }

    fn host_ended(&mut self, place: usize, state: State) {
        let Some(asked) = self.hosts.get_mut(place) else { return };
        if state.is_failure() && asked.failures < HOST_RETRIES {
            asked.failures += 1;
            asked.is_held = true;
            self.held_names += asked.names.len();
            return self.failed_hosts.push(place);
        }
        let Some(AskedHost { hash, names, .. }) = self.hosts.take(place) else { return };
        self.hosts_in_flight.remove(&hash);
        if self.known_hosts.len() >= KNOWN_HOSTS {
            self.known_hosts.clear();
        }
        self.known_hosts.insert(hash, state);
        for name in names {
            if let Some(asked) = self.names.get_mut(name) {
                asked.found.tlsa = Some(asked.found.tlsa.map_or(state, |other| other.or(state)));
            }
            self.answered(name);
        }
    }

    /// Counts one outcome of a name, which is done after the last one.
    fn answered(&mut self, place: usize) {
        let Some(asked) = self.names.get_mut(place) else { return };
        asked.open -= 1;
        if asked.open > 0 {
            return;
        }
        let Some(asked) = self.names.take(place) else { return };
        match asked.found.has_something() {
            true => self.checks.push_back(ToCheck { domain: asked.domain, first_pass: Some(asked.found) }),
            false => self.lines.push_back(LineResult::Passed(asked.domain, asked.found)),
        }
    }
}

/// Waits until then.
async fn until(at: Option<tokio::time::Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// Sends what the channel has room for. Returns false if it is closed.
fn drain<T>(queue: &mut VecDeque<T>, to: &Sender<T>) -> bool {
    while !queue.is_empty() {
        match to.try_reserve() {
            Ok(permit) => drop(queue.pop_front().map(|first| permit.send(first))),
            Err(TrySendError::Full(())) => return true,
            Err(TrySendError::Closed(())) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
