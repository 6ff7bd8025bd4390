//! Monitors domains with a published policy: raises alerts about conditions that make senders refuse mail or that
//! leave the domain unprotected, each with consequence and remedy. [`alerts`] is pure; [`Guard`] observes the domain,
//! probes its MX hosts and visits its policy host at every address. A check ends by a deadline, and a host that does not
//! answer takes only a part of it.

mod alert;
mod conditions;
mod expiry;

pub use alert::{Alert, AlertGroup, AlertKind, groups};
pub use conditions::{Probes, alerts};
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

/// An MX host whose certificate could not be verified, since no session with it came as far as TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreachedHost {
    /// The MX host's name.
    pub name: DomainName,
    /// Why the sessions at its first addresses failed, or that it has no address.
    pub why: String,
}

/// The result of probing one MX host.
enum Probe {
    /// A session came as far as TLS, or the host refused TLS. The certificate is the one that ends first.
    Reached(ProbedHost, Option<Box<CertificateFacts>>),
    Unreached(UnreachedHost),
}

/// The default of [`Guard::deadline`].
pub const DEADLINE: Duration = Duration::from_secs(180);
/// Hosts of one domain that are probed at once.
const PROBES_AT_ONCE: usize = 16;
/// Addresses of a host that the reason names why it was not reached.
const FAULTS: usize = 2;
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
    /// The results of probing its MX hosts; those that could not be reached are in `unreached`.
    pub hosts: Vec<ProbedHost>,
    /// The MX hosts of which no address could be reached from here.
    pub unreached: Vec<UnreachedHost>,
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
        let (mut hosts, mut unreached, mut certificates) = (Vec::new(), Vec::new(), Vec::new());
        for probe in self.probe_hosts(&seen.mx).await {
            match probe {
                Probe::Reached(host, certificate) => {
                    certificates.extend(certificate.map(|certificate| (host.name.clone(), *certificate)));
                    hosts.push(host);
                }
                Probe::Unreached(host) => unreached.push(host),
            }
        }
        let policy_host = seen.certificate.as_ref().map(Validity::from);
        let probed = Probes { mx: &hosts, unreached: &unreached, policy_host };
        let alerts = alerts(desired, rollout, &seen, probed, self.clock.now());
        Ok(GuardCheck { alerts, hosts, unreached, mx: seen.mx, certificates })
    }

    /// Probes the MX hosts, several at once. See [`Self::probe_host`].
    async fn probe_hosts(&self, names: &[DomainName]) -> Vec<Probe> {
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
        all.into_iter().map(|(_, probe)| probe).collect()
    }

    /// Probes one MX host at all of its addresses, until one fails. An address that does not end in its time counts as not
    /// reached. If no address can be reached, mail waits, whatever the policy says.
    async fn probe_host(&self, name: &DomainName) -> Probe {
        let unreached = |why| Probe::Unreached(UnreachedHost { name: name.clone(), why });
        let found = match host_addresses(self.dns.as_ref(), name).await {
            Ok(found) => found,
            Err(error) => return unreached(format!("its addresses are not known: {error}")),
        };
        let count = u32::try_from(found.addresses.len()).unwrap_or(u32::MAX).max(1);
        let limit = self.deadline / HOST_SHARE / count;
        let (mut presented, mut faults) = (Vec::new(), Vec::new());
        for address in found.addresses {
            let target = Target { host: name.clone(), address };
            let session = self.mail.session(&target, &TlsDemand::Pkix, None);
            let Ok(session) = timeout(limit, session).await else {
                faults.push(format!("no answer at {address}"));
                continue;
            };
            let proof = match session {
                Ok(report) => {
                    let leaf = report.tls.and_then(|tls| tls.chain.into_iter().next());
                    leaf.ok_or_else(|| "it presents no certificate".to_owned())
                }
                Err(failure) => match &failure.fault {
                    fault @ (Fault::Connect(_) | Fault::Wire(_) | Fault::Refused(..)) => {
                        faults.push(format!("{address}: {fault}"));
                        continue;
                    }
                    fault => Err(fault.to_string()),
                },
            };
            match proof {
                Ok(certificate) => presented.push(certificate),
                Err(why) => return Probe::Reached(ProbedHost { name: name.clone(), proof: Err(why) }, None),
            }
        }
        let first = presented.into_iter().min_by_key(|certificate: &CertificateFacts| certificate.not_after);
        match first {
            Some(first) => {
                let proof = Ok(Validity::from(&first));
                Probe::Reached(ProbedHost { name: name.clone(), proof }, Some(Box::new(first)))
            }
            None if faults.is_empty() => unreached("it has no addresses".to_owned()),
            None => {
                faults.truncate(FAULTS);
                unreached(faults.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
