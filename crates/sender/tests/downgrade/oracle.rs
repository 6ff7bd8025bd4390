//! What an answer may be: never weaker than a policy that is in force, nor than DANE that the zones prove. The oracle
//! knows what the policy hosts served over authenticated HTTPS, and nothing of the service.

use super::domains::{Dane, Domain};
use formats::{DomainName, Mode, Policy};
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::Clock;
use net::https::{FetchError, Fetched, PolicyHosts};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// A reply to Postfix, without and with TLSRPT attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub plain: String,
    pub reporting: String,
}

impl Reply {
    pub fn temporary() -> Self {
        Self { plain: "TEMP".into(), reporting: "TEMP".into() }
    }

    pub fn not_found() -> Self {
        Self { plain: "NOTFOUND".into(), reporting: "NOTFOUND".into() }
    }

    pub fn is_temporary(&self) -> bool {
        self.plain.starts_with("TEMP")
    }
}

/// A policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    pub mode: Mode,
    /// The level that it demands in mode `enforce`.
    pub secure: String,
}

impl InForce {
    fn of(policy: &Policy) -> Self {
        let names: Vec<String> = policy.mx.iter().map(ToString::to_string).collect();
        Self { mode: policy.mode, secure: format!("secure match={} servername=hostname", names.join(":")) }
    }

    /// The policy in this file.
    pub fn parse(body: &str) -> Self {
        Self::of(&Policy::parse(body.as_bytes()).unwrap())
    }
}

/// The policy hosts, with a record of the newest policy that each of them served over authenticated HTTPS.
pub struct Authenticated {
    hosts: Arc<dyn PolicyHosts>,
    clock: Arc<dyn Clock>,
    newest: Mutex<HashMap<String, (Timestamp, String)>>,
}

impl Authenticated {
    pub fn new(hosts: Arc<dyn PolicyHosts>, clock: Arc<dyn Clock>) -> Self {
        Self { hosts, clock, newest: Mutex::default() }
    }

    /// The newest policy file of a domain.
    pub fn newest(&self, domain: &Domain) -> Option<String> {
        self.newest.lock().unwrap().get(domain.name).map(|(_, body)| body.clone())
    }

    /// The policy in force: the newest one, until it expires.
    pub fn in_force(&self, domain: &Domain) -> Option<InForce> {
        let newest = self.newest.lock().unwrap();
        let (at, body) = newest.get(domain.name)?;
        let policy = Policy::parse(body.as_bytes()).ok()?;
        let age = self.clock.now().duration_since(*at);
        (age < SignedDuration::from_secs(policy.max_age.into())).then(|| InForce::of(&policy))
    }
}

impl PolicyHosts for Authenticated {
    fn fetch<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            let outcome = self.hosts.fetch(domain).await;
            if let Ok(fetched) = &outcome {
                let body = String::from_utf8_lossy(&fetched.body).into_owned();
                self.newest.lock().unwrap().insert(domain.to_string(), (self.clock.now(), body));
            }
            outcome
        })
    }
}

/// The answers that are allowed under an attack while this policy is in force, besides a temporary failure: the first
/// words of the level, or NOTFOUND.
fn allowed(domain: &Domain, in_force: Option<&InForce>) -> Vec<String> {
    let enforced = in_force.filter(|policy| policy.mode == Mode::Enforce);
    let of = |answers: &[&str]| answers.iter().map(|answer| (*answer).to_owned()).collect();
    match (domain.dane, enforced) {
        (Dane::All, _) => of(&["OK dane-only"]),
        (Dane::Some, Some(_)) => of(&["OK dane-only"]),
        (Dane::Some, None) => of(&["OK dane", "OK dane-only"]),
        (Dane::Unusable | Dane::No, Some(policy)) => vec![format!("OK {}", policy.secure)],
        (Dane::Unusable, None) => of(&["OK dane"]),
        (Dane::No, None) => of(&["NOTFOUND", "OK may"]),
    }
}

/// Whether the reply is one of these, apart from TLSRPT attributes.
fn is_one_of(reply: &str, allowed: &[String]) -> bool {
    let begins = |answer: &String| {
        reply.strip_prefix(answer.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    allowed.iter().any(begins)
}

/// Checks a reply that was given under attack. The policy in force may have changed while the reply was made, so that
/// it was made under the one before or under the one after.
pub fn judge(
    domain: &Domain,
    before: Option<&InForce>,
    after: Option<&InForce>,
    reply: &Reply,
) -> Result<(), String> {
    let allowed = [allowed(domain, before), allowed(domain, after)].concat();
    let is_fine = |reply: &String| reply.starts_with("TEMP") || is_one_of(reply, &allowed);
    match is_fine(&reply.plain) && is_fine(&reply.reporting) {
        true => Ok(()),
        false => Err(format!("{} was answered {reply:?}; allowed: {allowed:?}", domain.name)),
    }
}

/// Checks that the reply is the one that the honest internet leads to, with this policy published.
pub fn is_honest(domain: &Domain, published: Option<&InForce>, reply: &Reply) -> bool {
    let expected = match allowed(domain, published) {
        mixed if domain.dane == Dane::Some => mixed.into_iter().take(1).collect(),
        other => other,
    };
    is_one_of(&reply.plain, &expected)
}
