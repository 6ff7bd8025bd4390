//! Each MX host: reach, greeting, STARTTLS, certificate (RFC 8461 §4.2).

use crate::Subject;
use crate::catalogue::{Check, Severity};
use crate::dns_trouble;
use crate::finding::{Findings, ends_soon};
use formats::{DomainName, Mode};
use net::certificate::Problem;
use net::dane::{self, Dane, SMTP_PORT};
use net::dns::host_addresses;
use net::smtp::{Fault, SessionFailure, SessionReport, Target, TlsDemand, TlsFacts};

pub(crate) async fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let dns = subject.checker.dns.as_ref();
    for host in &subject.hosts {
        let addresses = match host_addresses(dns, host).await {
            Ok(addresses) => addresses,
            Err(error) if error.is_absence() => {
                findings.add(
                    Check::MxUnresolved,
                    format!("the MX host {host} has no address"),
                    "Senders can't reach it and go on to the next, or wait.",
                    [format!("{host}.  A  192.0.2.1   ; its address")],
                );
                continue;
            }
            Err(error) => {
                dns_trouble(findings, &format!("the addresses of {host}"), &error);
                continue;
            }
        };
        let demand = match dane::look_up(dns, subject.security, (host, SMTP_PORT), &addresses).await.dane {
            Dane::Applies { rule, base, .. } => {
                TlsDemand::Dane { rule, base, next_hop: subject.domain.clone() }
            }
            Dane::Absent => TlsDemand::Encrypt,
            Dane::Unknown(error) => {
                let why = "Senders that use DANE skip the host, and mail waits when no other is left.";
                findings.add(Check::DaneUnknown, format!("the TLSA records of {host}: {error}"), why, []);
                TlsDemand::Encrypt
            }
        };
        for address in addresses.addresses {
            let target = Target { host: host.clone(), address };
            match subject.checker.mail.session(&target, &demand, None).await {
                Ok(report) => presented(subject, &report, findings),
                Err(failure) => failed(subject, &failure, findings),
            }
        }
    }
}

/// What is an error once enforced is a warning as long as it is not.
fn severity(subject: &Subject<'_>) -> Severity {
    if subject.mode() == Mode::Enforce { Severity::Error } else { Severity::Warning }
}

fn presented(subject: &Subject<'_>, report: &SessionReport, findings: &mut Findings) {
    let Some(tls) = &report.tls else { return };
    let (host, now) = (&report.target.host, subject.checker.clock.now());
    if tls.dane.is_some() {
        // DANE decides for senders that use it, and the certificate need not please anyone else.
        findings.add(
            Check::DaneProtects,
            format!("{host} ({}) is protected by DANE", report.target.address),
            "Senders that use DANE demand the matching certificate. Those that know only \
             MTA-STS go by its policy.",
            [],
        );
    }
    let enforced_by_sts = subject.mode() != Mode::None || tls.dane.is_none();
    if let (Err(problem), true) = (&tls.pkix, enforced_by_sts) {
        let check = of_certificate(problem);
        let what = format!("{host} ({}): {problem}{}", report.target.address, shown(tls));
        findings.add_as(
            severity(subject),
            check,
            what,
            "Once enforced, senders that honour MTA-STS do not deliver to it.",
            [inspect(host)],
        );
    } else if let Some(ending) = tls.chain.first().and_then(|own| ends_soon(own.not_after, now)) {
        let what = format!("the certificate of {host} {ending}");
        findings.add(Check::SmtpCertExpiring, what, "When it ends, enforced mail to the host waits.", []);
    }
}

fn shown(tls: &TlsFacts) -> String {
    match tls.chain.first() {
        Some(own) if !own.names.is_empty() => {
            format!(" (it is for {}, until {})", own.names.join(", "), own.not_after)
        }
        _ => String::new(),
    }
}

fn inspect(host: &DomainName) -> String {
    format!("openssl s_client -starttls smtp -connect {host}:25 -servername {host}")
}

fn failed(subject: &Subject<'_>, failure: &SessionFailure, findings: &mut Findings) {
    let host = &failure.report.target.host;
    let what = format!("{host} ({}): {}", failure.report.target.address, failure.fault);
    let stripped = failure.report.capabilities.iter().any(|line| line.starts_with("XXXX"));
    match &failure.fault {
        Fault::Connect(_) | Fault::Wire(_) => findings.add(
            Check::SmtpUnreachable,
            what,
            "Senders go on to the next MX host, or wait. Many networks block port 25: \
             look from elsewhere too.",
            [],
        ),
        Fault::Refused(..) => {
            findings.add(Check::SmtpBanner, what, "Senders go on to the next MX host, or wait.", [])
        }
        Fault::NoStarttls if stripped => findings.add_as(
            Severity::Error,
            Check::SmtpStripped,
            format!("{host}: the offer of STARTTLS was overwritten on the way (XXXXXXXA)"),
            "A device between here and the host takes TLS away. Mail goes in the clear, \
             or waits once enforced.",
            ["no fixup protocol smtp 25   ! on a Cisco firewall, for one".to_owned()],
        ),
        Fault::NoStarttls => findings.add_as(
            severity(subject),
            Check::SmtpNoStarttls,
            what,
            "All mail to it goes in the clear; once enforced, senders that honour MTA-STS \
             do not deliver to it.",
            ["smtpd_tls_security_level = may   # Postfix, with smtpd_tls_chain_files".to_owned()],
        ),
        Fault::Certificate(Problem::TlsaMismatch) => findings.add(
            Check::DaneMismatch,
            what,
            "Senders that use DANE do not deliver to it. Publish the record of the new \
             key before the certificate changes, and take the old one out afterwards.",
            [format!("_25._tcp.{host}.  TLSA  3 1 1 …   ; SHA-256 of the public key that the host presents")],
        ),
        Fault::StarttlsRefused(_) | Fault::Injected | Fault::Handshake(_) | Fault::Certificate(_) => findings
            .add_as(
                severity(subject),
                Check::SmtpStarttlsFails,
                what,
                "Once enforced, senders that honour MTA-STS do not deliver to it.",
                [inspect(host)],
            ),
    }
}

fn of_certificate(problem: &Problem) -> Check {
    match problem {
        Problem::Expired => Check::SmtpCertExpired,
        Problem::NotYetValid => Check::SmtpCertNotYet,
        Problem::WrongName => Check::SmtpCertName,
        _ => Check::SmtpCertUntrusted,
    }
}
