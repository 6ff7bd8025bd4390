//! Looks for itself at the MX hosts of domains whose policy is in `testing` and that got mail today (RPT-26): by a
//! handshake under the full rules of MTA-STS, without mail, a few times a day, one for all domains that share a host.

use super::testing_probe::is_testing;
use formats::limits::MX_HOSTS;
use formats::report::DateRange;
use formats::{DomainName, Policy, ResultType};
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::{Clock, later};
use net::dns::{Dns, Kind, host_addresses};
use net::smtp::{MailHosts, Target, TlsDemand};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::testing_probes::TestingProbe;
use store::{Store, StoreError};

/// Looks.
pub struct TestingProber {
    /// Where tallies and looks are.
    pub store: Store,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Finds MX hosts.
    pub dns: Arc<dyn Dns>,
    /// Shakes hands with them.
    pub mail: Arc<dyn MailHosts>,
}

/// Between two looks at a domain or a host.
const PROBE_INTERVAL: SignedDuration = SignedDuration::from_hours(6);
/// Between two turns.
const ROUND_INTERVAL: Duration = Duration::from_secs(15);
/// Between two handshakes.
const PROBE_SPACING: Duration = Duration::from_millis(200);

/// What a host showed: `None` when it could not be reached, which says nothing about TLS.
type Showed = Option<(Target, Timestamp, Option<(ResultType, String)>)>;

/// The hosts that were looked at lately.
pub type Hosts = HashMap<DomainName, (Timestamp, Showed)>;

impl TestingProber {
    /// Looks until it is dropped.
    pub fn run<'a>(&'a self) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut hosts = Hosts::new();
            loop {
                let begun = Instant::now();
                if let Err(error) = self.turn(&mut hosts).await {
                    tracing::warn!("policies in testing can't be looked at now: {error}");
                }
                // Where there is much to go through, that is done less often.
                tokio::time::sleep(ROUND_INTERVAL.max(begun.elapsed() * 20)).await;
            }
        })
    }

    /// Looks at every domain whose turn it is.
    pub fn turn<'a>(&'a self, hosts: &'a mut Hosts) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            let day = DateRange::utc_day(now).start;
            hosts.retain(|_, (at, _)| now < later(*at, PROBE_INTERVAL));
            for (domain, lines) in self.store.maybe_testing(day).await? {
                let looks = self.store.testing_probes(day, &domain).await?;
                let is_fresh = looks.last().is_some_and(|last| now < later(last.at, PROBE_INTERVAL));
                if is_fresh || !is_testing(&lines) {
                    continue;
                }
                let Ok(policy) = Policy::parse(lines.join("\n").as_bytes()) else { continue };
                let looks = self.look(&domain, &policy, hosts).await;
                self.store.put_testing_probes(day, &domain, &looks).await?;
            }
            Ok(())
        })
    }

    /// One look at each MX host of a domain, in the order of their preference.
    async fn look(&self, domain: &DomainName, policy: &Policy, hosts: &mut Hosts) -> Vec<TestingProbe> {
        let names: Vec<DomainName> = match self.dns.lookup(domain, Kind::Mx).await {
            Ok(answer) => answer.mx_hosts().take(MX_HOSTS).collect(),
            Err(error) if error.is_absence() => vec![domain.clone()],
            Err(_) => return Vec::new(),
        };
        let mut looks = Vec::new();
        for mx in names {
            let Some((target, at, failure)) = self.host(&mx, hosts).await else { continue };
            let outside = || {
                let why = "the MX host matches no mx line of the policy".to_owned();
                (!policy.covers(&mx)).then_some((ResultType::ValidationFailure, why))
            };
            let failure = outside().or(failure);
            looks.push(TestingProbe {
                receiving_ip: Some(target.address),
                at,
                reason: failure.as_ref().map(|(_, why)| why.clone()).unwrap_or_default(),
                failure: failure.map(|(result, _)| result),
                mx,
            });
        }
        looks
    }

    async fn host(&self, mx: &DomainName, hosts: &mut Hosts) -> Showed {
        if let Some((_, showed)) = hosts.get(mx) {
            return showed.clone();
        }
        let showed = self.shake(mx).await;
        hosts.insert(mx.clone(), (self.clock.now(), showed.clone()));
        tokio::time::sleep(PROBE_SPACING).await;
        showed
    }

    async fn shake(&self, mx: &DomainName) -> Showed {
        let found = host_addresses(self.dns.as_ref(), mx).await.ok()?;
        for address in found.addresses {
            let target = Target { host: mx.clone(), address };
            match self.mail.session(&target, &TlsDemand::Pkix, None).await {
                Ok(_) => return Some((target, self.clock.now(), None)),
                Err(failure) => {
                    if let Some(result) = failure.fault.result_type() {
                        let failed = Some((result, failure.fault.to_string()));
                        return Some((target, self.clock.now(), failed));
                    }
                }
            }
        }
        None
    }
}
