//! The state of a domain as the store has it: mode, evidence, failures, decisions and journal. `sternpost status` prints it, and
//! the API answers it.

use crate::ownership::MissingOwnership;
use crate::rollout_context::{RolloutContext, store_failure};
use config::failure::Failure;
use formats::Mode;
use jiff::{SignedDuration, Timestamp};
use receiver::domain::DomainSpec;
use receiver::inbox::explain::{CauseContext, Explanation, explain};
use receiver::publish::alias_lines;
use receiver::rollout::RolloutState;
use receiver::rollout::decisions::Decisions;
use receiver::rollout::gate::{Evidence, Gate};
use receiver::rollout::outside::Outside;
use receiver::rollout::plan::Permit;
use serde::Serialize;
use store::rollouts::JournalEntry;

/// Age up to which reported failures are listed: 30 days.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);

/// The state of a domain, as the store has it.
#[derive(Serialize)]
pub struct DomainStatus {
    /// The domain.
    pub domain: String,
    /// Whether the guard of `sternpost serve` carries out the plan.
    #[serde(skip)]
    pub applied_by_guard: bool,
    /// The CNAME records that the owner of a delegated domain publishes, if they were not seen yet.
    #[serde(skip)]
    pub aliases: Vec<String>,
    /// The configured mode.
    pub wanted: Mode,
    /// What comes next.
    pub progress: Progress,
    /// The planner's state.
    #[serde(flatten)]
    pub rollout: RolloutState,
    /// The evidence for or against enforcement.
    pub evidence: Evidence,
    /// Whether it is sufficient.
    pub gate: Gate,
    /// Whether the guard reaches no MX host, so that there are no new probes. The alert is in `alerts`.
    #[serde(skip)]
    pub is_unreached: bool,
    /// Failures in recent reports that count as evidence, most frequent first.
    pub failures: Vec<Explanation>,
    /// The operator's decisions.
    #[serde(skip_serializing_if = "Decisions::is_empty")]
    pub decisions: Decisions,
    /// What was seen at the last observation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<LastObservation>,
    /// What the tenant has to do before anything is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ownership: Option<MissingOwnership>,
    /// The journal, oldest entry first.
    pub journal: Vec<JournalEntry>,
}

/// What was seen at the last observation.
#[derive(Serialize)]
pub struct LastObservation {
    /// When it was made.
    pub at: Timestamp,
    /// What each name server and each address of the policy host showed.
    #[serde(flatten)]
    pub seen: Outside,
}

/// What comes next for a domain, as far as the store shows it: a program that set a domain up waits until `rest` is not `steps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What the domain waits for.
    pub rest: Rest,
    /// The end of the waiting period, for [`Rest::Wait`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// True while a process applies the plan.
    pub applying: bool,
}

/// What a domain waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// Nothing: senders see the desired mode.
    Done,
    /// Evidence or a decision: the domain is in testing, and is to be enforced.
    Evidence,
    /// Time: senders may still cache a policy of the domain, which is being retired.
    Wait,
    /// Steps of the plan, by `apply`, by the guard or by the owner of the domain.
    Steps,
}

async fn progress(
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: &RolloutState,
) -> Result<Progress, Failure> {
    let (rest, until) = rest(context.desired(spec).mode, rollout, context.world.clock.now());
    Ok(Progress { rest, until, applying: context.other_lease(&spec.name).await?.is_some() })
}

fn rest(desired: Mode, rollout: &RolloutState, now: Timestamp) -> (Rest, Option<Timestamp>) {
    let desired = if rollout.is_held && desired == Mode::Enforce { Mode::Testing } else { desired };
    match (rollout.mode.map(|known| known.mode), desired) {
        (None, Mode::None) => (Rest::Done, None),
        _ if rollout.announce_due => (Rest::Steps, None),
        (Some(Mode::None), Mode::None) => {
            let out = rollout.published.iter().filter(|policy| policy.mode != Mode::None);
            match out.filter_map(|policy| policy.ends().filter(|end| *end > now)).max() {
                Some(end) => (Rest::Wait, Some(end)),
                None => (Rest::Steps, None),
            }
        }
        (Some(known), desired) if known == desired => (Rest::Done, None),
        (Some(Mode::Testing), Mode::Enforce) if RolloutContext::permit(rollout) == Permit::Testing => {
            (Rest::Evidence, None)
        }
        _ => (Rest::Steps, None),
    }
}

/// Reads the state of a domain. It sends no queries.
///
/// # Errors
///
/// If the store fails.
pub async fn status_of(context: &RolloutContext, spec: &DomainSpec) -> Result<DomainStatus, Failure> {
    let fail = |error| store_failure(&error);
    let (name, store) = (&spec.name, &context.store);
    let rollout = context.rollout(name).await?;
    let (evidence, gate) = context.gate(name, &rollout).await?;
    let now = context.world.clock.now();
    let since = now.saturating_sub(REPORT_WINDOW).unwrap_or(now);
    let senders = store.senders_about(name, since).await.map_err(fail)?;
    let probes = store.guard_probes(name, since).await.map_err(fail)?;
    let around = CauseContext { domain: name.as_str(), senders: &senders, probes: &probes };
    let causes = store.causes_of(name, since).await.map_err(fail)?;
    let counting = causes.iter().filter(|cause| cause.counts);
    let aliases = context.delegated_names(spec);
    let aliases = if rollout.mode.is_none() { alias_lines(&aliases) } else { Vec::new() };
    Ok(DomainStatus {
        domain: name.to_string(),
        applied_by_guard: context.is_applied_by_guard(spec),
        aliases,
        wanted: spec.mode,
        progress: progress(context, spec, &rollout).await?,
        failures: counting.map(|cause| explain(cause, &around)).collect(),
        rollout,
        evidence,
        gate,
        is_unreached: false,
        decisions: context.decisions(name),
        outside: store.last_look(name).await.map_err(fail)?.map(|(at, seen)| LastObservation { at, seen }),
        ownership: context.known_ownership(name).await?.missing(),
        journal: store.journal_of(name).await.map_err(fail)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use receiver::rollout::state::{InMode, PublishedPolicy};

    fn in_mode(mode: Mode) -> RolloutState {
        let mode = Some(InMode { mode, since: Timestamp::UNIX_EPOCH });
        RolloutState { mode, ..RolloutState::default() }
    }

    #[test]
    fn what_a_domain_waits_for_follows_from_its_modes() {
        let now = Timestamp::UNIX_EPOCH;
        let mode = |desired, rollout: &RolloutState| rest(desired, rollout, now).0;
        let new = RolloutState::default();
        assert_eq!((mode(Mode::Enforce, &new), mode(Mode::None, &new)), (Rest::Steps, Rest::Done));
        let testing = in_mode(Mode::Testing);
        assert_eq!(
            (mode(Mode::Enforce, &testing), mode(Mode::Testing, &testing)),
            (Rest::Evidence, Rest::Done)
        );
        assert_eq!(mode(Mode::None, &testing), Rest::Steps);
        let approved = RolloutState { approved: Some(now), ..testing.clone() };
        assert_eq!(mode(Mode::Enforce, &approved), Rest::Steps);
        let held = RolloutState { is_held: true, ..approved };
        assert_eq!(mode(Mode::Enforce, &held), Rest::Done);
        let due = RolloutState { announce_due: true, ..in_mode(Mode::Enforce) };
        assert_eq!(
            (mode(Mode::Enforce, &due), mode(Mode::Enforce, &in_mode(Mode::Enforce))),
            (Rest::Steps, Rest::Done)
        );
        let policy = PublishedPolicy {
            mode: Mode::Enforce,
            max_age: 600,
            mx: Vec::new(),
            until: Some(now),
            assumed: false,
        };
        let end = policy.ends();
        let retiring = RolloutState { published: vec![policy], ..in_mode(Mode::None) };
        assert_eq!(rest(Mode::None, &retiring, now), (Rest::Wait, end));
        assert_eq!(rest(Mode::None, &retiring, end.unwrap()), (Rest::Steps, None));
    }
}
