//! `sternpost demo`: takes a domain from strippable SMTP to enforced TLS on loopback, with real protocols. `stage`
//! builds the lab, the senders and the receiving operator; `acts` runs the steps and checks claims against what was
//! observed; `playbill` prints and records the claims; `picture` draws them as an SVG.

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

/// The options of `sternpost demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Print the outcome as one line of JSON, and nothing else
    #[arg(long)]
    pub json: bool,
    /// Keep the servers running until Ctrl-C, to inspect them with dig, curl and openssl
    #[arg(long)]
    pub keep: bool,
    /// Folder for the stores, trust anchors and picture; must be empty or new [default: a new temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs all acts. The returned playbill has all claims and whether each held.
pub async fn run(options: &Options) -> Result<Playbill, Failure> {
    let folder = folder(options)?;
    let stage = Stage::set_up(folder.clone()).await?;
    let mut bill = Playbill::new(folder.clone(), !options.json);
    acts::play(&stage, &mut bill).await?;
    lab::write_trust(&stage.lab, &folder)?;
    picture::write(&bill, &folder.join("demo.svg"))?;
    bill.close(options.keep);
    if options.keep {
        // The line of JSON is printed before the wait, so that scripts can use the servers.
        if options.json {
            say(&bill.to_json());
        } else {
            let example = Example { domain: stage.domain.as_str(), policy_host: stage.policy_host };
            show(&lab::directions(&stage.lab, &folder, &example));
            say("\nRunning until Ctrl-C.");
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
                Failure::new("can't create a folder for the demo", error, "Name one with --dir.")
            })?
            .keep()
        }
    };
    Ok(made)
}
