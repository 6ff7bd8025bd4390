//! `sternpost demo`: a domain taken from SMTP that anyone can strip to enforced TLS, acted out with
//! real protocols on loopback. What it says happened, it has observed.

mod acts;
mod picture;
mod playbill;
mod stage;

pub use playbill::Playbill;

use crate::commands::lab::{self, Example};
use crate::terminal::{say, show};
use config::failure::Failure;
use stage::Stage;
use std::path::PathBuf;

/// How the demo is played.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Print the outcome as JSON, and nothing else
    #[arg(long)]
    pub json: bool,
    /// Leave everything up until Ctrl-C, to look at with dig, curl and openssl
    #[arg(long)]
    pub keep: bool,
    /// Folder for what the demo leaves behind; must be empty or new [default: a new one in the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Plays all acts. The playbill says which claims held.
pub async fn run(options: &Options) -> Result<Playbill, Failure> {
    let folder = folder(options)?;
    let stage = Stage::set_up(folder.clone()).await?;
    let mut bill = Playbill::new(folder.clone(), !options.json);
    acts::play(&stage, &mut bill).await?;
    lab::write_trust(&stage.lab, &folder)?;
    picture::write(&bill, &folder.join("demo.svg"))?;
    bill.close(options.keep);
    if options.keep {
        // With --json the one line on stdout has to stand before the waiting begins.
        if options.json {
            say(&bill.to_json());
        } else {
            let example = Example { domain: stage.domain.as_str(), policy_host: stage.policy_host };
            show(&lab::directions(&stage.lab, &folder, &example));
            say("\nEverything stays up until Ctrl-C.");
        }
        let _ = tokio::signal::ctrl_c().await;
    }
    stage.close().await;
    Ok(bill)
}

fn folder(options: &Options) -> Result<PathBuf, Failure> {
    let made = match &options.dir {
        Some(dir) => config::failure::empty_folder(dir)?,
        None => {
            let dir = tempfile::Builder::new().prefix("sternpost-demo-").tempdir();
            dir.map_err(|error| {
                Failure::new("no folder can be made for the demo", error, "Name one with --dir.")
            })?
            .keep()
        }
    };
    Ok(made)
}
