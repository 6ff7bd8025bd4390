//! Reports listed, and one of them read.

use super::policy_text::{policies_in_words, shown};
use crate::terminal::{marks, show};
use config::failure::{Exit, Failure};
use operations::opened_report::{OpenedReport, open_report};
use operations::world::domain as domain_name;
use operations::{RolloutContext, store_failure};
use std::fmt::Write;
use std::path::Path;
use store::outgoing::OutgoingFilter;
use store::reports::{ListedReport, Search};

/// Which reports.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// About this domain only
    #[arg(long)]
    domain: Option<String>,
    /// From this submitter only
    #[arg(long, value_name = "SUBMITTER")]
    from: Option<String>,
    /// Only those with failures
    #[arg(long)]
    failed: bool,
    /// Only those about domains that are not among yours
    #[arg(long, conflicts_with = "domain")]
    others: bool,
    /// Reports of ours, that went to others
    #[arg(long, conflicts_with_all = ["from", "failed", "others", "before"])]
    sent: bool,
    /// With --sent: about this day, such as 2026-11-25
    #[arg(long, value_name = "DAY", requires = "sent")]
    day: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Those before this number, to go on where a list ended
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// One line of JSON (docs/reports.md)
    #[arg(long)]
    json: bool,
}

/// Which report.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Its number, as `sternpost reports list` shows it
    number: i64,
    /// One of ours, by its number in `sternpost reports list --sent`
    #[arg(long)]
    sent: bool,
    /// The report's own text, as it came
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// One line of JSON (docs/reports.md)
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(named).await?;
    let known: Vec<&str> = context.known.iter().map(|spec| spec.name.as_str()).collect();
    let domain = options.domain.as_deref().map(domain_name).transpose()?;
    if options.sent {
        let day = options.day.as_deref().map(super::day).transpose()?;
        let wanted = OutgoingFilter { domain, day, state: None, most: options.limit };
        return super::sent::list(context, &wanted, options.json).await;
    }
    let mut search = Search {
        domain: domain.map(|name| name.to_string()),
        submitter: options.from.clone(),
        failed: options.failed,
        before: options.before,
        most: options.limit,
    };
    let mut found = Vec::new();
    loop {
        let some = context.store.reports(&search).await.map_err(|error| store_failure(&error))?;
        search.before = some.last().map(|last| last.id);
        let is_last = some.len() < options.limit as usize;
        let wanted = |report: &ListedReport| {
            !options.others || !report.domains.iter().any(|domain| known.contains(&domain.as_str()))
        };
        found.extend(some.into_iter().filter(wanted));
        if is_last || !options.others || found.len() >= options.limit as usize {
            break;
        }
    }
    found.truncate(options.limit as usize);
    context.store.close().await;
    match options.json {
        true => show(&format!("{}\n", serde_json::json!({ "schema": 1, "reports": found }))),
        false if found.is_empty() => show(
            "No reports. Take some in: sternpost reports import FILE, or switch the inbox on by [inbox].\n",
        ),
        false => show(&found.iter().map(line).collect::<String>()),
    }
    Ok(Exit::Fine)
}

fn line(report: &ListedReport) -> String {
    let mark = if report.failed > 0 { marks().error } else { marks().fine };
    let day = report.start.strftime("%Y-%m-%d");
    let odd = if report.warnings > 0 { format!(", {} odd", report.warnings) } else { String::new() };
    format!(
        "{mark} {:>6}  {day}  {:<28} {:<28} {} ok, {} failed  ({}, {}{odd})\n",
        report.id,
        shown(&report.submitter),
        shown(&report.domains.join(" ")),
        report.successful,
        report.failed,
        report.trust,
        report.arrival
    )
}

/// Shows one.
pub async fn show_one(options: &Show, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(named).await?;
    if options.sent {
        return super::sent::show_one(context, options.number, options.raw, options.json).await;
    }
    let found = context.store.report(options.number).await.map_err(|error| store_failure(&error))?;
    context.store.close().await;
    let Some(stored) = found else {
        return Err(Failure::finding(
            format!("report {}", options.number),
            "there is none of that number",
            "The numbers are in `sternpost reports list`.",
        ));
    };
    let told = open_report(stored)?;
    match (options.raw, options.json) {
        (true, _) => show(&told.text),
        (_, true) => {
            let json = serde_json::to_string(&told)
                .map_err(|error| Failure::new("the report can't be shown", error, ""))?;
            show(&format!("{json}\n"));
        }
        _ => show(&in_words(&told)),
    }
    Ok(Exit::Fine)
}

fn in_words(told: &OpenedReport) -> String {
    let listed = &told.listed;
    let mut out = String::new();
    let believed = match &told.signer {
        Some(signer) => format!("signed by {signer}"),
        None => listed.trust.to_string(),
    };
    let _ = writeln!(
        out,
        "Report {} of {} ({}), {believed}, came by {} at {}",
        shown(&listed.report_id),
        shown(&listed.submitter),
        shown(&listed.organization),
        listed.arrival,
        listed.received_at
    );
    let _ = writeln!(out, "  covers {} to {}", listed.start, listed.end);
    if let Some(contact) = &told.contact {
        let _ = writeln!(out, "  contact: {}", shown(contact));
    }
    out.push_str(&policies_in_words(&told.policies));
    if !told.oddities.is_empty() {
        let _ = writeln!(out, "\nWhat RFC 8460 does not allow, and was taken all the same:");
        for oddity in &told.oddities {
            let _ = writeln!(out, "  {} {}: {}", marks().warning, shown(&oddity.path), oddity.what);
        }
    }
    out
}
