//! `sternpost init`: looks up a domain's MX records, policy and report address, and prints a `[[domain]]` section that
//! describes them, with comments. Nothing is stored.

use crate::terminal::show;
use config::Config;
use config::failure::{Exit, Failure};
use formats::DomainName;
use net::dns::DnsError;
use net::dns::provider::Service;
use operations::world::{World, domain};
use operations::{open_store, resolvers, store_failure};
use receiver::rollout::observe;
use receiver::rollout::observed::ObservedState;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The options of `sternpost init`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mail domain, such as example.org
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
    if is_stored(&config, &name).await? {
        eprintln!(
            "{name} is in the store already, so nothing is printed: a domain can be in one of both places only. Show its settings: sternpost domains show {name}"
        );
        return Ok(Exit::Fine);
    }
    let world = World::new(&config)?;
    world.check_resolver(&config).await?;
    let seen = match observe(world.dns.as_ref(), world.policies.as_ref(), &name, &[]).await {
        Ok(seen) => seen,
        Err(failed) => {
            if failed.error == DnsError::Bogus {
                world.check_dnssec().await?;
            }
            return Err(Failure::new(
                format!("{name} can't be looked up"),
                failed,
                format!(
                    "The resolver is {}. A proposal needs the current records. Check the network, or name another resolver in [dns] servers.",
                    resolvers(&config)
                ),
            ));
        }
    };
    if let Some(found) = seen.unmailed {
        return Err(Failure::finding(
            format!("nothing to propose for {name}"),
            found.what(&name),
            found.remedy(),
        ));
    }
    refuse_to_hide(&config, &name, Path::new("/proc/self/fd/1"), Path::new("sternpost.toml"))?;
    show(&proposal(&name, &seen));
    Ok(Exit::Fine)
}

/// True if the domain was added by `sternpost domains`. A store that does not exist is not created.
async fn is_stored(config: &Config, name: &DomainName) -> Result<bool, Failure> {
    if config.store.file().is_some_and(|file| !std::fs::exists(file).unwrap_or(true)) {
        return Ok(false);
    }
    let store = open_store(config).await?;
    let found = store.domain::<serde_json::Value>(name).await.map_err(|error| store_failure(&error))?;
    store.close().await;
    Ok(found.is_some())
}

/// Fails if the output goes to `./sternpost.toml` while another file is in use: the new file would hide that one from all
/// commands in this folder.
fn refuse_to_hide(config: &Config, name: &DomainName, output: &Path, local: &Path) -> Result<(), Failure> {
    let place = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let Some(used) = config.file.as_deref() else { return Ok(()) };
    if place(output) != place(local) || place(local).is_none() || place(used) == place(local) {
        return Ok(());
    }
    Err(Failure::usage(
        format!("the proposal is not written to ./{}", local.display()),
        format!("that file would hide {}, which is in use, from all commands in this folder", used.display()),
        format!("Add it to the file in use:\n  {}", config.init_command(name.as_str())),
    ))
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
        "# The mode to reach in the end. `apply` always begins with testing; enforcement then needs evidence from reports\n# and `sternpost promote`. With \"testing\", it ends there.",
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
    line(
        "# Where senders send daily reports. The mailbox has to exist before the record is published. Without reports that",
    );
    line(
        "# Sternpost receives ([inbox], or `sternpost reports import`), there is no evidence, and no enforcement by evidence.",
    );
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
    fn a_proposal_is_not_written_where_it_would_hide_the_file_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let (installed, local, other) = (file("installed.toml"), file("sternpost.toml"), file("other"));
        let name = DomainName::parse("example.org").unwrap();
        let config = Config::parse("", Some(installed.clone())).unwrap();
        let to = |config: &Config, output: &Path| refuse_to_hide(config, &name, output, &local);
        let refused = to(&config, &local).unwrap_err().to_string();
        assert!(refused.contains("would hide") && refused.contains("installed.toml"), "{refused}");
        assert!(to(&config, &other).is_ok() && to(&config, &installed).is_ok());
        assert!(to(&Config::parse("", None).unwrap(), &local).is_ok());
        assert!(to(&Config::parse("", Some(local.clone())).unwrap(), &local).is_ok());
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
