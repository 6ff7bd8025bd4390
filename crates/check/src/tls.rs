//! Checks of TLS at each MX host: certificate, versions, cipher suites and SNI (RFC 8461 §4.2, RFC 9325).

use crate::catalogue::{Check, Part};
use crate::certificate::{CertificateFault, SHORTER_LIVES, chain_line, ends_soon, is_too_long_from_2027};
use crate::finding::Findings;
use crate::mx::{consequence, inspect, severity};
use crate::observed::{ExtraProbes, ObservedDomain, ObservedMxHost, ObservedSession};
use formats::hello::{Version, cipher_name};
use formats::{DomainName, Mode};
use net::certificate::CertificateFacts;
use net::smtp::Fault;
use net::tls::TlsFacts;
use std::collections::BTreeSet;

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    if seen.hosts.iter().any(ObservedMxHost::has_tls) {
        findings.mark_examined(&[Part::Tls]);
    }
    if seen.hosts.iter().flat_map(|host| &host.sessions).any(|session| session.deep.is_some()) {
        findings.mark_examined(&[Part::TlsDeep]);
    }
    for host in &seen.hosts {
        let mut reported = BTreeSet::new();
        for session in &host.sessions {
            let Some(tls) = &session.report().tls else { continue };
            certificate(seen, host, session, tls, findings);
            // Findings about the configuration are reported once per host, not once per address.
            configuration(host, session, tls, &mut reported, findings);
            if let Some(own) = tls.chain.first().filter(|_| tls.pkix.is_ok()) {
                kind_of_certificate(host, session, own, &mut reported, findings);
            }
            if let Some(deep) = &session.deep {
                extra_probes(host, session, tls, deep, &mut reported, findings);
            }
        }
        compare_addresses(host, findings);
    }
}

fn certificate_check(fault: CertificateFault) -> Check {
    match fault {
        CertificateFault::Expired => Check::SmtpCertExpired,
        CertificateFault::NotYetValid => Check::SmtpCertNotYet,
        CertificateFault::WrongName => Check::SmtpCertName,
        CertificateFault::CommonNameOnly => Check::SmtpCertCnOnly,
        CertificateFault::SelfSigned => Check::SmtpCertSelf,
        CertificateFault::MissingIntermediate => Check::SmtpCertChain,
        CertificateFault::NotForServers => Check::SmtpCertUsage,
        CertificateFault::Untrusted => Check::SmtpCertUntrusted,
    }
}

fn certificate(
    seen: &ObservedDomain,
    host: &ObservedMxHost,
    session: &ObservedSession,
    tls: &TlsFacts,
    findings: &mut Findings,
) {
    let name = &host.name;
    let is_danes_alone = tls.dane.is_some() && seen.mode() == Mode::None;
    if let (Err(problem), false) = (&tls.pkix, is_danes_alone) {
        let check = certificate_check(CertificateFault::of(problem, Some(tls)));
        findings.add_as(
            severity(seen),
            check,
            format!("{name} ({}): {problem}{}", session.address, names_in(tls)),
            consequence(seen),
            [remedy(check, name)],
        );
        findings.attach_evidence(tls.chain.iter().map(chain_line));
    } else if let Some((own, ending)) =
        tls.chain.first().and_then(|own| Some((own, ends_soon(own, seen.now)?)))
    {
        findings.add(
            Check::SmtpCertExpiring,
            format!("the certificate of {name} ({}) {ending}", session.address),
            "After that, senders in mode enforce can't deliver to the host. Renew the certificate, and find out why the \
             automatic renewal did not happen.",
            [inspect(name)],
        );
        findings.attach_evidence([chain_line(own)]);
    }
}

fn remedy(check: Check, host: &DomainName) -> String {
    match check {
        Check::SmtpCertChain => {
            format!(
                "smtpd_tls_chain_files = /etc/ssl/{host}-fullchain.pem   # Postfix: key, certificate, intermediates"
            )
        }
        Check::SmtpCertSelf
        | Check::SmtpCertUntrusted
        | Check::SmtpCertExpired
        | Check::SmtpCertName
        | Check::SmtpCertUsage => {
            format!("certbot certonly -d {host}   # or another ACME client; then reload the mail server")
        }
        _ => inspect(host),
    }
}

fn names_in(tls: &TlsFacts) -> String {
    match tls.chain.first() {
        Some(own) if !own.names.is_empty() => {
            format!(" (it is for {}, until {})", own.names.join(", "), own.not_after)
        }
        Some(own) => match &own.common_name {
            Some(name) => format!(" (only its common name is {name})"),
            None => String::new(),
        },
        None => String::new(),
    }
}

fn configuration(
    host: &ObservedMxHost,
    session: &ObservedSession,
    tls: &TlsFacts,
    reported: &mut BTreeSet<Check>,
    findings: &mut Findings,
) {
    let (name, address) = (&host.name, session.address);
    if tls.version != "TLSv1_3" && tls.version != "TLSv1.3" && reported.insert(Check::SmtpTls13) {
        findings.add(
            Check::SmtpTls13,
            format!("{name} ({address}) supports {} at most", tls.version),
            "This is sufficient for all senders. TLS 1.3 is faster and encrypts the certificate.",
            [],
        );
    }
    if let Some(own) = tls.chain.first().filter(|own| own.is_weak)
        && reported.insert(Check::SmtpKeyWeak)
    {
        findings.add(
            Check::SmtpKeyWeak,
            format!("the certificate of {name} ({address}) has a weak key ({}) or an obsolete signature algorithm", own.key),
            "Many senders refuse RSA keys under 2048 bits and SHA-1 signatures. Create a new key and certificate.",
            [format!("openssl ecparam -genkey -name prime256v1 -noout -out {name}.key")],
        );
        findings.attach_evidence([chain_line(own)]);
    }
    let requires = session.report().capabilities.iter().any(|line| line == "REQUIRETLS");
    if requires && reported.insert(Check::SmtpRequiretls) {
        findings.add(
            Check::SmtpRequiretls,
            format!("{name} offers REQUIRETLS"),
            "Senders can require that a message is relayed only over verified TLS.",
            [],
        );
    }
}

/// Reports what a valid certificate is that public CAs will not issue again.
fn kind_of_certificate(
    host: &ObservedMxHost,
    session: &ObservedSession,
    own: &CertificateFacts,
    reported: &mut BTreeSet<Check>,
    findings: &mut Findings,
) {
    let (name, address) = (&host.name, session.address);
    if let Some(days) = is_too_long_from_2027(own).filter(|_| reported.insert(Check::SmtpCertLife)) {
        findings.add(
            Check::SmtpCertLife,
            format!("the certificate of {name} ({address}) is valid for {days} days"),
            SHORTER_LIVES,
            [remedy(Check::SmtpCertExpired, name)],
        );
        findings.attach_evidence([chain_line(own)]);
    }
    if own.is_for_clients && reported.insert(Check::SmtpCertClientAuth) {
        findings.add(
            Check::SmtpCertClientAuth,
            format!("the certificate of {name} ({address}) is for TLS clients as well as servers (clientAuth)"),
            "To receive mail, a host does not need that, and public CAs issue such certificates no longer (Chrome's root \
             program, June 2026). If the host also presents this certificate when it sends mail, receivers that ask for a \
             client certificate will refuse the next one.",
            [],
        );
        findings.attach_evidence([chain_line(own)]);
    }
}

fn extra_probes(
    host: &ObservedMxHost,
    session: &ObservedSession,
    tls: &TlsFacts,
    deep: &ExtraProbes,
    reported: &mut BTreeSet<Check>,
    findings: &mut Findings,
) {
    let (name, address) = (&host.name, session.address);
    if !deep.legacy.is_empty() && reported.insert(Check::SmtpTlsLegacy) {
        let versions: Vec<&str> = deep.legacy.iter().copied().map(Version::as_str).collect();
        findings.add(
            Check::SmtpTlsLegacy,
            format!("{name} ({address}) still accepts {}", versions.join(" and ")),
            "These versions are deprecated (RFC 8996), and hardly any sender needs them. Disable them.",
            ["smtpd_tls_protocols = >=TLSv1.2   # Postfix 3.6 or later".to_owned()],
        );
    }
    if let Some(cipher) = deep.weak.filter(|_| reported.insert(Check::SmtpCipherWeak)) {
        findings.add(
            Check::SmtpCipherWeak,
            format!("{name} ({address}) accepts a weak cipher suite: {}", cipher_name(cipher)),
            "Mail from a sender that offers nothing better is not protected. Disable weak cipher suites.",
            [
                "smtpd_tls_ciphers = medium   # Postfix".to_owned(),
                "smtpd_tls_exclude_ciphers = RC4, 3DES, DES, EXPORT, eNULL".to_owned(),
            ],
        );
    }
    if deep.accepts_injection && reported.insert(Check::SmtpInjection) {
        findings.add(
            Check::SmtpInjection,
            format!("{name} ({address}) answers a command after the handshake that was sent in cleartext before it"),
            "An attacker on the path can inject commands before those of the sender (as in CVE-2011-0411). Update the \
             mail server, or the proxy in front of it.",
            [],
        );
    }
    key_exchange(host, session, deep, reported, findings);
    let nameless = match &deep.without_sni {
        Ok(report) => report.tls.as_ref(),
        Err(failure) => failure.report.tls.as_ref(),
    };
    let is_needed = tls.pkix.is_ok() && nameless.is_some_and(|nameless| nameless.pkix.is_err());
    if is_needed && reported.insert(Check::SmtpSniRequired) {
        findings.add(
            Check::SmtpSniRequired,
            format!("{name} ({address}) presents its valid certificate only to clients that send SNI"),
            "Only senders that use DANE or MTA-STS have to send SNI; the others see a wrong certificate. Make this \
             certificate the default.",
            [format!("openssl s_client -starttls smtp -connect {name}:25 -noservername")],
        );
    }
}

/// Reports the key exchange with a sender that prefers post-quantum groups, as those with OpenSSL 3.5 do.
fn key_exchange(
    host: &ObservedMxHost,
    session: &ObservedSession,
    deep: &ExtraProbes,
    reported: &mut BTreeSet<Check>,
    findings: &mut Findings,
) {
    let (name, address) = (&host.name, session.address);
    match &deep.large_hello {
        Ok(group) if reported.insert(Check::SmtpPq) => {
            let why = match group.contains("MLKEM") {
                true => "Mail that is recorded today stays secret when quantum computers can break X25519.",
                false => {
                    "This is sufficient today. Newer mail servers also support X25519MLKEM768 (OpenSSL 3.5, Postfix 3.11), so that \
                     recorded mail stays secret when quantum computers can break X25519."
                }
            };
            findings.add(Check::SmtpPq, format!("{name} ({address}) agrees on the key exchange {group}"), why, []);
        }
        // A host that refuses more connections, or offers no STARTTLS then, says nothing about the hello.
        Err(fault @ Fault::Handshake(_)) if reported.insert(Check::SmtpHelloLarge) => findings.add(
            Check::SmtpHelloLarge,
            format!("{name} ({address}) fails with a large ClientHello, and works with a small one: {fault}"),
            "Senders that offer post-quantum key exchange, such as Postfix 3.11 with OpenSSL 3.5, begin with a hello of more than \
             one TCP segment. Their mail to the host is delayed, or sent in cleartext. Update the mail server, or the \
             firewall or proxy in front of it.",
            [format!("openssl s_client -starttls smtp -connect {name}:25 -groups X25519MLKEM768:X25519   # OpenSSL 3.5")],
        ),
        _ => {}
    }
}

/// Reports a host whose addresses differ in TLS support or certificate.
fn compare_addresses(host: &ObservedMxHost, findings: &mut Findings) {
    let results = host.sessions.iter().filter_map(|session| {
        let report = session.report();
        report.banner.as_ref()?;
        let good = report.tls.as_ref().map(|tls| tls.pkix.is_ok());
        let own = report.tls.as_ref().and_then(|tls| tls.chain.first()).map(|own| own.fingerprint.clone());
        Some((session.address, good, own))
    });
    let results: Vec<_> = results.collect();
    let Some(first) = results.first() else { return };
    let Some(other) = results.iter().find(|one| (one.1, &one.2) != (first.1, &first.2)) else { return };
    let word = |look: &(std::net::IpAddr, Option<bool>, Option<String>)| match look.1 {
        None => "no TLS",
        Some(true) => "a valid certificate",
        Some(false) => "an invalid certificate",
    };
    findings.add(
        Check::SmtpAddressDisagree,
        format!(
            "the addresses of {} differ: {} at {}, {} at {}, and not the same certificate",
            host.name,
            word(first),
            first.0,
            word(other),
            other.0
        ),
        "The result of a delivery depends on the address that the sender chooses. Configure the machines identically.",
        [inspect(&host.name)],
    );
}
