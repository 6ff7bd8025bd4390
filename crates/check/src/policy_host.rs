//! The policy host: names, addresses, TLS, certificate, HTTP (RFC 8461 §3.3).

use crate::Subject;
use crate::catalogue::{Check, Severity};
use crate::finding::{Findings, ends_soon};
use crate::record::{self, Published};
use formats::DomainName;
use net::certificate::Problem;
use net::https::{FetchError, Fetched};

/// The file, when one can be fetched. Without a record, trouble with the policy host is no news: then
/// it is only said whether there is one.
pub(crate) async fn check(
    subject: &Subject<'_>,
    published: Published,
    findings: &mut Findings,
) -> Option<Vec<u8>> {
    let fetched = subject.checker.policies.fetch(subject.domain).await;
    if published == Published::Absent {
        record::missing(subject, !is_nowhere(&fetched), findings);
    }
    match fetched {
        Ok(fetched) => {
            expiring(subject, &fetched, findings);
            Some(fetched.body)
        }
        Err(_) if published == Published::Absent => None,
        Err(error) => {
            trouble(subject.domain, &error, findings);
            None
        }
    }
}

fn is_nowhere(fetched: &Result<Fetched, FetchError>) -> bool {
    matches!(fetched, Err(FetchError::Dns(error)) if error.is_absence())
}

fn expiring(subject: &Subject<'_>, fetched: &Fetched, findings: &mut Findings) {
    let Some(certificate) = &fetched.certificate else { return };
    if let Some(ending) = ends_soon(certificate.not_after, subject.checker.clock.now()) {
        findings.add(
            Check::HttpsCertExpiring,
            format!("the certificate of mta-sts.{} {ending}", subject.domain),
            "When it ends, no sender can fetch or renew the policy. Renew it now, and find out why \
             that did not happen by itself.",
            [],
        );
    }
}

fn trouble(domain: &DomainName, error: &FetchError, findings: &mut Findings) {
    let host = format!("mta-sts.{domain}");
    let (check, remedy) = match error {
        FetchError::HostName | FetchError::Dns(_) => (
            Check::HostMissing,
            format!("{host}.  A  192.0.2.1   ; the address of your policy host, or a CNAME to it"),
        ),
        FetchError::SpecialAddress { .. } => {
            (Check::HostPrivate, format!("{host}.  A  192.0.2.1   ; a public address of your policy host"))
        }
        FetchError::Connect(_) => {
            (Check::HostUnreachable, format!("curl -v https://{host}/.well-known/mta-sts.txt"))
        }
        FetchError::Certificate(problem) => {
            (of_certificate(problem), format!("openssl s_client -connect {host}:443 -servername {host}"))
        }
        FetchError::TlsVersion(_) => {
            (Check::HttpsTlsOld, format!("openssl s_client -connect {host}:443 -servername {host} -tls1_2"))
        }
        FetchError::Tls(_) => {
            (Check::HttpsHandshake, format!("openssl s_client -connect {host}:443 -servername {host}"))
        }
        FetchError::Status(300..=399) => (
            Check::HttpsRedirect,
            format!("curl -i https://{host}/.well-known/mta-sts.txt   # has to answer 200"),
        ),
        FetchError::Status(_) => (
            Check::HttpsStatus,
            format!("curl -i https://{host}/.well-known/mta-sts.txt   # has to answer 200"),
        ),
        FetchError::MediaType(_) => (Check::HttpsType, "Content-Type: text/plain".to_owned()),
        FetchError::Size => {
            (Check::HttpsSize, format!("curl -s https://{host}/.well-known/mta-sts.txt | wc -c"))
        }
        FetchError::Time => (Check::HttpsSlow, format!("curl -v https://{host}/.well-known/mta-sts.txt")),
        FetchError::Compressed(_) | FetchError::Http(_) => {
            (Check::HttpsBroken, format!("curl -v https://{host}/.well-known/mta-sts.txt"))
        }
    };
    let why = "New senders can't get the policy and deliver as if there were none; those \
     who have it go on with it until it expires.";
    findings.add_as(
        Severity::Error,
        check,
        format!("no policy can be fetched from {host}: {error}"),
        why,
        [remedy],
    );
}

fn of_certificate(problem: &Problem) -> Check {
    match problem {
        Problem::Expired => Check::HttpsCertExpired,
        Problem::NotYetValid => Check::HttpsCertNotYet,
        Problem::WrongName => Check::HttpsCertName,
        _ => Check::HttpsCertUntrusted,
    }
}
