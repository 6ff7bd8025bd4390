//! A world that the tests hold in their hands: what is published, what fails, what was asked.

use crate::answer::{Answers, Discovery, Settings};
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

/// What a domain publishes.
#[derive(Clone)]
pub struct Published {
    pub record: Result<Option<String>, DnsError>,
    pub policy: Result<String, FetchError>,
    pub mx: Result<MxAnswer, DnsError>,
    pub ttl: u64,
}

/// What the MX records of a domain say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MxAnswer {
    /// One host.
    Host,
    /// `0 .` (RFC 7505).
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
    asked: HashMap<String, u32>,
    fetched: HashMap<String, u32>,
    gate: Option<Arc<Notify>>,
}

#[derive(Default)]
pub struct World(Mutex<Inside>);

impl World {
    pub fn publish(&self, domain: &str, what: Published) {
        self.0.lock().unwrap().domains.insert(domain.to_owned(), what);
    }

    /// Questions for the record of a domain.
    pub fn asked(&self, domain: &str) -> u32 {
        self.0.lock().unwrap().asked.get(domain).copied().unwrap_or(0)
    }

    pub fn fetched(&self, domain: &str) -> u32 {
        self.0.lock().unwrap().fetched.get(domain).copied().unwrap_or(0)
    }

    /// Holds all answers back until the gate is opened.
    pub fn hold(&self) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        self.0.lock().unwrap().gate = Some(gate.clone());
        gate
    }

    pub fn open(&self, gate: &Notify) {
        self.0.lock().unwrap().gate = None;
        gate.notify_waiters();
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

/// Absence as an attacker forges it: unsigned, to be remembered for `ttl` seconds.
pub fn forged_nothing(ttl: u64) -> Absence {
    Absence { security: Security::Insecure, ttl: Some(Duration::from_secs(ttl)) }
}

impl Dns for World {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            self.wait().await;
            let domain = name.as_str().trim_start_matches("_mta-sts.");
            let published = self.of(domain);
            match kind {
                Kind::Mx => {
                    let mx = |answer| match answer {
                        MxAnswer::Host => Mx { preference: 10, exchange: Exchange::Host(name.clone()) },
                        MxAnswer::Null => Mx { preference: 0, exchange: Exchange::Null },
                    };
                    published.mx.map(|said| answer(Data::Mx(mx(said)), published.ttl))
                }
                Kind::Txt => {
                    *self.0.lock().unwrap().asked.entry(domain.to_owned()).or_default() += 1;
                    let nothing = DnsError::NoSuchName(forged_nothing(published.ttl));
                    let id = published.record?.ok_or(nothing)?;
                    Ok(answer(Data::Txt(format!("v=STSv1; id={id};").into_bytes()), published.ttl))
                }
                // A name in brackets is looked up without MX, so its addresses say whether DANE applies.
                _ => Ok(answer(Data::A([192, 0, 2, 1].into()), published.ttl)),
            }
        })
    }
}

impl PolicyHosts for World {
    fn fetch<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            self.wait().await;
            *self.0.lock().unwrap().fetched.entry(domain.to_string()).or_default() += 1;
            Ok(Fetched {
                body: self.of(domain.as_str()).policy?.into_bytes(),
                address: [127, 0, 0, 1].into(),
                media_type: "text/plain".into(),
                certificate_ends: None,
                tls_version: String::new(),
            })
        })
    }
}

/// The service in such a world.
pub struct Bench {
    pub world: Arc<World>,
    pub clock: Arc<ManualClock>,
    pub store: Store,
    pub answers: Arc<Answers>,
    _place: tempfile::TempDir,
}

impl Bench {
    pub async fn new() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let place = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let store = Store::open(&place.path().join("s.db")).await.unwrap();
        let world = Arc::new(World::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_800_000_000).unwrap()));
        let answers = service(&world, &clock, &store, Settings::default());
        Self { world, clock, store, answers, _place: place }
    }

    /// The program anew, over the same store.
    pub fn restart(&mut self) {
        self.answers = service(&self.world, &self.clock, &self.store, Settings::default());
    }

    /// What Postfix is answered, the level alone.
    pub async fn ask(&self, key: &str) -> String {
        let entry = self.answers.ask(key).await;
        format!("{} {}", entry.word(false), entry.text(false)).trim_end().to_owned()
    }

    /// Waits for look-ups in the background.
    pub async fn settle(&self) {
        while !self.answers.is_idle() {
            tokio::task::yield_now().await;
        }
    }
}

/// What an enforced policy of [`Published::policy`] is answered with.
pub fn secure(id: &str) -> String {
    format!("OK secure match=mx{id}.example servername=hostname")
}

pub fn service(
    world: &Arc<World>,
    clock: &Arc<ManualClock>,
    store: &Store,
    settings: Settings,
) -> Arc<Answers> {
    let discovery = Discovery::new(world.clone(), world.clone(), store.clone(), clock.clone());
    Answers::new(world.clone(), discovery, store.clone(), clock.clone(), 1 << 20, settings)
}

/// The mode of a policy file.
pub fn mode(file: &str) -> formats::Mode {
    Policy::parse(file.as_bytes()).unwrap().mode
}
