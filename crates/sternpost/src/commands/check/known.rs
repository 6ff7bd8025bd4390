//! What the store knows of a configured domain: the policy at the last check, the evidence for enforcement, and the day
//! of the last report. Checks compare it with what they observe. Without a store, or for other domains, it is empty.

use check::{Examination, Known, Previous, SeenCertificate, SeenHost};
use config::Config;
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use operations::world::World;
use operations::{RolloutContext, open_store};
use receiver::rollout::gate::Gate;
use std::path::Path;
use std::sync::Arc;
use store::check_history::CheckedHost;

/// Access to the store, if there is one.
pub struct Memory {
    context: Option<RolloutContext>,
    world: Arc<World>,
}

/// Age up to which the last report is looked for: 60 days.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 60);

impl Memory {
    /// Opens the store if its file exists. A check never creates a store, and continues without one that fails to open.
    pub async fn open(config: Config, world: Arc<World>) -> Self {
        let context = match config.store.file().is_none_or(Path::is_file) {
            true => match open_store(&config).await {
                Ok(store) => RolloutContext::at(config, store, world.clone()).await.ok(),
                Err(_) => None,
            },
            false => None,
        };
        Self { context, world }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// The known state of a domain; empty when the domain is not configured.
    pub async fn recall(&self, domain: &DomainName) -> Known {
        let Some(context) = self.context.as_ref().filter(|context| context.find(domain).is_ok()) else {
            return Known::default();
        };
        let previous = context.store.last_checked_policy(domain).await.ok().flatten();
        let seen = context.store.checked_hosts(domain).await.unwrap_or_default();
        let hosts = seen.iter().map(|seen| SeenHost { host: seen.host.clone(), seen_at: seen.at });
        let certificates =
            seen.iter().filter(|seen| !seen.certificate.is_empty()).map(|seen| SeenCertificate {
                host: seen.host.clone(),
                certificate: seen.certificate.clone(),
                public_key: seen.public_key.clone(),
                seen_at: seen.at,
            });
        Known {
            hosts: hosts.collect(),
            certificates: certificates.collect(),
            previous: previous.map(|stored| Previous { id: stored.id, file: stored.file, at: stored.at }),
            gate: gate(context, domain).await,
            last_report: last_report(context, domain, self.now()).await,
        }
    }

    /// Stores the published policy for the next check.
    pub async fn keep(&self, seen: &Examination) {
        let Some(context) = self.context.as_ref().filter(|context| context.find(&seen.domain).is_ok()) else {
            return;
        };
        let at = self.now();
        let hosts: Vec<CheckedHost> = seen
            .mx_hosts
            .iter()
            .map(|mx| CheckedHost {
                host: mx.host.clone(),
                certificate: mx.facts.as_ref().map(|own| own.fingerprint.clone()).unwrap_or_default(),
                public_key: mx.facts.as_ref().map(|own| own.key_digest.clone()).unwrap_or_default(),
                at,
            })
            .collect();
        let _ = context.store.put_checked_hosts(&seen.domain, &hosts).await;
        if let Some((id, file)) = &seen.published {
            // A failure to store does not affect this check.
            let _ = context.store.put_checked_policy(&seen.domain, id, file, self.now()).await;
        }
    }
}

async fn gate(context: &RolloutContext, domain: &DomainName) -> Option<(bool, String)> {
    let rollout = context.rollout(domain).await.ok()?;
    rollout.mode.filter(|known| known.mode == Mode::Testing)?;
    let (_, gate) = context.gate(domain, &rollout).await.ok()?;
    let why = match &gate {
        Gate::Ready => "the reports and probes are sufficient".to_owned(),
        Gate::NotYet(reasons) => reasons.join("; "),
        Gate::Ask(_) => gate.to_string(),
    };
    Some((gate == Gate::Ready, why))
}

/// The day of the last report, if any. The outer `None` means that this installation has no report inbox.
async fn last_report(
    context: &RolloutContext,
    domain: &DomainName,
    now: Timestamp,
) -> Option<Option<Timestamp>> {
    context.config.inbox.as_ref()?;
    let since = now.saturating_sub(REPORT_WINDOW).unwrap_or(now);
    let days = context.store.days_of(domain, since).await.ok()?;
    Some(days.iter().map(|sum| sum.day).max())
}
