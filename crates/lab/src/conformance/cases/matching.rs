//! The names of MX hosts against the patterns of the policy.

use super::{Case, elsewhere, plain};
use crate::case::{Mx, NoMx};
use crate::cases::{policy_text, second};
use crate::conformance::case::{Check, Fate, Group::Matching, Level};
use crate::dns::Rr;
use crate::policy_host::HttpBehavior;

const MATCH: &str = "RFC 8461 §4.1";

pub(super) fn cases() -> Vec<Case> {
    [covered(), uncovered(), several(), implicit()].concat()
}

/// A domain with one MX host of this label, and a policy in mode `enforce` with these `mx` lines. `NAME` is the domain's
/// label.
fn of(id: &'static str, about: &'static str, label: &'static str, lines: &[&str]) -> Case {
    let lines: Vec<String> = lines.iter().map(|line| line.replace("NAME", id)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let body = policy_text("enforce", &lines, "604800");
    plain(id, Matching, MATCH, about).with(|s| {
        s.mx.iter_mut().for_each(|mx| mx.label = label);
        s.answers = HttpBehavior::Policy(body);
    })
}

fn covered() -> Vec<Case> {
    vec![
        of("match-name", "the policy names the MX host", "mx1", &["mx1.NAME.test"]),
        of("match-wildcard", "a wildcard covers the MX host's label", "mx1", &["*.NAME.test"]),
        of("match-upper-case", "the mx line is in upper case", "mx1", &["MX1.NAME.TEST"]),
        of(
            "match-second-line",
            "the second of three mx lines matches",
            "mx1",
            &["a.NAME.test", "mx1.NAME.test", "*.b.NAME.test"],
        ),
        of("match-a-label", "the MX host has an A-label", "xn--mx-fka", &["xn--mx-fka.NAME.test"]),
        of(
            "match-alias",
            "the MX host is a CNAME; the policy names the host of the MX record",
            "mx1",
            &["mx1.NAME.test"],
        )
        .with(|s| s.mx.iter_mut().for_each(|mx| mx.alias = true)),
        of("match-digits", "the MX host's label begins with digits", "10-mx", &["10-mx.NAME.test"]),
    ]
}

fn uncovered() -> Vec<Case> {
    let no =
        |id, about, label, lines: &[&str]| of(id, about, label, lines).fates(&[Fate::Waits]).discriminates();
    vec![
        no("match-other-host", "the policy names another host", "mx1", &["mx2.NAME.test"]),
        no("match-deep", "a wildcard would have to cover two labels", "a.b", &["*.NAME.test"]),
        no("match-suffix", "the MX host's name ends with the policy's", "my-mx1", &["mx1.NAME.test"]),
        no(
            "match-prefix",
            "the MX host's name is shorter than the policy's",
            "mx1",
            &["mx1.NAME.test.example"],
        ),
        no("match-parent", "the policy names the domain, not the MX host below it", "mx1", &["NAME.test"]),
        no("match-other-domain", "the policy's wildcard is of another domain", "mx1", &["*.example.test"]),
        no(
            "match-alias-target",
            "the MX host is a CNAME; the policy names its target",
            "mx1",
            &["real.NAME.test"],
        )
        .with(|s| s.mx.iter_mut().for_each(|mx| mx.alias = true)),
        no(
            "match-apex",
            "the MX host is the domain itself, which a wildcard does not cover",
            "mx1",
            &["*.NAME.test"],
        )
        .with(|s| {
            s.mx.clear();
            s.no_mx = NoMx::Implicit;
            s.extra.push((String::new(), vec![Rr::Mx(10, "match-apex.test.".into())]));
        }),
        no("match-address", "the only mx line is an IPv4 address", "mx1", &["192.0.2.1"])
            .level(Level::Should),
    ]
}

fn several() -> Vec<Case> {
    let two = |id, about, lines: &[&str], change: fn(&mut Mx)| {
        of(id, about, "mx1", lines).with(|s| s.mx.push(second(change)))
    };
    vec![
        two("match-order", "two MX hosts that the policy names", &["mx1.NAME.test", "mx2.NAME.test"], |_| {})
            .checks(&[Check::DeliveredTo("mx1")]),
        two("match-second-host", "the policy names only the second MX host", &["mx2.NAME.test"], |_| {})
            .checks(&[Check::DeliveredTo("mx2")])
            .discriminates(),
        two("match-no-host", "two MX hosts, and the policy names neither", &["mx3.NAME.test"], |_| {})
            .fates(&[Fate::Waits])
            .discriminates(),
        two(
            "match-only-down",
            "the host that the policy names is down, the other one is up",
            &["mx2.NAME.test"],
            |mx| {
                mx.behavior = None;
            },
        )
        .fates(&[Fate::Waits])
        .discriminates(),
    ]
}

fn implicit() -> Vec<Case> {
    let bare = |case: Case| case.with(|s| s.mx.clear());
    vec![
        bare(of("match-implicit", "no MX record: the policy names the domain itself", "mx1", &["NAME.test"])),
        bare(of(
            "match-implicit-other",
            "no MX record: the policy names another host",
            "mx1",
            &["mx1.NAME.test"],
        ))
        .fates(&[Fate::Waits])
        .discriminates(),
        plain("match-null-mx", Matching, "RFC 7505 §3", "a null MX beside a policy")
            .with(|s| {
                s.mx.clear();
                s.no_mx = NoMx::Null;
                s.answers = HttpBehavior::Policy(elsewhere("match-null-mx"));
            })
            .fates(&[Fate::Bounced, Fate::Waits]),
    ]
}
