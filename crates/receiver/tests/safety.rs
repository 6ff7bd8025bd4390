//! Checks the safety theorem of docs/safety.md over every state that the planner, the senders and the world can reach
//! within the bounds given there. The model is in `safety/world.rs`. Each premise that the first check takes for granted is
//! dropped in a further one.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "safety/world.rs"]
mod world;

use formats::limits::POLICY_SLACK;
use formats::{Mode, MxPattern};
use jiff::SignedDuration;
use stateright::{Checker, HasDiscoveries, Model};
use sternpost_receiver::rollout::observed::ObservedState;
use sternpost_receiver::rollout::outside::Outside;
use sternpost_receiver::rollout::plan::{PlannedStep, Step, next};
use sternpost_receiver::rollout::state::RolloutState;
use world::{BOUND, ENDLESS, MISLED, Observer, Planner, Premises, REFUSED, TICK, World, id, policy};

fn check(world: World, until: HasDiscoveries) -> impl Checker<World> {
    assert_eq!(POLICY_SLACK.as_secs(), u64::from(TICK));
    world.checker().threads(2).finish_when(until).spawn_bfs().join()
}

/// Checks the planner itself under these premises, and prints the size.
fn proves(premises: Premises) {
    let begun = std::time::Instant::now();
    let world = World { planner: next, observer: |_, seen| seen, premises };
    let checker = check(world, HasDiscoveries::AnyFailures);
    println!(
        "{premises:?}: {} states, {} unique, depth {}, {} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs()
    );
    checker.assert_properties();
}

const NO_PREMISE_DROPPED: Premises = Premises {
    wildcards: false,
    two_addresses: false,
    two_appliers: false,
    late_steps: false,
    foreign_changes: 0,
};

#[test]
fn pub_02_no_conforming_sender_ever_refuses_mail_whatever_it_holds() {
    proves(NO_PREMISE_DROPPED);
}

#[test]
fn pub_02_wildcards_change_nothing() {
    proves(Premises { wildcards: true, ..NO_PREMISE_DROPPED });
}

#[test]
#[ignore = "minutes and gigabytes: ./test all"]
fn a_second_address_of_the_policy_host_that_lags_or_fails_changes_nothing() {
    proves(Premises { two_addresses: true, ..NO_PREMISE_DROPPED });
}

#[test]
#[ignore = "minutes and gigabytes: ./test all"]
fn a_second_applier_that_finishes_a_step_of_an_old_plan_changes_nothing() {
    proves(Premises { two_appliers: true, ..NO_PREMISE_DROPPED });
}

#[test]
#[ignore = "minutes and gigabytes: ./test all"]
fn hosts_that_others_add_are_refused_only_until_every_policy_names_them() {
    proves(Premises { foreign_changes: 1, ..NO_PREMISE_DROPPED });
}

/// Checks that the model check finds a wrong order; otherwise the checks above would prove nothing.
fn finds(property: &'static str, planner: Planner) {
    finds_under(NO_PREMISE_DROPPED, property, planner, |_, seen| seen);
}

fn finds_under(premises: Premises, property: &'static str, planner: Planner, observer: Observer) {
    let until = HasDiscoveries::AnyOf([property].into());
    let world = World { planner, observer, premises };
    assert!(check(world, until).discovery(property).is_some(), "not found: {property}");
}

#[test]
fn the_checker_finds_a_record_that_is_announced_before_the_file() {
    finds(MISLED, |desired, rollout, seen, permit, now| match next(desired, rollout, seen, permit, now) {
        PlannedStep::Do(Step::Serve(_)) if rollout.announce_due => PlannedStep::Do(Step::Announce(id(1))),
        PlannedStep::Do(Step::Announce(_)) if seen.record.is_some() => PlannedStep::Done,
        other => other,
    });
}

#[test]
fn the_checker_finds_a_file_that_is_changed_without_a_new_id() {
    finds(MISLED, |desired, rollout, seen, permit, now| match next(desired, rollout, seen, permit, now) {
        PlannedStep::Do(Step::Announce(_)) if seen.record.is_some() => PlannedStep::Done,
        other => other,
    });
}

#[test]
fn the_checker_finds_an_mx_host_that_takes_mail_too_early() {
    finds(REFUSED, |desired, rollout, seen, permit, now| {
        let careless =
            RolloutState { published: rollout.newest().cloned().into_iter().collect(), ..rollout.clone() };
        next(desired, &careless, seen, permit, now)
    });
}

#[test]
fn the_checker_finds_a_pattern_that_is_dropped_too_early() {
    finds(REFUSED, |desired, rollout, seen, permit, now| {
        let long_ago = now - SignedDuration::from_hours(24);
        let mut hasty = rollout.clone();
        hasty.gone.clear();
        hasty.unused.iter_mut().for_each(|unused| unused.since = long_ago);
        next(desired, &hasty, seen, permit, now)
    });
}

#[test]
fn the_checker_finds_a_policy_that_is_removed_too_early() {
    finds(BOUND, |desired, rollout, seen, permit, now| match desired.mode {
        Mode::None => next(desired, &RolloutState::default(), seen, permit, now),
        _ => next(desired, rollout, seen, permit, now),
    });
}

#[test]
fn the_checker_finds_a_step_that_is_not_recorded_before_it_is_taken() {
    finds(REFUSED, |desired, rollout, seen, permit, now| {
        let mut forgetful = rollout.clone();
        forgetful.published.retain(|promise| seen.served.as_ref().is_none_or(|served| promise.is(served)));
        next(desired, &forgetful, seen, permit, now)
    });
}

#[test]
fn the_checker_finds_a_wildcard_that_is_replaced_by_the_wanted_hosts_alone() {
    let premises = Premises { wildcards: true, ..NO_PREMISE_DROPPED };
    let planner: Planner =
        |desired, rollout, seen, permit, now| match next(desired, rollout, seen, permit, now) {
            PlannedStep::Do(Step::Serve(mut policy)) if policy.mode == Mode::Enforce => {
                let is_wild = |pattern: &MxPattern| matches!(pattern, MxPattern::Wildcard(_));
                let had_wildcard = rollout.newest().is_some_and(|newest| newest.mx.iter().any(is_wild));
                if had_wildcard && !desired.mx.is_empty() {
                    policy.mx = desired.mx.clone();
                }
                PlannedStep::Do(Step::Serve(policy))
            }
            other => other,
        };
    finds_under(premises, REFUSED, planner, |_, seen| seen);
}

#[test]
fn the_checker_finds_a_planner_that_looks_at_one_address_only() {
    let premises = Premises { two_addresses: true, ..NO_PREMISE_DROPPED };
    let observer: Observer = |state, seen| {
        let served = state.served[0].as_ref().map(policy).filter(|_| !seen.copies.is_empty());
        ObservedState { served, copies: Vec::new(), outside: Outside::default(), ..seen }
    };
    finds_under(premises, REFUSED, next, observer);
}

#[test]
fn the_checker_finds_an_address_that_fails_and_is_taken_for_one_that_serves_nothing_old() {
    let premises = Premises { two_addresses: true, ..NO_PREMISE_DROPPED };
    let observer: Observer = |_, mut seen| {
        seen.outside.addresses.retain(|view| view.fault.is_none());
        if let [only] = seen.copies.as_slice() {
            seen.served = Some(only.clone());
        }
        seen
    };
    finds_under(premises, REFUSED, next, observer);
}

#[test]
fn the_checker_finds_steps_of_an_old_applier_that_end_arbitrarily_late() {
    let premises = Premises { two_appliers: true, late_steps: true, ..NO_PREMISE_DROPPED };
    finds_under(premises, REFUSED, next, |_, seen| seen);
}

#[test]
fn the_checker_finds_a_planner_that_ignores_hosts_of_others() {
    let premises = Premises { foreign_changes: 1, ..NO_PREMISE_DROPPED };
    let planner: Planner = |desired, rollout, seen, permit, now| {
        let mut blind = seen.clone();
        let is_wanted = |host: &formats::DomainName| desired.mx.iter().any(|pattern| pattern.matches(host));
        if desired.mode == Mode::Enforce && !desired.mx.is_empty() {
            blind.mx.retain(is_wanted);
        }
        next(desired, rollout, &blind, permit, now)
    };
    finds_under(premises, ENDLESS, planner, |_, seen| seen);
}
