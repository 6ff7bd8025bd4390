//! Why no TLSA record of a host matches its certificate (RFC 6698 §2.1, RFC 7672 §3): the record fits with another
//! selector, usage, host or address, is that of a former certificate, or has the digest of nothing.

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
        if presents(host, record, &hex) {
            let what = format!(
                "The record fits a certificate that another address of {} presents now: the addresses present different \
                 certificates. Publish a record for each.",
                host.name
            );
            return found(Cause::OtherAddress, what, Vec::new());
        }
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

/// True if a session with the host shows a certificate that the record fits, so that it is not a former one. `hex` is the
/// data of the record.
fn presents(host: &ObservedMxHost, record: &TlsaRecord, hex: &String) -> bool {
    let has_digest = |tls: &TlsFacts| {
        tls.chain.first().is_some_and(|own| [&own.fingerprint, &own.key_digest].contains(&hex))
    };
    let mut sessions = host.sessions.iter().filter_map(|session| session.report().tls.as_ref());
    sessions.any(|tls| fits_leaf(record, tls) || has_digest(tls))
}

fn fits_leaf(record: &TlsaRecord, tls: &TlsFacts) -> bool {
    let Some(own) = tls.raw.first() else { return false };
    let part = if record.selector == 1 { public_key(own) } else { Some(own.to_vec()) };
    part.is_some_and(|part| association(&part, record.matching) == record.data)
}

fn data_hex(record: &TlsaRecord) -> String {
    record.data.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::SeenCertificate;
    use crate::observed::ObservedSession;
    use formats::DomainName;
    use net::certificate::CertificateFacts;
    use net::dane::Dane;
    use net::dns::DnsError;
    use net::smtp::{SessionReport, Target};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The facts of a session with a certificate of these bytes, which have the key digest of `key`.
    fn facts(certificate: &[u8], key: &[u8]) -> TlsFacts {
        let own = CertificateFacts {
            subject: String::new(),
            issuer: String::new(),
            names: Vec::new(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::UNIX_EPOCH,
            fingerprint: hex(&association(certificate, 1)),
            key_digest: hex(&association(key, 1)),
            common_name: None,
            key: String::new(),
            is_weak: false,
            is_self_issued: false,
            is_for_servers: true,
            is_for_clients: false,
        };
        TlsFacts {
            version: String::new(),
            cipher: String::new(),
            group: String::new(),
            chain: vec![own],
            raw: vec![certificate.to_vec().into()],
            pkix: Ok(()),
            dane: None,
        }
    }

    fn host(sessions: &[TlsFacts]) -> ObservedMxHost {
        let name = DomainName::parse("mx.example.org").unwrap();
        let session = |tls: &TlsFacts| {
            let address = "192.0.2.1".parse().unwrap();
            let target = Target { host: name.clone(), address };
            let report = SessionReport { tls: Some(tls.clone()), ..SessionReport::new(&target) };
            ObservedSession { address, outcome: Ok(report), deep: None }
        };
        let sessions = sessions.iter().map(session).collect();
        ObservedMxHost {
            name: name.clone(),
            preference: 10,
            addresses: Err(DnsError::Bogus),
            dane: Dane::Absent,
            idle_tlsa: None,
            sessions,
        }
    }

    #[test]
    fn a_certificate_that_another_address_presents_now_is_not_a_former_one() {
        let (here, there) = (facts(b"here", b"key here"), facts(b"there", b"key there"));
        let seen = |certificate: &[u8], key: &[u8]| SeenCertificate {
            host: DomainName::parse("mx.example.org").unwrap(),
            certificate: hex(&association(certificate, 1)),
            public_key: hex(&association(key, 1)),
            seen_at: Timestamp::UNIX_EPOCH,
        };
        let certificates = vec![seen(b"there", b"key there"), seen(b"before", b"key here")];
        let known = Known { certificates, ..Known::default() };
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let both = host(&[here.clone(), there]);
        let alone = host(std::slice::from_ref(&here));
        let found = |host: &ObservedMxHost, selector, data: &[u8]| {
            let records = [TlsaRecord { usage: 3, selector, matching: 1, data: association(data, 1) }];
            cause(host, &[], &known, &records, &here, now).map(|found| found.cause.id)
        };
        for (selector, data) in [(0, b"there".as_slice()), (1, b"key there")] {
            assert_eq!(found(&both, selector, data), Some(Cause::OtherAddress), "{selector}");
            assert_eq!(found(&alone, selector, data), Some(Cause::FormerCertificate), "{selector}");
        }
        // The certificate was renewed with the same key.
        assert_eq!(found(&both, 0, b"before"), Some(Cause::FormerCertificate));
    }
}
