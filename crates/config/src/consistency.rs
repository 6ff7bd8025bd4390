//! Whether the domains of a configuration, or one of the store, ask for roles and servers that the configuration has.

use crate::config::Config;
use crate::failure::Failure;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use std::collections::BTreeSet;

/// The domains of the file, held against the rest of it.
pub fn check(config: &Config) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for spec in &config.domains {
        if !names.insert(&spec.name) {
            return Err(Failure::usage(
                format!("the domain {}", spec.name),
                "it stands twice in the configuration",
                "Put both into one [[domain]].",
            ));
        }
        fits(spec, config)?;
    }
    Ok(())
}

/// Whether what a domain asks for is there.
pub fn fits(spec: &DomainSpec, config: &Config) -> Result<(), Failure> {
    let lacks =
        |why: &str, remedy: &str| Err(Failure::usage(format!("the domain {}", spec.name), why, remedy));
    if spec.host == HostedBy::Sternpost && config.host.is_none() {
        return lacks(
            "host = \"self\", and the role [host] is not switched on",
            "Write\n  [host]\n  name = \"mta-sts.example.net\"\nor set host = \"static\" and use `sternpost export`.",
        );
    }
    if spec.delegated && config.delegation.is_none() {
        return lacks(
            "it is delegated, and no zone is named that it could be delegated to",
            "Write\n  [delegation]\n  zone = \"sts.example.net\"",
        );
    }
    if spec.delegated && spec.host != HostedBy::Sternpost {
        return lacks("it is delegated, and its policy is not served here", "Set host = \"self\".");
    }
    match &spec.dns {
        DnsBy::Update(name) if !config.updates.iter().any(|server| server.name == *name) => lacks(
            &format!("dns = \"rfc2136:{name}\", and there is no such server"),
            &format!(
                "Write\n  [[rfc2136]]\n  name = \"{name}\"\n  server = \"192.0.2.1:53\"\n  key_name = \"sternpost\"\n  key_file = \"tsig.key\""
            ),
        ),
        DnsBy::Provider(service, name)
            if !config.providers.iter().any(|known| known.name == *name && known.service == *service) =>
        {
            let word = service.as_str();
            lacks(
                &format!("dns = \"{word}:{name}\", and there is no such provider"),
                &format!(
                    "Write\n  [[provider]]\n  name = \"{name}\"\n  service = \"{word}\"\n  key_file = \"{word}.key\""
                ),
            )
        }
        _ => Ok(()),
    }
}
