//! What follows from a check: a promotion by the evidence, and the steps of the plan that need no person.

use config::GuardConfig;
use operations::RolloutContext;
use operations::goal::CurrentGoal;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::rollout::{Applier, ApplyError, NewHosts, Verification};
use std::time::Duration;
use store::leases::HeldLease;
use tokio::sync::Semaphore;

/// How a continued plan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlanEnd {
    /// The plan ended in time, or there was none.
    InTime,
    /// The plan was given up, since it took too long.
    Late,
}

/// Promotes the domain if the evidence is sufficient, and continues its plan where the configuration allows that.
pub(super) async fn follow(
    context: &RolloutContext,
    config: &GuardConfig,
    spec: &DomainSpec,
    uncovered: bool,
    plans: &Semaphore,
) -> PlanEnd {
    // The operator may have changed the settings or removed the domain since this pass began.
    let spec = match context.current(&spec.name).await {
        Ok(Some((current, _))) => current,
        Ok(None) => return PlanEnd::InTime,
        Err(failure) => {
            tracing::error!(domain = %spec.name, "the settings can't be read: {failure}");
            return PlanEnd::InTime;
        }
    };
    let promoted = context.promote_by_evidence(&spec).await.unwrap_or_else(|failure| {
        tracing::error!(domain = %spec.name, "the domain can't be promoted: {failure}");
        false
    });
    let by_itself = config.apply && spec.host == HostedBy::Sternpost && spec.dns != DnsBy::Hand;
    if !(by_itself || promoted || uncovered && spec.repair) {
        return PlanEnd::InTime;
    }
    // The semaphore is never closed.
    let _place = plans.acquire().await;
    let waiting = if by_itself { Verification::Defer } else { Verification::Await };
    continue_plan(context, &spec, waiting, config.deadline).await
}

/// Carries out the plan up to the first manual step. Adding MX hosts is always safe; enforcement needs a permit. The plan may
/// take as long as a check, and as long as the publisher needs until name servers show a change.
async fn continue_plan(
    context: &RolloutContext,
    spec: &DomainSpec,
    waiting: Verification,
    deadline: Duration,
) -> PlanEnd {
    let domain = &spec.name;
    let lease = match context.hold(domain).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return PlanEnd::InTime,
        Err(failure) => {
            tracing::error!(%domain, "the plan can't be carried out: {failure}");
            return PlanEnd::InTime;
        }
    };
    let end = match context.applier_under(spec, &lease) {
        Ok(applier) => continue_under(context, spec, applier, &lease, waiting, deadline).await,
        Err(failure) => {
            tracing::error!(%domain, "the plan can't be carried out: {failure}");
            PlanEnd::InTime
        }
    };
    if let Err(failure) = context.release(&lease).await {
        tracing::error!(%domain, "{failure}");
    }
    end
}

async fn continue_under(
    context: &RolloutContext,
    spec: &DomainSpec,
    mut applier: Applier,
    lease: &HeldLease,
    waiting: Verification,
    deadline: Duration,
) -> PlanEnd {
    let domain = &spec.name;
    if !spec.repair {
        applier.new_hosts = NewHosts::LeaveToOperator;
    }
    let limit =
        deadline + applier.publisher.as_ref().map_or(Duration::ZERO, |publisher| publisher.patience());
    let goals = CurrentGoal::new(context, spec, lease);
    let outcome = applier.run_towards(&goals, waiting, Some(limit)).await;
    let end = match &outcome {
        Err(ApplyError::Deadline(_)) => PlanEnd::Late,
        _ => PlanEnd::InTime,
    };
    match outcome {
        Ok((steps, _)) => {
            steps.iter().for_each(|done| tracing::info!(%domain, "step carried out: {}", done.step))
        }
        Err(ApplyError::Stopped(why)) => tracing::info!(%domain, "the plan was stopped: {why}"),
        Err(error) => tracing::error!(%domain, "the plan stopped: {error}"),
    }
    end
}
