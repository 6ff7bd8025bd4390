//! Progress of a check: a trait that a caller implements to show partial results, and the one-line summaries
//! that `observe` passes to it.

use crate::observed::ObservedPolicyHost;
use formats::Policy;
use net::dns::{Answer, DnsError, Exchange};
use net::smtp::{SessionFailure, SessionReport};

/// Receives partial results while a check is running.
pub trait Progress: Sync {
    /// Called when the result for `part`, such as `MX` or `mx1.example.org (192.0.2.1)`, is known. `answer` formats
    /// the result only on demand. The text is untrusted input from the network and not limited in length.
    fn seen(&self, part: &str, answer: &dyn Fn() -> String);
}

/// Discards all partial results.
impl Progress for () {
    fn seen(&self, _: &str, _: &dyn Fn() -> String) {}
}

/// The number of hosts or TXT strings listed in one summary line.
const MAX_LISTED: usize = 4;

fn listed(all: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = all.take(MAX_LISTED + 1).collect();
    if all.len() > MAX_LISTED {
        all.truncate(MAX_LISTED);
        all.push("and more".to_owned());
    }
    all.join(", ")
}

pub(crate) fn mx_summary(found: &Result<Answer, DnsError>) -> String {
    match found {
        Ok(answer) => listed(answer.mx().into_iter().map(|mx| match mx.exchange {
            Exchange::Host(host) => host.to_string(),
            Exchange::Null => "none (null MX)".to_owned(),
            Exchange::Invalid(text) => text,
        })),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn txt_summary(found: &Result<Answer, DnsError>) -> String {
    match found {
        Ok(answer) => listed(answer.texts().map(|text| String::from_utf8_lossy(text).into_owned())),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn policy_host_summary(seen: &ObservedPolicyHost) -> String {
    match seen.fetched() {
        Ok(fetched) => match Policy::parse(&fetched.body) {
            Ok(policy) => format!("a policy, mode {}", policy.mode),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

pub(crate) fn session_summary(outcome: &Result<SessionReport, Box<SessionFailure>>) -> String {
    match outcome {
        Ok(report) => report.tls.as_ref().map_or("no TLS".to_owned(), |tls| tls.version.clone()),
        Err(failure) => failure.fault.to_string(),
    }
}
