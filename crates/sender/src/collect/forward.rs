//! Hands sessions over to the collector of another machine ([`super::Collector::forwarding`]).
//!
//! The collector spools batches in the store. The [`Forwarder`] posts the oldest one until the other machine has taken it,
//! and then removes it. The other machine counts a batch once, by its identifier, so a batch whose reply was lost is sent
//! again without harm. Each batch is JSON as `POST /v1/sessions` takes it.

use formats::limits::BATCH_BYTES;
use formats::posted::{MAX_COUNT, Posted};
use net::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::handover::SpooledBatch;
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

/// The interval at which an empty spool is polled.
const SPOOL_POLL: Duration = Duration::from_secs(1);
/// The delay after the first failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest delay after a failure.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// The way to the other machine.
pub trait Handover: Send + Sync {
    /// Posts a batch, and returns the HTTP status. The error is the reason, in words.
    fn hand_over<'a>(&'a self, batch: &'a SpooledBatch) -> BoxFuture<'a, Result<u16, String>>;
}

/// Empties the spool.
pub struct Forwarder {
    /// The store with the spool.
    pub store: Store,
    /// The way to the other machine.
    pub to: Arc<dyn Handover>,
    /// The counters since the start.
    pub counts: ForwardCounts,
}

/// Counters of sessions that were handed over.
#[derive(Debug, Default)]
pub struct ForwardCounts {
    /// Sessions that the other machine has taken.
    pub forwarded: Counter,
    /// Sessions that the other machine refused for good.
    pub lost: Counter,
    /// Failed attempts.
    pub failures: Counter,
}

impl ForwardCounts {
    /// Registers the counters as metrics.
    pub fn register(&self, all: &mut Registry) {
        for (name, help, count) in [
            ("sessions_forwarded", "TLS sessions that another collector has taken", &self.forwarded),
            ("sessions_lost", "TLS sessions that the other collector refused", &self.lost),
            ("forward_failures", "Failed attempts to hand TLS sessions over", &self.failures),
        ] {
            all.register(name, help, count.clone());
        }
    }
}

/// The reason why the spool is not empty.
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
    /// Hands over all batches in the spool, in their order.
    ///
    /// # Errors
    /// If the store fails, or the other machine does not take a batch for now.
    pub fn forward_all(&self) -> BoxFuture<'_, Result<(), ForwardError>> {
        Box::pin(async move {
            while let Some(batch) = self.store.oldest_spooled().await? {
                match self.to.hand_over(&batch).await {
                    Ok(200..300) => {
                        self.counts.forwarded.inc_by(batch.sessions);
                    }
                    // The batch itself is at fault, so a retry is pointless, and later batches must not wait for it.
                    Ok(status @ (400 | 413 | 415 | 422)) => {
                        self.counts.lost.inc_by(batch.sessions);
                        tracing::error!(
                            batch = batch.id,
                            sessions = batch.sessions,
                            status,
                            "sessions are lost: the other collector refused them"
                        );
                    }
                    Ok(status) => {
                        self.counts.failures.inc();
                        let hint = match status {
                            401 | 403 => "; check collector.token_file on both machines",
                            _ => "",
                        };
                        return Err(ForwardError::NotTaken(format!("status {status}{hint}")));
                    }
                    Err(why) => {
                        self.counts.failures.inc();
                        return Err(ForwardError::NotTaken(why));
                    }
                }
                self.store.delete_spooled(&batch.id).await?;
            }
            Ok(())
        })
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

/// Makes batches with identifiers that no other batch has: a random word of this process, and a number.
#[derive(Debug)]
pub(super) struct Batches {
    word: String,
    made: AtomicU64,
}

impl Batches {
    pub(super) fn new(word: String) -> Self {
        Self { word, made: AtomicU64::new(0) }
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
                    let id = format!("{}-{number}", self.word);
                    batches.push(SpooledBatch { id, body: line.into_bytes(), sessions: count });
                }
            }
        }
        batches
    }
}
