//! `sternpost reports`: TLS reports that came in, taken in from files, listed and read; what could not be read;
//! and reports of ours to others.

mod collect;
mod import;
mod key;
mod list;
mod policy_text;
mod preview;
mod quarantine;
mod send;
mod sent;

use crate::terminal::say;
use config::failure::{Exit, Failure};
use config::{Config, ReporterConfig};
use jiff::Timestamp;
use operations::RolloutContext;
use std::path::Path;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take in reports from files, folders, maildirs, mbox files, zip files, or a pipe (`-`)
    Import(import::Options),
    /// List the reports that came in, or ours that went to others (--sent), the newest first
    List(list::Options),
    /// Show one report: what it says, what is odd about it, or as it came (--raw)
    Show(list::Show),
    /// Count sessions of mail servers out of files, for the reports that are sent
    Collect(collect::Options),
    /// Show the report to a domain as it would be sent now
    Preview(preview::Options),
    /// Send the reports of a day again, or put them into a folder to be looked at
    Send(send::Options),
    /// Make the DKIM key of [reporter] where it is missing, and print the record to publish
    Key,
    /// Show the address for reports by HTTPS, to be written into `rua`
    Address,
    /// What came in and could not be read
    #[command(subcommand)]
    Quarantine(quarantine::Command),
}

/// Does it.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    match command {
        Command::Import(options) => import::run(options, named).await,
        Command::List(options) => list::run(options, named).await,
        Command::Show(options) => list::show_one(options, named).await,
        Command::Collect(options) => collect::run(options, named).await,
        Command::Preview(options) => preview::run(options, named).await,
        Command::Send(options) => send::run(options, named).await,
        Command::Key => key::run(named),
        Command::Address => {
            let context = RolloutContext::open(named).await?;
            let url = web::address(&context).await?;
            context.store.close().await;
            say(&format!("{url}\n\nIn a domain's configuration:\n  rua = [\"{url}\"]"));
            Ok(Exit::Fine)
        }
        Command::Quarantine(command) => quarantine::run(command, named).await,
    }
}

/// A UTC day as people type it, by its first second.
fn day(text: &str) -> Result<Timestamp, Failure> {
    let at = format!("{text}T00:00:00Z").parse();
    at.map_err(|error| Failure::usage(format!("{text:?} is not a day"), error, "Write it as 2026-11-25."))
}

/// The role `[reporter]`, which these commands need.
fn reporter(config: &Config) -> Result<&ReporterConfig, Failure> {
    config.reporter.as_ref().ok_or_else(|| {
        Failure::usage(
            "no reports are sent",
            "the role [reporter] is not switched on",
            "Write\n  [reporter]\n  from = \"tlsrpt@example.org\"\n  dkim = { selector = \"tlsrpt\", key_file = \"dkim.pem\" }\nand make the key by\n  sternpost reports key",
        )
    })
}
