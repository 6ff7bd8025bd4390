//! Checks of the `_mta-sts` TXT record (RFC 8461 §3.1): presence, syntax, id and TTL, and changes since the
//! previous check.

use crate::catalogue::{Check, Part, Severity};
use crate::causes::Cause;
use crate::causes::near_record::{NearRecord, RecordKind, repair};
use crate::finding::Findings;
use crate::known::{Known, Previous};
use crate::observed::ObservedDomain;
use formats::printable::printable;
use formats::sts_record::{FieldError, SelectError, StsNote};
use formats::{DomainName, Mode, PolicyId, StsRecord};
use net::dns::Answer;

const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

pub(crate) fn check(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    let name = format!("_mta-sts.{}", seen.domain);
    findings.mark_examined(&[Part::Record]);
    let answer = match &seen.record {
        Ok(answer) => answer,
        Err(error) if error.is_absence() => {
            return missing(seen, findings);
        }
        Err(error) => return findings.dns_failure(&format!("the record {name}"), error),
    };
    if let Some(target) = answer.aliases.last() {
        findings.add(
            Check::StsTxtCname,
            format!("{name} is delegated to {target}"),
            "The operator of that zone controls when senders fetch the policy.",
            [],
        );
    }
    let records = answer.texts().map(|text| format!("{name}.  TXT  {:?}", String::from_utf8_lossy(text)));
    match StsRecord::select(answer.texts()) {
        Ok(record) => {
            findings.mark_examined(&[Part::RecordText]);
            good(seen, &name, answer, &record, findings);
            history(seen, known, &record.id, findings);
        }
        Err(SelectError::None) => {
            match closest(RecordKind::Sts, answer, &seen.domain, &new_id(seen)) {
                Some((text, near)) => invalid(seen, &name, &text, None, &near, findings),
                None => missing(seen, findings),
            }
            findings.attach_evidence(records);
        }
        Err(SelectError::Multiple(count)) => {
            findings.add(
                Check::StsTxtMultiple,
                format!("{name} has {count} records of version STSv1"),
                "Senders then assume that there is no policy. Keep one record and remove the others.",
                [example(seen)],
            );
            findings.attach_evidence(records);
        }
        Err(SelectError::Invalid(error)) => {
            if let Some((text, near)) = closest(RecordKind::Sts, answer, &seen.domain, &new_id(seen)) {
                invalid(seen, &name, &text, Some(&error), &near, findings);
            }
            findings.attach_evidence(records);
        }
    }
}

/// The record of an answer that comes closest to the expected one, and what it was meant to be. One of another protocol
/// counts only where there is no other.
pub(crate) fn closest(
    kind: RecordKind,
    answer: &Answer,
    domain: &DomainName,
    fallback: &str,
) -> Option<(String, NearRecord)> {
    let found = answer.texts().filter_map(|text| {
        let near = repair(kind, text, domain, fallback)?;
        Some((printable(&String::from_utf8_lossy(text), SHOWN), near))
    });
    found.min_by_key(|(_, near)| (near.cause() == Some(Cause::OtherProtocol), near.slips.len()))
}

/// The most characters of a record in a sentence.
pub(crate) const SHOWN: usize = 200;

/// Reports a record that senders do not accept.
fn invalid(
    seen: &ObservedDomain,
    name: &str,
    text: &str,
    error: Option<&FieldError>,
    near: &NearRecord,
    findings: &mut Findings,
) {
    let Some(cause) = near.cause() else { return };
    let check = match cause {
        Cause::OtherProtocol | Cause::NoVersion | Cause::WrongVersion => Check::StsTxtVersion,
        Cause::VersionCase => Check::StsTxtVersionCase,
        Cause::Backslash | Cause::Quotes => Check::StsTxtQuotes,
        Cause::NoId => Check::StsTxtIdMissing,
        Cause::IdForm => Check::StsTxtIdSyntax,
        _ => Check::StsTxtSyntax,
    };
    if check == Check::StsTxtVersion && cause == Cause::OtherProtocol && !seen.has_policy_host() {
        return foreign(seen, name, text, near, findings);
    }
    let what = match error {
        Some(error) => format!("the record {name} is invalid at column {}: {}", error.column, error.fault),
        None => format!("senders do not recognize the record {name}: {text}"),
    };
    findings.add_as(
        Severity::Error,
        check,
        what,
        "Senders ignore such a record and assume that there is no policy. Replace it by the corrected one, which keeps its \
         values:",
        [format!("{name}.  TXT  \"{}\"", near.corrected)],
    );
    findings.name_cause(cause, near.told());
}

/// Reports a record of another protocol for a domain without any part of MTA-STS.
fn foreign(seen: &ObservedDomain, name: &str, text: &str, near: &NearRecord, findings: &mut Findings) {
    findings.add_as(
        Severity::Info,
        Check::StsTxtVersion,
        format!("the record {name} is one of another protocol: {text}"),
        "Senders ignore it here. It may come from a wildcard record. MTA-STS lets senders require TLS to the domain; without \
         it, anyone on the path can strip TLS. `sternpost init` and `sternpost plan` deploy it in the safe order.",
        begin(seen),
    );
    findings.name_cause(Cause::OtherProtocol, near.told());
}

fn new_id(seen: &ObservedDomain) -> String {
    PolicyId::at(seen.now, None).to_string()
}

/// The record to paste, with the current time as its id.
fn example(seen: &ObservedDomain) -> String {
    let record = StsRecord::new(PolicyId::at(seen.now, None));
    format!("_mta-sts.{}.  TXT  \"{record}\"", seen.domain)
}

/// Reports a missing record: an error where a policy host exists, else information on how to begin.
fn missing(seen: &ObservedDomain, findings: &mut Findings) {
    let others = seen.record.as_ref().map_or(0, |answer| answer.texts().count());
    let what = match others {
        0 => format!("there is no record _mta-sts.{}", seen.domain),
        1 => format!("there is no MTA-STS record at _mta-sts.{}, only an unrelated one", seen.domain),
        _ => format!("there is no MTA-STS record among the {others} TXT records at _mta-sts.{}", seen.domain),
    };
    if let Some((name, text)) = seen.strays.first() {
        findings.add(
            Check::StsTxtApex,
            format!("{name} has the record that belongs at _mta-sts.{}: {text}", seen.domain),
            "Senders query only the name with the underscore. Publish the record there.",
            [example(seen)],
        );
    }
    if seen.has_policy_host() {
        let why = "A policy host exists, but without the record no sender fetches the policy, and anyone on the path can \
         strip TLS from mail to the domain. When the policy file is correct, publish the record.";
        return findings.add(Check::StsTxtMissing, what, why, [example(seen)]);
    }
    let why = "MTA-STS lets senders require TLS to the domain; without it, anyone on the path can strip TLS. Begin with a \
     policy file in mode testing, which loses no mail, then publish the record. `sternpost init` and `sternpost \
     plan` do this in the safe order.";
    findings.add_as(Severity::Info, Check::StsTxtMissing, what, why, begin(seen));
    if seen.host.is_catch_all {
        let what = format!(
            "{} has an address by a wildcard record only, as every name below {}.",
            seen.host.name, seen.domain
        );
        findings.name_cause(Cause::CatchAll, what);
    }
}

/// The first steps to MTA-STS.
fn begin(seen: &ObservedDomain) -> Vec<String> {
    let mx = seen.hosts.iter().map(|host| format!("mx: {}", host.name));
    let head = [
        format!("# 1. Serve this file at https://mta-sts.{}/.well-known/mta-sts.txt", seen.domain),
        "version: STSv1".to_owned(),
        "mode: testing".to_owned(),
    ];
    let end = [
        "max_age: 86400".to_owned(),
        "# 2. Then publish this record".to_owned(),
        example(seen),
        "# Or let Sternpost do both, beginning with".to_owned(),
        format!("sternpost init {}", seen.domain),
    ];
    head.into_iter().chain(mx).chain(end).collect()
}

/// Reports what the parser noted; each note is a finding.
pub(crate) fn notes(name: &str, record: &StsRecord, findings: &mut Findings) {
    for note in &record.notes {
        match note {
            StsNote::SpaceBeforeDelimiter => findings.add(
                Check::StsTxtDelim,
                format!("{name} has white space before the first `;`"),
                "Some senders discard such a record. Remove the white space.",
                [format!("{name}.  TXT  \"{record}\"")],
            ),
            StsNote::Repeated(field) => findings.add_as(
                Severity::Warning,
                Check::StsTxtSyntax,
                format!("{name} has the field {field:?} twice"),
                "Senders use the first one. Remove the other.",
                [format!("{name}.  TXT  \"{record}\"")],
            ),
        }
    }
}

fn good(seen: &ObservedDomain, name: &str, answer: &Answer, record: &StsRecord, findings: &mut Findings) {
    notes(name, record, findings);
    if let Some((field, value)) = record.extensions.first() {
        let is_quoted = value.contains(['"', '\\']);
        let check = if is_quoted { Check::StsTxtQuotes } else { Check::StsTxtUnknown };
        findings.add(check, format!("{name} has the unknown field {field:?}"), "Senders ignore it.", []);
    }
    if answer.is_split {
        findings.add(
            Check::StsTxtSplit,
            format!("{name} is split into several strings, which together are {record}"),
            "Senders join the strings without spaces. This is valid as long as the joined record is correct.",
            [],
        );
    }
    id(seen, name, &record.id, findings);
    let ttl = answer.ttl.as_secs();
    let most = if seen.mode() == Mode::Testing { HOUR } else { DAY };
    if ttl > most {
        findings.add(
            Check::StsTxtTtl,
            format!("{name} has a TTL of {ttl} seconds"),
            "Senders notice a new id only after that time, so a policy change reaches them that much later.",
            [format!("{name}.  {HOUR}  TXT  \"{record}\"")],
        );
    }
    if seen.is_wildcard {
        findings.add(
            Check::StsTxtWildcard,
            format!("the record {name} is synthesized from a wildcard: a random name next to it has one as well"),
            "The record also appears at unrelated names, and it disappears with the wildcard. Publish it explicitly.",
            [format!("{name}.  TXT  \"{record}\"")],
        );
    }
}

fn id(seen: &ObservedDomain, name: &str, id: &PolicyId, findings: &mut Findings) {
    match id.as_time() {
        None => findings.add(
            Check::StsTxtIdStyle,
            format!("the id of {name} is {id}, which is not a timestamp"),
            "Any letters and digits are valid, as long as they change with the policy. A UTC timestamp never repeats.",
            [example(seen)],
        ),
        Some(time) if time > net::clock::later(seen.now, jiff::SignedDuration::from_hours(24)) => findings.add(
            Check::StsTxtIdFuture,
            format!("the id of {name} is {id}, a timestamp in the future"),
            "Senders only compare ids for equality, so nothing breaks. But the next id from the clock will be smaller, \
             which misleads people and programs that expect ids to grow.",
            [example(seen)],
        ),
        Some(_) => {}
    }
}

/// Compares the id and the policy file with the previous check.
fn history(seen: &ObservedDomain, known: &Known, id: &PolicyId, findings: &mut Findings) {
    let (Some(Previous { id: before, file, at }), Some(now)) = (&known.previous, &seen.policy.file) else {
        return;
    };
    let name: Option<DomainName> = seen.domain.below("_mta-sts").ok();
    let name = name.map(|name| name.to_string()).unwrap_or_default();
    if file != now && before == id {
        findings.add(
            Check::StsTxtUnchanged,
            format!("the policy file changed since {at}, but the id of {name} is still {id}"),
            "Senders with the old policy in their cache may keep it until its max_age expires. Publish a new id.",
            [example(seen)],
        );
    }
    if file == now && before != id {
        findings.add(
            Check::StsTxtChanged,
            format!("the id of {name} changed from {before} to {id} since {at}, but the policy file did not"),
            "Senders fetch the same file again, which is harmless. If the policy was meant to change, it has not changed yet.",
            [],
        );
    }
}
