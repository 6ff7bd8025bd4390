//! `sternpost init`: proposes a configuration for a domain from what DNS shows today.

use crate::terminal::show;
use config::Config;
use config::failure::{Exit, Failure};
use formats::DomainName;
use net::dns::provider::Service;
use operations::world::{World, domain};
use receiver::rollout::look;
use receiver::rollout::observed::ObservedState;
use std::fmt::Write;
use std::path::Path;

/// Which domain.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The domain
    domain: String,
}

/// Prints the proposal.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let name = domain(&options.domain)?;
    let config = Config::load(named)?;
    let world = World::new(&config)?;
    let seen = look(world.dns.as_ref(), world.policies.as_ref(), &name).await.map_err(|error| {
        Failure::new(
            format!("{name} can't be looked at"),
            error,
            "Nothing is proposed without knowing what is there. Look at the network, or name a resolver:\n  [dns]\n  servers = [\"127.0.0.1:53\"]",
        )
    })?;
    if seen.mx.is_empty() {
        return Err(Failure::finding(
            format!("{name} takes no mail"),
            "it has no MX record and no address",
            "MTA-STS is about mail that comes in. Give the domain that stands behind the @ of your addresses.",
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
    line(&format!("# Proposed by `sternpost init {name}` from what DNS shows. Read it, change it, then run"));
    line(&format!("#   sternpost plan {name}"));
    line("[[domain]]");
    line(&format!("name = \"{name}\""));
    line(
        "# Where it is to end up. The way there leads through testing, and enforcement takes reports or your word.",
    );
    line("mode = \"enforce\"");
    line(
        "# The MX hosts as they are. An MX host that is not here is added before it takes mail, never left out.",
    );
    line(&format!("mx = {:?}", mx_lines(&seen.mx)));
    for note in notes(&seen.mx) {
        line(&format!("# {note}"));
    }
    line(
        "# Who serves the policy: \"static\" (what `sternpost export` makes, on any web server or platform),",
    );
    line("# \"self\" (`sternpost serve`, with certificates of its own; switch [host] on), or \"elsewhere\".");
    line("host = \"static\"");
    line(
        "# Who changes DNS: \"manual\" shows you each record and waits until it is seen; \"rfc2136:NAME\" does it,",
    );
    line(&format!("# and so does a provider's interface, {} (docs/receiving.md).", services()));
    line("dns = \"manual\"");
    line("# Where senders report to, daily. It has to be read, by people or by a program.");
    let rua: Vec<String> = seen.rua.iter().map(ToString::to_string).collect();
    let rua = if rua.is_empty() { vec![format!("mailto:tlsrpt@{name}")] } else { rua };
    line(&format!("rua = {rua:?}"));
    line(
        "# Seconds for which senders keep the policy. Longer protects better, and makes MX changes wait longer.",
    );
    line("max_age = { testing = 86400, enforce = 604800 }");
    match (&seen.record, &seen.served) {
        (Some(id), Some(policy)) => {
            line(&format!(
                "# There is a policy already: mode {}, max_age {}, id {id}. It is taken over as it is.",
                policy.mode, policy.max_age
            ));
        }
        (Some(id), None) => line(&format!(
            "# _mta-sts announces id {id}, but no policy can be fetched: {}.\n# What senders hold is unknown. If you know its max_age, say so: max_age.before = 604800",
            seen.unserved.as_deref().unwrap_or("no reason is known")
        )),
        _ => {}
    }
    out
}

fn services() -> String {
    Service::ALL.map(|service| format!("\"{}:NAME\"", service.as_str())).join(", ")
}

/// The names as patterns; those of providers that change their hosts as the provider asks for.
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
            // Two kinds of names: the wildcard does not cover the bare one.
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
        notes.push("Microsoft 365: all its hosts, since yours may change their names.");
    }
    if any(".mx.microsoft") {
        notes.push("Microsoft 365 with DANE: exactly these hosts, since a wildcard covers one label only.");
    }
    if any("aspmx.l.google.com") {
        notes.push("Google Workspace: the bare name and the wildcard, since neither covers the other.");
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
    fn what_is_proposed_is_a_right_configuration() {
        let seen =
            ObservedState { mx: names(&["mx1.example.org", "mx2.example.org"]), ..ObservedState::default() };
        let text = proposal(&DomainName::parse("example.org").unwrap(), &seen);
        let config = Config::parse(&text, None).unwrap();
        assert_eq!(config.domains.len(), 1);
        assert_eq!(config.domains[0].mx.len(), 2);
    }

    #[test]
    fn hosts_of_large_providers_become_the_patterns_that_cover_them() {
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
