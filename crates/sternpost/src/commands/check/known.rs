//! What the store knows of a domain from before, when there is a store and the domain is one of ours.

use check::{Examination, Known, Previous};
use config::Config;
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use operations::RolloutContext;
use operations::world::World;
use receiver::rollout::gate::Gate;
use std::sync::Arc;
use store::Store;

/// The store, or nothing.
pub struct Memory {
    context: Option<RolloutContext>,
    world: Arc<World>,
}

/// How far back a report is looked for.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 60);

impl Memory {
    /// Opens the store when it is there; a check never makes one, and goes on without one that fails.
    pub async fn open(config: Config, world: Arc<World>) -> Self {
        let context = match config.store.is_file() {
            true => match Store::open(&config.store).await {
                Ok(store) => RolloutContext::at(config, store, world.clone()).await.ok(),
                Err(_) => None,
            },
            false => None,
        };
        Self { context, world }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// What is known.
    pub async fn recall(&self, domain: &DomainName) -> Known {
        let Some(context) = self.context.as_ref().filter(|context| context.find(domain).is_ok()) else {
            return Known::default();
        };
        let previous = context.store.last_checked_policy(domain).await.ok().flatten();
        Known {
            previous: previous.map(|look| Previous { id: look.id, file: look.file, at: look.at }),
            gate: gate(context, domain).await,
            last_report: last_report(context, domain, self.now()).await,
        }
    }

    /// Remembers what was seen, for the next look.
    pub async fn keep(&self, seen: &Examination) {
        let Some(context) = self.context.as_ref().filter(|context| context.find(&seen.domain).is_ok()) else {
            return;
        };
        if let Some((id, file)) = &seen.published {
            // A store that can't be written to takes nothing away from this look.
            let _ = context.store.put_checked_policy(&seen.domain, id, file, self.now()).await;
        }
    }
}

async fn gate(context: &RolloutContext, domain: &DomainName) -> Option<(bool, String)> {
    let rollout = context.rollout(domain).await.ok()?;
    rollout.mode.filter(|known| known.mode == Mode::Testing)?;
    let (_, gate) = context.gate(domain, &rollout).await.ok()?;
    Some((gate == Gate::Ready, gate.to_string()))
}

/// `None` when reports are not taken in here.
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
