//! The command line.

use crate::commands::{
    apply, cache, check, config as config_command, dashboard, domains, export, init, lab, plan, promote,
    query, reports, status,
};
use crate::terminal::say;
use crate::{demo, serve};
use clap::{Parser, Subcommand};
use config::failure::{Exit, Failure};
use std::path::PathBuf;
use std::process::ExitCode;

/// TLS for mail, enforced: MTA-STS, DANE and TLS reports, for those who receive and those who send.
#[derive(Debug, Parser)]
#[command(name = "sternpost", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// Configuration file [default: ./sternpost.toml, then /etc/sternpost/sternpost.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 fine, 1 findings, 2 usage or configuration error, 3 could not tell.\nLogs go to stderr; SPOST_LOG=debug shows more.";

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole story on this machine: from strippable SMTP to enforced TLS. Needs no network
    Demo(demo::Options),
    /// Look at a domain as senders do: what is wrong, what follows, what to do
    Check(check::Options),
    /// What a sender would do with mail for a domain now, and why
    Query(query::Options),
    /// Propose a configuration for a domain from what DNS shows today
    Init(init::Options),
    /// Domains that are kept in the store, beside those of the configuration file
    #[command(subcommand)]
    Domains(domains::Command),
    /// The steps from here to what is wanted of your domains, and why in this order
    Plan(plan::Options),
    /// Carry the plan out, each step proved from outside; it can be stopped and goes on where it was
    Apply(apply::Options),
    /// Write what it takes to serve your policies from a web server or a platform
    Export(export::Options),
    /// Where your domains stand
    Status(status::Options),
    /// Allow a domain in testing to be enforced
    Promote(promote::Promote),
    /// Keep a domain in testing, or take it back there
    Hold(promote::Hold),
    /// Take a known cause of failures out of the evidence, with a reason
    Excuse(promote::Excuse),
    /// TLS reports that senders sent: take them in, list and read them
    #[command(subcommand)]
    Reports(reports::Command),
    /// Who may see the pages that `serve` shows
    #[command(subcommand)]
    Dashboard(dashboard::Command),
    /// Run the roles of the configuration: policy answers, policy host, report inbox, pages, watch
    Serve(serve::Options),
    /// Look at what the running program remembers, and act on it
    #[command(subcommand)]
    Cache(cache::Command),
    /// An internet in a box: good and broken mail domains on loopback
    #[command(subcommand)]
    Lab(lab::Command),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config_command::Command),
}

/// Parses, runs, and turns the outcome into an exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is nobody's loss.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() };
        }
    };
    if !matches!(cli.command, Command::Serve(_)) {
        let filter =
            tracing_subscriber::EnvFilter::try_from_env("SPOST_LOG").unwrap_or_else(|_| "error".into());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let outcome = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(Failure::new("the program can't start", error, "")),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    let config = cli.config.as_deref();
    match cli.command {
        Command::Demo(options) => {
            let bill = demo::run(&options).await?;
            if options.json && !options.keep {
                say(&bill.to_json());
            }
            Ok(bill.exit())
        }
        Command::Check(options) => check::run(&options, config).await,
        Command::Query(options) => query::run(&options, config).await,
        Command::Init(options) => init::run(&options, config).await,
        Command::Domains(command) => domains::run(&command, config).await,
        Command::Export(options) => export::run(&options, config).await,
        Command::Plan(options) => plan::run(&options, config).await,
        Command::Apply(options) => apply::run(&options, config).await,
        Command::Status(options) => status::run(&options, config).await,
        Command::Promote(options) => promote::promote(&options, config).await,
        Command::Hold(options) => promote::hold(&options, config).await,
        Command::Excuse(options) => promote::excuse(&options, config).await,
        Command::Reports(command) => reports::run(&command, config).await,
        Command::Dashboard(command) => dashboard::run(&command, config).await,
        Command::Serve(options) => serve::run(&options, config).await,
        Command::Cache(command) => cache::run(&command, config).await,
        Command::Lab(command) => lab::run(&command).await,
        Command::Config(command) => config_command::run(&command, config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
