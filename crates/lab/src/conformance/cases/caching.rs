//! Several messages over time: changed policies, and what an attacker can do after the first contact.

use super::{Case, elsewhere, naming_mx1, plain};
use crate::cases::policy_text;
use crate::conformance::case::{Change, Check, Fate, Group::Caching, Level, Phase};
use crate::dns::Rr;
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;

const UPDATE: &str = "RFC 8461 §3.1, §3.3";
const CACHED: &str = "RFC 8461 §5.1";
const ATTACK: &str = "RFC 8461 §10.2";

pub(super) fn cases() -> Vec<Case> {
    [updates(), kept(), attacks()].concat()
}

fn file(body: String) -> Change {
    Change::Policy(HttpBehavior::Policy(body), Cert::Good)
}

fn new_id() -> Change {
    Change::Record("v=STSv1; id=20260202000000;".into())
}

/// A first message under a policy that the domain fulfills, then one after these changes.
fn from_valid(
    id: &'static str,
    source: &'static str,
    about: &'static str,
    then: Vec<Change>,
    fate: Fate,
) -> Case {
    plain(id, Caching, source, about).phases(vec![Phase::of(&[Fate::Tls]), Phase::of(&[fate]).after(then)])
}

/// A first message under a policy that the domain does not fulfill, then one after these changes.
fn from_other(
    id: &'static str,
    source: &'static str,
    about: &'static str,
    then: Vec<Change>,
    fate: Fate,
) -> Case {
    let body = elsewhere(id);
    plain(id, Caching, source, about)
        .with(|s| s.answers = HttpBehavior::Policy(body))
        .phases(vec![Phase::of(&[Fate::Waits]), Phase::of(&[fate]).after(then)])
        .discriminates()
}

fn updates() -> Vec<Case> {
    let stays = elsewhere("update-id-unchanged");
    vec![
        from_valid(
            "update-stricter",
            UPDATE,
            "a new id and a policy that names another host",
            vec![file(elsewhere("update-stricter")), new_id()],
            Fate::Waits,
        )
        .discriminates(),
        from_other(
            "update-corrected",
            UPDATE,
            "a new id and a policy that names the MX host",
            vec![file(naming_mx1("update-corrected", "enforce")), new_id()],
            Fate::Tls,
        ),
        from_other(
            "update-to-none",
            UPDATE,
            "a new id and a policy in mode none",
            vec![file(naming_mx1("update-to-none", "none")), new_id()],
            Fate::Tls,
        ),
        from_other(
            "update-to-testing",
            UPDATE,
            "a new id and a policy in mode testing",
            vec![file(naming_mx1("update-to-testing", "testing")), new_id()],
            Fate::Tls,
        ),
        plain("update-from-testing", Caching, UPDATE, "mode testing, then a new id and mode enforce")
            .with(|s| {
                s.answers =
                    HttpBehavior::Policy(elsewhere("update-from-testing").replace("enforce", "testing"))
            })
            .phases(vec![
                Phase::of(&[Fate::Tls]),
                Phase::of(&[Fate::Waits]).after(vec![file(elsewhere("update-from-testing")), new_id()]),
            ])
            .discriminates(),
        plain(
            "update-id-unchanged",
            Caching,
            UPDATE,
            "the file changes and the id does not; the cached policy stays",
        )
        .level(Level::Should)
        .phases(vec![
            Phase::of(&[Fate::Tls]),
            Phase::of(&[Fate::Tls])
                .beyond(&[Fate::Waits])
                .after(vec![file(stays)])
                .checks(&[Check::NotFetched]),
        ]),
        plain("update-three-times", Caching, UPDATE, "three policies, each with a new id")
            .phases(vec![
                Phase::of(&[Fate::Tls]),
                Phase::of(&[Fate::Waits]).after(vec![file(elsewhere("update-three-times")), new_id()]),
                Phase::of(&[Fate::Tls]).after(vec![
                    file(naming_mx1("update-three-times", "enforce")),
                    Change::Record("v=STSv1; id=3;".into()),
                ]),
            ])
            .discriminates(),
        plain("update-older-id", Caching, "RFC 8461 §3.1", "a new id that sorts before the one before")
            .phases(vec![
                Phase::of(&[Fate::Tls]),
                Phase::of(&[Fate::Waits])
                    .after(vec![file(elsewhere("update-older-id")), Change::Record("v=STSv1; id=1;".into())]),
            ])
            .discriminates(),
        plain(
            "cached-second-message",
            Caching,
            UPDATE,
            "two messages under one policy; the second needs no fetch",
        )
        .level(Level::Should)
        .phases(vec![Phase::of(&[Fate::Tls]), Phase::of(&[Fate::Tls]).checks(&[Check::NotFetched])]),
        expired(),
    ]
}

/// The policy lives for four seconds and is then withdrawn.
fn expired() -> Case {
    let body = policy_text("enforce", &["elsewhere.cached-max-age-over.test"], "4");
    plain(
        "cached-max-age-over",
        Caching,
        "RFC 8461 §3.2",
        "max_age is over, and record and policy host are gone",
    )
    .with(|s| s.answers = HttpBehavior::Policy(body))
    .phases(vec![
        Phase::of(&[Fate::Waits]),
        Phase::of(&[Fate::Tls]).after(vec![Change::NoRecord, Change::HostGone, Change::Pass(6)]),
    ])
    .discriminates()
}

fn kept() -> Vec<Case> {
    let kept = |id, about, then| from_other(id, CACHED, about, then, Fate::Waits);
    let bad = |answers| vec![Change::Policy(answers, Cert::Good), new_id()];
    vec![
        kept("cached-record-gone", "the record is removed", vec![Change::NoRecord]),
        kept(
            "cached-record-twice",
            "a second record appears",
            vec![Change::Records("_mta-sts", vec![text("v=STSv1; id=1;"), text("v=STSv1; id=2;")])],
        ),
        kept(
            "cached-record-invalid",
            "the record becomes invalid",
            vec![Change::Record("v=STSv1; id=not-an-id;".into())],
        ),
        kept("cached-record-servfail", "the query for the record gets SERVFAIL", vec![Change::RecordFails]),
        kept(
            "cached-record-timeout",
            "the query for the record gets no response",
            vec![Change::RecordTimesOut],
        ),
        kept(
            "cached-host-gone",
            "a new id, and the policy host closes connections",
            vec![new_id(), Change::HostGone],
        ),
        kept(
            "cached-host-name-gone",
            "a new id, and the policy host's name is gone",
            vec![new_id(), Change::HostNameGone],
        ),
        kept("cached-404", "a new id, and the policy file is gone", bad(HttpBehavior::Status(404))),
        kept(
            "cached-redirect",
            "a new id, and the policy host redirects",
            bad(HttpBehavior::Redirect("https://example.test/".into())),
        ),
        kept(
            "cached-invalid",
            "a new id, and the policy file is invalid",
            bad(HttpBehavior::Policy("version: STSv1\r\nmode: none\r\n".into())),
        ),
        kept(
            "cached-html",
            "a new id, and the policy host serves a page",
            bad(HttpBehavior::Typed("text/html", naming_mx1("cached-html", "none").into_bytes())),
        )
        .level(Level::Should),
        kept(
            "cached-all-gone",
            "record and policy host are gone before max_age is over",
            vec![Change::NoRecord, Change::HostNameGone, Change::HostGone],
        ),
        kept(
            "cached-restart",
            "the mail server is restarted, and record and policy host are gone",
            vec![Change::NoRecord, Change::HostGone, Change::Restart],
        )
        .level(Level::Should),
    ]
}

fn attacks() -> Vec<Case> {
    let attacked = |id, about, then| {
        let mut case =
            from_valid(id, ATTACK, about, then, Fate::Waits).level(Level::Security).discriminates();
        if let Some(last) = case.phases.last_mut() {
            last.checks = vec![Check::NothingInClear];
        }
        case
    };
    let served = |cert| {
        vec![
            Change::Policy(
                HttpBehavior::Policy("version: STSv1\r\nmode: none\r\nmax_age: 86400\r\n".into()),
                cert,
            ),
            new_id(),
            Change::Strip("mx1"),
        ]
    };
    vec![
        attacked("attack-strip", "after the first contact, STARTTLS is stripped", vec![Change::Strip("mx1")]),
        attacked(
            "attack-suppressed-record",
            "after the first contact, the record is suppressed and STARTTLS stripped",
            vec![Change::NoRecord, Change::Strip("mx1")],
        ),
        attacked(
            "attack-blocked-host",
            "after the first contact, a forged id, a blocked policy host, and STARTTLS stripped",
            vec![new_id(), Change::HostGone, Change::Strip("mx1")],
        ),
        attacked(
            "attack-forged-mx",
            "after the first contact, the MX record is forged",
            vec![Change::ForgedMx],
        ),
        attacked(
            "attack-forged-mx-suppressed",
            "after the first contact, the MX record is forged and the record suppressed",
            vec![Change::NoRecord, Change::ForgedMx],
        ),
        attacked(
            "attack-forged-policy",
            "after the first contact, an attacker serves mode none with a self-signed certificate",
            served(Cert::SelfSigned),
        ),
        attacked(
            "attack-other-certificate",
            "after the first contact, an attacker serves mode none with a certificate for another name",
            served(Cert::WrongName),
        ),
    ]
}

fn text(value: &str) -> Rr {
    Rr::Txt(vec![value.into()])
}
