//! Plays a sequence against the service and the [`Sender`], and compares them after each act.

use super::acts::{Act, Config, DAY, RecordChange, Sequence};
use super::oracle;
use super::reference::{Key, Reply};
use super::sender::{Cached, Held, Sender, StoreState};
use super::world::{Events, File, MxAnswer, PolicyFile, Record, World, Zone};
use crate::answer::entry::{ElapsedSeconds, Entry};
use crate::answer::route::NextHop;
use crate::answer::service::Rules;
use crate::answer::transfer::ImportOutcome;
use crate::answer::{Discovery, PolicyService};
use formats::policy_export::ExportedPolicy;
use formats::{DomainName, Mode, Policy, PolicyId};
use futures_util::future::join_all;
use futures_util::poll;
use jiff::Timestamp;
use net::clock::{Clock, ManualClock};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::Store;

/// The answers, the events and the cache after an act.
pub struct Observed {
    pub answers: Vec<(Key, Reply)>,
    pub events: Events,
    /// The zone during the act.
    pub zone: Zone,
    /// The cache after the act, also with expired answers.
    pub cached: BTreeMap<Key, Cached>,
    /// True if the store has a policy of the domain after the act; `None` while the store fails.
    pub is_stored: Option<bool>,
}

/// The store that sequences share, since a new one costs more than a sequence.
pub struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    sequences: u32,
    /// The number of answers by level, or by status word where there is none.
    pub answers: BTreeMap<String, u32>,
}

impl Bench {
    pub async fn new() -> Self {
        let ramdisk = Path::new("/dev/shm");
        let dir = match ramdisk.is_dir() {
            true => tempfile::tempdir_in(ramdisk).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let store = open(&dir.path().join("s.db")).await;
        Self { dir, store, sequences: 0, answers: BTreeMap::new() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("s.db")
    }

    /// Plays a sequence under a domain of its own. The error says what was not allowed, with the acts until then.
    pub async fn play(&mut self, sequence: &Sequence, rules: Rules) -> Result<(), String> {
        self.sequences += 1;
        if self.sequences.is_multiple_of(RENEWAL) {
            self.store.close().await;
            self.store = open(&self.path()).await;
        }
        let domain = DomainName::parse(&format!("d{}.example", self.sequences)).unwrap();
        let mut game = Game::new(self, domain.clone(), sequence.zone, rules);
        let outcome = game.play(&sequence.acts).await;
        let (history, state) = (game.history, game.model.store);
        if state == StoreState::Away {
            std::fs::rename(self.path().with_extension("away"), self.path()).unwrap();
        }
        if state == StoreState::Down {
            self.store = open(&self.path()).await;
        }
        self.store.delete_policy(&domain).await.unwrap();
        outcome.map_err(|why| format!("{why}\n{:#?}\n{}", sequence.zone, history.join("\n")))
    }
}

/// The store is opened again after so many sequences, before its connections are old enough to be replaced.
const RENEWAL: u32 = 1000;

/// Opens the store with all its connections, so that none is opened while the file is away.
async fn open(path: &Path) -> Store {
    let store = Store::open(path, store::Tenant::FIRST).await.unwrap();
    let name = DomainName::parse("none.example").unwrap();
    for read in join_all((0..16).map(|_| store.policy(&name))).await {
        assert_eq!(read.unwrap(), None);
    }
    store
}

struct Game<'a> {
    bench: &'a mut Bench,
    world: Arc<World>,
    clock: Arc<ManualClock>,
    service: Arc<PolicyService>,
    model: Sender,
    rules: Rules,
    /// The file that the domain published last, with its `id`.
    newest: (u32, PolicyFile),
    has_stepped: bool,
    /// The number of imports.
    imports: u32,
    history: Vec<String>,
}

impl<'a> Game<'a> {
    fn new(bench: &'a mut Bench, domain: DomainName, zone: Zone, rules: Rules) -> Self {
        let File::Policy(file) = zone.file else { panic!("a sequence begins with a policy") };
        let world = Arc::new(World::new(domain, zone));
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_800_000_000).unwrap()));
        let service = start(&world, &clock, &bench.store, Config::DEFAULT, rules);
        let model = Sender::new();
        let history = Vec::new();
        Self {
            bench,
            world,
            clock,
            service,
            model,
            rules,
            newest: (1, file),
            has_stepped: false,
            imports: 0,
            history,
        }
    }

    async fn play(&mut self, acts: &[Act]) -> Result<(), String> {
        for act in acts {
            let now = self.model.now;
            self.history.push(format!("{now}: {act:?}"));
            self.act(act).await?;
        }
        self.calm_down().await
    }

    /// Once the world is stable and honest and every TTL is over, the answer is the right one.
    async fn calm_down(&mut self) -> Result<(), String> {
        self.history.push("calm".to_owned());
        self.restart().await;
        let (id, file) = self.newest;
        self.world.forge(None);
        self.world.change(|zone| {
            (zone.mx, zone.record, zone.file) =
                (MxAnswer::Hosts(&[0]), Record::Published(id), File::Policy(file));
        });
        self.pass(8 * DAY);
        self.ask(&[Key::Domain]).await?;
        self.pass(2 * DAY);
        self.ask(&[Key::Domain]).await?;
        for key in [Key::Domain, Key::Named] {
            // The store answers the first request, and the second one starts a lookup.
            self.ask(&[key]).await?;
            self.ask(&[key]).await?;
            let reply = self.ask(&[key]).await?.pop().map(|(_, reply)| reply);
            if !self.has_stepped {
                oracle::check_calm(&self.model, key, &self.world.zone(), file, reply.as_ref())?;
            }
        }
        Ok(())
    }

    /// Purges the domain. The client of an interrupted call goes away before it is done.
    async fn purge(&self, is_interrupted: bool) {
        let hop = NextHop::domain(self.world.domain.clone());
        let mut purge = self.service.purge(&hop);
        match is_interrupted {
            true => assert!(poll!(&mut purge).is_pending()),
            false => assert_eq!(purge.await.is_err(), self.model.store != StoreState::Up),
        }
    }

    async fn purge_in_flight(&mut self, keys: &[Key], is_interrupted: bool) -> Result<(), String> {
        self.world.hold();
        let ask = |key: &Key| tokio::spawn(ask(self.service.clone(), *key, self.world.domain.to_string()));
        let requests: Vec<_> = keys.iter().map(ask).collect();
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.purge(is_interrupted).await;
        while self.service.has_calls() {
            tokio::task::yield_now().await;
        }
        self.world.open();
        let mut answers = Vec::new();
        for (key, request) in keys.iter().zip(requests) {
            let entry = request.await.map_err(|error| error.to_string())?;
            answers.push((key.canonical(), reply(&entry)));
        }
        let observed = self.observe(answers).await;
        oracle::check_purge_in_flight(&mut self.model, &observed)
    }

    async fn import(
        &mut self,
        age: u64,
        mode: Mode,
        max_age: u32,
        is_interrupted: bool,
    ) -> Result<(), String> {
        self.imports += 1;
        // No policy that the domain publishes has such a number.
        let number = 1_000_000 + self.imports;
        let file = PolicyFile { number, mode, max_age, names_a_host: true };
        let second = self.clock.now().as_second() - i64::try_from(age).unwrap();
        let policy = ExportedPolicy {
            domain: self.world.domain.clone(),
            id: PolicyId::parse(&number.to_string()).unwrap(),
            policy: Policy::parse(file.text().as_bytes()).unwrap(),
            text: file.text(),
            fetched_at: Timestamp::from_second(second).unwrap(),
        };
        let (store, domain) = (&self.bench.store, &self.world.domain);
        let before = store.policy(domain).await.ok().flatten();
        let mut import = self.service.import(std::slice::from_ref(&policy), false);
        let outcome = match is_interrupted {
            true => {
                assert!(poll!(&mut import).is_pending());
                drop(import);
                None
            }
            false => Some(import.await),
        };
        let observed = self.observe(Vec::new()).await;
        let after = store.policy(domain).await.ok().flatten();
        let is_imported = after.is_some_and(|row| row.record_id == policy.id);
        let is_newer = before.is_none_or(|row| row.fetched_at < policy.fetched_at);
        let is_wanted = is_newer && age < u64::from(max_age) && self.model.store == StoreState::Up;
        if is_imported != is_wanted && (is_imported || self.model.unsaved.is_none()) {
            return Err(format!("an import is wanted: {is_wanted}, and done: {is_imported}"));
        }
        match outcome {
            Some(Ok(outcomes)) if (outcomes == [ImportOutcome::Imported]) != is_imported => {
                return Err(format!("{outcomes:?}, and it is done: {is_imported}"));
            }
            Some(Err(_)) if self.model.store == StoreState::Up => return Err("the import fails".to_owned()),
            _ => {}
        }
        let held = Held::new(file, number, self.model.now - age);
        oracle::check_import(&mut self.model, &observed, is_imported.then_some(held))
    }

    async fn act(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Ask(keys) => drop(self.ask(keys).await?),
            Act::Pass(seconds) => self.pass(*seconds),
            Act::Days(days) => {
                for _ in 0..*days {
                    self.pass(DAY);
                    self.refresh().await?;
                }
            }
            Act::Step(seconds) => {
                self.clock.set_by(*seconds);
                self.model.step(*seconds);
                self.has_stepped = true;
            }
            Act::Restart => self.restart().await,
            Act::StoreAway | Act::StoreBack | Act::StoreDown => self.change_store(act).await,
            Act::Reload(config) => {
                let domain = self.world.domain.as_str();
                self.service.set_with_maps(config.settings(domain), config.maps(domain));
                self.model.config = *config;
                self.model.cached.clear();
            }
            Act::Purge { is_interrupted } => {
                self.purge(*is_interrupted).await;
                let observed = self.observe(Vec::new()).await;
                oracle::check_purge(&mut self.model, &observed)?;
            }
            Act::PurgeInFlight { keys, is_interrupted } => {
                self.purge_in_flight(keys, *is_interrupted).await?
            }
            Act::Import { age, mode, max_age, is_interrupted } if !self.has_stepped => {
                let age = u64::from(*age).min(self.model.now);
                self.import(age, *mode, *max_age, *is_interrupted).await?;
            }
            Act::Import { .. } => {}
            Act::Operator => {
                let hop = NextHop::domain(self.world.domain.clone());
                let entry = self.service.refresh(hop).await.ok_or("no outcome")?;
                let observed = self.observe(vec![(Key::Domain, reply(&entry))]).await;
                oracle::check_operator(&mut self.model, &observed)?;
            }
            Act::Refresh => self.refresh().await?,
            change => self.change(change),
        }
        Ok(())
    }

    fn pass(&mut self, seconds: u32) {
        self.clock.advance(seconds);
        self.model.now += u64::from(seconds);
    }

    async fn ask(&mut self, keys: &[Key]) -> Result<Vec<(Key, Reply)>, String> {
        let ask = |key: &Key| ask(self.service.clone(), *key, self.world.domain.to_string());
        let entries = join_all(keys.iter().map(ask)).await;
        let answers = keys.iter().map(|key| key.canonical()).zip(entries.iter().map(|entry| reply(entry)));
        let observed = self.observe(answers.collect()).await;
        let replies: Vec<&str> = observed.answers.iter().map(|(_, reply)| reply.plain.as_str()).collect();
        self.history.push(format!("    -> {replies:?}"));
        for (_, reply) in &observed.answers {
            *self.bench.answers.entry(reply.level.clone()).or_default() += 1;
        }
        oracle::check_ask(&mut self.model, &observed)?;
        Ok(observed.answers)
    }

    async fn refresh(&mut self) -> Result<(), String> {
        let is_done = self.service.refresh_due().await.is_ok();
        let observed = self.observe(Vec::new()).await;
        oracle::check_refresh(&mut self.model, &observed, is_done)
    }

    /// Waits until all lookups have ended, and returns what they changed.
    async fn observe(&self, answers: Vec<(Key, Reply)>) -> Observed {
        while !self.service.is_idle() {
            tokio::task::yield_now().await;
        }
        let domain = &self.world.domain;
        let cached = Key::CACHED.into_iter().filter_map(|key| {
            let entry = self.service.cache.get(&key.cache_key(domain.as_str()))?;
            let until = seconds(entry.until);
            Some((key, Cached { reply: reply(&entry), recheck: seconds(entry.recheck), until }))
        });
        let is_stored = self.bench.store.policy(domain).await.ok().map(|policy| policy.is_some());
        let (events, zone) = (self.world.events(), self.world.zone());
        Observed { answers, events, zone, cached: cached.collect(), is_stored }
    }

    async fn restart(&mut self) {
        match self.model.store {
            StoreState::Up => {}
            StoreState::Away => self.move_store(false),
            StoreState::Down => self.bench.store = open(&self.bench.path()).await,
        }
        self.service = start(&self.world, &self.clock, &self.bench.store, self.model.config, self.rules);
        self.model.restart();
    }

    async fn change_store(&mut self, act: &Act) {
        match (act, self.model.store) {
            (Act::StoreAway, StoreState::Up) => {
                self.move_store(true);
                self.model.store = StoreState::Away;
            }
            (Act::StoreBack, StoreState::Away) => {
                self.move_store(false);
                self.model.store = StoreState::Up;
            }
            (Act::StoreDown, StoreState::Up) => {
                self.bench.store.close().await;
                self.model.store = StoreState::Down;
            }
            _ => {}
        }
    }

    fn move_store(&self, is_away: bool) {
        let (here, away) = (self.bench.path(), self.bench.path().with_extension("away"));
        let (from, to) = if is_away { (here, away) } else { (away, here) };
        std::fs::rename(from, to).unwrap();
    }

    /// Changes what the domain publishes.
    fn change(&mut self, act: &Act) {
        let (id, _) = self.newest;
        if let Act::Policy { is_new_id, mode, max_age, names_a_host } = *act {
            let number = self.newest.1.number + 1;
            let file = PolicyFile { number, mode, max_age, names_a_host: names_a_host || mode == Mode::None };
            self.newest = (if is_new_id { number } else { id }, file);
        }
        let (id, file) = self.newest;
        self.world.change(|zone| match act {
            Act::Policy { .. } => (zone.record, zone.file) = (Record::Published(id), File::Policy(file)),
            Act::Record(RecordChange::Published) => zone.record = Record::Published(id),
            Act::Record(RecordChange::Absent) => zone.record = Record::Absent,
            Act::Record(RecordChange::Invalid) => zone.record = Record::Invalid,
            Act::Record(RecordChange::Timeout) => zone.record = Record::Timeout,
            Act::HostDown => zone.file = File::Down,
            Act::Malformed => zone.file = File::Malformed,
            Act::Dane { mx, is_signed, host } => {
                (zone.mx, zone.is_signed, zone.hosts[0]) = (*mx, *is_signed, *host);
            }
            Act::Mx(mx) => zone.mx = *mx,
            Act::Signed(is_signed) => zone.is_signed = *is_signed,
            Act::Host(number, host) => zone.hosts[*number] = *host,
            Act::Ttls(ttls) => zone.ttls = *ttls,
            _ => {}
        });
        if let Act::Forge(forged) = act {
            self.world.forge(Some(*forged));
        }
    }
}

async fn ask(service: Arc<PolicyService>, key: Key, domain: String) -> Arc<Entry> {
    service.ask_in(key.set(), &key.text(&domain)).await
}

fn start(
    world: &Arc<World>,
    clock: &Arc<ManualClock>,
    store: &Store,
    config: Config,
    rules: Rules,
) -> Arc<PolicyService> {
    let discovery = Discovery::new(world.clone(), world.clone(), store.clone(), clock.clone());
    let clock: Arc<dyn Clock> = clock.clone();
    let settings = config.settings(world.domain.as_str());
    let service = PolicyService::with_rules(
        world.clone(),
        discovery,
        store.clone(),
        clock,
        1 << 20,
        settings.clone(),
        rules,
    );
    service.set_with_maps(settings, config.maps(world.domain.as_str()));
    service
}

fn reply(entry: &Entry) -> Reply {
    let without_reason = |word: &str, text: String| match word {
        "OK" => format!("OK {text}"),
        other => other.to_owned(),
    };
    let plain = without_reason(entry.reply_status(false), entry.text(false));
    let level = entry.level().unwrap_or_else(|| entry.reply_status(true).to_owned());
    Reply { plain, level, source: entry.source }
}

/// A time of the cache; the last one stands for never.
fn seconds(time: ElapsedSeconds) -> u64 {
    if time == ElapsedSeconds::MAX { u64::MAX } else { u64::from(time) }
}
