//! Carries out plans one step at a time: observe the domain, record the step in the store, carry it out, and observe
//! again until the change is visible. Each step starts from the observed and the stored state, so an interrupted run
//! resumes where it stopped.

use super::desired::DesiredState;
use super::goal::{Fixed, GoalSource};
use super::observe::{LookupError, observe};
use super::observed::ObservedState;
use super::plan::{Permit, PlannedStep, Step, next};
use super::recover::CutOff;
use super::state::{PublishedPolicy, RolloutState};
use super::timeline::Reading;
use super::visible::check_visible;
use crate::publish::{Change, DnsPublisher, Previous, PublishError, Records};
use formats::{DomainName, MxPattern, Policy};
use jiff::Timestamp;
use net::BoxFuture;
use net::clock::Clock;
use net::dns::Dns;
use net::https::PolicyHosts;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::record_changes::ChangeState;
use store::{Store, StoreError};
use tokio::time::{Instant, timeout_at};

/// Publishes policy files at a policy host.
pub trait Hosting: Send + Sync {
    /// Serves `policy` at `mta-sts.DOMAIN` from now on; `None` stops serving a policy. The error is a message for the
    /// operator.
    fn put<'a>(
        &'a self,
        domain: &'a DomainName,
        policy: Option<&'a Policy>,
    ) -> BoxFuture<'a, Result<(), String>>;
}

/// Carries out the steps of plans.
pub struct Applier {
    /// Resolves names; best without caches ([`net::dns::AuthoritativeServers`]).
    pub dns: Arc<dyn Dns>,
    /// Fetches policies as a sender does.
    pub policies: Arc<dyn PolicyHosts>,
    /// Publishes DNS records; `None` when the operator changes them manually.
    pub publisher: Option<Arc<dyn DnsPublisher>>,
    /// Publishes policy files; `None` when the operator publishes them manually.
    pub hosting: Option<Arc<dyn Hosting>>,
    /// Whether MX hosts that appear in DNS are added to the policy.
    pub new_hosts: NewHosts,
    /// Name servers and addresses of the policy host that changes do not wait for
    /// ([`super::decisions::Decisions::omitted_endpoints`]).
    pub omitted: Vec<String>,
    /// Stores the planner's state and the journal: the handle of a lease ([`Store::under`]) where steps are carried out.
    pub store: Store,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
}

/// Handling of MX hosts that appear in DNS but are named neither by the operator nor by the current policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewHosts {
    /// New hosts are added to the policy: an operator is watching, or has allowed it.
    AddToPolicy,
    /// The operator adds them, since anyone able to change the zone could insert their own host.
    LeaveToOperator,
}

/// The result of [`Applier::start_step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// A step was started; [`Applier::verify`] shows whether it is visible.
    Started(Step, Actor),
    /// No step can be taken now.
    Idle(PlannedStep),
}

/// Who carries out a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Sternpost has carried it out.
    Sternpost,
    /// The operator must carry it out.
    Operator,
}

/// Whether to wait until a step is visible from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// Wait; it is an error if the step is not visible in time.
    Await,
    /// Do not wait; a step that is not visible yet is continued in a later run.
    Defer,
}

/// A domain at one moment.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The stored state, which includes what was observed.
    pub rollout: RolloutState,
    /// What was observed.
    pub seen: ObservedState,
    /// The moment, on the time line of `rollout`. Times of `rollout` are compared with this one and with no later reading of
    /// the clock, which may have been set since.
    pub now: Timestamp,
}

/// A step that was carried out and verified from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The step carried out.
    pub step: Step,
    /// The observation that verifies it, for the operator.
    pub proof: String,
}

/// Why applying a plan stopped.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A DNS record could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A change that was cut off can't be ended, so it is not known which records are there.
    #[error(transparent)]
    CutOff(#[from] CutOff),
    /// The policy file could not be published: the domain and the reason.
    #[error("the policy file of {0} can't be published: {1}")]
    Hosting(DomainName, String),
    /// A change is not visible from outside in time.
    #[error("this step was carried out but is not visible from outside: {step} ({seen})")]
    NotSeen {
        /// The step, as text.
        step: String,
        /// What was observed instead.
        seen: String,
    },
    /// The domain could not be observed, since DNS failed.
    #[error("the DNS lookup failed: {0}")]
    Dns(#[from] LookupError),
    /// The plan must not go on: its settings have changed, or another process applies it.
    #[error("the plan was stopped: {0}")]
    Stopped(String),
    /// The plan was not carried out within its time.
    #[error("the plan was not carried out within {} seconds; it resumes where it stopped", .0.as_secs())]
    Deadline(Duration),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change of records, stored before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedChange {
    /// The owner name of the records.
    pub name: DomainName,
    /// The records before the change.
    pub before: Previous,
    /// The records that the change publishes.
    pub after: Records,
    /// The newest policy at the time; `None` if none was published.
    pub policy: Option<PublishedPolicy>,
}

/// How long to wait for a step to become visible, if no publisher sets the time.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two observations while waiting for a step to become visible.
const VERIFY_INTERVAL: Duration = Duration::from_secs(1);

impl Applier {
    /// Observes a domain, and updates its stored state.
    pub fn observe<'a>(
        &'a self,
        desired: &'a DesiredState,
    ) -> BoxFuture<'a, Result<Observation, ApplyError>> {
        Box::pin(async move {
            let seen = self.see(desired).await?;
            let reading = Reading::of(self.clock.as_ref());
            let now = reading.now;
            self.store.put_last_look(&desired.domain, now, &seen.outside).await?;
            self.store.record_mx_hosts(&desired.domain, &seen.mx, now).await?;
            let before: RolloutState = self.store.rollout(&desired.domain).await?.unwrap_or_default();
            let observe = |rollout: &mut RolloutState| {
                rollout.keep_time(&reading);
                rollout.observe(desired, &seen, now);
            };
            let mut rollout = before.clone();
            observe(&mut rollout);
            if rollout != before {
                rollout = self.change(desired, observe).await?;
            }
            self.journal_foreign_changes(desired, &before, &rollout, &seen).await?;
            Ok(Observation { rollout, seen, now })
        })
    }

    async fn see(&self, desired: &DesiredState) -> Result<ObservedState, LookupError> {
        observe(self.dns.as_ref(), self.policies.as_ref(), &desired.domain, &self.omitted).await
    }

    /// Records in the journal the observed changes that Sternpost has not made.
    async fn journal_foreign_changes(
        &self,
        desired: &DesiredState,
        before: &RolloutState,
        after: &RolloutState,
        seen: &ObservedState,
    ) -> Result<(), StoreError> {
        let mut all = Vec::new();
        if after.is_lapsed && !before.is_lapsed {
            let hosts: Vec<&str> = seen.mx.iter().map(DomainName::as_str).collect();
            all.push(format!(
                "the approval of enforcement has ended, since the MX hosts are no longer those that were in testing when it was given: they are {} now",
                hosts.join(", ")
            ));
        }
        if let Some(id) = seen.record.as_ref().filter(|id| before.is_foreign(id)) {
            all.push(format!("_mta-sts has id {id}, which this program has not announced or no longer knows. Senders may hold an enforced policy that is not known"));
        }
        for what in all {
            self.store.journal(&desired.domain, self.clock.now(), "planner", &what).await?;
        }
        Ok(())
    }

    /// Changes the stored state in one transaction, so that a concurrent change, such as an approval, is kept.
    async fn change(
        &self,
        desired: &DesiredState,
        change: impl FnOnce(&mut RolloutState) + Send,
    ) -> Result<RolloutState, StoreError> {
        let mut changed = RolloutState::default();
        let both = |stored: &mut RolloutState| {
            change(stored);
            changed = stored.clone();
        };
        self.store.change_rollout(&desired.domain, both).await?;
        Ok(changed)
    }

    /// Observes the domain and returns the next action, with the state that it follows from. Changes nothing outside, so
    /// it may be interrupted.
    pub fn next_step<'a>(
        &'a self,
        desired: &'a DesiredState,
        permit: Permit,
    ) -> BoxFuture<'a, Result<(PlannedStep, RolloutState), ApplyError>> {
        Box::pin(async move {
            let Observation { rollout, seen, now } = self.observe(desired).await?;
            // The observation may have ended the approval.
            let permit = if rollout.is_lapsed { Permit::Testing } else { permit };
            Ok((next(desired, &rollout, &seen, permit, now), rollout))
        })
    }

    /// Starts a step that [`Self::next_step`] returned, in the state that it returned with it. Should not be interrupted,
    /// since a change of a zone may take several requests. A step that enforces is not started if the operator holds the domain
    /// since then, or if the approval is another one: the outcome is then [`PlannedStep::Gate`].
    pub fn start_step<'a>(
        &'a self,
        desired: &'a DesiredState,
        step: Step,
        rollout: RolloutState,
    ) -> BoxFuture<'a, Result<StepOutcome, ApplyError>> {
        Box::pin(async move {
            if let (Step::Serve(policy), NewHosts::LeaveToOperator) = (&step, self.new_hosts)
                && names_new(policy, desired, &rollout)
            {
                return Ok(StepOutcome::Started(step, Actor::Operator));
            }
            let mut is_forbidden = false;
            let rollout = match &step {
                Step::Serve(policy) => {
                    let intend = |kept: &mut RolloutState| {
                        is_forbidden = kept.forbids(policy.mode, &rollout);
                        if !is_forbidden {
                            kept.intend(policy);
                        }
                    };
                    self.change(desired, intend).await?
                }
                Step::Announce(id) => {
                    let offer = |kept: &mut RolloutState| {
                        is_forbidden =
                            kept.newest().is_some_and(|newest| kept.forbids(newest.mode, &rollout));
                        if !is_forbidden {
                            kept.offer(id);
                        }
                    };
                    self.change(desired, offer).await?
                }
                _ => rollout,
            };
            if is_forbidden {
                return Ok(StepOutcome::Idle(PlannedStep::Gate));
            }
            let actor = self.carry_out(desired, &step, &rollout).await?;
            Ok(StepOutcome::Started(step, actor))
        })
    }

    /// Checks whether a step is visible from outside, and records it in the journal if so. The inner error says what
    /// was observed instead.
    pub fn verify<'a>(
        &'a self,
        desired: &'a DesiredState,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<Result<Applied, String>, ApplyError>> {
        Box::pin(async move {
            let seen = match self.observe(desired).await {
                Ok(Observation { seen, .. }) => seen,
                Err(ApplyError::Dns(error)) => return Ok(Err(error.to_string())),
                Err(error) => return Err(error),
            };
            if let Err(instead) = check_visible(desired, step, &seen) {
                return Ok(Err(instead));
            }
            self.store.journal(&desired.domain, self.clock.now(), "planner", &step.to_string()).await?;
            Ok(Ok(Applied { step: step.clone(), proof: step.proof() }))
        })
    }

    /// Takes all steps that can be taken now without the operator, for this goal, in any time. See
    /// [`Self::run_towards`].
    pub fn run<'a>(
        &'a self,
        desired: &'a DesiredState,
        permit: Permit,
        verification: Verification,
    ) -> BoxFuture<'a, Result<(Vec<Applied>, PlannedStep), ApplyError>> {
        Box::pin(async move {
            let fixed = Fixed { desired: desired.clone(), permit };
            self.run_towards(&fixed, verification, None).await
        })
    }

    /// Takes all steps that can be taken now without the operator. Returns these steps, and the next action. The goal is
    /// asked for again before each step. After `limit`, no further step is begun, and one that has begun is not awaited.
    pub fn run_towards<'a>(
        &'a self,
        goals: &'a dyn GoalSource,
        verification: Verification,
        limit: Option<Duration>,
    ) -> BoxFuture<'a, Result<(Vec<Applied>, PlannedStep), ApplyError>> {
        Box::pin(async move {
            let time =
                Limit { end: limit.map(|limit| Instant::now() + limit), all: limit.unwrap_or_default() };
            let mut applied = Vec::new();
            self.recover(&goals.current().await?.desired).await?;
            loop {
                let goal = goals.current().await?;
                let step = match time.bound(self.next_step(&goal.desired, goal.permit)).await? {
                    (PlannedStep::Do(step), rollout) => {
                        // Observing takes its time, in which the operator may have decided something else.
                        if goals.current().await? != goal {
                            continue;
                        }
                        match self.start_step(&goal.desired, step, rollout).await? {
                            StepOutcome::Idle(next) => return Ok((applied, next)),
                            StepOutcome::Started(step, Actor::Operator) => {
                                return Ok((applied, PlannedStep::Do(step)));
                            }
                            StepOutcome::Started(step, Actor::Sternpost) => step,
                        }
                    }
                    (rest, _) => return Ok((applied, rest)),
                };
                match verification {
                    Verification::Await => {
                        applied.push(time.bound(self.await_visible(&goal.desired, &step)).await?);
                    }
                    Verification::Defer => match time.bound(self.verify(&goal.desired, &step)).await? {
                        Ok(done) => applied.push(done),
                        Err(_) => return Ok((applied, PlannedStep::Do(step))),
                    },
                }
            }
        })
    }

    /// Observes the domain until the step is visible or the time is up: other programs and name servers may delay it.
    async fn await_visible(&self, desired: &DesiredState, step: &Step) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let timeout = self.publisher.as_ref().map_or(VERIFY_TIMEOUT, |publisher| publisher.patience());
        loop {
            match self.verify(desired, step).await? {
                Ok(applied) => return Ok(applied),
                Err(seen) if started.elapsed() > timeout => {
                    return Err(ApplyError::NotSeen { step: step.to_string(), seen });
                }
                Err(_) => tokio::time::sleep(VERIFY_INTERVAL).await,
            }
        }
    }

    async fn carry_out(
        &self,
        desired: &DesiredState,
        step: &Step,
        rollout: &RolloutState,
    ) -> Result<Actor, ApplyError> {
        let domain = &desired.domain;
        let policy = match step {
            Step::Serve(policy) => Some(policy.clone()),
            // The new policy host must serve the current policy from the first moment.
            Step::PointPolicyHost(_) => {
                let now: RolloutState = self.store.rollout(domain).await?.unwrap_or_default();
                now.present(rollout).map(Into::into)
            }
            _ => None,
        };
        if let Some(hosting) = self.hosting.as_ref().filter(|_| policy.is_some() || *step == Step::TakeDown) {
            let published = hosting.put(domain, policy.as_ref()).await;
            published.map_err(|why| ApplyError::Hosting(domain.clone(), why))?;
        }
        match Change::of(desired, step)? {
            Some(change) => self.publish(domain, &change, rollout).await,
            None if matches!(step, Step::Serve(_) | Step::TakeDown) && self.hosting.is_some() => {
                Ok(Actor::Sternpost)
            }
            None => Ok(Actor::Operator),
        }
    }

    async fn publish(
        &self,
        domain: &DomainName,
        change: &Change,
        rollout: &RolloutState,
    ) -> Result<Actor, ApplyError> {
        let Some(publisher) = &self.publisher else { return Ok(Actor::Operator) };
        let before = publisher.read(change).await?;
        if before.is(&change.records) {
            return Ok(Actor::Sternpost);
        }
        self.make(domain, change, before.clone(), rollout.newest().cloned(), ChangeState::Done).await?;
        if !before.lines.is_empty() {
            let what = format!("replaced {}", before.lines.join(" and "));
            self.store.journal(domain, self.clock.now(), "planner", &what).await?;
        }
        Ok(Actor::Sternpost)
    }

    /// Makes a change, which is stored before, and after it in the state `then`. A change that failed stays begun,
    /// since it may have been made in part; the next run recovers it ([`Self::recover`]).
    pub(super) async fn make(
        &self,
        domain: &DomainName,
        change: &Change,
        before: Previous,
        policy: Option<PublishedPolicy>,
        then: ChangeState,
    ) -> Result<(), ApplyError> {
        let Some(publisher) = &self.publisher else { return Ok(()) };
        let (name, after) = (change.name.clone(), change.records.clone());
        let recorded = RecordedChange { name, before, after, policy };
        let id = self.store.begin_record_change(domain, self.clock.now(), &recorded).await?;
        // A process that stood still since then leaves the change to the one that has the lease now.
        self.store.check_lease()?;
        let made = publisher.put(change, &recorded.before).await;
        let state = match &made {
            Ok(()) => then,
            Err(error) if error.is_conflict || error.is_unmade => ChangeState::Unmade,
            Err(_) => ChangeState::Begun,
        };
        self.store.set_record_change(id, state).await?;
        Ok(made?)
    }
}

/// The time that a plan may take.
struct Limit {
    end: Option<Instant>,
    all: Duration,
}

impl Limit {
    /// Gives up work that can be interrupted when the time is over.
    async fn bound<T>(&self, work: impl Future<Output = Result<T, ApplyError>>) -> Result<T, ApplyError> {
        match self.end {
            Some(end) => timeout_at(end, work).await.unwrap_or(Err(ApplyError::Deadline(self.all))),
            None => work.await,
        }
    }
}

/// Whether the policy names a host that neither the operator nor the previous policy names.
fn names_new(policy: &Policy, desired: &DesiredState, rollout: &RolloutState) -> bool {
    let Some(newest) = rollout.newest() else { return false };
    let known = |pattern: &MxPattern| desired.mx.iter().chain(&newest.mx).any(|known| known.covers(pattern));
    !policy.mx.iter().all(known)
}
