//! Which orders run when. Several run at once, so that a validation that hangs or a slow CA holds up no other host.
//! Hosts whose last order failed share a part of the places, so that they leave the others to the rest.

use super::{ORDERS_BATCH, Orders};
use formats::DomainName;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use net::BoxFuture;
use std::collections::BTreeMap;
use std::time::Duration;
use store::StoreError;
use store::hosting::Due;

/// The maximum number of orders that run at once.
const ORDERS_AT_ONCE: usize = 16;
/// The maximum number of them whose last order failed.
const RETRIES_AT_ONCE: usize = 4;
/// The interval between two searches for times that were planned by a wrong clock.
const CORRECTION_INTERVAL: Duration = Duration::from_secs(3600);
/// Time between two checks for certificates that are due.
const ORDERS_INTERVAL: Duration = Duration::from_secs(5);

/// The orders that run now.
#[derive(Default)]
struct Running<'a> {
    tasks: FuturesUnordered<BoxFuture<'a, (DomainName, Result<(), StoreError>)>>,
    /// The hosts of the running orders, and whether the last order for each failed.
    hosts: BTreeMap<DomainName, bool>,
}

impl<'a> Running<'a> {
    fn has_place(&self, is_retry: bool) -> bool {
        let retries = self.hosts.values().filter(|is_retry| **is_retry).count();
        self.hosts.len() < ORDERS_AT_ONCE && (!is_retry || retries < RETRIES_AT_ONCE)
    }

    fn start(
        &mut self,
        host: DomainName,
        is_retry: bool,
        order: impl Future<Output = Result<(), StoreError>> + Send + 'a,
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
            if tried > 0 {
                self.release_lease().await?;
            }
            Ok(tried)
        })
    }

    /// Orders certificates when they are due, until it is dropped.
    pub async fn run(&self) {
        let (mut running, mut is_held) = (Running::default(), false);
        let mut corrected_at = None;
        loop {
            self.correct_plans(&mut corrected_at).await;
            let tick = self.tick(&mut running, &mut is_held).await;
            if let Err(error) = tick {
                tracing::error!("certificates can't be ordered: the store fails: {error}");
            }
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
        match self.store.correct_certificate_plans(self.clock.now()).await {
            Ok(0) => {}
            Ok(count) => tracing::warn!(
                count,
                "orders of certificates were planned while the clock was ahead, and are due now"
            ),
            Err(error) => tracing::error!("the times of certificate orders can't be corrected: {error}"),
        }
    }

    async fn tick<'a>(&'a self, running: &mut Running<'a>, is_held: &mut bool) -> Result<(), StoreError> {
        // The lease outlasts an order only if it is renewed.
        if !running.hosts.is_empty() {
            self.acquire_lease().await?;
        }
        *is_held |= self.start_due(running).await? > 0;
        if *is_held && running.hosts.is_empty() {
            self.release_lease().await?;
            *is_held = false;
        }
        Ok(())
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
    async fn start_due<'a>(&'a self, running: &mut Running<'a>) -> Result<usize, StoreError> {
        let now = self.clock.now();
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
                if !self.acquire_lease().await? {
                    return Ok(started);
                }
                (started, left) = (started + 1, left.saturating_sub(1));
                running.start(certificate.host.clone(), is_retry, self.process(certificate));
            }
        }
        Ok(started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
