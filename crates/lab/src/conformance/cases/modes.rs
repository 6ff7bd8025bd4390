//! Domains under a policy in mode `testing` or `none`, or without one: mail has to arrive as without MTA-STS.

use super::{Case, elsewhere, naming_mx1, plain};
use crate::behavior::Behavior;
use crate::conformance::case::{Change, Fate, Group::Modes, Level, Phase};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;

const MODES: &str = "RFC 8461 §5";

pub(super) fn cases() -> Vec<Case> {
    let modes = [in_mode("testing"), in_mode("none")].concat();
    [modes.into_iter().map(Case::clear_as_well).collect(), without()].concat()
}

fn in_mode(mode: &'static str) -> Vec<Case> {
    // Names of rows are static, so both modes have theirs written out.
    let pick = |testing, none| if mode == "testing" { testing } else { none };
    let mode_of = |id: &'static str, about, change: fn(&mut crate::case::Mx)| {
        let body = naming_mx1(id, mode);
        plain(id, Modes, MODES, about).with(|s| {
            s.answers = HttpBehavior::Policy(body);
            s.mx.iter_mut().for_each(change);
        })
    };
    let other = |id: &'static str, about| {
        let body = elsewhere(id).replace("enforce", mode);
        plain(id, Modes, MODES, about).with(|s| s.answers = HttpBehavior::Policy(body))
    };
    let clear = |case: Case| case.phases(vec![Phase::of(&[Fate::Clear])]);
    vec![
        other(
            pick("testing-other-host", "none-other-host"),
            pick("mode testing; the policy names another host", "mode none; the policy names another host"),
        ),
        mode_of(
            pick("testing-expired", "none-expired"),
            pick("mode testing; an expired MX certificate", "mode none; an expired MX certificate"),
            |mx| {
                mx.cert = Cert::Expired;
            },
        ),
        mode_of(
            pick("testing-self-signed", "none-self-signed"),
            pick("mode testing; a self-signed MX certificate", "mode none; a self-signed MX certificate"),
            |mx| {
                mx.cert = Cert::SelfSigned;
            },
        ),
        mode_of(
            pick("testing-wrong-name", "none-wrong-name"),
            pick(
                "mode testing; an MX certificate for another host",
                "mode none; an MX certificate for another host",
            ),
            |mx| {
                mx.cert = Cert::WrongName;
            },
        ),
        clear(mode_of(
            pick("testing-no-starttls", "none-no-starttls"),
            pick("mode testing; no STARTTLS", "mode none; no STARTTLS"),
            |mx| {
                mx.behavior = Some(Behavior::NoStarttls);
            },
        )),
        clear(mode_of(
            pick("testing-stripped", "none-stripped"),
            pick("mode testing; an attacker strips STARTTLS", "mode none; an attacker strips STARTTLS"),
            |_| {},
        ))
        .phases(vec![Phase::of(&[Fate::Clear]).after(vec![Change::Strip("mx1")])]),
        plain(
            pick("testing-valid", "none-valid"),
            Modes,
            MODES,
            pick("mode testing; everything is valid", "mode none; everything is valid"),
        )
        .with(|s| s.answers = HttpBehavior::Policy(naming_mx1(pick("testing-valid", "none-valid"), mode))),
    ]
}

fn without() -> Vec<Case> {
    let mx = |id, about, change: fn(&mut crate::case::Mx)| {
        plain(id, Modes, "RFC 3207 §4.1, RFC 7435", about)
            .no_policy()
            .with(|s| s.mx.iter_mut().for_each(change))
            .level(Level::Should)
    };
    vec![
        mx("no-policy", "no policy; a valid MX host", |_| {}),
        mx("no-policy-self-signed", "no policy; a self-signed MX certificate", |mx| {
            mx.cert = Cert::SelfSigned
        })
        .beyond(&[Fate::Waits]),
        mx("no-policy-no-starttls", "no policy; no STARTTLS", |mx| mx.behavior = Some(Behavior::NoStarttls))
            .fates(&[Fate::Clear])
            .beyond(&[Fate::Waits]),
        mx("no-policy-handshake-breaks", "no policy; the TLS handshake fails", |mx| {
            mx.behavior = Some(Behavior::HandshakeBreaks);
        })
        .fates(&[Fate::Clear, Fate::Waits])
        .level(Level::May),
        mx("no-policy-alias", "no policy; the MX host is a CNAME", |mx| mx.alias = true),
    ]
}
