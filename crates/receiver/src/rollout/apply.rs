//! Carries plans out, one turn after the other: look, record what is about to be done, do it, and look
//! again until it shows. A turn begins from what is seen and remembered, so whoever was interrupted goes
//! on where he was.

use super::desired::DesiredState;
use super::look::look;
use super::observed::ObservedState;
use super::plan::{Permit, PlannedStep, Step, next};
use super::state::{PublishedPolicy, RolloutState};
use crate::publish::{Change, DnsPublisher, PublishError};
use formats::{DomainName, Mode, MxPattern, Policy};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::{Dns, DnsError};
use net::https::PolicyHosts;
use std::sync::Arc;
use std::time::Duration;
use store::{Store, StoreError};
use tokio::time::Instant;

/// Puts policy files where senders fetch them.
pub trait Hosting: Send + Sync {
    /// Serves `policy` at `mta-sts.DOMAIN` from now on; with `None`, no longer anything.
    fn put<'a>(
        &'a self,
        domain: &'a DomainName,
        policy: Option<&'a Policy>,
    ) -> BoxFuture<'a, Result<(), String>>;
}

/// Carries plans out.
pub struct Applier {
    /// Looks from outside, best past all caches ([`net::dns::Authorities`]).
    pub dns: Arc<dyn Dns>,
    /// Fetches from outside.
    pub policies: Arc<dyn PolicyHosts>,
    /// Where records are put; nothing when the operator does that by hand.
    pub publisher: Option<Arc<dyn DnsPublisher>>,
    /// Where files are put; nothing when the operator does that by hand.
    pub hosting: Option<Arc<dyn Hosting>>,
    /// What becomes of MX hosts that DNS shows and that nobody has named yet.
    pub new_hosts: NewHosts,
    /// Where the standing and the journal are kept.
    pub store: Store,
    /// When.
    pub clock: Arc<dyn Clock>,
}

/// MX hosts that DNS shows, and that neither the operator nor the policy so far names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewHosts {
    /// Taken into the policy: somebody looks on, or has allowed it.
    AddToPolicy,
    /// Left to the operator, since whoever can write to the zone could name a host of his own.
    LeaveToOperator,
}

/// What a turn has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// A step was begun; [`Applier::verify`] says when it shows.
    Started(Step, Actor),
    /// There is nothing to do now.
    Idle(PlannedStep),
}

/// Whose hand a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// It is done.
    Sternpost,
    /// The operator has to do it.
    Operator,
}

/// Whether a step is waited for until it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// For a while; it is an error when it does not show then.
    Await,
    /// Not at all: what does not show yet is taken up again another time.
    Defer,
}

/// A step that was carried out and seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The step.
    pub step: Step,
    /// What proves it.
    pub proof: String,
}

/// Why a plan stopped.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A record can't be put.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A file can't be put.
    #[error("the policy file of {0} can't be put up: {1}")]
    Hosting(DomainName, String),
    /// What was put is not seen from outside.
    #[error("{step} was done, and is not seen from outside: {seen}")]
    NotSeen {
        /// The step.
        step: String,
        /// What is seen instead.
        seen: String,
    },
    /// Looking failed.
    #[error("looking from outside: {0}")]
    Dns(#[from] DnsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How long a step that is no record has to show, and between two looks.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(30);
const VERIFY_INTERVAL: Duration = Duration::from_secs(1);

impl Applier {
    /// What is seen of a domain now, and how it stands.
    pub fn look<'a>(
        &'a self,
        wanted: &'a DesiredState,
    ) -> BoxFuture<'a, Result<(RolloutState, ObservedState), ApplyError>> {
        Box::pin(async move {
            let seen = look(self.dns.as_ref(), self.policies.as_ref(), &wanted.domain).await?;
            let now = self.clock.now();
            let before: RolloutState = self.store.rollout(&wanted.domain).await?.unwrap_or_default();
            let mut rollout = before.clone();
            rollout.observe(wanted, &seen, now);
            if rollout != before {
                rollout = self.change(wanted, |kept| kept.observe(wanted, &seen, now)).await?;
            }
            Ok((rollout, seen))
        })
    }

    /// Changes what is kept as it is by now: an approval that came meanwhile stays.
    async fn change(
        &self,
        wanted: &DesiredState,
        change: impl FnOnce(&mut RolloutState) + Send,
    ) -> Result<RolloutState, StoreError> {
        let mut changed = RolloutState::default();
        let both = |kept: &mut RolloutState| {
            change(kept);
            changed = kept.clone();
        };
        self.store.change_rollout(&wanted.domain, both).await?;
        Ok(changed)
    }

    /// Takes the next step, if there is one that can be taken now.
    pub fn take_step<'a>(
        &'a self,
        wanted: &'a DesiredState,
        permit: Permit,
    ) -> BoxFuture<'a, Result<StepOutcome, ApplyError>> {
        Box::pin(async move {
            let (rollout, seen) = self.look(wanted).await?;
            let step = match next(wanted, &rollout, &seen, permit, self.clock.now()) {
                PlannedStep::Do(step) => step,
                rest => return Ok(StepOutcome::Idle(rest)),
            };
            if let (Step::Serve(policy), NewHosts::LeaveToOperator) = (&step, self.new_hosts)
                && names_new(policy, wanted, &rollout)
            {
                return Ok(StepOutcome::Started(step, Actor::Operator));
            }
            let rollout = match &step {
                Step::Serve(policy) => self.change(wanted, |kept| kept.intend(policy)).await?,
                Step::Announce(id) => self.change(wanted, |kept| kept.offer(id)).await?,
                _ => rollout,
            };
            let hand = self.carry_out(wanted, &step, &rollout).await?;
            Ok(StepOutcome::Started(step, hand))
        })
    }

    /// What proves the step, or what is seen instead.
    pub fn verify<'a>(
        &'a self,
        wanted: &'a DesiredState,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Result<Applied, String>, ApplyError>> {
        Box::pin(async move {
            let seen = match self.look(wanted).await {
                Ok((_, seen)) => seen,
                Err(ApplyError::Dns(error)) => return Ok(Err(error.to_string())),
                Err(error) => return Err(error),
            };
            if let Err(instead) = shows(step, &seen) {
                return Ok(Err(instead));
            }
            self.store.journal(&wanted.domain, self.clock.now(), "planner", &step.to_string()).await?;
            Ok(Ok(Applied { step: step.clone(), proof: step.proof() }))
        })
    }

    /// Takes every step that can be taken now without anybody's help.
    pub fn run<'a>(
        &'a self,
        wanted: &'a DesiredState,
        permit: Permit,
        waiting: Verification,
    ) -> BoxFuture<'a, Result<(Vec<Applied>, PlannedStep), ApplyError>> {
        Box::pin(async move {
            let mut applied = Vec::new();
            loop {
                let step = match self.take_step(wanted, permit).await? {
                    StepOutcome::Idle(next) => return Ok((applied, next)),
                    StepOutcome::Started(step, Actor::Operator) => {
                        return Ok((applied, PlannedStep::Do(step)));
                    }
                    StepOutcome::Started(step, Actor::Sternpost) => step,
                };
                match waiting {
                    Verification::Await => applied.push(self.see(wanted, &step).await?),
                    Verification::Defer => match self.verify(wanted, &step).await? {
                        Ok(done) => applied.push(done),
                        Err(_) => return Ok((applied, PlannedStep::Do(step))),
                    },
                }
            }
        })
    }

    /// Looks until the step shows, for a while: what was put shows a moment later where it passes through
    /// another program or name server.
    async fn see(&self, wanted: &DesiredState, step: &Step) -> Result<Applied, ApplyError> {
        let begun = Instant::now();
        let patience = self.publisher.as_ref().map_or(VERIFY_TIMEOUT, |publisher| publisher.patience());
        loop {
            match self.verify(wanted, step).await? {
                Ok(applied) => return Ok(applied),
                Err(seen) if begun.elapsed() > patience => {
                    return Err(ApplyError::NotSeen { step: step.to_string(), seen });
                }
                Err(_) => tokio::time::sleep(VERIFY_INTERVAL).await,
            }
        }
    }

    async fn carry_out(
        &self,
        wanted: &DesiredState,
        step: &Step,
        rollout: &RolloutState,
    ) -> Result<Actor, ApplyError> {
        let domain = &wanted.domain;
        let policy = match step {
            Step::Serve(policy) => Some(policy.clone()),
            // What senders find there goes on from the first moment.
            Step::PointPolicyHost(_) => rollout.newest().filter(|newest| !newest.assumed).map(Into::into),
            _ => None,
        };
        if let Some(hosting) = self.hosting.as_ref().filter(|_| policy.is_some() || *step == Step::TakeDown) {
            let put = hosting.put(domain, policy.as_ref()).await;
            put.map_err(|why| ApplyError::Hosting(domain.clone(), why))?;
        }
        match Change::of(wanted, step)? {
            Some(change) => self.publish(domain, &change).await,
            None if matches!(step, Step::Serve(_) | Step::TakeDown) && self.hosting.is_some() => {
                Ok(Actor::Sternpost)
            }
            None => Ok(Actor::Operator),
        }
    }

    async fn publish(&self, domain: &DomainName, change: &Change) -> Result<Actor, ApplyError> {
        let Some(publisher) = &self.publisher else { return Ok(Actor::Operator) };
        let before = publisher.put(change).await?;
        if !before.is_empty() && before != change.lines() {
            let what = format!("in place of {}", before.join(" and of "));
            self.store.journal(domain, self.clock.now(), "planner", &what).await?;
        }
        Ok(Actor::Sternpost)
    }
}

/// Whether the policy names a host that neither the operator nor the policy before it does.
fn names_new(policy: &Policy, wanted: &DesiredState, rollout: &RolloutState) -> bool {
    let Some(newest) = rollout.newest() else { return false };
    let known = |pattern: &MxPattern| wanted.mx.iter().chain(&newest.mx).any(|known| known.covers(pattern));
    !policy.mx.iter().all(known)
}

/// Whether the step shows; if not, what is seen instead.
fn shows(step: &Step, seen: &ObservedState) -> Result<(), String> {
    let served = || match (&seen.served, &seen.unserved) {
        (Some(policy), _) => format!("a sender fetches mode {} with max_age {}", policy.mode, policy.max_age),
        (None, why) => why.clone().unwrap_or("no policy is fetched".to_owned()),
    };
    let mx = || {
        let hosts: Vec<&str> = seen.mx.iter().map(DomainName::as_str).collect();
        format!("the MX hosts are {}", if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") })
    };
    let (holds, instead): (bool, String) = match step {
        Step::PointPolicyHost(place) => {
            let (names, addresses) = &seen.policy_host;
            let shown =
                names.iter().map(ToString::to_string).chain(addresses.iter().map(ToString::to_string));
            let shown = shown.collect::<Vec<_>>().join(", ");
            (
                seen.points_to(place),
                format!("mta-sts leads to {}", if shown.is_empty() { "nothing" } else { &shown }),
            )
        }
        Step::Serve(policy) => {
            let is_it = |served: &Policy| PublishedPolicy::from(served).is(policy);
            (seen.served.as_ref().is_some_and(is_it), served())
        }
        Step::AskForReports(record) => {
            (seen.rua == record.rua, format!("{} report targets are found", seen.rua.len()))
        }
        Step::Announce(id) => {
            let shown = seen.record.as_ref().map_or("no id".to_owned(), |seen| format!("id {seen}"));
            (seen.record.as_ref() == Some(id), format!("{shown} is found"))
        }
        Step::Delegate(aliases) => {
            let missing: Vec<&str> = aliases
                .iter()
                .filter(|alias| !seen.aliases.contains(alias))
                .map(|(name, _)| name.as_str())
                .collect();
            (missing.is_empty(), format!("{} is no such alias", missing.join(", ")))
        }
        Step::AddMx(hosts) => (hosts.iter().all(|host| seen.mx.contains(host)), mx()),
        Step::RemoveMx(hosts) => (!hosts.iter().any(|host| seen.mx.contains(host)), mx()),
        Step::Withdraw => (seen.record.is_none(), "the record is still there".to_owned()),
        Step::TakeDown => {
            let gone = seen.served.as_ref().is_none_or(|policy| policy.mode != Mode::None);
            (gone, "it can still be fetched".to_owned())
        }
    };
    if holds { Ok(()) } else { Err(instead) }
}
