//! The `_mta-sts` record (RFC 8461 §3.1).

use crate::catalogue::{Check, Severity};
use crate::finding::Findings;
use crate::{Subject, dns_trouble};
use formats::sts_record::{FieldFault, SelectError, StsNote};
use formats::{DomainName, PolicyId, StsRecord};
use net::dns::{Answer, Kind};

/// What there is of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    Valid,
    Invalid,
    Absent,
}

pub(crate) async fn check(subject: &Subject<'_>, findings: &mut Findings) -> Published {
    let Ok(name) = subject.domain.below("_mta-sts") else { return Published::Absent };
    let answer = match subject.checker.dns.lookup(&name, Kind::Txt).await {
        Ok(answer) => answer,
        Err(error) if error.is_absence() => {
            missing(subject, findings);
            return Published::Absent;
        }
        Err(error) => {
            dns_trouble(findings, &format!("the record {name}"), &error);
            return Published::Invalid;
        }
    };
    if let Some(target) = answer.aliases.last() {
        findings.add(
            Check::StsTxtCname,
            format!("{name} is delegated to {target}"),
            "Whoever runs that zone decides when senders fetch the policy.",
            [],
        );
    }
    match StsRecord::select(answer.texts()) {
        Ok(record) => {
            notes(&name, &record, findings);
            Published::Valid
        }
        Err(SelectError::None) => wrong_version(subject, &answer, findings),
        Err(SelectError::Multiple(count)) => {
            findings.add(
                Check::StsTxtMultiple,
                format!("{name} has {count} records of version STSv1"),
                "Senders take that as no policy at all. Keep one of them.",
                [example(subject)],
            );
            Published::Invalid
        }
        Err(SelectError::Invalid(error)) => {
            let check = match error.fault {
                FieldFault::NoId => Check::StsTxtIdMissing,
                FieldFault::BadId(_) => Check::StsTxtIdSyntax,
                _ => Check::StsTxtSyntax,
            };
            findings.add(
                check,
                format!("the record {name} is invalid at column {}: {}", error.column, error.fault),
                "Senders take that as no policy at all.",
                [example(subject)],
            );
            Published::Invalid
        }
    }
}

/// The record to paste, with an id of this moment.
fn example(subject: &Subject<'_>) -> String {
    let record = StsRecord::new(PolicyId::at(subject.checker.clock.now(), None));
    format!("_mta-sts.{}.  TXT  \"{record}\"", subject.domain)
}

fn missing(subject: &Subject<'_>, findings: &mut Findings) {
    findings.add(
        Check::StsTxtMissing,
        format!("there is no record _mta-sts.{}", subject.domain),
        "Without it no sender looks for a policy, and anyone on the path can strip TLS from mail to the domain. Put up the policy file first, in mode testing, then publish the record.",
        [example(subject)],
    );
}

fn wrong_version(subject: &Subject<'_>, answer: &Answer, findings: &mut Findings) -> Published {
    let slip =
        answer.texts().find(|text| text.get(..8).is_some_and(|head| head.eq_ignore_ascii_case(b"v=STSv1;")));
    match slip {
        Some(text) => {
            let shown: String = String::from_utf8_lossy(text).chars().take(60).collect();
            findings.add(
                Check::StsTxtVersionCase,
                format!("the record _mta-sts.{} begins {shown:?}", subject.domain),
                "The case counts: senders discard every record that does not begin with v=STSv1;",
                [example(subject)],
            );
            Published::Invalid
        }
        None => {
            missing(subject, findings);
            Published::Absent
        }
    }
}

fn notes(name: &DomainName, record: &StsRecord, findings: &mut Findings) {
    for note in &record.notes {
        match note {
            StsNote::SpaceBeforeDelimiter => findings.add(
                Check::StsTxtDelim,
                format!("{name} has white space before the first `;`"),
                "Some senders discard such a record.",
                [format!("{name}.  TXT  \"{record}\"")],
            ),
            StsNote::Repeated(field) => findings.add_as(
                Severity::Warning,
                Check::StsTxtSyntax,
                format!("{name} has the field {field:?} twice"),
                "The first counts. Keep one.",
                [format!("{name}.  TXT  \"{record}\"")],
            ),
            _ => {}
        }
    }
    if let Some((field, _)) = record.extensions.first() {
        findings.add(
            Check::StsTxtUnknown,
            format!("{name} has the unknown field {field:?}"),
            "Senders ignore it.",
            [],
        );
    }
}
