//! The `_mta-sts` record (RFC 8461 §3.1).

use crate::catalogue::{Check, Part, Severity};
use crate::finding::Findings;
use crate::known::{Known, Previous};
use crate::observed::ObservedDomain;
use formats::sts_record::{FieldFault, SelectError, StsNote};
use formats::{DomainName, Mode, PolicyId, StsRecord};
use net::dns::Answer;

const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

pub(crate) fn check(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    let name = format!("_mta-sts.{}", seen.domain);
    findings.looked_at(&[Part::Record]);
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
            "Whoever runs that zone decides when senders fetch the policy.",
            [],
        );
    }
    let records = answer.texts().map(|text| format!("{name}.  TXT  {:?}", String::from_utf8_lossy(text)));
    match StsRecord::select(answer.texts()) {
        Ok(record) => {
            findings.looked_at(&[Part::RecordText]);
            good(seen, &name, answer, &record, findings);
            history(seen, known, &record.id, findings);
        }
        Err(SelectError::None) => {
            if !wrong_version(seen, answer, findings) {
                missing(seen, findings);
            }
            findings.seen_by(records);
        }
        Err(SelectError::Multiple(count)) => {
            findings.add(
                Check::StsTxtMultiple,
                format!("{name} has {count} records of version STSv1"),
                "Senders take that as no policy at all. Keep one of them.",
                [example(seen)],
            );
            findings.seen_by(records);
        }
        Err(SelectError::Invalid(error)) => {
            let quoted = answer.texts().any(|text| text.contains(&b'"') || text.contains(&b'\\'));
            let check = match error.fault {
                _ if quoted => Check::StsTxtQuotes,
                FieldFault::NoId => Check::StsTxtIdMissing,
                FieldFault::BadId(_) => Check::StsTxtIdSyntax,
                _ => Check::StsTxtSyntax,
            };
            findings.add_as(
                Severity::Error,
                check,
                format!("the record {name} is invalid at column {}: {}", error.column, error.fault),
                "Senders take that as no policy at all.",
                [example(seen)],
            );
            findings.seen_by(records);
        }
    }
}

/// The record to paste, with an id of this moment.
fn example(seen: &ObservedDomain) -> String {
    let record = StsRecord::new(PolicyId::at(seen.now, None));
    format!("_mta-sts.{}.  TXT  \"{record}\"", seen.domain)
}

/// Says that there is no record: an error where a policy host waits for one, else how to begin.
fn missing(seen: &ObservedDomain, findings: &mut Findings) {
    let what = format!("there is no record _mta-sts.{}", seen.domain);
    if let Some((name, text)) = seen.strays.first() {
        findings.add(
            Check::StsTxtApex,
            format!("{name} has what belongs to _mta-sts.{}: {text}", seen.domain),
            "Senders ask for the name with the underscore, and for no other.",
            [example(seen)],
        );
    }
    let mx = seen.hosts.iter().map(|host| format!("mx: {}", host.name));
    let head = [
        format!("https://mta-sts.{}/.well-known/mta-sts.txt", seen.domain),
        "version: STSv1".to_owned(),
        "mode: testing".to_owned(),
    ];
    if !seen.host.is_nowhere() {
        let why = "A policy host is there, and without the record no sender asks it: anyone on \
         the path can strip TLS from mail to the domain. When the policy file is \
         right, publish the record.";
        return findings.add(Check::StsTxtMissing, what, why, [example(seen)]);
    }
    let why = "MTA-STS lets senders insist on TLS to the domain; without it anyone on the path can strip it. To \
     begin, put up a policy file in mode testing, which loses no mail, then publish the record. `sternpost init` \
     and `sternpost plan` do it in the safe order.";
    let begin = [
        "max_age: 86400".to_owned(),
        example(seen),
        format!("sternpost init {0} >> sternpost.toml   # or by one program", seen.domain),
    ];
    findings.add_as(Severity::Info, Check::StsTxtMissing, what, why, head.into_iter().chain(mx).chain(begin));
}

/// Says which slip is in the version, if there is one.
fn wrong_version(seen: &ObservedDomain, answer: &Answer, findings: &mut Findings) -> bool {
    let slip = answer.texts().find_map(|text| {
        let shown: String = String::from_utf8_lossy(text).chars().take(100).collect();
        let bare = shown.trim_start_matches(['"', '\'', '\\', ' ']);
        let is_quoted = bare.len() != shown.len() || shown.contains('"');
        let version = bare.get(..8).unwrap_or_default().to_ascii_lowercase();
        match () {
            () if !version.starts_with("v=stsv1") => None,
            () if is_quoted => Some((Check::StsTxtQuotes, shown)),
            () => Some((Check::StsTxtVersionCase, shown)),
        }
    });
    let Some((check, shown)) = slip else { return false };
    let why = match check {
        Check::StsTxtQuotes => {
            "Quotes and backslashes belong to the zone file, not to the value: a panel has put them into it. \
             Senders discard every record that does not begin with v=STSv1;"
        }
        _ => "The case counts: senders discard every record that does not begin with v=STSv1;",
    };
    let what = format!("the record _mta-sts.{} is {shown}", seen.domain);
    findings.add_as(Severity::Error, check, what, why, [example(seen)]);
    true
}

fn good(seen: &ObservedDomain, name: &str, answer: &Answer, record: &StsRecord, findings: &mut Findings) {
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
    if let Some((field, value)) = record.extensions.first() {
        let is_quoted = value.contains(['"', '\\']);
        let check = if is_quoted { Check::StsTxtQuotes } else { Check::StsTxtUnknown };
        findings.add(check, format!("{name} has the unknown field {field:?}"), "Senders ignore it.", []);
    }
    if answer.is_split {
        findings.add(
            Check::StsTxtSplit,
            format!("{name} comes in several strings, together {record}"),
            "Senders join them; it is fine as long as nothing is lost where they meet.",
            [],
        );
    }
    id(seen, name, &record.id, findings);
    let ttl = answer.ttl.as_secs();
    let most = if seen.mode() == Mode::Testing { HOUR } else { DAY };
    if ttl > most {
        findings.add(
            Check::StsTxtTtl,
            format!("{name} lives for {ttl} seconds"),
            "A new id is seen that late, so a change of the policy takes that much longer to reach senders.",
            [format!("{name}.  {HOUR}  TXT  \"{record}\"")],
        );
    }
    if seen.is_wildcard {
        findings.add(
            Check::StsTxtWildcard,
            format!("the record {name} comes from a wildcard: any name beside it has one too"),
            "The same record then stands at names where it means nothing, and goes with the wildcard.",
            [format!("{name}.  TXT  \"{record}\"")],
        );
    }
}

fn id(seen: &ObservedDomain, name: &str, id: &PolicyId, findings: &mut Findings) {
    match id.as_time() {
        None => findings.add(
            Check::StsTxtIdStyle,
            format!("the id of {name} is {id}, not a time stamp"),
            "Any letters and digits do, as long as they change with the policy. A UTC time stamp never repeats.",
            [example(seen)],
        ),
        Some(time) if time > net::clock::later(seen.now, jiff::SignedDuration::from_hours(24)) => findings.add(
            Check::StsTxtIdFuture,
            format!("the id of {name} is {id}, a time to come"),
            "Senders compare for equality only, so nothing breaks; but the next id by the clock will be smaller, \
             and people and programs that expect it to grow are misled.",
            [example(seen)],
        ),
        Some(_) => {}
    }
}

/// What changed since the last look.
fn history(seen: &ObservedDomain, known: &Known, id: &PolicyId, findings: &mut Findings) {
    let (Some(Previous { id: before, file, at }), Some(now)) = (&known.previous, &seen.policy.file) else {
        return;
    };
    let name: Option<DomainName> = seen.domain.below("_mta-sts").ok();
    let name = name.map(|name| name.to_string()).unwrap_or_default();
    if file != now && before == id {
        findings.add(
            Check::StsTxtUnchanged,
            format!("the policy file changed since {at}, and the id of {name} is still {id}"),
            "Senders that hold the old file do not fetch the new one before its max_age runs out, or for a day.",
            [example(seen)],
        );
    }
    if file == now && before != id {
        findings.add(
            Check::StsTxtChanged,
            format!("the id of {name} changed from {before} to {id} since {at}, and the file did not"),
            "Senders fetch the same file once more; nothing is lost. If a change was meant, it is not there yet.",
            [],
        );
    }
}
