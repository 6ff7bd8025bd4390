//! Sends the reports of a day again, or puts them into a folder without sending anything.

use crate::serve::reporting::scheduler;
use crate::terminal::say;
use config::Deliver;
use config::failure::{Exit, Failure};
use formats::DomainName;
use formats::limits::REPORTS_AT_ONCE;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use operations::{RolloutContext, store_failure};
use sender::report::{PreparedReport, ReportScheduler, build};
use std::path::{Path, PathBuf};
use store::outgoing::OutgoingFilter;
use store::tallies::DomainTally;

/// Which, and where to.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The report to this domain only
    domain: Option<String>,
    /// The day that they are about, such as 2026-11-25
    #[arg(long)]
    day: String,
    /// Put them into this folder, and send nothing
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Domains that are read at once.
const BATCH_ROWS: u32 = 500;

/// Does it.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let day = super::day(&options.day)?;
    let domain = options.domain.as_deref().map(operations::world::domain).transpose()?;
    let context = RolloutContext::open(named).await?;
    let role = super::reporter(&context.config)?.clone();
    let outcome = match &options.folder {
        Some(dir) => {
            let role = config::ReporterConfig { deliver: Deliver::Folder(dir.clone()), ..role };
            let scheduler = scheduler(&role, &context.store, &context.world)?;
            let (put, built) = put(&scheduler, day, domain.as_ref()).await?;
            let unwanted = built - put;
            let said = format!(
                "Reports in {}: {put}. Domains that ask for none: {unwanted}. Nothing was sent.",
                dir.display()
            );
            (built, said)
        }
        None => {
            let count = again(&context, day, domain).await?;
            (
                count,
                format!(
                    "Reports that go again: {count}. `sternpost serve` sends them within a minute; `sternpost reports list --sent` shows how it went."
                ),
            )
        }
    };
    context.store.close().await;
    match outcome {
        (0, _) => Err(Failure::finding(
            format!("no report about {}", options.day),
            "nothing was counted on that day for whom you named",
            "What there is, is in `sternpost reports list --sent`; today's is shown by `sternpost reports preview DOMAIN`.",
        )),
        (_, said) => {
            say(&said);
            Ok(Exit::Fine)
        }
    }
}

/// Lets reports that were built go again.
async fn again(
    context: &RolloutContext,
    day: Timestamp,
    domain: Option<DomainName>,
) -> Result<usize, Failure> {
    let fail = |error| store_failure(&error);
    let wanted = OutgoingFilter { domain, day: Some(day), state: None, most: u32::MAX };
    let reports = context.store.outgoing(&wanted).await.map_err(fail)?;
    for report in &reports {
        context.store.send_again(report.id, context.world.clock.now()).await.map_err(fail)?;
    }
    Ok(reports.len())
}

/// Builds reports and puts those that somebody wants into the folder; how many, and of how many.
async fn put(
    scheduler: &ReportScheduler,
    day: Timestamp,
    only: Option<&DomainName>,
) -> Result<(usize, usize), Failure> {
    let fail = |error| store_failure(&error);
    let mut after = String::new();
    let (mut put, mut built) = (0, 0);
    loop {
        let tallies = match only {
            Some(_) if !after.is_empty() => return Ok((put, built)),
            Some(domain) => {
                let entries = scheduler.store.tally_of(day, domain).await.map_err(fail)?;
                vec![DomainTally { domain: domain.clone(), entries }]
            }
            None => scheduler.store.tally_after(day, &after, BATCH_ROWS).await.map_err(fail)?,
        };
        let Some(last) = tallies.last() else { return Ok((put, built)) };
        after = last.domain.to_string();
        let each = tallies.into_iter().map(|tally| put_one(scheduler, day, tally));
        let outcomes: Vec<_> = stream::iter(each).buffer_unordered(REPORTS_AT_ONCE).collect().await;
        for outcome in outcomes {
            let outcome = outcome?;
            built += usize::from(outcome.is_some());
            put += usize::from(outcome == Some(true));
        }
    }
}

/// `None` without a report, and whether somebody wants it.
async fn put_one(
    scheduler: &ReportScheduler,
    day: Timestamp,
    tally: DomainTally,
) -> Result<Option<bool>, Failure> {
    let domain = tally.domain.clone();
    let fail = |why: &dyn std::fmt::Display| Failure::new(format!("the report to {domain}"), why, "");
    let looks = scheduler.store.testing_probes(day, &domain).await.map_err(|error| fail(&error))?;
    let Some(report) = build(day, tally, &looks, &scheduler.delivery.reporter) else { return Ok(None) };
    let letter = PreparedReport::new(&domain, &report).map_err(|error| fail(&error))?;
    let known = scheduler.store.tallied_record(day, &domain).await.map_err(|error| fail(&error))?;
    let targets =
        scheduler.delivery.targets(&domain, known.as_deref()).await.map_err(|error| fail(&error))?;
    let mut is_wanted = false;
    for target in targets.unwrap_or_default() {
        let put = scheduler.delivery.bring(&letter, &target, scheduler.clock.now()).await;
        put.map_err(|failure| fail(&failure.why))?;
        is_wanted = true;
    }
    Ok(Some(is_wanted))
}
