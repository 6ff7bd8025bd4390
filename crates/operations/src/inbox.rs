//! The report inbox behind each way in, and the second try at what it put into quarantine.

use crate::rollout_context::{RolloutContext, store_failure};
use crate::world::World;
use config::InboxConfig;
use config::failure::Failure;
use receiver::inbox::Inbox;
use receiver::inbox::files::Item;
use store::Store;
use store::reports::Arrival;

/// The inbox behind one way in.
pub fn inbox(config: &InboxConfig, store: &Store, world: &World, arrival: Arrival) -> Inbox {
    Inbox {
        store: store.clone(),
        dns: world.dns.clone(),
        clock: world.clock.clone(),
        addresses: config.addresses.clone(),
        arrival,
    }
}

/// The inbox of commands.
pub fn inbox_of(context: &RolloutContext) -> Inbox {
    Inbox {
        store: context.store.clone(),
        dns: context.world.dns.clone(),
        clock: context.world.clock.clone(),
        addresses: Vec::new(),
        arrival: Arrival::Import,
    }
}

/// Reads what is in quarantine again, and takes in what can be read now.
pub async fn retry(context: &RolloutContext) -> Result<(u64, u64), Failure> {
    let inbox = inbox_of(context);
    let fail = |error| store_failure(&error);
    let (mut taken, mut left, mut after) = (0, 0, 0);
    loop {
        let some = context.store.quarantined(after, 100).await.map_err(fail)?;
        let Some(last) = some.last() else { return Ok((taken, left)) };
        after = last.id;
        for one in some {
            let Some(bytes) = context.store.quarantined_bytes(one.id).await.map_err(fail)? else { continue };
            match inbox.read_item(&Item { name: String::new(), bytes }, one.arrival).await {
                Ok(new) => {
                    context.store.keep_report(&new).await.map_err(fail)?;
                    context.store.release_quarantined(one.id).await.map_err(fail)?;
                    taken += 1;
                }
                Err(_) => left += 1,
            }
        }
    }
}
