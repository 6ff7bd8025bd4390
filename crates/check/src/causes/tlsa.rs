//! Why no TLSA record of a host matches its certificate (RFC 6698 §2.1, RFC 7672 §3): the record fits with another
//! selector, usage or host, is that of a former certificate, or has the digest of nothing.

use super::behind_host::Remedied;
use super::{Cause, FoundCause};
use crate::known::Known;
use crate::observed::ObservedMxHost;
use formats::tlsa::TlsaRecord;
use jiff::{SignedDuration, Timestamp};
use net::certificate::{association, public_key};
use net::tls::TlsFacts;

/// The age up to which a certificate counts as new, as long as that of the longest-lived free certificates.
const NEW: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Why the records do not match the chain of `host`. `all` are the MX hosts of the domain.
pub(crate) fn cause(
    host: &ObservedMxHost,
    all: &[ObservedMxHost],
    known: &Known,
    records: &[TlsaRecord],
    tls: &TlsFacts,
    now: Timestamp,
) -> Option<Remedied> {
    let found =
        |id, what: String, remedy: Vec<String>| Some(Remedied { cause: FoundCause { id, what }, remedy });
    let base = host.tlsa_base();
    for record in records {
        if [1, 2].contains(&record.matching) && record.data == association(b"", record.matching) {
            let what =
                "The digest in the record is that of nothing: the command that made it got no certificate.";
            return found(Cause::EmptyDigest, what.to_owned(), Vec::new());
        }
        if let Some(fit) = fit(record, tls) {
            let id = if fit.usage == record.usage { Cause::OtherSelector } else { Cause::OtherUsage };
            let (usage, selector, matching) = (fit.usage, fit.selector, fit.matching);
            let of = match (usage, selector) {
                (3, 0) => "the certificate of the host",
                (3, _) => "the public key of the host",
                (_, 0) => "a CA certificate of the chain",
                _ => "the public key of a CA certificate of the chain",
            };
            let what = format!(
                "The data of the record is right for {of}, but the record says {} {} {} and not {usage} {selector} {matching}.",
                record.usage, record.selector, record.matching
            );
            let right = TlsaRecord { usage, selector, matching, data: record.data.clone() };
            return found(id, what, vec![format!("_25._tcp.{base}.  TLSA  {right}")]);
        }
    }
    for record in records {
        let others = all.iter().filter(|other| other.name != host.name);
        let fits = |other: &&ObservedMxHost| {
            other
                .sessions
                .iter()
                .filter_map(|session| session.report().tls.as_ref())
                .any(|tls| fits_leaf(record, tls))
        };
        if let Some(other) = others.clone().find(fits) {
            let what =
                format!("The record fits the certificate of {}, another MX host of the domain.", other.name);
            return found(Cause::OtherHost, what, Vec::new());
        }
        let hex = data_hex(record);
        let former = known.certificates.iter().find(|former| {
            former.host == host.name && [&former.certificate, &former.public_key].contains(&&hex)
        });
        if let Some(former) = former {
            let what = format!(
                "The record fits the certificate that the host presented until {}: the certificate was renewed, and the record was not.",
                former.seen_at
            );
            return found(Cause::FormerCertificate, what, Vec::new());
        }
    }
    let own = tls.chain.first()?;
    let age = now.duration_since(own.not_before);
    (age >= SignedDuration::ZERO && age < NEW).then(|| {
        let what = format!(
            "The certificate is {} days old, so the record is most likely that of its predecessor: the certificate was renewed, and \
             the record was not.",
            age.as_hours() / 24
        );
        Remedied { cause: FoundCause { id: Cause::NewCertificate, what }, remedy: Vec::new() }
    })
}

/// The three numbers with which the data of a record fits.
struct Fit {
    usage: u8,
    selector: u8,
    matching: u8,
}

/// Finds other numbers with which the data fits a certificate of the chain.
fn fit(record: &TlsaRecord, tls: &TlsFacts) -> Option<Fit> {
    for (index, certificate) in tls.raw.iter().enumerate() {
        let usage = if index == 0 { 3 } else { 2 };
        for (selector, part) in [(1, public_key(certificate)), (0, Some(certificate.to_vec()))] {
            let Some(part) = part else { continue };
            let matching =
                [1, 2, 0].into_iter().find(|matching| association(&part, *matching) == record.data);
            if let Some(matching) = matching {
                return Some(Fit { usage, selector, matching });
            }
        }
    }
    None
}

fn fits_leaf(record: &TlsaRecord, tls: &TlsFacts) -> bool {
    let Some(own) = tls.raw.first() else { return false };
    let part = if record.selector == 1 { public_key(own) } else { Some(own.to_vec()) };
    part.is_some_and(|part| association(&part, record.matching) == record.data)
}

fn data_hex(record: &TlsaRecord) -> String {
    record.data.iter().map(|byte| format!("{byte:02x}")).collect()
}
