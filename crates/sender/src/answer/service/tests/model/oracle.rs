//! Compares what the service did in one act with what the [`Sender`] allows, and takes the outcome over.
//!
//! Three kinds of statements are checked: each answer and each change of the cache is an allowed one; no answer, given
//! or cached, is weaker than a live policy or than DANE that is proved; and what is due is done (lookups, fetches, the
//! daily refresh, the deletion of expired policies).

use super::acts::{DAY, RuleKind};
use super::play::Observed;
use super::reference::{Found, Key, Reply, Route, answer, route, weaker_than_a_policy, weaker_than_dane};
use super::sender::{Allowed, Cached, Held, Sender, StoreState};
use super::world::{File, PolicyFile, Record, Zone};
use crate::answer::decide::Source;
use formats::Mode;

type Checked = Result<(), String>;

/// The seconds for which a failed fetch is not repeated, and a failed refresh.
const DELETION_GRACE: u64 = 3600;
const FETCH_BACK_OFF: u64 = 300;
const REFRESH_RETRY: u64 = 3600;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

/// The zone as the lookups of an act may have seen it.
fn views(observed: &Observed, look_ups: usize) -> Vec<Zone> {
    let honest = observed.zone;
    match observed.events.forged {
        None => vec![honest],
        Some(forged) if look_ups == 1 => vec![honest.with_forged(forged)],
        Some(forged) => vec![honest.with_forged(forged), honest],
    }
}

pub fn check_ask(model: &mut Sender, observed: &Observed) -> Checked {
    let mut keys: Vec<Key> = observed.answers.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    let before = model.clone();
    let views = views(observed, keys.len());
    model.absorb(&observed.events, &keys, &views);
    check_fetch(&before, observed)?;
    for key in &keys {
        let asked = Asked { key: *key, is_alone: keys.len() == 1, before: &before, after: model };
        asked.check(observed, &views)?;
    }
    if observed.events.records > 0 && before.store == StoreState::Up && model.row.is_some() {
        model.used_at = Some(model.now);
    }
    model.maybe_used_at = model.now;
    check_others(&before, observed, &keys)?;
    finish(model, &before, observed)
}

/// A key that was asked for in an act, perhaps beside others.
struct Asked<'a> {
    key: Key,
    is_alone: bool,
    before: &'a Sender,
    after: &'a Sender,
}

impl Asked<'_> {
    fn check(&self, observed: &Observed, views: &[Zone]) -> Checked {
        let answers = observed.answers.iter().filter(|(key, _)| *key == self.key).map(|(_, reply)| reply);
        let now = observed.cached.get(&self.key).filter(|cached| cached.until > self.after.now);
        let cached = self.before.valid(self.key);
        let allowed = match cached {
            Some(cached) => {
                for reply in answers {
                    ensure(*reply == cached.reply, || format!("{reply:?} although {cached:?} is cached"))?;
                }
                if self.before.now < cached.recheck {
                    return unchanged(self.key, Some(cached), now);
                }
                self.outcomes(observed, views, Some(cached))
            }
            None => {
                let allowed = self.on_a_miss(observed, views);
                for reply in answers {
                    let is_allowed = allowed.iter().any(|allowed| allowed.cached.reply == *reply);
                    ensure(is_allowed, || format!("{:?}: {reply:?} is not one of {allowed:#?}", self.key))?;
                }
                allowed
            }
        };
        self.check_dane(observed, views, &allowed, now)?;
        check_cached(self.key, now, &allowed, self.after.now)
    }

    fn outcomes(&self, observed: &Observed, views: &[Zone], cached: Option<&Cached>) -> Vec<Allowed> {
        let is_new = !observed.events.fetched.is_empty();
        views.iter().flat_map(|view| self.after.outcomes(self.key, view, cached, is_new)).collect()
    }

    fn on_a_miss(&self, observed: &Observed, views: &[Zone]) -> Vec<Allowed> {
        let (mut allowed, mut is_sure) = self.before.store_answers(self.key);
        if !self.is_alone {
            let (also, is_also_sure) = self.after.store_answers(self.key);
            allowed.extend(also);
            is_sure &= is_also_sure;
        }
        if !is_sure {
            allowed.extend(self.outcomes(observed, views, None));
        }
        allowed
    }

    /// DANE that a lookup proved is never weakened, whatever the reference says.
    fn check_dane(
        &self,
        observed: &Observed,
        views: &[Zone],
        allowed: &[Allowed],
        now: Option<&Cached>,
    ) -> Checked {
        let is_looked_up = self.is_alone && observed.events.routes > 0 && !allowed.is_empty();
        let (Some(now), [view], true) = (now, views, is_looked_up) else { return Ok(()) };
        dane_floor(self.after, self.key, view, &now.reply)
    }
}

fn dane_floor(model: &Sender, key: Key, view: &Zone, reply: &Reply) -> Checked {
    if matches!(model.config.of(key).rule, RuleKind::SkipDane | RuleKind::Answer) {
        return Ok(());
    }
    let Route::Hosts(hosts) = route(key, view).0 else { return Ok(()) };
    let is_enforced = model.live().is_some_and(|held| held.file.mode == Mode::Enforce);
    let is_enforced = is_enforced && model.uses_published_policy(key);
    weaker_than_dane(reply, &hosts, is_enforced).map_or(Ok(()), Err)
}

fn unchanged(key: Key, before: Option<&Cached>, now: Option<&Cached>) -> Checked {
    ensure(now.is_none() || now == before, || format!("{key:?}: {before:?} became {now:?} without a lookup"))
}

/// A cache may forget, but what it holds is an allowed outcome and no older.
fn check_cached(key: Key, cached: Option<&Cached>, allowed: &[Allowed], now: u64) -> Checked {
    let Some(cached) = cached else { return Ok(()) };
    let is_allowed = allowed.iter().any(|allowed| allowed.covers(cached, now));
    ensure(is_allowed, || format!("{key:?}: {cached:?} is in the cache, and not one of {allowed:#?}"))
}

/// Next hops that nobody asked for stay as they are.
fn check_others(before: &Sender, observed: &Observed, keys: &[Key]) -> Checked {
    for key in Key::CACHED.into_iter().filter(|key| !keys.contains(key)) {
        let now = observed.cached.get(&key);
        unchanged(key, before.cached.get(&key), now)?;
    }
    Ok(())
}

/// A policy is fetched when its `id` is new or its refresh is due, except soon after a failed fetch of the same `id`.
fn check_fetch(before: &Sender, observed: &Observed) -> Checked {
    let (Record::Published(id), File::Policy(_)) = (observed.zone.record, observed.zone.file) else {
        return Ok(());
    };
    let is_known = before.live().is_some_and(|held| held.id == id && !held.needs_refresh(before.now));
    let is_maybe_known = before
        .held()
        .is_some_and(|held| held.id == id && held.rest(before.now).1 > 0 && !held.needs_refresh(before.now));
    let has_failed = before.failed.is_some_and(|(of, at)| of == id && before.now - at < FETCH_BACK_OFF);
    let is_wanted = observed.events.records > 0 && !is_known && !is_maybe_known && !has_failed;
    ensure(!is_wanted || !observed.events.fetched.is_empty(), || format!("the policy {id} was not fetched"))
}

pub fn check_operator(model: &mut Sender, observed: &Observed) -> Checked {
    model.failed = None;
    let before = model.clone();
    // A policy that only the named set uses is looked up for that, too.
    let look_ups = if model.config.refresh_key() == Key::Domain { 1 } else { 2 };
    let views = views(observed, look_ups);
    model.absorb(&observed.events, &[Key::Domain], &views);
    check_fetch(&before, observed)?;
    let asked = Asked { key: Key::Domain, is_alone: true, before: &before, after: model };
    let allowed = asked.outcomes(observed, &views, before.valid(Key::Domain));
    for (_, reply) in &observed.answers {
        let is_allowed = allowed.iter().any(|allowed| allowed.cached.reply == *reply);
        ensure(is_allowed, || format!("refresh: {reply:?} is not one of {allowed:#?}"))?;
    }
    let now = observed.cached.get(&Key::Domain).filter(|cached| cached.until > model.now);
    check_cached(Key::Domain, now, &allowed, model.now)?;
    check_others(&before, observed, &[Key::Domain])?;
    finish(model, &before, observed)
}

pub fn check_purge(model: &mut Sender, observed: &Observed) -> Checked {
    let before = model.clone();
    model.purge();
    ensure(observed.cached.is_empty(), || format!("{:?} is left after a purge", observed.cached))?;
    finish(model, &before, observed)
}

/// A purge while lookups were in flight: they answer by what was known before or after it, and leave nothing behind.
pub fn check_purge_in_flight(model: &mut Sender, observed: &Observed) -> Checked {
    let mut keys: Vec<Key> = observed.answers.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    let before = model.clone();
    model.purge();
    let views = views(observed, keys.len());
    let states = [before.clone(), model.clone()].map(|state| {
        let mut after = state.clone();
        after.absorb(&observed.events, &keys, &views);
        (state, after)
    });
    for (key, reply) in &observed.answers {
        let allowed: Vec<Allowed> = states
            .iter()
            .flat_map(|(before, after)| {
                Asked { key: *key, is_alone: false, before, after }.on_a_miss(observed, &views)
            })
            .collect();
        let is_cached = before.valid(*key).is_some_and(|cached| cached.reply == *reply);
        let is_allowed = is_cached || allowed.iter().any(|allowed| allowed.cached.reply == *reply);
        ensure(is_allowed, || format!("{key:?} during a purge: {reply:?} is not one of {allowed:#?}"))?;
    }
    if let Some(id) = observed.events.failed.last() {
        model.failed = Some((*id, model.now));
    }
    ensure(observed.cached.is_empty(), || format!("{:?} is left after a purge", observed.cached))?;
    let is_gone = model.store != StoreState::Up || observed.is_stored == Some(false);
    ensure(is_gone, || "the policy is stored after a purge".to_owned())?;
    model.maybe_used_at = model.now;
    finish(model, &before, observed)
}

/// An import: `imported` is the policy if it is stored by now.
pub fn check_import(model: &mut Sender, observed: &Observed, imported: Option<Held>) -> Checked {
    let before = model.clone();
    if let Some(held) = imported {
        model.import(held);
        ensure(observed.cached.is_empty(), || format!("{:?} is left after an import", observed.cached))?;
    }
    check_others(&before, observed, &[])?;
    finish(model, &before, observed)
}

pub fn check_refresh(model: &mut Sender, observed: &Observed, is_done: bool) -> Checked {
    ensure(is_done == (model.store == StoreState::Up), || "the refresh fails".to_owned())?;
    if !is_done {
        return finish(model, &model.clone(), observed);
    }
    check_expiry(model, observed)?;
    let before = model.clone();
    let is_looked_up = observed.events.records > 0 || observed.events.routes > 0;
    ensure(is_looked_up || !must_refresh(model), || format!("{:?} is not refreshed", model.row))?;
    ensure(!is_looked_up || !is_unused(model), || format!("{:?} is refreshed, but not used", model.row))?;
    let (views, key) = (views(observed, 1), model.config.refresh_key());
    model.absorb(&observed.events, &[key], &views);
    check_fetch(&before, observed)?;
    // A rule that answers instead of the policy postpones the refresh, too, without a lookup.
    let is_ruled = !model.uses_published_policy(model.config.refresh_key());
    if (is_looked_up || is_ruled) && observed.events.fetched.is_empty() {
        model.postponed_at = Some(model.now);
    }
    let now = observed.cached.get(&key);
    ensure(before.cached.contains_key(&key) || now.is_none(), || format!("{now:?} is cached by a refresh"))?;
    if is_looked_up {
        let asked = Asked { key, is_alone: true, before: &before, after: model };
        let allowed = asked.outcomes(observed, &views, before.valid(key));
        let now = now.filter(|cached| cached.until > model.now);
        check_cached(key, now, &allowed, model.now)?;
    }
    let asked = if is_looked_up { &[key][..] } else { &[] };
    check_others(&before, observed, asked)?;
    finish(model, &before, observed)
}

/// Expired policies are deleted, and no others. In the first hour after a start none is deleted, since the clock may be
/// ahead.
fn check_expiry(model: &mut Sender, observed: &Observed) -> Checked {
    let Some(row) = &model.row else { return Ok(()) };
    let rest = row.held.rest(model.now);
    let is_stored = observed.is_stored.ok_or("the store fails")?;
    ensure(is_stored || rest.0 == 0, || format!("{row:?} is deleted before its end"))?;
    // A policy with `max_age` 0 is never in force, but after a step back its end seems to lie ahead (VAL-21).
    let seems_live =
        row.held.file.max_age == 0 && model.now - row.held.fetched_at < row.held.back + row.held.slack;
    let is_grace = model.now - model.started_at < DELETION_GRACE;
    ensure(!is_stored || rest.1 > 0 || seems_live || is_grace, || format!("{row:?} is kept beyond its end"))?;
    if !is_stored {
        model.row = None;
    }
    Ok(())
}

/// True if the daily refresh of the policy is due for sure (POL-13).
fn must_refresh(model: &Sender) -> bool {
    let Some(row) = &model.row else { return false };
    let uncertain = row.held.back + row.held.slack;
    let long_ago = |at: u64| model.now - at > REFRESH_RETRY + uncertain;
    let is_used = model.config.unused_days.is_none_or(|days| {
        let days = u64::from(days * DAY);
        model.used_at.is_some_and(|at| model.now - at + u64::from(DAY) + uncertain < days)
    });
    row.held.rest(model.now).0 > 0
        && row.held.needs_refresh(model.now)
        && model.postponed_at.is_none_or(long_ago)
        && is_used
        && model.uses_published_policy(model.config.refresh_key())
}

/// True if nobody has used the policy for longer than configured, so that it is not refreshed.
fn is_unused(model: &Sender) -> bool {
    let Some((row, days)) = model.row.as_ref().zip(model.config.unused_days) else { return false };
    let last = model.maybe_used_at.max(row.held.fetched_at);
    // A use is stamped with the calendar, which a step back may have made earlier.
    model.set_back == 0 && model.now - last > u64::from(days * DAY) + row.held.slack
}

/// Takes over the cache, and checks that no answer is weaker than the policy in force. A policy that was fetched in this act
/// has replaced it for the answers of the act, also where a purge has forgotten the new one and could not delete the old one.
fn finish(model: &mut Sender, before: &Sender, observed: &Observed) -> Checked {
    model.cached.clone_from(&observed.cached);
    let is_replaced = !observed.events.fetched.is_empty();
    let same = before.live().filter(|held| Some(*held) == model.live() && !is_replaced);
    for (key, reply) in &observed.answers {
        policy_floor(model, *key, same.map(|held| held.file), reply)?;
    }
    for (key, cached) in Key::CACHED.iter().filter_map(|key| Some((*key, model.valid(*key)?))) {
        policy_floor(model, key, model.live().map(|held| held.file), &cached.reply)?;
    }
    Ok(())
}

fn policy_floor(model: &Sender, key: Key, live: Option<PolicyFile>, reply: &Reply) -> Checked {
    let live = live.filter(|_| model.uses_published_policy(key) && reply.source != Source::Override);
    live.and_then(|file| weaker_than_a_policy(reply, file)).map_or(Ok(()), Err)
}

/// After a long time in a stable and honest world, the answer is the one of the reference.
pub fn check_calm(model: &Sender, key: Key, zone: &Zone, file: PolicyFile, reply: Option<&Reply>) -> Checked {
    let life = u64::from(file.max_age);
    let right = answer(model.config.of(key), &route(key, zone).0, Found::Policy(file, (life, life)));
    ensure(reply == Some(&right), || format!("in a calm world {reply:?} instead of {right:?}"))
}
