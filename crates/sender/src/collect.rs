//! Collects the TLS sessions of mail servers and tallies them for reports (RFC 8460 §4).
//!
//! Sessions arrive as datagrams of libtlsrpt on a [`DatagramSocket`], or as JSON over HTTP. [`Collector`] adds them to
//! the tallies of the day in the store, from which [`crate::report`] builds the reports.
//!
//! Most datagrams about a domain are identical byte by byte. They are therefore counted unparsed, and each distinct one
//! is parsed once, when it is stored. When the store fails, datagrams are held in memory up to a limit; further ones
//! are counted as dropped.
//!
//! Sessions of a mail server that does not know the policy are completed from the store (`observed`). On a machine whose
//! sessions another one reports, the collector spools them instead of counting them, and the [`Forwarder`] hands them
//! over.

mod entries;
mod forward;
mod observed;
mod socket;

pub use entries::{UnknownPolicy, entries};
pub use forward::{ForwardCounts, ForwardError, Forwarder, Handover, REFUSED_LIFE};
pub use socket::DatagramSocket;

use formats::DomainName;
use formats::datagram::Session;
use formats::limits::{COLLECTED_BYTES, DATAGRAM_BYTES, SPOOL_BYTES};
use formats::posted::{Posted, PostedSession};
use formats::report::DateRange;
use forward::Batches;
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::Clock;
use net::metrics;
use net::random::{self, NoRandomBytes};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::handover::{CountSource, Spooled};
use store::policies::StoredPolicy;
use store::tallies::DayTally;
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

/// The interval at which pending sessions are written to the store.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// The interval at which pending sessions are spooled for another machine: one batch for each interval is posted.
const SPOOL_INTERVAL: Duration = Duration::from_secs(5);

/// A posted session whose time is further in the future than this is refused for now, unless its source counts once.
const MAX_CLOCK_LEAD: SignedDuration = SignedDuration::from_mins(5);

/// After this number of refused sessions, further ones are only counted and no longer logged.
const MAX_LOGGED_REFUSALS: u64 = 20;

/// Counts TLS sessions by day and recipient domain, or spools them for another machine.
pub struct Collector {
    store: Store,
    clock: Arc<dyn Clock>,
    /// Datagrams that are not stored yet.
    pending: Mutex<Pending>,
    /// The sessions that are on their way to the store.
    flushes: tokio::sync::Mutex<Flushes>,
    /// Makes batches for the spool; `None` if sessions are counted here.
    batches: Option<Batches>,
    /// The counters of received sessions.
    pub counts: Counts,
}

/// Counters of received sessions. A session that is not stored, refused, late or dropped is pending.
#[derive(Debug, Default)]
pub struct Counts {
    /// Sessions received.
    pub received: Counter,
    /// Sessions stored in a tally.
    pub stored: Counter,
    /// Sessions refused: too long, malformed, or of an unknown version or policy type.
    pub refused: Counter,
    /// Sessions that came after the reports of their day were built.
    pub late: Counter,
    /// Sessions dropped because the store failed for too long.
    pub dropped: Counter,
    /// Failed writes of sessions to the store.
    pub store_failures: Counter,
}

impl Counts {
    /// Registers the counters as metrics.
    pub fn register(&self, all: &mut Registry) {
        metrics::SESSIONS_RECEIVED.register(all, self.received.clone());
        metrics::SESSIONS_STORED.register(all, self.stored.clone());
        metrics::SESSIONS_REFUSED.register(all, self.refused.clone());
        metrics::SESSIONS_LATE.register(all, self.late.clone());
        metrics::SESSIONS_DROPPED.register(all, self.dropped.clone());
        metrics::SESSIONS_STORE_FAILURES.register(all, self.store_failures.clone());
    }
}

/// Unparsed datagrams by UTC day, each with its number of occurrences.
#[derive(Default)]
struct Pending {
    days: BTreeMap<Timestamp, HashMap<Box<[u8]>, u64>>,
    /// The bytes in use, with [`ENTRY_OVERHEAD_BYTES`] per distinct datagram.
    bytes: usize,
    /// The bytes of the datagrams that were taken out and are not stored yet.
    flushed_bytes: usize,
}

/// Sessions on their way to the store, one flush at a time. After an error it is not known whether the store has them: the
/// answer may be what was lost. So they are added again under the same identifier, which counts once.
#[derive(Default)]
struct Flushes {
    /// Those that failed.
    failed: Option<(Pending, String)>,
    /// The identifier of the last ones that the store has.
    last: Option<String>,
}

/// The approximate overhead of a distinct datagram in memory, in bytes.
const ENTRY_OVERHEAD_BYTES: usize = 64;

impl Pending {
    /// Adds a datagram that occurred `times` times. Returns false if it would exceed [`COLLECTED_BYTES`].
    fn add(&mut self, day: Timestamp, bytes: &[u8], times: u64) -> bool {
        let counts = self.days.entry(day).or_default();
        if let Some(known) = counts.get_mut(bytes) {
            *known += times;
            return true;
        }
        if self.flushed_bytes + self.bytes + bytes.len() + ENTRY_OVERHEAD_BYTES > COLLECTED_BYTES {
            return false;
        }
        self.bytes += bytes.len() + ENTRY_OVERHEAD_BYTES;
        counts.insert(bytes.into(), times);
        true
    }
}

/// The outcome of adding posted sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// The sessions that were counted now.
    pub sessions: u64,
    /// The sessions of days whose reports are built. They are not counted.
    pub late: u64,
    /// True if these sessions were counted before, so that none was counted now.
    pub is_repeated: bool,
}

/// Sessions by day, as they are added to the tallies.
#[derive(Default)]
struct Sorted {
    tallies: BTreeMap<Timestamp, DayTally>,
    /// The number of sessions of each day.
    sessions: BTreeMap<Timestamp, u64>,
    /// The number of the last session of each day, from 1.
    last: BTreeMap<Timestamp, usize>,
}

/// The reason why posted sessions are refused.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// A session is invalid; the whole request is refused.
    #[error("session {number}: {why}")]
    Session {
        /// The position of the session in the request, from 1.
        number: usize,
        /// What is wrong with the session.
        why: String,
    },
    /// The time of a session is in the future, so one of two clocks is wrong; the whole request is refused for now.
    #[error("session {number}: {at} is in the future: the current time is {now}")]
    Future {
        /// The position of the session in the request, from 1.
        number: usize,
        /// The time of the session.
        at: Timestamp,
        /// The current time.
        now: Timestamp,
    },
    /// The spool is full, as the other machine takes no sessions.
    #[error("the spool is full: the other collector has taken no sessions for a long time")]
    Full,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Collector {
    /// A collector that adds to the tallies in `store`.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self::of(store, clock, None))
    }

    /// A collector that spools sessions in `store`, for a [`Forwarder`] to hand over to another machine.
    ///
    /// # Errors
    /// If the system provides no random bytes for the identifiers of batches.
    pub fn forwarding(store: Store, clock: Arc<dyn Clock>) -> Result<Arc<Self>, NoRandomBytes> {
        let batches = Some(Batches::new(random::random_id()?));
        Ok(Arc::new(Self::of(store, clock, batches)))
    }

    fn of(store: Store, clock: Arc<dyn Clock>, batches: Option<Batches>) -> Self {
        Self {
            store,
            clock,
            pending: Mutex::default(),
            flushes: tokio::sync::Mutex::default(),
            batches,
            counts: Counts::default(),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a datagram to the pending ones. It counts for the UTC day of its arrival.
    pub fn add_datagram(&self, datagram: &[u8]) {
        self.counts.received.inc_by(1);
        if datagram.len() > DATAGRAM_BYTES {
            return self.refuse(1, &format!("it is longer than {DATAGRAM_BYTES} bytes"), datagram);
        }
        let day = DateRange::utc_day(self.clock.now()).start;
        if !self.pending().add(day, datagram, 1) {
            self.counts.dropped.inc_by(1);
        }
    }

    fn refuse(&self, times: u64, why: &str, datagram: &[u8]) {
        if self.counts.refused.inc_by(times) < MAX_LOGGED_REFUSALS {
            let shown: String = String::from_utf8_lossy(datagram).chars().take(200).collect();
            tracing::warn!(datagram = ?shown, "session refused: {why}");
        }
    }

    /// Parses the pending datagrams and adds them to the tallies in the store. When the store fails, they are kept, and added
    /// by the next call, before those that come meanwhile.
    pub async fn store(&self) -> Result<(), StoreError> {
        let mut flushes = self.flushes.lock().await;
        if let Some((failed, id)) = flushes.failed.take() {
            self.flush_as(&mut flushes, failed, id).await?;
        }
        // Once: under a constant stream of datagrams, there are always further ones.
        let taken = self.take_pending();
        self.flush_as(&mut flushes, taken, new_id()).await
    }

    async fn flush_as(&self, flushes: &mut Flushes, taken: Pending, id: String) -> Result<(), StoreError> {
        if taken.days.is_empty() {
            return Ok(());
        }
        let source = CountSource::Flush { id: id.clone(), after: flushes.last.clone(), at: self.clock.now() };
        if let Err(error) = self.flush(&taken, &source).await {
            self.counts.store_failures.inc_by(1);
            flushes.failed = Some((taken, id));
            return Err(error);
        }
        self.pending().flushed_bytes = 0;
        flushes.last = Some(id);
        Ok(())
    }

    fn take_pending(&self) -> Pending {
        let mut pending = self.pending();
        let flushed_bytes = pending.bytes;
        std::mem::replace(&mut *pending, Pending { flushed_bytes, ..Pending::default() })
    }

    async fn flush(&self, pending: &Pending, source: &CountSource) -> Result<(), StoreError> {
        let mut tallies = BTreeMap::new();
        let mut counted = BTreeMap::new();
        let mut refused = Vec::new();
        let mut spooled = Vec::new();
        for (day, datagrams) in &pending.days {
            let (mut tally, mut sessions) = (DayTally::new(), 0);
            for (datagram, times) in datagrams {
                match parse(datagram) {
                    Ok(session) => {
                        sessions += times;
                        match self.batches {
                            Some(_) => spooled.push(posted(*day, *times, session)),
                            None => count(session, *times, &mut tally),
                        }
                    }
                    Err(why) => refused.push((*times, why, datagram)),
                }
            }
            tallies.insert(*day, tally);
            counted.insert(*day, sessions);
        }
        match &self.batches {
            Some(batches) => self.spool(batches, spooled, source).await?,
            None => self.add(&tallies, &counted, source).await?,
        }
        for (times, why, datagram) in refused {
            self.refuse(times, &why, datagram);
        }
        Ok(())
    }

    /// Spools sessions. If the spool is full, they are dropped.
    async fn spool(
        &self,
        batches: &Batches,
        sessions: Vec<Posted>,
        source: &CountSource,
    ) -> Result<(), StoreError> {
        let sum: u64 = sessions.iter().map(|posted| posted.count).sum();
        let batches = batches.make(sessions);
        match self.store.spool(&batches, SPOOL_BYTES as u64, Some(source)).await? {
            Spooled::Full => {
                self.counts.dropped.inc_by(sum);
                tracing::error!(
                    sessions = sum,
                    "sessions are lost: the spool for the other collector is full"
                );
            }
            Spooled::Done | Spooled::Repeated => {
                self.counts.stored.inc_by(sum);
            }
        }
        Ok(())
    }

    /// Adds to the tallies of open days, and counts the sessions of closed days as late.
    async fn add(
        &self,
        tallies: &BTreeMap<Timestamp, DayTally>,
        counted: &BTreeMap<Timestamp, u64>,
        source: &CountSource,
    ) -> Result<(), StoreError> {
        let late = self.store.add_tallies_once(tallies, source).await?.closed;
        for (day, sessions) in counted.iter().filter(|(_, sessions)| **sessions > 0) {
            if late.contains(day) {
                self.counts.late.inc_by(*sessions);
                tracing::warn!(day = %day.strftime("%Y-%m-%d"), sessions, "sessions came after the reports of their day were built and are not counted");
            } else {
                self.counts.stored.inc_by(*sessions);
            }
        }
        Ok(())
    }

    /// Stores pending sessions every [`FLUSH_INTERVAL`], or `SPOOL_INTERVAL` for another machine, until `stop` is cancelled. A write in progress is never
    /// interrupted, because its sessions are no longer pending and would be lost.
    pub fn keep_storing<'a>(&'a self, stop: CancellationToken) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut ticks = tokio::time::interval(match self.batches {
                Some(_) => SPOOL_INTERVAL,
                None => FLUSH_INTERVAL,
            });
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut is_down = false;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stop.cancelled() => return,
                }
                match self.store().await {
                    Ok(()) if is_down => {
                        is_down = false;
                        let dropped = self.counts.dropped.get();
                        tracing::info!(
                            dropped,
                            "sessions are stored again; `dropped` counts since the start"
                        );
                    }
                    Ok(()) => {}
                    Err(error) if !is_down => {
                        is_down = true;
                        tracing::error!(
                            "sessions can't be stored; up to {} MiB of them are held in memory: {error}",
                            COLLECTED_BYTES >> 20
                        );
                    }
                    Err(_) => {}
                }
            }
        })
    }

    /// Adds posted sessions to the tallies. On success all of them are durable, and their number is returned; on an error none
    /// is added, unless the answer of a PostgreSQL database was lost and can't be had again. A client that must not count
    /// twice in that case names a source ([`Self::post_once`]).
    pub fn post<'a>(&'a self, posted: Vec<Posted>) -> BoxFuture<'a, Result<u64, PostError>> {
        Box::pin(async move {
            if let Some(batches) = &self.batches {
                return Ok(self.post_to_spool(batches, posted, None).await?.sessions);
            }
            let sorted = self.sorted(posted).await?;
            // Once, if an answer is lost and the second attempt finds the database again.
            let source = CountSource::Flush { id: new_id(), after: None, at: self.clock.now() };
            let added = match self.store.add_all_tallies_once(&sorted.tallies, &source).await {
                Err(StoreError::Unreachable { .. }) => {
                    self.store.add_all_tallies_once(&sorted.tallies, &source).await?
                }
                added => added?,
            };
            if let Some(day) = added.closed.first() {
                let number = sorted.last.get(day).copied().unwrap_or(1);
                let day = day.strftime("%Y-%m-%d");
                let why = format!("the reports about {day} are built, so it can no longer be counted");
                return Err(PostError::Session { number, why });
            }
            let sessions = sorted.sessions.values().sum();
            self.counts.received.inc_by(sessions);
            self.counts.stored.inc_by(sessions);
            Ok(sessions)
        })
    }

    /// Adds posted sessions from a source whose sessions count once. On success all of them are durable, except those of
    /// days whose reports are built; on an error none is added. A session with a time in the future counts for today.
    pub fn post_once<'a>(
        &'a self,
        posted: Vec<Posted>,
        source: &'a CountSource,
    ) -> BoxFuture<'a, Result<Taken, PostError>> {
        Box::pin(async move {
            if let Some(batches) = &self.batches {
                return self.post_to_spool(batches, self.not_later_than_now(posted), Some(source)).await;
            }
            let sorted = self.sorted(self.not_later_than_now(posted)).await?;
            let added = self.store.add_tallies_once(&sorted.tallies, source).await?;
            if added.is_repeated {
                return Ok(Taken { is_repeated: true, ..Taken::default() });
            }
            let (mut sessions, mut late) = (0, 0);
            for (day, count) in &sorted.sessions {
                if added.closed.contains(day) { late += count } else { sessions += count }
            }
            self.counts.received.inc_by(sessions + late);
            self.counts.stored.inc_by(sessions);
            self.counts.late.inc_by(late);
            Ok(Taken { sessions, late, is_repeated: false })
        })
    }

    /// A clock that is wrong must not hold up or cost sessions that are handed over only once.
    fn not_later_than_now(&self, posted: Vec<Posted>) -> Vec<Posted> {
        let now = self.clock.now();
        let limited = |posted: Posted| Posted { at: posted.at.map(|at| at.min(now)), ..posted };
        posted.into_iter().map(limited).collect()
    }

    async fn post_to_spool(
        &self,
        batches: &Batches,
        posted: Vec<Posted>,
        source: Option<&CountSource>,
    ) -> Result<Taken, PostError> {
        let now = self.clock.now();
        let mut complete = Vec::with_capacity(posted.len());
        let mut known = KnownPolicies::new();
        for (number, Posted { at, count, session }) in (1..).zip(posted) {
            let (at, session) = self.completed(number, at.unwrap_or(now), session, &mut known).await?;
            // Only the day counts, and sessions of one day can be merged.
            complete.push(self::posted(DateRange::utc_day(at).start, count, session));
        }
        let sessions = complete.iter().map(|posted| posted.count).sum();
        let batches = batches.make(complete);
        match self.store.spool(&batches, SPOOL_BYTES as u64, source).await? {
            Spooled::Full => Err(PostError::Full),
            Spooled::Repeated => Ok(Taken { is_repeated: true, ..Taken::default() }),
            Spooled::Done => {
                self.counts.received.inc_by(sessions);
                self.counts.stored.inc_by(sessions);
                Ok(Taken { sessions, ..Taken::default() })
            }
        }
    }

    async fn sorted(&self, posted: Vec<Posted>) -> Result<Sorted, PostError> {
        let now = self.clock.now();
        let mut sorted = Sorted::default();
        let mut known = KnownPolicies::new();
        for (number, Posted { at, count: times, session }) in (1..).zip(posted) {
            let (at, session) = self.completed(number, at.unwrap_or(now), session, &mut known).await?;
            let day = DateRange::utc_day(at).start;
            sorted.last.insert(day, number);
            *sorted.sessions.entry(day).or_default() += times;
            count(session, times, sorted.tallies.entry(day).or_default());
        }
        Ok(sorted)
    }

    /// Checks a posted session, and completes it with the policy in the store if it has none.
    async fn completed(
        &self,
        number: usize,
        at: Timestamp,
        session: PostedSession,
        known: &mut KnownPolicies,
    ) -> Result<(Timestamp, Session), PostError> {
        let fail = |why: String| PostError::Session { number, why };
        let now = self.clock.now();
        if at.duration_since(now) > MAX_CLOCK_LEAD {
            return Err(PostError::Future { number, at, now });
        }
        let session = match session {
            PostedSession::Complete(session) => session,
            PostedSession::Observed(observed) => {
                let domain = observed.domain.clone();
                if !known.contains_key(&domain) {
                    known.insert(domain.clone(), self.store.policy(&domain).await?);
                }
                observed::complete(observed, known.get(&domain).and_then(Option::as_ref), at)
            }
        };
        match entries::unknown_policy(&session) {
            Some(unknown) => Err(fail(unknown.to_string())),
            None => Ok((at, session)),
        }
    }
}

/// An identifier of sessions that no other sessions have.
fn new_id() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // Without random bytes no TLS works either, so nothing else does.
    let prefix = random::random_id().unwrap_or_else(|_| std::process::id().to_string());
    format!("{prefix}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The stored policies of the domains of one request.
type KnownPolicies = BTreeMap<DomainName, Option<StoredPolicy>>;

/// A session of a day that occurred `count` times, for the spool.
fn posted(day: Timestamp, count: u64, session: Session) -> Posted {
    Posted { at: Some(day), count, session: PostedSession::Complete(session) }
}

fn parse(datagram: &[u8]) -> Result<Session, String> {
    let session = Session::parse(datagram).map_err(|error| error.to_string())?;
    match entries::unknown_policy(&session) {
        Some(unknown) => Err(unknown.to_string()),
        None => Ok(session),
    }
}

fn count(session: Session, times: u64, tally: &mut DayTally) {
    let added = tally.entry(session.policy_domain.clone()).or_default();
    if !session.tlsrpt_record.is_empty() {
        added.record = Some(session.tlsrpt_record.clone());
    }
    added.entries.extend(entries(session, times));
}

#[cfg(test)]
mod tests;
