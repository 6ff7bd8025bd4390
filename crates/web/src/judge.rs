//! Judges one domain from its rollout state, its evidence and the reports of the last week: how urgently it needs the
//! operator, and the one next step. The overview and the page of a domain show the result.

pub use check::render::page::{prose, remedy_blocks, sentence};
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use operations::RolloutContext;
use receiver::domain::DomainSpec;
use receiver::rollout::RolloutState;
use receiver::rollout::gate::{Evidence, Gate};
use receiver::rollout::guard::{Alert, AlertKind};
use serde::{Serialize, Serializer};
use std::fmt;
use store::reports::DaySum;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// How urgently a domain needs the operator; most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// Mail is at risk.
    Failing,
    /// The operator has to approve or run something.
    Waiting,
    /// The rollout waits for time or evidence.
    OnItsWay,
    /// The domain is in its desired state.
    Fine,
}

impl Urgency {
    /// The CSS class and the label of a domain's state. The label has a sign, so that the state does not depend on color
    /// alone. A domain is only called enforced if its policy is.
    pub fn mark(self, mode: Option<Mode>) -> Mark {
        match (self, mode) {
            (Self::Failing, _) => Mark("failing", "✗ Mail at risk"),
            (Self::Waiting, _) => Mark("waiting", "! Action needed"),
            (_, Some(Mode::Enforce)) => Mark("fine", "✓ Enforced"),
            (_, Some(Mode::Testing)) => Mark("way", "· In testing"),
            (_, Some(Mode::None)) => Mark("way", "· Retiring"),
            (_, None) => Mark("way", "· Off"),
        }
    }
}

/// A state as it is shown: the CSS class, and the label with a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub &'static str, pub &'static str);

/// The cause of a next step. Domains with the same cause are grouped on the overview.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepCause {
    /// Nothing is published yet.
    SetUp,
    /// A step of the plan is due.
    Apply,
    /// The evidence is sufficient.
    Approve,
    /// Few senders report failures, and the operator has to decide about them.
    Decide,
    /// Reports of the last week have failures although the policy is enforced.
    Failures,
    /// The guard raised an alert.
    Alert,
    /// The store's data about the domain can't be read.
    Damaged,
}

/// The one next step for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// There is nothing to do.
    Nothing,
    /// The rollout waits for this.
    Wait(String),
    /// The operator runs this command.
    Command(StepCause, String),
    /// The operator does this on the domain's page, at this anchor.
    Page(StepCause, String, &'static str),
}

impl NextStep {
    /// The cause of a step that the operator has to take.
    pub fn cause(&self) -> Option<StepCause> {
        match self {
            Self::Nothing | Self::Wait(_) => None,
            Self::Command(cause, _) | Self::Page(cause, ..) => Some(*cause),
        }
    }
}

impl fmt::Display for NextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Wait(what) | Self::Command(_, what) | Self::Page(_, what, _) => f.write_str(what),
        }
    }
}

impl Serialize for NextStep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The urgency of a domain, its evidence in words, and the next step.
#[derive(Debug, Clone)]
pub struct Judged {
    pub need: Urgency,
    pub evidence: String,
    pub next: NextStep,
}

impl Judged {
    /// The judgment of a domain with these alerts; unchanged without any. `binds` as for [`urgency`].
    pub fn with_alerts(self, alerts: &[&Alert], binds: bool) -> Self {
        let Some(need) = alerts.iter().map(|alert| urgency(alert.kind, binds)).min() else { return self };
        let label = match alerts.len() {
            1 => "See the alert".to_owned(),
            more => format!("See {more} alerts"),
        };
        Self { need: need.min(self.need), next: NextStep::Page(StepCause::Alert, label, "alerts"), ..self }
    }

    /// The judgment of a domain whose reports were not read yet.
    pub fn pending() -> Self {
        let next = NextStep::Wait("Sternpost reads its reports".to_owned());
        Self { need: Urgency::OnItsWay, evidence: "not known yet".to_owned(), next }
    }

    /// The judgment of a domain whose stored state can't be read.
    pub fn damaged(why: String) -> Self {
        let next = NextStep::Page(StepCause::Damaged, why, "");
        Self { need: Urgency::Failing, evidence: "none".to_owned(), next }
    }
}

/// True if senders may hold an enforced policy, so that they do not deliver to a host that fails it.
pub fn binds(rollout: &RolloutState, now: Timestamp) -> bool {
    rollout.published.iter().any(|policy| policy.mode == Mode::Enforce && policy.is_out(now))
}

/// How urgent an alert is: whether mail is at risk now, or something will be unless the operator acts. Mail is only at
/// risk if an enforced policy `binds` senders; in testing it arrives.
pub fn urgency(kind: AlertKind, binds: bool) -> Urgency {
    match kind {
        _ if !binds => Urgency::Waiting,
        AlertKind::MxUncovered
        | AlertKind::PolicyUnserved
        | AlertKind::RecordGone
        | AlertKind::MxUnverified
        | AlertKind::ReportedFailure
        | AlertKind::FailureRate => Urgency::Failing,
        AlertKind::PolicyCertificateEnds
        | AlertKind::MxCertificateEnds
        | AlertKind::Silence
        | AlertKind::QuarantineFull
        | AlertKind::DecisionNeeded
        | AlertKind::CheckFailed
        | AlertKind::MxUnreached
        | AlertKind::Unconfigured => Urgency::Waiting,
    }
}

/// The verified reports of the last week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastWeek {
    /// No verified report.
    Silent,
    /// Verified reports without failures that count.
    Clean,
    /// Verified reports with failures.
    Failing,
}

/// Summarizes the days of the last week, since the current mode began. They are clean without failures, or if the
/// evidence's run of clean days covers all of them; the evidence ignores excused causes.
pub fn last_week(days: &[DaySum], evidence: &Evidence, since: Timestamp, now: Timestamp) -> LastWeek {
    let recent = days.iter().filter(|day| day.day + DAY * 8 > now && day.day + DAY > since);
    let covered: Vec<&DaySum> = recent.filter(|day| day.sts_sessions > 0 || day.tainted > 0).collect();
    match covered.len() {
        0 => LastWeek::Silent,
        // Evidence leaves out sessions under an earlier policy, so its run may be shorter without any failure.
        _ if covered.iter().all(|day| day.tainted == 0) => LastWeek::Clean,
        covered if evidence.clean_days as usize >= covered => LastWeek::Clean,
        _ => LastWeek::Failing,
    }
}

/// Judges a domain from its rollout state, its evidence and its last week.
pub fn judge_by(
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: &RolloutState,
    evidence: &Evidence,
    gate: &Gate,
    week: LastWeek,
) -> Judged {
    let mode = rollout.mode.map(|known| known.mode);
    let (need, next) = next_step(context, spec, rollout, gate, week);
    let evidence = match mode {
        Some(Mode::Testing) => gate.to_string(),
        Some(Mode::Enforce) => match week {
            LastWeek::Silent => "no verified report in a week".to_owned(),
            LastWeek::Clean => "a week without failures".to_owned(),
            LastWeek::Failing => {
                format!(
                    "failures in the last week, then {}",
                    crate::text::counted(evidence.clean_days, "clean day")
                )
            }
        },
        _ => "none".to_owned(),
    };
    Judged { need, evidence, next }
}

fn next_step(
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: &RolloutState,
    gate: &Gate,
    week: LastWeek,
) -> (Urgency, NextStep) {
    let name: &DomainName = &spec.name;
    let apply = |cause| (Urgency::Waiting, NextStep::Command(cause, format!("sternpost apply {name}")));
    let page = |cause, label: &str, anchor| NextStep::Page(cause, label.to_owned(), anchor);
    let mode = rollout.mode.map(|known| known.mode);
    let desired = context.desired(spec).mode;
    match mode {
        None if desired == Mode::None => (Urgency::Fine, NextStep::Nothing),
        None if context.is_applied_by_guard(spec) => {
            let what = match spec.delegated {
                true => "The three aliases of the owner; then the guard applies the plan",
                false => "The next round of the guard, which applies the plan",
            };
            (Urgency::OnItsWay, NextStep::Wait(what.to_owned()))
        }
        None => apply(StepCause::SetUp),
        Some(Mode::Enforce) if desired == Mode::Enforce && week == LastWeek::Failing => {
            (Urgency::Failing, page(StepCause::Failures, "See the failures", "failures"))
        }
        Some(mode) if mode == desired && rollout.announce_due => apply(StepCause::Apply),
        Some(mode) if mode == desired => match context.decisions(name).held {
            Some(held) => {
                (Urgency::OnItsWay, NextStep::Wait(format!("Held by {}: {}", held.who, held.reason)))
            }
            None => (Urgency::Fine, NextStep::Nothing),
        },
        Some(Mode::Testing) if desired == Mode::Enforce => match (rollout.approved, gate) {
            (Some(_), _) => apply(StepCause::Apply),
            (None, Gate::Ready) => {
                (Urgency::Waiting, page(StepCause::Approve, "Approve enforcement", "next-step"))
            }
            (None, Gate::Ask(_)) => {
                (Urgency::Waiting, page(StepCause::Decide, "Decide about the failures", "rollout"))
            }
            (None, Gate::NotYet(reasons)) => (
                Urgency::OnItsWay,
                NextStep::Wait(reasons.first().map(|why| sentence(why)).unwrap_or_default()),
            ),
        },
        Some(_) => apply(StepCause::Apply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receiver::rollout::gate::evidence_by_day;

    #[test]
    fn an_excused_failure_does_not_make_the_last_week_failing() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let since = now - DAY * 30;
        let day = |back: i32, tainted| DaySum {
            day: formats::report::DateRange::utc_day(now - DAY * back).start,
            successful: 9,
            failed: tainted,
            sts_sessions: 9 + tainted,
            tainted,
            unproved: 0,
        };
        let days = [day(3, 0), day(2, 1), day(1, 0)];
        let by_sums = evidence_by_day(&days, since, now);
        assert_eq!(last_week(&days, &by_sums, since, now), LastWeek::Failing);
        let excused = Evidence { clean_days: 3, ..by_sums.clone() };
        assert_eq!(last_week(&days, &excused, since, now), LastWeek::Clean);
        assert_eq!(last_week(&[day(20, 1)], &by_sums, since, now), LastWeek::Silent);
        let new_policy = Evidence { clean_days: 1, ..by_sums };
        assert_eq!(last_week(&[day(2, 0), day(1, 0)], &new_policy, since, now), LastWeek::Clean);
    }

    fn alert(kind: AlertKind) -> Alert {
        Alert {
            kind,
            subject: "x".into(),
            what: "x".into(),
            consequence: "x".into(),
            remedy: "x".into(),
            cause: None,
            domains: Vec::new(),
        }
    }

    #[test]
    fn an_alert_is_the_next_step_and_a_domain_in_testing_is_never_green() {
        let fine = Judged { need: Urgency::Fine, evidence: String::new(), next: NextStep::Nothing };
        assert_eq!(fine.clone().with_alerts(&[], true).next, NextStep::Nothing);
        let (ending, failing) = (alert(AlertKind::MxCertificateEnds), alert(AlertKind::ReportedFailure));
        let one = fine.clone().with_alerts(&[&ending], true);
        assert_eq!((one.need, one.next.to_string().as_str()), (Urgency::Waiting, "See the alert"));
        assert_eq!(fine.clone().with_alerts(&[&failing], false).need, Urgency::Waiting);
        let two = fine.with_alerts(&[&ending, &failing], true);
        assert_eq!((two.need, two.next.to_string().as_str()), (Urgency::Failing, "See 2 alerts"));
        assert_eq!(Urgency::Fine.mark(Some(Mode::Enforce)).0, "fine");
        for mode in [None, Some(Mode::Testing), Some(Mode::None)] {
            assert_eq!(Urgency::Fine.mark(mode).0, "way");
        }
        assert_eq!(sentence("3 more clean days needed"), "3 more clean days needed");
        assert_eq!(sentence("no report"), "No report");
        assert_eq!(sentence("mx1.a.example failed"), "mx1.a.example failed");
    }
}
