//! The watch over a domain that has a policy: what would make senders refuse its mail, or leaves it
//! unprotected, with consequence and remedy. [`alerts`] is pure; [`Guard`] looks.

use super::RolloutState;
use super::desired::DesiredState;
use super::look::look;
use super::observed::ObservedState;
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::{Dns, DnsError, host_addresses};
use net::https::PolicyHosts;
use net::smtp::{Fault, MailHosts, Target, TlsDemand};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Something that needs somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What kind of thing.
    pub kind: AlertKind,
    /// Which host or record.
    pub subject: String,
    /// What is seen.
    pub what: String,
    /// What follows.
    pub consequence: Cow<'static, str>,
    /// What to do.
    pub remedy: String,
}

/// Kinds of alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// An MX host that a policy which senders hold does not name.
    MxUncovered,
    /// The policy can't be fetched, or is invalid.
    PolicyUnserved,
    /// The record is gone.
    RecordGone,
    /// The policy host's certificate ends soon.
    PolicyCertificateEnds,
    /// An MX host does not prove itself by TLS.
    MxUnverified,
    /// An MX host's certificate ends soon.
    MxCertificateEnds,
    /// Verified senders met a failure.
    ReportedFailure,
    /// Too many sessions fail.
    FailureRate,
    /// Reports have ceased.
    Silence,
}

impl AlertKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::MxUncovered,
        Self::PolicyUnserved,
        Self::RecordGone,
        Self::PolicyCertificateEnds,
        Self::MxUnverified,
        Self::MxCertificateEnds,
        Self::ReportedFailure,
        Self::FailureRate,
        Self::Silence,
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
        })
    }
}

/// An MX host as a strict sender finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbedHost {
    /// Which.
    pub name: DomainName,
    /// When its certificate ends, or why it does not prove itself.
    pub proof: Result<Timestamp, String>,
}

/// Before a certificate ends.
const EXPIRY_WARNING: SignedDuration = SignedDuration::from_hours(14 * 24);

const CONSEQUENCE_ENFORCED: &str =
    "Senders that hold the enforced policy refuse to deliver to it: mail waits, and bounces after days.";
const CONSEQUENCE_TESTING: &str =
    "In testing mail still comes; under enforcement it would wait and then bounce.";
const CONSEQUENCE_NO_RECORD: &str = "Senders that know the policy keep it until its max_age is over; new ones are not protected, and the old ones not when it ends.";
const CONSEQUENCE_UNPROTECTED: &str =
    "Senders that know no policy deliver as if there were none, and the others can't see changes.";

/// What needs somebody; the gravest first. Nothing for a domain without a policy of ours.
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
    let again = format!("sternpost apply {}", wanted.domain);
    let tested = rollout.newest().filter(|newest| newest.mode == Mode::Testing);
    for host in &seen.mx {
        if tested.is_some_and(|tested| !tested.names(host)) {
            all.push(Alert {
                kind: AlertKind::MxUncovered,
                subject: host.to_string(),
                what: format!("{host} is an MX host of {}, and the policy does not name it", wanted.domain),
                consequence: CONSEQUENCE_TESTING.into(),
                remedy: format!("If it is yours, have the policy widened ({again}); if it is not, take it out of the MX records, and look who can change them"),
            });
        }
        if rollout.promises.iter().any(|promise| promise.is_out(now) && promise.refuses(host)) {
            all.push(Alert {
                kind: AlertKind::MxUncovered,
                subject: host.to_string(),
                what: format!("{host} is an MX host of {}, and an enforced policy that senders may hold does not name it", wanted.domain),
                consequence: CONSEQUENCE_ENFORCED.into(),
                remedy: format!("Take it out of the MX records until senders know it, or have the policy widened at once: {again}"),
            });
        }
    }
    for host in hosts {
        let refused = if mode == Mode::Enforce { CONSEQUENCE_ENFORCED } else { CONSEQUENCE_TESTING };
        match &host.proof {
            Err(why) => all.push(Alert {
                kind: AlertKind::MxUnverified,
                subject: host.name.to_string(),
                what: format!("{} does not prove itself: {why}", host.name),
                consequence: refused.into(),
                remedy: format!("Give it a certificate for {} from a public authority, with STARTTLS offered", host.name),
            }),
            Ok(end) if *end - EXPIRY_WARNING <= now => all.push(Alert {
                kind: AlertKind::MxCertificateEnds,
                subject: host.name.to_string(),
                what: format!("the certificate of {} ends at {end}", host.name),
                consequence: refused.into(),
                remedy: "Renew it before then; most authorities renew a month before the end by themselves, so look why that did not happen".to_owned(),
            }),
            Ok(_) => {}
        }
    }
    if seen.record.is_none() {
        all.push(Alert {
            kind: AlertKind::RecordGone,
            subject: format!("_mta-sts.{}", wanted.domain),
            what: format!("the record _mta-sts.{} is gone", wanted.domain),
            consequence: CONSEQUENCE_UNPROTECTED.into(),
            remedy: format!("Put it back: {again}"),
        });
    }
    let host = format!("mta-sts.{}", wanted.domain);
    if let Some(why) = &seen.unserved {
        all.push(Alert {
            kind: AlertKind::PolicyUnserved,
            subject: host.clone(),
            what: why.clone(),
            consequence: CONSEQUENCE_NO_RECORD.into(),
            remedy: format!("Bring the policy host back; what has to be served is shown by: {again}"),
        });
    }
    if let Some(end) = seen.certificate_ends.filter(|end| *end - EXPIRY_WARNING <= now) {
        all.push(Alert {
            kind: AlertKind::PolicyCertificateEnds,
            subject: host,
            what: format!("the policy host's certificate ends at {end}"),
            consequence: CONSEQUENCE_NO_RECORD.into(),
            remedy: "Renew it before then".to_owned(),
        });
    }
    all
}

/// Looks at domains.
pub struct Guard {
    /// Names, past caches.
    pub dns: Arc<dyn Dns>,
    /// Policy files.
    pub policies: Arc<dyn PolicyHosts>,
    /// MX hosts.
    pub mail: Arc<dyn MailHosts>,
    /// When.
    pub clock: Arc<dyn Clock>,
}

/// The alerts for a domain, most severe first, and its MX hosts as they were found.
pub type GuardLook = (Vec<Alert>, Vec<ProbedHost>);

impl Guard {
    /// What needs somebody now, and how the MX hosts were found.
    pub fn look<'a>(
        &'a self,
        wanted: &'a DesiredState,
        rollout: &'a RolloutState,
    ) -> BoxFuture<'a, Result<GuardLook, DnsError>> {
        Box::pin(async move {
            if rollout.mode.is_none_or(|known| known.mode == Mode::None) {
                return Ok((Vec::new(), Vec::new()));
            }
            let seen = look(self.dns.as_ref(), self.policies.as_ref(), &wanted.domain).await?;
            let mut hosts = Vec::new();
            for name in seen.mx.iter().take(formats::limits::MX_HOSTS) {
                hosts.extend(self.host(name).await);
            }
            Ok((alerts(wanted, rollout, &seen, &hosts, self.clock.now()), hosts))
        })
    }

    /// Nothing when the host can't be reached: mail waits then whatever the policy says.
    async fn host(&self, name: &DomainName) -> Option<ProbedHost> {
        let found = host_addresses(self.dns.as_ref(), name).await.ok()?;
        let mut reached = None;
        for address in found.addresses {
            let target = Target { host: name.clone(), address };
            let proof = match self.mail.session(&target, &TlsDemand::Pkix, None).await {
                Ok(report) => {
                    let leaf = report.tls.and_then(|tls| tls.chain.into_iter().next());
                    leaf.map(|leaf| leaf.not_after).ok_or_else(|| "it shows no certificate".to_owned())
                }
                Err(failure) => match &failure.fault {
                    Fault::Connect(_) | Fault::Wire(_) | Fault::Refused(..) => continue,
                    fault => Err(fault.to_string()),
                },
            };
            let is_bad = proof.is_err();
            reached = Some(ProbedHost { name: name.clone(), proof });
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
    use formats::{MxPattern, Policy, PolicyId};

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
    fn a_domain_that_is_well_needs_nobody() {
        let (wanted, rollout, seen) = enforced();
        assert_eq!(kinds(&wanted, &rollout, &seen, &[host(Ok(days(60)))]), []);
        assert_eq!(
            kinds(&wanted, &RolloutState::default(), &ObservedState::default(), &[host(Err("x".into()))]),
            []
        );
    }

    #[test]
    fn each_fault_is_told_with_its_remedy() {
        let (wanted, rollout, mut seen) = enforced();
        seen.mx.push(name("new.b.example"));
        let told = alerts(&wanted, &rollout, &seen, &[], now());
        assert_eq!(
            (told.len(), told[0].kind, &*told[0].consequence),
            (1, AlertKind::MxUncovered, CONSEQUENCE_ENFORCED)
        );
        assert!(told[0].remedy.contains("sternpost apply a.example"));
        let mut tested = rollout.clone();
        tested.promises.iter_mut().for_each(|promise| promise.mode = Mode::Testing);
        tested.mode = tested.mode.map(|known| InMode { mode: Mode::Testing, ..known });
        let told = alerts(&wanted, &tested, &seen, &[], now());
        assert_eq!(
            (told.len(), told[0].kind, &*told[0].consequence),
            (1, AlertKind::MxUncovered, CONSEQUENCE_TESTING)
        );
        let (_, _, well) = enforced();
        assert!(alerts(&wanted, &tested, &well, &[], now()).is_empty());
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
    fn an_old_promise_counts_although_the_new_policy_names_the_host() {
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
