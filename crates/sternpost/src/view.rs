//! Policy answers for people and scripts (docs/answers.md, docs/query.md). [`Remembered`] is an answer of the running
//! server with the cached policy; the control socket and the HTTP interface send it as JSON. [`Explained`] is the
//! outcome of a fresh lookup by `sternpost query`, with each step of it.

pub mod dane;

use dane::{DaneHost, PostfixAlone};
use formats::policy::PolicyNote;
use formats::{DomainName, Mode, MxPattern, Policy};
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use net::dns::DnsError;
use sender::answer::decide::Source;
use sender::answer::entry::{ElapsedSeconds, Entry, Status};
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
    /// What Postfix would do without Sternpost, as far as [`Self::dane`] shows it; `None` if that is all zero.
    #[serde(default)]
    pub postfix_alone: Option<PostfixAlone>,
    /// Seconds until the answer is looked up again; 0 when the lookup is due, [`u32::MAX`] when there is none.
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
    /// The lifetime of the policy from its fetch, in seconds.
    #[serde(default)]
    pub max_age: u32,
    /// The `max_age` in the policy file if it exceeds the maximum, which then applies; `None` otherwise.
    #[serde(default)]
    pub max_age_published: Option<u64>,
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
            postfix_alone: PostfixAlone::of_counts(entry.dane),
            recheck_in: match entry.recheck {
                ElapsedSeconds::MAX => u32::MAX,
                recheck => recheck.saturating_sub(answers.second()),
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
            max_age: held.policy.max_age,
            max_age_published: capped_max_age(&held.policy),
            fetched_at: whole_second(held.fetched_at),
            expires_at: whole_second(expires),
            file: held.body.clone(),
        }
    }
}

/// The published `max_age` if it exceeds the maximum, so that the policy expires earlier; otherwise `None`.
fn capped_max_age(policy: &Policy) -> Option<u64> {
    policy.notes.iter().find_map(|note| match note {
        PolicyNote::MaxAgeCapped(published) => Some(*published),
        _ => None,
    })
}

fn texts(patterns: &[MxPattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

fn whole_second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// The socketmap reply to a mail server; with `tlsrpt`, with the TLSRPT attributes.
pub fn reply(entry: &Entry, tlsrpt: bool) -> String {
    format!("{} {}", entry.reply_status(tlsrpt), entry.text(tlsrpt)).trim_end().to_owned()
}

/// What a sender would do with mail for a domain now, and why, from a fresh lookup.
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
    /// The MX hosts, each with the reason why DANE does not authenticate it.
    pub dane: Vec<DaneHost>,
    /// What Postfix would do without Sternpost; `None` if an override made the lookup unnecessary.
    pub postfix_alone: Option<PostfixAlone>,
    /// Further findings.
    pub notes: Vec<Note>,
    /// The socketmap reply to Postfix, without TLSRPT attributes.
    pub postfix: String,
    /// The socketmap reply with the TLSRPT attributes of Postfix 3.10.
    pub postfix_tlsrpt: String,
    /// Each step of the lookup and its result.
    pub steps: Vec<String>,
    /// True when the `_mta-sts` record or the MX records could not be looked up.
    #[serde(skip)]
    pub is_unknown: bool,
}

/// Something that the answer does not show: a finding, its consequence, and the remedy.
#[derive(Debug, serde::Serialize)]
pub struct Note {
    /// What was found.
    pub finding: String,
    /// What follows for mail.
    pub consequence: String,
    /// What can be done.
    pub remedy: String,
}

impl Explained {
    /// Explains the trace of a lookup. `sees_dnssec` is false if the configuration switches DNSSEC off.
    pub fn of(hop: &NextHop, looked: &LookupTrace, sees_dnssec: bool) -> Self {
        let domain = hop.policy_domain().clone();
        let mut steps: Vec<String> = rule_step(looked).into_iter().collect();
        let found = looked.discovery.as_ref().map_or(&EffectivePolicy::None, |discovery| &discovery.found);
        if let Some(discovery) = &looked.discovery {
            steps.push(record_step(&domain, &discovery.seen));
            steps.extend(policy_step(&domain, found));
        }
        let is_enforced = found.mode() == Mode::Enforce;
        let dane = dane::hosts(&domain, looked, is_enforced, sees_dnssec);
        steps.extend(route_step(&domain, &looked.route));
        steps.extend(dane.iter().map(|host| format!("DANE at {} {}", host.host, host.state)));
        steps.extend(open_step(looked, found));
        let entry = Entry::new(&looked.answer, looked.source, DaneHosts::default(), 0, 0);
        let held = match found {
            EffectivePolicy::Policy { held, .. } => Some(held),
            EffectivePolicy::Unavailable(_) | EffectivePolicy::None => None,
        };
        let record_unknown = looked
            .discovery
            .as_ref()
            .is_some_and(|discovery| matches!(discovery.seen, RecordLookup::Unknown(_)));
        Self {
            schema: 1,
            verdict: verdict(looked, &entry, found),
            source: looked.source,
            mode: found.mode(),
            policy: held.map(|held| held.body.clone()),
            policy_id: held.map(|held| held.id.to_string()),
            dane,
            postfix_alone: PostfixAlone::of_route(looked, sees_dnssec),
            notes: notes(&domain, looked, found),
            postfix: reply(&entry, false),
            postfix_tlsrpt: reply(&entry, true),
            steps,
            is_unknown: record_unknown
                || matches!(&looked.route, Route::Unknown(error) if *error != DnsError::Bogus),
            domain,
        }
    }
}

/// Findings that the answer does not show.
fn notes(domain: &DomainName, looked: &LookupTrace, found: &EffectivePolicy) -> Vec<Note> {
    match (looked.source, found) {
        (Source::Dane, EffectivePolicy::Unavailable(why)) => vec![Note {
            finding: format!("{domain} announces an MTA-STS policy that is not available: {why}"),
            consequence: format!(
                "DANE decides, so this mail is not affected. Senders without DANE have no policy. A TLS report may list \
                 both (RFC 8460 §4.3); the answer names DANE alone, so Postfix does not report {}.",
                why.result_type()
            ),
            remedy: format!("The operator of {domain} can repair the policy host: sternpost check {domain}"),
        }],
        (Source::Dane, EffectivePolicy::Policy { held, refresh_error: Some(why) }) => vec![Note {
            finding: format!("the MTA-STS policy of {domain} could not be renewed: {why}"),
            consequence: format!("DANE decides; the policy stays in force until {}.", held.expires_at()),
            remedy: format!("The operator of {domain} can repair the policy host: sternpost check {domain}"),
        }],
        _ => Vec::new(),
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
            "https://mta-sts.{domain}/.well-known/mta-sts.txt has mode {}, max_age {}{}",
            held.policy.mode,
            held.policy.max_age,
            match capped_max_age(&held.policy) {
                Some(published) => format!(", which is the maximum (the file has {published})"),
                None => String::new(),
            }
        )),
        EffectivePolicy::Unavailable(why) => {
            Some(format!("no policy is available ({}): {why}", why.result_type()))
        }
        EffectivePolicy::None => None,
    }
}

/// The step for a route without hosts.
fn route_step(domain: &DomainName, route: &Route) -> Option<String> {
    match route {
        Route::Hosts(_) => None,
        Route::NoDomain => Some(format!("the domain {domain} does not exist")),
        Route::NullMx => Some(format!("{domain} has the null MX")),
        Route::Unknown(error) => Some(format!("the MX records of {domain} could not be looked up: {error}")),
    }
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
            "hosts without TLSA records, of which there are {}, are not used, since one level applies to all hosts and the policy is enforced",
            count.absent
        ),
        _ => {
            format!("TLS to hosts without TLSA records, of which there are {}, can be stripped", count.absent)
        }
    })
}

fn verdict(looked: &LookupTrace, entry: &Entry, found: &EffectivePolicy) -> String {
    match (&looked.route, looked.source, entry.level().as_deref()) {
        (_, Source::Test, _) => "the test domain, which is always answered and never receives mail",
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

#[cfg(test)]
mod tests;
