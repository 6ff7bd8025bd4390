//! The syntax of the policy file.

use super::{Case, honored, ignored};
use crate::conformance::case::{Group::Policy, Level};
use crate::policy_host::HttpBehavior;

const SYNTAX: &str = "RFC 8461 §3.2";

pub(super) fn cases() -> Vec<Case> {
    [valid(), invalid()].concat()
}

/// `NAME` is the domain's label; the lines end in CRLF unless the text has its own CR.
fn body(id: &str, text: &str) -> HttpBehavior {
    HttpBehavior::Policy(text.replace("NAME", id))
}

fn valid() -> Vec<Case> {
    let yes = |id, about, text: &str| {
        let answers = body(id, text);
        honored(id, Policy, SYNTAX, about).with(|s| s.answers = answers)
    };
    vec![
        yes(
            "policy-lf",
            "lines end in LF",
            "version: STSv1\nmode: enforce\nmx: elsewhere.NAME.test\nmax_age: 604800\n",
        ),
        yes(
            "policy-no-final-newline",
            "the last line has no end",
            "version: STSv1\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 604800",
        ),
        yes(
            "policy-mixed-ends",
            "some lines end in CRLF, others in LF",
            "version: STSv1\r\nmode: enforce\nmx: elsewhere.NAME.test\r\nmax_age: 604800\n",
        ),
        yes(
            "policy-order",
            "the keys in another order",
            "max_age: 604800\r\nmx: elsewhere.NAME.test\r\nmode: enforce\r\nversion: STSv1\r\n",
        )
        .level(Level::Should),
        yes(
            "policy-unknown-key",
            "an unknown key",
            "version: STSv1\r\nmode: enforce\r\nlater_key: some value: 1\r\nmx: elsewhere.NAME.test\r\nmax_age: 604800\r\n",
        ),
        yes(
            "policy-mode-twice",
            "a second mode line, which is ignored",
            "version: STSv1\r\nmode: enforce\r\nmode: none\r\nmx: elsewhere.NAME.test\r\nmax_age: 604800\r\n",
        ),
        yes(
            "policy-trailing-space",
            "white space at the end of lines",
            "version: STSv1 \r\nmode: enforce\t\r\nmx: elsewhere.NAME.test  \r\nmax_age: 604800 \r\n",
        ),
        yes(
            "policy-no-space",
            "no white space after the colons",
            "version:STSv1\r\nmode:enforce\r\nmx:elsewhere.NAME.test\r\nmax_age:604800\r\n",
        ),
        yes(
            "policy-much-space",
            "much white space after the colons",
            "version:   STSv1\r\nmode: \t enforce\r\nmx:    elsewhere.NAME.test\r\nmax_age:  604800\r\n",
        ),
        yes(
            "policy-several-mx",
            "three mx lines, none of which matches",
            "version: STSv1\r\nmode: enforce\r\nmx: a.NAME.test\r\nmx: b.NAME.test\r\nmx: *.c.NAME.test\r\nmax_age: 604800\r\n",
        ),
        yes(
            "policy-long-max-age",
            "max_age over a year",
            "version: STSv1\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 9999999999\r\n",
        ),
        yes(
            "policy-short-max-age",
            "a max_age of an hour",
            "version: STSv1\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 3600\r\n",
        ),
        yes(
            "policy-max-age-zeros",
            "max_age with leading zeros",
            "version: STSv1\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 0000604800\r\n",
        ),
    ]
}

fn invalid() -> Vec<Case> {
    let no = |id, about, text: &str| {
        let answers = body(id, text);
        ignored(id, Policy, SYNTAX, about).with(|s| s.answers = answers)
    };
    vec![
        no(
            "policy-no-version",
            "no version",
            "mode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 604800\r\n",
        ),
        no(
            "policy-version-2",
            "version STSv2",
            "version: STSv2\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 604800\r\n",
        ),
        no(
            "policy-version-case",
            "the version in lower case",
            "version: stsv1\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 604800\r\n",
        ),
        no("policy-no-mode", "no mode", "version: STSv1\r\nmx: elsewhere.NAME.test\r\nmax_age: 604800\r\n"),
        no(
            "policy-mode-case",
            "a capitalized mode",
            "version: STSv1\r\nmode: Enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 604800\r\n",
        ),
        no(
            "policy-mode-unknown",
            "an unknown mode",
            "version: STSv1\r\nmode: enforced\r\nmx: elsewhere.NAME.test\r\nmax_age: 604800\r\n",
        ),
        no(
            "policy-no-max-age",
            "no max_age",
            "version: STSv1\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\n",
        ),
        no(
            "policy-max-age-unit",
            "max_age with a unit",
            "version: STSv1\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 7d\r\n",
        ),
        no(
            "policy-max-age-negative",
            "a negative max_age",
            "version: STSv1\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: -604800\r\n",
        ),
        no(
            "policy-max-age-11-digits",
            "max_age of eleven digits",
            "version: STSv1\r\nmode: enforce\r\nmx: elsewhere.NAME.test\r\nmax_age: 00000604800\r\n",
        )
        .level(Level::Should),
        no("policy-no-mx", "no mx line", "version: STSv1\r\nmode: enforce\r\nmax_age: 604800\r\n"),
        no("policy-empty", "an empty file", ""),
        no("policy-html", "an HTML page as text/plain", "<!DOCTYPE html>\n<title>Not found</title>\n"),
        no(
            "policy-key-case",
            "the keys in upper case",
            "VERSION: STSv1\r\nMODE: enforce\r\nMX: elsewhere.NAME.test\r\nMAX_AGE: 604800\r\n",
        )
        .level(Level::Should),
        no(
            "policy-equals",
            "equals signs instead of colons",
            "version=STSv1\r\nmode=enforce\r\nmx=elsewhere.NAME.test\r\nmax_age=604800\r\n",
        ),
        no(
            "policy-one-line",
            "all fields on one line, as in a record",
            "version: STSv1; mode: enforce; mx: elsewhere.NAME.test; max_age: 604800\r\n",
        ),
    ]
}
