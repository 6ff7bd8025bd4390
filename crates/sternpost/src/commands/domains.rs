//! `sternpost domains`: adds, lists, changes and removes domains in the store. Domains in the configuration file are
//! listed too, but can only be changed there. `sternpost apply` then brings a domain to its desired state.

use crate::terminal::{marks, say, show};
use clap::ValueEnum;
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Mode, MxPattern};
use net::dns::DnsError;
use operations::promotion::OPERATOR;
use operations::world::domain;
use operations::{Removal, RolloutContext};
use receiver::domain::{DnsBy, DomainSpec, HostedBy, Tag};
use receiver::host::order::ChallengeType;
use receiver::publish::alias_lines;
use receiver::rollout::{LookupError, mail_hosts};
use std::fmt::Write;
use std::time::Duration;

/// The subcommands of `sternpost domains`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a domain; `sternpost apply` then brings it to the desired state
    #[command(
        after_help = "Example:\n  sternpost domains add example.org --mx mx1.example.org --rua mailto:tlsrpt@example.org"
    )]
    Add(Change),
    /// List all domains, including those in the configuration file
    #[command(after_help = "Example:\n  sternpost domains list --json")]
    List {
        /// Print one line of JSON, with the settings of each domain
        #[arg(long)]
        json: bool,
    },
    /// Show the settings of a domain, as JSON
    #[command(after_help = "Example:\n  sternpost domains show example.org")]
    Show {
        /// Mail domain, such as example.org
        domain: String,
    },
    /// Change the settings of a domain; unnamed settings are kept
    #[command(after_help = "Example:\n  sternpost domains set example.org --mode enforce")]
    Set(Change),
    /// Remove a domain that is no longer used for mail
    #[command(after_help = "Example:\n  sternpost domains remove example.org")]
    Remove {
        /// Mail domain, such as example.org
        domain: String,
        /// Remove it even if senders may still have its policy in their caches
        #[arg(long)]
        although_bound: bool,
    },
}

/// The settings of a domain, as `add` and `set` take them.
#[derive(Debug, clap::Args)]
pub struct Change {
    /// Mail domain, such as example.org
    domain: String,
    /// Desired mode of the policy [a new domain: enforce]
    #[arg(long, value_enum)]
    mode: Option<TypedMode>,
    /// MX host or pattern in the policy; repeatable. --mx '' stands for the MX hosts in DNS [a new domain: those in DNS]
    #[arg(long, value_name = "HOST")]
    mx: Vec<String>,
    /// Where the policy is served [a new domain: static; self with --delegated]
    #[arg(long, value_enum)]
    host: Option<TypedHost>,
    /// How DNS is changed: manual, rfc2136:NAME, or a provider such as cloudflare:NAME [a new domain: manual]
    #[arg(long, value_name = "WHO")]
    dns: Option<String>,
    /// Report address (mailto: or https:); repeatable. --rua '' leaves the record alone
    #[arg(long, value_name = "URI")]
    rua: Vec<String>,
    /// Policy lifetime (max_age) in testing, in seconds [a new domain: 86400]
    #[arg(long, value_name = "SECONDS")]
    max_age_testing: Option<u32>,
    /// Policy lifetime (max_age) in enforce mode, in seconds [a new domain: 604800]
    #[arg(long, value_name = "SECONDS")]
    max_age_enforce: Option<u32>,
    /// The owner points three CNAMEs at the zone in 'delegation.zone'; the owner needs to do nothing else. =false ends it
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    delegated: Option<bool>,
    /// How the CA validates the policy host: http-01, tls-alpn-01, dns-01 or dns-persist-01. --challenge '' leaves it to
    /// the settings of the CA
    #[arg(long, value_name = "TYPE")]
    challenge: Option<String>,
    /// The guard may add MX hosts to the policy automatically. =false ends it
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    repair: Option<bool>,
    /// Enforce the policy as soon as the evidence is sufficient, without `sternpost promote`. =false ends it
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    auto_promote: Option<bool>,
    /// Word by which the dashboard filters domains, such as a customer; repeatable. --tag '' removes all
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
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

/// Runs the subcommand on the store.
pub async fn run(command: &Command, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = match command {
        Command::List { .. } | Command::Show { .. } => RolloutContext::open_to_show(chosen).await?,
        Command::Add(_) | Command::Set(_) | Command::Remove { .. } => RolloutContext::open(chosen).await?,
    };
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
            if context.is_in_file(&name) { "it is in the configuration file" } else { "it is in the store" };
        let remedy =
            format!("A domain can be configured in one place only. Show it: sternpost domains show {name}");
        return Err(Failure::usage(format!("{name} already exists"), place, remedy));
    }
    let spec = changed(context.config.new_domain(name), change)?;
    context.keep(&spec, OPERATOR).await?;
    say(&format!("{} {} is added.", marks().fine, spec.name));
    if let Some(doubt) = doubt(context, &spec.name).await {
        say(&format!("{} {}", marks().warning, doubt.replace('\n', "\n    ")));
    }
    let aliases = context.delegated_names(&spec);
    if !aliases.is_empty() {
        say(&format!("  The owner of {} publishes this in its zone, once:", spec.name));
    }
    for line in alias_lines(&aliases) {
        say(&format!("    {line}"));
    }
    if let Some(missing) = context.known_ownership(&spec.name).await?.missing() {
        say(&format!("  {}", missing.in_words()));
    }
    let of_tenant = context.tenant.name_if_further().map(|name| format!(" --tenant {name}"));
    say(&format!(
        "  Bring it to the desired state: sternpost apply{} {}",
        of_tenant.unwrap_or_default(),
        spec.name
    ));
    Ok(())
}

/// The time limit for observing a new domain.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a domain that was just added looks like a typing error; `None` if DNS has MX hosts for it, or does not answer.
async fn doubt(context: &RolloutContext, name: &DomainName) -> Option<String> {
    let dns = context.world.addresses.as_ref();
    let found = tokio::time::timeout(LOOK_TIMEOUT, mail_hosts(dns, name)).await.ok()?;
    match found {
        Ok(hosts) => hosts.why_none.map(|why| format!("{}.\n{}", why.what(name), why.remedy())),
        Err(LookupError { error: error @ DnsError::ServerFailure(_), .. }) => Some(format!(
            "{name} can't be looked up: {error}.\nCheck the spelling, and the name servers of the domain."
        )),
        Err(_) => None,
    }
}

async fn set(context: &RolloutContext, change: &Change) -> Result<(), Failure> {
    let name = domain(&change.domain)?;
    let spec = kept(context, &name)?;
    let spec = changed(spec, change)?;
    context.keep(&spec, OPERATOR).await?;
    say(&format!("{} {} is changed. Show the steps: sternpost plan {}", marks().fine, spec.name, spec.name));
    Ok(())
}

async fn remove(context: &RolloutContext, text: &str, although_bound: bool) -> Result<(), Failure> {
    let name = domain(text)?;
    let is_damaged = context.damaged.iter().any(|(damaged, _)| damaged == name.as_str());
    if !is_damaged {
        kept(context, &name)?;
    }
    let removal = if although_bound { Removal::AlthoughBound } else { Removal::Free };
    context.remove(&name, removal, OPERATOR).await?;
    say(&format!("{} {name} is removed. Its journal is kept.", marks().fine));
    Ok(())
}

/// Finds a domain that is in the store. Fails for a domain in the configuration file, which is changed there.
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
        let damaged: Vec<_> = context
            .damaged
            .iter()
            .map(|(name, why)| serde_json::json!({ "name": name, "why": why }))
            .collect();
        return show(&format!(
            "{}\n",
            serde_json::json!({ "schema": 1, "domains": all, "damaged": damaged })
        ));
    }
    let mut out = String::new();
    if !context.known.is_empty() {
        let _ = writeln!(out, "{:<40} {:<8} KEPT IN", "DOMAIN", "DESIRED");
    }
    for spec in &context.known {
        let place = if context.is_in_file(&spec.name) { "file" } else { "store" };
        let _ = writeln!(out, "{:<40} {:<8} {place}", spec.name, spec.mode);
    }
    for (name, why) in &context.damaged {
        let _ = writeln!(out, "{} {name}: its settings can't be read: {why}", marks().error);
    }
    if context.known.is_empty() && context.damaged.is_empty() {
        let _ = writeln!(
            out,
            "No domains yet, in {}. Add one: sternpost domains add example.org",
            context.config.origins()
        );
    } else {
        out.push_str("\nDESIRED is the mode that is wanted. `sternpost status --brief` shows the one that senders see.\n");
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
    spec.delegated = change.delegated.unwrap_or(spec.delegated);
    if change.delegated == Some(true) {
        spec.host = HostedBy::Sternpost;
    }
    if let Some(host) = change.host {
        spec.host = match host {
            TypedHost::Sternpost => HostedBy::Sternpost,
            TypedHost::Static => HostedBy::Static,
            TypedHost::Elsewhere => HostedBy::Elsewhere,
        };
    }
    if let Some(text) = &change.challenge {
        let parse = || {
            ChallengeType::parse(text).ok_or_else(|| {
                wrong("--challenge", text, "it is none of http-01, tls-alpn-01, dns-01 and dns-persist-01")
            })
        };
        spec.challenge = if text.is_empty() { None } else { Some(parse()?) };
    }
    spec.repair = change.repair.unwrap_or(spec.repair);
    spec.auto_promote = change.auto_promote.unwrap_or(spec.auto_promote);
    if !change.tag.is_empty() {
        let named = change.tag.iter().map(String::as_str).filter(|tag| !tag.is_empty());
        spec.tags = Tag::parse_all(named).map_err(|why| wrong("--tag", &change.tag.join(" "), why))?;
    }
    if let Some(dns) = &change.dns {
        spec.dns = DnsBy::parse(dns).map_err(|why| wrong("--dns", dns, why))?;
    }
    if !change.mx.is_empty() {
        let parse = |text: &String| MxPattern::parse(text).map_err(|why| wrong("--mx", text, why));
        spec.mx = change.mx.iter().filter(|text| !text.is_empty()).map(parse).collect::<Result<_, _>>()?;
    }
    if !change.rua.is_empty() {
        let parse = |text: &String| match Rua::parse(text) {
            Ok(Some(rua)) => Ok(rua),
            Ok(None) => Err(wrong("--rua", text, "only mailto: and https: are supported")),
            Err(why) => Err(wrong("--rua", text, why)),
        };
        spec.rua = change.rua.iter().filter(|text| !text.is_empty()).map(parse).collect::<Result<_, _>>()?;
    }
    for (typed, seconds) in [
        (change.max_age_testing, &mut spec.max_age.testing),
        (change.max_age_enforce, &mut spec.max_age.enforce),
    ] {
        *seconds = typed.unwrap_or(*seconds);
    }
    let most = formats::limits::MAX_AGE_SECONDS;
    if [spec.max_age.testing, spec.max_age.enforce].iter().any(|seconds| !(1..=most).contains(seconds)) {
        return Err(wrong("--max-age-…", "", format!("max_age must be 1 to {most} seconds")));
    }
    Ok(spec)
}

fn wrong(option: &str, text: &str, why: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{option} {text}"), why, "See: sternpost domains add --help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        change: Change,
    }

    fn after(spec: DomainSpec, words: &[&str]) -> DomainSpec {
        let line = Line::try_parse_from([&["set", "example.org"][..], words].concat()).unwrap();
        changed(spec, &line.change).unwrap()
    }

    #[test]
    fn every_setting_can_be_switched_on_and_off_and_the_others_are_kept() {
        let new = || DomainSpec::new(DomainName::parse("example.org").unwrap());
        assert_eq!(after(new(), &[]), new());
        let on = [
            "--repair",
            "--delegated",
            "--auto-promote",
            "--mx",
            "mx.example.org",
            "--rua",
            "mailto:a@example.org",
            "--tag",
            "shop",
        ];
        let all = after(new(), &on);
        assert!(all.repair && all.delegated && all.auto_promote && all.host == HostedBy::Sternpost);
        assert_eq!((all.mx.len(), all.rua.len(), all.tags.len()), (1, 1, 1));
        assert_eq!(after(all.clone(), &[]), all);
        let off = [
            "--repair=false",
            "--delegated=false",
            "--auto-promote=false",
            "--mx",
            "",
            "--rua",
            "",
            "--tag",
            "",
            "--host",
            "static",
        ];
        assert_eq!(after(all.clone(), &off), new());
        assert!(after(all, &["--repair=false"]).auto_promote);
    }
}
