//! Builds the report inbox for each way of arrival (SMTP, HTTPS, IMAP, import), and retries the import of quarantined
//! input.

use crate::rollout_context::{RolloutContext, store_failure};
use crate::world::World;
use config::InboxConfig;
use config::failure::Failure;
use receiver::inbox::Inbox;
use receiver::inbox::files::Item;
use store::Store;
use store::reports::Arrival;

/// Builds the inbox for one way of arrival of the configuration.
pub fn inbox(config: &InboxConfig, store: &Store, world: &World, arrival: Arrival) -> Inbox {
    Inbox {
        store: store.clone(),
        dns: world.dns.clone(),
        clock: world.clock.clone(),
        addresses: config.addresses.clone(),
        arrival,
    }
}

/// Builds the inbox for `sternpost reports import` and other commands.
pub fn inbox_of(context: &RolloutContext) -> Inbox {
    Inbox {
        store: context.store.clone(),
        dns: context.world.dns.clone(),
        clock: context.world.clock.clone(),
        addresses: Vec::new(),
        arrival: Arrival::Import,
    }
}

/// Retries the import of all quarantined input. Returns the numbers of imported reports and of items still in
/// quarantine.
pub async fn retry(context: &RolloutContext) -> Result<(u64, u64), Failure> {
    let inbox = inbox_of(context);
    let fail = |error| store_failure(&error);
    let (mut imported, mut left, mut after) = (0, 0, 0);
    loop {
        let some = context.store.quarantined(after, 100).await.map_err(fail)?;
        let Some(last) = some.last() else { return Ok((imported, left)) };
        after = last.id;
        for one in some {
            let Some(bytes) = context.store.quarantined_bytes(one.id).await.map_err(fail)? else { continue };
            match inbox.read_item(&Item { name: String::new(), bytes }, one.arrival).await {
                Ok(new) => {
                    context.store.keep_report(&new).await.map_err(fail)?;
                    context.store.release_quarantined(one.id).await.map_err(fail)?;
                    imported += 1;
                }
                Err(_) => left += 1,
            }
        }
    }
}
