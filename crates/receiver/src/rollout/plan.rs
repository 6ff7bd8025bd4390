//! From what is wanted and what is seen to ordered steps: a pure function (RFC 8461 §8.3).
//!
//! The order is the point. The policy host answers with the new file before the record announces
//! it (PUB-01); enforcement comes only after the same policy was seen in testing (PUB-05). An MX
//! host that is in use is never left out of the policy, and patterns that senders may have cached
//! are never taken away here (PUB-04): narrowing is for a later plan that knows what was served.

use formats::tlsrpt_record::{Rua, TlsrptRecord};
use formats::{DomainName, Mode, MxPattern, Policy, PolicyId};
use jiff::Timestamp;
use std::fmt;

/// Where a domain is to end up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The domain.
    pub domain: DomainName,
    /// Its MX hosts.
    pub mx: Vec<MxPattern>,
    /// The destination, not the next step.
    pub mode: Mode,
    /// Seconds while testing, and while retiring.
    pub max_age_testing: u32,
    /// Seconds when enforced.
    pub max_age_enforce: u32,
    /// Where reports go.
    pub rua: Vec<Rua>,
}

/// What is there, as a sender sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The MX hosts of the domain.
    pub mx: Vec<DomainName>,
    /// The `id` that `_mta-sts` announces.
    pub record: Option<PolicyId>,
    /// The policy that the policy host serves.
    pub served: Option<Policy>,
    /// Where `_smtp._tls` sends reports.
    pub rua: Vec<Rua>,
}

/// Whether enforcement is allowed: the gate's word or the operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It is not; testing at most.
    Testing,
    /// It is.
    Enforce,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Let the policy host answer with this file.
    Serve(Policy),
    /// Publish where reports go.
    AskForReports(TlsrptRecord),
    /// Announce the file under this `id`.
    Announce(PolicyId),
}

/// A step with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub step: Step,
    /// Why, and why now, in a sentence.
    pub why: &'static str,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serve(policy) => write!(f, "serve the policy of mode {}", policy.mode),
            Self::AskForReports(record) => write!(f, "publish _smtp._tls TXT \"{record}\""),
            Self::Announce(id) => write!(f, "publish _mta-sts TXT \"v=STSv1; id={id};\""),
        }
    }
}

/// The steps from here towards the wanted state; empty when nothing is to be done now.
pub fn plan(wanted: &Wanted, seen: &Seen, permit: Permit, now: Timestamp) -> Vec<Planned> {
    let mut steps = Vec::new();
    if !wanted.rua.is_empty() && wanted.rua != seen.rua {
        let step = Step::AskForReports(TlsrptRecord::new(wanted.rua.clone()));
        steps.push(Planned {
            step,
            why: "reports are wanted from the first day, so that testing shows something",
        });
    }
    let Some(policy) = next_policy(wanted, seen, permit) else { return steps };
    let current = seen.served.as_ref().is_some_and(|served| same(served, &policy));
    if !current {
        let step = Step::Serve(policy);
        steps.push(Planned { step, why: "the file has to be there before the record announces it" });
    }
    if !current || seen.record.is_none() {
        let step = Step::Announce(PolicyId::at(now, seen.record.as_ref()));
        steps.push(Planned { step, why: "senders fetch the file when they see a new id" });
    }
    steps
}

/// The policy to serve next; `None` when there is nothing to say (no MX to name).
fn next_policy(wanted: &Wanted, seen: &Seen, permit: Permit) -> Option<Policy> {
    let mode = next_mode(wanted, seen, permit);
    let max_age = if mode == Mode::Enforce { wanted.max_age_enforce } else { wanted.max_age_testing };
    let mut mx = wanted.mx.clone();
    let served = seen.served.iter().flat_map(|policy| policy.mx.clone());
    for pattern in seen.mx.iter().cloned().map(MxPattern::Exact).chain(served) {
        if !mx.iter().any(|known| known.covers(&pattern)) {
            mx.push(pattern);
        }
    }
    Policy::new(mode, max_age, mx)
}

fn next_mode(wanted: &Wanted, seen: &Seen, permit: Permit) -> Mode {
    if wanted.mode != Mode::Enforce || permit == Permit::Testing {
        return if wanted.mode == Mode::None { Mode::None } else { Mode::Testing };
    }
    let announced = seen.record.is_some();
    match &seen.served {
        Some(served) if announced && served.mode != Mode::None => Mode::Enforce,
        _ => Mode::Testing,
    }
}

fn same(one: &Policy, other: &Policy) -> bool {
    (one.mode, one.max_age, &one.mx) == (other.mode, other.max_age, &other.mx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn pattern(text: &str) -> MxPattern {
        MxPattern::parse(text).unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-24T13:30:00Z".parse().unwrap()
    }

    fn wanted() -> Wanted {
        Wanted {
            domain: domain("a.example"),
            mx: vec![pattern("mx1.a.example")],
            mode: Mode::Enforce,
            max_age_testing: 86_400,
            max_age_enforce: 604_800,
            rua: vec![Rua::parse("mailto:r@a.example").unwrap().unwrap()],
        }
    }

    /// What is seen after the steps were carried out.
    fn after(mut seen: Seen, steps: &[Planned]) -> Seen {
        for planned in steps {
            match &planned.step {
                Step::Serve(policy) => seen.served = Some(policy.clone()),
                Step::AskForReports(record) => seen.rua = record.rua.clone(),
                Step::Announce(id) => seen.record = Some(id.clone()),
            }
        }
        seen
    }

    fn position(steps: &[Planned], wanted: fn(&Step) -> bool) -> Option<usize> {
        steps.iter().position(|planned| wanted(&planned.step))
    }

    fn in_testing() -> Seen {
        after(Seen::default(), &plan(&wanted(), &Seen::default(), Permit::Testing, now()))
    }

    #[test]
    fn pub_01_the_file_is_served_before_the_record_announces_it() {
        for seen in [Seen::default(), in_testing()] {
            let steps = plan(&wanted(), &seen, Permit::Enforce, now());
            let serve = position(&steps, |step| matches!(step, Step::Serve(_))).unwrap();
            let announce = position(&steps, |step| matches!(step, Step::Announce(_))).unwrap();
            assert!(serve < announce);
        }
    }

    #[test]
    fn pub_05_enforce_comes_only_after_testing_was_seen() {
        let mode = |seen: &Seen, permit| {
            after(seen.clone(), &plan(&wanted(), seen, permit, now())).served.unwrap().mode
        };
        assert_eq!(mode(&Seen::default(), Permit::Enforce), Mode::Testing);
        let unannounced = Seen { record: None, ..in_testing() };
        assert_eq!(mode(&unannounced, Permit::Enforce), Mode::Testing);
        assert_eq!(mode(&in_testing(), Permit::Testing), Mode::Testing);
        assert_eq!(mode(&in_testing(), Permit::Enforce), Mode::Enforce);
    }

    #[test]
    fn pub_04_an_mx_in_use_is_never_left_out_and_served_patterns_stay() {
        let mut seen = in_testing();
        seen.mx = vec![domain("mx1.a.example"), domain("new.b.example")];
        seen.served.as_mut().unwrap().mx.push(pattern("*.old.example"));
        let policy = after(seen.clone(), &plan(&wanted(), &seen, Permit::Enforce, now())).served.unwrap();
        assert_eq!(policy.mx, [pattern("mx1.a.example"), pattern("new.b.example"), pattern("*.old.example")]);
    }

    #[test]
    fn sts_14_the_id_changes_with_the_file_and_only_then() {
        let testing = in_testing();
        assert_eq!(plan(&wanted(), &testing, Permit::Testing, now()), []);
        let enforced = after(testing.clone(), &plan(&wanted(), &testing, Permit::Enforce, now()));
        assert!(enforced.record.as_ref().unwrap().as_time() > testing.record.unwrap().as_time());
        assert_eq!(plan(&wanted(), &enforced, Permit::Enforce, now()), []);
    }

    #[test]
    fn pub_03_retiring_goes_through_mode_none_with_a_short_max_age_and_a_new_id() {
        let enforced = after(in_testing(), &plan(&wanted(), &in_testing(), Permit::Enforce, now()));
        let retire = Wanted { mode: Mode::None, ..wanted() };
        let steps = plan(&retire, &enforced, Permit::Enforce, now());
        let seen = after(enforced.clone(), &steps);
        let policy = seen.served.unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::None, 86_400));
        assert_ne!(seen.record, enforced.record);
    }

    #[test]
    fn a_withdrawn_permit_goes_back_to_testing() {
        let enforced = after(in_testing(), &plan(&wanted(), &in_testing(), Permit::Enforce, now()));
        let back = after(enforced.clone(), &plan(&wanted(), &enforced, Permit::Testing, now()));
        assert_eq!(back.served.unwrap().mode, Mode::Testing);
    }

    fn modes() -> impl Strategy<Value = Mode> {
        prop_oneof![Just(Mode::Enforce), Just(Mode::Testing), Just(Mode::None)]
    }

    proptest! {
        #[test]
        fn every_plan_settles_and_no_policy_ever_leaves_a_current_mx_out(
            goal in modes(), start in proptest::option::of(modes()), announced: bool, permit: bool,
            hosts in proptest::collection::vec("[a-c]\\.(x|y)\\.example", 0..4),
        ) {
            let wanted = Wanted { mode: goal, ..wanted() };
            let served = start.and_then(|mode| Policy::new(mode, 1000, vec![pattern("*.x.example")]));
            let record = announced.then(|| PolicyId::parse("1").unwrap());
            let mut seen = Seen { mx: hosts.iter().map(|h| domain(h)).collect(), record, served, rua: vec![] };
            let permit = if permit { Permit::Enforce } else { Permit::Testing };
            for _ in 0..4 {
                seen = after(seen.clone(), &plan(&wanted, &seen, permit, now()));
                let policy = seen.served.as_ref().unwrap();
                prop_assert!(seen.mx.iter().all(|host| policy.covers(host)));
            }
            prop_assert_eq!(plan(&wanted, &seen, permit, now()), []);
            let reached = if permit == Permit::Testing && goal == Mode::Enforce { Mode::Testing } else { goal };
            prop_assert_eq!(seen.served.unwrap().mode, reached);
        }
    }
}
