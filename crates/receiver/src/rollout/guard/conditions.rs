//! The conditions about which the guard raises alerts, as a pure function of what was observed: MX hosts that a policy
//! does not name or that fail TLS authentication, a policy that can't be fetched, a missing record, and certificates that
//! end soon.

use super::{Alert, AlertKind, ProbedHost, UnreachedHost, Validity};
use crate::rollout::RolloutState;
use crate::rollout::desired::DesiredState;
use crate::rollout::observed::ObservedState;
use formats::{DomainName, Mode, Policy};
use jiff::Timestamp;
use std::borrow::Cow;

/// What senders that enforce the policy do with a host that fails.
pub(super) const CONSEQUENCE_ENFORCED: &str = "Senders that hold the enforced policy refuse to deliver to it: mail is queued, and bounces after a few days.";
/// What senders do with a host that fails, while the policy is in testing.
pub(super) const CONSEQUENCE_TESTING: &str =
    "In testing mode mail still arrives; under enforcement it would be queued and then bounce.";
const CONSEQUENCE_NO_POLICY: &str = "Senders that cached the policy apply it until its max_age expires; after that, and at all other senders, mail is not protected.";
const CONSEQUENCE_PARTLY_SERVED: &str = "A sender uses any of the addresses: where one fails or serves another policy, it depends on chance which policy senders get, if any.";
const CONSEQUENCE_UNPROTECTED: &str =
    "Senders without a cached policy deliver unprotected, and the others don't learn of policy changes.";

const CONSEQUENCE_UNSEEN: &str = "Nobody verifies the certificates of these hosts: the guard can't warn of one that has expired or will, and makes no probes as evidence for enforcement.";
/// MX hosts that an alert names.
const MAX_NAMED: usize = 5;

/// The parent of Microsoft 365's MX hosts without DANE.
const MICROSOFT_BEFORE: &str = ".mail.protection.outlook.com";
/// The parent of Microsoft 365's MX hosts with DANE, which new domains get since July 2026.
const MICROSOFT_NOW: &str = ".mx.microsoft";

/// What was seen of a domain's MX hosts and of the certificate of its policy host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Probes<'a> {
    /// The MX hosts that could be reached.
    pub mx: &'a [ProbedHost],
    /// The MX hosts that could not be reached.
    pub unreached: &'a [UnreachedHost],
    /// The certificate of the policy host that ends first, over all of its addresses; `None` if none was seen.
    pub policy_host: Option<Validity>,
}

/// The alerts for a domain, most severe first. A domain without a published policy raises none.
pub fn alerts(
    desired: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    probes: Probes<'_>,
    now: Timestamp,
) -> Vec<Alert> {
    let Some(mode) = rollout.mode.map(|known| known.mode).filter(|mode| *mode != Mode::None) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for host in &seen.mx {
        all.extend(uncovered(&desired.domain, rollout, host, now));
    }
    all.extend(probes.mx.iter().filter_map(|host| mx_certificate(host, mode, now)));
    all.extend(record_gone(&desired.domain, seen));
    all.extend(policy_host(desired, rollout, seen));
    all.extend(probes.policy_host.and_then(|validity| policy_certificate(&desired.domain, validity, now)));
    if probes.mx.is_empty() && !probes.unreached.is_empty() {
        all.push(mx_unreached(&desired.domain, probes.unreached));
    }
    all
}

fn alert(
    kind: AlertKind,
    subject: impl ToString,
    what: String,
    consequence: impl Into<Cow<'static, str>>,
    remedy: String,
) -> Alert {
    let (subject, consequence) = (subject.to_string(), consequence.into());
    Alert { kind, subject, what, consequence, remedy, cause: None, domains: Vec::new() }
}

/// The alerts about an MX host that a policy does not name.
fn uncovered(domain: &DomainName, rollout: &RolloutState, host: &DomainName, now: Timestamp) -> Vec<Alert> {
    let apply = format!("sternpost apply {domain}");
    let is_move = is_microsoft_move(rollout, host);
    let moved = match is_move {
        true => {
            ". Microsoft 365 moves the domain from mail.protection.outlook.com to its hosts with DANE, mx.microsoft"
        }
        false => "",
    };
    let mut all = Vec::new();
    if rollout.newest().is_some_and(|newest| newest.mode == Mode::Testing && !newest.names(host)) {
        let remedy = match is_move {
            true => format!("If you started the move in Microsoft 365, add the host to the policy: {apply}"),
            false => format!(
                "If the host is yours, add it to the policy ({apply}); if it is not, remove it from the MX records and check who can change them"
            ),
        };
        let what = format!("{host} is an MX host of {domain}, but the policy does not name it{moved}");
        all.push(alert(AlertKind::MxUncovered, host, what, CONSEQUENCE_TESTING, remedy));
    }
    if rollout.published.iter().any(|published| published.is_out(now) && published.refuses(host)) {
        let remedy = match is_move {
            true => format!(
                "If you started the move in Microsoft 365, add the host to the policy at once ({apply}), and keep the MX record with mail.protection.outlook.com as well until senders hold that policy"
            ),
            false => format!(
                "If the host is yours, remove it from the MX records until senders hold a policy that names it, or add it to the policy at once: {apply}. If it is not, remove it and check who can change the zone: the policy keeps mail away from it"
            ),
        };
        let what = format!(
            "{host} is an MX host of {domain}, but an enforced policy that senders may hold does not name it{moved}"
        );
        all.push(alert(AlertKind::MxUncovered, host, what, CONSEQUENCE_ENFORCED, remedy));
    }
    all
}

/// True if the host is one of Microsoft 365 with DANE, and the domain had one without.
fn is_microsoft_move(rollout: &RolloutState, host: &DomainName) -> bool {
    let is_before = |name: &str| name.ends_with(MICROSOFT_BEFORE);
    let policies = || rollout.published.iter().flat_map(|published| &published.mx);
    host.as_str().ends_with(MICROSOFT_NOW)
        && (rollout.mx.iter().any(|host| is_before(host.as_str()))
            || policies().any(|pattern| is_before(&pattern.to_string())))
}

fn mx_certificate(host: &ProbedHost, mode: Mode, now: Timestamp) -> Option<Alert> {
    let name = &host.name;
    let consequence = if mode == Mode::Enforce { CONSEQUENCE_ENFORCED } else { CONSEQUENCE_TESTING };
    let found = match &host.proof {
        Err(why) => alert(
            AlertKind::MxUnverified,
            name,
            format!("{name} failed TLS authentication: {why}"),
            consequence,
            format!("Offer STARTTLS with a certificate for {name} from a public CA"),
        ),
        Ok(validity) if validity.ends_soon(now) => alert(
            AlertKind::MxCertificateEnds,
            name,
            format!("the certificate of {name} expires at {}", validity.until),
            consequence,
            validity.remedy(),
        ),
        Ok(_) => return None,
    };
    Some(Alert { cause: Some(name.to_string()), ..found })
}

/// The alert about a domain of which no MX host could be reached. A failed probe of a host that others reach is a fault of
/// this machine's network, so the remedy begins with port 25.
fn mx_unreached(domain: &DomainName, unreached: &[UnreachedHost]) -> Alert {
    let reasons: Vec<String> =
        unreached.iter().take(MAX_NAMED).map(|host| format!("{} ({})", host.name, host.why)).collect();
    let more = match unreached.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let first = unreached.first().map_or("mx.example.org", |host| host.name.as_str());
    let mut names: Vec<&str> = unreached.iter().map(|host| host.name.as_str()).collect();
    names.sort_unstable();
    let what =
        format!("no MX host of {domain} can be reached from this machine: {}{more}", reasons.join(", "));
    let remedy = format!(
        "Test it: nc -zvw 10 {first} 25. If that fails although the host receives mail, outgoing port 25 is blocked here, as in most clouds: have the provider open it, or run [guard] on a machine where it is open"
    );
    let found = alert(AlertKind::MxUnreached, domain, what, CONSEQUENCE_UNSEEN, remedy);
    Alert { cause: Some(names.join(" ")), ..found }
}

fn record_gone(domain: &DomainName, seen: &ObservedState) -> Option<Alert> {
    let record = format!("_mta-sts.{domain}");
    seen.record.is_none().then(|| {
        alert(
            AlertKind::RecordGone,
            &record,
            format!("the record {record} is missing"),
            CONSEQUENCE_UNPROTECTED,
            format!("Publish it again: sternpost apply {domain}"),
        )
    })
}

/// The alerts about the policy that is served, or not. Domains whose policy hosts are aliases of one host share its
/// failures.
fn policy_host(desired: &DesiredState, rollout: &RolloutState, seen: &ObservedState) -> Vec<Alert> {
    let host = format!("mta-sts.{}", desired.domain);
    let unserved = seen.unserved.as_ref().map(|why| Alert {
        cause: seen.policy_host.0.last().map(|target| format!("{target}: {why}")),
        ..alert(
            AlertKind::PolicyUnserved,
            &host,
            why.clone(),
            if seen.copies.is_empty() { CONSEQUENCE_NO_POLICY } else { CONSEQUENCE_PARTLY_SERVED },
            format!(
                "Repair the policy host; this shows what it must serve: sternpost apply {}",
                desired.domain
            ),
        )
    });
    let foreign = foreign(rollout, seen).map(|policy| foreign_policy(&host, policy, &desired.domain));
    unserved.into_iter().chain(foreign).collect()
}

fn policy_certificate(domain: &DomainName, validity: Validity, now: Timestamp) -> Option<Alert> {
    validity.ends_soon(now).then(|| {
        alert(
            AlertKind::PolicyCertificateEnds,
            format!("mta-sts.{domain}"),
            format!("the policy host's certificate expires at {}", validity.until),
            CONSEQUENCE_NO_POLICY,
            validity.remedy(),
        )
    })
}

/// A policy that some address serves, if it is not one of those that senders may hold: another program has published
/// it. An assumed policy matches every policy.
fn foreign<'s>(rollout: &RolloutState, seen: &'s ObservedState) -> Option<&'s Policy> {
    let is_known = |served: &&Policy| {
        rollout.published.iter().any(|published| published.assumed || published.is(served))
    };
    seen.policies().filter(|_| !rollout.published.is_empty()).find(|served| !is_known(served))
}

fn foreign_policy(host: &str, policy: &Policy, domain: &DomainName) -> Alert {
    let mx: Vec<String> = policy.mx.iter().map(ToString::to_string).collect();
    let mx = if mx.is_empty() { "without MX hosts".to_owned() } else { format!("for {}", mx.join(", ")) };
    alert(
        AlertKind::PolicyUnserved,
        host,
        format!("{host} serves a policy that Sternpost did not publish: mode {} {mx}", policy.mode),
        format!("Senders that fetch it apply it instead of yours, for up to {} seconds.", policy.max_age),
        format!(
            "If you changed the file yourself, record that: sternpost plan {domain}. If you did not, check who can change the zone and the policy host before you run anything else"
        ),
    )
}
