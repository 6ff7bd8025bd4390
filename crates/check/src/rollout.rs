//! What is next for the policy (RFC 8461 §5).

use crate::catalogue::{Check, Part, Severity};
use crate::finding::Findings;
use crate::known::Known;
use crate::observed::ObservedDomain;
use formats::Mode;

pub(crate) fn check(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    findings.looked_at(&[Part::Rollout]);
    order(seen, known, findings);
    if seen.mode() != Mode::Testing {
        return;
    }
    let (what, why, remedy) = match &known.gate {
        Some((true, why)) => (
            format!("{} is ready to be enforced: {why}", seen.domain),
            "Senders then refuse what is not verified.".to_owned(),
            format!("sternpost promote {}", seen.domain),
        ),
        Some((false, why)) => (
            format!("{} is not ready to be enforced yet: {why}", seen.domain),
            "The reports and our own looks decide.".to_owned(),
            format!("sternpost status {}", seen.domain),
        ),
        None => (
            format!("whether {} may be enforced can't be told from one look", seen.domain),
            missing(seen, findings),
            "sternpost reports import FILES   # reports that came; then sternpost status".to_owned(),
        ),
    };
    findings.add(Check::ReadyEnforce, what, why, [remedy]);
}

/// What stands in the way by this look, or that reports are missing.
fn missing(seen: &ObservedDomain, findings: &Findings) -> String {
    let refused = seen.hosts.iter().filter(|host| matches!(host.passes_pkix(), Some(Err(_)))).count();
    let uncovered = findings.has(Check::MatchNone) || findings.has(Check::MatchMxUncovered);
    match (refused, uncovered) {
        (0, false) => "Today nothing stands in the way. What counts is a fortnight of reports by those who send to you, \
                       the last week without a failure."
            .to_owned(),
        _ => format!(
            "Today {} in the way. Mend that, then wait for a clean week of reports.",
            if uncovered { "an MX host that the policy does not name stands" } else { "a bad MX host stands" }
        ),
    }
}

/// A record that changed before the file did: seen when the next look finds the new file under the same id.
fn order(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    let (Some(previous), Some(id), Some(file)) = (&known.previous, &seen.policy.id, &seen.policy.file) else {
        return;
    };
    let stamped = |id: &formats::PolicyId| id.as_time();
    let is_after = stamped(id).is_some_and(|time| time <= previous.at);
    if previous.id == *id && previous.file != *file && is_after {
        findings.add_as(
            Severity::Warning,
            Check::ReadyIdOrder,
            format!("the id {id} was there before the file that it announces"),
            "Senders that looked in between hold the old file under the new id, and keep it for max_age. The file \
             comes first, then the id.",
            [format!("sternpost plan {}   # does it in that order", seen.domain)],
        );
    }
}
