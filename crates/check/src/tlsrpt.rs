//! The `_smtp._tls` record (RFC 8460 §3).

use crate::catalogue::{Check, Severity};
use crate::finding::Findings;
use crate::{Subject, dns_trouble};
use formats::Mode;
use formats::tlsrpt_record::{SelectError, TlsrptNote, TlsrptRecord};
use net::dns::Kind;

pub(crate) async fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let Ok(name) = subject.domain.below("_smtp._tls") else { return };
    let example = || [format!("{name}.  TXT  \"v=TLSRPTv1; rua=mailto:tlsrpt@{}\"", subject.domain)];
    let answer = match subject.checker.dns.lookup(&name, Kind::Txt).await {
        Ok(answer) => answer,
        Err(error) if error.is_absence() => return missing(subject, findings, example()),
        Err(error) => return dns_trouble(findings, &format!("the record {name}"), &error),
    };
    match TlsrptRecord::select(answer.texts()) {
        Ok(record) => {
            for note in &record.notes {
                if let TlsrptNote::UnknownScheme(target) = note {
                    findings.add(
                        Check::RptRuaScheme,
                        format!("{name} names the target {target}"),
                        "Reports go to mailto: and https: targets only.",
                        example(),
                    );
                }
            }
        }
        Err(SelectError::None) => missing(subject, findings, example()),
        Err(SelectError::Multiple(count)) => findings.add(
            Check::RptTxtMultiple,
            format!("{name} has {count} records of version TLSRPTv1"),
            "Senders take that as none and send no reports. Keep one.",
            example(),
        ),
        Err(SelectError::Invalid(error)) => findings.add(
            Check::RptTxtSyntax,
            format!("the record {name} is invalid at column {}: {}", error.column, error.fault),
            "Senders send no reports.",
            example(),
        ),
    }
}

fn missing(subject: &Subject<'_>, findings: &mut Findings, example: [String; 1]) {
    let severity = if subject.mode() == Mode::Testing { Severity::Error } else { Severity::Warning };
    findings.add_as(
        severity,
        Check::RptTxtMissing,
        format!("there is no record _smtp._tls.{}", subject.domain),
        "Without it no sender reports what fails, and nobody can know whether enforcement is safe.",
        example,
    );
}
