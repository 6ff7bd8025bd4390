//! The `_mta-sts` record (RFC 8461 §3.1).

use crate::catalogue::{Check, Severity};
use crate::finding::Findings;
use crate::{Subject, dns_trouble};
use formats::sts_record::{FieldFault, SelectError, StsNote};
use formats::{DomainName, StsRecord};
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
            missing(subject.domain, findings);
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
        Err(SelectError::None) => wrong_version(subject.domain, &answer, findings),
        Err(SelectError::Multiple(count)) => {
            findings.add(
                Check::StsTxtMultiple,
                format!("{name} has {count} records of version STSv1"),
                "Senders take that as no policy at all. Keep one of them.",
                [example(&name)],
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
                [example(&name)],
            );
            Published::Invalid
        }
    }
}

fn example(name: &DomainName) -> String {
    format!("{name}.  TXT  \"v=STSv1; id=20260101000000;\"")
}

fn missing(domain: &DomainName, findings: &mut Findings) {
    findings.add(
        Check::StsTxtMissing,
        format!("there is no record _mta-sts.{domain}"),
        "Without it no sender looks for a policy, and anyone on the path can strip TLS from mail to the domain. Put up the policy file first, in mode testing, then publish the record.",
        [format!("_mta-sts.{domain}.  TXT  \"v=STSv1; id=20260101000000;\"")],
    );
}

fn wrong_version(domain: &DomainName, answer: &Answer, findings: &mut Findings) -> Published {
    let slip =
        answer.texts().find(|text| text.get(..8).is_some_and(|head| head.eq_ignore_ascii_case(b"v=STSv1;")));
    match slip {
        Some(text) => {
            let shown: String = String::from_utf8_lossy(text).chars().take(60).collect();
            findings.add(
                Check::StsTxtVersionCase,
                format!("the record _mta-sts.{domain} begins {shown:?}"),
                "The case counts: senders discard every record that does not begin with v=STSv1;",
                [example_of(domain)],
            );
            Published::Invalid
        }
        None => {
            missing(domain, findings);
            Published::Absent
        }
    }
}

fn example_of(domain: &DomainName) -> String {
    format!("_mta-sts.{domain}.  TXT  \"v=STSv1; id=20260101000000;\"")
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
