//! The planner's state of a domain, kept in the store between runs: the policies that senders may still cache.
//!
//! A sender that fetched a policy may apply it until its `max_age` expires, whatever is published meanwhile (RFC 8461
//! §3.3, §8.3). Every policy that was served is therefore kept as a [`PublishedPolicy`] until the last sender must
//! have dropped it. What the planner may do depends on these policies.

use super::desired::DesiredState;
use super::observed::ObservedState;
use super::timeline::TimeLine;
use formats::limits::POLICY_SLACK;
use formats::{DomainName, Mode, MxPattern, Policy, PolicyId};
use jiff::Timestamp;
use net::clock::later;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The planner's state of a domain, stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutState {
    /// The mode that senders find, and since when; `None` before a record was first observed.
    pub mode: Option<InMode>,
    /// Policies that senders may hold, the newest last.
    #[serde(rename = "promises")]
    pub published: Vec<PublishedPolicy>,
    /// True when the newest policy must still be announced by a new `id`.
    pub announce_due: bool,
    /// The `id` chosen for that announcement, from the moment its publication is requested.
    pub offered: Option<PolicyId>,
    /// The last `id` that was announced or observed.
    pub last_id: Option<PolicyId>,
    /// The last `id` that was chosen and not observed before the policy changed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<PolicyId>,
    /// When enforcement was allowed, by the operator or by evidence; `None` while it is not.
    pub approved: Option<Timestamp>,
    /// The patterns of the policy in testing for which enforcement was allowed; empty if it was not, or by an earlier release.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approved_mx: Vec<MxPattern>,
    /// True if an approval ended because an MX host appeared for which it was not given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_lapsed: bool,
    /// True while the operator holds the domain in testing. No policy in `enforce` is published meanwhile.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_held: bool,
    /// True if the operator has removed the domain although senders may hold its policy, so that it is not missed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_given_up: bool,
    /// What has passed, whatever the clock was set to; `None` before the first observation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_line: Option<TimeLine>,
    /// The MX hosts at the last observation.
    pub mx: Vec<DomainName>,
    /// The TTL of those MX records, in seconds.
    pub mx_ttl: u32,
    /// MX hosts that were removed from DNS and that senders may still have in a cache.
    pub gone: Vec<RemovedHost>,
    /// Patterns of the newest policy that match no MX host and that the operator did not list, each with the time
    /// since when.
    pub unused: Vec<UnusedPattern>,
}

/// A mode and the time since when it has been published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InMode {
    /// The published mode.
    pub mode: Mode,
    /// When the mode was first observed.
    pub since: Timestamp,
}

/// A policy that was served, so that senders may hold it in their caches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPolicy {
    /// The policy's mode.
    pub mode: Mode,
    /// The policy's `max_age`, in seconds.
    pub max_age: u32,
    /// The policy's `mx` patterns.
    pub mx: Vec<MxPattern>,
    /// When it stopped being served; `None` while senders can fetch it.
    pub until: Option<Timestamp>,
    /// True for an assumed policy: a record announced a policy that could not be fetched, and this entry is the
    /// strictest one that senders may hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assumed: bool,
}

/// An MX host that is no longer in DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RemovedHost {
    /// The host's name.
    pub host: DomainName,
    /// When the last cached MX record that names it expires.
    pub until: Timestamp,
}

/// A pattern that no MX host needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnusedPattern {
    /// The pattern in the policy.
    pub pattern: MxPattern,
    /// Since when no MX host needs it.
    pub since: Timestamp,
}

impl PublishedPolicy {
    /// True when both have the same mode, `max_age` and set of patterns, in any order.
    pub fn is(&self, policy: &Policy) -> bool {
        let within = |some: &[MxPattern], all: &[MxPattern]| some.iter().all(|one| all.contains(one));
        (self.mode, self.max_age) == (policy.mode, policy.max_age)
            && within(&self.mx, &policy.mx)
            && within(&policy.mx, &self.mx)
    }

    /// When the policy has expired at every sender; `None` while it is still served.
    pub fn ends(&self) -> Option<Timestamp> {
        Some(later(self.until?, seconds(self.max_age) + POLICY_SLACK))
    }

    /// True while some sender may hold it.
    pub fn is_out(&self, now: Timestamp) -> bool {
        self.ends().is_none_or(|end| end > now)
    }

    /// True when a sender that holds this policy refuses to deliver to the host.
    pub fn refuses(&self, host: &DomainName) -> bool {
        self.mode == Mode::Enforce && !self.names(host)
    }

    /// True when one of the patterns matches the host.
    pub fn names(&self, host: &DomainName) -> bool {
        self.mx.iter().any(|pattern| pattern.matches(host))
    }
}

impl From<&Policy> for PublishedPolicy {
    fn from(policy: &Policy) -> Self {
        Self {
            mode: policy.mode,
            max_age: policy.max_age,
            mx: policy.mx.clone(),
            until: None,
            assumed: false,
        }
    }
}

impl From<&PublishedPolicy> for Policy {
    fn from(published: &PublishedPolicy) -> Self {
        Self {
            mode: published.mode,
            max_age: published.max_age,
            mx: published.mx.clone(),
            unmatchable: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl RolloutState {
    /// Updates the state from an observation made at `now`, on the time line of [`Self::keep_time`].
    pub fn observe(&mut self, desired: &DesiredState, seen: &ObservedState, now: Timestamp) {
        if seen.record.as_ref().is_some_and(|id| self.is_foreign(id)) {
            self.assume_another(desired, seen);
        }
        let served: Vec<&Policy> = seen.policies().collect();
        if !served.is_empty() {
            self.record_served(&served, seen.is_fetched_everywhere(), now);
        } else if seen.record.is_some() && self.is_new() {
            self.assume_strictest(desired, seen);
        }
        self.published.retain(|published| published.is_out(now));
        let is_settled = seen.is_settled(&desired.domain, "_mta-sts");
        if let Some(id) = &seen.record {
            self.last_id = Some(id.clone());
            self.announce_due &= self.offered.as_ref() != Some(id) || !is_settled;
        }
        // A rollout begins when all name servers show the record. What others published before is as it is.
        let has_begun = is_settled || self.mode.is_some() || !self.announce_due;
        if let (Some(policy), true) = (&seen.served, seen.record.is_some() && has_begun)
            && self.mode.is_none_or(|known| known.mode != policy.mode)
        {
            self.mode = Some(InMode { mode: policy.mode, since: now });
            // An approval holds for the testing phase in which it was given, not for a later one.
            self.disapprove();
        }
        if self.approved.is_some() && self.has_untested_host(desired, seen) {
            self.disapprove();
            self.is_lapsed = true;
        }
        self.track_removed_hosts(desired, seen, now);
        self.track_unused_patterns(desired, seen, now);
    }

    /// Records that `policy` is about to be served. This must come first: senders may fetch it from then on, even if
    /// the program crashes.
    pub fn intend(&mut self, policy: &Policy) {
        self.announce_due = true;
        // It may still be published by a step that has begun, and is then ours.
        self.abandoned = self.offered.take().or(self.abandoned.take());
        // The new entry replaces an identical earlier one, which would expire sooner.
        self.published.retain(|published| !published.is(policy));
        self.published.push(policy.into());
    }

    /// Records the `id` under which the newest policy is about to be announced. The announcement counts once that
    /// `id` is observed.
    pub fn offer(&mut self, id: &PolicyId) {
        self.offered = Some(id.clone());
    }

    /// Allows enforcement with the MX hosts that the policy in testing named when it was judged, in the state `judged`. False,
    /// without an effect, if it names others now, or while the operator holds the domain.
    pub fn approve(&mut self, judged: &Self, now: Timestamp) -> bool {
        let is_judged = self.newest().map(|newest| &newest.mx) == judged.newest().map(|newest| &newest.mx);
        let is_allowed = is_judged && !self.is_held;
        if is_allowed {
            self.disapprove();
            self.approved = Some(now);
            self.approved_mx = self.newest().map(|newest| newest.mx.clone()).unwrap_or_default();
        }
        is_allowed
    }

    /// Holds the domain in testing, and withdraws an approval.
    pub fn hold(&mut self) {
        self.disapprove();
        self.is_held = true;
    }

    fn disapprove(&mut self) {
        (self.approved, self.is_lapsed) = (None, false);
        self.approved_mx.clear();
    }

    /// True if the policy to be enforced would name a host that was not in testing when enforcement was allowed.
    fn has_untested_host(&self, desired: &DesiredState, seen: &ObservedState) -> bool {
        // An approval of an earlier release names no hosts.
        if self.approved_mx.is_empty() {
            return false;
        }
        let is_new = |host: &DomainName| !self.approved_mx.iter().any(|pattern| pattern.matches(host));
        let is_wider = |listed: &MxPattern| !self.approved_mx.iter().any(|pattern| pattern.covers(listed));
        seen.mx.iter().any(is_new) || desired.mx.iter().any(is_wider)
    }

    /// True if a step that was chosen in the state `then` must not publish or announce a policy in this mode: it enforces what
    /// the operator holds in testing, or it begins enforcement by an approval that has ended or was given again since.
    pub fn forbids(&self, mode: Mode, then: &Self) -> bool {
        let is_enforced = self.mode.is_some_and(|known| known.mode == Mode::Enforce);
        mode == Mode::Enforce && (self.is_held || !is_enforced && self.approved != then.approved)
    }

    /// The policy that a host has to serve to which the name of the policy host is pointed by a step that was chosen in the state
    /// `then`: the newest one. If that one would begin enforcement and must not, it was not served yet, and the one before it
    /// counts.
    pub fn present(&self, then: &Self) -> Option<&PublishedPolicy> {
        let is_enforced = self.mode.is_some_and(|known| known.mode == Mode::Enforce);
        let may_be_served = |one: &&PublishedPolicy| is_enforced || !self.forbids(one.mode, then);
        self.published.iter().rev().find(may_be_served).filter(|one| !one.assumed)
    }

    /// The policy that was served, or was about to be served, most recently.
    pub fn newest(&self) -> Option<&PublishedPolicy> {
        self.published.last()
    }

    /// When the last of the policies selected by `counts` expires at all senders: `None` if none is selected,
    /// [`Timestamp::MAX`] while one is still served.
    pub fn free_of(&self, counts: impl Fn(&PublishedPolicy) -> bool) -> Option<Timestamp> {
        self.published
            .iter()
            .filter(|published| counts(published))
            .map(|published| published.ends().unwrap_or(Timestamp::MAX))
            .max()
    }

    /// Records that these policies are served now, each by some address of the policy host. Entries after them in the list
    /// are about to be served. Entries before them are no longer served, if `is_complete`: each address was seen.
    fn record_served(&mut self, policies: &[&Policy], is_complete: bool, now: Timestamp) {
        for policy in policies {
            if let Some(known) = self.published.iter_mut().find(|published| published.is(policy)) {
                // The assumption was right: from now on, the entry is as any other.
                known.assumed = false;
                continue;
            }
            if self.published.iter().any(|published| !published.assumed) {
                // Others have changed the file, and perhaps not the `id`: senders have to fetch it again.
                (self.announce_due, self.offered) = (true, None);
            }
            // The earlier policy can be fetched again, so the assumed one is not needed. If another one was served since,
            // this is not the earlier one, and senders may still hold what was assumed.
            self.published.retain(|published| !published.assumed || published.until.is_some());
            self.published.push((*policy).into());
        }
        let is_served = |published: &PublishedPolicy| policies.iter().any(|policy| published.is(policy));
        let Some(last) = self.published.iter().rposition(is_served) else { return };
        for (place, published) in self.published.iter_mut().enumerate() {
            if is_served(published) {
                published.until = None;
            } else if place < last && published.until.is_none() && is_complete {
                published.until = Some(now);
            }
        }
    }

    /// True for an `id` that this state has not announced, and that is not older than those that it has: others have published
    /// it, or this program after the backup from which the store was restored.
    pub(super) fn is_foreign(&self, id: &PolicyId) -> bool {
        let Some(last) = &self.last_id else { return false };
        let is_older = matches!((id.as_time(), last.as_time()), (Some(id), Some(last)) if id < last);
        let is_chosen = [&self.offered, &self.abandoned].into_iter().flatten().any(|chosen| chosen == id);
        !self.published.is_empty() && id != last && !is_chosen && !is_older
    }

    /// Adds the strictest policy that may have been published under an unknown `id`. It covers the current MX hosts: otherwise
    /// mail would be refused already. The present policy is announced again, for the senders that hold the other one.
    fn assume_another(&mut self, desired: &DesiredState, seen: &ObservedState) {
        (self.announce_due, self.offered) = (true, None);
        let known = self.published.iter().map(|published| published.max_age);
        // This program's own ids are times. Under any other, others have chosen the max_age.
        let is_of_others = seen.record.as_ref().is_some_and(|id| id.as_time().is_none());
        let of_others = is_of_others.then_some(desired.max_age_before);
        let max_age = known.chain(of_others).fold(desired.max_age_enforce, u32::max);
        let mx = seen.mx.iter().filter_map(|host| MxPattern::exact(host).ok()).collect();
        // It ends when each address was seen to serve another one.
        let another = PublishedPolicy { mode: Mode::Enforce, max_age, mx, until: None, assumed: false };
        let policy = Policy::from(&another);
        if self.published.iter().any(|known| known.is(&policy) && known.until.is_none()) {
            return;
        }
        // It replaces an identical earlier one, which would expire sooner.
        self.published.retain(|known| !known.is(&policy));
        self.published.insert(0, another);
    }

    fn is_new(&self) -> bool {
        self.mode.is_none() && self.published.is_empty()
    }

    /// Adds an assumed policy, since senders may hold one that can no longer be fetched. It is assumed to cover the
    /// current MX hosts: otherwise mail would be refused already.
    fn assume_strictest(&mut self, desired: &DesiredState, seen: &ObservedState) {
        self.published.push(PublishedPolicy {
            mode: Mode::Enforce,
            max_age: desired.max_age_before,
            mx: seen.mx.iter().filter_map(|host| MxPattern::exact(host).ok()).collect(),
            // Other senders may still be able to fetch it.
            until: None,
            assumed: true,
        });
    }

    fn track_removed_hosts(&mut self, desired: &DesiredState, seen: &ObservedState, now: Timestamp) {
        let until = later(now, seconds(self.mx_ttl));
        if !seen.is_settled(&desired.domain, "") {
            // A name server that showed nothing may still have the records with these hosts.
            self.gone.iter_mut().for_each(|gone| gone.until = gone.until.max(until));
        }
        let before = std::mem::replace(&mut self.mx, seen.mx.clone());
        self.mx_ttl = seen.mx_ttl;
        self.gone.extend(before.into_iter().map(|host| RemovedHost { host, until }));
        self.gone.retain(|gone| !seen.mx.contains(&gone.host) && gone.until > now);
    }

    fn track_unused_patterns(&mut self, desired: &DesiredState, seen: &ObservedState, now: Timestamp) {
        let unseen = match seen.is_settled(&desired.domain, "") {
            true => &[][..],
            false => &self.gone,
        };
        let unseen: Vec<&DomainName> = unseen.iter().map(|gone| &gone.host).collect();
        let unneeded = |pattern: &&MxPattern| {
            let is_listed = desired.mx.iter().any(|listed| listed.covers(pattern));
            let mut known = seen.mx.iter().chain(unseen.iter().copied());
            !is_listed && !known.any(|host| pattern.matches(host))
        };
        let served = self.newest().map(|newest| newest.mx.clone()).unwrap_or_default();
        let before = std::mem::take(&mut self.unused);
        let since = |pattern: &MxPattern| {
            before.iter().find(|known| known.pattern == *pattern).map_or(now, |known| known.since)
        };
        self.unused = served
            .iter()
            .filter(unneeded)
            .map(|pattern| UnusedPattern { pattern: pattern.clone(), since: since(pattern) })
            .collect();
    }
}

/// Converts the seconds of a `max_age` or TTL to a duration.
pub fn seconds(count: u32) -> Duration {
    Duration::from_secs(u64::from(count))
}
