//! A simulated DNS and policy hosts for the tests: they set the published records and failures, and count queries.

use crate::answer::{Discovery, PolicyService, Settings};
use formats::{DomainName, Policy};
use jiff::Timestamp;
use net::BoxFuture;
use net::clock::ManualClock;
use net::dns::{Absence, Answer, Data, Dns, DnsError, Exchange, Kind, Mx, Security};
use net::https::{FetchError, Fetched, PolicyHosts};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::Store;
use tokio::sync::Notify;

/// The records and the policy that a domain publishes.
#[derive(Clone)]
pub struct Published {
    pub record: Result<Option<String>, DnsError>,
    pub policy: Result<String, FetchError>,
    pub mx: Result<MxAnswer, DnsError>,
    pub ttl: u64,
}

/// The MX records of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MxAnswer {
    /// A single host.
    Host,
    /// The null MX (RFC 7505).
    Null,
}

impl Published {
    pub fn policy(id: &str, mode: &str, max_age: u32) -> Self {
        let policy = format!("version: STSv1\nmode: {mode}\nmx: mx{id}.example\nmax_age: {max_age}\n");
        Self { record: Ok(Some(id.to_owned())), policy: Ok(policy), mx: Ok(MxAnswer::Host), ttl: 300 }
    }

    pub fn nothing() -> Self {
        Self { record: Ok(None), policy: Err(FetchError::Status(404)), mx: Ok(MxAnswer::Host), ttl: 300 }
    }
}

#[derive(Default)]
struct Inside {
    domains: HashMap<String, Published>,
    queries: HashMap<String, u32>,
    fetches: HashMap<String, u32>,
    gate: Option<Arc<Notify>>,
    /// Gates for the queries of one type.
    kinds: Vec<(Kind, Arc<Notify>)>,
    /// Domains that begin with one of these get no answer.
    mute: Vec<String>,
    panics: bool,
}

#[derive(Default)]
pub struct World(Mutex<Inside>);

impl World {
    pub fn publish(&self, domain: &str, published: Published) {
        self.0.lock().unwrap().domains.insert(domain.to_owned(), published);
    }

    /// The number of queries for the `_mta-sts` record of a domain.
    pub fn queries(&self, domain: &str) -> u32 {
        self.0.lock().unwrap().queries.get(domain).copied().unwrap_or(0)
    }

    pub fn fetches(&self, domain: &str) -> u32 {
        self.0.lock().unwrap().fetches.get(domain).copied().unwrap_or(0)
    }

    /// Blocks all answers until the gate is opened.
    pub fn hold(&self) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        self.0.lock().unwrap().gate = Some(gate.clone());
        gate
    }

    pub fn open(&self, gate: &Notify) {
        self.0.lock().unwrap().gate = None;
        gate.notify_waiters();
    }

    /// Blocks the answers to queries of one type until [`Self::open_kind`].
    pub fn hold_kind(&self, kind: Kind) {
        self.0.lock().unwrap().kinds.push((kind, Arc::new(Notify::new())));
    }

    pub fn open_kind(&self, kind: Kind) {
        self.0.lock().unwrap().kinds.retain(|(held, gate)| {
            if *held == kind {
                gate.notify_waiters();
            }
            *held != kind
        });
    }

    /// Gives no answer about domains that begin with `prefix`.
    pub fn mute(&self, prefix: &str) {
        self.0.lock().unwrap().mute.push(prefix.to_owned());
    }

    /// Panics at the next answer, as a fault of the program would.
    pub fn panic_once(&self) {
        self.0.lock().unwrap().panics = true;
    }

    async fn wait_for(&self, domain: &str, kind: Kind) {
        let (gate, is_mute) = {
            let inside = self.0.lock().unwrap();
            let gate = inside.kinds.iter().find(|(held, _)| *held == kind).map(|(_, gate)| gate.clone());
            (gate, inside.mute.iter().any(|prefix| domain.starts_with(prefix)))
        };
        if is_mute {
            std::future::pending::<()>().await;
        }
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let panics = std::mem::take(&mut self.0.lock().unwrap().panics);
        assert!(!panics, "a fault that the test wants");
    }

    fn of(&self, domain: &str) -> Published {
        self.0.lock().unwrap().domains.get(domain).cloned().unwrap_or_else(Published::nothing)
    }

    async fn wait(&self) {
        let gate = self.0.lock().unwrap().gate.clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
    }
}

fn answer(data: Data, ttl: u64) -> Answer {
    Answer {
        records: vec![data],
        ttl: Duration::from_secs(ttl),
        security: Security::Insecure,
        aliases: Vec::new(),
        is_split: false,
    }
}

/// A negative answer as an attacker forges it: unsigned, with a TTL in seconds.
pub fn forged_nothing(ttl: u64) -> Absence {
    Absence { security: Security::Insecure, ttl: Some(Duration::from_secs(ttl)) }
}

impl Dns for World {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            self.wait().await;
            let domain = name.as_str().trim_start_matches("_mta-sts.");
            self.wait_for(domain, kind).await;
            let published = self.of(domain);
            match kind {
                Kind::Mx => {
                    let mx = |answer| match answer {
                        MxAnswer::Host => Mx { preference: 10, exchange: Exchange::Host(name.clone()) },
                        MxAnswer::Null => Mx { preference: 0, exchange: Exchange::Null },
                    };
                    published.mx.map(|exchange| answer(Data::Mx(mx(exchange)), published.ttl))
                }
                Kind::Txt => {
                    *self.0.lock().unwrap().queries.entry(domain.to_owned()).or_default() += 1;
                    let nothing = DnsError::NoSuchName(forged_nothing(published.ttl));
                    let id = published.record?.ok_or(nothing)?;
                    Ok(answer(Data::Txt(format!("v=STSv1; id={id};").into_bytes()), published.ttl))
                }
                // A name in brackets is looked up without MX, so its addresses decide whether DANE applies.
                _ => Ok(answer(Data::A([192, 0, 2, 1].into()), published.ttl)),
            }
        })
    }
}

impl PolicyHosts for World {
    fn fetch<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            self.wait().await;
            *self.0.lock().unwrap().fetches.entry(domain.to_string()).or_default() += 1;
            Ok(Fetched {
                body: self.of(domain.as_str()).policy?.into_bytes(),
                address: [127, 0, 0, 1].into(),
                media_type: "text/plain".into(),
                tls_version: String::new(),
            })
        })
    }
}

/// The answer service in a simulated world.
pub struct Bench {
    pub world: Arc<World>,
    pub clock: Arc<ManualClock>,
    pub store: Store,
    pub answers: Arc<PolicyService>,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub async fn new() -> Self {
        let ramdisk = std::path::Path::new("/dev/shm");
        let dir = match ramdisk.is_dir() {
            true => tempfile::tempdir_in(ramdisk).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        open_readers(&store).await;
        let world = Arc::new(World::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_800_000_000).unwrap()));
        let answers = service(&world, &clock, &store, Settings::default());
        Self { world, clock, store, answers, _dir: dir }
    }

    pub fn store_file(&self) -> std::path::PathBuf {
        self._dir.path().join("s.db")
    }

    /// Starts a new service with the same store.
    pub fn restart(&mut self) {
        self.answers = service(&self.world, &self.clock, &self.store, Settings::default());
    }

    /// The reply to Postfix without TLSRPT attributes.
    pub async fn ask(&self, key: &str) -> String {
        let entry = self.answers.ask(key).await;
        format!("{} {}", entry.reply_status(false), entry.text(false)).trim_end().to_owned()
    }

    /// Waits until no lookup is in flight.
    pub async fn settle(&self) {
        while !self.answers.is_idle() {
            tokio::task::yield_now().await;
        }
    }
}

/// How long a test waits for what does happen, on a machine that has other work too.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Opens all connections of the store that read. The store opens them when it needs them, and a file that was moved away
/// can be read only by those that were open before.
pub async fn open_readers(store: &Store) {
    let domain = DomainName::parse("nobody.example").unwrap();
    futures_util::future::join_all((0..8).map(|_| store.policy(&domain))).await;
}

/// The reply for a policy of [`Published::policy`] in mode `enforce`.
pub fn secure(id: &str) -> String {
    format!("OK secure match=mx{id}.example servername=hostname")
}

pub fn service(
    world: &Arc<World>,
    clock: &Arc<ManualClock>,
    store: &Store,
    settings: Settings,
) -> Arc<PolicyService> {
    let discovery = Discovery::new(world.clone(), world.clone(), store.clone(), clock.clone());
    PolicyService::new(world.clone(), discovery, store.clone(), clock.clone(), 1 << 20, settings)
}

/// The mode of a policy file.
pub fn mode(file: &str) -> formats::Mode {
    Policy::parse(file.as_bytes()).unwrap().mode
}
