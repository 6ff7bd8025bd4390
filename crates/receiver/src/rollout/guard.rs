//! Monitors domains with a published policy: raises alerts about conditions that make senders refuse mail or that
//! leave the domain unprotected, each with consequence and remedy. [`alerts`] is pure; [`Guard`] observes the domain
//! and probes its MX hosts.

use super::RolloutState;
use super::desired::DesiredState;
use super::look::look;
use super::observed::ObservedState;
use formats::{DomainName, Mode, Policy};
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::certificate::CertificateFacts;
use net::clock::Clock;
use net::dns::{Dns, DnsError, host_addresses};
use net::https::PolicyHosts;
use net::smtp::{Fault, MailHosts, Target, TlsDemand};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// An alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The kind of condition.
    pub kind: AlertKind,
    /// The host, record or cause that the alert is about.
    pub subject: String,
    /// What was observed.
    pub what: String,
    /// What it means for mail.
    pub consequence: Cow<'static, str>,
    /// What the operator should do.
    pub remedy: String,
}

/// The kinds of alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// An MX host is not named by a policy that senders may hold.
    MxUncovered,
    /// The policy can't be fetched, or is invalid.
    PolicyUnserved,
    /// The record `_mta-sts` is missing.
    RecordGone,
    /// The policy host's certificate expires soon.
    PolicyCertificateEnds,
    /// An MX host failed TLS authentication.
    MxUnverified,
    /// An MX host's certificate expires soon.
    MxCertificateEnds,
    /// Verified senders reported a failure.
    ReportedFailure,
    /// The failure rate in verified reports is too high.
    FailureRate,
    /// No reports arrive any more.
    Silence,
    /// The quarantine reached its quota and lost something. Raised by the server, not by a check of a domain.
    QuarantineFull,
    /// Only failures that few senders report keep the domain from enforcement, and the operator has to decide.
    DecisionNeeded,
}

impl AlertKind {
    /// All kinds that a check of a domain raises.
    pub const ALL: [Self; 10] = [
        Self::MxUncovered,
        Self::PolicyUnserved,
        Self::RecordGone,
        Self::PolicyCertificateEnds,
        Self::MxUnverified,
        Self::MxCertificateEnds,
        Self::ReportedFailure,
        Self::FailureRate,
        Self::Silence,
        Self::DecisionNeeded,
    ];
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MxUncovered => "mx-uncovered",
            Self::PolicyUnserved => "policy-unserved",
            Self::RecordGone => "record-gone",
            Self::PolicyCertificateEnds => "policy-certificate-ends",
            Self::MxUnverified => "mx-unverified",
            Self::MxCertificateEnds => "mx-certificate-ends",
            Self::ReportedFailure => "reported-failure",
            Self::FailureRate => "failure-rate",
            Self::Silence => "silence",
            Self::QuarantineFull => "quarantine-full",
            Self::DecisionNeeded => "decision-needed",
        })
    }
}

/// An MX host as a sender that enforces the policy finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbedHost {
    /// The host's name.
    pub name: DomainName,
    /// When its certificate expires, or why TLS authentication failed.
    pub proof: Result<Timestamp, String>,
}

impl ProbedHost {
    /// Why a sender that enforces the newest policy would not deliver to the host; `None` if it would.
    pub fn problem(&self, rollout: &RolloutState) -> Option<String> {
        let is_named = rollout.newest().is_none_or(|policy| policy.names(&self.name));
        let unnamed = || (!is_named).then(|| "the policy does not name it".to_owned());
        self.proof.as_ref().err().cloned().or_else(unnamed)
    }
}

/// How long before a certificate's expiry an alert is raised.
const EXPIRY_WARNING: SignedDuration = SignedDuration::from_hours(14 * 24);

const CONSEQUENCE_ENFORCED: &str = "Senders that hold the enforced policy refuse to deliver to it: mail is queued, and bounces after a few days.";
const CONSEQUENCE_TESTING: &str =
    "In testing mode mail still arrives; under enforcement it would be queued and then bounce.";
const CONSEQUENCE_NO_POLICY: &str = "Senders that cached the policy apply it until its max_age expires; after that, and at all other senders, mail is not protected.";
const CONSEQUENCE_UNPROTECTED: &str =
    "Senders without a cached policy deliver unprotected, and the others don't learn of policy changes.";

/// The alerts for a domain, most severe first. A domain without a published policy raises none.
pub fn alerts(
    wanted: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    hosts: &[ProbedHost],
    now: Timestamp,
) -> Vec<Alert> {
    let Some(mode) = rollout.mode.map(|known| known.mode).filter(|mode| *mode != Mode::None) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    let apply = format!("sternpost apply {}", wanted.domain);
    let in_testing = rollout.newest().filter(|newest| newest.mode == Mode::Testing);
    for host in &seen.mx {
        if in_testing.is_some_and(|policy| !policy.names(host)) {
            all.push(Alert {
                kind: AlertKind::MxUncovered,
                subject: host.to_string(),
                what: format!("{host} is an MX host of {}, but the policy does not name it", wanted.domain),
                consequence: CONSEQUENCE_TESTING.into(),
                remedy: format!("If the host is yours, add it to the policy ({apply}); if it is not, remove it from the MX records and check who can change them"),
            });
        }
        if rollout.promises.iter().any(|published| published.is_out(now) && published.refuses(host)) {
            all.push(Alert {
                kind: AlertKind::MxUncovered,
                subject: host.to_string(),
                what: format!("{host} is an MX host of {}, but an enforced policy that senders may hold does not name it", wanted.domain),
                consequence: CONSEQUENCE_ENFORCED.into(),
                remedy: format!("If the host is yours, remove it from the MX records until senders hold a policy that names it, or add it to the policy at once: {apply}. If it is not, remove it and check who can change the zone: the policy keeps mail away from it"),
            });
        }
    }
    for host in hosts {
        let consequence = if mode == Mode::Enforce { CONSEQUENCE_ENFORCED } else { CONSEQUENCE_TESTING };
        match &host.proof {
            Err(why) => all.push(Alert {
                kind: AlertKind::MxUnverified,
                subject: host.name.to_string(),
                what: format!("{} failed TLS authentication: {why}", host.name),
                consequence: consequence.into(),
                remedy: format!("Offer STARTTLS with a certificate for {} from a public CA", host.name),
            }),
            Ok(end) if *end - EXPIRY_WARNING <= now => all.push(Alert {
                kind: AlertKind::MxCertificateEnds,
                subject: host.name.to_string(),
                what: format!("the certificate of {} expires at {end}", host.name),
                consequence: consequence.into(),
                remedy: "Renew it before then; ACME clients usually renew a month before expiry, so check why that did not happen".to_owned(),
            }),
            Ok(_) => {}
        }
    }
    if seen.record.is_none() {
        all.push(Alert {
            kind: AlertKind::RecordGone,
            subject: format!("_mta-sts.{}", wanted.domain),
            what: format!("the record _mta-sts.{} is missing", wanted.domain),
            consequence: CONSEQUENCE_UNPROTECTED.into(),
            remedy: format!("Publish it again: {apply}"),
        });
    }
    let host = format!("mta-sts.{}", wanted.domain);
    if let Some(why) = &seen.unserved {
        all.push(Alert {
            kind: AlertKind::PolicyUnserved,
            subject: host.clone(),
            what: why.clone(),
            consequence: CONSEQUENCE_NO_POLICY.into(),
            remedy: format!("Repair the policy host; this shows what it must serve: {apply}"),
        });
    }
    if let Some(policy) = foreign(rollout, seen) {
        all.push(foreign_policy(&host, policy, &wanted.domain));
    }
    if let Some(end) = seen.certificate_ends.filter(|end| *end - EXPIRY_WARNING <= now) {
        all.push(Alert {
            kind: AlertKind::PolicyCertificateEnds,
            subject: host,
            what: format!("the policy host's certificate expires at {end}"),
            consequence: CONSEQUENCE_NO_POLICY.into(),
            remedy: "Renew it before then".to_owned(),
        });
    }
    all
}

/// The served policy, if it is none of those that senders may hold: somebody else has published it. An assumed policy
/// stands for one that is not known.
fn foreign<'s>(rollout: &RolloutState, seen: &'s ObservedState) -> Option<&'s Policy> {
    let is_known =
        |served: &&Policy| rollout.promises.iter().any(|published| published.assumed || published.is(served));
    seen.served.as_ref().filter(|_| !rollout.promises.is_empty()).filter(|served| !is_known(served))
}

fn foreign_policy(host: &str, policy: &Policy, domain: &DomainName) -> Alert {
    let mx: Vec<String> = policy.mx.iter().map(ToString::to_string).collect();
    let mx = if mx.is_empty() { "without MX hosts".to_owned() } else { format!("for {}", mx.join(", ")) };
    Alert {
        kind: AlertKind::PolicyUnserved,
        subject: host.to_owned(),
        what: format!("{host} serves a policy that Sternpost did not publish: mode {} {mx}", policy.mode),
        consequence: format!(
            "Senders that fetch it apply it instead of yours, for up to {} seconds.",
            policy.max_age
        )
        .into(),
        remedy: format!(
            "If you changed the file yourself, record that: sternpost plan {domain}. If you did not, check who can change the zone and the policy host before you run anything else"
        ),
    }
}

/// Observes domains and probes their MX hosts.
pub struct Guard {
    /// Resolves names, bypassing caches.
    pub dns: Arc<dyn Dns>,
    /// Fetches policy files.
    pub policies: Arc<dyn PolicyHosts>,
    /// Opens SMTP sessions to MX hosts.
    pub mail: Arc<dyn MailHosts>,
    /// The current time.
    pub clock: Arc<dyn Clock>,
}

/// What the guard found out about a domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuardLook {
    /// The alerts, most severe first.
    pub alerts: Vec<Alert>,
    /// The results of probing its MX hosts; those that could not be reached are missing.
    pub hosts: Vec<ProbedHost>,
    /// All of its MX hosts.
    pub mx: Vec<DomainName>,
    /// The certificates that MX hosts presented, of those whose TLS authentication succeeded.
    pub certificates: Vec<(DomainName, CertificateFacts)>,
}

impl Guard {
    /// Observes a domain now, probes its MX hosts, and returns the alerts and the probe results. Fails when DNS does.
    pub fn look<'a>(
        &'a self,
        wanted: &'a DesiredState,
        rollout: &'a RolloutState,
    ) -> BoxFuture<'a, Result<GuardLook, DnsError>> {
        Box::pin(async move {
            if rollout.mode.is_none_or(|known| known.mode == Mode::None) {
                return Ok(GuardLook::default());
            }
            let seen = look(self.dns.as_ref(), self.policies.as_ref(), &wanted.domain).await?;
            let (mut hosts, mut certificates) = (Vec::new(), Vec::new());
            for name in seen.mx.iter().take(formats::limits::MX_HOSTS) {
                let Some((host, certificate)) = self.probe_host(name).await else { continue };
                hosts.push(host);
                certificates.extend(certificate.map(|certificate| (name.clone(), certificate)));
            }
            let alerts = alerts(wanted, rollout, &seen, &hosts, self.clock.now());
            Ok(GuardLook { alerts, hosts, mx: seen.mx, certificates })
        })
    }

    /// Probes one MX host, and returns the certificate of its last address. `None` when it can't be reached: mail then waits,
    /// whatever the policy says.
    async fn probe_host(&self, name: &DomainName) -> Option<(ProbedHost, Option<CertificateFacts>)> {
        let found = host_addresses(self.dns.as_ref(), name).await.ok()?;
        let mut reached = None;
        for address in found.addresses {
            let target = Target { host: name.clone(), address };
            let mut leaf = None;
            let proof = match self.mail.session(&target, &TlsDemand::Pkix, None).await {
                Ok(report) => {
                    leaf = report.tls.and_then(|tls| tls.chain.into_iter().next());
                    let end = leaf.as_ref().map(|leaf| leaf.not_after);
                    end.ok_or_else(|| "it presents no certificate".to_owned())
                }
                Err(failure) => match &failure.fault {
                    Fault::Connect(_) | Fault::Wire(_) | Fault::Refused(..) => continue,
                    fault => Err(fault.to_string()),
                },
            };
            let is_bad = proof.is_err();
            reached = Some((ProbedHost { name: name.clone(), proof }, leaf));
            if is_bad {
                break;
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{InMode, PublishedPolicy};
    use super::*;
    use formats::{MxPattern, PolicyId};

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-25T00:00:00Z".parse().unwrap()
    }

    fn days(days: i64) -> Timestamp {
        now() + SignedDuration::from_hours(days * 24)
    }

    fn enforced() -> (DesiredState, RolloutState, ObservedState) {
        let policy =
            Policy::new(Mode::Enforce, 604_800, vec![MxPattern::parse("mx1.a.example").unwrap()]).unwrap();
        let wanted = DesiredState {
            domain: name("a.example"),
            mx: Vec::new(),
            mode: Mode::Enforce,
            max_age_testing: 86_400,
            max_age_enforce: 604_800,
            max_age_before: 1,
            rua: Vec::new(),
            policy_host: None,
            delegated_to: None,
        };
        let rollout = RolloutState {
            mode: Some(InMode { mode: Mode::Enforce, since: days(-9) }),
            promises: vec![PublishedPolicy::from(&policy)],
            ..RolloutState::default()
        };
        let seen = ObservedState {
            mx: vec![name("mx1.a.example")],
            record: Some(PolicyId::parse("1").unwrap()),
            served: Some(policy),
            certificate_ends: Some(days(60)),
            ..ObservedState::default()
        };
        (wanted, rollout, seen)
    }

    fn kinds(
        wanted: &DesiredState,
        rollout: &RolloutState,
        seen: &ObservedState,
        hosts: &[ProbedHost],
    ) -> Vec<AlertKind> {
        alerts(wanted, rollout, seen, hosts, now()).into_iter().map(|alert| alert.kind).collect()
    }

    fn host(proof: Result<Timestamp, String>) -> ProbedHost {
        ProbedHost { name: name("mx1.a.example"), proof }
    }

    #[test]
    fn a_healthy_domain_raises_no_alert() {
        let (wanted, rollout, seen) = enforced();
        assert_eq!(kinds(&wanted, &rollout, &seen, &[host(Ok(days(60)))]), []);
        assert_eq!(
            kinds(&wanted, &RolloutState::default(), &ObservedState::default(), &[host(Err("x".into()))]),
            []
        );
    }

    #[test]
    fn each_fault_raises_an_alert_with_its_remedy() {
        let (wanted, rollout, mut seen) = enforced();
        seen.mx.push(name("new.b.example"));
        let raised = alerts(&wanted, &rollout, &seen, &[], now());
        assert_eq!(
            (raised.len(), raised[0].kind, &*raised[0].consequence),
            (1, AlertKind::MxUncovered, CONSEQUENCE_ENFORCED)
        );
        assert!(raised[0].remedy.contains("sternpost apply a.example"));
        let mut in_testing = rollout.clone();
        in_testing.promises.iter_mut().for_each(|published| published.mode = Mode::Testing);
        in_testing.mode = in_testing.mode.map(|known| InMode { mode: Mode::Testing, ..known });
        let tested = |seen: &ObservedState| {
            let served = seen.served.clone().map(|policy| Policy { mode: Mode::Testing, ..policy });
            ObservedState { served, ..seen.clone() }
        };
        let raised = alerts(&wanted, &in_testing, &tested(&seen), &[], now());
        assert_eq!(
            (raised.len(), raised[0].kind, &*raised[0].consequence),
            (1, AlertKind::MxUncovered, CONSEQUENCE_TESTING)
        );
        let (_, _, well) = enforced();
        assert!(alerts(&wanted, &in_testing, &tested(&well), &[], now()).is_empty());
        assert_eq!(
            kinds(&wanted, &rollout, &well, &[host(Err("no STARTTLS".into()))]),
            [AlertKind::MxUnverified]
        );
        assert_eq!(kinds(&wanted, &rollout, &well, &[host(Ok(days(13)))]), [AlertKind::MxCertificateEnds]);
        let gone = ObservedState { record: None, ..well.clone() };
        assert_eq!(kinds(&wanted, &rollout, &gone, &[]), [AlertKind::RecordGone]);
        let down = ObservedState {
            served: None,
            unserved: Some("status 500".into()),
            certificate_ends: None,
            ..well.clone()
        };
        assert_eq!(kinds(&wanted, &rollout, &down, &[]), [AlertKind::PolicyUnserved]);
        let ending = ObservedState { certificate_ends: Some(days(14)), ..well };
        assert_eq!(kinds(&wanted, &rollout, &ending, &[]), [AlertKind::PolicyCertificateEnds]);
    }

    #[test]
    fn a_host_passes_only_if_the_newest_policy_names_it() {
        let (_, rollout, _) = enforced();
        assert_eq!(host(Ok(days(60))).problem(&rollout), None);
        assert_eq!(host(Err("no STARTTLS".into())).problem(&rollout).as_deref(), Some("no STARTTLS"));
        let other = ProbedHost { name: name("mx2.a.example"), proof: Ok(days(60)) };
        assert_eq!(other.problem(&rollout).as_deref(), Some("the policy does not name it"));
    }

    #[test]
    fn a_policy_that_nobody_here_published_raises_an_alert() {
        let (wanted, rollout, mut seen) = enforced();
        seen.served = Some(Policy {
            mode: Mode::None,
            max_age: 31_557_600,
            mx: Vec::new(),
            unmatchable: Vec::new(),
            notes: Vec::new(),
        });
        let raised = alerts(&wanted, &rollout, &seen, &[], now());
        assert_eq!((raised.len(), raised[0].kind), (1, AlertKind::PolicyUnserved));
        assert!(raised[0].what.contains("did not publish: mode none without MX hosts"), "{}", raised[0].what);
        assert!(raised[0].consequence.contains("31557600 seconds"), "{}", raised[0].consequence);
        // It may be the one that was assumed, or the domain is not known yet.
        let mut assumed = rollout.clone();
        assumed.promises.iter_mut().for_each(|published| published.assumed = true);
        assert!(alerts(&wanted, &assumed, &seen, &[], now()).is_empty());
        let unknown = RolloutState { promises: Vec::new(), ..rollout };
        assert!(alerts(&wanted, &unknown, &seen, &[], now()).is_empty());
    }

    #[test]
    fn an_earlier_policy_counts_although_the_new_one_names_the_host() {
        let (wanted, mut rollout, mut seen) = enforced();
        seen.mx = vec![name("new.b.example")];
        let old = rollout.promises[0].clone();
        let wide =
            vec![MxPattern::parse("mx1.a.example").unwrap(), MxPattern::parse("new.b.example").unwrap()];
        rollout.promises = vec![
            PublishedPolicy { until: Some(days(-1)), ..old.clone() },
            PublishedPolicy { mx: wide, ..old },
        ];
        assert_eq!(kinds(&wanted, &rollout, &seen, &[]), [AlertKind::MxUncovered]);
        rollout.promises[0].until = Some(days(-8));
        assert_eq!(kinds(&wanted, &rollout, &seen, &[]), []);
    }
}
