//! `sternpost query`: prints what a sender would do with mail for a domain now, and why. By default it does a fresh
//! lookup with an empty store; with --cached it asks the running server.

use crate::control;
use crate::terminal::{say, show};
use crate::view::dane::{DaneHost, PostfixAlone, counts_in_words};
use crate::view::{Explained, Remembered};
use config::Config;
use config::failure::{Exit, Failure};
use net::dns::Dnssec;
use operations::world::{World, domain};
use sender::answer::decide::Source;
use sender::answer::maps::TLSRPT_SUFFIX;
use sender::answer::route::NextHop;
use sender::answer::{Discovery, PolicyService, Settings};
use std::fmt::Write;
use std::path::Path;
use store::Store;

/// The options of `sternpost query`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mail domain, such as example.org
    domain: String,
    /// Print one line of JSON (docs/query.md)
    #[arg(long)]
    json: bool,
    /// Show each step of the lookup
    #[arg(long, conflicts_with = "cached")]
    trace: bool,
    /// Show the running server's cached answer instead of doing a fresh lookup
    #[arg(long)]
    cached: bool,
    /// Answer with the settings of this socketmap name, [answers.maps.NAME]
    #[arg(long, value_name = "NAME", value_parser = control::map_name)]
    map: Option<String>,
}

/// Looks up the domain, or asks the running server, and prints the answer.
pub async fn run(options: &Options, config: Option<&Path>) -> Result<Exit, Failure> {
    let domain = domain(&options.domain)?;
    let config = Config::load_if_readable(config)?;
    let hop = NextHop::domain(domain);
    if options.cached {
        let known = control::show(&config.control(), &hop, options.map.as_deref()).await?;
        match options.json {
            true => say(&serde_json::to_string(&known).unwrap_or_default()),
            false => show(&remembered(&known)),
        }
        return Ok(Exit::Fine);
    }
    let explained = explain(&config, &hop, options.map.as_deref()).await?;
    match options.json {
        true => say(&serde_json::to_string(&explained).unwrap_or_default()),
        false => show(&in_words(&hop, &explained, options.trace)),
    }
    Ok(if explained.is_unknown { Exit::Unknown } else { Exit::Fine })
}

/// Does a fresh lookup, with an empty store and cache.
async fn explain(config: &Config, hop: &NextHop, map: Option<&str>) -> Result<Explained, Failure> {
    let world = World::new(config)?;
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::new("can't create a temporary folder", error, "Set TMPDIR to a writable folder.")
    })?;
    let store = Store::open(&folder.path().join("query.db"), store::Tenant::FIRST)
        .await
        .map_err(|error| Failure::new(format!("{hop} can't be looked up"), error, ""))?;
    let discovery =
        Discovery::new(world.dns.clone(), world.policies.clone(), store.clone(), world.clock.clone());
    let settings = settings(config, map);
    let (dns, clock) = (world.dns.clone(), world.clock.clone());
    let answers = PolicyService::new(dns, discovery, store.clone(), clock, 1 << 16, settings);
    let looked = answers.explain(hop).await;
    store.close().await;
    if looked.source == Source::Failure {
        // Behind a resolver that strips DNSSEC records, every domain would seem broken.
        world.check_dnssec().await?;
    }
    Ok(Explained::of(hop, &looked, config.dnssec != Dnssec::Off))
}

/// The settings for a socketmap name: those of its table, or else of `[answers]`.
fn settings(config: &Config, map: Option<&str>) -> Settings {
    let Some(answers) = &config.answers else { return Settings::default() };
    let name = map.map(|map| map.strip_suffix(TLSRPT_SUFFIX).unwrap_or(map));
    name.and_then(|name| answers.maps.get(name)).unwrap_or(&answers.settings).clone()
}

fn in_words(hop: &NextHop, explained: &Explained, trace: bool) -> String {
    let mut out = format!("{hop}: {}.\n", explained.verdict);
    if trace {
        for (at, step) in explained.steps.iter().enumerate() {
            let _ = writeln!(out, "  {}. {step}", at + 1);
        }
    }
    out.push_str(&dane_in_words(&explained.dane));
    for note in &explained.notes {
        let _ = writeln!(out, "\n  {}.\n    {}\n    Remedy: {}", note.finding, note.consequence, note.remedy);
    }
    let _ = writeln!(out, "\n  Reply to Postfix: {}", explained.postfix);
    let _ = writeln!(out, "  with TLSRPT:      {}", explained.postfix_tlsrpt);
    out.push_str(&alone_in_words(explained.postfix_alone.as_ref()));
    out
}

/// The hosts that DANE does not authenticate, with consequence and remedy; hosts with the same reason together.
fn dane_in_words(hosts: &[DaneHost]) -> String {
    let mut out = String::new();
    let mut told = Vec::new();
    for host in hosts.iter().filter(|host| host.reason.is_some()) {
        if told.contains(&host.reason) {
            continue;
        }
        told.push(host.reason);
        let others = hosts.iter().filter(|other| other.reason == host.reason).count() - 1;
        let others = match others {
            0 => String::new(),
            number => format!(" (as at {})", formats::counted::counted(number, "more host")),
        };
        let _ = writeln!(
            out,
            "\n  DANE at {} {}{others}.\n    {}\n    Remedy: {}",
            host.host, host.state, host.consequence, host.remedy
        );
    }
    out
}

fn alone_in_words(alone: Option<&PostfixAlone>) -> String {
    alone.map_or_else(String::new, |alone| {
        format!("  Postfix alone, level may:  {}\n  Postfix alone, level dane: {}\n", alone.may, alone.dane)
    })
}

/// Formats the running server's answer as text.
pub fn remembered(known: &Remembered) -> String {
    let mut out = format!("{}: decided by {}, looked up again ", known.next_hop, known.source);
    let _ = match known.recheck_in {
        0 => writeln!(out, "at the next query"),
        u32::MAX => writeln!(out, "never"),
        seconds => writeln!(out, "in {seconds} s"),
    };
    if let Some(policy) = &known.policy {
        let _ = writeln!(out, "  policy: {} id {}, until {}", policy.mode, policy.id, policy.expires_at);
        policy.mx.iter().for_each(|mx| out.push_str(&format!("    mx {mx}\n")));
        if let Some(published) = policy.max_age_published {
            let _ = writeln!(
                out,
                "    max_age {published} exceeds the maximum; the policy expires {} s after its fetch (RFC 8461 §3.2)",
                policy.max_age
            );
        }
    }
    let _ = writeln!(out, "  {}", counts_in_words(&known.dane));
    let _ = writeln!(out, "  Reply to Postfix: {}", known.postfix);
    let _ = writeln!(out, "  with TLSRPT:      {}", known.postfix_tlsrpt);
    out.push_str(&alone_in_words(known.postfix_alone.as_ref()));
    if known.source != Source::Test.as_str() && !known.next_hop.contains(['[', ':']) {
        let _ = writeln!(out, "  The reason for each MX host: sternpost query --trace {}", known.next_hop);
    }
    out
}
