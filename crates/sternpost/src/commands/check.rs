//! `sternpost check`: the preflight on a terminal, in a page, for programs, or for a list of domains.

mod bulk;
mod catalogue;
mod known;
mod text;
mod watch;

use crate::terminal::{say, show};
use check::render::forms::{self, PluginState, json};
use check::render::page;
use check::{Depth, Examination, Families, Severity};
use config::Config;
use config::failure::{Exit, Failure};
use formats::DomainName;
use jiff::Timestamp;
use known::Memory;
use operations::world::{Reach, World, domain};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use watch::Watch;

/// What to look at and how to say it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mail domains, such as example.org
    #[arg(required_unless_present_any = ["list", "explain", "from"])]
    domains: Vec<String>,
    /// Show evidence, and what is only for your information
    #[arg(long, short)]
    verbose: bool,
    /// One line of JSON a domain (docs/check.md); the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// How to say it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write a page for people to this file too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// From which findings on the exit code is 1
    #[arg(long, value_enum, default_value_t = FailOn::Error)]
    fail_on: FailOn,
    /// Look at many domains: one a line, from a file or from - (standard input)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domains", "html"])]
    from: Option<PathBuf>,
    /// With --from: write to this file, and leave out the domains that it has already
    #[arg(long, value_name = "FILE", requires = "from")]
    resume: Option<PathBuf>,
    /// With --from: how many domains at once
    #[arg(long, value_name = "N", default_value_t = 64, requires = "from", value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// One connection to each address, one answer to each question; the default with --from
    #[arg(long, conflicts_with = "deep")]
    quick: bool,
    /// With --from: look as deep as for a single domain
    #[arg(long, requires = "from")]
    deep: bool,
    /// Leave MX hosts alone, where the network blocks port 25
    #[arg(long)]
    skip_port_25: bool,
    /// Look at IPv4 addresses only
    #[arg(long, short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// Look at IPv6 addresses only
    #[arg(long, short = '6')]
    ipv6: bool,
    /// Ask these DNS servers, such as 9.9.9.9 or 127.0.0.1:5353 [default: of the configuration]
    #[arg(long, value_name = "ADDRESS", value_parser = server)]
    resolver: Vec<SocketAddr>,
    /// Trust the roots in this PEM file only [default: of the configuration]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Connect and ask from these addresses of this machine, one a family
    #[arg(long, value_name = "ADDRESS")]
    source: Vec<IpAddr>,
    /// Take this address of a host in place of those in DNS, such as mx2.example.org=192.0.2.7; again for more
    #[arg(long, value_name = "HOST=ADDRESS", value_parser = stated)]
    address: Vec<(DomainName, IpAddr)>,
    /// Wait so many seconds for one answer
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=300))]
    timeout: u16,
    /// Print the catalogue of checks and end
    #[arg(long, conflicts_with = "domains")]
    list: bool,
    /// Say what one check is about, such as STS-TXT-MISSING
    #[arg(long, value_name = "ID", conflicts_with = "domains")]
    explain: Option<String>,
}

/// How the outcome is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One line a domain
    Json,
    /// For CI: a test a check
    Junit,
    /// A plugin's line, with the exit codes of plugins: 0 fine, 1 warning, 2 critical, 3 unknown
    Nagios,
    /// Metrics, for a textfile collector
    Prometheus,
}

/// From which findings on the exit code is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Errors
    Error,
    /// Warnings and errors
    Warning,
    /// Nothing that is found
    Never,
}

/// Takes an address with or without a port.
fn server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    text.parse()
        .or_else(|_| bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)))
        .map_err(|_| "expected an address, such as 9.9.9.9 or 127.0.0.1:5353".to_owned())
}

/// Takes a host and its address.
fn stated(text: &str) -> Result<(DomainName, IpAddr), String> {
    let (host, address) = text.split_once('=').unwrap_or((text, ""));
    match (DomainName::parse(host), address.trim_matches(['[', ']']).parse()) {
        (Ok(host), Ok(address)) => Ok((host, address)),
        _ => Err("expected a host and its address, such as mx2.example.org=192.0.2.7".to_owned()),
    }
}

/// Looks at each domain in turn and prints what it finds as it ends.
pub async fn run(options: &Options, config: Option<&Path>) -> Result<Exit, Failure> {
    let format = if options.json { Format::Json } else { options.format };
    if options.list {
        catalogue::list(format == Format::Json);
        return Ok(Exit::Fine);
    }
    if let Some(id) = &options.explain {
        return catalogue::explain(id, format == Format::Json);
    }
    let mut config = Config::load(config)?;
    if !options.resolver.is_empty() {
        config.dns_servers.clone_from(&options.resolver);
    }
    config.ca_file = options.ca_file.clone().or(config.ca_file);
    let world = Arc::new(World::with(&config, &reach(options))?);
    let looks = check::Options {
        depth: match options.quick || options.from.is_some() && !options.deep {
            true => Depth::Quick,
            false => Depth::Full,
        },
        families: match (options.ipv4, options.ipv6) {
            (true, _) => Families::Ipv4,
            (_, true) => Families::Ipv6,
            _ => Families::Both,
        },
        skip_port_25: options.skip_port_25,
        ..world.looks(&config)
    };
    let checker = world.checker(&config, looks, options.from.is_some()).await?;
    if let Some(from) = &options.from {
        if !matches!(format, Format::Text | Format::Json) {
            return Err(Failure::usage(
                "this format is for single domains",
                "many domains are written as lines of JSON",
                "Leave --format out.",
            ));
        }
        let many = bulk::BulkCheck {
            from,
            resume: options.resume.as_deref(),
            concurrency: usize::from(options.concurrency),
        };
        return bulk::run(&many, Arc::new(checker), |seen| verdict(seen, options.fail_on)).await;
    }
    let domains = options.domains.iter().map(|typed| domain(typed)).collect::<Result<Vec<_>, _>>()?;
    let memory = Memory::open(config, world).await;
    let mut all = Vec::new();
    for domain in &domains {
        let begun = Instant::now();
        let watch = Watch::new(domain.as_str());
        let known = memory.recall(domain).await;
        let seen = checker.examine_with(domain, &known, &watch).await;
        watch.end();
        memory.keep(&seen).await;
        let took = begun.elapsed();
        match format {
            Format::Text => show(&text::whole(&seen, took, options.verbose)),
            Format::Json => say(&json(&seen)),
            Format::Nagios => say(&forms::nagios(&seen)),
            Format::Junit | Format::Prometheus => {}
        }
        all.push((seen, took));
    }
    let seen = || all.iter().map(|(seen, _)| seen);
    match format {
        Format::Junit => show(&forms::junit(seen(), options.fail_on == FailOn::Warning)),
        Format::Prometheus => show(&forms::prometheus(seen())),
        Format::Text | Format::Json | Format::Nagios => {}
    }
    if let Some(file) = &options.html {
        write_page(file, &all, memory.now())?;
    }
    Ok(match format {
        Format::Nagios => seen().map(plugin_exit).fold(Exit::Fine, worse),
        _ => seen().map(|seen| verdict(seen, options.fail_on)).fold(Exit::Fine, worse),
    })
}

fn reach(options: &Options) -> Reach {
    Reach {
        sources: options.source.clone(),
        addresses: options.address.clone(),
        time: Some(Duration::from_secs(u64::from(options.timeout))),
        max_ttl: Duration::from_secs(7 * 86_400),
    }
}

fn verdict(seen: &Examination, fail_on: FailOn) -> Exit {
    let has = |severity| seen.count(severity) > 0;
    match fail_on {
        _ if seen.is_blind() => Exit::Unknown,
        FailOn::Never => Exit::Fine,
        FailOn::Warning if has(Severity::Warning) => Exit::Findings,
        _ if has(Severity::Error) => Exit::Findings,
        _ => Exit::Fine,
    }
}

/// The exit code of a monitoring plugin: 0 OK, 1 warning, 2 critical, 3 unknown.
fn plugin_exit(seen: &Examination) -> Exit {
    match forms::plugin_state(seen) {
        PluginState::Ok => Exit::Fine,
        PluginState::Warning => Exit::Findings,
        PluginState::Critical => Exit::Usage,
        PluginState::Unknown => Exit::Unknown,
    }
}

fn write_page(file: &Path, all: &[(Examination, Duration)], now: Timestamp) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::usage(
            format!("{} can't be written", file.display()),
            error,
            "Name another file with --html.",
        )
    };
    let text = page::render(all, now).map_err(|error| fail(&error))?;
    std::fs::write(file, text).map_err(|error| fail(&error))
}

/// Findings are certain, so they outweigh what could not be told.
fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit| match exit {
        Exit::Fine => 0,
        Exit::Unknown => 1,
        Exit::Findings => 2,
        Exit::Usage => 3,
    };
    if rank(one) >= rank(other) { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_outweigh_what_could_not_be_told() {
        assert_eq!(worse(Exit::Unknown, Exit::Findings), Exit::Findings);
        assert_eq!(worse(Exit::Unknown, Exit::Fine), Exit::Unknown);
        assert_eq!(worse(Exit::Fine, Exit::Fine), Exit::Fine);
    }

    #[test]
    fn a_resolver_may_have_a_port_and_a_host_is_stated_with_its_address() {
        assert_eq!(server("9.9.9.9").unwrap().port(), 53);
        assert_eq!(server("127.0.0.1:5353").unwrap().port(), 5353);
        assert_eq!(server("2620:fe::fe").unwrap().port(), 53);
        assert_eq!(server("[2620:fe::fe]:5353").unwrap().port(), 5353);
        assert_eq!(stated("MX.example.org=[2001:db8::1]").unwrap().0.as_str(), "mx.example.org");
        for wrong in ["mx.example.org", "mx.example.org=", "=192.0.2.1", "mx.example.org=other"] {
            assert!(stated(wrong).is_err(), "{wrong}");
        }
        assert!(server("dns.example").unwrap_err().contains("9.9.9.9"));
    }
}
