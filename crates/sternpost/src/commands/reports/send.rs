//! `sternpost reports send`: marks the reports of a day to be sent again by the running server, or builds them and
//! writes them to a folder without sending.

use crate::serve::reporting::scheduler;
use crate::terminal::say;
use config::failure::{Exit, Failure};
use config::{Chosen, Deliver};
use formats::DomainName;
use formats::limits::REPORTS_AT_ONCE;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use operations::{RolloutContext, store_failure};
use sender::report::{PreparedReport, ReportScheduler, build, installation_id};
use std::path::PathBuf;
use store::outgoing::OutgoingFilter;
use store::tallies::DomainTally;

/// The options of `sternpost reports send`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only the report to this domain
    domain: Option<String>,
    /// Day that the reports are about, in UTC, such as 2026-11-25
    #[arg(long)]
    day: String,
    /// Write the reports to this folder instead of sending them
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Domains that are read from the store at once.
const BATCH_ROWS: u32 = 500;

/// Sends the reports again, or writes them to the folder.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let day = super::day(&options.day)?;
    let domain = options.domain.as_deref().map(operations::world::domain).transpose()?;
    let context = RolloutContext::open(chosen).await?;
    let role = super::reporter(&context.config)?.clone();
    let outcome = match &options.folder {
        Some(dir) => {
            let role = config::ReporterConfig { deliver: Deliver::Folder(dir.clone()), ..role };
            let scheduler = scheduler(&role, &context.store, &context.world)?;
            let (written, built) = write_all(&scheduler, day, domain.as_ref()).await?;
            let unwanted = built - written;
            let said = format!(
                "Reports written to {}: {written}. Domains without a report address: {unwanted}. Nothing was sent.",
                dir.display()
            );
            (built, said)
        }
        None => {
            let count = requeue(&context, day, domain.clone()).await?;
            if count == 0 && is_counted(&context, day, domain.as_ref()).await? {
                context.store.close().await;
                return Err(Failure::finding(
                    format!("no report about {} yet", options.day),
                    "sessions were counted for that day, but its reports are not built",
                    "`sternpost serve` builds the reports after the end of the day (UTC). `--folder DIR` builds them now, without sending them.",
                ));
            }
            (
                count,
                format!(
                    "Reports to send again: {count}. `sternpost serve` sends them within a minute; `sternpost reports list --sent` shows the results."
                ),
            )
        }
    };
    context.store.close().await;
    match outcome {
        (0, _) => Err(Failure::finding(
            format!("no report about {}", options.day),
            "no sessions were counted for that day and domain",
            "`sternpost reports list --sent` lists all reports; `sternpost reports preview DOMAIN` shows today's.",
        )),
        (_, said) => {
            say(&said);
            Ok(Exit::Fine)
        }
    }
}

/// True if sessions were counted for the day, and the domain if one is named.
async fn is_counted(
    context: &RolloutContext,
    day: Timestamp,
    domain: Option<&DomainName>,
) -> Result<bool, Failure> {
    let fail = |error| store_failure(&error);
    match domain {
        Some(domain) => Ok(!context.store.tally_of(day, domain).await.map_err(fail)?.is_empty()),
        None => Ok(!context.store.tally_after(day, "", 1).await.map_err(fail)?.is_empty()),
    }
}

/// Marks reports that were already built to be sent again; returns how many.
async fn requeue(
    context: &RolloutContext,
    day: Timestamp,
    domain: Option<DomainName>,
) -> Result<usize, Failure> {
    let fail = |error| store_failure(&error);
    let wanted = OutgoingFilter { domain, day: Some(day), state: None, most: u32::MAX };
    let reports = context.store.outgoing(&wanted).await.map_err(fail)?;
    let now = context.store.common_time(context.world.clock.now()).await.map_err(fail)?;
    for report in &reports {
        context.store.requeue(report.id, now).await.map_err(fail)?;
    }
    Ok(reports.len())
}

/// Builds reports and writes those to domains with a report address to the folder. Returns the number written and the
/// number built.
async fn write_all(
    scheduler: &ReportScheduler,
    day: Timestamp,
    only: Option<&DomainName>,
) -> Result<(usize, usize), Failure> {
    let fail = |error| store_failure(&error);
    let mut after = String::new();
    let (mut written, mut built) = (0, 0);
    loop {
        let tallies = match only {
            Some(_) if !after.is_empty() => return Ok((written, built)),
            Some(domain) => {
                let entries = scheduler.store.tally_of(day, domain).await.map_err(fail)?;
                vec![DomainTally { domain: domain.clone(), entries }]
            }
            None => scheduler.store.tally_after(day, &after, BATCH_ROWS).await.map_err(fail)?,
        };
        let Some(last) = tallies.last() else { return Ok((written, built)) };
        after = last.domain.to_string();
        let each = tallies.into_iter().map(|tally| write_one(scheduler, day, tally));
        let outcomes: Vec<_> = stream::iter(each).buffer_unordered(REPORTS_AT_ONCE).collect().await;
        for outcome in outcomes {
            let outcome = outcome?;
            built += usize::from(outcome.is_some());
            written += usize::from(outcome == Some(true));
        }
    }
}

/// Builds the report to a domain and writes it to the folder. `None` when there is no report for the day, `false` when
/// the domain has no report address.
async fn write_one(
    scheduler: &ReportScheduler,
    day: Timestamp,
    tally: DomainTally,
) -> Result<Option<bool>, Failure> {
    let domain = tally.domain.clone();
    let fail = |why: &dyn std::fmt::Display| Failure::new(format!("the report to {domain}"), why, "");
    let looks = scheduler.store.testing_probes(day, &domain).await.map_err(|error| fail(&error))?;
    let installation_id = installation_id(&scheduler.store).await.map_err(|error| fail(&error))?;
    let Some(report) = build(day, tally, &looks, &scheduler.delivery.reporter, &installation_id) else {
        return Ok(None);
    };
    let prepared = PreparedReport::new(&domain, &report).map_err(|error| fail(&error))?;
    let known = scheduler.store.tallied_record(day, &domain).await.map_err(|error| fail(&error))?;
    let targets =
        scheduler.delivery.targets(&domain, known.as_deref()).await.map_err(|error| fail(&error))?;
    let mut is_wanted = false;
    for planned in targets.targets {
        let delivered = scheduler.delivery.bring(&prepared, &planned.target, scheduler.clock.now()).await;
        delivered.map_err(|failure| fail(&failure.why))?;
        is_wanted = true;
    }
    Ok(Some(is_wanted))
}
