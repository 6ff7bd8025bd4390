//! The rollout on a domain's page: a bar with its stages, and the conditions of the gate with how much of each is met.

use super::DomainData;
use crate::judge::Mark;
use crate::text;
use formats::Mode;
use jiff::Timestamp;
use receiver::domain::DomainSpec;
use receiver::rollout::gate::{Evidence, Gate, Thresholds, upper_bound};

/// A stage of the bar.
pub struct Stage {
    pub title: &'static str,
    pub text: String,
    /// The CSS class: `done`, `now`, or empty for one that comes later.
    pub class: &'static str,
}

/// The stages from the published policy to enforcement; empty if the domain is not to be enforced.
pub fn stages(facts: &DomainData, spec: &DomainSpec, needed: &Thresholds) -> Vec<Stage> {
    if spec.mode != Mode::Enforce {
        return Vec::new();
    }
    let stage = |title, class, text: String| Stage { title, text, class };
    let mode = facts.rollout.mode;
    let since = mode.map(|known| text::date(&known.since)).unwrap_or_default();
    match mode.map(|known| known.mode) {
        Some(Mode::Enforce) => vec![
            stage("Testing", "done", "done".to_owned()),
            stage("Evidence", "done", "sufficient".to_owned()),
            stage("Approval", "done", facts.rollout.approved.as_ref().map_or("given".to_owned(), text::date)),
            stage("Enforced", "done", format!("since {since}")),
        ],
        Some(Mode::Testing) => {
            let is_approved = facts.rollout.approved.is_some();
            let is_enough = is_approved || matches!(facts.gate, Gate::Ready);
            let evidence = &facts.evidence;
            let days = format!(
                "{} of {} clean days, day {} of {} in testing",
                evidence.clean_days.min(needed.clean_days),
                needed.clean_days,
                evidence.days_in_testing.min(needed.days_in_testing),
                needed.days_in_testing
            );
            vec![
                stage("Testing", "done", format!("since {since}")),
                stage("Evidence", if is_enough { "done" } else { "now" }, days),
                match (is_approved, is_enough) {
                    (true, _) => {
                        let at = facts.rollout.approved.as_ref().map(text::date).unwrap_or_default();
                        stage("Approval", "done", format!("given on {at}"))
                    }
                    (false, true) => stage("Approval", "now", "waits for you".to_owned()),
                    (false, false) => stage("Approval", "", "after the evidence".to_owned()),
                },
                stage(
                    "Enforced",
                    if is_approved { "now" } else { "" },
                    match is_approved {
                        true => "with the next apply".to_owned(),
                        false => "not yet".to_owned(),
                    },
                ),
            ]
        }
        _ => vec![
            stage("Testing", "now", "not published yet".to_owned()),
            stage("Evidence", "", text::counted(needed.days_in_testing, "day")),
            stage("Approval", "", String::new()),
            stage("Enforced", "", "not yet".to_owned()),
        ],
    }
}

/// One condition of the gate: the current value and the required one.
pub struct Condition {
    pub what: &'static str,
    pub have: String,
    pub need: String,
    pub mark: Mark,
    /// The percentage of the condition that is met; `None` if it is not a number.
    pub progress: Option<u32>,
}

const MET: Mark = Mark("fine", "✓ Met");
/// Time or reports are missing, not an action of the operator.
const NOT_YET: Mark = Mark("way", "· Not yet");
const NO_DATA: Mark = Mark("way", "· No data yet");

fn progress(have: u32, need: u32) -> Option<u32> {
    Some(have.saturating_mul(100).checked_div(need).unwrap_or(100).min(100))
}

/// The conditions of the gate for a domain in testing; none for other domains.
pub fn conditions(facts: &DomainData, needed: &Thresholds) -> Vec<Condition> {
    match facts.rollout.mode {
        Some(known) if known.mode == Mode::Testing => of_evidence(&facts.evidence, needed),
        _ => Vec::new(),
    }
}

fn of_evidence(evidence: &Evidence, needed: &Thresholds) -> Vec<Condition> {
    let probes = &evidence.probes;
    let is_probed = probes.clean_days >= needed.clean_days;
    let sessions = if is_probed { evidence.clean_sessions } else { evidence.counted_sessions };
    let bound = upper_bound(0, sessions);
    let is_quiet = evidence.days_in_testing >= needed.quiet_days && is_probed;
    let is_bounded = bound <= needed.failure_rate;
    let senders: Vec<&str> = evidence.sources.iter().take(3).map(|one| one.domain.as_str()).collect();
    let mark = |is_met, has_data| match (is_met, has_data) {
        (true, _) => MET,
        (false, true) => NOT_YET,
        (false, false) => NO_DATA,
    };
    let has_reports = evidence.days_covered > 0;
    let has_senders = evidence.senders >= needed.senders;
    vec![
        Condition {
            what: "Days in testing",
            have: evidence.days_in_testing.to_string(),
            need: needed.days_in_testing.to_string(),
            mark: mark(evidence.days_in_testing >= needed.days_in_testing, true),
            progress: progress(evidence.days_in_testing, needed.days_in_testing),
        },
        Condition {
            what: "Days with reports since the last failure",
            have: if has_reports { evidence.clean_days.to_string() } else { "no report yet".to_owned() },
            need: needed.clean_days.to_string(),
            mark: mark(evidence.clean_days >= needed.clean_days, has_reports),
            progress: progress(evidence.clean_days, needed.clean_days).filter(|_| has_reports),
        },
        Condition {
            what: "Failure rate, at most (95 % confidence)",
            have: match sessions {
                0 => "no clean session yet".to_owned(),
                _ => format!("{} by {}", text::bound(bound), text::counted(sessions, "clean session")),
            },
            need: format!(
                "{}, or {} in testing and all probes passed",
                text::bound(needed.failure_rate),
                text::counted(needed.quiet_days, "day")
            ),
            mark: mark((sessions > 0 && is_bounded) || is_quiet, sessions > 0),
            progress: None,
        },
        Condition {
            what: "Senders with domains of their own",
            have: match senders.as_slice() {
                [] => "no report yet".to_owned(),
                first => format!(
                    "{} ({}{})",
                    evidence.senders,
                    first.join(", "),
                    if evidence.sources.len() > 3 { ", …" } else { "" }
                ),
            },
            need: format!("{}, or all probes passed", needed.senders),
            mark: mark(has_senders || (is_probed && has_reports), has_reports),
            progress: progress(evidence.senders, needed.senders).filter(|_| has_reports && !is_probed),
        },
        Condition {
            what: "Days on which all MX hosts passed our probes",
            have: match (&probes.problem, probes.days) {
                (Some(problem), _) => format!("{}; the last failure: {problem}", probes.clean_days),
                (None, 0) => "no probe yet ([guard] makes them)".to_owned(),
                (None, _) => probes.clean_days.to_string(),
            },
            need: format!("{}, instead of senders or sessions, and for auto_promote", needed.clean_days),
            mark: match (is_probed, probes.days) {
                (true, _) => MET,
                (false, 0) => NO_DATA,
                // It is one of two ways.
                (false, _) if has_senders && is_bounded => Mark("way", "· Not needed"),
                (false, _) => NOT_YET,
            },
            progress: progress(probes.clean_days, needed.clean_days).filter(|_| probes.days > 0),
        },
    ]
}

/// How long a domain has been enforced, for the manager's page; `None` if it is not.
pub fn enforced_since(facts: &DomainData) -> Option<Timestamp> {
    facts.rollout.mode.filter(|known| known.mode == Mode::Enforce).map(|known| known.since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use receiver::rollout::gate::evidence_by_day;

    #[test]
    fn without_observations_no_condition_is_met_and_none_is_failed() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let nothing = evidence_by_day(&[], now, now);
        let marks: Vec<&str> =
            of_evidence(&nothing, &Thresholds::default()).iter().map(|condition| condition.mark.0).collect();
        assert_eq!(marks, ["way"; 5]);
        let shown = of_evidence(&nothing, &Thresholds::default());
        assert!(shown.iter().all(|condition| !condition.have.contains("100")), "no rate without sessions");
    }

    #[test]
    fn progress_is_a_part_of_a_hundred() {
        assert_eq!(
            [(0, 14), (7, 14), (20, 14)].map(|(have, need)| progress(have, need)),
            [Some(0), Some(50), Some(100)]
        );
        assert_eq!(progress(3, 0), Some(100));
    }
}
