//! Which MX hosts would lose mail if a domain's policy were enforced now: hosts that fail TLS authentication, and hosts that
//! the policy does not name. The operator is told before enforcement is allowed against the evidence.

use crate::rollout_context::RolloutContext;
use config::failure::Failure;
use formats::{DomainName, MxPattern};
use receiver::domain::DomainSpec;
use receiver::rollout::RolloutState;
use receiver::rollout::desired::DesiredState;
use receiver::rollout::guard::{Guard, GuardError};
use std::time::Duration;

/// The longest duration of probing the MX hosts of a domain.
const PROBE_TIME: Duration = Duration::from_secs(300);

/// The MX hosts that would lose mail, and those that could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MxLosses {
    /// The hosts that senders would not deliver to, each with the reason.
    pub hosts: Vec<(DomainName, String)>,
    /// The hosts that can't be reached from here, so that nothing is known about their certificates.
    pub unreached: Vec<DomainName>,
    /// The number of hosts whose certificate was seen, or that refused TLS.
    pub probed: usize,
}

impl MxLosses {
    /// True if no MX host was reached, so that nothing speaks for enforcement or against it.
    pub fn is_unseen(&self) -> bool {
        self.probed == 0
    }
}

/// Probes the MX hosts of a domain.
///
/// # Errors
///
/// If DNS fails, so that the MX hosts are not known.
pub async fn mx_losses(
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: &RolloutState,
) -> Result<MxLosses, Failure> {
    MxProber::new(context, spec)?.losses(rollout).await
}

/// Probes the MX hosts of a domain without the context that it was made from, so that others can use that meanwhile.
pub struct MxProber {
    guard: Guard,
    desired: DesiredState,
}

impl MxProber {
    /// Creates a prober for a domain.
    ///
    /// # Errors
    ///
    /// If the settings for publishing its records are not valid.
    pub fn new(context: &RolloutContext, spec: &DomainSpec) -> Result<Self, Failure> {
        let applier = context.applier(spec)?;
        let guard = Guard {
            dns: applier.dns.clone(),
            policies: applier.policies.clone(),
            mail: context.world.mail.clone(),
            clock: context.world.clock.clone(),
            omitted: applier.omitted.clone(),
            deadline: PROBE_TIME,
        };
        Ok(Self { guard, desired: context.desired(spec) })
    }

    /// Probes the hosts.
    ///
    /// # Errors
    ///
    /// If DNS fails, so that the MX hosts are not known, or if the probes take longer than `PROBE_TIME`.
    pub async fn losses(&self, rollout: &RolloutState) -> Result<MxLosses, Failure> {
        let fail = |error: GuardError| {
            Failure::new(
                format!("{} can't be probed", self.desired.domain),
                error,
                "Without the MX hosts it is unknown whether enforcement would lose mail. Check the network, then run the command again.",
            )
        };
        let probed = self.guard.check(&self.desired, rollout).await.map_err(fail)?.hosts;
        let patterns = rollout.newest().map(|newest| newest.mx.clone()).unwrap_or_default();
        let new = probed.iter().map(|probed| &probed.name).filter(|name| !rollout.mx.contains(name));
        let all = rollout.mx.iter().chain(new).map(|host| {
            let probe = probed.iter().find(|probed| probed.name == *host);
            (host, probe.map(|probed| probed.proof.as_ref().map(|_| ()).map_err(Clone::clone)))
        });
        Ok(losses(&patterns, all))
    }
}

fn losses<'h>(
    patterns: &[MxPattern],
    hosts: impl Iterator<Item = (&'h DomainName, Option<Result<(), String>>)>,
) -> MxLosses {
    let mut found = MxLosses::default();
    for (host, probe) in hosts {
        found.probed += usize::from(probe.is_some());
        match probe {
            _ if !patterns.iter().any(|pattern| pattern.matches(host)) => {
                found.hosts.push((host.clone(), "the policy does not name it".to_owned()));
            }
            Some(Err(why)) => found.hosts.push((host.clone(), why)),
            Some(Ok(())) => {}
            None => found.unreached.push(host.clone()),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_would_lose_mail_are_those_that_are_not_named_or_fail_authentication() {
        let [good, bad, new, down] = ["mx1", "mx2", "mx3", "mx4"]
            .map(|label| DomainName::parse(&format!("{label}.example.org")).unwrap());
        let patterns: Vec<MxPattern> =
            [&good, &bad, &down].iter().map(|host| MxPattern::exact(host).unwrap()).collect();
        let why = || "the certificate is for mx1.example.org".to_owned();
        let probes = [(&good, Some(Ok(()))), (&bad, Some(Err(why()))), (&new, Some(Ok(()))), (&down, None)];
        let found = losses(&patterns, probes.into_iter());
        assert_eq!(found.hosts, [(bad, why()), (new.clone(), "the policy does not name it".to_owned())]);
        assert_eq!(found.unreached, std::slice::from_ref(&down));
        assert!(found.probed == 3 && !found.is_unseen());
        let none = losses(&patterns, [(&down, None), (&new, None)].into_iter());
        assert!(none.is_unseen(), "{none:?}");
    }
}
