//! `sternpost reports list --dmarc`: the counts of received DMARC reports (RFC 9990) of the last 30 days, by day, domain,
//! source address, alignment and disposition.

use crate::terminal::{marks, show};
use config::failure::{Exit, Failure};
use formats::dmarc::Alignment;
use jiff::SignedDuration;
use operations::{RolloutContext, store_failure};
use store::dmarc::{DmarcSearch, DmarcSum};

/// The period before now whose counts are listed: 30 days.
const WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Prints up to `most` sums, the newest day first.
pub async fn list(
    context: RolloutContext,
    domain: Option<String>,
    most: u32,
    json: bool,
) -> Result<Exit, Failure> {
    let now = context.world.clock.now();
    let search = DmarcSearch { domain, since: now.saturating_sub(WINDOW).unwrap_or(now), most };
    let found = context.store.dmarc_sums(&search).await.map_err(|error| store_failure(&error))?;
    context.store.close().await;
    match json {
        true => show(&format!("{}\n", serde_json::json!({ "schema": 1, "dmarc": found }))),
        false if found.is_empty() => show(
            "No DMARC reports about the last 30 days. To receive them, set\n  [inbox]\n  dmarc = true\nor import some: sternpost reports import FILE\n",
        ),
        false => show(&found.iter().map(line).collect::<String>()),
    }
    Ok(Exit::Fine)
}

fn line(sum: &DmarcSum) -> String {
    let is_aligned = sum.dkim == Alignment::Pass || sum.spf == Alignment::Pass;
    let mark = if is_aligned { marks().fine } else { marks().warning };
    let source = if sum.source.is_empty() { "other sources" } else { &sum.source };
    let trust = if sum.verified { "" } else { "  (unverified)" };
    format!(
        "{mark} {}  {:<28} {source:<39} {:>8} messages  DKIM {:<7} SPF {:<7} {}{trust}\n",
        sum.day.strftime("%Y-%m-%d"),
        sum.domain,
        sum.messages,
        sum.dkim,
        sum.spf,
        sum.disposition
    )
}
