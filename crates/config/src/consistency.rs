//! Checks that the configuration has the roles, servers and providers that its domains refer to. `load` checks the
//! domains of the file; a domain of the store is checked before it is stored.

use crate::config::Config;
use crate::failure::Failure;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use std::collections::BTreeSet;

/// Checks all domains of the file against the other sections, and that no domain appears twice.
pub fn check(config: &Config) -> Result<(), Failure> {
    if config.reporter.is_some() && config.collector.as_ref().is_some_and(|role| role.forward_to.is_some()) {
        return Err(Failure::usage(
            "collector.forward_to and [reporter]",
            "sessions are handed over to another machine, so there is nothing to report here",
            "Remove [reporter] here and configure it on the other machine, or remove collector.forward_to.",
        ));
    }
    let mut names = BTreeSet::new();
    for spec in &config.domains {
        if !names.insert(&spec.name) {
            return Err(Failure::usage(
                format!("the domain {}", spec.name),
                "it appears twice in the configuration",
                "Merge the two into one [[domain]].",
            ));
        }
        fits(spec, config)?;
    }
    Ok(())
}

/// Checks that the configuration has every role and server that a domain refers to.
///
/// # Errors
///
/// If the role `[host]`, the section `[delegation]`, the name server or the provider is missing.
pub fn fits(spec: &DomainSpec, config: &Config) -> Result<(), Failure> {
    let lacks =
        |why: &str, remedy: &str| Err(Failure::usage(format!("the domain {}", spec.name), why, remedy));
    if spec.host == HostedBy::Sternpost && config.host.is_none() {
        return lacks(
            "it has host = \"self\", but the role [host] is off",
            "Add\n  [host]\n  name = \"mta-sts.example.net\"\nor set host = \"static\" and use `sternpost export`.",
        );
    }
    if spec.delegated && config.delegation.is_none() {
        return lacks(
            "it has delegated = true, but no delegation zone is configured",
            "Add\n  [delegation]\n  zone = \"sts.example.net\"",
        );
    }
    if spec.delegated && spec.host != HostedBy::Sternpost {
        return lacks("it has delegated = true, but its policy is not served here", "Set host = \"self\".");
    }
    match &spec.dns {
        DnsBy::Update(name) if !config.updates.iter().any(|server| server.name == *name) => lacks(
            &format!("dns = \"rfc2136:{name}\" names an unknown server"),
            &format!(
                "Add\n  [[rfc2136]]\n  name = \"{name}\"\n  server = \"192.0.2.1:53\"\n  key_name = \"sternpost\"\n  key_file = \"tsig.key\""
            ),
        ),
        DnsBy::Provider(service, name)
            if !config.providers.iter().any(|known| known.name == *name && known.service == *service) =>
        {
            let word = service.as_str();
            lacks(
                &format!("dns = \"{word}:{name}\" names an unknown provider"),
                &format!(
                    "Add\n  [[provider]]\n  name = \"{name}\"\n  service = \"{word}\"\n  key_file = \"{word}.key\""
                ),
            )
        }
        _ => Ok(()),
    }
}
