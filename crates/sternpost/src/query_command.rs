//! `sternpost query`: what a sender would do with mail for a domain now, and why.

use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::terminal::{say, show};
use crate::world::{World, domain};
use formats::socketmap::Reply;
use formats::{DomainName, Mode};
use net::dane::{self, Dane};
use net::dns::{DnsError, Exchange, Kind, host_addresses};
use sender::answer::sts::{Found, RecordSeen};
use sender::answer::{Discovery, postfix};
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
    #[arg(long)]
    trace: bool,
}

#[derive(serde::Serialize)]
struct Answer {
    schema: u32,
    domain: DomainName,
    /// What follows for a delivery.
    verdict: String,
    mode: Mode,
    policy: Option<String>,
    policy_id: Option<String>,
    dane: Vec<DaneHost>,
    /// The socketmap reply for MTA-STS alone, with the attributes of Postfix 3.10.
    postfix: String,
    steps: Vec<String>,
}

#[derive(serde::Serialize)]
struct DaneHost {
    host: DomainName,
    state: String,
}

/// Why a domain gets no mail at all.
enum NoMail {
    NoDomain,
    NullMx,
}

/// Looks up live, from an empty memory.
pub async fn run(options: &Options, config: Option<&Path>) -> Result<Exit, Failure> {
    let domain = domain(&options.domain)?;
    let world = World::new(&Config::load(config)?)?;
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::new(
            "no temporary folder can be made",
            error,
            "Set TMPDIR to a folder that can be written to.",
        )
    })?;
    let trouble =
        |error: &dyn std::fmt::Display| Failure::new(format!("{domain} can't be looked up"), error, "");
    let store = Store::open(&folder.path().join("query.db")).await.map_err(|e| trouble(&e))?;
    let discovery =
        Discovery::new(world.dns.clone(), world.policies.clone(), store.clone(), world.clock.clone());
    let (found, seen) = discovery.find(&domain).await.map_err(|e| trouble(&e))?;
    let mut steps = vec![record_step(&domain, &seen)];
    steps.extend(policy_step(&domain, &found));
    let hosts = dane_hosts(&world, &domain, &mut steps).await;
    let answer = Answer {
        schema: 1,
        verdict: verdict(&found, &hosts),
        mode: found.mode(),
        policy: policy_text(&found),
        policy_id: policy_id(&found),
        postfix: reply_text(&postfix::sts_answer(&domain, &found).reply(true)),
        dane: hosts.unwrap_or_default(),
        steps,
        domain,
    };
    store.close().await;
    match options.json {
        true => say(&serde_json::to_string(&answer).unwrap_or_default()),
        false => show(&told(&answer, options.trace)),
    }
    Ok(if matches!(seen, RecordSeen::Unknown(_)) { Exit::Unknown } else { Exit::Fine })
}

fn record_step(domain: &DomainName, seen: &RecordSeen) -> String {
    let outcome = match seen {
        RecordSeen::Published(record) => format!("announces id {}", record.id),
        RecordSeen::Absent => "is not there: no MTA-STS".to_owned(),
        RecordSeen::Invalid(why) => format!("does not count: {why}"),
        RecordSeen::Unknown(why) => format!("can't be looked up: {why}"),
    };
    format!("the record _mta-sts.{domain} {outcome}")
}

fn policy_step(domain: &DomainName, found: &Found) -> Option<String> {
    match found {
        Found::Policy { held, .. } => Some(format!(
            "https://mta-sts.{domain}/.well-known/mta-sts.txt gives mode {}, max_age {}",
            held.policy.mode, held.policy.max_age
        )),
        Found::Unavailable(why) => Some(format!("no policy can be had ({}): {why}", why.result_type())),
        Found::None => None,
    }
}

/// The state of DANE at each MX host (RFC 7672 §2.2).
async fn dane_hosts(
    world: &World,
    domain: &DomainName,
    steps: &mut Vec<String>,
) -> Result<Vec<DaneHost>, NoMail> {
    let answer = match world.dns.lookup(domain, Kind::Mx).await {
        Ok(answer) => answer,
        Err(error) => {
            steps.push(format!("the MX records of {domain}: {error}"));
            return match error {
                DnsError::NoSuchName(_) => Err(NoMail::NoDomain),
                _ => Ok(Vec::new()),
            };
        }
    };
    if answer.mx().iter().all(|mx| mx.exchange == Exchange::Null) {
        steps.push(format!("{domain} has the null MX"));
        return Err(NoMail::NullMx);
    }
    let mut hosts = Vec::new();
    for host in answer.mx_hosts().take(formats::limits::MX_HOSTS) {
        let state = match host_addresses(world.dns.as_ref(), &host).await {
            Ok(addresses) => {
                match dane::look_up(world.dns.as_ref(), answer.security, &host, &addresses).await {
                    Dane::Applies { records, .. } => format!("applies, {} TLSA records", records.len()),
                    Dane::Absent => "does not apply".to_owned(),
                    Dane::Unknown(error) => format!("can't be known, so the host is skipped: {error}"),
                }
            }
            Err(error) => format!("the host's addresses: {error}"),
        };
        steps.push(format!("DANE at {host} {state}"));
        hosts.push(DaneHost { host, state });
    }
    Ok(hosts)
}

fn verdict(found: &Found, hosts: &Result<Vec<DaneHost>, NoMail>) -> String {
    let dane = match hosts {
        Ok(hosts) => hosts,
        Err(NoMail::NoDomain) => return "there is no such domain, so the message is returned".to_owned(),
        Err(NoMail::NullMx) => {
            return "the domain takes no mail (null MX), so the message is returned".to_owned();
        }
    };
    if !dane.is_empty() && dane.iter().all(|host| host.state.starts_with("applies")) {
        return "DANE decides: TLS with a matching certificate, or the message waits".to_owned();
    }
    match found.mode() {
        Mode::Enforce => "TLS with a verified certificate for an MX host of the policy, or the message waits",
        Mode::Testing => "delivers as without a policy, and reports what enforcement would have refused",
        Mode::None => "delivers with TLS where it is offered; anyone on the path can strip it",
    }
    .to_owned()
}

fn policy_text(found: &Found) -> Option<String> {
    match found {
        Found::Policy { held, .. } => Some(held.body.clone()),
        Found::Unavailable(_) | Found::None => None,
    }
}

fn policy_id(found: &Found) -> Option<String> {
    match found {
        Found::Policy { held, .. } => Some(held.id.to_string()),
        Found::Unavailable(_) | Found::None => None,
    }
}

fn reply_text(reply: &Reply) -> String {
    let encoded = String::from_utf8_lossy(&reply.encode()).into_owned();
    let text = encoded.split_once(':').map_or(encoded.as_str(), |(_, rest)| rest);
    text.strip_suffix(',').unwrap_or(text).trim_end().to_owned()
}

fn told(answer: &Answer, trace: bool) -> String {
    let mut out = format!("{}: {}.\n", answer.domain, answer.verdict);
    if trace {
        answer
            .steps
            .iter()
            .enumerate()
            .for_each(|(at, step)| out.push_str(&format!("  {}. {step}\n", at + 1)));
    }
    out.push_str(&format!("\n  Postfix, for MTA-STS alone: {}\n", answer.postfix));
    out
}
