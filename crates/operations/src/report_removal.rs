//! Deletes received reports at the operator's request, for the command and the page. The numbers of a deleted report
//! leave the sums, so it no longer affects the evidence. The journal of each of your domains records it.

use crate::rollout_context::{RolloutContext, store_failure};
use config::failure::Failure;
use formats::DomainName;
use std::collections::BTreeMap;

/// Deletes received reports with their numbers. Returns how many there were. `who` is recorded in the journal.
///
/// # Errors
///
/// If the store fails.
pub async fn drop_reports(context: &RolloutContext, ids: &[i64], who: &str) -> Result<u64, Failure> {
    let fail = |error| store_failure(&error);
    let mut about: BTreeMap<&DomainName, (u64, String)> = BTreeMap::new();
    for id in ids {
        let Some(report) = context.store.report(*id).await.map_err(fail)? else { continue };
        let one =
            format!("deleted the received report {id} from {}, with its numbers", report.listed.submitter);
        for spec in context
            .known
            .iter()
            .filter(|spec| report.listed.domains.iter().any(|domain| domain == spec.name.as_str()))
        {
            let entry = about.entry(&spec.name).or_insert((0, one.clone()));
            entry.0 += 1;
        }
    }
    let dropped = context.store.drop_reports(ids).await.map_err(fail)?;
    let now = context.world.clock.now();
    for (domain, (count, one)) in about {
        let what = match count {
            1 => one,
            _ => format!("deleted {count} received reports, with their numbers"),
        };
        context.store.journal(domain, now, who, &what).await.map_err(fail)?;
    }
    Ok(dropped)
}
