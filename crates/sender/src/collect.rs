//! Collects what mail servers say of their sessions, for the reports (RFC 8460 §4; libtlsrpt).
//!
//! A mail server says the same of most sessions with a domain, byte by byte. So what comes in is counted as it is,
//! and looked into once for all that are alike, when it goes to the store, which it does twice a second. What the
//! store does not take is held, up to a bound, and what goes over that is counted as dropped.

mod entries;
mod socket;

pub use entries::{UnknownPolicy, entries};
pub use socket::DatagramSocket;

use formats::datagram::Session;
use formats::limits::{COLLECTED_BYTES, DATAGRAM_BYTES};
use formats::posted::Posted;
use formats::report::DateRange;
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::Clock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::tallies::DayTally;
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

/// Between two times that what came in goes to the store.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// A session in the future by more than this is not believed.
const MAX_CLOCK_LEAD: SignedDuration = SignedDuration::from_mins(5);

/// Faults that are logged in full; further ones are only counted.
const MAX_LOGGED_FAULTS: u64 = 20;

/// Counts sessions.
pub struct Collector {
    store: Store,
    clock: Arc<dyn Clock>,
    held: Mutex<Pending>,
    /// What came in, and what became of it.
    pub counts: Counts,
}

/// What came in, and what became of it. What is neither stored, refused, late nor dropped waits for the store.
#[derive(Debug, Default)]
pub struct Counts {
    /// Sessions that came in.
    pub received: Counter,
    /// Of those, stored.
    pub stored: Counter,
    /// Of those, too long, malformed or of an unknown version.
    pub refused: Counter,
    /// Of those, for a day whose reports are built.
    pub late: Counter,
    /// Of those, dropped since the store failed for too long.
    pub dropped: Counter,
    /// Times that the store did not take them.
    pub store_failures: Counter,
}

impl Counts {
    /// Puts them among what is watched.
    pub fn register(&self, all: &mut Registry) {
        for (name, help, count) in [
            ("sessions_received", "Sessions that mail servers told of", &self.received),
            ("sessions_stored", "Of those, counted for reports", &self.stored),
            ("sessions_refused", "Of those, too long, malformed or of an unknown version", &self.refused),
            ("sessions_late", "Of those, for a day whose reports are built", &self.late),
            ("sessions_dropped", "Of those, dropped since the store failed for too long", &self.dropped),
            ("sessions_store_failures", "Times that the store did not take sessions", &self.store_failures),
        ] {
            all.register(name, help, count.clone());
        }
    }
}

/// Datagrams as they came, by the day, each with how often.
#[derive(Default)]
struct Pending {
    days: BTreeMap<Timestamp, HashMap<Box<[u8]>, u64>>,
    bytes: usize,
}

/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 64;

impl Pending {
    /// False when there is no room.
    fn add(&mut self, day: Timestamp, bytes: &[u8], times: u64) -> bool {
        let alike = self.days.entry(day).or_default();
        if let Some(known) = alike.get_mut(bytes) {
            *known += times;
            return true;
        }
        if self.bytes + bytes.len() + ENTRY_OVERHEAD_BYTES > COLLECTED_BYTES {
            return false;
        }
        self.bytes += bytes.len() + ENTRY_OVERHEAD_BYTES;
        alike.insert(bytes.into(), times);
        true
    }
}

/// Why posted sessions are not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// One of them is not good; none is taken.
    #[error("session {number}: {why}")]
    Session {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Collector {
    /// One that counts into this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { store, clock, held: Mutex::default(), counts: Counts::default() })
    }

    fn held(&self) -> MutexGuard<'_, Pending> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one datagram, which counts for the day on which it comes.
    pub fn take(&self, datagram: &[u8]) {
        self.counts.received.inc_by(1);
        if datagram.len() > DATAGRAM_BYTES {
            return self.refuse(1, &format!("it has over {DATAGRAM_BYTES} bytes"), datagram);
        }
        let day = DateRange::utc_day(self.clock.now()).start;
        if !self.held().add(day, datagram, 1) {
            self.counts.dropped.inc_by(1);
        }
    }

    fn refuse(&self, times: u64, why: &str, datagram: &[u8]) {
        if self.counts.refused.inc_by(times) < MAX_LOGGED_FAULTS {
            let shown: String = String::from_utf8_lossy(datagram).chars().take(200).collect();
            tracing::warn!(datagram = ?shown, "a session is not counted: {why}");
        }
    }

    /// Brings what came in to the store. When that fails, it is held for the next time.
    pub async fn store(&self) -> Result<(), StoreError> {
        let held = std::mem::take(&mut *self.held());
        if held.days.is_empty() {
            return Ok(());
        }
        let mut tallies = BTreeMap::new();
        let mut counted = BTreeMap::new();
        let mut refused = Vec::new();
        for (day, alike) in &held.days {
            let (mut tally, mut sessions) = (DayTally::new(), 0);
            for (datagram, times) in alike {
                match read(datagram) {
                    Ok(session) => {
                        sessions += times;
                        count(session, *times, &mut tally);
                    }
                    Err(why) => refused.push((*times, why, datagram)),
                }
            }
            tallies.insert(*day, tally);
            counted.insert(*day, sessions);
        }
        if let Err(error) = self.add(tallies, &counted).await {
            self.counts.store_failures.inc_by(1);
            self.hold(&held);
            return Err(error);
        }
        for (times, why, datagram) in refused {
            self.refuse(times, &why, datagram);
        }
        Ok(())
    }

    /// Adds to the days that are open.
    async fn add(
        &self,
        mut tallies: BTreeMap<Timestamp, DayTally>,
        counted: &BTreeMap<Timestamp, u64>,
    ) -> Result<(), StoreError> {
        let mut late = Vec::new();
        loop {
            let closed = self.store.add_tallies(&tallies).await?;
            if closed.is_empty() {
                break;
            }
            tallies.retain(|day, _| !closed.contains(day));
            late.extend(closed);
        }
        for (day, sessions) in counted.iter().filter(|(_, sessions)| **sessions > 0) {
            if late.contains(day) {
                self.counts.late.inc_by(*sessions);
                tracing::warn!(day = %day.strftime("%Y-%m-%d"), sessions, "came after the day's reports were built, and are not counted");
            } else {
                self.counts.stored.inc_by(*sessions);
            }
        }
        Ok(())
    }

    fn hold(&self, back: &Pending) {
        let mut held = self.held();
        for (day, alike) in &back.days {
            for (datagram, times) in alike {
                if !held.add(*day, datagram, *times) {
                    self.counts.dropped.inc_by(*times);
                }
            }
        }
    }

    /// Brings what comes in to the store again and again, until it is told to stop; it is never cut off while what came
    /// in is on its way to the store, and so in nobody's memory.
    pub fn keep_storing<'a>(&'a self, stop: CancellationToken) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut ticks = tokio::time::interval(FLUSH_INTERVAL);
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
                        tracing::info!(dropped, "the store takes sessions again; dropped is since the start");
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

    /// Takes sessions that were posted: all of them are durable when this returns, or none is taken.
    pub fn post<'a>(&'a self, posted: Vec<Posted>) -> BoxFuture<'a, Result<usize, PostError>> {
        Box::pin(async move {
            let now = self.clock.now();
            let sessions = posted.len();
            let mut tallies: BTreeMap<Timestamp, DayTally> = BTreeMap::new();
            let mut last_of_day = BTreeMap::new();
            for (number, Posted { at, session }) in (1..).zip(posted) {
                let fail = |why: String| PostError::Session { number, why };
                let at = at.unwrap_or(now);
                if at.duration_since(now) > MAX_CLOCK_LEAD {
                    return Err(fail(format!("{at} is in the future: it is {now}")));
                }
                if let Some(unknown) = entries::unknown_policy(&session) {
                    return Err(fail(unknown.to_string()));
                }
                let day = DateRange::utc_day(at).start;
                last_of_day.insert(day, number);
                count(session, 1, tallies.entry(day).or_default());
            }
            if let Some(day) = self.store.add_tallies(&tallies).await?.first() {
                let number = last_of_day.get(day).copied().unwrap_or(1);
                let day = day.strftime("%Y-%m-%d");
                let why = format!("the reports about {day} are built, so that it can't be counted any more");
                return Err(PostError::Session { number, why });
            }
            self.counts.received.inc_by(sessions as u64);
            self.counts.stored.inc_by(sessions as u64);
            Ok(sessions)
        })
    }
}

fn read(datagram: &[u8]) -> Result<Session, String> {
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
