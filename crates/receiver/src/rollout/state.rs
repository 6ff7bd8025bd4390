//! Where a domain stands, as it is kept between runs: what senders may still hold us to.
//!
//! A sender that fetched a policy may apply it until its `max_age` is over, whatever is published
//! meanwhile (RFC 8461 §3.3, §8.3). So everything that was served is a [`PublishedPolicy`], and what the
//! planner may do depends on which promises are still out.

use super::desired::DesiredState;
use super::observed::ObservedState;
use formats::limits::POLICY_SLACK;
use formats::{DomainName, Mode, MxPattern, Policy, PolicyId};
use jiff::Timestamp;
use net::clock::later;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where a domain stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutState {
    /// The mode that senders find, since when; nothing before the first record.
    pub mode: Option<InMode>,
    /// Policies that senders may hold, the newest last.
    pub promises: Vec<PublishedPolicy>,
    /// The newest promise is to be announced by a new `id`.
    pub announce_due: bool,
    /// The `id` under which it is to be announced, once somebody was asked to publish it.
    pub offered: Option<PolicyId>,
    /// The last `id` that was announced or seen.
    pub last_id: Option<PolicyId>,
    /// When the operator allowed enforcement.
    pub approved: Option<Timestamp>,
    /// The MX hosts at the last look.
    pub mx: Vec<DomainName>,
    /// Seconds for which those may be remembered.
    pub mx_ttl: u32,
    /// MX hosts that are gone from DNS and that senders may still know.
    pub gone: Vec<RemovedHost>,
    /// Patterns of the newest promise that no MX host needed, since when.
    pub unused: Vec<UnusedPattern>,
}

/// A mode and its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InMode {
    /// The mode.
    pub mode: Mode,
    /// Since when senders find it.
    pub since: Timestamp,
}

/// A policy that was served, and that senders may apply.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPolicy {
    /// Its mode.
    pub mode: Mode,
    /// Its `max_age`, seconds.
    pub max_age: u32,
    /// Its MX patterns.
    pub mx: Vec<MxPattern>,
    /// Since when no sender can fetch it any more; nothing while some can.
    pub until: Option<Timestamp>,
    /// Nobody has seen it: a record announced a policy that could not be fetched any more, and this is
    /// the worst that it can have been.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assumed: bool,
}

/// An MX host that is no longer in DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RemovedHost {
    /// The host.
    pub host: DomainName,
    /// When the last sender forgets it.
    pub until: Timestamp,
}

/// A pattern that no MX host needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnusedPattern {
    /// The pattern.
    pub pattern: MxPattern,
    /// Since when.
    pub since: Timestamp,
}

impl PublishedPolicy {
    /// True when it is this policy; the order of its patterns does not count.
    pub fn is(&self, policy: &Policy) -> bool {
        let within = |some: &[MxPattern], all: &[MxPattern]| some.iter().all(|one| all.contains(one));
        (self.mode, self.max_age) == (policy.mode, policy.max_age)
            && within(&self.mx, &policy.mx)
            && within(&policy.mx, &self.mx)
    }

    /// When the last sender forgets it; nothing while it can still be fetched.
    pub fn ends(&self) -> Option<Timestamp> {
        Some(later(self.until?, seconds(self.max_age) + POLICY_SLACK))
    }

    /// True while some sender may hold it.
    pub fn is_out(&self, now: Timestamp) -> bool {
        self.ends().is_none_or(|end| end > now)
    }

    /// True when a sender that holds it refuses mail to this host.
    pub fn refuses(&self, host: &DomainName) -> bool {
        self.mode == Mode::Enforce && !self.names(host)
    }

    /// True when one of its patterns matches the host.
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
    fn from(promise: &PublishedPolicy) -> Self {
        Self { mode: promise.mode, max_age: promise.max_age, mx: promise.mx.clone(), notes: Vec::new() }
    }
}

impl RolloutState {
    /// Takes in what is seen from outside now.
    pub fn observe(&mut self, wanted: &DesiredState, seen: &ObservedState, now: Timestamp) {
        match &seen.served {
            Some(policy) => self.see(policy, now),
            None if seen.record.is_some() && self.is_new() => self.assume(wanted, seen),
            None => {}
        }
        self.promises.retain(|promise| promise.is_out(now));
        if let Some(id) = &seen.record {
            self.last_id = Some(id.clone());
            self.announce_due &= self.offered.as_ref() != Some(id);
        }
        if let (Some(policy), true) = (&seen.served, seen.record.is_some())
            && self.mode.is_none_or(|known| known.mode != policy.mode)
        {
            self.mode = Some(InMode { mode: policy.mode, since: now });
            // Enforcement is allowed for the testing that was looked at, not for a later one.
            self.approved = None;
        }
        self.miss(seen, now);
        self.count_unused(wanted, seen, now);
    }

    /// Before `policy` is put up: from then on senders may fetch it, whatever happens to us.
    pub fn intend(&mut self, policy: &Policy) {
        self.announce_due = true;
        self.offered = None;
        // One that can be fetched again outlasts what was promised by the same words before.
        self.promises.retain(|promise| !promise.is(policy));
        self.promises.push(policy.into());
    }

    /// Before the newest promise is announced under this `id`. It counts as announced when that is seen.
    pub fn offer(&mut self, id: &PolicyId) {
        self.offered = Some(id.clone());
    }

    /// The policy that was put up, or was to be put up, last.
    pub fn newest(&self) -> Option<&PublishedPolicy> {
        self.promises.last()
    }

    /// When no sender applies a policy any more that has to do with `counts`; the end of time
    /// while it is still served.
    pub fn free_of(&self, counts: impl Fn(&PublishedPolicy) -> bool) -> Option<Timestamp> {
        self.promises
            .iter()
            .filter(|promise| counts(promise))
            .map(|promise| promise.ends().unwrap_or(Timestamp::MAX))
            .max()
    }

    /// A policy that is seen ends the service of all that were put up before it. Those put up after it
    /// are on their way.
    fn see(&mut self, policy: &Policy, now: Timestamp) {
        let at = match self.promises.iter().rposition(|promise| promise.is(policy)) {
            Some(at) => at,
            None => {
                // Whoever has set this up before has brought it back: now it is known.
                self.promises.retain(|promise| !promise.assumed);
                self.promises.push(policy.into());
                self.promises.len() - 1
            }
        };
        for (place, promise) in self.promises.iter_mut().enumerate() {
            if place == at {
                promise.until = None;
            } else if place < at && promise.until.is_none() {
                promise.until = Some(now);
            }
        }
    }

    fn is_new(&self) -> bool {
        self.mode.is_none() && self.promises.is_empty()
    }

    /// Senders may hold a policy that nobody can see any more. It covered the MX hosts of then, which are
    /// taken to be those of now, since otherwise mail would already wait.
    fn assume(&mut self, wanted: &DesiredState, seen: &ObservedState) {
        self.promises.push(PublishedPolicy {
            mode: Mode::Enforce,
            max_age: wanted.max_age_before,
            mx: seen.mx.iter().cloned().map(MxPattern::Exact).collect(),
            // Others may reach it even now.
            until: None,
            assumed: true,
        });
    }

    fn miss(&mut self, seen: &ObservedState, now: Timestamp) {
        let until = later(now, seconds(self.mx_ttl));
        let before = std::mem::replace(&mut self.mx, seen.mx.clone());
        self.mx_ttl = seen.mx_ttl;
        self.gone.extend(before.into_iter().map(|host| RemovedHost { host, until }));
        self.gone.retain(|gone| !seen.mx.contains(&gone.host) && gone.until > now);
    }

    fn count_unused(&mut self, wanted: &DesiredState, seen: &ObservedState, now: Timestamp) {
        let unneeded = |pattern: &&MxPattern| {
            let wanted = wanted.mx.iter().any(|wanted| wanted.covers(pattern));
            !wanted && !seen.mx.iter().any(|host| pattern.matches(host))
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

/// As the policy and DNS count.
pub fn seconds(count: u32) -> Duration {
    Duration::from_secs(u64::from(count))
}
