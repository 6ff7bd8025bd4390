//! `sternpost config`: is it right, and what is in force.

use crate::terminal::{say, show};
use config::failure::{Exit, Failure};
use config::{self, Config};
use std::path::Path;

/// What to do with the configuration.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say whether the configuration is right
    Check,
    /// Print what is in force, with where each value comes from
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the reference of all keys, in Markdown
    Reference,
    /// Print every limit on what comes from outside, in Markdown
    Limits,
}

/// Runs the command on the named file, or the one that is found.
pub fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    match command {
        Command::Check => match Config::load(named)?.file {
            Some(file) => say(&format!("{} is right.", file.display())),
            None => say("There is no configuration file; the defaults are in force."),
        },
        Command::Show { json: false } => show(&Config::load(named)?.to_toml()),
        Command::Show { json: true } => say(&Config::load(named)?.to_json()),
        Command::Limits => show(&formats::limits::reference()),
        Command::Reference => show(&config::reference()),
    }
    Ok(Exit::Fine)
}
