//! `sternpost reports list --sent` and `show --sent`: the delivery state and the content of the reports that this
//! installation sends.

use super::policy_text::{policies_in_words, shown};
use crate::terminal::{marks, show};
use config::failure::{Exit, Failure};
use formats::report::{PolicyReport, Report, unpack};
use operations::{RolloutContext, store_failure};
use serde::Serialize;
use std::fmt::Write;
use store::outgoing::{DeliveryState, Outgoing, OutgoingFilter, Reply, TargetState};

/// A sent report in JSON output.
#[derive(Serialize)]
struct Listed<'r> {
    id: i64,
    day: String,
    domain: &'r str,
    report_id: &'r str,
    state: DeliveryState,
    successful: u64,
    failed: u64,
    tries: u32,
    next_try: Option<String>,
    #[serde(rename = "said")]
    outcome_text: &'r str,
    targets: Vec<TargetState>,
}

impl<'r> Listed<'r> {
    fn new(report: &'r Outgoing, targets: Vec<TargetState>) -> Self {
        Self {
            id: report.id,
            day: day(report),
            domain: report.domain.as_str(),
            report_id: &report.report_id,
            state: report.state,
            successful: report.successful,
            failed: report.failed,
            tries: report.tries,
            next_try: (report.state == DeliveryState::Waiting).then(|| report.due.to_string()),
            outcome_text: &report.outcome_text,
            targets,
        }
    }
}

fn day(report: &Outgoing) -> String {
    report.day.strftime("%Y-%m-%d").to_string()
}

/// Prints the sent reports that match `wanted`, as text or JSON.
pub async fn list(context: RolloutContext, wanted: &OutgoingFilter, json: bool) -> Result<Exit, Failure> {
    let fail = |error| store_failure(&error);
    let reports = context.store.outgoing(wanted).await.map_err(fail)?;
    let mut with = Vec::new();
    for report in &reports {
        with.push(Listed::new(report, context.store.outgoing_targets(report.id).await.map_err(fail)?));
    }
    context.store.close().await;
    match json {
        true => show(&format!("{}\n", serde_json::json!({ "schema": 1, "sent": with }))),
        false if with.is_empty() => show(
            "No sent reports yet. [reporter] builds them after midnight (UTC) from the sessions that [collector] counts, and sends them.\n",
        ),
        false => show(&reports.iter().map(line).collect::<String>()),
    }
    Ok(Exit::Fine)
}

fn line(report: &Outgoing) -> String {
    let (mark, state) = match report.state {
        DeliveryState::Sent => (marks().fine, "sent".to_owned()),
        DeliveryState::Waiting => (marks().info, format!("next attempt {:.0}", report.due)),
        DeliveryState::Unwanted => (marks().info, "unwanted".to_owned()),
        DeliveryState::GivenUp => (marks().error, "given up".to_owned()),
    };
    let outcome = if report.outcome_text.is_empty() {
        String::new()
    } else {
        format!(": {}", shown(&report.outcome_text))
    };
    format!(
        "{mark} {:>6}  {}  {:<28} {} ok, {} failed  {state}{outcome}\n",
        report.id,
        day(report),
        report.domain.as_str(),
        report.successful,
        report.failed
    )
}

/// Prints the sent report with this row id; if `raw`, its JSON text.
pub async fn show_one(context: RolloutContext, id: i64, raw: bool, json: bool) -> Result<Exit, Failure> {
    let fail = |error| store_failure(&error);
    let found = context.store.outgoing_by_id(id).await.map_err(fail)?;
    let targets = context.store.outgoing_targets(id).await.map_err(fail)?;
    let packed = context.store.outgoing_text(id).await.map_err(fail)?;
    context.store.close().await;
    let (Some(report), Some(packed)) = (found, packed) else {
        return Err(Failure::finding(
            format!("sent report {id}"),
            "no such report",
            "`sternpost reports list --sent` shows the numbers.",
        ));
    };
    let damaged = |why: &dyn std::fmt::Display| Failure::new(format!("report {id} can't be parsed"), why, "");
    let (text, _) = unpack(&packed).map_err(|error| damaged(&error))?;
    let read = Report::read(&text).map_err(|error| damaged(&error))?.report;
    match (raw, json) {
        (true, _) => show(&String::from_utf8_lossy(&text)),
        (_, true) => {
            let json = Shown { schema: 1, listed: Listed::new(&report, targets), policies: read.policies };
            let json = serde_json::to_string(&json).map_err(|error| damaged(&error))?;
            show(&format!("{json}\n"));
        }
        _ => show(&in_words(&report, &targets, &read.policies)),
    }
    Ok(Exit::Fine)
}

#[derive(Serialize)]
struct Shown<'r> {
    schema: u32,
    #[serde(flatten)]
    listed: Listed<'r>,
    policies: Vec<PolicyReport>,
}

fn in_words(report: &Outgoing, targets: &[TargetState], policies: &[PolicyReport]) -> String {
    let mut out = line(report);
    for target in targets {
        let (mark, word) = match target.reply {
            Reply::Accepted => (marks().fine, "accepted it"),
            Reply::Failed => (marks().warning, "failed"),
            Reply::Refused => (marks().error, "rejected it"),
        };
        let _ = writeln!(
            out,
            "  {mark} {} {word} at {:.0}: {}",
            shown(&target.target),
            target.at,
            shown(&target.reply_text)
        );
    }
    out + &policies_in_words(policies)
}
