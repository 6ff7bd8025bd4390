//! Batched writes of policies to the store.
//!
//! [`super::Discovery`] sends each new policy here. A task writes all policies that wait in one transaction, so that
//! many lookups share one sync to disk. The newest policy of a domain wins (VAL-19): concurrent lookups of its next
//! hops may fetch different policies, and finish in any order.

use formats::DomainName;
use quick_cache::unsync::Cache;
use store::Store;
use store::policies::PolicyWrite;
use tokio::sync::{mpsc, oneshot};

/// A policy that was fetched, with what is known about its age.
#[derive(Debug, Clone)]
pub struct NewPolicy {
    /// The row for the store.
    pub row: PolicyWrite,
    /// The place of the fetch among all fetches of this process. The store has seconds only.
    pub order: u64,
}

/// The outcome of writing a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The policy is in force for its domain now.
    InForce,
    /// The store has a policy of the domain that was fetched later.
    Superseded,
}

type Outcome = Result<Written, String>;
type Request = (NewPolicy, oneshot::Sender<Outcome>);

/// Writes policies in batches and reports when each is durable.
pub struct PolicyWriter {
    requests: mpsc::Sender<Request>,
    store: Store,
}

/// The maximum number of policies in one transaction.
const BATCH_ROWS: usize = 256;
/// The number of domains whose last write is remembered, to order fetches of the same second.
const REMEMBERED_WRITES: usize = 10_000;

impl PolicyWriter {
    /// A writer to this store. It spawns a task that ends when the writer is dropped.
    pub fn new(store: Store) -> Self {
        let (requests, mut waiting) = mpsc::channel(BATCH_ROWS);
        let own = store.clone();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            let mut last = Cache::new(REMEMBERED_WRITES);
            while waiting.recv_many(&mut batch, BATCH_ROWS).await > 0 {
                write(&store, &mut batch, &mut last).await;
            }
        });
        Self { requests, store: own }
    }

    /// Writes a policy and returns when it is durable. The error is the reason, as text, because one failure concerns
    /// the whole batch.
    pub async fn write(&self, policy: NewPolicy) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        // The task ends early only when the runtime shuts down, or by a panic; then the store is written directly.
        if let Err(mpsc::error::SendError((policy, _))) = self.requests.send((policy, reply)).await {
            let stored = self.store.put_policies(&[policy.row]).await.map_err(|error| error.to_string())?;
            return Ok(if stored.is_empty() { Written::Superseded } else { Written::InForce });
        }
        outcome.await.map_err(|_| "the write was interrupted".to_owned())?
    }
}

/// Writes the newest policy of each domain in one transaction, and replies to all requests.
async fn write(store: &Store, batch: &mut Vec<Request>, last: &mut Cache<DomainName, u64>) {
    // The newest first; the sort keeps the requests of a domain together.
    let key = |(policy, _): &Request| (policy.row.policy.domain.clone(), std::cmp::Reverse(policy.order));
    batch.sort_by_cached_key(key);
    let mut rows: Vec<PolicyWrite> = Vec::new();
    let mut newest_order = 0;
    let mut replies = Vec::new();
    for (NewPolicy { row, order }, reply) in batch.drain(..) {
        let domain = row.policy.domain.clone();
        let is_stale = last.get(&domain).is_some_and(|last| *last > order);
        let is_first = rows.last().is_none_or(|newest| newest.policy.domain != domain);
        if is_first && !is_stale {
            newest_order = order;
            rows.push(row);
        }
        // Several lookups may write the same policy, one that could not be stored before.
        let is_newest = (!is_stale).then_some(order == newest_order);
        replies.push((domain, order, is_newest, reply));
    }
    let stored = store.put_policies(&rows).await.map_err(|error| error.to_string());
    for (domain, order, is_newest, reply) in replies {
        let outcome = match (&stored, is_newest) {
            (_, None) => Ok(Written::Superseded),
            (Err(why), Some(_)) => Err(why.clone()),
            (Ok(stored), Some(true)) if stored.contains(&domain) => {
                last.insert(domain, order);
                Ok(Written::InForce)
            }
            (Ok(_), Some(_)) => Ok(Written::Superseded),
        };
        // The send fails when the lookup was cancelled.
        let _ = reply.send(outcome);
    }
}
