//! Policy answers for people and scripts (docs/answers.md, docs/query.md). [`Remembered`] is an answer of the running
//! server with the cached policy; the control socket and the HTTP interface send it as JSON. [`Explained`] is the
//! outcome of a fresh look-up by `sternpost query`, with each step of it.

use formats::{DomainName, Mode, MxPattern};
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use net::dane::Dane;
use net::dns::{DnsError, Security};
use sender::answer::decide::Source;
use sender::answer::entry::{Entry, Status};
use sender::answer::route::{DaneHosts, NextHop, Route};
use sender::answer::sts::{EffectivePolicy, HeldPolicy, RecordLookup};
use sender::answer::{LookupTrace, PolicyService};
use std::sync::Arc;
use std::time::Duration;

/// The server's answer for a next hop, and the cached policy.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// The version of this JSON format.
    pub schema: u32,
    /// The next hop: a domain, or `[host]`.
    pub next_hop: String,
    /// What decided the answer: a name of [`Source`].
    pub source: String,
    /// The socketmap reply to Postfix, without TLSRPT attributes.
    pub postfix: String,
    /// The socketmap reply with the TLSRPT attributes of Postfix 3.10.
    pub postfix_tlsrpt: String,
    /// The names that the verified certificate must match; empty unless the level is `secure`.
    pub mx: Vec<String>,
    /// The number of MX hosts in each DANE state.
    pub dane: serde_json::Value,
    /// Seconds until the answer is looked up again; 0 when the look-up is due, [`u32::MAX`] when it never is.
    pub recheck_in: u32,
    /// The MTA-STS policy in the cache; `None` when there is none.
    pub policy: Option<RememberedPolicy>,
}

/// A cached MTA-STS policy.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct RememberedPolicy {
    /// The policy's mode.
    pub mode: Mode,
    /// The `id` of the `_mta-sts` record for which the policy was fetched.
    pub id: String,
    /// The policy's `mx` patterns.
    pub mx: Vec<String>,
    /// The time of the fetch, RFC 3339 in UTC.
    pub fetched_at: String,
    /// The time when the policy expires, RFC 3339 in UTC.
    pub expires_at: String,
    /// The policy file as it was fetched.
    pub file: String,
}

impl Remembered {
    /// Combines an answer with the policy in the cache.
    pub async fn of(answers: &Arc<PolicyService>, hop: &NextHop, entry: &Entry) -> Self {
        let policy = answers.remembered(hop.policy_domain()).await;
        Self {
            schema: 1,
            next_hop: hop.to_string(),
            source: entry.source.as_str().to_owned(),
            postfix: reply(entry, false),
            postfix_tlsrpt: reply(entry, true),
            mx: texts(&entry.patterns()),
            dane: serde_json::to_value(entry.dane).unwrap_or_default(),
            recheck_in: match entry.recheck {
                u32::MAX => u32::MAX,
                second => second.saturating_sub(answers.second()),
            },
            policy: policy.map(|(held, rest)| RememberedPolicy::of(&held, rest)),
        }
    }
}

impl RememberedPolicy {
    fn of(held: &HeldPolicy, rest: Duration) -> Self {
        let rest = SignedDuration::try_from(rest).unwrap_or_default();
        let expires = later(Timestamp::now(), rest);
        Self {
            mode: held.policy.mode,
            id: held.id.to_string(),
            mx: texts(&held.policy.mx),
            fetched_at: whole_second(held.fetched_at),
            expires_at: whole_second(expires),
            file: held.body.clone(),
        }
    }
}

fn texts(patterns: &[MxPattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

fn whole_second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// The socketmap reply to a mail server; with `tlsrpt`, with the TLSRPT attributes.
pub fn reply(entry: &Entry, tlsrpt: bool) -> String {
    format!("{} {}", entry.word(tlsrpt), entry.text(tlsrpt)).trim_end().to_owned()
}

/// What a sender would do with mail for a domain now, and why, from a fresh look-up.
#[derive(Debug, serde::Serialize)]
pub struct Explained {
    schema: u32,
    domain: DomainName,
    /// The consequence for a delivery: a sentence without its period.
    pub verdict: String,
    source: Source,
    mode: Mode,
    policy: Option<String>,
    policy_id: Option<String>,
    dane: Vec<DaneHost>,
    /// The socketmap reply with the TLSRPT attributes of Postfix 3.10.
    pub postfix: String,
    /// Each step of the look-up and its result.
    pub steps: Vec<String>,
    /// True when the `_mta-sts` record or the MX records could not be looked up.
    #[serde(skip)]
    pub is_unknown: bool,
}

#[derive(Debug, serde::Serialize)]
struct DaneHost {
    host: DomainName,
    state: String,
}

impl Explained {
    /// Explains the trace of a look-up.
    pub fn of(hop: &NextHop, looked: &LookupTrace) -> Self {
        let domain = hop.policy_domain().clone();
        let mut steps: Vec<String> = rule_step(looked).into_iter().collect();
        let found = looked.sighting.as_ref().map_or(&EffectivePolicy::None, |sighting| &sighting.found);
        if let Some(sighting) = &looked.sighting {
            steps.push(record_step(&domain, &sighting.seen));
            steps.extend(policy_step(&domain, found));
        }
        let dane = dane_steps(&domain, &looked.route, &mut steps);
        steps.extend(open_step(looked, found));
        let entry = Entry::new(&looked.answer, looked.source, DaneHosts::default(), 0, 0);
        let held = match found {
            EffectivePolicy::Policy { held, .. } => Some(held),
            EffectivePolicy::Unavailable(_) | EffectivePolicy::None => None,
        };
        let record_unknown = looked
            .sighting
            .as_ref()
            .is_some_and(|sighting| matches!(sighting.seen, RecordLookup::Unknown(_)));
        Self {
            schema: 1,
            verdict: verdict(looked, &entry, found),
            source: looked.source,
            mode: found.mode(),
            policy: held.map(|held| held.body.clone()),
            policy_id: held.map(|held| held.id.to_string()),
            dane,
            postfix: reply(&entry, true),
            steps,
            is_unknown: record_unknown
                || matches!(&looked.route, Route::Unknown(error) if *error != DnsError::Bogus),
            domain,
        }
    }
}

fn rule_step(looked: &LookupTrace) -> Option<String> {
    let rule = looked.rule.as_ref()?;
    let what = match (&rule.answer, &rule.policy, rule.skip_mta_sts, rule.skip_dane) {
        (Some(_), ..) => "sets the answer",
        (_, Some(_), _, true) => "pins the policy and skips DANE",
        (_, Some(_), ..) => "pins the policy",
        (.., true, true) => "skips MTA-STS and DANE",
        (.., true, false) => "skips MTA-STS",
        _ => "skips DANE",
    };
    Some(format!("an override in the configuration {what}"))
}

fn record_step(domain: &DomainName, seen: &RecordLookup) -> String {
    let outcome = match seen {
        RecordLookup::Published(record) => format!("announces id {}", record.id),
        RecordLookup::Absent => "does not exist: no MTA-STS".to_owned(),
        RecordLookup::Invalid(why) => format!("is invalid: {why}"),
        RecordLookup::Unknown(why) => format!("could not be looked up: {why}"),
    };
    format!("the record _mta-sts.{domain} {outcome}")
}

fn policy_step(domain: &DomainName, found: &EffectivePolicy) -> Option<String> {
    match found {
        EffectivePolicy::Policy { held, .. } => Some(format!(
            "https://mta-sts.{domain}/.well-known/mta-sts.txt has mode {}, max_age {}",
            held.policy.mode, held.policy.max_age
        )),
        EffectivePolicy::Unavailable(why) => {
            Some(format!("no policy is available ({}): {why}", why.result_type()))
        }
        EffectivePolicy::None => None,
    }
}

fn dane_steps(domain: &DomainName, route: &Route, steps: &mut Vec<String>) -> Vec<DaneHost> {
    let hosts = match route {
        Route::Hosts(hosts) => hosts,
        Route::NoDomain => {
            steps.push(format!("the domain {domain} does not exist"));
            return Vec::new();
        }
        Route::NullMx => {
            steps.push(format!("{domain} has the null MX"));
            return Vec::new();
        }
        Route::Unknown(error) => {
            steps.push(format!("the MX records of {domain} could not be looked up: {error}"));
            return Vec::new();
        }
    };
    let states = hosts.iter().map(|seen| {
        let state = match &seen.dane {
            Dane::Applies { records, .. } if seen.mx != Security::Secure => format!(
                "has {} TLSA records, which Postfix uses at level dane; they are no part of the answer, since the MX records of {domain} are not signed",
                records.len()
            ),
            Dane::Unknown(error) if seen.mx != Security::Secure => {
                format!("could not be looked up ({error}), and the MX records of {domain} are not signed")
            }
            Dane::Applies { records, .. } => format!("applies, {} TLSA records", records.len()),
            Dane::Absent => "does not apply".to_owned(),
            Dane::Unknown(error) => format!("could not be looked up, so the host is skipped: {error}"),
        };
        steps.push(format!("DANE at {} {state}", seen.host));
        DaneHost { host: seen.host.clone(), state }
    });
    states.collect()
}

/// Explains how hosts without TLSA records are treated when others have them: one level applies to all hosts (DANE-13).
fn open_step(looked: &LookupTrace, found: &EffectivePolicy) -> Option<String> {
    let Route::Hosts(hosts) = &looked.route else { return None };
    let count = DaneHosts::of(hosts);
    let is_mixed = count.usable + count.unusable > 0 && count.absent > 0;
    if looked.source != Source::Dane || !is_mixed {
        return None;
    }
    Some(match found.mode() {
        Mode::Enforce => format!(
            "the {} hosts without TLSA records are not used, since one level applies to all hosts and the policy is enforced",
            count.absent
        ),
        _ => format!("TLS to the {} hosts without TLSA records can be stripped", count.absent),
    })
}

fn verdict(looked: &LookupTrace, entry: &Entry, found: &EffectivePolicy) -> String {
    match (&looked.route, looked.source, entry.level().as_deref()) {
        (Route::NoDomain, ..) => "the domain does not exist, so the message bounces",
        (Route::NullMx, ..) => "the domain accepts no mail (null MX), so the message bounces",
        (_, Source::Dane, Some("dane-only")) => {
            "DANE decides: TLS with a matching certificate, or the message is deferred"
        }
        (_, Source::Dane, _) => {
            "DANE decides for the hosts with TLSA records; for the others TLS is opportunistic"
        }
        (_, _, Some("secure")) => {
            "TLS with a verified certificate for an MX host in the policy, or the message is deferred"
        }
        (_, Source::Override, _) => "the configuration decides",
        _ if entry.status == Status::Temporary => "the message is deferred",
        _ if found.mode() == Mode::Testing => {
            "delivers as without a policy, and reports failures that enforcement would have deferred"
        }
        _ => "delivers with opportunistic TLS, which anyone on the path can strip",
    }
    .to_owned()
}
