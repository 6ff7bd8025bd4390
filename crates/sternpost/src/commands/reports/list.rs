//! `sternpost reports list` and `show`: received reports from the store. With --sent, both are about reports that this
//! installation sends (`sent`).

use super::policy_text::{policies_in_words, shown};
use crate::terminal::{marks, show};
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::result_type::PolicyType;
use operations::opened_report::{OpenedReport, open_report};
use operations::world::domain as domain_name;
use operations::{RolloutContext, store_failure};
use std::collections::BTreeSet;
use std::fmt::Write;
use store::outgoing::OutgoingFilter;
use store::reports::{ListedReport, Search, Trust};

/// The options of `sternpost reports list`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only reports about this domain
    #[arg(long)]
    domain: Option<String>,
    /// Only reports from this submitter
    #[arg(long, value_name = "SUBMITTER")]
    from: Option<String>,
    /// Only reports with failures
    #[arg(long)]
    failed: bool,
    /// Only reports about domains that are not yours
    #[arg(long, conflicts_with = "domain")]
    others: bool,
    /// List the reports sent to other domains
    #[arg(long, conflicts_with_all = ["from", "failed", "others", "before"])]
    sent: bool,
    /// List the counts of received DMARC reports
    #[arg(long, conflicts_with_all = ["from", "failed", "others", "before", "sent"])]
    dmarc: bool,
    /// With --sent: only reports about this day, such as 2026-11-25
    #[arg(long, value_name = "DAY", requires = "sent")]
    day: Option<String>,
    /// Maximum number of reports
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Continue before this number, the last one of the previous list
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// Print one line of JSON (docs/reports.md)
    #[arg(long)]
    json: bool,
}

/// The options of `sternpost reports show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Number of the report in `sternpost reports list`
    number: i64,
    /// Show a sent report, by its number in `sternpost reports list --sent`
    #[arg(long)]
    sent: bool,
    /// Print the report's JSON as received or sent
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print one line of JSON (docs/reports.md)
    #[arg(long)]
    json: bool,
}

/// Lists received or sent reports.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open_to_show(chosen).await?;
    let known: Vec<&str> = context.known.iter().map(|spec| spec.name.as_str()).collect();
    let domain = options.domain.as_deref().map(domain_name).transpose()?;
    if options.sent {
        let day = options.day.as_deref().map(super::day).transpose()?;
        let wanted = OutgoingFilter { domain, day, state: None, most: options.limit };
        return super::sent::list(context, &wanted, options.json).await;
    }
    if options.dmarc {
        let domain = domain.map(|name| name.to_string());
        return super::dmarc::list(context, domain, options.limit, options.json).await;
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
    let origins = context.config.origins();
    context.store.close().await;
    match options.json {
        true => show(&format!("{}\n", serde_json::json!({ "schema": 1, "reports": found }))),
        false if found.is_empty() => show(&format!(
            "No reports, in {origins}. Import some: sternpost reports import FILE, or enable the inbox with a section [inbox].\n",
        )),
        false => show(&found.iter().map(line).collect::<String>()),
    }
    Ok(Exit::Fine)
}

/// A report as a line of the list.
pub(super) fn line(report: &ListedReport) -> String {
    let mark = if report.failed > 0 { marks().error } else { marks().fine };
    let day = report.start.strftime("%Y-%m-%d");
    let warnings =
        if report.warnings > 0 { format!(", {} warnings", report.warnings) } else { String::new() };
    let late = if report.evidence.is_late() { ", late: no evidence" } else { "" };
    format!(
        "{mark} {:>6}  {day}  {:<28} {:<28} {} ok, {} failed  ({}, by {}{late}{warnings})\n",
        report.id,
        shown(&report.submitter),
        shown(&report.domains.join(" ")),
        report.successful,
        report.failed,
        trust_in_words(report.trust),
        report.arrival
    )
}

/// The trust in a report. "failed" alone would seem to be about its sessions.
fn trust_in_words(trust: Trust) -> String {
    match trust {
        Trust::Failed => "signature not valid".to_owned(),
        other => other.to_string(),
    }
}

/// Shows a received or sent report.
pub async fn show_one(options: &Show, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open_to_show(chosen).await?;
    if options.sent {
        return super::sent::show_one(context, options.number, options.raw, options.json).await;
    }
    let found = context.store.report(options.number).await.map_err(|error| store_failure(&error))?;
    context.store.close().await;
    let Some(stored) = found else {
        return Err(Failure::finding(
            format!("report {}", options.number),
            "no such report",
            "`sternpost reports list` shows the numbers.",
        ));
    };
    let report = open_report(stored)?;
    match (options.raw, options.json) {
        (true, _) => show(&report.text),
        (_, true) => {
            let json = serde_json::to_string(&report)
                .map_err(|error| Failure::new("the report can't be shown", error, ""))?;
            show(&format!("{json}\n"));
        }
        _ => show(&in_words(&report)),
    }
    Ok(Exit::Fine)
}

/// The MX hosts whose DANE results count for no domain, and why.
fn not_filed(report: &OpenedReport) -> Vec<(&str, String)> {
    let dane = report.policies.iter().filter(|policy| policy.policy_type == PolicyType::Tlsa);
    let hosts: BTreeSet<&str> =
        dane.filter_map(|policy| Some(policy.policy_domain.as_ref()?.as_str())).collect();
    let listed = &report.listed;
    let why = match &listed.about {
        Some(about) => format!("it was not seen as an MX host of {}", shown(about)),
        None => "no authenticated field states which domain the report is about".to_owned(),
    };
    // A result that is filed under the domain of the mail is not listed under the host's name.
    let is_listed = |host: &&str| {
        listed.domains.iter().any(|domain| domain == *host) && listed.about.as_deref() != Some(*host)
    };
    let shown_only = |host| (host, format!("shown under the name of this MX host, since {why}"));
    hosts.into_iter().filter(is_listed).map(shown_only).collect()
}

fn in_words(report: &OpenedReport) -> String {
    let listed = &report.listed;
    let mut out = String::new();
    let trust = match &report.signer {
        Some(signer) => format!("signed by {signer}"),
        None => trust_in_words(listed.trust),
    };
    let _ = writeln!(
        out,
        "Report {} from {} ({}), {trust}, received by {} at {}",
        shown(&listed.report_id),
        shown(&listed.submitter),
        shown(&listed.organization),
        listed.arrival,
        listed.received_at
    );
    let _ = writeln!(out, "  covers {} to {}", listed.start, listed.end);
    let _ = writeln!(out, "  {}", listed.evidence);
    for (host, remedy) in not_filed(report) {
        let _ = writeln!(out, "  {}: {remedy}", shown(host));
    }
    if let Some(contact) = &report.contact {
        let _ = writeln!(out, "  contact: {}", shown(contact));
    }
    out.push_str(&policies_in_words(&report.policies));
    if !report.oddities.is_empty() {
        let _ = writeln!(out, "\nDeviations from RFC 8460 that were accepted:");
        for oddity in &report.oddities {
            let _ = writeln!(out, "  {} {}: {}", marks().warning, shown(&oddity.path), oddity.what);
        }
    }
    out
}
