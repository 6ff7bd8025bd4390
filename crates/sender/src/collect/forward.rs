//! Hands sessions over to the collector of another machine ([`super::Collector::forwarding`]).
//!
//! The collector spools batches in the store. The [`Forwarder`] posts the oldest one until the other machine has taken it,
//! and then removes it. The other machine counts a batch once, by its identifier, so a batch whose reply was lost is sent
//! again without harm. Each batch is JSON as `POST /v1/sessions` takes it.
//!
//! A batch that the other machine refuses is split in halves, until only the sessions at fault are left. These stay in the
//! spool and are retried for [`REFUSED_LIFE`]: an update of the other machine may make it take them.

use formats::limits::BATCH_BYTES;
use formats::posted::{MAX_COUNT, Posted, parse};
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::{Clock, later};
use net::metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::handover::{REFUSED_MARK, SpooledBatch};
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

/// The interval at which an empty spool is polled.
const SPOOL_POLL: Duration = Duration::from_secs(1);
/// The delay after the first failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest delay after a failure.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// How long refused sessions are retried.
pub const REFUSED_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// The delay before refused sessions are retried.
const REFUSED_RETRY: SignedDuration = SignedDuration::from_mins(10);
/// After this number of refusals one after the other, batches are no longer split: the other machine refuses everything.
const MAX_REFUSALS: u32 = 32;

/// Sends batches of sessions to another machine.
pub trait Handover: Send + Sync {
    /// Posts a batch, and returns the HTTP status. The error is the reason, in words.
    fn hand_over<'a>(&'a self, batch: &'a SpooledBatch) -> BoxFuture<'a, Result<u16, String>>;
}

/// Hands spooled sessions over to another machine, and removes those that it has taken.
pub struct Forwarder {
    /// The store with the spool.
    pub store: Store,
    /// Sends a batch to the other machine.
    pub to: Arc<dyn Handover>,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// The counters since the start.
    pub counts: ForwardCounts,
}

/// Counters of sessions that were handed over.
#[derive(Debug, Default)]
pub struct ForwardCounts {
    /// Sessions that the other machine has taken.
    pub forwarded: Counter,
    /// Sessions that the other machine refused for [`REFUSED_LIFE`].
    pub lost: Counter,
    /// Refusals of sessions that wait in the store since then, one count for each attempt.
    pub refused: Counter,
    /// Failed attempts to hand a batch over.
    pub failures: Counter,
}

impl ForwardCounts {
    /// Registers the counters as metrics.
    pub fn register(&self, all: &mut Registry) {
        metrics::SESSIONS_FORWARDED.register(all, self.forwarded.clone());
        metrics::SESSIONS_LOST.register(all, self.lost.clone());
        metrics::FORWARD_REFUSALS.register(all, self.refused.clone());
        metrics::FORWARD_FAILURES.register(all, self.failures.clone());
    }
}

/// Why sessions stay in the spool.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The other machine did not take a batch; it is retried.
    #[error("the other collector does not take sessions: {0}")]
    NotTaken(String),
}

impl Forwarder {
    /// Hands over all batches in the spool, in their order, and then those that were refused before.
    ///
    /// # Errors
    /// If the store fails, or the other machine does not take a batch for now.
    pub fn forward_all(&self) -> BoxFuture<'_, Result<(), ForwardError>> {
        Box::pin(async move {
            let mut refusals = 0;
            while let Some(batch) = self.store.oldest_spooled().await? {
                self.forward(batch, &mut refusals).await?;
            }
            while let Some(batch) = self.store.oldest_refused().await? {
                let now = self.clock.now();
                if !Refusal::of(&batch.id).1.is_none_or(|refusal| refusal.is_due(now)) {
                    break;
                }
                self.forward(batch, &mut refusals).await?;
            }
            Ok(())
        })
    }

    /// Posts a batch. `refusals` is the number of refusals since the last batch that was taken.
    async fn forward(&self, batch: SpooledBatch, refusals: &mut u32) -> Result<(), ForwardError> {
        let not_taken = |why: String| {
            self.counts.failures.inc();
            Err(ForwardError::NotTaken(why))
        };
        match self.to.hand_over(&batch).await {
            Ok(200..300) => {
                *refusals = 0;
                self.counts.forwarded.inc_by(batch.sessions);
                Ok(self.store.replace_spooled(&batch.id, &[]).await?)
            }
            // A session of the batch is at fault, and the others must not wait for it.
            Ok(status @ (400 | 413 | 422)) => {
                *refusals += 1;
                self.refused(batch, status, *refusals < MAX_REFUSALS).await
            }
            Ok(status) => {
                let hint = match status {
                    401 | 403 => "; check collector.token_file on both machines",
                    _ => "",
                };
                not_taken(format!("status {status}{hint}"))
            }
            Err(why) => not_taken(why),
        }
    }

    /// Splits a refused batch, or keeps it for later attempts.
    async fn refused(&self, batch: SpooledBatch, status: u16, may_split: bool) -> Result<(), ForwardError> {
        let now = self.clock.now();
        let (base, before) = Refusal::of(&batch.id);
        let first = before.as_ref().map_or(now, |refusal| refusal.first_by(now));
        if may_split && let Some(halves) = halves(&batch, base, before) {
            return Ok(self.store.replace_spooled(&batch.id, &halves).await?);
        }
        if now >= later(first, REFUSED_LIFE) {
            self.counts.lost.inc_by(batch.sessions);
            let (id, sessions) = (&batch.id, batch.sessions);
            tracing::error!(
                batch = id,
                sessions,
                status,
                "sessions are lost: the other collector refused them for a day"
            );
            return Ok(self.store.replace_spooled(id, &[]).await?);
        }
        if before.is_none() {
            tracing::error!(
                batch = batch.id,
                sessions = batch.sessions,
                status,
                "the other collector refuses sessions; they are kept and retried for a day. Its version may be older"
            );
        }
        self.counts.refused.inc_by(batch.sessions);
        let kept = SpooledBatch { id: Refusal { first, last: now }.mark(base), ..batch.clone() };
        Ok(self.store.replace_spooled(&batch.id, &[kept]).await?)
    }

    /// Hands sessions over until `stop` is cancelled. After a failure it waits, for longer with each further one.
    pub fn run(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut failures: u32 = 0;
            loop {
                let delay = match self.forward_all().await {
                    Ok(()) => {
                        if failures > 0 {
                            tracing::info!("sessions are handed over again");
                        }
                        failures = 0;
                        SPOOL_POLL
                    }
                    Err(error) => {
                        if failures == 0 {
                            tracing::error!("sessions wait in the store: {error}");
                        }
                        failures += 1;
                        FIRST_RETRY.saturating_mul(1 << failures.min(10)).min(MAX_RETRY)
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = stop.cancelled() => return,
                }
            }
        })
    }
}

/// When a batch was refused. The identifier of the batch holds it, after [`REFUSED_MARK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    first: Timestamp,
    last: Timestamp,
}

impl Refusal {
    /// The identifier of a batch without the mark, and the refusal if the batch was refused before.
    fn of(id: &str) -> (&str, Option<Self>) {
        let Some((base, times)) = id.split_once(REFUSED_MARK) else { return (id, None) };
        let time = |text: &str| Timestamp::from_second(text.parse().ok()?).ok();
        let times = times.split_once('-').and_then(|(first, last)| Some((time(first)?, time(last)?)));
        (base, times.map(|(first, last)| Self { first, last }))
    }

    /// Whether the batch is sent again at `now`. A refusal in the future was recorded by a clock that was ahead.
    fn is_due(self, now: Timestamp) -> bool {
        now.duration_since(self.last).abs() >= REFUSED_RETRY
    }

    /// The time of the first refusal; at most `now`, so that sessions are not kept for longer after a clock was ahead.
    fn first_by(self, now: Timestamp) -> Timestamp {
        self.first.min(now)
    }

    fn mark(self, base: &str) -> String {
        format!("{base}{REFUSED_MARK}{}-{}", self.first.as_second(), self.last.as_second())
    }
}

/// The halves of a batch, with identifiers of their own; `None` for a single line.
fn halves(batch: &SpooledBatch, base: &str, before: Option<Refusal>) -> Option<[SpooledBatch; 2]> {
    let lines: Vec<&[u8]> = batch.body.split(|byte| *byte == b'\n').collect();
    let (one, other) = lines.split_at(lines.len() / 2);
    let dot = if base.contains('.') { "" } else { "." };
    let half = |lines: &[&[u8]], letter: &str| {
        let body = lines.join(&b'\n');
        let sessions = parse(&body).map(|all| all.iter().map(|posted| posted.count).sum()).unwrap_or(0);
        let base = format!("{base}{dot}{letter}");
        // The halves of a batch that was refused before are due at once.
        let refusal = before.map(|refusal| Refusal { last: Timestamp::UNIX_EPOCH, ..refusal });
        SpooledBatch { id: refusal.map_or(base.clone(), |refusal| refusal.mark(&base)), body, sessions }
    };
    (!one.is_empty()).then(|| [half(one, "a"), half(other, "b")])
}

/// Makes batches with identifiers that no other batch has: a random prefix of this process, and a number.
#[derive(Debug)]
pub(super) struct Batches {
    id_prefix: String,
    made: AtomicU64,
}

impl Batches {
    pub(super) fn new(id_prefix: String) -> Self {
        Self { id_prefix, made: AtomicU64::new(0) }
    }

    /// Puts sessions into batches. Equal ones are merged.
    pub(super) fn make(&self, sessions: impl IntoIterator<Item = Posted>) -> Vec<SpooledBatch> {
        let mut merged: BTreeMap<String, (Posted, u64)> = BTreeMap::new();
        for posted in sessions {
            let count = posted.count;
            let single = Posted { count: 1, ..posted };
            merged.entry(single.to_json()).or_insert((single, 0)).1 += count;
        }
        let mut batches: Vec<SpooledBatch> = Vec::new();
        for (posted, count) in merged.into_values() {
            let count = count.min(MAX_COUNT);
            let line = Posted { count, ..posted }.to_json();
            match batches.last_mut().filter(|batch| batch.body.len() + line.len() < BATCH_BYTES) {
                Some(batch) => {
                    batch.body.push(b'\n');
                    batch.body.extend_from_slice(line.as_bytes());
                    batch.sessions += count;
                }
                None => {
                    let number = self.made.fetch_add(1, Ordering::Relaxed);
                    let id = format!("{}-{number}", self.id_prefix);
                    batches.push(SpooledBatch { id, body: line.into_bytes(), sessions: count });
                }
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_batch_is_sent_again_after_a_clock_that_was_a_year_ahead_is_set_right() {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let ahead = later(now, SignedDuration::from_hours(365 * 24));
        let refused = |at| Refusal { first: at, last: at };
        assert!(refused(ahead).is_due(now) && refused(ahead).first_by(now) == now);
        assert!(!refused(now).is_due(later(now, SignedDuration::from_mins(9))));
        assert!(refused(now).is_due(later(now, REFUSED_RETRY)) && refused(now).first_by(ahead) == now);
    }
}
