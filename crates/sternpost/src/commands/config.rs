//! `sternpost config`: validates the configuration file and tries what it needs of the machine, prints the effective values,
//! and prints the reference of all keys, limits, metrics and requests of the API.

mod confinement;
pub mod ports;
pub mod problems;
mod service_user;
mod socket_units;
mod unit_file;

use crate::serve::rehearsal;
use crate::terminal::{say, show};
use config::failure::{Exit, Failure};
use config::{self, Config};
use problems::{Severity, problems, unconfigured};
use std::path::Path;

/// The subcommands of `sternpost config`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check the configuration file, and whether `sternpost serve` can start with it
    #[command(after_help = "Example:\n  sternpost config check")]
    Check,
    /// Print the effective configuration, with the origin of each value
    #[command(after_help = "Example:\n  sternpost config show")]
    Show {
        /// Print JSON instead of TOML
        #[arg(long)]
        json: bool,
    },
    /// Print the reference of all keys, in Markdown
    #[command(after_help = "Example:\n  sternpost config reference")]
    Reference,
    /// Print the limits on external input, in Markdown
    #[command(after_help = "Example:\n  sternpost config limits")]
    Limits,
    /// Print the metrics of `sternpost serve`, in Markdown
    #[command(after_help = "Example:\n  sternpost config metrics")]
    Metrics,
    /// Print the HTTP API as an OpenAPI document, or its tables in Markdown
    #[command(after_help = "Example:\n  sternpost config api")]
    Api {
        /// Print the tables of docs/api.md
        #[arg(long)]
        markdown: bool,
    },
}

/// Runs the subcommand on the file given with --config, or on the default one.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    match command {
        Command::Check => return check(&Config::load(named)?).await,
        Command::Show { json: false } => show(&Config::load(named)?.to_toml()),
        Command::Show { json: true } => say(&Config::load(named)?.to_json()),
        Command::Limits => show(&formats::limits::reference()),
        Command::Metrics => show(&net::metrics::reference()),
        Command::Api { markdown: true } => show(&web::api::table()),
        Command::Api { markdown: false } => say(&format!("{:#}", web::api::document())),
        Command::Reference => show(&config::reference()),
    }
    Ok(Exit::Fine)
}

async fn check(config: &Config) -> Result<Exit, Failure> {
    let mut found = problems(config).await;
    found.extend(unconfigured(config).await);
    found.extend(rehearsal::obstacles(config).await.iter().map(problems::of_obstacle));
    found.iter().for_each(|problem| say(&problem.in_words()));
    let errors = found.iter().filter(|problem| problem.severity == Severity::Error).count();
    let file = match &config.file {
        Some(file) => format!("{} is valid", file.display()),
        None => "No configuration file; the defaults apply".to_owned(),
    };
    if errors == 0 {
        say(&format!("{file}."));
        return Ok(Exit::Fine);
    }
    say(&format!("{file}, but `sternpost serve` can't start with it."));
    Ok(Exit::Findings)
}
