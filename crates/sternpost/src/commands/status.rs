//! `sternpost status`: prints the state of each domain from the store: mode, evidence, failures, the policies that
//! senders may cache, and the journal, and then the active alerts with the domains that each concerns. It sends no
//! queries.

use super::plan::outside;
use crate::commands::reports::usage_in_words;
use crate::terminal::{marks, say, show};
use config::failure::{Exit, Failure};
use formats::Mode;
use jiff::{SignedDuration, Timestamp};
use operations::RolloutContext;
use operations::store_failure;
use receiver::domain::DomainSpec;
use receiver::inbox::explain::{CauseContext, Explanation, explain};
use receiver::rollout::RolloutState;
use receiver::rollout::decisions::Decisions;
use receiver::rollout::gate::{Evidence, Gate, Source};
use receiver::rollout::guard::{Alert, AlertGroup, groups};
use receiver::rollout::outside::Outside;
use std::fmt::Write;
use std::path::Path;
use store::reports::QuarantineUsage;
use store::rollouts::JournalEntry;

/// The options of `sternpost status`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Domains [default: all]
    domains: Vec<String>,
    /// Print one line of JSON (docs/receiving.md)
    #[arg(long)]
    json: bool,
    /// Show what each name server and each address of the policy host showed at the last observation
    #[arg(long)]
    servers: bool,
}

#[derive(serde::Serialize)]
struct Status {
    domain: String,
    wanted: Mode,
    #[serde(flatten)]
    rollout: RolloutState,
    evidence: Evidence,
    gate: Gate,
    /// Failures in recent reports that count as evidence, most frequent first.
    failures: Vec<Explanation>,
    #[serde(skip_serializing_if = "Decisions::is_empty")]
    decisions: Decisions,
    /// What was seen at the last observation.
    #[serde(skip_serializing_if = "Option::is_none")]
    outside: Option<LastLook>,
    journal: Vec<JournalEntry>,
}

#[derive(serde::Serialize)]
struct LastLook {
    at: Timestamp,
    #[serde(flatten)]
    seen: Outside,
}

/// Prints the status of each domain.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = RolloutContext::open_to_show(named).await?;
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for spec in context.domains(&options.domains)? {
        match of(&context, &spec).await {
            Ok(status) => all.push(status),
            // One domain whose state can't be read does not hide the others.
            Err(failure) => failed.push(format!("{}: {}", spec.name, failure.parts().1)),
        }
    }
    for (name, why) in context.damaged.iter().filter(|_| options.domains.is_empty()) {
        failed.push(format!("{name}: its settings can't be read: {why}"));
    }
    let alerts = alerts(&context, &options.domains).await?;
    let quarantine = context.store.quarantine_usage().await.map_err(|error| store_failure(&error))?;
    context.store.close().await;
    if options.json {
        let json = serde_json::json!({ "schema": 1, "domains": all, "alerts": alerts, "unreadable": failed, "quarantine": quarantine });
        show(&format!("{json}\n"));
    } else {
        let text = |status: &Status| in_words(status, options.servers);
        show(&all.iter().map(text).collect::<Vec<_>>().join("\n"));
        alerts.iter().for_each(|group| show(&alert_in_words(group)));
        if options.domains.is_empty() {
            context.unconfigured.iter().for_each(|missed| {
                say(&format!("{} {}: {}", marks().warning, missed.what(), missed.consequence()));
                say(&format!("    {}", missed.remedy().replace('\n', "\n    ")));
            });
        }
        failed.iter().for_each(|what| say(&format!("{} {what}", marks().error)));
        if quarantine != QuarantineUsage::default() {
            let limit = context.config.retention().quarantine.bytes;
            show(&format!("\n{}\n", usage_in_words(&quarantine, limit)));
        }
    }
    Ok(if failed.is_empty() { Exit::Fine } else { Exit::Unknown })
}

/// The active alerts that concern these domains; all of them if none is named.
async fn alerts(context: &RolloutContext, domains: &[String]) -> Result<Vec<AlertGroup>, Failure> {
    let named: Vec<String> =
        context.domains(domains)?.into_iter().map(|spec| spec.name.to_string()).collect();
    let active = context.store.alerts::<Alert>().await.map_err(|error| store_failure(&error))?;
    let is_wanted = |domain: &String| domains.is_empty() || named.contains(domain);
    let mut all = groups(active.into_iter().map(|one| (one.domain, one.since, one.alert)));
    all.retain(|group| group.alert.domains.iter().any(is_wanted));
    Ok(all)
}

fn alert_in_words(group: &AlertGroup) -> String {
    let AlertGroup { since, alert } = group;
    let named = alert.domains.iter().take(MAX_DOMAINS).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match alert.domains.len().saturating_sub(MAX_DOMAINS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = format!("{}: {} (since {since:.0})", alert.kind, alert.what);
    format!("\n{} {what}\n    domains: {named}{more}\n    {}\n", marks().error, alert.remedy)
}

async fn of(context: &RolloutContext, spec: &DomainSpec) -> Result<Status, Failure> {
    let fail = |error| store_failure(&error);
    let (name, store) = (&spec.name, &context.store);
    let rollout = context.rollout(name).await?;
    let (evidence, gate) = context.gate(name, &rollout).await?;
    let now = context.world.clock.now();
    let since = now.saturating_sub(REPORT_WINDOW).unwrap_or(now);
    let senders = store.senders_about(name, since).await.map_err(fail)?;
    let probes = store.guard_probes(name, since).await.map_err(fail)?;
    let around = CauseContext { domain: name.as_str(), senders: &senders, probes: &probes };
    let causes = store.causes_of(name, since).await.map_err(fail)?;
    let counting = causes.iter().filter(|cause| cause.counts);
    Ok(Status {
        domain: name.to_string(),
        wanted: spec.mode,
        failures: counting.map(|cause| explain(cause, &around)).collect(),
        rollout,
        evidence,
        gate,
        decisions: context.decisions(name),
        outside: store.last_look(name).await.map_err(fail)?.map(|(at, seen)| LastLook { at, seen }),
        journal: store.journal_of(name).await.map_err(fail)?,
    })
}

/// Age up to which reported failures are listed: 30 days.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Domains of an alert that are printed as text.
const MAX_DOMAINS: usize = 10;
/// Failures of a domain that are printed as text.
const MAX_LISTED: usize = 3;

/// Senders that are named in the text.
const MAX_SENDERS: usize = 5;

/// Whose sessions count, with the most frequent first.
fn counted(evidence: &Evidence) -> String {
    let all = &evidence.sources;
    let one = |source: &Source| match source.failed_sessions {
        0 => format!("{} ({} sessions)", source.domain, source.clean_sessions),
        failed => format!("{} ({} sessions, {failed} failed)", source.domain, source.clean_sessions),
    };
    let named: Vec<String> = all.iter().take(MAX_SENDERS).map(one).collect();
    let more = match all.len().saturating_sub(MAX_SENDERS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} clean days, reported by {}{more}", evidence.clean_days, named.join(", "))
}

fn in_words(status: &Status, all_servers: bool) -> String {
    let mut out = String::new();
    let now = match status.rollout.mode {
        Some(known) => format!("{} since {:.0}", known.mode, known.since),
        None => "not observed yet".to_owned(),
    };
    let _ = writeln!(out, "{}: {now}; desired mode {}", status.domain, status.wanted);
    let _ = writeln!(out, "  evidence: {}", status.gate);
    if !status.evidence.sources.is_empty() {
        let _ = writeln!(out, "    counted: {}", counted(&status.evidence));
    }
    for left_out in status.evidence.left_out() {
        let _ = writeln!(out, "    not counted: {left_out}");
    }
    if status.rollout.mode.is_none() && status.wanted != Mode::None {
        let _ = writeln!(out, "  next: sternpost apply {}", status.domain);
    }
    if let Some(word) = &status.decisions.held {
        let _ = writeln!(out, "  held in testing by {}: {}", word.who, word.reason);
    }
    for omission in &status.decisions.omitted {
        let (who, reason) = (&omission.decision.who, &omission.decision.reason);
        let _ = writeln!(out, "  changes do not wait for {}, by {who}: {reason}", omission.place);
    }
    if let Some(look) = &status.outside {
        let text = outside(&look.seen, all_servers);
        let text = text.replace("seen from outside:", &format!("seen from outside at {:.0}:", look.at));
        out.push_str(text.trim_start_matches('\n'));
    }
    for failure in status.failures.iter().take(MAX_LISTED) {
        let _ = writeln!(out, "  {} {}", marks().error, failure.what);
        failure.hints.iter().for_each(|hint| {
            let _ = writeln!(out, "      {hint}");
        });
        let _ = writeln!(out, "      {}", failure.remedy.replace('\n', "\n      "));
    }
    if status.failures.len() > MAX_LISTED {
        let _ = writeln!(
            out,
            "  and {} more kinds of failures (--json, or the dashboard)",
            status.failures.len() - MAX_LISTED
        );
    }
    for promise in &status.rollout.promises {
        let mx: Vec<String> = promise.mx.iter().map(ToString::to_string).collect();
        let until =
            promise.ends().map_or("as long as it is served".to_owned(), |end| format!("until {end:.0}"));
        let _ = writeln!(out, "  senders may cache {} for {} {until}", promise.mode, mx.join(", "));
    }
    for line in &status.journal {
        let _ = writeln!(out, "  {} {}: {}", line.at, line.who, line.what);
    }
    out
}
