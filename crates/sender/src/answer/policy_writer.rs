//! Writes policies to the store, those that come together in one transaction: one wait for the disk
//! serves many look-ups.

use store::Store;
use store::policies::StoredPolicy;
use tokio::sync::{mpsc, oneshot};

type Done = oneshot::Sender<Result<(), String>>;

/// Takes policies and says when they are durable.
pub struct PolicyWriter(mpsc::Sender<(StoredPolicy, Done)>);

/// Policies in one transaction.
const BATCH_ROWS: usize = 256;

impl PolicyWriter {
    /// Writes to this store, in a task that ends with the keeper.
    pub fn new(store: Store) -> Self {
        let (sender, mut waiting) = mpsc::channel(BATCH_ROWS);
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while waiting.recv_many(&mut taken, BATCH_ROWS).await > 0 {
                let (policies, all): (Vec<_>, Vec<Done>) = taken.drain(..).unzip();
                let outcome = store.put_policies(&policies).await.map_err(|error| error.to_string());
                for done in all {
                    // Who asked may have gone.
                    let _ = done.send(outcome.clone());
                }
            }
        });
        Self(sender)
    }

    /// Returns when the policy is durable, or why it is not.
    pub async fn keep(&self, policy: StoredPolicy) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        let gone = |_| "the program is ending".to_owned();
        self.0.send((policy, done)).await.map_err(|error| error.to_string())?;
        outcome.await.map_err(gone)?
    }
}
