//! A sender as the documents describe it: the policy that it holds, its store and its cache. After each act it says
//! which answers and which changes of the cache were allowed.
//!
//! It holds what the world gave the service ([`Events`]): the live policy is the newest one that HTTPS authenticated.
//! Where the order of concurrent lookups or a step of the clock leaves several outcomes open, all are allowed; a
//! temporary failure is among them only where nothing better can be known.

use super::acts::{Config, DAY, RuleKind};
use super::reference::{Found, HostState, Key, Reply, Rest, Route, answer, lifetime, route};
use super::world::{Events, PolicyFile, Record, Zone};
use crate::answer::decide::Source;
use formats::Mode;
use std::collections::BTreeMap;

/// A policy that was fetched. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub file: PolicyFile,
    /// The `id` of the record.
    pub id: u32,
    /// The monotonic time of the fetch.
    pub fetched_at: u64,
    /// The sum of the steps back since then: the policy may live longer by as much.
    pub back: u64,
    /// The sum of the steps forward since then that the running service knows of, which age nothing.
    pub forward: u64,
    /// The sum of the steps forward before a restart, by which the policy may have aged.
    pub aged: u64,
    /// The slewing that can't be told from time.
    pub slack: u64,
}

impl Held {
    pub fn new(file: PolicyFile, id: u32, fetched_at: u64) -> Self {
        Self { file, id, fetched_at, back: 0, forward: 0, aged: 0, slack: 0 }
    }

    pub fn rest(&self, now: u64) -> Rest {
        let (age, max_age) = (now - self.fetched_at, u64::from(self.file.max_age));
        if max_age == 0 {
            return (0, 0);
        }
        let least = max_age.saturating_sub(age + self.aged + self.slack);
        (least, (max_age + self.back + self.slack).saturating_sub(age))
    }

    /// True if a refresh is due for sure: a day after the fetch, or after half of `max_age` (POL-13).
    pub fn needs_refresh(&self, now: u64) -> bool {
        let interval = u64::from(DAY.min(self.file.max_age / 2));
        (now - self.fetched_at).saturating_sub(self.back + self.slack) >= interval
    }

    fn step(&mut self, seconds: i64) {
        let size = seconds.unsigned_abs();
        self.slack += size.min(5);
        match seconds {
            0.. => self.forward += size,
            _ => self.back += size,
        }
    }

    fn restart(&mut self) {
        self.aged += self.forward;
        self.forward = 0;
    }
}

/// The policy in the store.
#[derive(Debug, Clone)]
pub struct Row {
    pub held: Held,
    /// The DANE states of the hosts that may be stored with it; `None` is an empty text.
    pub dane: Vec<Option<Vec<HostState>>>,
}

/// An answer in the cache, with its times on the monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    pub reply: Reply,
    pub recheck: u64,
    pub until: u64,
}

/// An outcome of a request, with the latest times that it may be cached for.
#[derive(Debug, Clone)]
pub struct Allowed {
    pub cached: Cached,
    /// True if it comes from the store, so that it is due for a lookup at once.
    pub is_from_store: bool,
}

impl Allowed {
    pub fn covers(&self, cached: &Cached, now: u64) -> bool {
        let Cached { reply, recheck, until } = &self.cached;
        let is_due_later = self.is_from_store || cached.recheck > now;
        cached.reply == *reply && cached.recheck <= *recheck && cached.until <= *until && is_due_later
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    Up,
    /// Nothing can be written.
    Away,
    /// Nothing can be read or written.
    Down,
}

#[derive(Debug, Clone)]
pub struct Sender {
    /// The monotonic time.
    pub now: u64,
    /// The monotonic time of the last start.
    pub started_at: u64,
    /// The sum of all steps of the calendar back.
    pub set_back: u64,
    pub config: Config,
    pub store: StoreState,
    pub row: Option<Row>,
    /// A policy that could not be stored.
    pub unsaved: Option<Held>,
    /// The `id` of the last failed fetch, and its time.
    pub failed: Option<(u32, u64)>,
    /// The cache, also with expired answers.
    pub cached: BTreeMap<Key, Cached>,
    /// The last time at which the policy was used for sure, and the use is stored.
    pub used_at: Option<u64>,
    /// The last time at which it may have been used.
    pub maybe_used_at: u64,
    /// The last refresh that did not fetch.
    pub postponed_at: Option<u64>,
}

impl Sender {
    pub fn new() -> Self {
        Self {
            now: 0,
            started_at: 0,
            set_back: 0,
            config: Config::DEFAULT,
            store: StoreState::Up,
            row: None,
            unsaved: None,
            failed: None,
            cached: BTreeMap::new(),
            used_at: None,
            maybe_used_at: 0,
            postponed_at: None,
        }
    }

    pub fn step(&mut self, seconds: i64) {
        self.set_back += seconds.min(0).unsigned_abs();
        let rows = self.row.iter_mut().map(|row| &mut row.held);
        rows.chain(&mut self.unsaved).for_each(|held| held.step(seconds));
    }

    pub fn restart(&mut self) {
        if let Some(row) = &mut self.row {
            row.held.restart();
            self.used_at = self.used_at.filter(|_| row.held.aged == 0);
        }
        self.started_at = self.now;
        self.store = StoreState::Up;
        (self.unsaved, self.failed) = (None, None);
        self.cached.clear();
    }

    pub fn purge(&mut self) {
        if self.store == StoreState::Up {
            self.row = None;
        }
        (self.unsaved, self.failed) = (None, None);
    }

    /// The policy that the sender knows, even if it has expired.
    pub fn held(&self) -> Option<Held> {
        let row = self.row.as_ref().filter(|_| self.store != StoreState::Down);
        self.unsaved.or(row.map(|row| row.held))
    }

    /// The policy that is in force for sure.
    pub fn live(&self) -> Option<Held> {
        self.held().filter(|held| held.rest(self.now).0 > 0)
    }

    /// True if the published policy can change the answer for a key.
    pub fn uses_published_policy(&self, key: Key) -> bool {
        self.config.of(key).uses_published_policy()
    }

    /// Takes over a policy that another machine fetched.
    pub fn import(&mut self, held: Held) {
        self.used_at = self.used_at.filter(|_| self.row.is_some());
        self.row = Some(Row { held, dane: vec![None] });
        (self.unsaved, self.postponed_at) = (None, None);
    }

    /// The valid answer in the cache.
    pub fn valid(&self, key: Key) -> Option<&Cached> {
        self.cached.get(&key).filter(|cached| cached.until > self.now)
    }

    /// Takes over what the world gave the service. `keys` were looked up with one of these `views` of the zone.
    pub fn absorb(&mut self, events: &Events, keys: &[Key], views: &[Zone]) {
        let is_new = !events.fetched.is_empty();
        for (id, file) in &events.fetched {
            self.unsaved = Some(Held::new(*file, *id, self.now));
            (self.failed, self.postponed_at) = (None, None);
        }
        if let Some(id) = events.failed.last() {
            self.failed = Some((*id, self.now));
        }
        // Each discovery asks for the record.
        if events.records == 0 {
            return;
        }
        if self.store == StoreState::Up
            && let Some(held) = self.unsaved.filter(|held| is_new || held.rest(self.now).1 > 0)
        {
            let dane = self.row.take().map_or_else(|| vec![None], |row| row.dane);
            self.row = Some(Row { held, dane });
            self.unsaved = None;
        }
        self.absorb_dane(is_new, keys, views);
    }

    fn absorb_dane(&mut self, is_new: bool, keys: &[Key], views: &[Zone]) {
        let is_mail_domain = |key: &Key| matches!(key, Key::Domain | Key::Named);
        let is_single = keys.len() == 1 && views.len() == 1;
        let (now, store) = (self.now, self.store);
        let has_unsaved = self.unsaved.is_some();
        let Some(row) = &mut self.row else { return };
        if store != StoreState::Up || !keys.iter().any(is_mail_domain) {
            return;
        }
        let before = row.dane.clone();
        let is_certain = is_single && !has_unsaved && (is_new || row.held.rest(now).0 > 0);
        if is_certain {
            row.dane.clear();
        } else if is_new && !row.dane.contains(&None) {
            row.dane.push(None);
        }
        for view in views {
            let stored = match route(Key::Domain, view).0 {
                Route::Hosts(hosts) => vec![Some(hosts)],
                Route::Bogus => vec![None],
                Route::NoHosts | Route::Failing => before.clone(),
            };
            let is_known = |one: &Option<Vec<HostState>>| row.dane.contains(one);
            let new: Vec<_> = stored.into_iter().filter(|one| !is_known(one)).collect();
            row.dane.extend(new);
        }
    }

    /// The policies that may apply after a lookup. The policy of this lookup is held already, if it fetched one.
    fn found(&self, zone: &Zone, is_new: bool) -> Vec<Found> {
        let without = match zone.record {
            Record::Published(_) => Found::Unavailable,
            Record::Absent | Record::Invalid | Record::Timeout => Found::None,
        };
        match self.held().map(|held| (held.file, held.rest(self.now))) {
            Some((file, rest)) if is_new || rest.0 > 0 => vec![Found::Policy(file, rest)],
            Some((file, rest)) if rest.1 > 0 => vec![Found::Policy(file, rest), without],
            Some(_) | None => vec![without],
        }
    }

    /// The allowed outcomes of a lookup that saw this zone, beside a valid answer in the cache.
    pub fn outcomes(&self, key: Key, zone: &Zone, cached: Option<&Cached>, is_new: bool) -> Vec<Allowed> {
        let (route, ttl) = route(key, zone);
        let one = |found| {
            let config = self.config.of(key);
            let reply = answer(config, &route, found);
            let (recheck, until) = lifetime(config, zone, ttl, &reply, found);
            let recheck = self.now.saturating_add(recheck);
            let cached = match cached.filter(|cached| self.keeps(config, cached, &route, found, &reply)) {
                Some(kept) => Cached { recheck, ..kept.clone() },
                None => Cached { reply, recheck, until: self.now.saturating_add(until) },
            };
            Allowed { cached, is_from_store: false }
        };
        self.found(zone, is_new).into_iter().map(one).collect()
    }

    /// True if a valid answer stays: a failing resolver removes none, unless it is weaker than an enforced policy that is
    /// known by now; and a store that can't be read removes no policy.
    fn keeps(&self, config: Config, cached: &Cached, route: &Route, found: Found, reply: &Reply) -> bool {
        if *route == Route::Failing && config.rule != RuleKind::Answer {
            return match found {
                Found::Policy(file, _) if config.uses_published_policy() && file.mode == Mode::Enforce => {
                    cached.reply.level == "dane-only" || cached.reply.is_by(file)
                }
                _ => true,
            };
        }
        self.store == StoreState::Down
            && config.uses_published_policy()
            && !matches!(found, Found::Policy(..))
            && reply.source == Source::NoPolicy
            && cached.reply.source == Source::MtaSts
    }

    /// The answers from the store, which come at once, and whether the answer must be one of them.
    pub fn store_answers(&self, key: Key) -> (Vec<Allowed>, bool) {
        let row = self.row.as_ref().filter(|_| self.store != StoreState::Down && self.unsaved.is_none());
        let config = self.config.of(key);
        let is_plain = matches!(key, Key::Domain | Key::Named) && config.rule == RuleKind::None;
        let row = row.filter(|row| is_plain && row.held.file.mode == Mode::Enforce);
        let Some(row) = row else { return (Vec::new(), false) };
        let rest = row.held.rest(self.now);
        let has_dane =
            |host: &HostState| matches!(host, HostState::Usable | HostState::Unusable | HostState::Unknown);
        let one = |hosts: &Option<Vec<HostState>>| {
            let hosts = hosts.clone().filter(|hosts| !hosts.iter().any(has_dane))?;
            let reply = answer(config, &Route::Hosts(hosts), Found::Policy(row.held.file, rest));
            let cached = Cached { reply, recheck: self.now, until: self.now + rest.1 };
            Some(Allowed { cached, is_from_store: true })
        };
        let answers: Vec<_> = row.dane.iter().map(one).collect();
        let is_sure = rest.0 > 0 && !answers.is_empty() && answers.iter().all(Option::is_some);
        (answers.into_iter().flatten().filter(|_| rest.1 > 0).collect(), is_sure)
    }
}
