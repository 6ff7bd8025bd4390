//! TLS with each MX host: certificate, versions, ciphers, names (RFC 8461 §4.2, RFC 9325).

use crate::catalogue::{Check, Part};
use crate::certificate::{Kind, chain_line, ends_soon};
use crate::finding::Findings;
use crate::mx::{consequence, inspect, severity};
use crate::observed::{ExtraProbes, ObservedDomain, ObservedMxHost, ObservedSession};
use formats::hello::{Version, cipher_name};
use formats::{DomainName, Mode};
use net::tls::TlsFacts;
use std::collections::BTreeSet;

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    if seen.hosts.iter().any(ObservedMxHost::is_sealed) {
        findings.looked_at(&[Part::Tls]);
    }
    if seen.hosts.iter().flat_map(|host| &host.sessions).any(|session| session.deep.is_some()) {
        findings.looked_at(&[Part::TlsDeep]);
    }
    for host in &seen.hosts {
        let mut told = BTreeSet::new();
        for session in &host.sessions {
            let Some(tls) = &session.report().tls else { continue };
            presented(seen, host, session, tls, findings);
            // One word a host is enough for what concerns its set-up.
            abilities(host, session, tls, &mut told, findings);
            if let Some(deep) = &session.deep {
                further(host, session, tls, deep, &mut told, findings);
            }
        }
        alike(host, findings);
    }
}

fn of_certificate(kind: Kind) -> Check {
    match kind {
        Kind::Expired => Check::SmtpCertExpired,
        Kind::NotYet => Check::SmtpCertNotYet,
        Kind::Name => Check::SmtpCertName,
        Kind::CommonNameOnly => Check::SmtpCertCnOnly,
        Kind::OfItself => Check::SmtpCertSelf,
        Kind::ChainCut => Check::SmtpCertChain,
        Kind::Untrusted => Check::SmtpCertUntrusted,
    }
}

fn presented(
    seen: &ObservedDomain,
    host: &ObservedMxHost,
    session: &ObservedSession,
    tls: &TlsFacts,
    findings: &mut Findings,
) {
    let name = &host.name;
    let is_danes_alone = tls.dane.is_some() && seen.mode() == Mode::None;
    if let (Err(problem), false) = (&tls.pkix, is_danes_alone) {
        let check = of_certificate(Kind::of(problem, Some(tls)));
        findings.add_as(
            severity(seen),
            check,
            format!("{name} ({}): {problem}{}", session.address, shown(tls)),
            consequence(seen),
            [remedy(check, name)],
        );
        findings.seen_by(tls.chain.iter().map(chain_line));
    } else if let Some((own, ending)) =
        tls.chain.first().and_then(|own| Some((own, ends_soon(own, seen.now)?)))
    {
        findings.add(
            Check::SmtpCertExpiring,
            format!("the certificate of {name} ({}) {ending}", session.address),
            "When it ends, enforced mail to the host waits. Renew it, and find out why that did not happen by itself.",
            [inspect(name)],
        );
        findings.seen_by([chain_line(own)]);
    }
}

fn remedy(check: Check, host: &DomainName) -> String {
    match check {
        Check::SmtpCertChain => {
            format!(
                "smtpd_tls_chain_files = /etc/ssl/{host}-fullchain.pem   # Postfix: key, certificate, then its issuers"
            )
        }
        Check::SmtpCertSelf | Check::SmtpCertUntrusted | Check::SmtpCertExpired | Check::SmtpCertName => {
            format!("certbot certonly -d {host}   # or any ACME client; then reload the mail server")
        }
        _ => inspect(host),
    }
}

fn shown(tls: &TlsFacts) -> String {
    match tls.chain.first() {
        Some(own) if !own.names.is_empty() => {
            format!(" (it is for {}, until {})", own.names.join(", "), own.not_after)
        }
        Some(own) => match &own.common_name {
            Some(name) => format!(" (only its common name says {name})"),
            None => String::new(),
        },
        None => String::new(),
    }
}

fn abilities(
    host: &ObservedMxHost,
    session: &ObservedSession,
    tls: &TlsFacts,
    told: &mut BTreeSet<Check>,
    findings: &mut Findings,
) {
    let (name, address) = (&host.name, session.address);
    if tls.version != "TLSv1_3" && tls.version != "TLSv1.3" && told.insert(Check::SmtpTls13) {
        findings.add(
            Check::SmtpTls13,
            format!("{name} ({address}) speaks {} at most", tls.version),
            "It is good enough for all senders; TLS 1.3 is faster and hides the certificate from the path.",
            [],
        );
    }
    if let Some(own) = tls.chain.first().filter(|own| own.is_weak)
        && told.insert(Check::SmtpKeyWeak)
    {
        findings.add(
            Check::SmtpKeyWeak,
            format!("the certificate of {name} ({address}) has a key {} or a signature of old", own.key),
            "Many senders refuse RSA keys under 2048 bits and signatures by SHA-1. Make a new key and certificate.",
            [format!("openssl ecparam -genkey -name prime256v1 -noout -out {name}.key")],
        );
        findings.seen_by([chain_line(own)]);
    }
    let requires = session.report().capabilities.iter().any(|line| line == "REQUIRETLS");
    if requires && told.insert(Check::SmtpRequiretls) {
        findings.add(
            Check::SmtpRequiretls,
            format!("{name} offers REQUIRETLS"),
            "Senders can ask that a message goes on by verified TLS only, or not at all.",
            [],
        );
    }
}

fn further(
    host: &ObservedMxHost,
    session: &ObservedSession,
    tls: &TlsFacts,
    deep: &ExtraProbes,
    told: &mut BTreeSet<Check>,
    findings: &mut Findings,
) {
    let (name, address) = (&host.name, session.address);
    if !deep.legacy.is_empty() && told.insert(Check::SmtpTlsLegacy) {
        let versions: Vec<&str> = deep.legacy.iter().copied().map(Version::as_str).collect();
        findings.add(
            Check::SmtpTlsLegacy,
            format!("{name} ({address}) still speaks {}", versions.join(" and ")),
            "They are withdrawn. Nobody who can do better is forced down to them, and hardly any sender needs them.",
            ["smtpd_tls_protocols = >=TLSv1.2   # Postfix 3.6 or later".to_owned()],
        );
    }
    if let Some(cipher) = deep.weak.filter(|_| told.insert(Check::SmtpCipherWeak)) {
        findings.add(
            Check::SmtpCipherWeak,
            format!("{name} ({address}) agrees to a weak cipher: {}", cipher_name(cipher)),
            "A sender that offers nothing better is not protected, and does not know it.",
            [
                "smtpd_tls_ciphers = medium   # Postfix".to_owned(),
                "smtpd_tls_exclude_ciphers = RC4, 3DES, DES, EXPORT, eNULL".to_owned(),
            ],
        );
    }
    if deep.takes_injection && told.insert(Check::SmtpInjection) {
        findings.add(
            Check::SmtpInjection,
            format!("{name} ({address}) answers after the handshake what was sent in the clear before it"),
            "Who sits on the path can put commands in front of the sender's own (CVE-2011-0411 and its kin). Update \
             the mail server, or the proxy in front of it.",
            [],
        );
    }
    let nameless = match &deep.without_sni {
        Ok(report) => report.tls.as_ref(),
        Err(failure) => failure.report.tls.as_ref(),
    };
    let is_needed = tls.pkix.is_ok() && nameless.is_some_and(|nameless| nameless.pkix.is_err());
    if is_needed && told.insert(Check::SmtpSniRequired) {
        findings.add(
            Check::SmtpSniRequired,
            format!("{name} ({address}) gives its certificate only to clients that name it (SNI)"),
            "Senders need not send SNI unless they use DANE or MTA-STS; the others see a wrong certificate. Make it \
             the default one.",
            [format!("openssl s_client -starttls smtp -connect {name}:25 -noservername")],
        );
    }
}

/// Whether all addresses of a host look the same.
fn alike(host: &ObservedMxHost, findings: &mut Findings) {
    let looks = host.sessions.iter().filter_map(|session| {
        let report = session.report();
        report.banner.as_ref()?;
        let good = report.tls.as_ref().map(|tls| tls.pkix.is_ok());
        let own = report.tls.as_ref().and_then(|tls| tls.chain.first()).map(|own| own.fingerprint.clone());
        Some((session.address, good, own))
    });
    let looks: Vec<_> = looks.collect();
    let Some(first) = looks.first() else { return };
    let Some(other) = looks.iter().find(|look| (look.1, &look.2) != (first.1, &first.2)) else { return };
    let word = |look: &(std::net::IpAddr, Option<bool>, Option<String>)| match look.1 {
        None => "no TLS",
        Some(true) => "a good certificate",
        Some(false) => "a bad certificate",
    };
    findings.add(
        Check::SmtpAddressDisagree,
        format!(
            "{} shows {} at {} and {} at {}, and not the same one",
            host.name,
            word(first),
            first.0,
            word(other),
            other.0
        ),
        "A sender takes one address, and what it meets depends on which. Set the machines up alike.",
        [inspect(&host.name)],
    );
}
