//! `sternpost store`: maintenance of the store's file.

use crate::terminal::{marks, say};
use config::Config;
use config::failure::{Exit, Failure};
use std::path::Path;
use store::Store;

/// The subcommands of `sternpost store`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Write the store anew, without the free space that deleted data left
    #[command(after_help = "Example:\n  sternpost store compact")]
    Compact,
}

/// Runs the subcommand.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    let Command::Compact = command;
    let config = Config::load(named)?;
    let path = &config.store;
    let shown = path.display();
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(
            format!("the store {shown} can't be compacted"),
            error,
            "Its folder needs free space of the size of the store. If `sternpost serve` is writing, try again later.",
        )
    };
    let size = || std::fs::metadata(path).map(|file| file.len()).map_err(|error| fail(&error));
    // A missing store is not created.
    let before = size()?;
    let store = Store::open(path).await.map_err(|error| fail(&error))?;
    store.compact().await.map_err(|error| fail(&error))?;
    store.close().await;
    let after = size()?;
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    say(&format!("{} {shown}: {}, was {}", marks().fine, mebibytes(after), mebibytes(before)));
    Ok(Exit::Fine)
}
