//! Discovery: the `_mta-sts` record.

use super::{Case, honored, ignored};
use crate::cases::good;
use crate::conformance::case::{Change, Check, Fate, Group::Discovery, Level, Phase};
use crate::dns::Rr;

const RECORD: &str = "RFC 8461 §3.1";

pub(super) fn cases() -> Vec<Case> {
    [valid(), invalid(), failing()].concat()
}

fn valid() -> Vec<Case> {
    let yes = |id, about| honored(id, Discovery, RECORD, about);
    vec![
        yes("record", "a usual record").checks(&[Check::RecordAsked, Check::Fetched]),
        yes("record-no-final-semicolon", "no semicolon at the end").record("v=STSv1; id=20260101000000"),
        yes("record-no-space", "no white space after the semicolon").record("v=STSv1;id=20260101000000;"),
        yes("record-white-space", "white space before the semicolons")
            .record("v=STSv1 ;\tid=20260101000000 ; ")
            .level(Level::Should),
        yes("record-two-strings", "a record of two character strings, cut in the middle of the id")
            .with(|s| s.sts_records = vec![vec!["v=STSv1; id=2026".into(), "0101000000;".into()]]),
        yes("record-cname", "the record is behind a CNAME").with(|s| s.record_by_cname = true),
        yes("record-other-texts", "other TXT records at the same name")
            .with(|s| s.sts_records.push(vec!["some other text".into()])),
        yes("record-unknown-field", "an unknown field after the id").record("v=STSv1; id=1; later=Yes-1/2;"),
        yes("record-unknown-first", "an unknown field before the id").record("v=STSv1; later=1; id=1;"),
        yes("record-id-32", "an id of 32 characters").record("v=STSv1; id=0123456789abcdefABCDEF0123456789;"),
        yes("record-id-letters", "an id of letters").record("v=STSv1; id=abcDEF;"),
        yes("record-wildcard", "the record comes from a DNS wildcard").with(|s| {
            s.sts_records.clear();
            s.extra.push(("*".into(), vec![text("v=STSv1; id=1;")]));
        }),
        a_label(),
    ]
}

/// A domain of its own name, since the label has to be a valid A-label.
fn a_label() -> Case {
    let mut case = honored(
        "record-a-label",
        Discovery,
        "RFC 8461 §3.1, RFC 5891",
        "a domain with an A-label (bücher.test)",
    );
    let setup = case.world.setup.clone();
    case.world = good("xn--bcher-kva", crate::case::Topic::Preflight, case.about);
    case.world.setup = setup;
    case
}

fn invalid() -> Vec<Case> {
    let no = |id, about| ignored(id, Discovery, RECORD, about);
    vec![
        no("record-missing", "a policy file, but no record").with(|s| s.sts_records.clear()),
        no("record-twice", "two valid records").with(|s| s.sts_records.push(vec!["v=STSv1; id=2;".into()])),
        no("record-at-apex", "the record is at the domain itself").with(|s| {
            s.sts_records.clear();
            s.extra.push((String::new(), vec![text("v=STSv1; id=1;")]));
        }),
        no("record-version-2", "a record of version STSv2").record("v=STSv2; id=1;"),
        no("record-version-10", "a record of version STSv10").record("v=STSv10; id=1;"),
        no("record-version-case", "the version in lower case").record("v=stsv1; id=1;"),
        no("record-version-later", "the version is not first").record("id=1; v=STSv1;"),
        no("record-no-id", "a record without id").record("v=STSv1;"),
        no("record-empty-id", "an empty id").record("v=STSv1; id=;"),
        no("record-id-33", "an id of 33 characters").record("v=STSv1; id=012345678901234567890123456789012;"),
        no("record-id-dashes", "an id with dashes").record("v=STSv1; id=2026-01-01;"),
        no("record-id-case", "the name of the field id in upper case").record("v=STSv1; ID=1;"),
        no("record-not-ascii", "a field with a letter outside ASCII")
            .record("v=STSv1; id=1; x=ü;")
            .level(Level::Should),
        no(
            "record-strings-with-space",
            "two character strings that are valid only with a space between them",
        )
        .with(|s| s.sts_records = vec![vec!["v=STSv1".into(), "id=1;".into()]]),
        ignored(
            "record-of-parent",
            Discovery,
            "RFC 8461 §3.4",
            "mail to a subdomain; only the parent has a policy",
        )
        .with(|s| s.extra.push(("sub".into(), vec![Rr::Mx(10, "mx1.record-of-parent.test.".into())])))
        .phases(vec![Phase::of(&[Fate::Tls, Fate::Clear]).below("sub")]),
    ]
}

fn failing() -> Vec<Case> {
    let fails = |id, about, change| {
        let phase = Phase::of(&[Fate::Tls, Fate::Clear]).beyond(&[Fate::Waits]).after(vec![change]);
        ignored(id, Discovery, "RFC 8461 §5.1", about).phases(vec![phase])
    };
    vec![
        fails(
            "record-servfail",
            "the query for the record gets SERVFAIL, and no policy is cached",
            Change::RecordFails,
        ),
        fails(
            "record-timeout",
            "the query for the record gets no response, and no policy is cached",
            Change::RecordTimesOut,
        ),
    ]
}

fn text(value: &str) -> Rr {
    Rr::Txt(vec![value.into()])
}
