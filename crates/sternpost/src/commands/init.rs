//! `sternpost init`: looks up a domain's MX records, policy and report address, and prints a `[[domain]]` section that
//! describes them, with comments. Nothing is stored.

use crate::terminal::show;
use config::Config;
use config::failure::{Exit, Failure};
use formats::DomainName;
use net::dns::provider::Service;
use operations::resolvers;
use operations::world::{World, domain};
use receiver::rollout::look;
use receiver::rollout::observed::ObservedState;
use std::fmt::Write;
use std::path::Path;

/// The options of `sternpost init`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Domain
    domain: String,
}

/// Prints the proposal.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let name = domain(&options.domain)?;
    let config = Config::load(named)?;
    if config.domains.iter().any(|spec| spec.name == name) {
        let file = config.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        eprintln!(
            "{name} is in {file} already, so nothing is printed. Show its steps: sternpost plan {name}"
        );
        return Ok(Exit::Fine);
    }
    let world = World::new(&config)?;
    world.check_resolver(&config).await?;
    let seen = look(world.dns.as_ref(), world.policies.as_ref(), &name, &[]).await.map_err(|error| {
        Failure::new(
            format!("{name} can't be looked up"),
            error,
            format!("The resolver is {}. A proposal needs the current records. Check the network, or configure another resolver:\n  [dns]\n  servers = [\"127.0.0.1:53\"]", resolvers(&config)),
        )
    })?;
    if seen.mx.is_empty() {
        return Err(Failure::finding(
            format!("{name} receives no mail"),
            "it has no MX records and no addresses",
            "MTA-STS protects incoming mail. Give the domain after the @ of your mail addresses.",
        ));
    }
    show(&proposal(&name, &seen));
    Ok(Exit::Fine)
}

fn proposal(name: &DomainName, seen: &ObservedState) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    line(&format!("# Proposed by `sternpost init {name}` from DNS. Read it, change it, then run"));
    line(&format!("#   sternpost plan {name}"));
    line("[[domain]]");
    line(&format!("name = \"{name}\""));
    line(
        "# The desired mode. Testing comes first; enforcement needs evidence from reports, or `sternpost promote`.",
    );
    line("mode = \"enforce\"");
    line("# The MX hosts in DNS. A further MX host in DNS is added to the policy, never left out.");
    line(&format!("mx = {:?}", mx_lines(&seen.mx)));
    for note in notes(&seen.mx) {
        line(&format!("# {note}"));
    }
    line(
        "# Where the policy is served: \"static\" (by a web server or platform, with files of `sternpost export`),",
    );
    line(
        "# \"self\" (by `sternpost serve`, with its own certificates; needs a section [host]), or \"elsewhere\".",
    );
    line("host = \"static\"");
    line(
        "# How DNS is changed: \"manual\" prints each record and waits until you publish it; \"rfc2136:NAME\" sends",
    );
    line(&format!(
        "# updates to the name server, and {} use a provider's API (docs/receiving.md).",
        services()
    ));
    line("dns = \"manual\"");
    line("# Where senders send daily reports. People or a program must read them.");
    let rua: Vec<String> = seen.rua.iter().map(ToString::to_string).collect();
    let rua = if rua.is_empty() { vec![format!("mailto:tlsrpt@{name}")] } else { rua };
    line(&format!("rua = {rua:?}"));
    line("# Policy lifetime in seconds. A longer one protects better, but MX changes have to wait longer.");
    line("max_age = { testing = 86400, enforce = 604800 }");
    match (&seen.record, &seen.served) {
        (Some(id), Some(policy)) => {
            line(&format!(
                "# A policy is already published: mode {}, max_age {}, id {id}. It is the starting point of the plan.",
                policy.mode, policy.max_age
            ));
        }
        (Some(id), None) => line(&format!(
            "# _mta-sts announces id {id}, but the policy can't be fetched: {}.\n# The policy in senders' caches is unknown. If you know its max_age, set it: max_age.before = 604800",
            seen.unserved.as_deref().unwrap_or("unknown reason")
        )),
        _ => {}
    }
    out
}

fn services() -> String {
    Service::ALL.map(|service| format!("\"{}:NAME\"", service.as_str())).join(", ")
}

/// The policy's `mx` patterns for these hosts. For large providers they are the patterns that the provider recommends.
fn mx_lines(hosts: &[DomainName]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |line: String| {
        if !lines.contains(&line) {
            lines.push(line);
        }
    };
    for host in hosts {
        let text = host.as_str();
        if text.ends_with(".mail.protection.outlook.com") {
            add("*.mail.protection.outlook.com".to_owned());
        } else if text.ends_with(".aspmx.l.google.com") || text == "aspmx.l.google.com" {
            // The wildcard does not match the bare name.
            add("aspmx.l.google.com".to_owned());
            add("*.aspmx.l.google.com".to_owned());
        } else {
            add(text.to_owned());
        }
    }
    lines
}

fn notes(hosts: &[DomainName]) -> Vec<&'static str> {
    let any = |end: &str| hosts.iter().any(|host| host.as_str().ends_with(end));
    let mut notes = Vec::new();
    if any(".mail.protection.outlook.com") {
        notes.push("Microsoft 365: a wildcard for its hosts, since the names of your MX hosts may change.");
    }
    if any(".mx.microsoft") {
        notes.push("Microsoft 365 with DANE: exactly these hosts, since a wildcard matches one label only.");
    }
    if any("aspmx.l.google.com") {
        notes.push("Google Workspace: the bare name and the wildcard, since neither matches the other.");
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<DomainName> {
        texts.iter().map(|text| DomainName::parse(text).unwrap()).collect()
    }

    #[test]
    fn the_proposal_is_a_valid_configuration() {
        let seen =
            ObservedState { mx: names(&["mx1.example.org", "mx2.example.org"]), ..ObservedState::default() };
        let text = proposal(&DomainName::parse("example.org").unwrap(), &seen);
        let config = Config::parse(&text, None).unwrap();
        assert_eq!(config.domains.len(), 1);
        assert_eq!(config.domains[0].mx.len(), 2);
    }

    #[test]
    fn hosts_of_large_providers_become_the_patterns_that_match_them() {
        assert_eq!(
            mx_lines(&names(&[
                "aspmx.l.google.com",
                "alt1.aspmx.l.google.com",
                "example-org.mail.protection.outlook.com"
            ])),
            ["aspmx.l.google.com", "*.aspmx.l.google.com", "*.mail.protection.outlook.com"]
        );
        assert_eq!(mx_lines(&names(&["smtp.google.com"])), ["smtp.google.com"]);
    }
}
