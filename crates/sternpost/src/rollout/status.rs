//! `sternpost status`: where each domain stands, from what is remembered, without looking.

use super::Desk;
use super::desk::store_failure;
use crate::failure::{Exit, Failure};
use crate::terminal::show;
use receiver::domain::DomainSpec;
use receiver::rollout::Standing;
use receiver::rollout::gate::Gate;
use std::fmt::Write;
use std::path::Path;
use store::rollouts::JournalEntry;

/// Which domains.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Domains [default: all of the configuration]
    domains: Vec<String>,
    /// One line of JSON (docs/receiving.md)
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Status {
    domain: String,
    wanted: formats::Mode,
    #[serde(flatten)]
    standing: Standing,
    gate: Gate,
    journal: Vec<JournalEntry>,
}

/// Shows it.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let desk = Desk::open(named).await?;
    let mut all = Vec::new();
    for spec in desk.domains(&options.domains)? {
        all.push(of(&desk, &spec).await?);
    }
    desk.store.close().await;
    if options.json {
        show(&format!("{}\n", serde_json::json!({ "schema": 1, "domains": all })));
    } else {
        show(&all.iter().map(in_words).collect::<Vec<_>>().join("\n"));
    }
    Ok(Exit::Fine)
}

async fn of(desk: &Desk, spec: &DomainSpec) -> Result<Status, Failure> {
    let standing = desk.standing(&spec.name).await?;
    let (_, gate) = desk.gate(&spec.name, &standing).await?;
    let journal = desk.store.journal_of(&spec.name).await.map_err(|error| store_failure(&error))?;
    Ok(Status { domain: spec.name.to_string(), wanted: spec.mode, standing, gate, journal })
}

fn in_words(status: &Status) -> String {
    let mut out = String::new();
    let now = match status.standing.mode {
        Some(known) => format!("{} since {}", known.mode, known.since),
        None => "nothing of it was seen yet".to_owned(),
    };
    let _ = writeln!(out, "{}: {now}; wanted is {}", status.domain, status.wanted);
    let _ = writeln!(out, "  evidence: {}", status.gate);
    for promise in &status.standing.promises {
        let mx: Vec<String> = promise.mx.iter().map(ToString::to_string).collect();
        let until = promise.ends().map_or("while it is served".to_owned(), |end| format!("until {end}"));
        let _ = writeln!(out, "  senders may hold {} for {} {until}", promise.mode, mx.join(", "));
    }
    for line in &status.journal {
        let _ = writeln!(out, "  {} {}: {}", line.at, line.who, line.what);
    }
    out
}
