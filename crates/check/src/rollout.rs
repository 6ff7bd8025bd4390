//! Checks of the rollout: whether the policy is ready for mode enforce, and the order of changes (RFC 8461 §5).

use crate::catalogue::{Check, Part, Severity};
use crate::finding::Findings;
use crate::known::Known;
use crate::observed::ObservedDomain;
use formats::Mode;

pub(crate) fn check(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    findings.mark_examined(&[Part::Rollout]);
    order(seen, known, findings);
    if seen.mode() != Mode::Testing {
        return;
    }
    let (what, why, remedy) = match &known.gate {
        Some((true, why)) => (
            format!("{} is ready for mode enforce: {why}", seen.domain),
            "In mode enforce, senders do not deliver to hosts that fail verification.".to_owned(),
            format!("sternpost promote {}", seen.domain),
        ),
        Some((false, why)) => (
            format!("{} is not ready for mode enforce yet: {why}", seen.domain),
            "This depends on the received reports and on the checks by Sternpost.".to_owned(),
            format!("sternpost status {}", seen.domain),
        ),
        None => (
            format!("one check can't determine whether {} is ready for mode enforce", seen.domain),
            missing(seen, findings),
            "sternpost reports import FILES   # received reports; then run sternpost status".to_owned(),
        ),
    };
    findings.add(Check::ReadyEnforce, what, why, [remedy]);
}

/// The obstacles that this check found, or the advice to collect reports.
fn missing(seen: &ObservedDomain, findings: &Findings) -> String {
    let refused = seen.hosts.iter().filter(|host| matches!(host.passes_pkix(), Some(Err(_)))).count();
    let uncovered = findings.has(Check::MatchNone) || findings.has(Check::MatchMxUncovered);
    match (refused, uncovered) {
        (0, false) => "This check found no obstacle. Before mode enforce, collect two weeks of reports, the last week of them \
                       without failures."
            .to_owned(),
        _ => format!(
            "The obstacle is {}. Fix it, then wait for a week of reports without failures.",
            if uncovered { "an MX host that the policy does not match" } else { "an MX host that fails verification" }
        ),
    }
}

/// Reports an id that was published before its file: the previous check saw the same id with a different file.
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
            format!("the id {id} was published before the policy file that it announces"),
            "Senders that fetched in between cache the old file under the new id until its max_age expires. Publish the \
             file first, then the id.",
            [format!("sternpost plan {}   # uses that order", seen.domain)],
        );
    }
}
