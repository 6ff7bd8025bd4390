//! Builds the report inbox for each way of arrival (SMTP, HTTPS, IMAP, import), and retries the import of quarantined
//! input.

use crate::rollout_context::{RolloutContext, store_failure};
use crate::world::World;
use config::InboxConfig;
use config::failure::Failure;
use receiver::inbox::files::Item;
use receiver::inbox::{Inbox, keep_dmarc_reports, keep_reports, posted};
use std::sync::Arc;
use store::Store;
use store::dmarc::DmarcQuota;
use store::reports::{Arrival, KeepOutcome, Trust};

/// Builds the inbox for one way of arrival of the configuration.
pub fn inbox(config: &InboxConfig, store: &Store, world: &World, arrival: Arrival) -> Inbox {
    let base = Inbox::new(store.clone(), world.dns.clone(), world.clock.clone(), arrival);
    let (addresses, name, retention) = (config.addresses.clone(), config.name.clone(), config.retention);
    Inbox { addresses, name, retention, dmarc: config.dmarc, ..base }
}

/// Builds the inbox for `sternpost reports import` and other commands.
pub fn inbox_of(context: &RolloutContext) -> Inbox {
    let world = &context.world;
    let base = Inbox::new(context.store.clone(), world.dns.clone(), world.clock.clone(), Arrival::Import);
    let dmarc = context.config.inbox.as_ref().is_some_and(|inbox| inbox.dmarc);
    Inbox { retention: context.config.retention(), dmarc, ..base }
}

/// The result of [`retry`].
#[derive(Debug, Default)]
pub struct Retried {
    /// The number of imported reports, without those that were stored before.
    pub imported: u64,
    /// The items that are still in quarantine, with why they can't be read now.
    pub left: Vec<(i64, String)>,
}

/// Retries the import of all quarantined input. An item stays in quarantine, with the new reason, unless everything in it
/// was read. Unsigned reports count as evidence if the item was imported with `--trusted`, or with `trusted`.
///
/// # Errors
///
/// If the store fails.
pub async fn retry(context: &RolloutContext, trusted: bool) -> Result<Retried, Failure> {
    let inbox = inbox_of(context);
    let fail = |error| store_failure(&error);
    let (mut result, mut after) = (Retried::default(), 0);
    loop {
        let some = context.store.quarantined(after, 100).await.map_err(fail)?;
        let Some(last) = some.last() else { return Ok(result) };
        after = last.id;
        for one in some {
            let Some(bytes) = context.store.quarantined_bytes(one.id).await.map_err(fail)? else { continue };
            let item = Item { name: String::new(), bytes: Arc::new(bytes), ..Item::default() };
            let inbox = Inbox { source: one.source, arrival: one.arrival, ..inbox.clone() };
            let mut reading = match inbox.read_item_patiently(&item, one.arrival).await {
                Ok(reading) => reading,
                Err(busy) => {
                    result.left.push((one.id, busy.to_string()));
                    continue;
                }
            };
            let domain = posted::domain_of(&one.reason).filter(|_| one.arrival == Arrival::Https);
            if let Some(domain) = &domain {
                posted::file_under(&mut reading, domain);
            }
            for new in reading.reports.iter_mut().filter(|_| trusted || one.is_trusted) {
                new.trust = new.trust.max(Trust::Trusted);
            }
            let kept = keep_reports(&context.store, &reading.reports, None).await.map_err(fail)?;
            for new in reading.dmarc.iter_mut().filter(|_| trusted || one.is_trusted) {
                new.trust = new.trust.max(Trust::Trusted);
            }
            let quota = DmarcQuota::default();
            let dmarc = keep_dmarc_reports(&context.store, &reading.dmarc, quota).await.map_err(fail)?;
            let new = kept.iter().chain(&dmarc).filter(|kept| **kept != KeepOutcome::Duplicate).count();
            result.imported += u64::try_from(new).unwrap_or_default();
            if reading.problems.is_empty() {
                context.store.release_quarantined(one.id).await.map_err(fail)?;
            } else {
                let reason = posted::reason(reading.reason(), domain.as_ref());
                context.store.update_quarantine_reason(one.id, &reason).await.map_err(fail)?;
                result.left.push((one.id, reason));
            }
        }
    }
}
