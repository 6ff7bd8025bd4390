//! `sternpost domains`: domains that are kept in the store, beside those of the configuration file.

use crate::terminal::{marks, say, show};
use clap::ValueEnum;
use config::failure::{Exit, Failure};
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Mode, MxPattern};
use operations::promotion::OPERATOR;
use operations::world::domain;
use operations::{Removal, RolloutContext};
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::publish::alias_lines;
use std::fmt::Write;
use std::path::Path;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a domain; `apply` then brings it to what is wanted
    Add(Change),
    /// List all domains, those of the configuration file too
    List {
        /// One line of JSON, with what is wanted of each
        #[arg(long)]
        json: bool,
    },
    /// Show what is wanted of a domain, as JSON
    Show {
        /// The domain
        domain: String,
    },
    /// Change what is wanted of a domain; what is not named stays
    Set(Change),
    /// Forget a domain that has retired
    Remove {
        /// The domain
        domain: String,
        /// Also when senders may still hold a policy of it
        #[arg(long)]
        although_bound: bool,
    },
}

/// What is wanted of a domain.
#[derive(Debug, clap::Args)]
pub struct Change {
    /// The domain
    domain: String,
    /// Where it is to end up [default: enforce]
    #[arg(long, value_enum)]
    mode: Option<TypedMode>,
    /// An MX host or pattern; once for each [default: as DNS shows them]
    #[arg(long, value_name = "HOST")]
    mx: Vec<String>,
    /// Who serves the policy [default: static; self where it is delegated]
    #[arg(long, value_enum)]
    host: Option<TypedHost>,
    /// Who changes DNS: manual, rfc2136:NAME, or a provider such as cloudflare:NAME [default: manual]
    #[arg(long, value_name = "WHO")]
    dns: Option<String>,
    /// Where reports go; once for each
    #[arg(long, value_name = "URI")]
    rua: Vec<String>,
    /// Seconds for which senders keep the policy while it is tested [default: 86400]
    #[arg(long, value_name = "SECONDS")]
    max_age_testing: Option<u32>,
    /// Seconds for which senders keep the enforced policy [default: 604800]
    #[arg(long, value_name = "SECONDS")]
    max_age_enforce: Option<u32>,
    /// Its owner makes three names aliases into the zone of 'delegation.zone', and nothing more is needed of him
    #[arg(long)]
    delegated: bool,
    /// The guard may widen the policy by itself
    #[arg(long)]
    repair: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TypedMode {
    Enforce,
    Testing,
    None,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TypedHost {
    #[value(name = "self")]
    Sternpost,
    Static,
    Elsewhere,
}

/// Does it.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(named).await?;
    match command {
        Command::Add(change) => add(&context, change).await?,
        Command::List { json } => list(&context, *json),
        Command::Show { domain } => show_one(&context, domain)?,
        Command::Set(change) => set(&context, change).await?,
        Command::Remove { domain, although_bound } => remove(&context, domain, *although_bound).await?,
    }
    context.store.close().await;
    Ok(Exit::Fine)
}

async fn add(context: &RolloutContext, change: &Change) -> Result<(), Failure> {
    let name = domain(&change.domain)?;
    if context.known.iter().any(|spec| spec.name == name) {
        let place =
            if context.is_in_file(&name) { "the configuration file has it" } else { "it was added before" };
        let remedy = format!("A domain stands in one place only. Look at it: sternpost domains show {name}");
        return Err(Failure::usage(format!("{name} is there already"), place, remedy));
    }
    let spec = DomainSpec::new(name);
    let spec = changed(spec, change)?;
    context.keep(&spec, OPERATOR).await?;
    say(&format!("{} {} is added.", marks().fine, spec.name));
    let aliases = context.wanted(&spec).aliases().unwrap_or_default();
    if !aliases.is_empty() {
        say(&format!("  The owner of {} puts this into its zone, once and for all:", spec.name));
    }
    for line in alias_lines(&aliases) {
        say(&format!("    {line}"));
    }
    say(&format!("  Bring it to what is wanted: sternpost apply {}", spec.name));
    Ok(())
}

async fn set(context: &RolloutContext, change: &Change) -> Result<(), Failure> {
    let name = domain(&change.domain)?;
    let spec = kept(context, &name)?;
    let spec = changed(spec, change)?;
    context.keep(&spec, OPERATOR).await?;
    say(&format!(
        "{} {} is changed. See what follows: sternpost plan {}",
        marks().fine,
        spec.name,
        spec.name
    ));
    Ok(())
}

async fn remove(context: &RolloutContext, text: &str, although_bound: bool) -> Result<(), Failure> {
    let name = domain(text)?;
    kept(context, &name)?;
    let removal = if although_bound { Removal::AlthoughBound } else { Removal::Free };
    context.remove(&name, removal, OPERATOR).await?;
    say(&format!("{} {name} is removed. Its journal stays.", marks().fine));
    Ok(())
}

/// A domain of the store; one of the file is changed there.
fn kept(context: &RolloutContext, name: &DomainName) -> Result<DomainSpec, Failure> {
    context.only_in_store(name)?;
    context.find(name)
}

fn list(context: &RolloutContext, json: bool) {
    if json {
        let all: Vec<_> = context
            .known
            .iter()
            .map(|spec| serde_json::json!({ "in_file": context.is_in_file(&spec.name), "wanted": spec }))
            .collect();
        return show(&format!("{}\n", serde_json::json!({ "schema": 1, "domains": all })));
    }
    let mut out = String::new();
    for spec in &context.known {
        let place = if context.is_in_file(&spec.name) { "file" } else { "store" };
        let _ = writeln!(out, "{:<40} {:<8} {place}", spec.name, spec.mode);
    }
    if context.known.is_empty() {
        out.push_str("No domains yet. Add one: sternpost domains add example.org\n");
    }
    show(&out);
}

fn show_one(context: &RolloutContext, text: &str) -> Result<(), Failure> {
    let spec = context.find(&domain(text)?)?;
    show(&format!(
        "{}\n",
        serde_json::json!({ "schema": 1, "in_file": context.is_in_file(&spec.name), "wanted": spec })
    ));
    Ok(())
}

fn changed(mut spec: DomainSpec, change: &Change) -> Result<DomainSpec, Failure> {
    if let Some(mode) = change.mode {
        spec.mode = match mode {
            TypedMode::Enforce => Mode::Enforce,
            TypedMode::Testing => Mode::Testing,
            TypedMode::None => Mode::None,
        };
    }
    spec.delegated |= change.delegated;
    if change.delegated {
        spec.host = HostedBy::Sternpost;
    }
    if let Some(host) = change.host {
        spec.host = match host {
            TypedHost::Sternpost => HostedBy::Sternpost,
            TypedHost::Static => HostedBy::Static,
            TypedHost::Elsewhere => HostedBy::Elsewhere,
        };
    }
    spec.repair |= change.repair;
    if let Some(dns) = &change.dns {
        spec.dns = DnsBy::parse(dns).map_err(|why| wrong("--dns", dns, why))?;
    }
    if !change.mx.is_empty() {
        let parse = |text: &String| MxPattern::parse(text).map_err(|why| wrong("--mx", text, why));
        spec.mx = change.mx.iter().map(parse).collect::<Result<_, _>>()?;
    }
    if !change.rua.is_empty() {
        let parse = |text: &String| match Rua::parse(text) {
            Ok(Some(rua)) => Ok(rua),
            Ok(None) => Err(wrong("--rua", text, "reports go to mailto: or https:")),
            Err(why) => Err(wrong("--rua", text, why)),
        };
        spec.rua = change.rua.iter().map(parse).collect::<Result<_, _>>()?;
    }
    for (typed, seconds) in [
        (change.max_age_testing, &mut spec.max_age.testing),
        (change.max_age_enforce, &mut spec.max_age.enforce),
    ] {
        *seconds = typed.unwrap_or(*seconds);
    }
    let most = formats::limits::MAX_AGE_SECONDS;
    if [spec.max_age.testing, spec.max_age.enforce].iter().any(|seconds| !(1..=most).contains(seconds)) {
        return Err(wrong("--max-age-…", "", format!("a max_age is 1 to {most} seconds")));
    }
    Ok(spec)
}

fn wrong(option: &str, text: &str, why: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{option} {text}"), why, "See: sternpost domains add --help")
}
