//! Looks for the policy of a domain, and remembers it.

use super::sts::{FailedFetch, Found, HeldPolicy, Next, RecordSeen, Unfetched, conclude, next};
use formats::sts_record::SelectError;
use formats::{DomainName, Policy, PolicyId, StsRecord};
use net::clock::Clock;
use net::dns::{Dns, Kind};
use net::https::PolicyHosts;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::policies::StoredPolicy;
use store::{Store, StoreError};

/// Looks for policies; what it finds is in the store before it is answered.
pub struct Discovery {
    dns: Arc<dyn Dns>,
    hosts: Arc<dyn PolicyHosts>,
    store: Store,
    clock: Arc<dyn Clock>,
    failures: Mutex<HashMap<DomainName, FailedFetch>>,
}

/// Why a domain could not be looked into at all.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// What is remembered can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many failures are remembered for their back-off.
const FAILURES: usize = 10_000;

impl Discovery {
    /// A discovery by these means.
    pub fn new(dns: Arc<dyn Dns>, hosts: Arc<dyn PolicyHosts>, store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { dns, hosts, store, clock, failures: Mutex::default() }
    }

    /// The policy that mail to `domain` goes by now, with the record it was judged by.
    pub async fn find(&self, domain: &DomainName) -> Result<(Found, RecordSeen), DiscoveryError> {
        let held = self.held(domain).await?;
        let seen = self.record(domain).await;
        let now = self.clock.now();
        let failed = self.failures().get(domain).cloned();
        let fetched = match next(&seen, held.as_ref(), failed.as_ref(), now) {
            Next::Keep => failed.filter(|failed| announces(&seen, &failed.id)).map(|failed| Err(failed.why)),
            Next::Fetch(id) => Some(self.fetch(domain, id).await),
        };
        if let Some(Ok(new)) = &fetched {
            self.remember(domain, new).await?;
        }
        let found = conclude(held, fetched, now);
        if let Some(why) = found.complaint() {
            tracing::warn!(%domain, "{why}");
        }
        Ok((found, seen))
    }

    /// The policy that is remembered of a domain, live or not.
    pub async fn held(&self, domain: &DomainName) -> Result<Option<HeldPolicy>, StoreError> {
        let stored = self.store.policy(domain).await?;
        Ok(stored.and_then(|stored| {
            let policy = Policy::parse(stored.body.as_bytes()).ok()?;
            Some(HeldPolicy {
                policy,
                body: stored.body,
                id: stored.record_id,
                fetched_at: stored.fetched_at,
            })
        }))
    }

    async fn record(&self, domain: &DomainName) -> RecordSeen {
        let Ok(name) = domain.below("_mta-sts") else { return RecordSeen::Absent };
        match self.dns.lookup(&name, Kind::Txt).await {
            Ok(answer) => match StsRecord::select(answer.texts()) {
                Ok(record) => RecordSeen::Published(record),
                Err(SelectError::None) => RecordSeen::Absent,
                Err(invalid) => RecordSeen::Invalid(invalid),
            },
            Err(error) if error.is_absence() => RecordSeen::Absent,
            Err(error) => RecordSeen::Unknown(error),
        }
    }

    async fn fetch(&self, domain: &DomainName, id: PolicyId) -> Result<HeldPolicy, Unfetched> {
        let outcome = self.fetch_and_parse(domain, &id).await;
        let mut failures = self.failures();
        failures.remove(domain);
        if let Err(why) = &outcome {
            if failures.len() >= FAILURES {
                failures.clear();
            }
            failures.insert(domain.clone(), FailedFetch { id, at: self.clock.now(), why: why.clone() });
        }
        outcome
    }

    async fn fetch_and_parse(&self, domain: &DomainName, id: &PolicyId) -> Result<HeldPolicy, Unfetched> {
        let fetched = self.hosts.fetch(domain).await?;
        let policy = Policy::parse(&fetched.body)?;
        // A valid policy is UTF-8, so nothing is lost here.
        let body = String::from_utf8_lossy(&fetched.body).into_owned();
        Ok(HeldPolicy { policy, body, id: id.clone(), fetched_at: self.clock.now() })
    }

    async fn remember(&self, domain: &DomainName, held: &HeldPolicy) -> Result<(), StoreError> {
        let stored = StoredPolicy {
            domain: domain.clone(),
            record_id: held.id.clone(),
            body: held.body.clone(),
            fetched_at: held.fetched_at,
            expires_at: held.expires_at(),
        };
        self.store.put_policy(&stored).await
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<DomainName, FailedFetch>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn announces(seen: &RecordSeen, id: &PolicyId) -> bool {
    matches!(seen, RecordSeen::Published(record) if record.id == *id)
}
