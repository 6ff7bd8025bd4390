//! Decides whether a domain may move from `testing` to `enforce`: a pure function of the reports, the guard's probes
//! of the MX hosts, the time in testing and the thresholds.
//!
//! Reports count if they have a verified signature or the operator vouches for them, and only for policies of type
//! `sts`. A day is *covered* when such a report has sessions for it, and *clean* when none of them failed for a cause
//! that is not excused. The clean run is the covered days since the last failure. Over that run, the 95 % upper bound
//! of the failure rate must be low enough. A quiet domain never has enough sessions for that; it waits longer
//! instead, and all probes must succeed.

mod bound;
mod cause;
mod evidence;
mod thresholds;

pub use bound::upper_bound;
pub use cause::Cause;
pub use evidence::{Evidence, Probes, evidence, evidence_by_day};
pub use thresholds::Thresholds;

use serde::Serialize;
use std::fmt;

/// The result of [`gate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reasons")]
pub enum Gate {
    /// The evidence is sufficient for `enforce`.
    Ready,
    /// Not yet sufficient. Each reason is a phrase; the most important one comes first.
    NotYet(Vec<String>),
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::NotYet(reasons) => write!(f, "not yet: {}", reasons.join("; ")),
        }
    }
}

/// Decides whether the evidence is sufficient to enforce.
pub fn gate(evidence: &Evidence, thresholds: &Thresholds) -> Gate {
    let mut reasons = Vec::new();
    let more = |have: u32, required: u32| required.saturating_sub(have);
    if evidence.days_covered == 0 {
        reasons.push("no verified report has arrived yet".to_owned());
    }
    let left = more(evidence.clean_days, thresholds.clean_days);
    if left > 0 && evidence.days_covered > 0 {
        let worst = evidence
            .failures
            .first()
            .map(|(cause, count)| format!(", since senders reported {cause} ({})", times(*count)));
        reasons.push(format!("{} needed{}", days(left, "more clean day"), worst.unwrap_or_default()));
    }
    let left = more(evidence.days_in_testing, thresholds.days_in_testing);
    if left > 0 {
        reasons.push(format!("{} in testing needed", days(left, "more day")));
    }
    // Without clean sessions there is no failure rate yet.
    if evidence.clean_sessions > 0 && evidence.failure_rate_bound > thresholds.failure_rate {
        reasons.extend(too_quiet(evidence, thresholds));
    }
    if reasons.is_empty() { Gate::Ready } else { Gate::NotYet(reasons) }
}

/// Why a domain with too few sessions to bound its failure rate has to wait; `None` when it need not.
fn too_quiet(evidence: &Evidence, thresholds: &Thresholds) -> Option<String> {
    let probes = &evidence.probes;
    if evidence.days_in_testing < thresholds.quiet_days {
        return Some(format!(
            "{} clean sessions only bound the failure rate to {:.2} %, but {:.2} % is required (or {} days in testing)",
            evidence.clean_sessions,
            evidence.failure_rate_bound * 100.0,
            thresholds.failure_rate * 100.0,
            thresholds.quiet_days
        ));
    }
    if let (Some(day), Some(problem)) = (probes.last_bad, &probes.problem) {
        return Some(format!(
            "with so few sessions all probes of the MX hosts must succeed, and one failed on {} ({problem})",
            day.strftime("%Y-%m-%d")
        ));
    }
    (probes.days < thresholds.clean_days).then(|| {
        format!(
            "with so few sessions the MX hosts must be probed on {} (by the role [guard])",
            days(thresholds.clean_days.saturating_sub(probes.days), "more day")
        )
    })
}

fn days(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

#[cfg(test)]
mod tests;
