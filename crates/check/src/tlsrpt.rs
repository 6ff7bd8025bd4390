//! Checks of the `_smtp._tls` TXT record, and whether its targets accept reports (RFC 8460 §3).

use crate::catalogue::{Check, Part, Severity};
use crate::finding::Findings;
use crate::known::Known;
use crate::observed::{ObservedDomain, ObservedReportTarget};
use formats::tlsrpt_record::{FieldFault, Rua, SelectError, TlsrptNote, TlsrptRecord};
use formats::{DomainName, Mode};
use jiff::SignedDuration;
use net::https::FetchError;

pub(crate) fn check(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    findings.mark_examined(&[Part::Tlsrpt]);
    let name = format!("_smtp._tls.{}", seen.domain);
    let example = || [format!("{name}.  TXT  \"v=TLSRPTv1; rua=mailto:tlsrpt@{}\"", seen.domain)];
    let answer = match &seen.tlsrpt {
        Ok(answer) => answer,
        Err(error) if error.is_absence() => return missing(seen, findings, example()),
        Err(error) => return findings.dns_failure(&format!("the record {name}"), error),
    };
    let records = answer.texts().map(|text| format!("{name}.  TXT  {:?}", String::from_utf8_lossy(text)));
    match TlsrptRecord::select(answer.texts()) {
        Ok(record) => {
            notes(&name, &record, findings, example);
            seen.rua.iter().for_each(|target| reach(seen, target, findings));
            loops(seen, findings);
            silent(seen, known, findings);
        }
        Err(SelectError::None) => missing(seen, findings, example()),
        Err(SelectError::Multiple(count)) => findings.add(
            Check::RptTxtMultiple,
            format!("{name} has {count} records of version TLSRPTv1"),
            "Senders then assume that there is none and send no reports. Keep one record and remove the others.",
            example(),
        ),
        Err(SelectError::Invalid(error)) => {
            let check = match &error.fault {
                FieldFault::BadRua(target, _) if target.contains(['!', ',']) => Check::RptRuaEncode,
                FieldFault::BadRua(..) => Check::RptRuaScheme,
                // An unencoded `;` ends the target, and the rest is not a valid field.
                FieldFault::NoEquals(_)
                    if answer.texts().any(|text| count(text, b"rua=") > 0 && count(text, b";") > 2) =>
                {
                    Check::RptRuaEncode
                }
                _ => Check::RptTxtSyntax,
            };
            let why = match check {
                Check::RptRuaEncode => {
                    "`,`, `!` and `;` end a target; encode them as %2C, %21 and %3B. Senders send no reports."
                }
                _ => "Senders ignore an invalid record and send no reports.",
            };
            let what = format!("the record {name} is invalid at column {}: {}", error.column, error.fault);
            findings.add(check, what, why, example());
        }
    }
    let outside = seen.rua.iter().filter_map(|target| outside(&seen.domain, &target.target));
    findings.attach_evidence(records.chain(outside));
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

fn count(text: &[u8], what: &[u8]) -> usize {
    text.windows(what.len()).filter(|part| *part == what).count()
}

fn missing(seen: &ObservedDomain, findings: &mut Findings, example: [String; 1]) {
    let severity = if seen.mode() == Mode::Testing { Severity::Error } else { Severity::Warning };
    let begins = seen.policy.id.is_none() && seen.host.is_nowhere();
    if let Some((name, text)) = seen.tlsrpt_strays.first() {
        findings.add(
            Check::RptTxtWrongName,
            format!("{name} has the record that belongs at _smtp._tls.{}: {text}", seen.domain),
            "Senders query only that name, so they send no reports. Publish the record there.",
            example.clone(),
        );
    }
    findings.add_as(
        // For a domain without any of MTA-STS the record is advice, not a fault.
        if begins { Severity::Info } else { severity },
        Check::RptTxtMissing,
        format!("there is no record _smtp._tls.{}", seen.domain),
        "Without it, senders do not report failures, so it is unknown whether mode enforce is safe.",
        example,
    );
}

fn notes(name: &str, record: &TlsrptRecord, findings: &mut Findings, example: impl Fn() -> [String; 1]) {
    for note in &record.notes {
        match note {
            TlsrptNote::UnknownScheme(target) => findings.add(
                Check::RptRuaScheme,
                format!("{name} has the target {target}"),
                "Senders support only mailto: and https: targets.",
                example(),
            ),
            TlsrptNote::Repeated(field) => findings.add_as(
                Severity::Warning,
                Check::RptTxtSyntax,
                format!("{name} has the field {field:?} twice"),
                "Senders use the first one. Write several targets in one rua field, separated by commas.",
                [],
            ),
            _ => {}
        }
    }
    let encoded = |rua: &Rua| match rua {
        Rua::Mailto(address) => address.to_string().contains('!'),
        Rua::Https(url) => url.to_string().contains('!'),
    };
    if record.rua.iter().any(encoded) {
        findings.add(
            Check::RptRuaEncode,
            format!("{name} has a target with `!`, which is not percent-encoded"),
            "Senders may truncate the target there. Write %21 instead.",
            [],
        );
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
