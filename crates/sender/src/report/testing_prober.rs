//! Probes the MX hosts of domains whose policy is in `testing` and that got mail today (RPT-26).
//!
//! A probe is a TLS handshake under the full rules of MTA-STS, without mail. It runs once per [`PROBE_INTERVAL`] and
//! host, also if several domains share the host. The results go to the store; the report builder applies them. Several
//! domains are probed at once, each with a deadline, so that a host that hangs holds up no other domain.

use super::testing_probe::is_testing;
use formats::limits::MX_HOSTS;
use formats::report::DateRange;
use formats::{DomainName, Policy, ResultType};
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::{Clock, later};
use net::dns::{Dns, Kind, host_addresses};
use net::metrics::{self, Counter, Counters, Gauge, Registry};
use net::smtp::{MailHosts, Target, TlsDemand};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::testing_probes::TestingProbe;
use store::{PolicyDigest, Store, StoreError};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Probes MX hosts under policies in `testing`.
#[derive(Clone)]
pub struct TestingProber {
    /// The store of tallies and probe results.
    pub store: Store,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Resolves MX hosts and their addresses.
    pub dns: Arc<dyn Dns>,
    /// Opens SMTP sessions with MX hosts.
    pub mail: Arc<dyn MailHosts>,
    /// The metrics of probes.
    pub counts: ProbeCounts,
}

/// The metrics of probes since the start.
#[derive(Debug, Clone)]
pub struct ProbeCounts {
    probes: Counters,
    late: Counter,
    last_round: Gauge,
}

impl Default for ProbeCounts {
    fn default() -> Self {
        Self {
            probes: Counters::new(&metrics::TESTING_PROBES),
            late: Counter::default(),
            last_round: Gauge::default(),
        }
    }
}

impl ProbeCounts {
    /// Registers the counts as metrics.
    pub fn register(&self, all: &mut Registry) {
        self.probes.register(all);
        metrics::TESTING_LATE_DOMAINS.register(all, self.late.clone());
        metrics::TESTING_LAST_ROUND.register(all, self.last_round.clone());
    }
}

/// The minimum interval between two probes of a domain or a host.
const PROBE_INTERVAL: SignedDuration = SignedDuration::from_hours(6);
/// The minimum pause between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(15);
/// The pause after each handshake.
const PROBE_SPACING: Duration = Duration::from_millis(200);

/// Domains that are probed at once.
const DOMAINS_AT_ONCE: usize = 16;
/// Time limit for probing a domain; one without a result by then is probed again after [`PROBE_INTERVAL`].
const DOMAIN_TIMEOUT: Duration = Duration::from_secs(180);
/// Time limit for probing one host; one that does not answer by then is not reached.
const HOST_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of probing a host: the target, the time and the failure, if any. `None` when the host could not be
/// reached, which is not evidence about TLS.
type ProbeResult = Option<(Target, Timestamp, Option<(ResultType, String)>)>;

/// The results of recent probes, and the domains whose probes took too long.
#[derive(Debug, Default)]
pub struct Hosts {
    /// The hosts, each with the time and the result of its probe.
    known: HashMap<DomainName, (Timestamp, ProbeResult)>,
    /// Domains whose probes did not end in time, each with the time.
    late: HashMap<DomainName, Timestamp>,
}

impl Hosts {
    /// Creates an empty memory of probes.
    pub fn new() -> Self {
        Self::default()
    }

    fn forget_old(&mut self, now: Timestamp) {
        self.known.retain(|_, (at, _)| now < later(*at, PROBE_INTERVAL));
        self.late.retain(|_, at| now < later(*at, PROBE_INTERVAL));
    }
}

/// The probes of a round by host. Domains that share a host wait for the same probe.
#[derive(Default)]
struct RoundProbes(Mutex<HashMap<DomainName, SharedProbe>>);

/// A probe that is made once, with its time.
type SharedProbe = Arc<OnceCell<(Timestamp, ProbeResult)>>;

impl RoundProbes {
    fn of(&self, host: &DomainName) -> SharedProbe {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(host.clone()).or_default().clone()
    }
}

/// A domain whose probes are due.
struct DueDomain {
    name: DomainName,
    policy: Policy,
    digest: PolicyDigest,
}

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
            hosts.forget_old(now);
            let due = self.due(day, now, hosts).await?;
            let (probes, shared) = (RoundProbes::default(), &*hosts);
            let each: Vec<_> = due.iter().map(|domain| self.in_time(domain, shared, &probes)).collect();
            let mut domains = futures_util::stream::iter(each).buffer_unordered(DOMAINS_AT_ONCE);
            let mut late = Vec::new();
            while let Some((domain, probed)) = domains.next().await {
                match probed {
                    Some(probed) => self.store.put_testing_probes(day, domain, &probed).await?,
                    None => {
                        self.counts.late.inc();
                        late.push(domain.clone());
                    }
                }
            }
            drop(domains);
            let done = probes.0.into_inner().unwrap_or_else(PoisonError::into_inner);
            let done = done.into_iter().filter_map(|(host, probe)| Some((host, probe.get()?.clone())));
            hosts.known.extend(done);
            hosts.late.extend(late.into_iter().map(|domain| (domain, now)));
            self.counts.last_round.set(self.clock.now().as_second());
            Ok(())
        })
    }

    async fn due(&self, day: Timestamp, now: Timestamp, hosts: &Hosts) -> Result<Vec<DueDomain>, StoreError> {
        let mut due = Vec::new();
        for (name, lines) in self.store.maybe_testing(day).await? {
            let Some(digest) = PolicyDigest::of_lines(&lines).filter(|_| is_testing(&lines)) else {
                continue;
            };
            let probes = self.store.testing_probes(day, &name).await?;
            let last = probes.iter().rfind(|probe| probe.policy == digest);
            let is_known = last.is_some_and(|last| now < later(last.at, PROBE_INTERVAL));
            if is_known || hosts.late.contains_key(&name) {
                continue;
            }
            let Ok(policy) = Policy::parse(lines.join("\n").as_bytes()) else { continue };
            due.push(DueDomain { name, policy, digest });
        }
        Ok(due)
    }

    /// Probes a domain; without a result if that takes too long.
    async fn in_time<'d>(
        &self,
        domain: &'d DueDomain,
        hosts: &Hosts,
        probes: &RoundProbes,
    ) -> (&'d DomainName, Option<Vec<TestingProbe>>) {
        let probed = timeout(DOMAIN_TIMEOUT, self.probe_domain(domain, hosts, probes)).await;
        (&domain.name, probed.ok())
    }

    /// Probes each MX host of a domain, in order of preference. Unreachable hosts are left out.
    async fn probe_domain(
        &self,
        domain: &DueDomain,
        hosts: &Hosts,
        round: &RoundProbes,
    ) -> Vec<TestingProbe> {
        let DueDomain { name: domain, policy, digest } = domain;
        let names: Vec<DomainName> = match self.dns.lookup(domain, Kind::Mx).await {
            Ok(answer) => answer.mx_hosts().take(MX_HOSTS).collect(),
            Err(error) if error.is_absence() => vec![domain.clone()],
            Err(_) => return Vec::new(),
        };
        let mut probes = Vec::new();
        for mx in names {
            let Some((target, at, failure)) = self.cached_probe(&mx, hosts, round).await else { continue };
            let unlisted = || {
                let why = "the MX host matches no mx line of the policy".to_owned();
                (!policy.covers(&mx)).then_some((ResultType::ValidationFailure, why))
            };
            let failure = unlisted().or(failure);
            probes.push(TestingProbe {
                policy: *digest,
                receiving_ip: Some(target.address),
                at,
                reason: failure.as_ref().map(|(_, why)| why.clone()).unwrap_or_default(),
                failure: failure.map(|(result, _)| result),
                mx,
            });
        }
        probes
    }

    async fn cached_probe(&self, mx: &DomainName, hosts: &Hosts, round: &RoundProbes) -> ProbeResult {
        if let Some((_, result)) = hosts.known.get(mx) {
            return result.clone();
        }
        let probe = round.of(mx);
        let probe = probe.get_or_init(|| async {
            let result = timeout(HOST_TIMEOUT, self.probe_host(mx)).await.ok().flatten();
            self.counts.probes.inc(&[match &result {
                None => "unreached",
                Some((_, _, None)) => "passed",
                Some((_, _, Some(_))) => "failed",
            }]);
            tokio::time::sleep(PROBE_SPACING).await;
            (self.clock.now(), result)
        });
        probe.await.1.clone()
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

#[cfg(test)]
mod tests {
    use super::*;
    use formats::MxPattern;
    use net::clock::{ManualClock, SystemClock};
    use net::dns::{Answer, Data, DnsError, Exchange, Mx, Security};
    use net::smtp::{Mail, SessionFailure, SessionReport};
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The MX hosts of `bad…` never answer; `good…` share one host.
    #[derive(Default)]
    struct Network(AtomicUsize);

    impl Dns for Network {
        fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
            let host =
                if name.as_str().starts_with("bad") { format!("mx.{name}") } else { "mx.example".to_owned() };
            let record = match kind {
                Kind::Mx => Data::Mx(Mx {
                    preference: 10,
                    exchange: Exchange::Host(DomainName::parse(&host).unwrap()),
                }),
                Kind::A => Data::A([192, 0, 2, 1].into()),
                _ => return Box::pin(async { Err(DnsError::Timeout) }),
            };
            let answer = Answer {
                records: vec![record],
                ttl: Duration::from_secs(60),
                security: Security::Insecure,
                aliases: Vec::new(),
                is_split: false,
            };
            Box::pin(async { Ok(answer) })
        }
    }

    impl MailHosts for Network {
        fn session<'a>(
            &'a self,
            target: &'a Target,
            _: &'a TlsDemand,
            _: Option<&'a Mail>,
        ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>> {
            Box::pin(async {
                self.0.fetch_add(1, Ordering::SeqCst);
                if target.host.as_str().starts_with("mx.bad") {
                    pending::<()>().await;
                }
                Ok(SessionReport::new(target))
            })
        }
    }

    fn due(name: String) -> DueDomain {
        let host = DomainName::parse("mx.example").unwrap();
        let policy =
            Policy::new(formats::Mode::Testing, 86_400, vec![MxPattern::exact(&host).unwrap()]).unwrap();
        let digest = PolicyDigest::of_patterns(&policy.mx);
        DueDomain { name: DomainName::parse(&name).unwrap(), policy, digest }
    }

    #[tokio::test]
    async fn hosts_that_hang_hold_up_nobody_and_shared_hosts_are_probed_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let network = Arc::new(Network::default());
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(SystemClock.now()));
        let (dns, mail, counts) = (network.clone(), network.clone(), ProbeCounts::default());
        let prober = TestingProber { store, clock, dns, mail, counts };
        // Nothing of the store is used from here on, so that the time of the test may be paused.
        tokio::time::pause();
        let domains: Vec<DueDomain> = (0..10)
            .flat_map(|number| [due(format!("bad{number}.example")), due(format!("good{number}.example"))])
            .collect();
        let (hosts, probes) = (Hosts::new(), RoundProbes::default());
        let started = tokio::time::Instant::now();
        let each: Vec<_> = domains.iter().map(|domain| prober.in_time(domain, &hosts, &probes)).collect();
        let all: Vec<_> = futures_util::stream::iter(each).buffer_unordered(DOMAINS_AT_ONCE).collect().await;
        assert!(started.elapsed() < HOST_TIMEOUT * 2, "{:?}", started.elapsed());
        let probed = |begin: &str| {
            let of = all.iter().filter(|(name, _)| name.as_str().starts_with(begin));
            of.map(|(_, probed)| probed.as_ref().map_or(0, Vec::len)).sum::<usize>()
        };
        assert_eq!((all.len(), probed("good"), probed("bad")), (20, 10, 0));
        assert_eq!(network.0.load(Ordering::SeqCst), 11, "the shared host was probed once");
        let count = |outcome| prober.counts.probes.of(&[outcome]).get();
        assert_eq!((count("passed"), count("unreached"), count("failed")), (1, 10, 0));
    }
}
