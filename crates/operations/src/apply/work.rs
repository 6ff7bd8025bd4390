//! The plan of one domain: takes its steps one after another under the domain's lease, waits until each is visible from outside,
//! and says what it does.

use super::instruction::instruction;
use super::{DoneStep, Lines, Outcome, Request, in_words};
use crate::domain_plan::{blocked, evidence_in_words, too_large, unmailed, why};
use crate::goal::CurrentGoal;
use crate::leases::DomainLease;
use crate::rollout_context::{RolloutContext, apply_failure, store_failure};
use config::failure::Failure;
use formats::Mode;
use jiff::Timestamp;
use net::https::policy_host;
use receiver::domain::{DomainSpec, HostedBy};
use receiver::rollout::desired::DesiredState;
use receiver::rollout::goal::GoalSource;
use receiver::rollout::outside::Outside;
use receiver::rollout::plan::{PlannedStep, Step};
use receiver::rollout::{Actor, Applier, ApplyError, RolloutState, StepOutcome};
use std::time::{Duration, Instant};
use store::leases::Lease;
use tokio_util::sync::CancellationToken;

/// Time between two attempts to verify a step.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Time between two lines about a step that is not visible yet, and between two questions whether the lease is still held.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Why the work on a domain ended before its outcome.
enum Stop {
    /// It failed.
    Failed(Failure),
    /// By a signal.
    Interrupted,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How long a round waits for a step of this program to become visible.
const OWN_PATIENCE: Duration = Duration::from_secs(20);

/// How long the work on a domain may wait for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It is the only domain: it waits as long as the request says.
    Alone,
    /// The work is done in rounds, as for many domains or by the API: it waits only for steps of this program, for a short time.
    /// The first round does what the operator asked for although nothing has changed.
    Round {
        /// True in the first round.
        is_first: bool,
    },
}

impl Pace {
    fn is_first(self) -> bool {
        match self {
            Self::Alone => true,
            Self::Round { is_first } => is_first,
        }
    }

    fn is_round(self) -> bool {
        matches!(self, Self::Round { .. })
    }
}

/// The work on one domain.
pub struct Work<'a> {
    context: &'a RolloutContext,
    spec: &'a DomainSpec,
    request: &'a Request,
    lines: &'a Lines<'a>,
    /// Writes under the lease.
    applier: Applier,
    desired: DesiredState,
    lease: DomainLease,
    /// Cancelled by a signal.
    stop: CancellationToken,
    pace: Pace,
}

impl<'a> Work<'a> {
    /// Acquires the domain's lease, so that no other process applies its plan. [`Work::run`] releases it. When `stop` is
    /// cancelled, the work ends before its next change.
    ///
    /// # Errors
    ///
    /// If another process has the lease, or if the settings for publishing are not valid.
    pub async fn begin(
        context: &'a RolloutContext,
        spec: &'a DomainSpec,
        request: &'a Request,
        lines: &'a Lines<'a>,
        stop: CancellationToken,
        pace: Pace,
    ) -> Result<Self, Failure> {
        // Fails before the lease is taken from another process.
        context.applier(spec)?;
        let takes_over = request.take_over && pace.is_first();
        let taken = if takes_over { context.take_over(&spec.name).await? } else { None };
        let (lease, other) = match taken {
            Some((lease, other)) => (lease, Some(other)),
            None => (acquired(context, spec).await?, None),
        };
        let (applier, desired) = (context.applier_under(spec, &lease)?, context.desired(spec));
        let work = Self { context, spec, request, lines, applier, desired, lease, stop, pace };
        if let Some(other) = other {
            work.print(&format!("{}: the lease was taken from {}.", spec.name, shown(&other)));
        }
        Ok(work)
    }

    /// How long to wait for a step.
    fn patience(&self, actor: Actor) -> Duration {
        let most = self.request.patience;
        match (self.pace, actor) {
            (Pace::Alone, _) => most,
            (Pace::Round { .. }, Actor::Operator) => Duration::ZERO,
            (Pace::Round { .. }, Actor::Sternpost) => most.min(OWN_PATIENCE),
        }
    }

    /// Takes the steps, and releases the lease.
    ///
    /// # Errors
    ///
    /// If a step fails, or if the store does.
    pub async fn run(&self) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new(&self.spec.name);
        let result = match self.made_due().await {
            Ok(()) => self.all_steps(&mut outcome).await,
            Err(failure) => Err(Stop::Failed(failure)),
        };
        let released = self.context.release(&self.lease).await;
        let last = self.context.store.last_look(&self.spec.name).await;
        outcome.outside = last.map_err(|error| store_failure(&error))?.map(|(_, seen)| seen);
        match result {
            Ok(()) => {}
            Err(Stop::Failed(failure)) => return Err(failure),
            Err(Stop::Interrupted) => {
                outcome.rest = "interrupted";
                self.print(&format!(
                    "  {} interrupted. `sternpost apply {}` resumes here.",
                    self.lines.info, self.spec.name
                ));
            }
        }
        released.map(|()| outcome)
    }

    /// Runs something that may be given up at any moment, until a signal arrives.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Stop::Interrupted),
            done = work => Ok(done),
        }
    }

    /// Makes due what the operator asked for although nothing has changed.
    async fn made_due(&self) -> Result<(), Failure> {
        let (domain, store) = (&self.spec.name, &self.applier.store);
        if !self.pace.is_first() {
            return Ok(());
        }
        if self.request.new_certificate {
            self.order_again().await?;
        }
        if self.request.new_id {
            let due = |rollout: &mut RolloutState| (rollout.announce_due, rollout.offered) = (true, None);
            store.change_rollout(domain, due).await.map_err(|error| store_failure(&error))?;
        }
        Ok(())
    }

    async fn order_again(&self) -> Result<(), Failure> {
        let domain = &self.spec.name;
        let host = policy_host(domain).map_err(|error| Failure::usage(domain.to_string(), error, ""))?;
        let now = self.context.world.clock.now();
        let renewed = self.applier.store.renew_certificate(&host, now).await;
        match renewed.map_err(|error| store_failure(&error))? {
            true => {
                self.print(&format!("{host}: `sternpost serve` orders a new certificate within seconds."));
                Ok(())
            }
            // Of all domains, those count whose certificate Sternpost has ordered.
            false if self.request.is_for_all => Ok(()),
            false => Err(Failure::usage(
                format!("a new certificate for {host} can't be ordered"),
                "Sternpost has not ordered the one in use",
                format!(
                    "Order it with the ACME client of your web server, such as\n  certbot certonly --force-renewal --new-key -d {host}"
                ),
            )),
        }
    }

    /// Renews the lease.
    async fn renew(&self) -> Result<(), Failure> {
        match self.context.renew(&self.lease).await? {
            true => Ok(()),
            false => Err(in_use(self.context, self.spec).await?),
        }
    }

    /// Takes all steps that can be taken, and writes each into the outcome.
    async fn all_steps(&self, outcome: &mut Outcome) -> Result<(), Stop> {
        self.print(&format!("{}", self.spec.name));
        self.renew().await?;
        for what in self.applier.recover(&self.desired).await.map_err(|error| self.failed(&error))? {
            outcome.changed = true;
            self.print(&format!("  {} {what}", self.lines.info));
        }
        let goals = CurrentGoal::new(self.context, self.spec, &self.lease);
        loop {
            self.renew().await?;
            if self.context.promote_by_evidence(self.spec).await? {
                outcome.changed = true;
                self.print(&format!(
                    "  {} the evidence is sufficient, and auto_promote allows enforcement",
                    self.lines.fine
                ));
            }
            let rollout = self.context.rollout(&self.spec.name).await?;
            // The operator may change the settings or hold the domain while this waits.
            let goal = match goals.current().await {
                Err(ApplyError::Stopped(why)) => {
                    self.stop_changed(outcome, why);
                    return Ok(());
                }
                goal => goal.map_err(|error| self.failed(&error))?,
            };
            let next = self.unless_stopped(self.applier.next_step(&goal.desired, goal.permit)).await?;
            let (next, state) = next.map_err(|error| self.failed(&error))?;
            match next {
                PlannedStep::Do(step) => {
                    if !matches!(goals.current().await, Ok(now) if now == goal) {
                        continue;
                    }
                    let started = self.applier.start_step(&goal.desired, step, state).await;
                    let started = match started {
                        Err(ApplyError::Publish(error)) if error.is_conflict => {
                            self.print(&format!(
                                "  {} {error}.\n    Check what the other program changed, then run `sternpost apply {}` again.",
                                self.lines.warning,
                                self.spec.name
                            ));
                            (outcome.rest, outcome.missing) = ("changed", Some(error.to_string()));
                            return Ok(());
                        }
                        started => started.map_err(|error| self.failed(&error))?,
                    };
                    let StepOutcome::Started(step, actor) = started else { continue };
                    outcome.changed |= actor == Actor::Sternpost;
                    match self.await_visible(&step, actor).await? {
                        Ok(proof) => outcome.done.push(DoneStep { step: step.to_string(), proof }),
                        Err(missing) => {
                            (outcome.rest, outcome.missing) = ("unseen", Some(missing));
                            return Ok(());
                        }
                    }
                }
                PlannedStep::Wait(until, waiting)
                    if self.request.wait && matches!(self.pace, Pace::Alone) =>
                {
                    self.print(&format!(
                        "  {} waiting until {until:.0}: {}. You can leave with Ctrl-C; `sternpost apply {}` resumes here.",
                        self.lines.info,
                        why(waiting),
                        self.spec.name
                    ));
                    self.sleep_until(until).await?;
                }
                PlannedStep::Wait(until, waiting) => {
                    let then = match self.request.wait {
                        true => String::new(),
                        false => format!("\n    Run `sternpost apply {}` again then.", self.spec.name),
                    };
                    self.print(&format!(
                        "  {} nothing to do before {until:.0}: {}.{then}",
                        self.lines.info,
                        why(waiting)
                    ));
                    (outcome.rest, outcome.until) = ("wait", Some(until.to_string()));
                    outcome.resumes = Some(until);
                    return Ok(());
                }
                PlannedStep::Gate => {
                    let (_, gate) = self.context.gate(&self.spec.name, &rollout).await?;
                    self.print(&format!(
                        "  {} in testing. {}",
                        self.lines.info,
                        evidence_in_words(&self.spec.name, &gate, self.spec.auto_promote)
                            .replace('\n', "\n    ")
                    ));
                    outcome.rest = "evidence";
                    return Ok(());
                }
                PlannedStep::Blocked(hosts) => {
                    self.stop_blocked(outcome, blocked(&hosts));
                    return Ok(());
                }
                PlannedStep::TooLarge(size) => {
                    self.stop_blocked(outcome, too_large(size));
                    return Ok(());
                }
                PlannedStep::NoMailHosts(found) => {
                    self.stop_blocked(outcome, unmailed(&self.spec.name, found));
                    return Ok(());
                }
                PlannedStep::Done => {
                    self.print(&format!(
                        "  {} in the desired state: mode {}",
                        self.lines.fine,
                        self.mode(goal.desired.mode)
                    ));
                    return Ok(());
                }
            }
        }
    }

    /// Ends since the plan is no longer the one that was begun.
    fn stop_changed(&self, outcome: &mut Outcome, why: String) {
        self.print(&format!(
            "  {} stopped: {why}.\n    Run `sternpost apply {}` again.",
            self.lines.warning, self.spec.name
        ));
        (outcome.rest, outcome.missing) = ("changed", Some(why));
    }

    /// Ends where only the operator can go on.
    fn stop_blocked(&self, outcome: &mut Outcome, why: String) {
        self.print(&format!("  {} {}", self.lines.warning, why.replace('\n', "\n    ")));
        (outcome.rest, outcome.missing) = ("blocked", Some(why));
    }

    fn failed(&self, error: &ApplyError) -> Failure {
        apply_failure(&self.spec.name, &self.context.config, error)
    }

    /// The mode that the plan leads to, and what keeps the domain from the configured one.
    fn mode(&self, mode: Mode) -> String {
        let domain = &self.spec.name;
        match mode == self.spec.mode {
            true => mode.to_string(),
            false => format!("{mode}, since the domain is held; `sternpost promote {domain}` ends that"),
        }
    }

    /// Waits until a step is visible from outside. The inner error is what was observed instead until the time was up.
    async fn await_visible(&self, step: &Step, actor: Actor) -> Result<Result<String, String>, Stop> {
        self.print(&format!("  {} {step}", self.lines.info));
        if actor == Actor::Operator {
            let challenge = self.context.challenge_alias(self.spec);
            self.print(&instruction(self.spec, &self.desired, challenge.as_slice(), step));
        }
        let (begun, mut reported) = (Instant::now(), Instant::now());
        let mut printed = None;
        loop {
            let proven = self.unless_stopped(self.applier.verify(&self.desired, step)).await?;
            let instead = match proven.map_err(|error| self.failed(&error))? {
                Ok(applied) => {
                    self.print(&format!("  {} {}", self.lines.fine, applied.proof));
                    return Ok(Ok(applied.proof));
                }
                Err(instead) => self.with_order(step, instead).await,
            };
            if begun.elapsed() >= self.patience(actor) {
                if self.pace.is_round() {
                    self.print(&format!("    not yet: {instead}"));
                    return Ok(Err(instead));
                }
                self.print_servers().await?;
                self.print(&format!(
                    "  {} not visible after {}: {instead}.\n    Run `sternpost apply {}` again when it is: it resumes here.",
                    self.lines.warning, in_words(self.request.patience.as_secs()), self.spec.name
                ));
                return Ok(Err(instead));
            }
            if printed.is_none() && matches!(self.pace, Pace::Alone) {
                self.print(&format!(
                    "    waiting until {}: checked every {} seconds, for up to {}.\n    You can leave with Ctrl-C; `sternpost apply {}` resumes here.",
                    step.proof(),
                    POLL_INTERVAL.as_secs(),
                    in_words(self.request.patience.as_secs()),
                    self.spec.name
                ));
            }
            let is_due = reported.elapsed() >= REPORT_INTERVAL;
            if is_due {
                reported = Instant::now();
                self.renew().await?;
            }
            if is_due || printed.as_ref() != Some(&instead) {
                let after = begun.elapsed().as_secs();
                self.print(&match after {
                    0..10 => format!("    not yet: {instead}"),
                    _ => format!("    not yet, after {}: {instead}", in_words(after)),
                });
                printed = Some(instead);
            }
            self.unless_stopped(tokio::time::sleep(POLL_INTERVAL)).await?;
        }
    }

    /// What was observed instead of a step's result, with the reason why the policy host has no certificate, if that is it.
    async fn with_order(&self, step: &Step, instead: String) -> String {
        if !matches!(step, Step::Serve(_)) || self.spec.host != HostedBy::Sternpost {
            return instead;
        }
        let Ok(host) = policy_host(&self.spec.name) else { return instead };
        let stored = self.context.store.certificate(&host).await.ok().flatten();
        let now = self.context.world.clock.now();
        match stored.filter(|stored| stored.chain.is_empty() || stored.expires_at <= now) {
            Some(stored) if !stored.problem.is_empty() => {
                let problem = stored.problem.replace('\n', "\n    ");
                format!("{instead}\n    It has no certificate: {problem}")
            }
            _ => instead,
        }
    }

    /// Prints what each name server and each address of the policy host shows.
    async fn print_servers(&self) -> Result<(), Failure> {
        let last = self.context.store.last_look::<Outside>(&self.spec.name).await;
        if let Some((_, seen)) = last.map_err(|error| store_failure(&error))? {
            seen.lines().iter().for_each(|line| self.print(&format!("    {line}")));
        }
        Ok(())
    }

    async fn sleep_until(&self, until: Timestamp) -> Result<(), Stop> {
        let mut renewed = Instant::now();
        while self.context.world.clock.now() < until {
            self.unless_stopped(tokio::time::sleep(POLL_INTERVAL)).await?;
            if renewed.elapsed() >= REPORT_INTERVAL {
                renewed = Instant::now();
                self.renew().await?;
            }
        }
        Ok(())
    }

    fn print(&self, line: &str) {
        (self.lines.print)(line);
    }
}

/// Acquires the lease on a domain.
async fn acquired(context: &RolloutContext, spec: &DomainSpec) -> Result<DomainLease, Failure> {
    match context.hold(&spec.name).await? {
        Some(lease) => Ok(lease),
        None => Err(in_use(context, spec).await?),
    }
}

/// Another process has the lease on a domain.
async fn in_use(context: &RolloutContext, spec: &DomainSpec) -> Result<Failure, Failure> {
    let domain = &spec.name;
    let other = context.other_lease(domain).await?;
    let other = other.map_or("another process".to_owned(), |lease| shown(&lease));
    Ok(Failure::new(
        domain.to_string(),
        format!("its plan is being applied by {other}"),
        format!(
            "Wait until that process has finished; `sternpost serve` with [guard] applies plans too.\nIf it has ended without giving the lease back, take it over:\n  sternpost apply --take-over {domain}"
        ),
    ))
}

/// The process that holds a lease, and how long at most.
fn shown(lease: &Lease) -> String {
    match lease.process() {
        Some((machine, pid)) => {
            format!("process {pid} on {machine}, whose lease ends at {:.0} unless it is renewed", lease.until)
        }
        None => format!("another process, whose lease ends at {:.0} unless it is renewed", lease.until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lease_is_named() {
        let until = Timestamp::from_second(0).unwrap();
        let lease = |holder: &str| shown(&Lease { holder: holder.to_owned(), until });
        assert_eq!(
            lease("mail 7 1 boot/pid 1"),
            "process 7 on mail, whose lease ends at 1970-01-01T00:00:00Z unless it is renewed"
        );
        assert!(lease("old").starts_with("another process"));
    }
}
