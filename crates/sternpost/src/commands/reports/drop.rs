//! `sternpost reports drop`: deletes received reports, and takes their numbers out of the sums and the evidence. Without
//! `--yes`, it only shows what it would delete.

use super::list::line;
use crate::terminal::{marks, say, show};
use config::Chosen;
use config::failure::{Exit, Failure};
use operations::promotion::OPERATOR;
use operations::report_removal::drop_reports;
use operations::world::domain as domain_name;
use operations::{RolloutContext, store_failure};
use store::reports::DropSelection;

/// The options of `sternpost reports drop`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Numbers in `sternpost reports list`
    #[arg(conflicts_with_all = ["domain", "submitter", "before"], required_unless_present_any = ["domain", "submitter", "before"])]
    numbers: Vec<i64>,
    /// Reports about this domain, with all that they contain about other domains
    #[arg(long)]
    domain: Option<String>,
    /// Reports from this submitter
    #[arg(long)]
    submitter: Option<String>,
    /// Reports whose period ended before this day, such as 2026-11-25
    #[arg(long, value_name = "DAY")]
    before: Option<String>,
    /// Delete them; without this option, only show them
    #[arg(long)]
    yes: bool,
}

/// Maximum number of reports that are printed.
const MAX_LISTED: usize = 20;
/// Reports that are selected by one query.
const BATCH: u32 = 1000;

/// Deletes received reports, or shows which.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(chosen).await?;
    let ids = selected(&context, options).await?;
    for id in ids.iter().take(MAX_LISTED) {
        match context.store.report(*id).await.map_err(|error| store_failure(&error))? {
            Some(report) => show(&line(&report.listed)),
            None => {
                return Err(Failure::finding(
                    format!("report {id}"),
                    "no such report",
                    "`sternpost reports list` shows the numbers.",
                ));
            }
        }
    }
    if ids.len() > MAX_LISTED {
        say(&format!("{} and {} more", marks().info, ids.len() - MAX_LISTED));
    }
    let plural = |count: u64| if count == 1 { "report" } else { "reports" };
    let count = ids.len() as u64;
    match options.yes {
        _ if ids.is_empty() => say("No reports match."),
        true => {
            let dropped = drop_reports(&context, &ids, OPERATOR).await?;
            say(&format!("{} {dropped} {} deleted, with their numbers.", marks().fine, plural(dropped)));
        }
        false => say(&format!(
            "{} {count} {} would be deleted, with their numbers. To delete them, add --yes.",
            marks().info,
            plural(count)
        )),
    }
    context.store.close().await;
    Ok(Exit::Fine)
}

async fn selected(context: &RolloutContext, options: &Options) -> Result<Vec<i64>, Failure> {
    if !options.numbers.is_empty() {
        let mut ids = options.numbers.clone();
        ids.sort_unstable();
        ids.dedup();
        return Ok(ids);
    }
    let selection = DropSelection {
        domain: options.domain.as_deref().map(domain_name).transpose()?.map(|name| name.to_string()),
        submitter: options.submitter.as_ref().map(|name| name.to_ascii_lowercase()),
        before: options.before.as_deref().map(super::day).transpose()?,
    };
    let mut ids: Vec<i64> = Vec::new();
    loop {
        let after = ids.last().copied().unwrap_or_default();
        let some = context.store.reports_to_drop(&selection, after, BATCH).await;
        let some = some.map_err(|error| store_failure(&error))?;
        if some.is_empty() {
            return Ok(ids);
        }
        ids.extend(some);
    }
}
