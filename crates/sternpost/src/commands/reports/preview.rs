//! `sternpost reports preview`: builds the report to a domain about a day from the current tallies, and prints it.
//! Nothing is stored or sent.

use super::policy_text::policies_in_words;
use crate::terminal::{say, show};
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::report::DateRange;
use operations::{RolloutContext, store_failure};
use sender::report::{build, installation_id};
use store::tallies::DomainTally;

/// The options of `sternpost reports preview`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Recipient domain
    domain: String,
    /// Day in UTC, such as 2026-11-25 [default: today]
    #[arg(long)]
    day: Option<String>,
    /// Print the report's JSON (RFC 8460)
    #[arg(long)]
    raw: bool,
}

/// Builds and prints the report.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let domain = operations::world::domain(&options.domain)?;
    let context = RolloutContext::open_to_show(chosen).await?;
    let reporter = super::reporter(&context.config)?.reporter.clone();
    let fail = |error| store_failure(&error);
    let day = match &options.day {
        Some(text) => super::day(text)?,
        None => DateRange::utc_day(context.world.clock.now()).start,
    };
    let entries = context.store.tally_of(day, &domain).await.map_err(fail)?;
    let looks = context.store.testing_probes(day, &domain).await.map_err(fail)?;
    let installation_id = installation_id(&context.store)
        .await
        .map_err(|error| Failure::new("the ID of the report", error, ""))?;
    context.store.close().await;
    let shown = day.strftime("%Y-%m-%d");
    let Some(report) =
        build(day, DomainTally { domain: domain.clone(), entries }, &looks, &reporter, &installation_id)
    else {
        say(&format!(
            "No sessions with {domain} were counted on {shown}, so there is no report about that day."
        ));
        return Ok(Exit::Fine);
    };
    let text = report
        .to_json()
        .map_err(|error| Failure::new(format!("the report to {domain} can't be encoded"), error, ""))?;
    match options.raw {
        true => say(&String::from_utf8_lossy(&text)),
        false => show(&format!(
            "Report {} to {domain} about {shown}\n{}",
            report.report_id,
            policies_in_words(&report.policies)
        )),
    }
    Ok(Exit::Fine)
}
