//! What came in and could not be read: listed, shown, tried again, thrown away.

use crate::terminal::{marks, say, show};
use config::failure::{Exit, Failure};
use operations::inbox::retry;
use operations::{RolloutContext, store_failure};
use std::io::Write;
use std::path::Path;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List it, with the reasons
    List {
        /// One line of JSON (docs/reports.md)
        #[arg(long)]
        json: bool,
    },
    /// Show one as it came
    Show {
        /// Its number
        number: i64,
    },
    /// Try to read all of it again, as after an upgrade
    Retry,
    /// Throw one away
    Drop {
        /// Its number
        number: i64,
    },
}

/// At most so many in a list.
const MAX_LISTED: u32 = 1000;

/// Does it.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(named).await?;
    let fail = |error| store_failure(&error);
    let none = |number: &i64| {
        Err(Failure::finding(
            format!("number {number}"),
            "nothing of that number is in quarantine",
            "The numbers are in `sternpost reports quarantine list`.",
        ))
    };
    match command {
        Command::List { json } => {
            let all = context.store.quarantined(0, MAX_LISTED).await.map_err(fail)?;
            match json {
                true => show(&format!("{}\n", serde_json::json!({ "schema": 1, "quarantine": all }))),
                false if all.is_empty() => say("Nothing is in quarantine."),
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
            // A closed pipe is no error of ours.
            Some(bytes) => drop(std::io::stdout().write_all(&bytes)),
            None => return none(number),
        },
        Command::Retry => {
            let (taken, left) = retry(&context).await?;
            say(&format!("{taken} taken in, {left} still can't be read."));
        }
        Command::Drop { number } => match context.store.release_quarantined(*number).await.map_err(fail)? {
            true => say(&format!("Number {number} is thrown away.")),
            false => return none(number),
        },
    }
    context.store.close().await;
    Ok(Exit::Fine)
}
