//! The rows of tables of senders: each with its share of failed sessions and its chart.

use crate::chart::strips;
use crate::text;
use jiff::Timestamp;
use store::reports::{SenderSum, Trend};

/// The maximum number of senders with a chart; those with most sessions get one.
const MAX_CHARTED_SENDERS: usize = 20;
/// The maximum number of senders in a table.
const MAX_ROWS: usize = 200;

/// A sender as it is shown.
pub struct SenderRow {
    pub sender: SenderSum,
    /// Successful and failed sessions of the sender, in sum.
    pub sessions: u64,
    /// The share that failed; `None` without sessions.
    pub share: Option<String>,
    /// True if the share is above what the gate allows.
    pub is_above: bool,
    /// The chart; empty if none is drawn.
    pub strip: String,
}

/// The rows of senders, those with most sessions first, and the number of senders that are left out.
pub fn sender_rows(
    senders: Vec<SenderSum>,
    days: &[Trend],
    bound: f64,
    now: Timestamp,
) -> (Vec<SenderRow>, usize) {
    let shown = senders.iter().filter(|sender| sender.counts).take(MAX_CHARTED_SENDERS);
    let names: Vec<String> = shown.map(|sender| sender.submitter.clone()).collect();
    let mut trends = strips(days, names.iter().map(String::as_str), bound, now);
    let further = senders.len().saturating_sub(MAX_ROWS);
    let row = |sender: SenderSum| {
        let all = sender.successful.saturating_add(sender.failed);
        let strip = trends.remove(sender.submitter.as_str()).filter(|_| sender.counts);
        SenderRow {
            sessions: all,
            share: text::percent(sender.failed, all),
            is_above: sender.failed as f64 > bound * all as f64,
            strip: strip.unwrap_or_default(),
            sender,
        }
    };
    (senders.into_iter().take(MAX_ROWS).map(row).collect(), further)
}
