//! Reads policies from the store, those that are asked for together in one question: going there costs more than what is
//! read, and a burst of mail asks for many domains at once.

use formats::DomainName;
use std::collections::HashMap;
use store::policies::StoredPolicy;
use store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};

type Outcome = Result<Option<StoredPolicy>, StoreError>;

/// Says what the store has of a domain.
pub struct Reader {
    waiting: mpsc::Sender<(DomainName, oneshot::Sender<Outcome>)>,
    store: Store,
}

/// Domains in one question.
const TOGETHER: usize = 64;

impl Reader {
    /// Reads this store, in a task that ends with the reader.
    pub fn new(store: Store) -> Self {
        let (sender, mut waiting) = mpsc::channel(TOGETHER);
        let own = store.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while waiting.recv_many(&mut taken, TOGETHER).await > 0 {
                answer(&store, taken.drain(..)).await;
            }
        });
        Self { waiting: sender, store: own }
    }

    /// What the store has of a domain.
    pub async fn policy(&self, domain: &DomainName) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        // The task is gone only when the program ends; then it does without.
        if self.waiting.send((domain.clone(), sender)).await.is_err() {
            return self.store.policy(domain).await;
        }
        match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => self.store.policy(domain).await,
        }
    }
}

async fn answer(store: &Store, asked: impl Iterator<Item = (DomainName, oneshot::Sender<Outcome>)>) {
    let (domains, askers): (Vec<_>, Vec<_>) = asked.unzip();
    let found = match domains.as_slice() {
        [_] => None,
        several => store.policies_of(several).await.ok(),
    };
    let found: Option<HashMap<DomainName, StoredPolicy>> =
        found.map(|all| all.into_iter().map(|policy| (policy.domain.clone(), policy)).collect());
    for (domain, asker) in domains.iter().zip(askers) {
        let outcome = match &found {
            Some(found) => Ok(found.get(domain).cloned()),
            // One that can't be read spoils no other.
            None => store.policy(domain).await,
        };
        // Who asked may have gone.
        let _ = asker.send(outcome);
    }
}
