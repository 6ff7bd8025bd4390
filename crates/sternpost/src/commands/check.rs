//! `sternpost check`: examines domains with the crate `check` and prints the findings as text, JSON, JUnit, Nagios or
//! Prometheus output, or as an HTML page. `bulk` checks a list of domains, `known` adds what the store knows of a
//! domain, `text` formats the findings for a terminal, and `watch` shows progress.

mod bulk;
mod catalogue;
mod estimate;
pub mod known;
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
use net::dns::SystemServers;
use net::dns::batch::BatchConfig;
use operations::world::{Reach, World, domain};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use watch::Watch;

/// The options of `sternpost check`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<CheckCommand>,
    /// Mail domains, such as example.org
    #[arg(required_unless_present_any = ["list", "explain", "from"])]
    domains: Vec<String>,
    /// Show the evidence, and informational findings
    #[arg(long, short)]
    verbose: bool,
    /// Print one line of JSON for each domain (docs/check.md); same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Also write an HTML page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Lowest severity of findings for exit code 1
    #[arg(long, value_enum, default_value_t = FailOn::Error)]
    fail_on: FailOn,
    /// Check the domains in this file, one on each line; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domains", "html"])]
    from: Option<PathBuf>,
    /// With --from: append the results to this file; domains that it has already are skipped
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with = "domains")]
    resume: Option<PathBuf>,
    /// With --from: number of domains to check at the same time
    #[arg(long, value_name = "N", default_value_t = 64, requires = "from", conflicts_with = "domains", value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// With --from: check all domains, also those without MTA-STS and TLS reports
    #[arg(long, requires = "from", conflicts_with_all = ["domains", "dane", "in_flight", "query_rate"])]
    all: bool,
    /// With --from: also check domains whose MX hosts have TLSA records
    #[arg(long, requires = "from", conflicts_with = "domains")]
    dane: bool,
    /// With --from: DNS queries of the first pass that wait for a response at a time
    #[arg(long, value_name = "N", default_value_t = 100, requires = "from", conflicts_with = "domains", value_parser = clap::value_parser!(u16).range(1..=16_384))]
    in_flight: u16,
    /// With --from: DNS queries a second of the first pass at most [default: no limit]
    #[arg(long, value_name = "N", requires = "from", conflicts_with = "domains")]
    query_rate: Option<NonZeroU32>,
    /// With --from: check only this part of the domains, such as 3/16
    #[arg(long, value_name = "PART/PARTS", requires = "from", conflicts_with = "domains")]
    shard: Option<bulk::Shard>,
    /// With --from: print how many domains have each finding and cause, in place of the results
    #[arg(long, requires = "from", conflicts_with = "domains")]
    summary: bool,
    /// With --from: print what changed since the results in this file, in place of the results
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with = "domains")]
    since: Option<PathBuf>,
    /// With --from: the former MX hosts of the domains, such as example.org,mx.old.example,2026-05-31 on each line, or earlier results
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with = "domains")]
    history: Option<PathBuf>,
    /// With --from: also write the counts to this folder as a page with charts (docs/check.md)
    #[arg(long, value_name = "DIR", requires = "from", conflicts_with = "domains")]
    report: Option<PathBuf>,
    /// Check faster: one connection to each address, one DNS query for each record (implied by --from)
    #[arg(long, conflicts_with = "deep")]
    quick: bool,
    /// With --from: check as thoroughly as a single domain
    #[arg(long, requires = "from", conflicts_with = "domains")]
    deep: bool,
    /// Do not connect to MX hosts, for networks that block port 25
    #[arg(long)]
    skip_port_25: bool,
    /// Check IPv4 addresses only
    #[arg(long, short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// Check IPv6 addresses only
    #[arg(long, short = '6')]
    ipv6: bool,
    /// Query this DNS server, such as 9.9.9.9 or 127.0.0.1:5353; repeatable [default: from the configuration]
    #[arg(long, value_name = "ADDRESS", value_parser = server)]
    resolver: Vec<SocketAddr>,
    /// Trust only the CA certificates in this PEM file [default: from the configuration]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Local source address for connections and queries; one for each address family
    #[arg(long, value_name = "ADDRESS")]
    source: Vec<IpAddr>,
    /// Use this address of a host instead of those in DNS, such as mx2.example.org=192.0.2.7; repeatable
    #[arg(long, value_name = "HOST=ADDRESS", value_parser = host_address)]
    address: Vec<(DomainName, IpAddr)>,
    /// Seconds to wait for each response
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=300))]
    timeout: u16,
    /// Estimate what a test site says about each domain; --json prints one line of JSON for each
    #[arg(long, value_enum, value_name = "SITE", conflicts_with_all = ["from", "format"])]
    profile: Option<Profile>,
    /// List all checks
    #[arg(long, conflicts_with = "domains")]
    list: bool,
    /// Explain a check, such as STS-TXT-MISSING
    #[arg(long, value_name = "ID", conflicts_with = "domains")]
    explain: Option<String>,
}

/// The subcommands of `sternpost check`.
#[derive(Debug, clap::Subcommand)]
enum CheckCommand {
    /// Join results of `check --from` into one list, with one result for each name
    #[command(after_help = "Example:\n  sternpost check merge part-1.jsonl part-2.jsonl")]
    Merge {
        /// Files with results; of several results for a name, the first is used
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Print how many domains have each finding and cause, in place of the results
        #[arg(long)]
        summary: bool,
        /// With --summary: print one line of JSON
        #[arg(long, requires = "summary")]
        json: bool,
        /// Write the counts to this folder as a page with charts (docs/check.md), in place of the results
        #[arg(long, value_name = "DIR")]
        report: Option<PathBuf>,
    },
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Text for terminals
    Text,
    /// One line of JSON for each domain
    Json,
    /// JUnit XML for CI: a test case for each check
    Junit,
    /// Nagios plugin output, with its exit codes: 0 OK, 1 warning, 2 critical, 3 unknown
    Nagios,
    /// Metrics for Prometheus' textfile collector
    Prometheus,
}

/// A test site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Profile {
    /// The mail test of Internet.nl
    InternetNl,
}

/// The lowest severity of findings for exit code 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Errors only
    Error,
    /// Warnings and errors
    Warning,
    /// Findings do not change the exit code
    Never,
}

/// Parses the address of a DNS server; the port defaults to 53.
fn server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    text.parse()
        .or_else(|_| bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)))
        .map_err(|_| "expected an address, such as 9.9.9.9 or 127.0.0.1:5353".to_owned())
}

/// Parses `HOST=ADDRESS`.
fn host_address(text: &str) -> Result<(DomainName, IpAddr), String> {
    let (host, address) = text.split_once('=').unwrap_or((text, ""));
    match (DomainName::parse(host), address.trim_matches(['[', ']']).parse()) {
        (Ok(host), Ok(address)) => Ok((host, address)),
        _ => Err("expected HOST=ADDRESS, such as mx2.example.org=192.0.2.7".to_owned()),
    }
}

/// Checks each domain in turn and prints its findings at once; JUnit and Prometheus output comes at the end.
pub async fn run(options: &Options, config: Option<&Path>) -> Result<Exit, Failure> {
    if let Some(CheckCommand::Merge { files, summary, json, report }) = &options.command {
        return bulk::merge(files, *summary, *json, report.as_deref());
    }
    let format = if options.json { Format::Json } else { options.format };
    if options.list {
        catalogue::list(format == Format::Json);
        return Ok(Exit::Fine);
    }
    if let Some(id) = &options.explain {
        return catalogue::explain(id, format == Format::Json);
    }
    let domains = options.domains.iter().map(|typed| domain(typed)).collect::<Result<Vec<_>, _>>()?;
    if options.from.is_some() && !matches!(format, Format::Text | Format::Json) {
        return Err(Failure::usage(
            "--format is not supported with --from",
            "the output for a list of domains is lines of JSON",
            "Omit --format.",
        ));
    }
    options.from.as_deref().map_or(Ok(()), bulk::expect_list)?;
    let mut config = Config::load_if_readable(config)?;
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
        ..world.check_options(&config)
    };
    let checker = world.checker(&config, looks, options.from.is_some()).await?;
    if let Some(from) = &options.from {
        let many = bulk::BulkCheck {
            from,
            resume: options.resume.as_deref(),
            concurrency: usize::from(options.concurrency),
            first_pass: if options.all { None } else { Some(first_pass(options, &config)?) },
            dane: options.dane,
            shard: options.shard,
            has_summary: options.summary,
            since: options.since.as_deref(),
            history: options.history.as_deref(),
            report: options.report.as_deref().map(|dir| (dir, world.clock.now())),
            is_json: format == Format::Json,
            invalid: if options.fail_on == FailOn::Never { Exit::Fine } else { Exit::Findings },
        };
        return bulk::run(&many, Arc::new(checker), |seen| verdict(seen, options.fail_on)).await;
    }
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
            _ if options.profile.is_some() => show(&estimate::points(&seen, format == Format::Json)),
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

/// The queries of the first pass over a list.
fn first_pass(options: &Options, config: &Config) -> Result<BatchConfig, Failure> {
    let servers = match config.dns_servers.is_empty() {
        true => SystemServers::read().map(|servers| servers.addresses()),
        false => Ok(config.dns_servers.clone()),
    };
    Ok(BatchConfig {
        servers: servers
            .map_err(|error| Failure::new("no DNS resolver is known", error, "Name one with --resolver."))?,
        sources: options.source.clone(),
        in_flight: usize::from(options.in_flight),
        rate: options.query_rate,
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
        _ if seen.is_incomplete() => Exit::Unknown,
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

/// The worse of two exit codes. Findings are certain, so they outweigh an undetermined result.
fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit| match exit {
        Exit::Fine => 0,
        Exit::Unknown | Exit::Interrupted => 1,
        Exit::Findings => 2,
        Exit::Usage => 3,
    };
    if rank(one) >= rank(other) { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_outweigh_an_undetermined_result() {
        assert_eq!(worse(Exit::Unknown, Exit::Findings), Exit::Findings);
        assert_eq!(worse(Exit::Unknown, Exit::Fine), Exit::Unknown);
        assert_eq!(worse(Exit::Fine, Exit::Fine), Exit::Fine);
    }

    #[test]
    fn a_resolver_may_have_a_port_and_a_host_has_an_address() {
        assert_eq!(server("9.9.9.9").unwrap().port(), 53);
        assert_eq!(server("127.0.0.1:5353").unwrap().port(), 5353);
        assert_eq!(server("2620:fe::fe").unwrap().port(), 53);
        assert_eq!(server("[2620:fe::fe]:5353").unwrap().port(), 5353);
        assert_eq!(host_address("MX.example.org=[2001:db8::1]").unwrap().0.as_str(), "mx.example.org");
        for wrong in ["mx.example.org", "mx.example.org=", "=192.0.2.1", "mx.example.org=other"] {
            assert!(host_address(wrong).is_err(), "{wrong}");
        }
        assert!(server("dns.example").unwrap_err().contains("9.9.9.9"));
    }
}
