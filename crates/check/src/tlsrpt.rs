//! Checks of the `_smtp._tls` TXT record, and whether its targets accept reports (RFC 8460 §3).

use crate::catalogue::{Check, Part, Severity};
use crate::causes::Cause;
use crate::causes::near_record::{NearRecord, RecordKind, lenient};
use crate::finding::Findings;
use crate::known::Known;
use crate::observed::{ObservedDomain, ObservedReportTarget};
use crate::record::closest;
use formats::tlsrpt_record::{FieldError, Rua, SelectError, TlsrptNote, TlsrptRecord};
use formats::{DomainName, Mode};
use jiff::SignedDuration;
use net::https::FetchError;

pub(crate) fn check(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    findings.mark_examined(&[Part::Tlsrpt]);
    let name = format!("_smtp._tls.{}", seen.domain);
    let answer = match &seen.tlsrpt {
        Ok(answer) => answer,
        Err(error) if error.is_absence() => return missing(seen, findings),
        Err(error) => return findings.dns_failure(&format!("the record {name}"), error),
    };
    let records = answer.texts().map(|text| format!("{name}.  TXT  {:?}", String::from_utf8_lossy(text)));
    match TlsrptRecord::select(answer.texts()) {
        Ok(record) => {
            let text = answer.texts().find(|text| TlsrptRecord::parse(text) != Err(SelectError::None));
            let near = text.and_then(|text| lenient(RecordKind::Tlsrpt, text, &seen.domain, ""));
            notes(&name, &record, near.as_ref(), findings);
            seen.rua.iter().for_each(|target| reach(seen, target, findings));
            loops(seen, findings);
            silent(seen, known, findings);
        }
        Err(SelectError::None) => match closest(RecordKind::Tlsrpt, answer, &seen.domain, "") {
            Some((text, near)) => invalid(seen, &text, None, &near, findings),
            None => missing(seen, findings),
        },
        Err(SelectError::Multiple(count)) => findings.add(
            Check::RptTxtMultiple,
            format!("{name} has {count} records of version TLSRPTv1"),
            "Senders then assume that there is none and send no reports. Keep one record and remove the others.",
            example(seen),
        ),
        Err(SelectError::Invalid(error)) => {
            if let Some((text, near)) = closest(RecordKind::Tlsrpt, answer, &seen.domain, "") {
                invalid(seen, &text, Some(&error), &near, findings);
            }
        }
    }
    let outside = seen.rua.iter().filter_map(|target| outside(&seen.domain, &target.target));
    findings.attach_evidence(records.chain(outside));
}

fn example(seen: &ObservedDomain) -> [String; 1] {
    [format!("_smtp._tls.{0}.  TXT  \"v=TLSRPTv1; rua=mailto:tlsrpt@{0}\"", seen.domain)]
}

/// The check that reports a cause.
fn check_of(cause: Cause) -> Check {
    match cause {
        Cause::OtherProtocol | Cause::NoVersion | Cause::WrongVersion => Check::RptTxtVersion,
        Cause::VersionCase => Check::RptTxtVersionCase,
        Cause::Backslash | Cause::Quotes => Check::RptTxtQuotes,
        Cause::SizeLimit | Cause::Unencoded => Check::RptRuaEncode,
        cause if is_about_target(cause) => Check::RptRuaScheme,
        _ => Check::RptTxtSyntax,
    }
}

fn is_about_target(cause: Cause) -> bool {
    use Cause::{BadTarget, EmptyTarget, NearScheme, NoScheme, SizeLimit, TargetSpace, Unencoded};
    matches!(cause, NoScheme | NearScheme | TargetSpace | EmptyTarget | SizeLimit | Unencoded | BadTarget)
}

/// Reports a record that senders do not accept.
fn invalid(
    seen: &ObservedDomain,
    text: &str,
    error: Option<&FieldError>,
    near: &NearRecord,
    findings: &mut Findings,
) {
    let Some(cause) = near.cause() else { return };
    let name = format!("_smtp._tls.{}", seen.domain);
    let what = match error {
        Some(error) => format!("the record {name} is invalid at column {}: {}", error.column, error.fault),
        None if cause == Cause::OtherProtocol => {
            format!("the record {name} is one of another protocol: {text}")
        }
        None => format!("senders do not recognize the record {name}: {text}"),
    };
    // A record of another protocol often comes from a wildcard, so it does not show that reports are wanted.
    let is_advice = cause == Cause::OtherProtocol && !seen.announces_policy();
    findings.add_as(
        if is_advice { Severity::Info } else { Severity::Error },
        check_of(cause),
        what,
        "Senders ignore such a record and send no reports. Replace it by the corrected one, which keeps its values:",
        [format!("{name}.  TXT  \"{}\"", near.corrected)],
    );
    findings.name_cause(cause, near.told());
}

/// Explains a target in another domain: unlike DMARC, TLSRPT requires no record there (RFC 8460 §3).
fn outside(domain: &DomainName, target: &Rua) -> Option<String> {
    let Rua::Mailto(address) = target else { return None };
    let there = address.domain();
    let is_inside = there == domain || there.as_str().ends_with(&format!(".{domain}"));
    (!is_inside).then(|| {
        format!(
            "reports go to {there}, outside of {domain}: unlike DMARC, TLSRPT requires no authorization record there"
        )
    })
}

fn missing(seen: &ObservedDomain, findings: &mut Findings) {
    let severity = if seen.mode() == Mode::Testing { Severity::Error } else { Severity::Warning };
    let begins = !seen.announces_policy() && !seen.has_policy_host();
    if let Some((name, text)) = seen.tlsrpt_strays.first() {
        findings.add(
            Check::RptTxtWrongName,
            format!("{name} has the record that belongs at _smtp._tls.{}: {text}", seen.domain),
            "Senders query only that name, so they send no reports. Publish the record there.",
            example(seen),
        );
    }
    findings.add_as(
        // For a domain without any of MTA-STS the record is advice, not a fault.
        if begins { Severity::Info } else { severity },
        Check::RptTxtMissing,
        match seen.tlsrpt.as_ref().map_or(0, |answer| answer.texts().count()) {
            0 => format!("there is no record _smtp._tls.{}", seen.domain),
            _ => {
                format!("there is no TLS reporting record at _smtp._tls.{}, only unrelated ones", seen.domain)
            }
        },
        "Without it, senders do not report failures, so it is unknown whether mode enforce is safe.",
        example(seen),
    );
}

/// Reports what the parser noted; each note is a finding, or its reason for none stands here.
pub(crate) fn notes(name: &str, record: &TlsrptRecord, near: Option<&NearRecord>, findings: &mut Findings) {
    let corrected = || near.map(|near| format!("{name}.  TXT  \"{}\"", near.corrected));
    for note in &record.notes {
        match note {
            // Told with the invalid targets.
            TlsrptNote::UnknownScheme(_) | TlsrptNote::BadTarget { .. } => {}
            TlsrptNote::Repeated(field) => findings.add_as(
                Severity::Warning,
                Check::RptTxtSyntax,
                format!("{name} has the field {field:?} twice"),
                "Senders use the first one. Write several targets in one rua field, separated by commas.",
                corrected(),
            ),
            TlsrptNote::SpaceBeforeDelimiter => findings.add(
                Check::RptTxtDelim,
                format!("{name} has white space before the first `;`"),
                "Some senders discard such a record. Remove the white space.",
                [format!("{name}.  TXT  \"{record}\"")],
            ),
            // RPT-RUA-MANY tells that senders may ignore targets, from the third one on.
            TlsrptNote::TooManyTargets => {}
        }
    }
    targets(name, record, near, findings);
    if let Some((field, _)) = record.extensions.first() {
        findings.add(
            Check::RptTxtUnknown,
            format!("{name} has the unknown field {field:?}"),
            "Senders ignore it.",
            [],
        );
        if field.eq_ignore_ascii_case("ruf") {
            let what = "ruf belongs to DMARC; TLS reports have one kind of target, rua.";
            findings.name_cause(Cause::NearKey, what);
        }
    }
    if record.rua.len() > 2 {
        findings.add(
            Check::RptRuaMany,
            format!("{name} has {} targets", record.rua.len()),
            "Senders may ignore all targets after the first two.",
            [],
        );
    }
}

/// Reports targets that senders can't use. Where there are others, reports go to those.
fn targets(name: &str, record: &TlsrptRecord, near: Option<&NearRecord>, findings: &mut Findings) {
    let bad = record.notes.iter().find_map(|note| match note {
        TlsrptNote::BadTarget { column, target, why } => {
            Some(format!("the target {target:?} at column {column}: {why}"))
        }
        TlsrptNote::UnknownScheme(target) => {
            Some(format!("the target {target}, which is neither mailto: nor https:"))
        }
        _ => None,
    });
    let Some(bad) = bad else { return };
    let is_left = !record.rua.is_empty();
    let cause =
        near.and_then(|near| near.slips.iter().map(|slip| slip.cause).find(|cause| is_about_target(*cause)));
    let why = match is_left {
        true => {
            "Sternpost skips this target and sends to the others; other senders may discard the whole record. Publish the \
             corrected list:"
        }
        false => {
            "Senders support only mailto: and https: targets, so they send no reports. Publish the corrected list:"
        }
    };
    let severity = if is_left { Severity::Warning } else { Severity::Error };
    let check = cause.map_or(Check::RptRuaScheme, check_of);
    let corrected = near.map(|near| format!("{name}.  TXT  \"{}\"", near.corrected));
    findings.add_as(severity, check, format!("{name} has {bad}"), why, corrected);
    if let (Some(near), Some(cause)) = (near, cause) {
        findings.name_cause(cause, near.told());
    }
}

fn reach(seen: &ObservedDomain, target: &ObservedReportTarget, findings: &mut Findings) {
    match &target.target {
        Rua::Mailto(address) => {
            if let Some(Err(why)) = &target.mail {
                findings.add(
                    Check::RptRuaMailto,
                    format!("reports go to {address}, but {} accepts no mail: {why}", address.domain()),
                    "Every report bounces, so failures stay unnoticed.",
                    [format!("_smtp._tls.{0}.  TXT  \"v=TLSRPTv1; rua=mailto:tlsrpt@{0}\"", seen.domain)],
                );
            }
        }
        Rua::Https(url) => {
            let Some(why) = target.visit.as_ref().and_then(|visit| match visit {
                Err(error) => Some(format!("the address of {}: {error}", url.host())),
                Ok(visit) => https_fault(visit),
            }) else {
                return;
            };
            findings.add(
                Check::RptRuaHttps,
                format!("reports go to {url}, which does not accept them: {why}"),
                "Senders need not retry over HTTPS, so reports are lost unless there is another target.",
                [format!("curl -i -X POST -H 'Content-Type: application/tlsrpt+gzip' --data-binary @report.json.gz {url}")],
            );
        }
    }
}

/// Why a target would not accept reports. Other 4xx statuses, such as 405, may only concern the OPTIONS request.
fn https_fault(visit: &net::https::Visit) -> Option<String> {
    if let Some(Err(problem)) = visit.tls.as_ref().map(|tls| &tls.pkix) {
        return Some(problem.to_string());
    }
    match &visit.outcome {
        Err(FetchError::SpecialAddress { address, what }) => Some(format!("its address {address} is {what}")),
        Err(error) => Some(error.to_string()),
        Ok(page) => match page.status {
            300..=399 => Some(format!("it redirects (status {}), which senders do not follow", page.status)),
            404 | 410 => Some(format!("the URL does not exist (status {})", page.status)),
            401 | 403 => Some(format!("it requires authentication (status {})", page.status)),
            500..=599 if page.status != 501 => Some(format!("the server fails (status {})", page.status)),
            _ => None,
        },
    }
}

/// Reports targets that only the domain's own MX hosts serve: an outage delays the reports about it.
fn loops(seen: &ObservedDomain, findings: &mut Findings) {
    let within = |target: &ObservedReportTarget| match &target.mail {
        Some(Ok(hosts)) => hosts.iter().all(|host| seen.hosts.iter().any(|known| known.name == *host)),
        _ => false,
    };
    if !seen.rua.is_empty() && seen.rua.iter().all(within) {
        // In mode testing the reports decide about the next step; later they matter less.
        let severity = if seen.mode() == Mode::Testing { Severity::Warning } else { Severity::Info };
        findings.add_as(
            severity,
            Check::RptRuaLoop,
            format!("all reports go to the MX hosts of {} itself", seen.domain),
            "Senders deliver reports even when TLS fails, but an outage of the hosts also affects the reports about it. \
             Add a second target at another provider.",
            [],
        );
    }
}

fn silent(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    let Some(last) = known.last_report else { return };
    let week = SignedDuration::from_hours(7 * 24);
    let what = match last {
        None => format!("no report about {} has ever arrived", seen.domain),
        Some(at) if seen.now.duration_since(at) > week => {
            format!("the last report about {} arrived at {at}", seen.domain)
        }
        Some(_) => return,
    };
    findings.add(
        Check::RptSilent,
        what,
        "Large senders report daily when they send mail to you. Check that the report address still delivers to the inbox.",
        ["sternpost reports list".to_owned()],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pub_08_a_target_outside_of_the_domain_needs_no_permission_and_that_is_said() {
        let domain = DomainName::parse("example.org").unwrap();
        let told = |target: &str| outside(&domain, &Rua::parse(target).unwrap().unwrap());
        assert!(
            told("mailto:r@reports.example.net").unwrap().contains("requires no authorization record there")
        );
        assert_eq!(told("mailto:r@example.org"), None);
        assert_eq!(told("mailto:r@mail.example.org"), None);
        assert!(told("mailto:r@notexample.org").is_some());
        assert_eq!(told("https://reports.example.net/tlsrpt"), None);
    }
}
