//! From what is wanted, what is seen and what was promised to the next step, and to the whole way: pure
//! functions (RFC 8461 §8.3; the theorem and its check are in docs/safety.md).
//!
//! The order is the point. The policy host answers with the new file before the record announces it
//! (PUB-01). Enforcement comes only after testing was seen (PUB-05). A new MX host takes mail only when
//! no sender can hold an enforced policy without it, and a pattern goes only when no sender can know an
//! MX host that needs it (PUB-04). Retiring waits until no promise is out (PUB-03).

mod step;
mod way;

pub use step::Step;
pub use way::{Stage, plan};

use super::standing::{Promise, Standing, seconds};
use formats::domain::DomainError;
use formats::tlsrpt_record::{Rua, TlsrptRecord};
use formats::{DomainName, Mode, MxPattern, Policy, PolicyId};
use jiff::Timestamp;
use net::clock::later;
use serde::Serialize;
use std::net::IpAddr;

/// Where a domain is to end up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The domain.
    pub domain: DomainName,
    /// Its MX hosts; empty means those that DNS shows.
    pub mx: Vec<MxPattern>,
    /// The destination, not the next step.
    pub mode: Mode,
    /// Seconds while testing, and while retiring.
    pub max_age_testing: u32,
    /// Seconds when enforced.
    pub max_age_enforce: u32,
    /// Seconds that a policy may have had that was there before us and can't be fetched any more.
    pub max_age_before: u32,
    /// Where reports go; empty means that this record is not ours.
    pub rua: Vec<Rua>,
    /// Where `mta-sts` is to point; nothing means that it is not ours to say.
    pub policy_host: Option<PolicyHostAt>,
    /// The zone of ours that the domain's three names are aliases into, when its owner delegates them.
    pub delegated_to: Option<DomainName>,
}

/// The names of a domain that its policy and reports hang on (RFC 8461 §3.1, RFC 8460 §3).
pub const LABELS: [&str; 3] = ["_mta-sts", "mta-sts", "_smtp._tls"];

impl Wanted {
    /// Where the record of this label is put: in the domain itself, or in the zone that it is delegated to.
    pub fn record(&self, label: &str) -> Result<DomainName, DomainError> {
        let own = self.domain.below(label)?;
        match &self.delegated_to {
            Some(zone) => zone.below(own.as_str()),
            None => Ok(own),
        }
    }

    /// The aliases that the owner of a delegated domain has to make; none for others.
    pub fn aliases(&self) -> Result<Vec<(DomainName, DomainName)>, DomainError> {
        let labels = LABELS.iter().filter(|_| self.delegated_to.is_some());
        labels.map(|label| Ok((self.domain.below(label)?, self.record(label)?))).collect()
    }
}

/// Where `mta-sts.DOMAIN` points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyHostAt {
    /// To another name.
    Alias(DomainName),
    /// To these addresses.
    Addresses(Vec<IpAddr>),
}

/// What is there, as a sender sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The MX hosts of the domain.
    pub mx: Vec<DomainName>,
    /// Seconds for which senders may remember them.
    pub mx_ttl: u32,
    /// The `id` that `_mta-sts` announces.
    pub record: Option<PolicyId>,
    /// The policy that the policy host serves.
    pub served: Option<Policy>,
    /// Why none is served, when a policy host is there.
    pub unserved: Option<String>,
    /// When the policy host's certificate ends.
    pub certificate_ends: Option<Timestamp>,
    /// Where `_smtp._tls` sends reports.
    pub rua: Vec<Rua>,
    /// Aliases of the domain's own names ([`LABELS`]), where there are any.
    pub aliases: Vec<(DomainName, DomainName)>,
    /// Names that `mta-sts` leads through, and the addresses at the end.
    pub policy_host: (Vec<DomainName>, Vec<IpAddr>),
}

/// Whether enforcement is allowed: the gate's word or the operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It is not; testing at most.
    Testing,
    /// It is.
    Enforce,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This can be done now.
    Do(Step),
    /// Nothing before this time.
    Wait(Timestamp, Waiting),
    /// Testing is in place; enforcement takes a permit.
    Gate,
    /// Everything is as it is wanted.
    Done,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiting {
    /// Senders may hold an enforced policy without the new MX hosts.
    BeforeNewMx,
    /// Senders may still know MX hosts that are gone.
    BeforeNarrowing,
    /// Senders may hold a policy of the domain that retires.
    BeforeRemoval,
}

/// What comes next on the way to the wanted state. `standing` has taken in what is seen.
pub fn next(wanted: &Wanted, standing: &Standing, seen: &Seen, permit: Permit, now: Timestamp) -> Next {
    // A name that would be too long was refused when the domain was added.
    let missing: Vec<_> = wanted
        .aliases()
        .unwrap_or_default()
        .into_iter()
        .filter(|alias| !seen.aliases.contains(alias))
        .collect();
    if !missing.is_empty() && wanted.mode != Mode::None {
        return Next::Do(Step::Delegate(missing));
    }
    if !wanted.rua.is_empty() && wanted.rua != seen.rua {
        return Next::Do(Step::AskForReports(TlsrptRecord::new(wanted.rua.clone())));
    }
    if wanted.mode == Mode::None {
        return retire(wanted, standing, seen, now);
    }
    let Some(policy) = target(wanted, standing, seen, permit, now) else {
        // No MX host is wanted, and none is seen: there is nothing that a policy could name.
        return Next::Done;
    };
    put_up(&policy, wanted, standing, seen, now)
        .or_else(|| move_mail(wanted, standing, seen, now))
        .or_else(|| narrow(standing, seen, now))
        .unwrap_or(if wanted.mode == policy.mode { Next::Done } else { Next::Gate })
}

/// Lets the policy host serve this policy and the record announce it.
fn put_up(
    policy: &Policy,
    wanted: &Wanted,
    standing: &Standing,
    seen: &Seen,
    now: Timestamp,
) -> Option<Next> {
    if let Some(place) = wanted.policy_host.as_ref().filter(|place| !points_to(seen, place)) {
        return Some(Next::Do(Step::PointPolicyHost(place.clone())));
    }
    let is_served = seen.served.as_ref().is_some_and(|served| Promise::from(served).is(policy));
    let is_newest = standing.newest().is_some_and(|newest| newest.is(policy));
    if !is_served || !is_newest {
        return Some(Next::Do(Step::Serve(policy.clone())));
    }
    let is_announced = seen.record.is_some() && !standing.announce_due;
    (!is_announced).then(|| {
        if let Some(id) = standing.offered.as_ref().filter(|_| standing.announce_due) {
            return Next::Do(Step::Announce(id.clone()));
        }
        let known = [seen.record.as_ref(), standing.last_id.as_ref()];
        let last = known.into_iter().flatten().max_by_key(|id| id.as_time());
        Next::Do(Step::Announce(PolicyId::at(now, last)))
    })
}

/// New MX hosts first, when no sender refuses them any more; then the old ones may go.
fn move_mail(wanted: &Wanted, standing: &Standing, seen: &Seen, now: Timestamp) -> Option<Next> {
    let exact = wanted.mx.iter().filter_map(|pattern| match pattern {
        MxPattern::Exact(host) => Some(host),
        MxPattern::Wildcard(_) => None,
    });
    let new: Vec<DomainName> = exact.filter(|host| !seen.mx.contains(host)).cloned().collect();
    if !new.is_empty() {
        let free = standing.free_of(|promise| new.iter().any(|host| promise.refuses(host)));
        return Some(match free.filter(|free| *free > now) {
            Some(free) => Next::Wait(free, Waiting::BeforeNewMx),
            None => Next::Do(Step::AddMx(new)),
        });
    }
    let is_wanted = |host: &DomainName| wanted.mx.iter().any(|pattern| pattern.matches(host));
    let old: Vec<DomainName> = seen.mx.iter().filter(|host| !is_wanted(host)).cloned().collect();
    let others_stay = old.len() < seen.mx.len();
    (!wanted.mx.is_empty() && !old.is_empty() && others_stay).then_some(Next::Do(Step::RemoveMx(old)))
}

/// Waits until the first pattern that nobody needs can go; the policy without it is then the target.
fn narrow(standing: &Standing, seen: &Seen, now: Timestamp) -> Option<Next> {
    let times = standing.unused.iter().map(|unused| droppable(unused.since, standing, seen));
    times.filter(|time| *time > now).min().map(|time| Next::Wait(time, Waiting::BeforeNarrowing))
}

/// From when on a pattern can go that is unused since then.
fn droppable(since: Timestamp, standing: &Standing, seen: &Seen) -> Timestamp {
    let enforced = standing.promises.iter().filter(|promise| promise.mode == Mode::Enforce);
    let longest = enforced.map(|promise| promise.max_age).max().unwrap_or(0);
    later(since, seconds(longest.max(seen.mx_ttl)))
}

fn retire(wanted: &Wanted, standing: &Standing, seen: &Seen, now: Timestamp) -> Next {
    let binds = |promise: &Promise| promise.mode != Mode::None;
    let bound = standing.free_of(binds).filter(|free| *free > now);
    let served = seen.served.as_ref().is_some_and(|policy| policy.mode != Mode::None);
    if bound.is_none() && !served {
        // Nobody is bound any more, whether or not a policy can be fetched.
        return match (&seen.record, &seen.served) {
            (Some(_), _) => Next::Do(Step::Withdraw),
            (None, Some(_)) => Next::Do(Step::TakeDown),
            (None, None) => Next::Done,
        };
    }
    let policy =
        Policy { mode: Mode::None, max_age: wanted.max_age_testing, mx: Vec::new(), notes: Vec::new() };
    if let Some(next) = put_up(&policy, wanted, standing, seen, now) {
        return next;
    }
    Next::Wait(bound.unwrap_or(now), Waiting::BeforeRemoval)
}

/// The policy that is to be served now; `None` when there is no MX host to name.
fn target(
    wanted: &Wanted,
    standing: &Standing,
    seen: &Seen,
    permit: Permit,
    now: Timestamp,
) -> Option<Policy> {
    let mode = mode(wanted, standing, seen, permit);
    let max_age = if mode == Mode::Enforce { wanted.max_age_enforce } else { wanted.max_age_testing };
    let mut mx = wanted.mx.clone();
    for host in seen.mx.iter().chain(standing.gone.iter().map(|gone| &gone.host)) {
        if !mx.iter().any(|pattern| pattern.matches(host)) {
            mx.push(MxPattern::Exact(host.clone()));
        }
    }
    let may_go = |pattern: &MxPattern| {
        let unused = standing.unused.iter().find(|unused| unused.pattern == *pattern);
        unused.is_some_and(|unused| droppable(unused.since, standing, seen) <= now)
    };
    for pattern in standing.newest().iter().flat_map(|newest| &newest.mx) {
        if !mx.iter().any(|known| known.covers(pattern)) && !may_go(pattern) {
            mx.push(pattern.clone());
        }
    }
    Policy::new(mode, max_age, mx)
}

/// Enforcement that is there stays; to begin it takes a permit, and testing that was seen.
fn mode(wanted: &Wanted, standing: &Standing, seen: &Seen, permit: Permit) -> Mode {
    let is_in = |mode: Mode| standing.mode.is_some_and(|known| known.mode == mode);
    let enforce = wanted.mode == Mode::Enforce
        && (is_in(Mode::Enforce)
            || permit == Permit::Enforce && is_in(Mode::Testing) && seen.record.is_some());
    if enforce { Mode::Enforce } else { Mode::Testing }
}

/// True when `mta-sts` leads there and nowhere else.
pub(super) fn points_to(seen: &Seen, place: &PolicyHostAt) -> bool {
    let (names, addresses) = &seen.policy_host;
    match place {
        PolicyHostAt::Alias(name) => names.contains(name),
        PolicyHostAt::Addresses(all) => {
            !addresses.is_empty() && addresses.iter().all(|address| all.contains(address))
        }
    }
}

#[cfg(test)]
mod tests;
