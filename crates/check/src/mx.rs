//! Checks of the SMTP sessions with each address of each MX host: connection, greeting and STARTTLS
//! (RFC 8461 §4.2, RFC 3207). The `tls` and `dane` modules report on certificates.

use crate::catalogue::{Check, Part, Severity};
use crate::finding::{Findings, MxTls};
use crate::observed::{ObservedDomain, ObservedMxHost, ObservedSession};
use formats::{DomainName, Mode};
use net::certificate::Problem;
use net::smtp::{Fault, Reply, SessionReport};

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    if seen.skipped_port_25 {
        findings.mx_tls = MxTls::Skipped;
        return;
    }
    let sessions = || seen.hosts.iter().flat_map(|host| &host.sessions);
    if !sessions().any(|session| session.report().tls.is_some()) {
        findings.mx_tls = MxTls::NotSeen;
    }
    if sessions().next().is_none() {
        return;
    }
    findings.mark_examined(&[Part::Session]);
    if is_blocked(seen) {
        return findings.add(
            Check::SmtpPortBlocked,
            "no MX host can be reached on port 25 from here, but other ports can: this network blocks port 25",
            "Most home and office networks do. The other findings are valid. To check the MX hosts, run the check on a \
             machine that may send mail; to skip them, use:",
            [format!("sternpost check --skip-port-25 {}", seen.domain)],
        );
    }
    let none_reached = sessions().all(|session| is_unreached(session.fault()));
    for host in &seen.hosts {
        for session in &host.sessions {
            if let Some(fault) = session.fault() {
                failed(seen, session, fault, none_reached, findings);
            }
            compare_sessions(&host.name, session, findings);
        }
    }
}

/// True when no connection was established.
fn is_unreached(fault: Option<&Fault>) -> bool {
    matches!(fault, Some(Fault::Connect(_)))
}

/// True when every connection to port 25 timed out or was blocked, but the policy host could be reached.
fn is_blocked(seen: &ObservedDomain) -> bool {
    let is_wall = |why: &str| {
        ["no answer within", "unreachable", "not permitted", "ermission denied", "No route"]
            .iter()
            .any(|sign| why.contains(sign))
    };
    let walled =
        |session: &ObservedSession| matches!(session.fault(), Some(Fault::Connect(why)) if is_wall(why));
    let mut sessions = seen.hosts.iter().flat_map(|host| &host.sessions);
    let elsewhere = seen.host.visits.iter().any(|visit| visit.tls.is_some());
    elsewhere && sessions.all(walled)
}

/// The severity of a TLS failure: an error in mode enforce, else a warning.
pub(crate) fn severity(seen: &ObservedDomain) -> Severity {
    if seen.mode() == Mode::Enforce { Severity::Error } else { Severity::Warning }
}

/// The consequence of a TLS failure at an MX host, in the current mode.
pub(crate) fn consequence(seen: &ObservedDomain) -> &'static str {
    match seen.mode() {
        Mode::Enforce => "Senders that honor MTA-STS do not deliver to it.",
        Mode::Testing => "Senders report it but still deliver. In mode enforce they would not deliver to it.",
        Mode::None => "With a policy in mode enforce, senders that honor MTA-STS would not deliver to it.",
    }
}

pub(crate) fn inspect(host: &DomainName) -> String {
    format!("openssl s_client -starttls smtp -connect {host}:25 -servername {host}")
}

fn failed(
    seen: &ObservedDomain,
    session: &ObservedSession,
    fault: &Fault,
    none_reached: bool,
    findings: &mut Findings,
) {
    let report = session.report();
    let host = &report.target.host;
    let what = format!("{host} ({}): {fault}", session.address);
    match fault {
        // MX-PRIVATE tells why no connection was made.
        Fault::Connect(_) if seen.special(session.address).is_some() => return,
        Fault::Connect(_) => {
            let severity = if none_reached { Severity::Error } else { Severity::Warning };
            let why = match none_reached {
                true => "No MX host can be reached at all, so mail is delayed. Many networks block port 25: repeat the \
                         check from another network.",
                false => "Senders try the next MX host, or retry later.",
            };
            let remedy = [
                format!("ss -ltn 'sport = :25'   # on {host}: the mail server has to listen, and the firewall to let port 25 in"),
                format!("nc -vz {host} 25   # from another network"),
            ];
            findings.add_as(severity, Check::SmtpUnreachable, what, why, remedy);
        }
        Fault::Wire(_) if report.banner.is_none() => {
            findings.add(Check::SmtpBanner, what, "Senders try the next MX host, or retry later.", []);
        }
        Fault::Wire(_) | Fault::Handshake(_) if requires_client_certificate(report, fault) => findings.add(
            Check::SmtpClientCert,
            format!("{host} ({}) requires a client certificate: {fault}", session.address),
            "Senders have no certificate for it: since 2026 public CAs issue none for clients. They fall back to cleartext or do not deliver to the host.",
            ["smtpd_tls_req_ccert = no   # Postfix".to_owned()],
        ),
        Fault::Wire(_) => findings.add(Check::SmtpUnreachable, what, "Senders try the next MX host, or retry later.", []),
        Fault::Refused(_, reply) if is_greylisting(reply) => findings.add(
            Check::SmtpGreylist,
            format!("{host} ({}) defers the connection: {reply}", session.address),
            "This is usual for greylisting, and mail is accepted on a later attempt. TLS could not be checked.",
            [],
        ),
        Fault::Refused(..) => {
            findings.add(Check::SmtpBanner, what, "Senders try the next MX host, or retry later.", []);
        }
        Fault::NoStarttls => no_starttls(seen, session, what, findings),
        // The modules `tls` and `dane` report certificate faults, and a check never authenticates.
        Fault::Certificate(_) | Fault::NoLogin => return,
        Fault::Handshake(why) if is_old(why) => findings.add_as(
            severity(seen),
            Check::SmtpTlsOld,
            format!("{host} ({}) does not support TLS 1.2 or later: {why}", session.address),
            consequence(seen),
            [format!("{} -tls1_2", inspect(host))],
        ),
        Fault::StarttlsRefused(_) | Fault::Injected | Fault::Handshake(_) => findings.add_as(
            severity(seen),
            Check::SmtpStarttlsFails,
            what,
            consequence(seen),
            [inspect(host)],
        ),
    }
    findings.attach_evidence(report.transcript.iter().cloned());
}

fn no_starttls(seen: &ObservedDomain, session: &ObservedSession, what: String, findings: &mut Findings) {
    let report = session.report();
    let host = &report.target.host;
    if report.capabilities.iter().any(|line| line.starts_with("XXXX")) {
        return findings.add_as(
            Severity::Error,
            Check::SmtpStripped,
            format!("{host}: the STARTTLS offer was overwritten in transit (XXXXXXXA)"),
            "A device between this network and the host strips TLS. Mail is sent in cleartext, or delayed in mode enforce.",
            ["no fixup protocol smtp 25   ! on a Cisco firewall, for example".to_owned()],
        );
    }
    findings.add_as(
        severity(seen),
        Check::SmtpNoStarttls,
        what,
        "All mail to it is sent in cleartext. In mode enforce, senders that honor MTA-STS do not deliver to it.",
        [
            "smtpd_tls_security_level = may   # Postfix".to_owned(),
            format!("smtpd_tls_chain_files = /etc/ssl/{host}.pem   # key and chain for {host}"),
        ],
    );
}

fn is_old(why: &str) -> bool {
    ["PeerIncompatible", "peer is incompatible", "ProtocolVersion", "protocol version"]
        .iter()
        .any(|sign| why.contains(sign))
}

/// A server that requires a client certificate sends an alert; in TLS 1.3 it arrives after the handshake.
fn requires_client_certificate(report: &SessionReport, fault: &Fault) -> bool {
    let text = fault.to_string();
    report.asks_for_certificate
        && (matches!(fault, Fault::Handshake(_))
            || text.contains("CertificateRequired")
            || text.contains("alert"))
}

fn is_greylisting(reply: &Reply) -> bool {
    let text = reply.lines.join(" ").to_ascii_lowercase();
    (400..500).contains(&reply.code)
        && ["greylist", "graylist", "grey-list", "postgrey", "try again later", "come back"]
            .iter()
            .any(|sign| text.contains(sign))
}

/// Reports a host that behaves differently on a second connection.
fn compare_sessions(host: &DomainName, session: &ObservedSession, findings: &mut Findings) {
    let (Some(deep), Ok(first)) = (&session.deep, &session.outcome) else { return };
    let second = match &deep.without_sni {
        Ok(report) => report,
        Err(failure) => &failure.report,
    };
    let is_other = match &deep.without_sni {
        Ok(report) => report.banner != first.banner && differ(report, first),
        Err(failure) => {
            matches!(failure.fault, Fault::NoStarttls | Fault::Refused(..) | Fault::StarttlsRefused(_))
        }
    };
    if is_other {
        findings.add(
            Check::SmtpFlapping,
            format!(
                "{host} ({}) behaves differently on repeated connections: {:?}, then {:?}",
                session.address,
                first.banner.as_deref().unwrap_or_default(),
                second.banner.as_deref().unwrap_or_default()
            ),
            "Several machines may share the address with different configurations. In mode enforce, some mail is delayed at \
             random. Configure them identically.",
            [inspect(host)],
        );
        findings.attach_evidence(second.transcript.iter().cloned());
    }
}

/// True when two sessions differ in TLS support or in the validity of the certificate.
fn differ(one: &SessionReport, other: &SessionReport) -> bool {
    let is_good = |report: &SessionReport| report.tls.as_ref().map(|tls| tls.pkix.is_ok());
    is_good(one) != is_good(other)
}

impl ObservedMxHost {
    /// True when a TLS handshake was completed with any address of the host.
    pub(crate) fn has_tls(&self) -> bool {
        self.sessions.iter().any(|session| session.report().tls.is_some())
    }

    /// Whether the host meets the TLS requirements of MTA-STS at any address, or why not; `None` if none was reached.
    pub(crate) fn passes_pkix(&self) -> Option<Result<(), String>> {
        let mut last = None;
        for session in &self.sessions {
            match (&session.report().tls, session.fault()) {
                (Some(tls), _) if tls.pkix.is_ok() => return Some(Ok(())),
                (Some(tls), _) => {
                    let why = tls.pkix.as_ref().err().map(Problem::to_string).unwrap_or_default();
                    last = Some(Err(why));
                }
                (None, Some(Fault::Connect(_) | Fault::Wire(_) | Fault::Refused(..)) | None) => {}
                (None, Some(fault)) => last = Some(Err(fault.to_string())),
            }
        }
        last
    }
}
