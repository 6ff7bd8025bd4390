//! Which orders run when. Several run at once, so that a validation that hangs or a slow CA holds up no other host.
//! Hosts whose last order failed share a part of the places, so that they leave the others to the rest.

use super::{LEASE_NAME, ORDER_LEASE, ORDERS_BATCH, Orders};
use formats::DomainName;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use net::BoxFuture;
use std::collections::BTreeMap;
use std::time::Duration;
use store::hosting::Due;
use store::leases::HeldLease;
use store::{Outage, StoreError};

/// The maximum number of orders that run at once.
const ORDERS_AT_ONCE: usize = 16;
/// The maximum number of them whose last order failed.
const RETRIES_AT_ONCE: usize = 4;
/// The interval between two searches for times that were planned by a wrong clock.
const CORRECTION_INTERVAL: Duration = Duration::from_secs(3600);
/// Time between two checks for certificates that are due.
const ORDERS_INTERVAL: Duration = Duration::from_secs(5);

/// The orders that run now, and the lease under which they do.
#[derive(Default)]
struct Running {
    tasks: FuturesUnordered<BoxFuture<'static, (DomainName, Result<(), StoreError>)>>,
    /// The hosts of the running orders, and whether the last order for each failed.
    hosts: BTreeMap<DomainName, bool>,
    lease: Option<HeldLease>,
}

impl Running {
    fn has_place(&self, is_retry: bool) -> bool {
        let retries = self.hosts.values().filter(|is_retry| **is_retry).count();
        self.hosts.len() < ORDERS_AT_ONCE && (!is_retry || retries < RETRIES_AT_ONCE)
    }

    fn start(
        &mut self,
        host: DomainName,
        is_retry: bool,
        order: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    ) {
        self.hosts.insert(host.clone(), is_retry);
        self.tasks.push(Box::pin(async move { (host, order.await) }));
    }

    /// Waits for the next order that ends; `None` if none runs.
    async fn next(&mut self) -> Option<Result<(), StoreError>> {
        let (host, outcome) = self.tasks.next().await?;
        self.hosts.remove(&host);
        Some(outcome)
    }
}

impl Orders {
    /// Orders the certificates that are due now, and returns how many orders were tried when all have ended.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn round<'a>(&'a self) -> BoxFuture<'a, Result<usize, StoreError>> {
        Box::pin(async move {
            let (mut running, mut tried) = (Running::default(), 0);
            loop {
                tried += self.start_due(&mut running).await?;
                match running.next().await {
                    Some(ended) => ended?,
                    None => break,
                }
            }
            self.release_lease(&mut running).await?;
            Ok(tried)
        })
    }

    /// Orders certificates when they are due, until it is dropped.
    pub async fn run(&self) {
        let mut running = Running::default();
        let mut corrected_at = None;
        let outage = Outage::new();
        loop {
            self.correct_plans(&mut corrected_at).await;
            outage.log(
                &self.tick(&mut running).await,
                "certificates can't be ordered: the store fails",
                "certificates are ordered again",
            );
            let pause = tokio::time::sleep(ORDERS_INTERVAL);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    Some(ended) = running.next() => {
                        if let Err(error) = ended {
                            tracing::error!("an order can't be recorded: the store fails: {error}");
                        }
                    }
                }
            }
        }
    }

    /// At the start and once an hour, makes orders due that were planned by a clock that was ahead.
    async fn correct_plans(&self, last: &mut Option<Duration>) {
        let elapsed = self.clock.elapsed();
        if last.is_some_and(|last| elapsed.saturating_sub(last) < CORRECTION_INTERVAL) {
            return;
        }
        *last = Some(elapsed);
        let corrected = match self.now().await {
            Ok(now) => self.store.correct_certificate_plans(now).await,
            Err(error) => Err(error),
        };
        match corrected {
            Ok(0) => {}
            Ok(count) => tracing::warn!(
                "the orders of {count} certificates were planned while the clock was ahead, and are due now"
            ),
            Err(error) => tracing::error!("the times of certificate orders can't be corrected: {error}"),
        }
    }

    async fn tick(&self, running: &mut Running) -> Result<(), StoreError> {
        // The lease outlasts an order only if it is renewed.
        if let Some(lease) = running.lease.clone().filter(|_| !running.hosts.is_empty())
            && !self.store.renew(&lease, self.clock.now()).await?
        {
            running.lease = None;
            tracing::warn!(
                "another process orders certificates: the orders that run here end without a result"
            );
        }
        self.start_due(running).await?;
        if running.hosts.is_empty() {
            self.release_lease(running).await?;
        }
        Ok(())
    }

    /// Whether this process may order: it has the lease, or gets it now.
    async fn has_lease(&self, running: &mut Running) -> Result<bool, StoreError> {
        if running.lease.as_ref().is_none_or(HeldLease::is_over) {
            let now = self.clock.now();
            running.lease = self.store.acquire(LEASE_NAME, &self.holder, now, ORDER_LEASE).await?;
        }
        Ok(running.lease.as_ref().is_some_and(|lease| !lease.is_over()))
    }

    async fn release_lease(&self, running: &mut Running) -> Result<(), StoreError> {
        match running.lease.take() {
            Some(lease) => self.store.give_back(&lease).await,
            None => Ok(()),
        }
    }

    /// The number of new orders that all CAs together may get now.
    async fn new_orders_left(&self) -> Result<u32, StoreError> {
        let (now, mut left) = (self.now().await?, 0_u32);
        for ca in &self.authorities {
            left = left.saturating_add(ca.remaining(&self.store, now).await?);
        }
        Ok(left)
    }

    /// Starts orders that are due, as long as there are places, and returns how many.
    async fn start_due(&self, running: &mut Running) -> Result<usize, StoreError> {
        let now = self.now().await?;
        let mut started = 0;
        for due in [Due::Renewal, Due::First, Due::RenewalRetry, Due::FirstRetry] {
            let is_retry = matches!(due, Due::RenewalRetry | Due::FirstRetry);
            let is_first = matches!(due, Due::First | Due::FirstRetry);
            let budget: u32 = match is_first {
                true => self.new_orders_left().await?,
                false => u32::MAX,
            };
            if budget == 0 || !running.has_place(is_retry) {
                continue;
            }
            // Those that run already are still due.
            let most = u32::try_from(running.hosts.len()).unwrap_or(0).saturating_add(ORDERS_BATCH);
            let certificates = self.store.certificates_due(due, now, most).await?;
            let mut left = budget;
            for certificate in certificates {
                if left == 0 || !running.has_place(is_retry) {
                    break;
                }
                if running.hosts.contains_key(&certificate.host) {
                    continue;
                }
                if !self.has_lease(running).await? {
                    return Ok(started);
                }
                let Some(lease) = &running.lease else { return Ok(started) };
                let orders = self.on(self.store.under(lease));
                (started, left) = (started + 1, left.saturating_sub(1));
                let host = certificate.host.clone();
                running.start(host, is_retry, async move { orders.process(certificate).await });
            }
        }
        Ok(started)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ChallengeType;
    use super::*;
    use crate::host::vault::Vault;
    use crate::rollout::desired::PolicyHostAt;
    use jiff::Timestamp;
    use net::clock::SystemClock;
    use net::dns::{Answer, Dns, DnsError, Kind};
    use net::random::SystemRandomness;
    use std::sync::Arc;
    use store::Store;
    use store::hosting::StoredCertificate;

    /// A resolver during whose lookup another process gets the lease, as if this one stood still meanwhile.
    struct StandsStill(Store);

    impl Dns for StandsStill {
        fn lookup<'a>(&'a self, _: &'a DomainName, _: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
            Box::pin(async {
                let now = Timestamp::now();
                self.0.take_lease(LEASE_NAME, "this", "another", now, ORDER_LEASE).await.unwrap();
                Err(DnsError::Timeout)
            })
        }
    }

    #[tokio::test]
    async fn an_order_that_stood_still_for_longer_than_its_lease_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let orders = Orders {
            store: store.clone(),
            dns: Arc::new(StandsStill(store.clone())),
            clock: Arc::new(SystemClock),
            authorities: Vec::new(),
            challenges: vec![ChallengeType::Http01],
            dns_challenges: None,
            vault: Arc::new(Vault::default()),
            policy_host_target: Some(PolicyHostAt::Addresses(vec![[127, 0, 0, 1].into()])),
            holder: "this".to_owned(),
            randomness: Arc::new(SystemRandomness),
        };
        let domain = DomainName::parse("d1.example").unwrap();
        store.put_hosted(&domain, Some("version: STSv1")).await.unwrap();
        // A renewal, which needs no budget.
        let due = StoredCertificate {
            chain: "a chain".to_owned(),
            ..StoredCertificate::to_order(host(1), Timestamp::UNIX_EPOCH)
        };
        store.put_certificate(&due).await.unwrap();
        let error = orders.round().await.unwrap_err();
        assert!(matches!(error, StoreError::LeaseLost { .. }), "{error}");
        assert_eq!(store.certificate(&host(1)).await.unwrap(), Some(due));
        // While the other one has the lease, nothing is ordered here.
        assert_eq!(orders.round().await.unwrap(), 0);
    }

    fn host(number: usize) -> DomainName {
        DomainName::parse(&format!("mta-sts.d{number}.example")).unwrap()
    }

    #[tokio::test]
    async fn orders_that_failed_before_leave_places_to_the_others() {
        let mut running = Running::default();
        for number in 0..RETRIES_AT_ONCE {
            assert!(running.has_place(true));
            running.start(host(number), true, std::future::pending());
        }
        assert!(!running.has_place(true) && running.has_place(false));
        for number in RETRIES_AT_ONCE..ORDERS_AT_ONCE {
            assert!(running.has_place(false));
            running.start(host(number), false, async { Ok(()) });
        }
        assert!(!running.has_place(false));
        // Those that hang do not keep the others from ending.
        for _ in RETRIES_AT_ONCE..ORDERS_AT_ONCE {
            running.next().await.unwrap().unwrap();
        }
        assert!(running.has_place(false) && running.hosts.len() == RETRIES_AT_ONCE);
    }
}
