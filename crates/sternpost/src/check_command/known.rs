//! What the store knows of a domain from before, when there is a store and the domain is one of ours.

use crate::config::Config;
use crate::rollout::Desk;
use crate::world::World;
use check::{Examination, Known, Previous};
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use receiver::rollout::gate::Gate;
use std::sync::Arc;
use store::Store;

/// The store, or nothing.
pub struct Memory {
    desk: Option<Desk>,
    world: Arc<World>,
}

/// How far back a report is looked for.
const LOOKED_BACK: SignedDuration = SignedDuration::from_hours(24 * 60);

impl Memory {
    /// Opens the store when it is there; a check never makes one, and goes on without one that fails.
    pub async fn open(config: Config, world: Arc<World>) -> Self {
        let desk = match config.store.is_file() {
            true => match Store::open(&config.store).await {
                Ok(store) => Desk::at(config, store, world.clone()).await.ok(),
                Err(_) => None,
            },
            false => None,
        };
        Self { desk, world }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// What is known.
    pub async fn recall(&self, domain: &DomainName) -> Known {
        let Some(desk) = self.desk.as_ref().filter(|desk| desk.find(domain).is_ok()) else {
            return Known::default();
        };
        let previous = desk.store.look(domain).await.ok().flatten();
        Known {
            previous: previous.map(|look| Previous { id: look.id, file: look.file, at: look.at }),
            gate: gate(desk, domain).await,
            last_report: last_report(desk, domain, self.now()).await,
        }
    }

    /// Remembers what was seen, for the next look.
    pub async fn keep(&self, seen: &Examination) {
        let Some(desk) = self.desk.as_ref().filter(|desk| desk.find(&seen.domain).is_ok()) else { return };
        if let Some((id, file)) = &seen.published {
            // A store that can't be written to takes nothing away from this look.
            let _ = desk.store.put_look(&seen.domain, id, file, self.now()).await;
        }
    }
}

async fn gate(desk: &Desk, domain: &DomainName) -> Option<(bool, String)> {
    let standing = desk.standing(domain).await.ok()?;
    standing.mode.filter(|known| known.mode == Mode::Testing)?;
    let (_, gate) = desk.gate(domain, &standing).await.ok()?;
    Some((gate == Gate::Ready, gate.to_string()))
}

/// `None` when reports are not taken in here.
async fn last_report(desk: &Desk, domain: &DomainName, now: Timestamp) -> Option<Option<Timestamp>> {
    desk.config.inbox.as_ref()?;
    let since = now.saturating_sub(LOOKED_BACK).unwrap_or(now);
    let days = desk.store.days_of(domain, since).await.ok()?;
    Some(days.iter().map(|sum| sum.day).max())
}
