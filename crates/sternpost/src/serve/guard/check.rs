//! One check of a domain: an observation, whose probes are stored, and the judgement of the reports about the domain.

use super::own_alerts::missed;
use super::shared_sessions::SharedSessions;
use config::GuardConfig;
use config::failure::Failure;
use formats::Mode;
use jiff::SignedDuration;
use operations::RolloutContext;
use operations::seen_certificates;
use receiver::domain::DomainSpec;
use receiver::rollout::RolloutState;
use receiver::rollout::guard::{Alert, Guard, GuardCheck, GuardError};
use receiver::rollout::reported::{ReportSums, disputed, reported};
use std::fmt;
use std::sync::Arc;
use store::{PolicyDigest, StoreError};

/// Age up to which reports are evaluated: 30 days.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);

/// What a check found.
pub(super) struct Verdict {
    pub alerts: Vec<Alert>,
    /// Whether an MX host was reached, whatever its certificate.
    pub has_reached_mx: bool,
}

/// Why a check has no verdict.
#[derive(Debug)]
pub(super) enum CheckError {
    Setup(Failure),
    Look(GuardError),
    Reports(StoreError),
    Evidence(Failure),
    Panic,
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(failure) => write!(f, "the domain can't be checked: {failure}"),
            Self::Look(error) => error.fmt(f),
            Self::Reports(error) => write!(f, "the reports about the domain can't be read: {error}"),
            Self::Evidence(failure) => write!(f, "the evidence can't be judged: {failure}"),
            Self::Panic => f.write_str("the check ended by an internal error"),
        }
    }
}

/// Checks a domain: observes it, stores the probes, and judges its reports.
pub(super) async fn check(
    context: &RolloutContext,
    config: &GuardConfig,
    sessions: Arc<SharedSessions>,
    spec: &DomainSpec,
) -> Result<Verdict, CheckError> {
    let applier = context.applier(spec).map_err(CheckError::Setup)?;
    let rollout = context.rollout(&spec.name).await.map_err(CheckError::Setup)?;
    let guard = Guard {
        dns: applier.dns.clone(),
        policies: applier.policies.clone(),
        mail: sessions,
        clock: context.world.clock.clone(),
        omitted: applier.omitted.clone(),
        deadline: config.deadline,
    };
    let checked = guard.check(&context.desired(spec), &rollout).await.map_err(CheckError::Look)?;
    store_check(context, spec, &rollout, &checked).await;
    let mut alerts = checked.alerts;
    alerts.extend(context.unconfigured.iter().filter(|missing| missing.name == spec.name).map(missed));
    alerts.extend(alerts_of_reports(context, config, spec, &rollout).await.map_err(CheckError::Reports)?);
    alerts.extend(alert_of_evidence(context, spec, &rollout).await.map_err(CheckError::Evidence)?);
    Ok(Verdict { alerts, has_reached_mx: !checked.hosts.is_empty() })
}

/// The alerts that follow from received reports.
async fn alerts_of_reports(
    context: &RolloutContext,
    config: &GuardConfig,
    spec: &DomainSpec,
    rollout: &RolloutState,
) -> Result<Vec<Alert>, StoreError> {
    let (name, now) = (&spec.name, context.world.clock.now());
    let since = now.saturating_sub(REPORT_WINDOW).unwrap_or(now);
    let days = context.store.days_of(name, since).await?;
    let causes = context.store.causes_of(name, since).await?;
    let sums = ReportSums { days: &days, causes: &causes };
    Ok(reported(name, rollout, &context.decisions(name), sums, config.failure_rate, now))
}

/// The alert for evidence that the operator has to judge.
async fn alert_of_evidence(
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: &RolloutState,
) -> Result<Option<Alert>, Failure> {
    let is_in_testing = rollout.mode.is_some_and(|known| known.mode == Mode::Testing);
    let is_open = is_in_testing && rollout.approved.is_none() && context.desired(spec).mode == Mode::Enforce;
    if !is_open {
        return Ok(None);
    }
    let (_, gate) = context.gate(&spec.name, rollout).await?;
    Ok(disputed(&spec.name, &gate))
}

/// Stores the MX hosts with their certificates and their probes, which are evidence and explain failures in reports.
async fn store_check(
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: &RolloutState,
    checked: &GuardCheck,
) {
    let (store, now) = (&context.store, context.world.clock.now());
    if let Err(error) = store.record_mx_hosts(&spec.name, &checked.mx, now).await {
        tracing::warn!(domain = %spec.name, "the MX hosts can't be stored: {error}");
    }
    for (host, certificate) in &checked.certificates {
        if let Err(error) = seen_certificates::put(store, host, certificate, now).await {
            tracing::warn!(domain = %spec.name, "the certificate of {host} can't be stored: {error}");
        }
    }
    let Some(newest) = rollout.newest() else { return };
    let policy = PolicyDigest::of_patterns(&newest.mx);
    for host in &checked.hosts {
        let problem = host.problem(rollout);
        let put = store.put_guard_probe(&spec.name, &host.name, now, policy, problem.as_deref()).await;
        if let Err(error) = put {
            tracing::warn!(domain = %spec.name, "the probe of {} can't be stored: {error}", host.name);
        }
    }
}
