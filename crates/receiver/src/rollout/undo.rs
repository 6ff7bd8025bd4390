//! Undo of the last change of a record: whether what was there before may be published again. The rules are those of the plan
//! (docs/safety.md): a record announces only the policy that is served, the name of the policy host leads only to a host that
//! serves it, and neither disappears while senders may hold a policy.

use super::apply::{Applier, ApplyError, Observation, RecordedChange};
use super::desired::{DesiredState, PolicyHostAt};
use super::observe::all_addresses;
use super::observed::ObservedState;
use super::outside::summary;
use super::state::RolloutState;
use crate::publish::{Change, Previous, Records};
use formats::limits::POLICY_HOST_ADDRESSES;
use formats::{DomainName, Mode, Policy, StsRecord};
use jiff::Timestamp;
use net::BoxFuture;
use net::https::AddressFetch;
use std::net::IpAddr;
use store::record_changes::{ChangeState, StoredChange};

/// Why the last change is not undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UndoRefusal {
    /// The operator changes the records.
    #[error("Sternpost does not change the records of this domain (dns = \"manual\")")]
    Manual,
    /// Sternpost has changed no record, or has undone all changes.
    #[error("Sternpost has changed no record of this domain that could be undone")]
    Nothing,
    /// The records before were not one valid set, as two TXT records of one version.
    #[error("the records before can't be published again: {}", .0.join(" and "))]
    NotRestorable(Vec<String>),
    /// The records are not those that the change has published.
    #[error("{name} was changed since: {}", now.join(" and "))]
    ChangedSince {
        /// The owner name of the records.
        name: DomainName,
        /// The records now, in zone-file form.
        now: Vec<String>,
    },
    /// The record, or the name of the policy host, was not there before, and senders may hold a policy.
    #[error("{name} was not there before, and senders may hold a policy of this domain{}", until_words(.until))]
    SendersHoldPolicy {
        /// The owner name of the record.
        name: DomainName,
        /// When the last sender has dropped it; `None` while it is served.
        until: Option<Timestamp>,
    },
    /// The record announces the policy, and would lead to a host that is not there.
    #[error("{0} was not there before, and the record _mta-sts announces a policy at that name")]
    Announced(DomainName),
    /// The `id` announced another policy than the one that is served, or it is not known which one.
    #[error(
        "`{0}` announced another policy than the one that is served: senders that hold that policy would not fetch the present one"
    )]
    OtherPolicy(String),
    /// A record would announce a policy that is not served.
    #[error("`{0}` would announce a policy, and none is served: {1}")]
    NotServed(String, String),
    /// The policy host before does not serve the present policy.
    #[error("the policy host before does not serve the present policy: {0}")]
    OldHost(String),
}

fn until_words(until: &Option<Timestamp>) -> String {
    until.map_or(String::new(), |until| format!(" until {until:.0}"))
}

/// What an undo has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The owner name of the records.
    pub name: DomainName,
    /// The records that were there before, and are there again; empty if there were none.
    pub lines: Vec<String>,
    /// When the change that was undone had been made.
    pub made_at: Timestamp,
}

/// What the old policy host serves: all addresses, each with the policy or the reason why there is none; or why they are not
/// known.
type OldHost = Result<Vec<(IpAddr, Result<Policy, String>)>, String>;

impl Applier {
    /// Publishes the records again that the last change has replaced, if that is safe. `who` and `reason` are for the journal.
    /// Should not be interrupted.
    pub fn undo<'a>(
        &'a self,
        desired: &'a DesiredState,
        who: &'a str,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Result<Undone, UndoRefusal>, ApplyError>> {
        Box::pin(async move {
            let Some(publisher) = &self.publisher else { return Ok(Err(UndoRefusal::Manual)) };
            self.recover(desired).await?;
            let changes = self.store.record_changes::<RecordedChange>(&desired.domain).await?;
            let Some(last) = changes.iter().find(|stored| stored.state == ChangeState::Done) else {
                return Ok(Err(UndoRefusal::Nothing));
            };
            let RecordedChange { name, before, .. } = last.change.clone();
            let Some(records) = before.records.clone() else {
                return Ok(Err(UndoRefusal::NotRestorable(before.lines)));
            };
            let back = Change { name: name.clone(), records };
            let there = publisher.read(&back).await?;
            let Observation { rollout, seen, now } = self.observe(desired).await?;
            let old_host = self.old_host(desired, &back).await;
            let facts = UndoInput { desired, rollout: &rollout, seen: &seen, now, old_host };
            if let Err(refusal) = facts.judge(last, &changes, &back, &there) {
                return Ok(Err(refusal));
            }
            if let Records::Txt(text) = &back.records
                && let Ok(record) = StsRecord::parse(text.as_bytes())
            {
                // The earlier id is ours when it is seen again.
                let known = |kept: &mut RolloutState| kept.abandoned = Some(record.id);
                self.store.change_rollout(&desired.domain, known).await?;
            }
            let policy = rollout.newest().cloned();
            self.make(&desired.domain, &back, there, policy, ChangeState::Undone).await?;
            self.store.set_record_change(last.id, ChangeState::Undone).await?;
            let lines = before.lines;
            let now = match lines.is_empty() {
                true => "no record".to_owned(),
                false => lines.join(" and "),
            };
            let what = format!("the change of {name} at {:.0} was undone: {now}. Reason: {reason}", last.at);
            self.store.journal(&desired.domain, self.clock.now(), who, &what).await?;
            Ok(Ok(Undone { name, lines, made_at: last.at }))
        })
    }

    /// The policies that are served where the policy host's name would point after the undo.
    async fn old_host(&self, desired: &DesiredState, back: &Change) -> OldHost {
        let addresses = match &back.records {
            Records::Place(PolicyHostAt::Addresses(addresses)) => addresses.clone(),
            Records::Place(PolicyHostAt::Alias(target)) => {
                let found = all_addresses(self.dns.as_ref(), target)
                    .await
                    .map_err(|failed| format!("{} {target}: {}", failed.kind, failed.error))?;
                match found.differ {
                    Some(why) => return Err(why),
                    None => found.addresses,
                }
            }
            _ => return Ok(Vec::new()),
        };
        if addresses.len() > POLICY_HOST_ADDRESSES {
            return Err(format!("it has {} addresses, too many to visit them all", addresses.len()));
        }
        let fetched = self.policies.fetch_each(&desired.domain, &addresses).await;
        let policy = |one: AddressFetch| {
            let fetched = one.fetched.map_err(|error| error.to_string())?;
            Policy::parse(&fetched.body).map_err(|error| format!("the policy file is invalid: {error}"))
        };
        Ok(fetched.into_iter().map(|one| (one.address, policy(one))).collect())
    }
}

/// What the decision depends on.
struct UndoInput<'a> {
    desired: &'a DesiredState,
    rollout: &'a RolloutState,
    seen: &'a ObservedState,
    now: Timestamp,
    old_host: OldHost,
}

impl UndoInput<'_> {
    /// Decides whether `back` may replace the records of the change `last`.
    fn judge(
        &self,
        last: &StoredChange<RecordedChange>,
        changes: &[StoredChange<RecordedChange>],
        back: &Change,
        there: &Previous,
    ) -> Result<(), UndoRefusal> {
        if !there.is(&last.change.after) {
            let now = match there.lines.is_empty() {
                true => vec!["it has no record".to_owned()],
                false => there.lines.clone(),
            };
            return Err(UndoRefusal::ChangedSince { name: back.name.clone(), now });
        }
        let is_record = |label: &str| self.desired.record(label).is_ok_and(|name| name == back.name);
        match &back.records {
            // Reports do not bind senders.
            _ if is_record("_smtp._tls") => Ok(()),
            // Values of certificate orders bind nobody either, and no step publishes them.
            Records::TxtValue { .. } => Ok(()),
            Records::NoTxt => self.nothing_held(&back.name),
            Records::Txt(text) => self.announces(text, changes),
            Records::Place(PolicyHostAt::Addresses(none)) if none.is_empty() => {
                if self.seen.record.is_some() {
                    return Err(UndoRefusal::Announced(back.name.clone()));
                }
                self.nothing_held(&back.name)
            }
            Records::Place(_) => self.old_host_serves(),
        }
    }

    /// A record may go only when no sender can hold a policy.
    fn nothing_held(&self, name: &DomainName) -> Result<(), UndoRefusal> {
        let is_served = self.seen.policies().any(|policy| policy.mode != Mode::None);
        let held = self.rollout.free_of(|published| published.mode != Mode::None);
        match held.filter(|held| *held > self.now) {
            None if !is_served => Ok(()),
            held => Err(UndoRefusal::SendersHoldPolicy {
                name: name.clone(),
                until: held.filter(|held| *held < Timestamp::MAX),
            }),
        }
    }

    /// An old `id` may return only with the policy that it announced.
    fn announces(&self, text: &str, changes: &[StoredChange<RecordedChange>]) -> Result<(), UndoRefusal> {
        let Some(served) = &self.seen.served else {
            let why = self.seen.unserved.clone().unwrap_or_default();
            return Err(UndoRefusal::NotServed(text.to_owned(), why));
        };
        let is_announcement = |stored: &&StoredChange<RecordedChange>| {
            matches!(&stored.change.after, Records::Txt(value) if value == text)
                && matches!(stored.state, ChangeState::Done | ChangeState::Undone)
        };
        let announced = changes.iter().find(is_announcement).and_then(|stored| stored.change.policy.as_ref());
        match announced.is_some_and(|policy| policy.is(served)) {
            true => Ok(()),
            false => Err(UndoRefusal::OtherPolicy(text.to_owned())),
        }
    }

    /// The name of the policy host may lead back only to a host that serves the present policy at every address.
    fn old_host_serves(&self) -> Result<(), UndoRefusal> {
        let present = self.rollout.newest().filter(|newest| !newest.assumed);
        let Some(present) = present else { return self.nothing_held_by_anyone() };
        let old_host = self.old_host.as_ref().map_err(|why| UndoRefusal::OldHost(why.clone()))?;
        if old_host.is_empty() {
            return Err(UndoRefusal::OldHost("it has no address that could be visited".to_owned()));
        }
        for (address, policy) in old_host {
            match policy {
                Ok(policy) if present.is(policy) => {}
                Ok(policy) => {
                    let (serves, desired) = (summary(policy), summary(&Policy::from(present)));
                    return Err(UndoRefusal::OldHost(format!(
                        "{address} serves {serves}; {desired} is expected"
                    )));
                }
                Err(why) => return Err(UndoRefusal::OldHost(format!("{address}: {why}"))),
            }
        }
        Ok(())
    }

    fn nothing_held_by_anyone(&self) -> Result<(), UndoRefusal> {
        match self.desired.record("mta-sts") {
            Ok(name) => self.nothing_held(&name),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
