//! `sternpost query`: what a sender would do with mail for a domain now, and why.

use crate::control;
use crate::terminal::{say, show};
use crate::view::{Explained, Remembered};
use config::Config;
use config::failure::{Exit, Failure};
use operations::world::{World, domain};
use sender::answer::route::NextHop;
use sender::answer::{Answers, Discovery, Settings};
use std::fmt::Write;
use std::path::Path;
use store::Store;

/// What to ask about and how to say it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A mail domain, such as example.org
    domain: String,
    /// One line of JSON (docs/query.md)
    #[arg(long)]
    json: bool,
    /// Show each step of the look-up
    #[arg(long, conflicts_with = "cached")]
    trace: bool,
    /// Ask the running program what it remembers, instead of looking
    #[arg(long)]
    cached: bool,
}

/// Asks.
pub async fn run(options: &Options, config: Option<&Path>) -> Result<Exit, Failure> {
    let domain = domain(&options.domain)?;
    let config = Config::load(config)?;
    let hop = NextHop::Domain(domain);
    if options.cached {
        let known = control::show(&config.control(), &hop).await?;
        match options.json {
            true => say(&serde_json::to_string(&known).unwrap_or_default()),
            false => show(&remembered(&known)),
        }
        return Ok(Exit::Fine);
    }
    let told = explain(&config, &hop).await?;
    match options.json {
        true => say(&serde_json::to_string(&told).unwrap_or_default()),
        false => show(&in_words(&hop, &told, options.trace)),
    }
    Ok(if told.is_unknown { Exit::Unknown } else { Exit::Fine })
}

/// Looks up live, from an empty memory.
async fn explain(config: &Config, hop: &NextHop) -> Result<Explained, Failure> {
    let world = World::new(config)?;
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::new(
            "no temporary folder can be made",
            error,
            "Set TMPDIR to a folder that can be written to.",
        )
    })?;
    let store = Store::open(&folder.path().join("query.db"))
        .await
        .map_err(|error| Failure::new(format!("{hop} can't be looked up"), error, ""))?;
    let discovery =
        Discovery::new(world.dns.clone(), world.policies.clone(), store.clone(), world.clock.clone());
    let settings = config.answers.as_ref().map_or_else(Settings::default, |answers| answers.settings.clone());
    let answers = Answers::new(world.dns, discovery, store.clone(), world.clock, 1 << 16, settings);
    let told = Explained::of(hop, &answers.explain(hop).await);
    store.close().await;
    Ok(told)
}

fn in_words(hop: &NextHop, told: &Explained, trace: bool) -> String {
    let mut out = format!("{hop}: {}.\n", told.verdict);
    if trace {
        for (at, step) in told.steps.iter().enumerate() {
            let _ = writeln!(out, "  {}. {step}", at + 1);
        }
    }
    let _ = writeln!(out, "\n  Postfix is answered: {}", told.postfix);
    out
}

/// What is remembered, in words.
pub fn remembered(known: &Remembered) -> String {
    let mut out = format!("{}: decided by {}, looked at again ", known.next_hop, known.source);
    let _ = match known.recheck_in {
        0 => writeln!(out, "when it is next asked for"),
        u32::MAX => writeln!(out, "never"),
        seconds => writeln!(out, "in {seconds} s"),
    };
    if let Some(policy) = &known.policy {
        let _ = writeln!(out, "  policy: {} id {}, until {}", policy.mode, policy.id, policy.expires_at);
        policy.mx.iter().for_each(|mx| out.push_str(&format!("    mx {mx}\n")));
    }
    let _ = writeln!(out, "  Postfix is answered: {}", known.postfix);
    let _ = writeln!(out, "  with TLSRPT:         {}", known.postfix_tlsrpt);
    out
}
