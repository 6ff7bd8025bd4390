//! Runs the plans: a [`PolicyService`] whose DNS and HTTPS go through the man in the middle, in a lab.

use super::domains::{DOMAINS, Domain, LOOPBACK, policy, publish, publish_all, roll_tlsa};
use super::oracle::{Authenticated, InForce, Reply, is_honest, judge};
use super::plan::{Plan, Step};
use super::weak::Variant;
use formats::{DomainName, Mode};
use lab::man_in_the_middle::{Attacker, DnsProxy, HttpsProxy};
use lab::pki::Identity;
use lab::traffic::Traffic;
use lab::{Lab, Ports};
use net::BoxFuture;
use net::certificate::Trust;
use net::clock::{Clock, ManualClock, SystemClock};
use net::dns::{Answer, Dns, DnsError, Kind, Resolver, ResolverConfig};
use net::https::{Fetcher, FetcherConfig, PolicyHosts};
use sender::answer::{Discovery, PolicyService, Settings};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use store::Store;

/// The lab with the domains of the search, and a store. Runs use it one after the other.
pub struct World {
    pub lab: Lab,
    identities: HashMap<&'static str, Identity>,
    attacker: Arc<Attacker>,
    /// The server that the man in the middle stands before.
    upstream: SocketAddr,
    store: Store,
    _dir: tempfile::TempDir,
}

impl World {
    /// Starts a lab. `upstream` gets the lab's name server and returns the address of the server to query.
    pub async fn start(upstream: impl FnOnce(&Lab) -> SocketAddr) -> Self {
        let lab = Lab::start(Ports::free(), SystemClock.now()).await.unwrap();
        let identities = publish_all(&lab);
        let attacker = Arc::new(Attacker::new(&lab.pki, "attacker.test", SystemClock.now()).unwrap());
        let ramdisk = std::path::Path::new("/dev/shm");
        let dir = match ramdisk.is_dir() {
            true => tempfile::tempdir_in(ramdisk).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        Self { upstream: upstream(&lab), lab, identities, attacker, store, _dir: dir }
    }
}

/// A [`Dns`] that can be replaced, which stands for a resolver whose cache has expired.
struct Replaceable(RwLock<(Arc<dyn Dns>, Arc<Resolver>)>);

impl Dns for Replaceable {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let dns = self.0.read().unwrap().0.clone();
        Box::pin(async move { dns.lookup(name, kind).await })
    }
}

/// One run in progress.
struct Run<'w> {
    world: &'w World,
    plan: &'w Plan,
    variant: Variant,
    clock: Arc<ManualClock>,
    dns_proxy: DnsProxy,
    https_proxy: HttpsProxy,
    resolver_config: ResolverConfig,
    dns: Arc<Replaceable>,
    hosts: Arc<Authenticated>,
    service: Arc<PolicyService>,
    /// The version of each domain of the plan, and all policy files that it published.
    published: Vec<(u32, Vec<String>)>,
}

impl<'w> Run<'w> {
    async fn start(world: &'w World, plan: &'w Plan, variant: Variant) -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let traffic = Traffic::new(clock.clone());
        let dns_proxy = DnsProxy::start(LOOPBACK, world.upstream, traffic.clone()).await.unwrap();
        let site = SocketAddr::new(IpAddr::V4(world.lab.policy_host_address()), world.lab.https_port);
        let https_proxy =
            HttpsProxy::start(world.lab.policy_host_address(), site, world.attacker.clone(), traffic)
                .await
                .unwrap();
        let resolver_config = ResolverConfig {
            servers: vec![dns_proxy.address],
            cache: plan.has_cache,
            attempt_time: Duration::from_millis(300),
            dnssec: variant.dnssec(),
            ..world.lab.resolver_config().unwrap()
        };
        let dns = Arc::new(Replaceable(RwLock::new(resolver(&resolver_config, variant))));
        let mut roots = vec![world.lab.pki.root()];
        roots.extend(variant.trusts_attacker().then(|| world.attacker.root()));
        let config = FetcherConfig {
            trust: Trust::from_roots(roots).unwrap(),
            port: https_proxy.address.port(),
            allow_special_addresses: true,
            time: Duration::from_secs(5),
            sources: Vec::new(),
        };
        let fetcher: Arc<dyn PolicyHosts> =
            Arc::new(Fetcher::new(config, dns.clone(), clock.clone()).unwrap());
        let hosts = Arc::new(Authenticated::new(fetcher, clock.clone()));
        for domain in DOMAINS {
            world.store.delete_policy(&DomainName::parse(domain.name).unwrap()).await.unwrap();
        }
        let service = service(&dns, &hosts, &world.store, &clock);
        let published = vec![(0, Vec::new()); plan.domains.len()];
        let mut run = Self {
            world,
            plan,
            variant,
            clock,
            dns_proxy,
            https_proxy,
            resolver_config,
            dns,
            hosts,
            service,
            published,
        };
        for (at, domain) in plan.domains.iter().enumerate() {
            run.publish(at, domain.mode.unwrap_or(Mode::None), 604_800);
        }
        run
    }

    fn publish(&mut self, at: usize, mode: Mode, max_age: u32) {
        let domain = self.plan.domains[at];
        let (version, files) = &mut self.published[at];
        *version += 1;
        match self.world.identities.get(domain.name) {
            Some(identity) => {
                let body = policy(domain, *version, mode, max_age);
                publish(&self.world.lab, domain, identity, *version, &body);
                files.push(body);
            }
            None if domain.dane != super::domains::Dane::No => {
                roll_tlsa(&self.world.lab, domain, u8::try_from(*version % 250).unwrap());
            }
            None => {}
        }
    }

    /// Waits until nothing is looked up in the background.
    async fn settle(&self) {
        let is_busy = || !self.service.is_idle() || self.dns.0.read().unwrap().1.is_learning();
        while is_busy() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn forget(&self) {
        *self.dns.0.write().unwrap() = resolver(&self.resolver_config, self.variant);
    }

    async fn reply(&self, domain: &Domain) -> Reply {
        let entry = self.service.ask(domain.name).await;
        let text =
            |tlsrpt| format!("{} {}", entry.reply_status(tlsrpt), entry.text(tlsrpt)).trim_end().to_owned();
        let reply = Reply { plain: text(false), reporting: text(true) };
        self.variant.reply(domain, reply, self.dns.as_ref()).await
    }

    /// Asks about these domains at once, and checks every answer.
    async fn ask(&self, domains: &[&Domain]) -> Result<(), String> {
        let in_force = || domains.iter().map(|domain| self.hosts.in_force(domain)).collect::<Vec<_>>();
        let before = in_force();
        let replies = futures_util::future::join_all(domains.iter().map(|domain| self.reply(domain))).await;
        let after = in_force();
        self.settle().await;
        for (at, (domain, reply)) in domains.iter().zip(replies).enumerate() {
            judge(domain, before[at].as_ref(), after[at].as_ref(), &reply)?;
        }
        self.check_files()
    }

    /// Every policy file that was accepted is one that the domain published.
    fn check_files(&self) -> Result<(), String> {
        for (domain, (_, files)) in self.plan.domains.iter().zip(&self.published) {
            if let Some(newest) = self.hosts.newest(domain)
                && !files.contains(&newest)
            {
                return Err(format!("{} never published {newest:?}", domain.name));
            }
        }
        Ok(())
    }

    async fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Ask(at) => self.ask(&[self.plan.domains[*at]]).await?,
            Step::AskAll => self.ask(&self.plan.domains).await?,
            Step::Pass { seconds, forgets } => {
                self.clock.advance(*seconds);
                if *forgets {
                    self.forget();
                }
            }
            Step::Attack(dns, https) => {
                self.dns_proxy.attack(dns.clone());
                self.https_proxy.attack(https.clone());
            }
            Step::Stop => self.stop(),
            Step::Restart => {
                if self.variant == Variant::ForgetsPolicies {
                    for domain in &self.plan.domains {
                        let name = DomainName::parse(domain.name).unwrap();
                        self.world.store.delete_policy(&name).await.unwrap();
                    }
                }
                self.service = service(&self.dns, &self.hosts, &self.world.store, &self.clock);
            }
            Step::Refresh => {
                self.service.refresh_due().await.unwrap();
                self.settle().await;
                self.check_files()?;
            }
            Step::Publish { domain, mode, max_age } => self.publish(*domain, *mode, *max_age),
        }
        Ok(())
    }

    fn stop(&self) {
        self.dns_proxy.attack(Vec::new());
        self.https_proxy.attack(Vec::new());
    }

    /// After the attack, when everything that the attacker may have said has expired, the honest answers return. A few
    /// attempts are allowed, for a machine so busy that queries time out.
    async fn recover(&self) -> Result<(), String> {
        self.stop();
        self.clock.advance(86_400 + 60);
        self.forget();
        for (domain, (_, files)) in self.plan.domains.iter().zip(&self.published) {
            let published = files.last().map(|body| InForce::parse(body));
            let mut reply = Reply::temporary();
            for _ in 0..20 {
                self.ask(&[domain]).await?;
                reply = self.reply(domain).await;
                self.settle().await;
                if is_honest(domain, published.as_ref(), &reply) {
                    break;
                }
                self.clock.advance(400);
                self.forget();
            }
            if !is_honest(domain, published.as_ref(), &reply) {
                return Err(format!("{} is still answered {reply:?} after the attack", domain.name));
            }
        }
        Ok(())
    }
}

fn service(
    dns: &Arc<Replaceable>,
    hosts: &Arc<Authenticated>,
    store: &Store,
    clock: &Arc<ManualClock>,
) -> Arc<PolicyService> {
    let discovery = Discovery::new(dns.clone(), hosts.clone(), store.clone(), clock.clone());
    PolicyService::new(dns.clone(), discovery, store.clone(), clock.clone(), 1 << 20, Settings::default())
}

fn resolver(config: &ResolverConfig, variant: Variant) -> (Arc<dyn Dns>, Arc<Resolver>) {
    let resolver = Arc::new(Resolver::new(config).unwrap());
    (variant.dns(resolver.clone()), resolver)
}

/// Runs one seed. An error says what was wrong, with the seed and the plan.
pub async fn run(world: &World, seed: u64, variant: Variant) -> Result<(), String> {
    let plan = Plan::new(seed);
    let mut run = Run::start(world, &plan, variant).await;
    for (number, step) in plan.steps.iter().enumerate() {
        run.take(step).await.map_err(|why| format!("seed {seed}, step {number}: {why}\n{plan:#?}"))?;
    }
    run.recover().await.map_err(|why| format!("seed {seed}: {why}\n{plan:#?}"))
}

/// Asks about every domain without an attack, and returns the answers that are wrong.
pub async fn honest(world: &World) -> Vec<String> {
    let mut failures = Vec::new();
    for domain in DOMAINS {
        let plan = Plan { domains: vec![domain], has_cache: false, steps: Vec::new() };
        let run = Run::start(world, &plan, Variant::Real).await;
        failures.extend(run.recover().await.err());
    }
    failures
}

/// Runs the seeds side by side, each worker in a world of its own, until `limit` of them failed. Returns what was wrong.
pub async fn search(
    worlds: Vec<World>,
    seeds: std::ops::Range<u64>,
    variant: Variant,
    limit: usize,
) -> Vec<String> {
    let next = Arc::new(AtomicU64::new(seeds.start));
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let workers = worlds.into_iter().map(|world| {
        let (next, failures, end) = (next.clone(), failures.clone(), seeds.end);
        tokio::spawn(async move {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end || failures.lock().unwrap().len() >= limit {
                    return;
                }
                if let Err(why) = run(&world, seed, variant).await {
                    failures.lock().unwrap().push(why);
                }
            }
        })
    });
    for worker in futures_util::future::join_all(workers).await {
        worker.unwrap();
    }
    std::mem::take(&mut *failures.lock().unwrap())
}
