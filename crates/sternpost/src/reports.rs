//! `sternpost reports`: TLS reports that came in, taken in from files, listed and read; and what could not
//! be read.

mod import;
mod list;
mod quarantine;

pub use import::retry;
pub use list::{Told, told};

use crate::dashboard;
use crate::failure::{Exit, Failure};
use crate::rollout::Desk;
use crate::terminal::say;
use std::path::Path;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take in reports from files, folders, maildirs, mbox files, zip files, or a pipe (`-`)
    Import(import::Options),
    /// List the reports that came in, the newest first
    List(list::Options),
    /// Show one report: what it says, what is odd about it, or as it came (--raw)
    Show(list::Show),
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
        Command::Address => {
            let desk = Desk::open(named).await?;
            let url = dashboard::address(&desk).await?;
            desk.store.close().await;
            say(&format!("{url}\n\nIn a domain's configuration:\n  rua = [\"{url}\"]"));
            Ok(Exit::Fine)
        }
        Command::Quarantine(command) => quarantine::run(command, named).await,
    }
}
