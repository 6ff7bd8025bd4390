//! Reads policies from the store, those that are asked for together in one question: going there costs more than what is
//! read, and a burst of mail asks for many domains at once.

use formats::DomainName;
use std::collections::HashMap;
use store::policies::StoredPolicy;
use store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};

type Outcome = Result<Option<StoredPolicy>, StoreError>;

/// Says what the store has of a domain.
pub struct PolicyReader {
    waiting: mpsc::Sender<(DomainName, oneshot::Sender<Outcome>)>,
    store: Store,
}

/// Domains in one question.
const BATCH_ROWS: usize = 64;

impl PolicyReader {
    /// Reads this store, in a task that ends with the reader.
    pub fn new(store: Store) -> Self {
        let (sender, mut waiting) = mpsc::channel(BATCH_ROWS);
        let own = store.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while waiting.recv_many(&mut taken, BATCH_ROWS).await > 0 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use formats::{Mode, PolicyId};
    use futures_util::future::join_all;
    use jiff::Timestamp;

    #[tokio::test]
    async fn each_asker_hears_of_the_own_domain_also_when_many_ask_at_once() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("s.db")).await.unwrap();
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
        let even: Vec<StoredPolicy> = names.iter().step_by(2).map(stored).collect();
        store.put_policies(&even).await.unwrap();
        let policy_reader = PolicyReader::new(store);
        let outcomes = join_all(names.iter().map(|name| policy_reader.policy(name))).await;
        for (number, (name, outcome)) in names.iter().zip(outcomes).enumerate() {
            let found = outcome.unwrap().map(|policy| policy.domain);
            assert_eq!(found, (number % 2 == 0).then(|| name.clone()), "{name}");
        }
    }
}
