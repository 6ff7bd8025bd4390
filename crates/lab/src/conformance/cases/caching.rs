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
    [updates(), kept(), over_days(), attacks()].concat()
}

fn file(body: String) -> Change {
    Change::Policy(HttpBehavior::Policy(body), Cert::Good)
}

fn new_id() -> Change {
    Change::Record("v=STSv1; id=20260202000000;".into())
}

/// Two messages after these changes. A sender may learn of the change from the first one, which may have either fate.
fn learned(then: Vec<Change>, fate: Fate) -> [Phase; 2] {
    [Phase::of(&[Fate::Tls, Fate::Waits]).after(then), Phase::of(&[fate])]
}

/// Two messages after these changes, neither of which is delivered.
fn refused(then: Vec<Change>) -> [Phase; 2] {
    [Phase::of(&[Fate::Waits]).after(then), Phase::of(&[Fate::Waits])]
}

/// A first message with this fate, then others.
fn first(fate: Fate, then: [Phase; 2]) -> Vec<Phase> {
    [vec![Phase::of(&[fate])], then.to_vec()].concat()
}

/// A first message under a policy that the domain fulfills, then others after these changes.
fn from_valid(id: &'static str, source: &'static str, about: &'static str, then: [Phase; 2]) -> Case {
    plain(id, Caching, source, about).phases(first(Fate::Tls, then)).discriminates()
}

/// A first message under a policy that names another host, then others after these changes.
fn from_other(id: &'static str, source: &'static str, about: &'static str, then: [Phase; 2]) -> Case {
    let body = elsewhere(id);
    plain(id, Caching, source, about)
        .with(|s| s.answers = HttpBehavior::Policy(body))
        .phases(first(Fate::Waits, then))
        .discriminates()
}

/// The policy in this mode that names `mx1`, under a new id.
fn corrected(id: &str, mode: &str) -> [Phase; 2] {
    learned(vec![file(naming_mx1(id, mode)), new_id()], Fate::Tls)
}

/// A policy that names another host, with this record.
fn stricter(id: &str, record: &str) -> [Phase; 2] {
    learned(vec![file(elsewhere(id)), Change::Record(record.into())], Fate::Waits)
}

fn updates() -> Vec<Case> {
    const NEW: &str = "v=STSv1; id=20260202000000;";
    let testing = elsewhere("update-from-testing").replace("enforce", "testing");
    let three = [
        first(Fate::Tls, stricter("update-three-times", NEW)),
        learned(
            vec![file(naming_mx1("update-three-times", "enforce")), Change::Record("v=STSv1; id=3;".into())],
            Fate::Tls,
        )
        .to_vec(),
    ];
    vec![
        from_valid(
            "update-stricter",
            UPDATE,
            "a new id and a policy that names another host",
            stricter("update-stricter", NEW),
        ),
        from_other(
            "update-corrected",
            UPDATE,
            "a new id and a policy that names the MX host",
            corrected("update-corrected", "enforce"),
        ),
        from_other(
            "update-to-none",
            UPDATE,
            "a new id and a policy in mode none",
            corrected("update-to-none", "none"),
        ),
        from_other(
            "update-to-testing",
            UPDATE,
            "a new id and a policy in mode testing",
            corrected("update-to-testing", "testing"),
        ),
        from_valid(
            "update-from-testing",
            UPDATE,
            "mode testing, then a new id and mode enforce",
            stricter("update-from-testing", NEW),
        )
        .with(|s| s.answers = HttpBehavior::Policy(testing)),
        from_valid(
            "update-older-id",
            "RFC 8461 §3.1",
            "a new id that sorts before the former one",
            stricter("update-older-id", "v=STSv1; id=1;"),
        ),
        plain("update-three-times", Caching, UPDATE, "three policies, each with a new id")
            .phases(three.concat())
            .discriminates(),
        unchanged_id(),
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

/// The file changes without a new id.
fn unchanged_id() -> Case {
    let changed = vec![file(elsewhere("update-id-unchanged"))];
    plain(
        "update-id-unchanged",
        Caching,
        UPDATE,
        "the file changes and the id does not; the cached policy stays",
    )
    .level(Level::Should)
    .phases(vec![
        Phase::of(&[Fate::Tls]),
        Phase::of(&[Fate::Tls]).beyond(&[Fate::Waits]).after(changed).checks(&[Check::NotFetched]),
    ])
}

/// The policy lives for ten days. Record and policy host are withdrawn, and days pass by a moved clock. All these cases together
/// move it by less than the 30 days of the lab's DNSSEC signatures.
fn over_days() -> Vec<Case> {
    const DAY: u32 = 86_400;
    let case = |id: &'static str, about, then| {
        let body = policy_text("enforce", &[&format!("elsewhere.{id}.test")], "864000");
        from_other(id, "RFC 8461 §3.2, §5.1", about, then).with(|s| s.answers = HttpBehavior::Policy(body))
    };
    let gone = |days| vec![Change::NoRecord, Change::HostGone, Change::Pass(days * DAY)];
    vec![
        case(
            "clock-max-age-holds",
            "max_age is 10 days; record and policy host are gone for 8 days",
            refused(gone(8)),
        )
        .level(Level::Security),
        case(
            "clock-max-age-over",
            "max_age is 10 days; record and policy host are gone for 11 days",
            learned(gone(11), Fate::Tls),
        ),
    ]
}

/// The policy lives for four seconds and is then withdrawn.
fn expired() -> Case {
    let body = policy_text("enforce", &["elsewhere.cached-max-age-over.test"], "4");
    let gone = vec![Change::NoRecord, Change::HostGone, Change::Pass(6)];
    from_other(
        "cached-max-age-over",
        "RFC 8461 §3.2",
        "max_age is over, and record and policy host are gone",
        learned(gone, Fate::Tls),
    )
    .with(|s| s.answers = HttpBehavior::Policy(body))
}

fn kept() -> Vec<Case> {
    let kept = |id, about, then| from_other(id, CACHED, about, refused(then));
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
        let mut case = from_valid(id, ATTACK, about, refused(then)).level(Level::Security);
        for phase in case.phases.iter_mut().skip(1) {
            phase.checks = vec![Check::NothingInClear];
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
