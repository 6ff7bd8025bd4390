//! Whether a domain in testing may go to enforce: a pure function of the reports, our own looks at the
//! MX hosts, the time in testing and the thresholds.
//!
//! What counts: reports with a verified signature (or that the operator vouches for), under a policy of
//! type `sts`. A day is *covered* when such a report has sessions for it, and *clean* when none of them
//! failed for a reason that the operator did not excuse. The clean run is the covered days since the last
//! failure. Over it, the upper bound of the failure rate at 95 % must be low enough; a quiet domain, which
//! never has the sessions for that, waits longer instead, with all our own looks good.

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

/// The gate's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reasons")]
pub enum Gate {
    /// Enforcement is backed by evidence.
    Ready,
    /// Not yet; each reason is a phrase, the most telling first.
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

/// Opens or keeps shut.
pub fn gate(evidence: &Evidence, wanted: &Thresholds) -> Gate {
    let mut reasons = Vec::new();
    let more = |have: u32, want: u32| want.saturating_sub(have);
    if evidence.days_covered == 0 {
        reasons.push("no verified report has come yet".to_owned());
    }
    let left = more(evidence.clean_days, wanted.clean_days);
    if left > 0 && evidence.days_covered > 0 {
        let worst = evidence
            .failures
            .first()
            .map(|(cause, count)| format!(", since senders met {cause} ({})", times(*count)));
        reasons.push(format!("{} needed{}", days(left, "more clean day"), worst.unwrap_or_default()));
    }
    let left = more(evidence.days_in_testing, wanted.days_in_testing);
    if left > 0 {
        reasons.push(format!("{} in testing needed", days(left, "more day")));
    }
    // Without a clean session there is no rate to speak of yet.
    if evidence.clean_sessions > 0 && evidence.failure_rate_bound > wanted.failure_rate {
        reasons.extend(too_quiet(evidence, wanted));
    }
    if reasons.is_empty() { Gate::Ready } else { Gate::NotYet(reasons) }
}

/// Why a domain without the sessions to bound its failure rate has to wait.
fn too_quiet(evidence: &Evidence, wanted: &Thresholds) -> Option<String> {
    let probes = &evidence.probes;
    if evidence.days_in_testing < wanted.quiet_days {
        return Some(format!(
            "{} clean sessions bound the failure rate to {:.2} % only, where {:.2} % is needed (or {} days in testing)",
            evidence.clean_sessions,
            evidence.failure_rate_bound * 100.0,
            wanted.failure_rate * 100.0,
            wanted.quiet_days
        ));
    }
    if let (Some(day), Some(problem)) = (probes.last_bad, &probes.problem) {
        return Some(format!(
            "with so few sessions all looks at the MX hosts have to be good, and on {} one was not ({problem})",
            day.strftime("%Y-%m-%d")
        ));
    }
    (probes.days < wanted.clean_days).then(|| {
        format!(
            "with so few sessions the MX hosts have to be looked at on {} ([guard] does that)",
            days(wanted.clean_days.saturating_sub(probes.days), "more day")
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
