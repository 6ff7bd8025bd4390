//! Decides whether a domain may move from `testing` to `enforce`: a pure function of the reports, the guard's probes
//! of the MX hosts, the time in testing and the thresholds.
//!
//! Reports count if they have a verified signature or the operator vouches for them, if they arrive in time, and only for
//! policies of type `sts` that are the one published now. A day is *covered* when such a report has sessions for it, and
//! *clean* when none of them failed for a cause that is not excused. The clean run is the covered days since the last
//! failure. Over that run, the 95 % upper bound of the failure rate must be low enough. A quiet domain never has enough
//! sessions for that; it waits longer instead, and all probes must succeed.
//!
//! Anybody with a domain can send signed reports. So either enough registrable domains have to report, of which none
//! counts for more than half of the sessions, or the guard's own probes of every MX host have to pass on the same days.
//! Failures that only few senders report keep the gate shut for a limited time; then the operator is asked. docs/safety.md
//! lists who can do what; `adversary` plays it, and `adversary_mail` with signed mails.

#[cfg(test)]
mod adversary;
#[cfg(test)]
mod adversary_mail;
mod bound;
mod cause;
mod evidence;
mod thresholds;

pub use bound::upper_bound;
pub use cause::Cause;
pub use evidence::{Evidence, EvidenceInput, Probes, Source, evidence, evidence_by_day};
pub use thresholds::Thresholds;

use evidence::Summary;
use formats::counted::counted;
use jiff::SignedDuration;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// The result of [`gate`] and [`judge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reasons")]
pub enum Gate {
    /// The evidence is sufficient for `enforce`.
    Ready,
    /// Not yet sufficient. Each reason is a phrase; the most important one comes first.
    NotYet(Vec<String>),
    /// Only failures that few senders report stand against enforcement, and have for long. The operator has to decide.
    /// Each reason is a phrase that names the senders.
    Ask(Vec<String>),
}

impl Gate {
    /// The reasons against enforcement; empty if there are none.
    pub fn reasons(&self) -> &[String] {
        match self {
            Self::Ready => &[],
            Self::NotYet(reasons) | Self::Ask(reasons) => reasons,
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::NotYet(reasons) => write!(f, "not yet: {}", reasons.join("; ")),
            Self::Ask(reasons) => write!(f, "your decision is needed: {}", reasons.join("; ")),
        }
    }
}

/// Summarizes what is known about a domain, and decides whether it is sufficient to enforce.
///
/// If only the failures that fewer than `thresholds.senders` registrable domains report are in the way, and the evidence
/// of all others was sufficient `thresholds.delay_days` ago and still is, the result is [`Gate::Ask`]. Failures before the
/// run of clean days are in nobody's way, whoever reported them.
pub fn judge(facts: &EvidenceInput<'_>, thresholds: &Thresholds) -> (Evidence, Gate) {
    let summary = Summary::of(facts);
    let mut evidence = summary.evidence(facts.now, &BTreeSet::new());
    let decided = gate(&evidence, thresholds);
    if decided == Gate::Ready {
        return (evidence, decided);
    }
    let Some(few) = few_in_the_way(&summary, facts, thresholds) else { return (evidence, decided) };
    evidence.accused = summary.accused(&few);
    evidence.accusers = few.into_iter().map(str::to_owned).collect();
    let asked = ask(&evidence, thresholds);
    (evidence, asked)
}

/// The senders that alone have kept the gate shut for long, if they are few.
fn few_in_the_way<'a>(
    summary: &Summary<'a>,
    facts: &EvidenceInput<'_>,
    thresholds: &Thresholds,
) -> Option<BTreeSet<&'a str>> {
    let most = thresholds.senders.max(2) as usize;
    let delay = SignedDuration::from_hours(24 * i64::from(thresholds.delay_days));
    let mut few = BTreeSet::new();
    for at in [facts.now.checked_sub(delay).ok()?, facts.now] {
        few.extend(summary.in_the_way(at, most, |evidence| gate(evidence, thresholds) == Gate::Ready)?);
    }
    (few.len() < most).then_some(few)
}

/// The question to the operator.
fn ask(evidence: &Evidence, thresholds: &Thresholds) -> Gate {
    let who = names(evidence);
    let what: Vec<String> = evidence
        .accused
        .iter()
        .take(3)
        .map(|(cause, count)| format!("{cause} ({})", times(*count)))
        .collect();
    let what = if what.is_empty() { "failures without a cause".to_owned() } else { what.join(", ") };
    let mut reasons = vec![format!(
        "only {who} reported {what}; without these reports the evidence has been sufficient for more than {}",
        counted(thresholds.delay_days, "day")
    )];
    let probes = &evidence.probes;
    reasons.push(match (&probes.problem, probes.last_bad) {
        (Some(problem), Some(day)) => {
            format!("the last failed probe of an MX host was on {} ({problem})", day.strftime("%Y-%m-%d"))
        }
        _ if probes.days > 0 => {
            format!("all probes of the MX hosts passed, on {}", counted(probes.days, "day"))
        }
        _ => "there are no probes of the MX hosts, which [guard] makes".to_owned(),
    });
    Gate::Ask(reasons)
}

/// True if enforcement may begin without an operator: the evidence is sufficient, and the guard's own probes of every MX
/// host passed on the same days, whoever reported.
pub fn may_promote_alone(evidence: &Evidence, gate: &Gate, thresholds: &Thresholds) -> bool {
    *gate == Gate::Ready && has_probes(evidence, thresholds)
}

fn has_probes(evidence: &Evidence, thresholds: &Thresholds) -> bool {
    evidence.probes.clean_days >= thresholds.clean_days
}

/// Decides whether the evidence is sufficient to enforce.
pub fn gate(evidence: &Evidence, thresholds: &Thresholds) -> Gate {
    let mut reasons = time_reasons(evidence, thresholds);
    let has_probes = has_probes(evidence, thresholds);
    let has_senders = evidence.senders >= thresholds.senders;
    if !has_probes && !has_senders && evidence.clean_sessions > 0 {
        reasons.push(too_few_senders(evidence, thresholds));
    }
    // A single sender may be enough by configuration; then it reports all sessions.
    let sessions = match has_probes || !has_senders || thresholds.senders <= 1 {
        true => evidence.clean_sessions,
        false => evidence.counted_sessions,
    };
    // Without clean sessions there is no failure rate yet.
    if evidence.clean_sessions > 0 && upper_bound(0, sessions) > thresholds.failure_rate {
        reasons.extend(too_quiet(evidence, thresholds, sessions));
    }
    if reasons.is_empty() { Gate::Ready } else { Gate::NotYet(reasons) }
}

/// The result for a domain that can't be ready yet, whoever reported: too few days in testing, or too few days with
/// reports. `None` if its reports have to be read to decide. `by_day` is the result of [`evidence_by_day`].
pub fn not_due(by_day: &Evidence, thresholds: &Thresholds) -> Option<Gate> {
    let is_due = by_day.days_in_testing >= thresholds.days_in_testing
        && by_day.days_covered >= thresholds.clean_days.max(1);
    (!is_due).then(|| Gate::NotYet(time_reasons(by_day, thresholds)))
}

/// What is missing in days.
fn time_reasons(evidence: &Evidence, thresholds: &Thresholds) -> Vec<String> {
    let mut reasons = Vec::new();
    let more = |have: u32, required: u32| required.saturating_sub(have);
    if evidence.days_covered == 0 {
        reasons.push("no verified report about a day in testing has arrived yet".to_owned());
    }
    let left = more(evidence.clean_days, thresholds.clean_days);
    if left > 0 && evidence.days_covered > 0 {
        let why = match evidence.accused.first() {
            Some((cause, count)) => {
                format!(", since {} reported {cause} ({})", names(evidence), times(*count))
            }
            None if evidence.accusers.is_empty() => String::new(),
            None => format!(", since {} reported failures without a cause", names(evidence)),
        };
        reasons.push(format!("{} needed{why}", counted(left, "more clean day")));
    }
    let left = more(evidence.days_in_testing, thresholds.days_in_testing);
    if left > 0 {
        reasons.push(format!("{} in testing needed", counted(left, "more day")));
    }
    reasons
}

/// The senders that report failures: the first few by name, and the number of others.
fn names(evidence: &Evidence) -> String {
    const NAMED: usize = 3;
    let named: Vec<&str> = evidence.accusers.iter().take(NAMED).map(String::as_str).collect();
    match evidence.accusers.len().saturating_sub(NAMED) {
        _ if named.is_empty() => "senders".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// Why the senders do not suffice without probes.
fn too_few_senders(evidence: &Evidence, thresholds: &Thresholds) -> String {
    let probes = &evidence.probes;
    let unprobed = match &probes.unprobed {
        Some(host) => format!("; {host} was not reached by a probe on another"),
        None => String::new(),
    };
    format!(
        "reports from {} of {} with domains of their own, since anyone can register a domain and sign reports with it; or probes of every MX host on {} (by the role [guard]), of which there are {}{unprobed}",
        evidence.senders,
        counted(thresholds.senders, "sender"),
        counted(thresholds.clean_days, "clean day"),
        probes.clean_days
    )
}

/// Why a domain with too few sessions to bound its failure rate has to wait; `None` when it need not.
fn too_quiet(evidence: &Evidence, thresholds: &Thresholds, sessions: u64) -> Option<String> {
    let probes = &evidence.probes;
    if evidence.days_in_testing < thresholds.quiet_days {
        let left_out = match (evidence.clean_sessions.saturating_sub(sessions), evidence.sources.first()) {
            (1.., Some(largest)) => format!(
                " (of {}; {} reported more than all others together, and its surplus does not count)",
                evidence.clean_sessions, largest.domain
            ),
            _ => String::new(),
        };
        return Some(format!(
            "{}{left_out} only bound the failure rate to {:.2} %, but {:.2} % is required (or {} in testing)",
            counted(sessions, "clean session"),
            upper_bound(0, sessions) * 100.0,
            thresholds.failure_rate * 100.0,
            counted(thresholds.quiet_days, "day")
        ));
    }
    if let (Some(day), Some(problem)) = (probes.last_bad, &probes.problem) {
        return Some(format!(
            "with so few sessions all probes of the MX hosts must succeed, and one failed on {} ({problem})",
            day.strftime("%Y-%m-%d")
        ));
    }
    let left = thresholds.clean_days.saturating_sub(probes.clean_days);
    (left > 0).then(|| {
        format!(
            "with so few sessions every MX host must be probed on {} (by the role [guard])",
            counted(left, "more clean day")
        )
    })
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

#[cfg(test)]
mod tests;
