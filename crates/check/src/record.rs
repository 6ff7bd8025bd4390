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

/// Says that there is no record: an error where a policy host waits for one, else how to begin.
pub(crate) fn missing(subject: &Subject<'_>, host_is_there: bool, findings: &mut Findings) {
    let what = format!("there is no record _mta-sts.{}", subject.domain);
    if host_is_there {
        let why = "A policy host is there, and without the record no sender asks it: anyone on \
         the path can strip TLS from mail to the domain. When the policy file is \
         right, publish the record.";
        return findings.add(Check::StsTxtMissing, what, why, [example(subject)]);
    }
    let why = "MTA-STS lets senders insist on TLS to the domain; without it anyone on the \
     path can strip it. To begin, put up a policy file in mode testing, which \
     loses no mail, then publish the record.";
    let mx = subject.hosts.iter().map(|host| format!("mx: {host}"));
    let head = [
        format!("https://mta-sts.{}/.well-known/mta-sts.txt", subject.domain),
        "version: STSv1".to_owned(),
        "mode: testing".to_owned(),
    ];
    let remedy = head.into_iter().chain(mx).chain(["max_age: 86400".to_owned(), example(subject)]);
    findings.add_as(Severity::Info, Check::StsTxtMissing, what, why, remedy);
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
        None => Published::Absent,
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
