//! Batched reads of policies from the store.
//!
//! [`super::Discovery`] requests the stored policy of each domain that it looks up. A task reads all domains that wait
//! in one query, since a query costs more than a row and a burst of mail requests many domains at once.

use formats::DomainName;
use std::collections::HashMap;
use store::policies::StoredPolicy;
use store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};

type Outcome = Result<Option<StoredPolicy>, StoreError>;

/// Reads stored policies in batches.
pub struct PolicyReader {
    requests: mpsc::Sender<(DomainName, oneshot::Sender<Outcome>)>,
    store: Store,
}

/// The maximum number of domains in one query.
const BATCH_ROWS: usize = 64;

impl PolicyReader {
    /// A reader of this store. It spawns a task that ends when the reader is dropped.
    pub fn new(store: Store) -> Self {
        let (sender, mut requests) = mpsc::channel(BATCH_ROWS);
        let own = store.clone();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while requests.recv_many(&mut batch, BATCH_ROWS).await > 0 {
                answer(&store, batch.drain(..)).await;
            }
        });
        Self { requests: sender, store: own }
    }

    /// The stored policy of a domain; `None` when the store has none.
    pub async fn policy(&self, domain: &DomainName) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        // The task ends early only when the runtime shuts down; then the store is read directly.
        if self.requests.send((domain.clone(), sender)).await.is_err() {
            return self.store.policy(domain).await;
        }
        match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => self.store.policy(domain).await,
        }
    }
}

async fn answer(store: &Store, requests: impl Iterator<Item = (DomainName, oneshot::Sender<Outcome>)>) {
    let (domains, replies): (Vec<_>, Vec<_>) = requests.unzip();
    let found = match domains.as_slice() {
        [_] => None,
        several => store.policies_of(several).await.ok(),
    };
    let found: Option<HashMap<DomainName, StoredPolicy>> =
        found.map(|all| all.into_iter().map(|policy| (policy.domain.clone(), policy)).collect());
    for (domain, reply) in domains.iter().zip(replies) {
        let outcome = match &found {
            Some(found) => Ok(found.get(domain).cloned()),
            // A single domain, or a batch that failed: read each domain alone, so that one bad row affects no other.
            None => store.policy(domain).await,
        };
        // The send fails when the lookup was cancelled.
        let _ = reply.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::{Mode, PolicyId};
    use futures_util::future::join_all;
    use jiff::Timestamp;

    #[tokio::test]
    async fn each_request_gets_its_own_domain_even_in_a_batch() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let names: Vec<DomainName> =
            (0..150).map(|number| DomainName::parse(&format!("d{number}.example")).unwrap()).collect();
        let stored = |domain: &DomainName| StoredPolicy {
            domain: domain.clone(),
            record_id: PolicyId::parse("1").unwrap(),
            body: String::new(),
            mode: Mode::Enforce,
            fetched_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            refresh_at: Timestamp::UNIX_EPOCH,
            dane: String::new(),
            used_at: Timestamp::UNIX_EPOCH,
        };
        let even: Vec<_> = names.iter().step_by(2).map(|name| stored(name).into()).collect();
        store.put_policies(&even).await.unwrap();
        let policy_reader = PolicyReader::new(store);
        let outcomes = join_all(names.iter().map(|name| policy_reader.policy(name))).await;
        for (number, (name, outcome)) in names.iter().zip(outcomes).enumerate() {
            let found = outcome.unwrap().map(|policy| policy.domain);
            assert_eq!(found, (number % 2 == 0).then(|| name.clone()), "{name}");
        }
    }
}
