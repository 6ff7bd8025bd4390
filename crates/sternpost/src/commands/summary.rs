//! `sternpost summary`: prints the weekly summary as `guard.weekly` would mail it now.

use crate::terminal::show;
use config::Chosen;
use config::failure::{Exit, Failure};
use operations::RolloutContext;
use operations::summary::weekly_summary;

/// The options of `sternpost summary`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Print one line of JSON (docs/receiving.md)
    #[arg(long)]
    json: bool,
}

/// Prints the summary.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(chosen).await?;
    // Fails if there is no domain.
    context.domains(&[])?;
    let summary = weekly_summary(&context, context.world.clock.now()).await?;
    context.store.close().await;
    match options.json {
        true => show(&format!("{}\n", serde_json::json!({ "schema": 1, "summary": summary }))),
        false => {
            let mail = summary.mail();
            show(&format!("Subject: {}\n\n{}", mail.subject, mail.body));
        }
    }
    Ok(Exit::Fine)
}
