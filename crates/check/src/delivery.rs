//! What each kind of sender does with mail for the domain today, for each MX host (RFC 8461 §5, RFC 7672 §2.2).
//! The results are informational findings and the table of senders in the report.

use crate::catalogue::Check;
use crate::finding::Findings;
use crate::observed::{ObservedDomain, ObservedMxHost};
use crate::senders::{HostView, Outcome, Sender, SenderView, name, outcome_label};
use formats::Mode;
use net::dane::Dane;
use net::smtp::Fault;

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    if seen.hosts.is_empty() {
        return;
    }
    for (sender, check) in [
        (Sender::Strict, Check::SenderStrict),
        (Sender::Testing, Check::SenderTesting),
        (Sender::Dane, Check::SenderDane),
        (Sender::Plain, Check::SenderPlain),
    ] {
        let view = view(seen, sender);
        findings.add(check, format!("{}: {}", name(sender), view.summary), hosts(&view), []);
        findings.senders.push(view);
    }
}

fn hosts(view: &SenderView) -> String {
    let one = |host: &HostView| format!("{} {}", host.host, outcome_label(host.outcome));
    view.hosts.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn view(seen: &ObservedDomain, sender: Sender) -> SenderView {
    let hosts: Vec<HostView> = seen
        .hosts
        .iter()
        .map(|host| HostView { host: host.name.clone(), outcome: outcome(seen, host, sender) })
        .collect();
    let summary = summary(seen, sender, &hosts).to_owned();
    SenderView { sender, hosts, summary }
}

fn outcome(seen: &ObservedDomain, host: &ObservedMxHost, sender: Sender) -> Outcome {
    let enforced = seen.binding().filter(|policy| policy.mode == Mode::Enforce);
    match (sender, &host.dane, enforced) {
        (Sender::Dane, ..) if !seen.sees_signatures => Outcome::Unreached,
        (Sender::Dane, Dane::Applies { .. }, _) => by_dane(host),
        (Sender::Dane, Dane::Unknown(_), _) => Outcome::Refused,
        (Sender::Dane | Sender::Strict, _, Some(policy)) => match host.passes_pkix() {
            _ if !policy.covers(&host.name) => Outcome::Refused,
            Some(Ok(())) => Outcome::Verified,
            Some(Err(_)) => Outcome::Refused,
            None => Outcome::Unreached,
        },
        _ => as_offered(host),
    }
}

fn by_dane(host: &ObservedMxHost) -> Outcome {
    let mut worst = Outcome::Unreached;
    for session in &host.sessions {
        match (&session.report().tls, session.fault()) {
            (Some(tls), _) if tls.dane == Some(Ok(())) => return Outcome::Verified,
            (None, Some(Fault::Connect(_) | Fault::Wire(_) | Fault::Refused(..)) | None) => {}
            _ => worst = Outcome::Refused,
        }
    }
    worst
}

fn as_offered(host: &ObservedMxHost) -> Outcome {
    let mut best = Outcome::Unreached;
    for session in &host.sessions {
        match session.fault() {
            _ if session.report().tls.is_some() => return Outcome::Encrypted,
            Some(Fault::Connect(_) | Fault::Wire(_) | Fault::Refused(..)) => {}
            // Without a policy, senders retry in cleartext after a failed handshake.
            _ => best = Outcome::Clear,
        }
    }
    best
}

fn summary(seen: &ObservedDomain, sender: Sender, hosts: &[HostView]) -> &'static str {
    let all = |outcome| hosts.iter().all(|host| host.outcome == outcome);
    let any = |outcome| hosts.iter().any(|host| host.outcome == outcome);
    let could_be_stripped = match sender {
        Sender::Testing if seen.mode() != Mode::None => "delivers, TLS can be stripped, and reports failures",
        _ => "delivers, TLS can be stripped",
    };
    if sender == Sender::Dane && !seen.sees_signatures {
        return "unknown: the resolver in use does not pass on DNSSEC data";
    }
    if seen.skipped_port_25 {
        return "unknown: the MX hosts were skipped";
    }
    match () {
        () if all(Outcome::Unreached) => "reaches no host and retries later",
        () if all(Outcome::Verified) => "delivers over verified TLS only",
        () if any(Outcome::Refused)
            && !any(Outcome::Verified)
            && !any(Outcome::Encrypted)
            && !any(Outcome::Clear) =>
        {
            "does not deliver; mail is delayed and then bounces"
        }
        () if any(Outcome::Refused) && any(Outcome::Verified) => "delivers to some hosts and refuses others",
        () if any(Outcome::Clear) => "delivers in cleartext",
        () if any(Outcome::Encrypted) => could_be_stripped,
        () => "delivers over verified TLS where a host responds",
    }
}
