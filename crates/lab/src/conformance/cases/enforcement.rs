//! Enforcement: what the MX host has to show under a policy in mode `enforce`.

use super::{Case, plain};
use crate::behavior::Behavior;
use crate::case::Mx;
use crate::cases::{policy_text, second};
use crate::conformance::case::{Change, Check, Fate, Group::Enforcement, Ipv6, Level, Phase};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;

const VALIDATION: &str = "RFC 8461 §4.2";
const APPLICATION: &str = "RFC 8461 §5";

pub(super) fn cases() -> Vec<Case> {
    [certificates(), sessions(), several(), valid()].concat()
}

fn fails(id: &'static str, source: &'static str, about: &'static str) -> Case {
    plain(id, Enforcement, source, about).fates(&[Fate::Waits]).level(Level::Security).discriminates()
}

fn certificates() -> Vec<Case> {
    let bad = |id, about, kind| {
        fails(id, VALIDATION, about).with(|s| s.mx.iter_mut().for_each(|mx| mx.cert = kind))
    };
    vec![
        bad("enforce-expired", "the MX certificate has expired", Cert::Expired),
        bad("enforce-not-yet-valid", "the MX certificate is not valid yet", Cert::NotYetValid),
        bad("enforce-wrong-name", "the MX certificate is for another host", Cert::WrongName),
        bad("enforce-self-signed", "the MX certificate is self-signed", Cert::SelfSigned),
        bad("enforce-untrusted", "the MX certificate is issued by an unknown CA", Cert::Untrusted),
        bad("enforce-chain-cut", "the MX host leaves out the intermediate certificate", Cert::ChainCut),
        bad("enforce-common-name", "the host name is only in the common name", Cert::CommonNameOnly)
            .level(Level::Must),
        bad(
            "enforce-deep-wildcard",
            "a wildcard certificate that would have to match two labels",
            Cert::DeepWildcard,
        ),
        bad("enforce-client-certificate", "the MX certificate is for TLS clients only", Cert::ForClientsOnly)
            .level(Level::Should),
    ]
}

fn sessions() -> Vec<Case> {
    let does = |id, about, behavior| {
        fails(id, APPLICATION, about)
            .with(|s| s.mx.iter_mut().for_each(|mx| mx.behavior = Some(behavior)))
            .checks(&[Check::NothingInClear])
    };
    vec![
        does("enforce-no-starttls", "the MX host does not offer STARTTLS", Behavior::NoStarttls),
        does(
            "enforce-starttls-refused",
            "the MX host offers STARTTLS and replies 454",
            Behavior::StarttlsRefused,
        )
        .passed_by_some(),
        does(
            "enforce-handshake-breaks",
            "the MX host closes the connection in the handshake",
            Behavior::HandshakeBreaks,
        )
        .passed_by_some(),
        does("enforce-tls10", "the MX host supports TLS 1.0 only", Behavior::OldTls).passed_by_some(),
        does("enforce-garbage", "the MX host answers the ClientHello with text", Behavior::Garbage)
            .passed_by_some(),
        fails("enforce-stripped", "RFC 8461 §10.1", "an attacker strips STARTTLS").phases(vec![
            Phase::of(&[Fate::Waits]).after(vec![Change::Strip("mx1")]).checks(&[Check::NothingInClear]),
        ]),
    ]
}

/// Two MX hosts that the policy names.
fn two(case: Case, first: impl Fn(&mut Mx), other: impl Fn(&mut Mx)) -> Case {
    let id = case.id;
    case.with(|s| {
        let names = [format!("mx1.{id}.test"), format!("mx2.{id}.test")];
        let lines: Vec<&str> = names.iter().map(String::as_str).collect();
        s.answers = HttpBehavior::Policy(policy_text("enforce", &lines, "604800"));
        s.mx.iter_mut().for_each(first);
        s.mx.push(second(other));
    })
}

fn several() -> Vec<Case> {
    let reached = |id, about| {
        plain(id, Enforcement, APPLICATION, about)
            .checks(&[Check::DeliveredTo("mx2"), Check::NothingInClear])
            .discriminates()
    };
    let expired = |mx: &mut Mx| mx.cert = Cert::Expired;
    let clear = |mx: &mut Mx| mx.behavior = Some(Behavior::NoStarttls);
    vec![
        two(
            reached(
                "enforce-second-certificate",
                "the first MX certificate has expired, the second is valid",
            ),
            expired,
            |_| {},
        ),
        two(
            reached("enforce-second-starttls", "the first MX host has no STARTTLS, the second has"),
            clear,
            |_| {},
        ),
        two(fails("enforce-both", APPLICATION, "no MX host has a valid certificate"), expired, expired),
        two(
            fails(
                "enforce-mixed",
                APPLICATION,
                "one MX host has an expired certificate, the other no STARTTLS",
            ),
            expired,
            clear,
        )
        .checks(&[Check::NothingInClear]),
        two(
            plain(
                "enforce-first-down",
                Enforcement,
                APPLICATION,
                "the first MX host is down, the second is valid",
            ),
            |mx| mx.behavior = None,
            |_| {},
        )
        .checks(&[Check::DeliveredTo("mx2")]),
        two(
            fails(
                "enforce-valid-down",
                APPLICATION,
                "the valid MX host is down, the other has an expired certificate",
            ),
            |mx| mx.behavior = None,
            expired,
        ),
    ]
}

fn valid() -> Vec<Case> {
    let yes = |id, about| plain(id, Enforcement, VALIDATION, about);
    let mx = |case: Case, change: fn(&mut Mx)| case.with(|s| s.mx.iter_mut().for_each(change));
    vec![
        yes("enforce", "a valid MX host").checks(&[Check::MxSni, Check::NothingInClear]),
        mx(yes("enforce-wildcard-certificate", "a wildcard certificate for the MX host's label"), |mx| {
            mx.cert = Cert::Wildcard;
        }),
        yes("enforce-ipv6", "the MX host has an IPv6 address only; then an attacker strips STARTTLS")
            .ipv6("mx1", Ipv6::Only)
            .phases(vec![
                Phase::of(&[Fate::Tls]).checks(&[Check::MxSni]),
                Phase::of(&[Fate::Waits]).after(vec![Change::Strip("mx1")]).checks(&[Check::NothingInClear]),
            ])
            .level(Level::Security)
            .discriminates(),
        mx(yes("enforce-tls12", "the MX host supports TLS 1.2 at most"), |mx| {
            mx.behavior = Some(Behavior::OnlyTls12);
        }),
        mx(yes("enforce-only-with-sni", "the MX host shows its own certificate only with SNI"), |mx| {
            mx.behavior = Some(Behavior::OnlyWithSni);
        })
        .checks(&[Check::MxSni]),
        mx(
            yes(
                "enforce-alias-certificate",
                "the MX host is a CNAME; its certificate has the name of the MX record",
            ),
            |mx| {
                mx.alias = true;
            },
        ),
    ]
}
