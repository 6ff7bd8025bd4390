//! What was seen, in a line, for those who watch while more is looked at.

use crate::seen::PolicyHostSeen;
use formats::Policy;
use net::dns::{Answer, DnsError, Exchange};
use net::smtp::{SessionFailure, SessionReport};

/// Hosts, or texts, in one line.
const MANY: usize = 4;

fn listed(all: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = all.take(MANY + 1).collect();
    if all.len() > MANY {
        all.truncate(MANY);
        all.push("and more".to_owned());
    }
    all.join(", ")
}

pub fn mx(found: &Result<Answer, DnsError>) -> String {
    match found {
        Ok(answer) => listed(answer.mx().into_iter().map(|mx| match mx.exchange {
            Exchange::Host(host) => host.to_string(),
            Exchange::Null => "none, by a null MX".to_owned(),
            Exchange::Invalid(text) => text,
        })),
        Err(error) => error.to_string(),
    }
}

pub fn texts(found: &Result<Answer, DnsError>) -> String {
    match found {
        Ok(answer) => listed(answer.texts().map(|text| String::from_utf8_lossy(text).into_owned())),
        Err(error) => error.to_string(),
    }
}

pub fn policy_host(seen: &PolicyHostSeen) -> String {
    match seen.fetched() {
        Ok(fetched) => match Policy::parse(&fetched.body) {
            Ok(policy) => format!("a policy, mode {}", policy.mode),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

pub fn session(outcome: &Result<SessionReport, Box<SessionFailure>>) -> String {
    match outcome {
        Ok(report) => report.tls.as_ref().map_or("no TLS".to_owned(), |tls| tls.version.clone()),
        Err(failure) => failure.fault.to_string(),
    }
}
