//! Probes the MX hosts of domains whose policy is in `testing` and that got mail today (RPT-26).
//!
//! A probe is a TLS handshake under the full rules of MTA-STS, without mail. It runs once per [`PROBE_INTERVAL`] and
//! host, also if several domains share the host. The results go to the store; the report builder applies them.

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
use store::{PolicyDigest, Store, StoreError};

/// Probes MX hosts under policies in `testing`.
pub struct TestingProber {
    /// The store of tallies and probe results.
    pub store: Store,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Resolves MX hosts and their addresses.
    pub dns: Arc<dyn Dns>,
    /// Opens SMTP sessions with MX hosts.
    pub mail: Arc<dyn MailHosts>,
}

/// The minimum interval between two probes of a domain or a host.
const PROBE_INTERVAL: SignedDuration = SignedDuration::from_hours(6);
/// The minimum pause between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(15);
/// The pause after each handshake.
const PROBE_SPACING: Duration = Duration::from_millis(200);

/// The result of probing a host: the target, the time and the failure, if any. `None` when the host could not be
/// reached, which is no evidence about TLS.
type ProbeResult = Option<(Target, Timestamp, Option<(ResultType, String)>)>;

/// Recently probed hosts, each with the time and the result of its probe.
pub type Hosts = HashMap<DomainName, (Timestamp, ProbeResult)>;

impl TestingProber {
    /// Runs rounds until the future is dropped.
    pub fn run<'a>(&'a self) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut hosts = Hosts::new();
            loop {
                let started = Instant::now();
                if let Err(error) = self.run_round(&mut hosts).await {
                    tracing::warn!("MX hosts under policies in testing can't be probed: {error}");
                }
                // Pause longer after a long round, so that probing takes at most 5% of the time.
                tokio::time::sleep(ROUND_INTERVAL.max(started.elapsed() * 20)).await;
            }
        })
    }

    /// Probes the MX hosts of every domain whose last probe is older than six hours.
    pub fn run_round<'a>(&'a self, hosts: &'a mut Hosts) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            let day = DateRange::utc_day(now).start;
            hosts.retain(|_, (at, _)| now < later(*at, PROBE_INTERVAL));
            for (domain, lines) in self.store.maybe_testing(day).await? {
                let Some(digest) = PolicyDigest::of_lines(&lines).filter(|_| is_testing(&lines)) else {
                    continue;
                };
                let probes = self.store.testing_probes(day, &domain).await?;
                let last = probes.iter().rfind(|probe| probe.policy == digest);
                if last.is_some_and(|last| now < later(last.at, PROBE_INTERVAL)) {
                    continue;
                }
                let Ok(policy) = Policy::parse(lines.join("\n").as_bytes()) else { continue };
                let probes = self.probe_domain(&domain, &policy, digest, hosts).await;
                self.store.put_testing_probes(day, &domain, &probes).await?;
            }
            Ok(())
        })
    }

    /// Probes each MX host of a domain, in order of preference. Unreachable hosts are left out.
    async fn probe_domain(
        &self,
        domain: &DomainName,
        policy: &Policy,
        digest: PolicyDigest,
        hosts: &mut Hosts,
    ) -> Vec<TestingProbe> {
        let names: Vec<DomainName> = match self.dns.lookup(domain, Kind::Mx).await {
            Ok(answer) => answer.mx_hosts().take(MX_HOSTS).collect(),
            Err(error) if error.is_absence() => vec![domain.clone()],
            Err(_) => return Vec::new(),
        };
        let mut probes = Vec::new();
        for mx in names {
            let Some((target, at, failure)) = self.cached_probe(&mx, hosts).await else { continue };
            let unlisted = || {
                let why = "the MX host matches no mx line of the policy".to_owned();
                (!policy.covers(&mx)).then_some((ResultType::ValidationFailure, why))
            };
            let failure = unlisted().or(failure);
            probes.push(TestingProbe {
                policy: digest,
                receiving_ip: Some(target.address),
                at,
                reason: failure.as_ref().map(|(_, why)| why.clone()).unwrap_or_default(),
                failure: failure.map(|(result, _)| result),
                mx,
            });
        }
        probes
    }

    async fn cached_probe(&self, mx: &DomainName, hosts: &mut Hosts) -> ProbeResult {
        if let Some((_, result)) = hosts.get(mx) {
            return result.clone();
        }
        let result = self.probe_host(mx).await;
        hosts.insert(mx.clone(), (self.clock.now(), result.clone()));
        tokio::time::sleep(PROBE_SPACING).await;
        result
    }

    /// Probes the first address of a host that can be reached.
    async fn probe_host(&self, mx: &DomainName) -> ProbeResult {
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
