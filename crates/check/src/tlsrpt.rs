//! The `_smtp._tls` record, and whether its targets can take reports (RFC 8460 §3).

use crate::catalogue::{Check, Part, Severity};
use crate::finding::Findings;
use crate::known::Known;
use crate::observed::{ObservedDomain, ObservedReportTarget};
use formats::tlsrpt_record::{FieldFault, Rua, SelectError, TlsrptNote, TlsrptRecord};
use formats::{DomainName, Mode};
use jiff::SignedDuration;
use net::https::FetchError;

pub(crate) fn check(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    findings.looked_at(&[Part::Tlsrpt]);
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
            "Senders take that as none and send no reports. Keep one.",
            example(),
        ),
        Err(SelectError::Invalid(error)) => {
            let check = match &error.fault {
                FieldFault::BadRua(target, _) if target.contains(['!', ',']) => Check::RptRuaEncode,
                FieldFault::BadRua(..) => Check::RptRuaScheme,
                // A `;` inside a target cuts it, and what follows is no field.
                FieldFault::NoEquals(_)
                    if answer.texts().any(|text| count(text, b"rua=") > 0 && count(text, b";") > 2) =>
                {
                    Check::RptRuaEncode
                }
                _ => Check::RptTxtSyntax,
            };
            let why = match check {
                Check::RptRuaEncode => {
                    "`,` `!` and `;` end a target; written as %2C %21 %3B they are part of it. Senders send no reports."
                }
                _ => "Senders send no reports.",
            };
            let what = format!("the record {name} is invalid at column {}: {}", error.column, error.fault);
            findings.add(check, what, why, example());
        }
    }
    let outside = seen.rua.iter().filter_map(|target| outside(&seen.domain, &target.target));
    findings.seen_by(records.chain(outside));
}

/// What is said of a target in another domain, for those who know DMARC: nothing has to allow it there (RFC 8460 §3).
fn outside(domain: &DomainName, target: &Rua) -> Option<String> {
    let Rua::Mailto(address) = target else { return None };
    let there = address.domain();
    let is_inside = there == domain || there.as_str().ends_with(&format!(".{domain}"));
    (!is_inside).then(|| {
        format!(
            "reports go to {there}, outside of {domain}: no record has to allow that there, unlike with DMARC"
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
            format!("{name} has what belongs to _smtp._tls.{}: {text}", seen.domain),
            "Senders look at that name and no other, and send no reports.",
            example.clone(),
        );
    }
    findings.add_as(
        // A domain that has nothing yet is shown the way, not scolded.
        if begins { Severity::Info } else { severity },
        Check::RptTxtMissing,
        format!("there is no record _smtp._tls.{}", seen.domain),
        "Without it no sender reports what fails, and nobody can know whether enforcement is safe.",
        example,
    );
}

fn notes(name: &str, record: &TlsrptRecord, findings: &mut Findings, example: impl Fn() -> [String; 1]) {
    for note in &record.notes {
        match note {
            TlsrptNote::UnknownScheme(target) => findings.add(
                Check::RptRuaScheme,
                format!("{name} names the target {target}"),
                "Reports go to mailto: and https: targets only.",
                example(),
            ),
            TlsrptNote::Repeated(field) => findings.add_as(
                Severity::Warning,
                Check::RptTxtSyntax,
                format!("{name} has the field {field:?} twice"),
                "The first counts. Keep one; several targets stand in one rua, with commas.",
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
            "Senders may cut the target there. Write %21.",
            [],
        );
    }
    if record.rua.len() > 2 {
        findings.add(
            Check::RptRuaMany,
            format!("{name} names {} targets", record.rua.len()),
            "Senders may leave out all beyond the first two.",
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
                    format!("reports go to {address}, and {} takes no mail: {why}", address.domain()),
                    "Every report bounces, and nobody learns what fails.",
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
                format!("reports go to {url}, which does not take them: {why}"),
                "Reports by HTTPS are sent without a second look: what fails is lost, unless there is another target.",
                [format!("curl -i -X POST -H 'Content-Type: application/tlsrpt+gzip' --data-binary @report.json.gz {url}")],
            );
        }
    }
}

/// Why a target would take no report. A server that takes POST only says 405 to OPTIONS, or wants a body.
fn https_fault(visit: &net::https::Visit) -> Option<String> {
    if let Some(Err(problem)) = visit.tls.as_ref().map(|tls| &tls.pkix) {
        return Some(problem.to_string());
    }
    match &visit.outcome {
        Err(FetchError::SpecialAddress { address, what }) => Some(format!("its address {address} is {what}")),
        Err(error) => Some(error.to_string()),
        Ok(page) => match page.status {
            300..=399 => Some(format!("it redirects (status {}), which senders do not follow", page.status)),
            404 | 410 => Some(format!("there is nothing (status {})", page.status)),
            401 | 403 => Some(format!("it wants to know who asks (status {})", page.status)),
            500..=599 if page.status != 501 => Some(format!("it fails (status {})", page.status)),
            _ => None,
        },
    }
}

/// Reports that only the hosts under test can take are lost in the very outage that they are about.
fn loops(seen: &ObservedDomain, findings: &mut Findings) {
    let within = |target: &ObservedReportTarget| match &target.mail {
        Some(Ok(hosts)) => hosts.iter().all(|host| seen.hosts.iter().any(|known| known.name == *host)),
        _ => false,
    };
    if !seen.rua.is_empty() && seen.rua.iter().all(within) {
        // While testing, reports are what decides; afterwards it is a matter of comfort.
        let severity = if seen.mode() == Mode::Testing { Severity::Warning } else { Severity::Info };
        findings.add_as(
            severity,
            Check::RptRuaLoop,
            format!("all reports go to the MX hosts of {} themselves", seen.domain),
            "By the rules they are delivered without TLS if need be, but an outage of the hosts takes the reports \
             about it along. A second target elsewhere is better.",
            [],
        );
    }
}

fn silent(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    let Some(last) = known.last_report else { return };
    let week = SignedDuration::from_hours(7 * 24);
    let what = match last {
        None => format!("no report about {} has ever come", seen.domain),
        Some(at) if seen.now.duration_since(at) > week => {
            format!("the last report about {} came at {at}", seen.domain)
        }
        Some(_) => return,
    };
    findings.add(
        Check::RptSilent,
        what,
        "Large senders report daily when they have mail for you. Look whether the address still reaches the inbox.",
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
        assert!(told("mailto:r@reports.example.net").unwrap().contains("no record has to allow that there"));
        assert_eq!(told("mailto:r@example.org"), None);
        assert_eq!(told("mailto:r@mail.example.org"), None);
        assert!(told("mailto:r@notexample.org").is_some());
        assert_eq!(told("https://reports.example.net/tlsrpt"), None);
    }
}
