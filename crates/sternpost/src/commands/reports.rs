//! `sternpost reports`: TLS reports (RFC 8460) in both directions. `import`, `list` and `quarantine` are about reports
//! that others sent; `collect`, `preview`, `send`, `sent` and `key` are about reports that this installation sends.
//! All of them work on the store.

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

/// The subcommands of `sternpost reports`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Import reports from files, folders, maildirs, mbox files, zip files or standard input
    #[command(after_help = "Example:\n  sternpost reports import --trusted reports/")]
    Import(import::Options),
    /// List received or sent reports, newest first
    #[command(after_help = "Example:\n  sternpost reports list --domain example.org --failed")]
    List(list::Options),
    /// Show a report: its results and its deviations from RFC 8460
    #[command(after_help = "Example:\n  sternpost reports show 17")]
    Show(list::Show),
    /// Read TLS sessions from files and count them for the reports to send
    #[command(after_help = "Example:\n  sternpost reports collect sessions.jsonl")]
    Collect(collect::Options),
    /// Show the report to a domain as it would be sent now
    #[command(after_help = "Example:\n  sternpost reports preview example.org")]
    Preview(preview::Options),
    /// Send the reports of a day again, or write them to a folder
    #[command(after_help = "Example:\n  sternpost reports send --day 2026-11-25 --folder reports/")]
    Send(send::Options),
    /// Create missing DKIM keys of [reporter], and print the records to publish
    #[command(after_help = "Example:\n  sternpost reports key")]
    Key,
    /// Print the address for reports by HTTPS, for use in `rua`
    #[command(after_help = "Example:\n  sternpost reports address")]
    Address,
    /// Manage received reports that could not be parsed
    #[command(subcommand, after_help = "Example:\n  sternpost reports quarantine list")]
    Quarantine(quarantine::Command),
}

/// Runs the subcommand.
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
            say(&format!(
                "{url}\n\nIn a domain's configuration, with its name at the end:\n  rua = [\"{url}/example.org\"]"
            ));
            Ok(Exit::Fine)
        }
        Command::Quarantine(command) => quarantine::run(command, named).await,
    }
}

/// Parses a date such as `2026-11-25`; returns the start of that UTC day.
fn day(text: &str) -> Result<Timestamp, Failure> {
    let at = format!("{text}T00:00:00Z").parse();
    at.map_err(|error| {
        Failure::usage(format!("{text:?} is not a valid date"), error, "Write it as 2026-11-25.")
    })
}

/// The section `[reporter]` of the configuration; fails when there is none.
fn reporter(config: &Config) -> Result<&ReporterConfig, Failure> {
    config.reporter.as_ref().ok_or_else(|| {
        Failure::usage(
            "sending reports is disabled",
            "the configuration has no section [reporter]",
            "Add to sternpost.toml\n  [reporter]\n  from = \"tlsrpt@example.org\"\n  dkim = { selector = \"tlsrpt\", key_file = \"dkim.pem\" }\nand create the key with\n  sternpost reports key",
        )
    })
}
