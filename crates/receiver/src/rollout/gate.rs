//! Whether a domain in testing may go to enforce: a pure function of the reports, our own looks at the
//! MX hosts, the time in testing and the thresholds.
//!
//! What counts: reports with a verified signature (or that the operator vouches for), under a policy of
//! type `sts`. A day is *covered* when such a report has sessions for it, and *clean* when none of them
//! failed for a reason that the operator did not excuse. The clean run is the covered days since the last
//! failure. Over it, the upper bound of the failure rate at 95 % must be low enough; a quiet domain, which
//! never has the sessions for that, waits longer instead, with all our own looks good.

mod evidence;

pub use evidence::{Evidence, Probes, evidence, evidence_by_day};

use serde::{Deserialize, Serialize};
use std::fmt;

/// What has to hold before enforcement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Days since the testing policy was seen in place.
    pub days_in_testing: u32,
    /// Clean days without a failing one between them.
    pub clean_days: u32,
    /// The failure rate that 95 % confidence must exclude, as a fraction.
    pub failure_rate: f64,
    /// Days in testing after which a clean run of any size will do, when our own looks at the MX hosts
    /// were all good.
    pub quiet_days: u32,
}

impl Default for Thresholds {
    /// 14 days, 7 of them clean in a row, under 0.5 %, or 28 days for quiet domains.
    fn default() -> Self {
        Self { days_in_testing: 14, clean_days: 7, failure_rate: 0.005, quiet_days: 28 }
    }
}

/// A kind of failure at one MX host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// The result type's name.
    pub result: String,
    /// The MX host as the reports name it, empty when they do not.
    pub host: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_str() {
            "" => f.write_str(&self.result),
            host => write!(f, "{} at {host}", self.result),
        }
    }
}

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

/// The largest failure rate that `failures` out of `sessions` do not exclude at 95 % (one-sided
/// Clopper and Pearson); close to 3/n when nothing failed. 1 without sessions.
pub fn upper_bound(failures: u64, sessions: u64) -> f64 {
    if failures >= sessions {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_most(failures, sessions, middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// The chance of at most `failures` failures in `sessions` sessions that each fail at `rate`.
fn at_most(failures: u64, sessions: u64, rate: f64) -> f64 {
    let (n, odds) = (sessions as f64, (rate / (1.0 - rate)).ln());
    let mut term = n * (1.0 - rate).ln();
    let mut sum = term.exp();
    for k in 0..failures {
        term += ((n - k as f64) / (k as f64 + 1.0)).ln() + odds;
        sum += term.exp();
    }
    sum
}

#[cfg(test)]
mod tests;
