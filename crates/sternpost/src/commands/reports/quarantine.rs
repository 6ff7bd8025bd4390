//! `sternpost reports quarantine`: lists, shows, retries and drops received reports that could not be parsed. The store
//! keeps them as they were received.

use crate::terminal::{marks, say, show};
use config::failure::{Exit, Failure};
use operations::inbox::retry;
use operations::{RolloutContext, store_failure};
use std::io::Write;
use std::path::Path;

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
        /// Trust unsigned reports, so that they count as evidence; the quarantine does not remember `import --trusted`
        #[arg(long)]
        trusted: bool,
    },
    /// Delete a quarantined report
    #[command(after_help = "Example:\n  sternpost reports quarantine drop 3")]
    Drop {
        /// Number in `sternpost reports quarantine list`
        number: i64,
    },
}

/// Maximum number of reports in a list.
const MAX_LISTED: u32 = 1000;

/// Runs the subcommand on the store.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = match command {
        Command::List { .. } => RolloutContext::open_to_show(named).await?,
        _ => RolloutContext::open(named).await?,
    };
    let fail = |error| store_failure(&error);
    let none = |number: &i64| {
        Err(Failure::finding(
            format!("number {number}"),
            "no such report in quarantine",
            "`sternpost reports quarantine list` shows the numbers.",
        ))
    };
    match command {
        Command::List { json } => {
            let all = context.store.quarantined(0, MAX_LISTED).await.map_err(fail)?;
            match json {
                true => show(&format!("{}\n", serde_json::json!({ "schema": 1, "quarantine": all }))),
                false if all.is_empty() => say("The quarantine is empty."),
                false => all.iter().for_each(|one| {
                    let (id, at, size) = (one.id, one.received_at, one.size);
                    say(&format!(
                        "{} {id:>6}  {at}  {}, {size} bytes: {}",
                        marks().error,
                        one.arrival,
                        one.reason
                    ));
                }),
            }
        }
        Command::Show { number } => match context.store.quarantined_bytes(*number).await.map_err(fail)? {
            // A closed pipe is not an error.
            Some(bytes) => drop(std::io::stdout().write_all(&bytes)),
            None => return none(number),
        },
        Command::Retry { trusted } => {
            let retried = retry(&context, *trusted).await?;
            let (taken, left) = (retried.imported, retried.left.len());
            say(&format!("{taken} imported, {left} still can't be parsed."));
            for (id, reason) in retried.left.iter().take(MAX_LISTED as usize) {
                say(&format!("{} {id:>6}  {reason}", marks().error));
            }
            if taken > 0 && !trusted {
                say("Unsigned reports are not evidence unless retried with --trusted.");
            }
        }
        Command::Drop { number } => match context.store.release_quarantined(*number).await.map_err(fail)? {
            true => say(&format!("Number {number} is deleted.")),
            false => return none(number),
        },
    }
    context.store.close().await;
    Ok(Exit::Fine)
}
