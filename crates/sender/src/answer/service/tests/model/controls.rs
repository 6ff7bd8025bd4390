//! Negative controls: faults that the service once had, or might get, put back one at a time. The oracle must find each,
//! or the model test proves nothing about it.

use super::play_all;
use crate::answer::decide::{Decision, DecisionInput, MxHosts, Source, decide};
use crate::answer::service::Rules;
use crate::answer::sts::EffectivePolicy;
use crate::answer::{Discovery, PolicyService};
use formats::DomainName;
use formats::tls_policy::{Answer, Level};
use std::time::Duration;
use store::policies::Fetched;

/// The sequences within which a fault must be found.
const SEQUENCES: u32 = 1000;

/// Plays sequences with a fault in place of [`decide`]; the failure must contain `what`.
fn expect_found(decide: fn(&DecisionInput<'_>) -> Decision, what: &str) {
    expect_failure(Rules { decide, ..Rules::default() }, what);
}

fn expect_failure(rules: Rules, what: &str) {
    let found = play_all(1, SEQUENCES, 0, rules).expect_err("the fault is not found");
    assert!(found.contains(what), "{found}");
}

#[test]
fn finds_that_an_mx_answer_without_hosts_strips_a_policy() {
    fn fault(facts: &DecisionInput<'_>) -> Decision {
        match facts.hosts {
            MxHosts::None => {
                decide(&DecisionInput { found: Some(&EffectivePolicy::None), policy_rest: None, ..*facts })
            }
            _ => decide(facts),
        }
    }
    expect_found(fault, "NOTFOUND");
}

#[test]
fn finds_that_nothing_is_refreshed_after_a_step_of_the_calendar() {
    fn fault(discovery: &Discovery) -> Vec<Fetched> {
        let before_all_steps = discovery.sets().first().map(|set| set.now);
        before_all_steps.into_iter().map(Fetched::at_any_time).collect()
    }
    let found = play_all(1, SEQUENCES, 0, Rules { sets: fault, ..Rules::default() });
    let found = found.expect_err("the fault is not found");
    assert!(found.contains("is not refreshed") || found.contains("is kept beyond its end"), "{found}");
}

#[test]
fn finds_that_a_policy_which_only_a_named_map_uses_is_not_refreshed() {
    fn fault(_: &PolicyService, domain: &DomainName) -> String {
        domain.to_string()
    }
    let found = play_all(1, SEQUENCES, 0, Rules { refresh_key: fault, ..Rules::default() });
    let found = found.expect_err("the fault is not found");
    assert!(found.contains("Named") || found.contains("is not refreshed"), "{found}");
}

#[test]
fn finds_that_a_pinned_policy_never_looks_at_dane_again() {
    fn fault(facts: &DecisionInput<'_>) -> Decision {
        let decision = decide(facts);
        match decision.source {
            Source::Override => Decision { recheck: Duration::MAX, ..decision },
            _ => decision,
        }
    }
    expect_found(fault, "Override");
}

#[test]
fn finds_that_every_answer_is_a_temporary_failure() {
    fn fault(facts: &DecisionInput<'_>) -> Decision {
        Decision { answer: Answer::Temp("later".to_owned()), ..decide(facts) }
    }
    expect_found(fault, "TEMP");
}

#[test]
fn finds_that_an_answer_by_dane_is_used_beyond_its_ttl() {
    fn fault(facts: &DecisionInput<'_>) -> Decision {
        let decision = decide(facts);
        match decision.source {
            Source::Dane => Decision { until: decision.until + Duration::from_secs(3600), ..decision },
            _ => decision,
        }
    }
    expect_found(fault, "Dane");
}

#[test]
fn finds_that_unknown_tlsa_records_count_as_absent() {
    fn fault(facts: &DecisionInput<'_>) -> Decision {
        match facts.hosts {
            MxHosts::Known(mut dane) => {
                dane.unknown = 0;
                decide(&DecisionInput { hosts: MxHosts::Known(dane), ..*facts })
            }
            _ => decide(facts),
        }
    }
    expect_found(fault, "is not one of");
}

#[test]
fn finds_that_a_policy_in_testing_is_answered_as_may() {
    fn fault(facts: &DecisionInput<'_>) -> Decision {
        let decision = decide(facts);
        match (&decision.answer, decision.source) {
            (Answer::NotFound | Answer::Reported(..), Source::MtaSts) => {
                Decision { answer: Answer::Level(Level::May, None), ..decision }
            }
            _ => decision,
        }
    }
    expect_found(fault, "may");
}
