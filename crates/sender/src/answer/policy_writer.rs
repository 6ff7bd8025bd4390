//! Batched writes of policies to the store.
//!
//! [`super::Discovery`] sends each new policy here. A task writes all policies that wait in one transaction, so that
//! many look-ups share one sync to disk.

use store::Store;
use store::policies::StoredPolicy;
use tokio::sync::{mpsc, oneshot};

type Reply = oneshot::Sender<Result<(), String>>;

/// Writes policies in batches and reports when each is durable.
pub struct PolicyWriter {
    requests: mpsc::Sender<(StoredPolicy, Reply)>,
    store: Store,
}

/// The maximum number of policies in one transaction.
const BATCH_ROWS: usize = 256;

impl PolicyWriter {
    /// A writer to this store. It spawns a task that ends when the writer is dropped.
    pub fn new(store: Store) -> Self {
        let (requests, mut waiting) = mpsc::channel(BATCH_ROWS);
        let own = store.clone();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, BATCH_ROWS).await > 0 {
                let (policies, replies): (Vec<_>, Vec<Reply>) = batch.drain(..).unzip();
                let outcome = store.put_policies(&policies).await.map_err(|error| error.to_string());
                for reply in replies {
                    // The send fails when the look-up was cancelled.
                    let _ = reply.send(outcome.clone());
                }
            }
        });
        Self { requests, store: own }
    }

    /// Writes a policy and returns when it is durable. The error is the reason, as text, because one failure concerns
    /// the whole batch.
    pub async fn write(&self, policy: StoredPolicy) -> Result<(), String> {
        let (reply, outcome) = oneshot::channel();
        // The task ends early only when the runtime shuts down, or by a panic; then the store is written directly.
        if let Err(mpsc::error::SendError((policy, _))) = self.requests.send((policy, reply)).await {
            return self.store.put_policies(&[policy]).await.map_err(|error| error.to_string());
        }
        outcome.await.map_err(|_| "the write was interrupted".to_owned())?
    }
}
