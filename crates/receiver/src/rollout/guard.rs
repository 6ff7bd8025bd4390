//! Monitors domains with a published policy: raises alerts about conditions that make senders refuse mail or that
//! leave the domain unprotected, each with consequence and remedy. [`alerts`] is pure; [`Guard`] observes the domain,
//! probes its MX hosts and visits its policy host at every address. A check ends by a deadline, and a host that does not
//! answer takes only a part of it.

mod alert;
mod conditions;
mod expiry;

pub use alert::{Alert, AlertGroup, AlertKind, groups};
pub use conditions::{Certificates, alerts};
pub use expiry::Validity;

use super::RolloutState;
use super::desired::DesiredState;
use super::observe::{LookupError, observe};
use formats::limits::MX_HOSTS;
use formats::{DomainName, Mode};
use net::BoxFuture;
use net::certificate::CertificateFacts;
use net::clock::Clock;
use net::dns::{Dns, host_addresses};
use net::https::PolicyHosts;
use net::smtp::{Fault, MailHosts, Target, TlsDemand};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// An MX host as a sender that enforces the policy finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbedHost {
    /// The MX host's name.
    pub name: DomainName,
    /// The validity of its certificate, at the address where it ends first; or why TLS authentication failed.
    pub proof: Result<Validity, String>,
}

impl ProbedHost {
    /// Why a sender that enforces the newest policy would not deliver to the host; `None` if it would.
    pub fn problem(&self, rollout: &RolloutState) -> Option<String> {
        let is_named = rollout.newest().is_none_or(|policy| policy.names(&self.name));
        let unnamed = || (!is_named).then(|| "the policy does not name it".to_owned());
        self.proof.as_ref().err().cloned().or_else(unnamed)
    }
}

/// The default of [`Guard::deadline`].
pub const DEADLINE: Duration = Duration::from_secs(180);
/// Hosts of one domain that are probed at once.
const PROBES_AT_ONCE: usize = 16;
/// The part of a check's deadline that one host may take.
const HOST_SHARE: u32 = 3;

/// Observes domains and probes their hosts.
#[derive(Clone)]
pub struct Guard {
    /// Resolves names, bypassing caches.
    pub dns: Arc<dyn Dns>,
    /// Fetches policy files.
    pub policies: Arc<dyn PolicyHosts>,
    /// Opens SMTP sessions to MX hosts.
    pub mail: Arc<dyn MailHosts>,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Name servers and addresses of the policy host that the operator has left out.
    pub omitted: Vec<String>,
    /// The longest duration of one check.
    pub deadline: Duration,
}

/// The result of one check of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuardCheck {
    /// The alerts, most severe first.
    pub alerts: Vec<Alert>,
    /// The results of probing its MX hosts; those that could not be reached are missing.
    pub hosts: Vec<ProbedHost>,
    /// All MX hosts of the domain.
    pub mx: Vec<DomainName>,
    /// The certificates that MX hosts presented, of those whose TLS authentication succeeded.
    pub certificates: Vec<(DomainName, CertificateFacts)>,
}

/// Why a check of a domain has no result. The alerts of its last check stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// A DNS query for the domain's records failed.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The check did not end by its deadline.
    #[error("the check did not end within {} seconds", .0.as_secs())]
    Deadline(Duration),
}

impl Guard {
    /// Observes a domain now, probes its hosts, and returns the alerts and the probe results.
    ///
    /// # Errors
    ///
    /// If DNS fails, or if the deadline passes.
    pub fn check<'a>(
        &'a self,
        desired: &'a DesiredState,
        rollout: &'a RolloutState,
    ) -> BoxFuture<'a, Result<GuardCheck, GuardError>> {
        Box::pin(async move {
            let checked = timeout(self.deadline, self.check_without_deadline(desired, rollout)).await;
            checked.unwrap_or(Err(GuardError::Deadline(self.deadline)))
        })
    }

    async fn check_without_deadline(
        &self,
        desired: &DesiredState,
        rollout: &RolloutState,
    ) -> Result<GuardCheck, GuardError> {
        if rollout.mode.is_none_or(|known| known.mode == Mode::None) {
            return Ok(GuardCheck::default());
        }
        let seen = observe(self.dns.as_ref(), self.policies.as_ref(), &desired.domain, &self.omitted).await?;
        let probed = self.probe_hosts(&seen.mx).await;
        let (mut hosts, mut certificates) = (Vec::with_capacity(probed.len()), Vec::new());
        for (host, certificate) in probed {
            certificates.extend(certificate.map(|certificate| (host.name.clone(), certificate)));
            hosts.push(host);
        }
        let policy_host = seen.certificate.as_ref().map(Validity::from);
        let all = Certificates { mx: &hosts, policy_host };
        let alerts = alerts(desired, rollout, &seen, all, self.clock.now());
        Ok(GuardCheck { alerts, hosts, mx: seen.mx, certificates })
    }

    /// Probes the MX hosts, several at once. See [`Self::probe_host`].
    async fn probe_hosts(&self, names: &[DomainName]) -> Vec<(ProbedHost, Option<CertificateFacts>)> {
        let limit = Arc::new(Semaphore::new(PROBES_AT_ONCE));
        let mut probes = JoinSet::new();
        for (place, name) in names.iter().take(MX_HOSTS).cloned().enumerate() {
            let (guard, limit) = (self.clone(), limit.clone());
            probes.spawn(async move {
                let _permit = limit.acquire().await;
                (place, guard.probe_host(&name).await)
            });
        }
        let mut all = probes.join_all().await;
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().filter_map(|(_, probed)| probed).collect()
    }

    /// Probes one MX host at all of its addresses, until one fails. An address that does not end in its time counts as not
    /// reached. Returns the certificate that ends first, too. `None` when no address can be reached: mail then waits, whatever
    /// the policy says.
    async fn probe_host(&self, name: &DomainName) -> Option<(ProbedHost, Option<CertificateFacts>)> {
        let found = host_addresses(self.dns.as_ref(), name).await.ok()?;
        let count = u32::try_from(found.addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut presented = Vec::new();
        for address in found.addresses {
            let target = Target { host: name.clone(), address };
            let session = self.mail.session(&target, &TlsDemand::Pkix, None);
            let Ok(session) = timeout(self.deadline / HOST_SHARE / count, session).await else { continue };
            let proof = match session {
                Ok(report) => {
                    let leaf = report.tls.and_then(|tls| tls.chain.into_iter().next());
                    leaf.ok_or_else(|| "it presents no certificate".to_owned())
                }
                Err(failure) => match &failure.fault {
                    Fault::Connect(_) | Fault::Wire(_) | Fault::Refused(..) => continue,
                    fault => Err(fault.to_string()),
                },
            };
            match proof {
                Ok(certificate) => presented.push(certificate),
                Err(why) => return Some((ProbedHost { name: name.clone(), proof: Err(why) }, None)),
            }
        }
        let first =
            presented.into_iter().min_by_key(|certificate: &CertificateFacts| certificate.not_after)?;
        Some((ProbedHost { name: name.clone(), proof: Ok(Validity::from(&first)) }, Some(first)))
    }
}

#[cfg(test)]
mod tests;
