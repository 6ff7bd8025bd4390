//! The failures on a domain's page: one entry for each result type and MX host, with its share of all sessions. Those that
//! still happen come first; the others are folded.

use crate::incidents::WorstDay;
use crate::text;
use formats::result_type::PolicyType;
use jiff::{SignedDuration, Timestamp};
use receiver::inbox::explain::{CauseContext, Explanation, explain};
use receiver::rollout::decisions::Decisions;
use serde::Serialize;
use store::reports::{CauseSum, FailureGroup};

/// A failure is over when its last day ended this long ago. Reports arrive up to two days after the day that they cover.
const RECENT: SignedDuration = SignedDuration::from_hours(24 * 4);

/// True if a day is so recent that what happened on it still happens.
pub fn is_recent(day: Timestamp, now: Timestamp) -> bool {
    day + RECENT > now
}

/// A cause of failures with its explanation, as it is exported.
#[derive(Serialize)]
pub struct ExportedFailure {
    #[serde(flatten)]
    cause: CauseSum,
    #[serde(flatten)]
    explanation: Explanation,
}

impl ExportedFailure {
    pub fn new(cause: &CauseSum, around: &CauseContext<'_>) -> Self {
        Self { explanation: explain(cause, around), cause: cause.clone() }
    }
}

/// An entry of the list.
pub struct Failure {
    pub group: FailureGroup,
    pub explanation: Explanation,
    /// The share of all sessions of the range; `None` for reports that do not count.
    pub share: Option<String>,
    pub is_excused: bool,
    /// True if it counts, is not excused, and was reported for one of the last days.
    pub is_current: bool,
}

/// The failures, those that still happen first. `sessions` is the number of all sessions that count.
pub fn failures(
    groups: Vec<FailureGroup>,
    around: &CauseContext<'_>,
    decisions: &Decisions,
    sessions: u64,
    now: Timestamp,
) -> Vec<Failure> {
    let mut all: Vec<Failure> = groups
        .into_iter()
        .map(|group| {
            let is_excused = decisions
                .excused
                .iter()
                .any(|excuse| excuse.cause.result == group.result_type && excuse.cause.host == group.host);
            Failure {
                explanation: explain(&as_cause(&group), around),
                share: text::percent(group.sessions, sessions).filter(|_| group.counts),
                is_current: group.counts && !is_excused && is_recent(group.last, now),
                is_excused,
                group,
            }
        })
        .collect();
    // The order within both parts stays: those that count first, then the most frequent.
    all.sort_by_key(|failure| !failure.is_current);
    all
}

/// The group as one cause. An address is only named if it is the only one.
fn as_cause(group: &FailureGroup) -> CauseSum {
    CauseSum {
        result_type: group.result_type.clone(),
        host: group.host.clone(),
        address: if group.addresses == 1 { group.address.clone() } else { String::new() },
        kind: PolicyType::Sts,
        sessions: group.sessions,
        senders: group.senders,
        sender: group.sender.clone(),
        first: group.first,
        last: group.last,
        report: group.report,
        counts: group.counts,
    }
}

/// The failures in one sentence.
pub fn summary(failed: u64, sessions: u64, worst: Option<&WorstDay>, current: usize, days: i64) -> String {
    let Some(share) = text::percent(failed, sessions) else {
        return format!("No verified report about the last {days} days has arrived.");
    };
    let sessions = text::counted(sessions, "session");
    if failed == 0 {
        return format!("None of {sessions} failed in the last {days} days.");
    }
    let still = match current {
        0 => "None of the causes still happens.".to_owned(),
        1 => "One cause still happens.".to_owned(),
        some => format!("{some} causes still happen."),
    };
    let worst = worst.map_or(String::new(), |worst| {
        format!(" The worst day was {}, with {}.", text::date(&worst.day), worst.share())
    });
    format!("{share} of {sessions} failed in the last {days} days.{worst} {still}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use receiver::rollout::decisions::Decision;
    use receiver::rollout::gate::Cause;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).unwrap()
    }

    fn group(result: &str, last: i64, counts: bool, addresses: u64) -> FailureGroup {
        FailureGroup {
            result_type: result.into(),
            host: "mx1.a.example".into(),
            counts,
            sessions: 5,
            senders: 1,
            sender: "big.example".into(),
            addresses,
            address: "192.0.2.1".into(),
            first: at(last - 3),
            last: at(last),
            report: 1,
        }
    }

    #[test]
    fn what_still_happens_comes_first_and_what_is_over_excused_or_unverified_is_folded() {
        let mut decisions = Decisions::default();
        let cause = Cause { result: "validation-failure".into(), host: "mx1.a.example".into() };
        decisions.excuse(cause, Decision { reason: "known".into(), who: "o".into(), at: at(1) });
        let groups = vec![
            group("certificate-expired", 90, true, 1),
            group("validation-failure", 99, true, 1),
            group("starttls-not-supported", 99, true, 40),
            group("certificate-not-trusted", 99, false, 1),
        ];
        let around = CauseContext { domain: "a.example", senders: &[], probes: &[] };
        let all = failures(groups, &around, &decisions, 1_000, at(100));
        let shown: Vec<_> = all
            .iter()
            .map(|one| (one.group.result_type.as_str(), one.is_current, one.share.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("starttls-not-supported", true, Some("0.50 %")),
                ("certificate-expired", false, Some("0.50 %")),
                ("validation-failure", false, Some("0.50 %")),
                ("certificate-not-trusted", false, None),
            ]
        );
        assert!(!all[0].explanation.what.contains("192.0.2.1"), "one of many: {}", all[0].explanation.what);
        assert!(all[1].explanation.what.contains("192.0.2.1"));
    }

    #[test]
    fn the_summary_says_how_much_fails_and_whether_it_still_does() {
        let worst = WorstDay { day: at(1), failed: 5_000, sessions: 25_000 };
        assert_eq!(summary(0, 0, None, 0, 90), "No verified report about the last 90 days has arrived.");
        assert_eq!(summary(0, 4_000, None, 0, 30), "None of 4,000 sessions failed in the last 30 days.");
        assert_eq!(
            summary(5_600, 1_000_000, Some(&worst), 1, 90),
            "0.56 % of 1,000,000 sessions failed in the last 90 days. The worst day was 1970-01-02, with 20.0 %. One cause still happens."
        );
    }
}
