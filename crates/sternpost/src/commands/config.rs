//! `sternpost config`: validates the configuration file, prints the effective values, and prints the reference of all
//! keys and limits.

use crate::terminal::{say, show};
use config::failure::{Exit, Failure};
use config::{self, Config};
use std::path::Path;

/// The subcommands of `sternpost config`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check the configuration file for errors
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
}

/// Runs the subcommand on the file given with --config, or on the default one.
pub fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    match command {
        Command::Check => match Config::load(named)?.file {
            Some(file) => say(&format!("{} is valid.", file.display())),
            None => say("No configuration file; the defaults apply."),
        },
        Command::Show { json: false } => show(&Config::load(named)?.to_toml()),
        Command::Show { json: true } => say(&Config::load(named)?.to_json()),
        Command::Limits => show(&formats::limits::reference()),
        Command::Reference => show(&config::reference()),
    }
    Ok(Exit::Fine)
}
