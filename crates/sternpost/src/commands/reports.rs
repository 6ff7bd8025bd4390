//! `sternpost reports`: TLS reports (RFC 8460) in both directions. `import`, `list`, `drop` and `quarantine` are about reports
//! that others sent; `collect`, `preview`, `send`, `sent`, `targets` and `key` are about reports that this installation sends.
//! All of them work on the store.

mod collect;
mod dmarc;
mod drop;
mod exim_log;
mod import;
mod key;
mod list;
mod policy_text;
mod preview;
mod quarantine;
mod send;
mod sent;
mod targets;

pub use quarantine::usage_in_words;

use crate::terminal::say;
use config::failure::{Exit, Failure};
use config::{Chosen, Config, ReporterConfig};
use formats::tlsrpt_record::Rua;
use jiff::Timestamp;
use operations::RolloutContext;

/// The subcommands of `sternpost reports`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Import reports from files, folders, maildirs, mbox files, zip files or standard input
    #[command(after_help = "Example:\n  sternpost reports import --trusted reports/")]
    Import(import::Options),
    /// List received or sent reports, newest first
    #[command(
        after_help = "Examples:\n  sternpost reports list --domain example.org --failed\n  sternpost reports list --dmarc"
    )]
    List(list::Options),
    /// Show a report, and where it deviates from RFC 8460
    #[command(after_help = "Example:\n  sternpost reports show 17")]
    Show(list::Show),
    /// Delete received reports, and subtract their sessions from the sums and the evidence
    #[command(
        after_help = "Examples:\n  sternpost reports drop 17\n  sternpost reports drop --submitter forger.example --yes"
    )]
    Drop(drop::Options),
    /// Read TLS sessions from files or from Exim's log, and count them for the reports to send
    #[command(
        after_help = "Examples:\n  sternpost reports collect sessions.jsonl\n  sternpost reports collect --exim-log /var/log/exim4/mainlog"
    )]
    Collect(collect::Options),
    /// Show the report to a domain as it would be sent now
    #[command(after_help = "Example:\n  sternpost reports preview example.org")]
    Preview(preview::Options),
    /// Send the reports of a day again, or write them to a folder
    #[command(after_help = "Example:\n  sternpost reports send --day 2026-11-25 --folder reports/")]
    Send(send::Options),
    /// Show where reports about a domain go, and which rule decides
    #[command(after_help = "Example:\n  sternpost reports targets example.org")]
    Targets(targets::Options),
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

impl Command {
    /// Whether the subcommand is about received reports, which belong to a tenant.
    pub fn is_of_tenant(&self) -> bool {
        matches!(self, Self::Import(_) | Self::List(_) | Self::Show(_) | Self::Drop(_) | Self::Quarantine(_))
    }
}

/// Runs the subcommand.
pub async fn run(command: &Command, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Import(options) => import::run(options, chosen).await,
        Command::List(options) => list::run(options, chosen).await,
        Command::Show(options) => list::show_one(options, chosen).await,
        Command::Drop(options) => drop::run(options, chosen).await,
        Command::Collect(options) => collect::run(options, chosen).await,
        Command::Preview(options) => preview::run(options, chosen).await,
        Command::Send(options) => send::run(options, chosen).await,
        Command::Targets(options) => targets::run(options, chosen).await,
        Command::Key => key::run(chosen),
        Command::Address => {
            let context = RolloutContext::open(chosen).await?;
            let url = web::address(&context).await?;
            context.store.close().await;
            say(&url);
            check_rua(&url)?;
            let own = context.known.iter().map(|spec| spec.name.as_str());
            for domain in own.chain(["example.org"]) {
                check_rua(&format!("{url}/{domain}"))?;
            }
            say(&format!(
                "\nIn a domain's configuration, with its name at the end:\n  rua = [\"{url}/example.org\"]"
            ));
            Ok(Exit::Fine)
        }
        Command::Quarantine(command) => quarantine::run(command, chosen).await,
    }
}

/// Checks that a report address is one that `rua` takes: an https URL with a host name (RFC 8460 §3).
fn check_rua(url: &str) -> Result<(), Failure> {
    let why = match Rua::parse(url) {
        Ok(Some(_)) => return Ok(()),
        Ok(None) => "senders post reports to https: addresses only".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Failure::finding(
        format!("{url} can't be used in rua"),
        why,
        "Set the URL under which the internet reaches the dashboard over HTTPS:\n  [dashboard]\n  url = \"https://reports.example.org\"",
    ))
}

/// Parses a date such as `2026-11-25`; returns the start of that UTC day.
fn day(text: &str) -> Result<Timestamp, Failure> {
    let at = format!("{text}T00:00:00Z").parse();
    at.map_err(|_: jiff::Error| {
        Failure::usage(
            format!("{text:?} is not a valid date"),
            "a day is written as year, month and day, in UTC",
            "For yesterday: --day \"$(date -u -d yesterday +%F)\"",
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_config_check_refuses_is_not_recommended() {
        assert!(check_rua("https://reports.example.org/reports/x").is_ok());
        for url in [
            "http://127.0.0.1:18460/reports/x",
            "http://reports.example.org/reports/x",
            "https://127.0.0.1/x",
        ] {
            let config = format!("[[domain]]\nname = \"a.example\"\nrua = [\"{url}\"]\n");
            assert!(Config::parse(&config, None).is_err(), "{url}");
            let failure = check_rua(url).unwrap_err().to_string();
            assert!(failure.contains("url = \"https://"), "{failure}");
        }
    }
}
