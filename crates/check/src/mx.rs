//! Sessions with each MX host, address by address: reach, greeting, STARTTLS (RFC 8461 §4.2, RFC 3207).

use crate::catalogue::{Check, Part, Severity};
use crate::finding::Findings;
use crate::observed::{ObservedDomain, ObservedMxHost, ObservedSession};
use formats::{DomainName, Mode};
use net::certificate::Problem;
use net::smtp::{Fault, Reply, SessionReport};

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    if seen.skipped_port_25 {
        return;
    }
    let sessions = || seen.hosts.iter().flat_map(|host| &host.sessions);
    if sessions().next().is_none() {
        return;
    }
    findings.looked_at(&[Part::Session]);
    if is_blocked(seen) {
        return findings.add(
            Check::SmtpPortBlocked,
            "no MX host can be reached on port 25 from here, and other ports can: this network blocks it",
            "Most networks of homes and offices do. What was found beside it stands; for the MX hosts look from a \
             machine that may send mail, or leave them out.",
            [format!("sternpost check --skip-port-25 {}", seen.domain)],
        );
    }
    let nobody = sessions().all(|session| is_unreached(session.fault()));
    for host in &seen.hosts {
        for session in &host.sessions {
            if let Some(fault) = session.fault() {
                failed(seen, session, fault, nobody, findings);
            }
            steady(&host.name, session, findings);
        }
    }
}

/// True when the session came to nothing before anything was said.
fn is_unreached(fault: Option<&Fault>) -> bool {
    matches!(fault, Some(Fault::Connect(_)))
}

/// Every connection to port 25 ran into silence or a wall of this network, and one to another port did not.
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

/// What is an error once enforced is a warning as long as it is not.
pub(crate) fn severity(seen: &ObservedDomain) -> Severity {
    if seen.mode() == Mode::Enforce { Severity::Error } else { Severity::Warning }
}

/// What happens to mail when a host does not do TLS as it should.
pub(crate) fn consequence(seen: &ObservedDomain) -> &'static str {
    match seen.mode() {
        Mode::Enforce => "Senders that honour MTA-STS do not deliver to it.",
        Mode::Testing => "Senders report it and deliver all the same; they would refuse once enforced.",
        Mode::None => "Once a policy is enforced, senders that honour MTA-STS do not deliver to it.",
    }
}

pub(crate) fn inspect(host: &DomainName) -> String {
    format!("openssl s_client -starttls smtp -connect {host}:25 -servername {host}")
}

fn failed(
    seen: &ObservedDomain,
    session: &ObservedSession,
    fault: &Fault,
    nobody: bool,
    findings: &mut Findings,
) {
    let report = session.report();
    let host = &report.target.host;
    let what = format!("{host} ({}): {fault}", session.address);
    match fault {
        Fault::Connect(_) => {
            let severity = if nobody { Severity::Error } else { Severity::Warning };
            let why = match nobody {
                true => "No MX host can be reached at all, so that mail waits. Many networks block port 25: look from \
                         elsewhere too.",
                false => "Senders go on to the next MX host, or wait.",
            };
            findings.add_as(severity, Check::SmtpUnreachable, what, why, [format!("nc -v {host} 25")]);
        }
        Fault::Wire(_) if report.banner.is_none() => {
            findings.add(Check::SmtpBanner, what, "Senders go on to the next MX host, or wait.", []);
        }
        Fault::Wire(_) | Fault::Handshake(_) if insists(report, fault) => findings.add(
            Check::SmtpClientCert,
            format!("{host} ({}) insists on a certificate of the client: {fault}", session.address),
            "No sender has one for you: it gives up on TLS, or on the host.",
            ["smtpd_tls_req_ccert = no   # Postfix".to_owned()],
        ),
        Fault::Wire(_) => findings.add(Check::SmtpUnreachable, what, "Senders go on to the next MX host, or wait.", []),
        Fault::Refused(_, reply) if is_greylisting(reply) => findings.add(
            Check::SmtpGreylist,
            format!("{host} ({}) asks to come again later: {reply}", session.address),
            "That is how greylisting greets strangers; mail gets through at the second try. TLS was not looked at.",
            [],
        ),
        Fault::Refused(..) => {
            findings.add(Check::SmtpBanner, what, "Senders go on to the next MX host, or wait.", []);
        }
        Fault::NoStarttls => no_starttls(seen, session, what, findings),
        // The topics of TLS and DANE speak of certificates, and a check logs in nowhere.
        Fault::Certificate(_) | Fault::NoLogin => return,
        Fault::Handshake(why) if is_old(why) => findings.add_as(
            severity(seen),
            Check::SmtpTlsOld,
            format!("{host} ({}) speaks no TLS 1.2 or newer: {why}", session.address),
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
    findings.seen_by(report.transcript.iter().cloned());
}

fn no_starttls(seen: &ObservedDomain, session: &ObservedSession, what: String, findings: &mut Findings) {
    let report = session.report();
    let host = &report.target.host;
    if report.capabilities.iter().any(|line| line.starts_with("XXXX")) {
        return findings.add_as(
            Severity::Error,
            Check::SmtpStripped,
            format!("{host}: the offer of STARTTLS was overwritten on the way (XXXXXXXA)"),
            "A device between here and the host takes TLS away. Mail goes in the clear, or waits once enforced.",
            ["no fixup protocol smtp 25   ! on a Cisco firewall, for one".to_owned()],
        );
    }
    findings.add_as(
        severity(seen),
        Check::SmtpNoStarttls,
        what,
        "All mail to it goes in the clear; once enforced, senders that honour MTA-STS do not deliver to it.",
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

/// A server that wants a certificate says so by an alert; in TLS 1.3 that comes after the handshake.
fn insists(report: &SessionReport, fault: &Fault) -> bool {
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

/// Whether a second connection sees the same host.
fn steady(host: &DomainName, session: &ObservedSession, findings: &mut Findings) {
    let (Some(deep), Ok(first)) = (&session.deep, &session.outcome) else { return };
    let second = match &deep.without_sni {
        Ok(report) => report,
        Err(failure) => &failure.report,
    };
    let is_other = match &deep.without_sni {
        Ok(report) => report.banner != first.banner && has_other_abilities(report, first),
        Err(failure) => {
            matches!(failure.fault, Fault::NoStarttls | Fault::Refused(..) | Fault::StarttlsRefused(_))
        }
    };
    if is_other {
        findings.add(
            Check::SmtpFlapping,
            format!(
                "{host} ({}) answers differently from try to try: {:?}, then {:?}",
                session.address,
                first.banner.as_deref().unwrap_or_default(),
                second.banner.as_deref().unwrap_or_default()
            ),
            "Several machines share the address and are not set up alike. Once enforced, some mail waits by chance.",
            [inspect(host)],
        );
        findings.seen_by(second.transcript.iter().cloned());
    }
}

/// `None` without TLS, else whether the certificate is good: what a second try should see again.
fn has_other_abilities(one: &SessionReport, other: &SessionReport) -> bool {
    let is_good = |report: &SessionReport| report.tls.as_ref().map(|tls| tls.pkix.is_ok());
    is_good(one) != is_good(other)
}

impl ObservedMxHost {
    /// True when the host let us see its certificate at any address.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sessions.iter().any(|session| session.report().tls.is_some())
    }

    /// Whether the host passes what MTA-STS demands, by what was seen: `None` when no address was reached.
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
