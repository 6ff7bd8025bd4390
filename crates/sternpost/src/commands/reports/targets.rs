//! `sternpost reports targets`: shows where reports about a domain go, and which rule of `[[reporter.targets]]` decides.

use crate::serve::reporting::scheduler;
use crate::terminal::{say, show};
use config::Chosen;
use config::failure::{Exit, Failure};
use operations::RolloutContext;
use sender::report::{TargetPlan, is_denied};
use serde_json::json;
use std::fmt::Write as _;

/// The options of `sternpost reports targets`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Domain that the reports are about
    domain: String,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Looks the record up and applies the rules to it.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let domain = operations::world::domain(&options.domain)?;
    let context = RolloutContext::open(chosen).await?;
    let role = super::reporter(&context.config)?;
    let delivery = scheduler(role, &context.store, &context.world)?.delivery;
    let plan = delivery.targets(&domain, None).await;
    context.store.close().await;
    let plan = plan.map_err(|error| {
        Failure::new(format!("the lookup of _smtp._tls.{domain}"), error, "Try again later.")
    })?;
    let denied: Vec<bool> =
        plan.targets.iter().map(|planned| is_denied(&planned.target, &role.denied)).collect();
    match options.json {
        true => say(&as_json(&plan, &denied).to_string()),
        false => show(&in_words(domain.as_str(), &plan, &denied)),
    }
    Ok(Exit::Fine)
}

fn as_json(plan: &TargetPlan, denied: &[bool]) -> serde_json::Value {
    let targets = plan.targets.iter().zip(denied).map(|(planned, denied)| {
        json!({ "target": planned.target.to_string(), "copy": planned.is_copy, "rule": planned.rule, "denied": denied })
    });
    let removed =
        plan.removed.iter().map(|(target, rule)| json!({ "target": target.to_string(), "rule": rule }));
    json!({
        "schema": 1, "wanted": plan.is_wanted,
        "targets": targets.collect::<Vec<_>>(), "removed": removed.collect::<Vec<_>>(),
    })
}

fn in_words(domain: &str, plan: &TargetPlan, denied: &[bool]) -> String {
    if !plan.is_wanted {
        return format!("{domain} requests no reports, and no rule sends them.\n");
    }
    let mut out = String::new();
    for (planned, denied) in plan.targets.iter().zip(denied) {
        let kind = if planned.is_copy { "copy to" } else { "send to" };
        let rule = planned.rule.as_deref().unwrap_or("the domain's record");
        let denied = if *denied { "; not sent: reporter.deny lists the host" } else { "" };
        let _ = writeln!(out, "{kind} {}  ({rule}{denied})", planned.target);
    }
    for (target, rule) in &plan.removed {
        let _ = writeln!(out, "not to  {target}  ({rule})");
    }
    if plan.targets.is_empty() {
        let _ = writeln!(out, "No report is sent: {}.", plan.without_target());
    }
    out
}
