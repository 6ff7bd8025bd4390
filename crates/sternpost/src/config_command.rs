//! `sternpost config`: is it right, and what is in force.

use crate::config::{self, Config};
use crate::failure::{Exit, Failure};
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
            Some(file) => println!("{} is right.", file.display()),
            None => println!("There is no configuration file; the defaults are in force."),
        },
        Command::Show { json: false } => print!("{}", Config::load(named)?.to_toml()),
        Command::Show { json: true } => println!("{}", Config::load(named)?.to_json()),
        Command::Limits => print!("{}", formats::limits::reference()),
        Command::Reference => print!("{}", config::reference()),
    }
    Ok(Exit::Fine)
}
