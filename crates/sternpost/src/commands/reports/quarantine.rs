//! `sternpost reports quarantine`: lists, shows, retries and drops received reports that could not be parsed. The store
//! keeps them as they were received.

use crate::terminal::{marks, say, show};
use config::Chosen;
use config::failure::{Exit, Failure};
use jiff::{SignedDuration, Timestamp};
use operations::inbox::retry;
use operations::{RolloutContext, store_failure};
use std::io::Write;
use store::reports::{QuarantineSelection, QuarantineUsage, Quarantined};

/// The subcommands of `sternpost reports quarantine`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the quarantined reports, with reasons
    #[command(after_help = "Example:\n  sternpost reports quarantine list")]
    List {
        /// Print one line of JSON (docs/reports.md)
        #[arg(long)]
        json: bool,
    },
    /// Print a quarantined report as it was received
    #[command(after_help = "Example:\n  sternpost reports quarantine show 3")]
    Show {
        /// Number in `sternpost reports quarantine list`
        number: i64,
    },
    /// Parse all quarantined reports again, as after an upgrade
    #[command(after_help = "Example:\n  sternpost reports quarantine retry")]
    Retry {
        /// Trust unsigned reports, so that they count as evidence
        #[arg(long)]
        trusted: bool,
    },
    /// Delete quarantined reports
    #[command(
        after_help = "Examples:\n  sternpost reports quarantine drop 3\n  sternpost reports quarantine drop --from 192.0.2.0/24 --yes"
    )]
    Drop(DropOptions),
}

/// The options of `sternpost reports quarantine drop`.
#[derive(Debug, clap::Args)]
pub struct DropOptions {
    /// Numbers in `sternpost reports quarantine list`
    #[arg(conflicts_with_all = ["all", "older_than", "from"], required_unless_present_any = ["all", "older_than", "from"])]
    numbers: Vec<i64>,
    /// All that arrived more than this number of days ago
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// All from this source, as `list` shows it, such as a client's network
    #[arg(long, value_name = "SOURCE")]
    from: Option<String>,
    /// Everything in the quarantine
    #[arg(long, conflicts_with_all = ["older_than", "from"])]
    all: bool,
    /// Delete what the options select; without this option, only show how much that is
    #[arg(long)]
    yes: bool,
}

/// Maximum number of reports in a list.
const MAX_LISTED: u32 = 1000;

/// Runs the subcommand on the store.
pub async fn run(command: &Command, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = match command {
        Command::List { .. } => RolloutContext::open_to_show(chosen).await?,
        _ => RolloutContext::open(chosen).await?,
    };
    let fail = |error| store_failure(&error);
    match command {
        Command::List { json } => {
            let all = context.store.quarantined(0, MAX_LISTED).await.map_err(fail)?;
            let usage = context.store.quarantine_usage().await.map_err(fail)?;
            match json {
                true => {
                    let json = serde_json::json!({ "schema": 1, "quarantine": all, "usage": usage });
                    show(&format!("{json}\n"));
                }
                false => {
                    all.iter().for_each(|one| say(&line(one)));
                    say(&usage_in_words(&usage, context.config.retention().quarantine.bytes));
                }
            }
        }
        Command::Show { number } => match context.store.quarantined_bytes(*number).await.map_err(fail)? {
            // A closed pipe is not an error.
            Some(bytes) => drop(std::io::stdout().write_all(&bytes)),
            None => return none(*number),
        },
        Command::Retry { trusted } => {
            let retried = retry(&context, *trusted).await?;
            let (taken, left) = (retried.imported, retried.left.len());
            say(&format!("{taken} imported, {left} still can't be parsed."));
            for (id, reason) in retried.left.iter().take(MAX_LISTED as usize) {
                say(&format!("{} {id:>6}  {reason}", marks().error));
            }
            if taken > 0 && !trusted {
                say("Unsigned reports are not evidence unless imported or retried with --trusted.");
            }
        }
        Command::Drop(options) if !options.numbers.is_empty() => {
            for number in &options.numbers {
                match context.store.release_quarantined(*number).await.map_err(fail)? {
                    true => say(&format!("Number {number} is deleted.")),
                    false => return none(*number),
                }
            }
        }
        Command::Drop(options) => drop_selected(&context, options).await?,
    }
    context.store.close().await;
    Ok(Exit::Fine)
}

fn none(number: i64) -> Result<Exit, Failure> {
    Err(Failure::finding(
        format!("number {number}"),
        "no such report in quarantine",
        "`sternpost reports quarantine list` shows the numbers.",
    ))
}

fn line(one: &Quarantined) -> String {
    let (id, at, size) = (one.id, one.received_at, one.size);
    let source = if one.source.is_empty() { String::new() } else { format!(" from {}", one.source) };
    format!("{} {id:>6}  {at}  {}{source}, {size} bytes: {}", marks().error, one.arrival, one.reason)
}

/// The usage of the quarantine and its losses, in words.
pub fn usage_in_words(usage: &QuarantineUsage, limit: u64) -> String {
    let mut lost = match usage.evicted {
        0 => String::new(),
        lost => format!(" {lost} items were deleted because of the quota (inbox.quarantine_size)."),
    };
    if usage.expired > 0 {
        lost.push_str(&format!(
            " {} were deleted because of their age (inbox.keep_quarantined).",
            usage.expired
        ));
    }
    match usage.items {
        0 => format!("The quarantine is empty.{lost}"),
        items => {
            let (used, limit) = (mebibytes(usage.bytes), mebibytes(limit));
            format!("In quarantine: {items}, with {used} of {limit} MiB.{lost}")
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

async fn drop_selected(context: &RolloutContext, options: &DropOptions) -> Result<(), Failure> {
    let fail = |error| store_failure(&error);
    let now = context.world.clock.now();
    let before = options.older_than.map(|days| {
        now.saturating_sub(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MIN)
    });
    let selection = QuarantineSelection { id: None, before, source: options.from.clone() };
    let (items, bytes) = context.store.count_quarantined(&selection).await.map_err(fail)?;
    if !options.yes {
        say(&format!(
            "{items} items with {} MiB would be deleted. To delete them, add --yes.",
            mebibytes(bytes)
        ));
        return Ok(());
    }
    let mut deleted = 0;
    loop {
        match context.store.drop_quarantined(&selection).await.map_err(fail)? {
            0 => break,
            some => deleted += some,
        }
    }
    tracing::info!(deleted, "quarantined input deleted");
    say(&format!("{deleted} items are deleted."));
    Ok(())
}
