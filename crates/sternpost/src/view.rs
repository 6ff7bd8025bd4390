//! An answer as people and scripts see it (docs/answers.md): from memory, or from a look-up now.

use formats::{DomainName, Mode, MxPattern};
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use net::dane::Dane;
use net::dns::DnsError;
use sender::answer::decide::Source;
use sender::answer::entry::{Entry, Status};
use sender::answer::route::{DaneHosts, NextHop, Route};
use sender::answer::sts::{EffectivePolicy, HeldPolicy, RecordLookup};
use sender::answer::{Answers, LookupTrace};
use std::sync::Arc;
use std::time::Duration;

/// What is remembered of a next hop.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// The version of this shape.
    pub schema: u32,
    /// The next hop: a domain, or `[host]`.
    pub next_hop: String,
    /// What decided the answer: dane, mta-sts, override, nothing or failure.
    pub source: String,
    /// What Postfix is answered.
    pub postfix: String,
    /// The same with the attributes of Postfix 3.10.
    pub postfix_tlsrpt: String,
    /// The names that a verified certificate may be for; empty unless the level is `secure`.
    pub mx: Vec<String>,
    /// The MX hosts by what DANE says of them.
    pub dane: serde_json::Value,
    /// Seconds until the answer is looked up again; 0 when that is due.
    pub recheck_in: u32,
    /// The policy, when one is remembered.
    pub policy: Option<RememberedPolicy>,
}

/// A policy that is remembered.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct RememberedPolicy {
    /// Its mode.
    pub mode: Mode,
    /// The `id` under which it was fetched.
    pub id: String,
    /// Its `mx` patterns.
    pub mx: Vec<String>,
    /// When it was fetched.
    pub fetched_at: String,
    /// When it ends.
    pub expires_at: String,
    /// The file.
    pub file: String,
}

impl Remembered {
    /// The answer that is in memory or is looked up for this.
    pub async fn of(answers: &Arc<Answers>, hop: &NextHop, entry: &Entry) -> Self {
        let policy = answers.remembered(hop.policy_domain()).await;
        Self {
            schema: 1,
            next_hop: hop.to_string(),
            source: entry.source.as_str().to_owned(),
            postfix: reply(entry, false),
            postfix_tlsrpt: reply(entry, true),
            mx: texts(&entry.patterns()),
            dane: serde_json::to_value(entry.dane).unwrap_or_default(),
            recheck_in: entry.recheck.saturating_sub(answers.second()),
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

/// The reply to a mail server, as it stands in the protocol.
pub fn reply(entry: &Entry, tlsrpt: bool) -> String {
    format!("{} {}", entry.word(tlsrpt), entry.text(tlsrpt)).trim_end().to_owned()
}

/// What a sender would do now, and why, from a look-up made for this.
#[derive(Debug, serde::Serialize)]
pub struct Explained {
    schema: u32,
    domain: DomainName,
    /// What follows for a delivery, in a sentence without its full stop.
    pub verdict: String,
    source: Source,
    mode: Mode,
    policy: Option<String>,
    policy_id: Option<String>,
    dane: Vec<DaneHost>,
    /// The reply with the attributes of Postfix 3.10.
    pub postfix: String,
    /// Each look and what came of it.
    pub steps: Vec<String>,
    /// The record or the MX records could not be looked up.
    #[serde(skip)]
    pub is_unknown: bool,
}

#[derive(Debug, serde::Serialize)]
struct DaneHost {
    host: DomainName,
    state: String,
}

impl Explained {
    /// Puts it in words.
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
        (Some(_), ..) => "gives the answer",
        (_, Some(_), _, true) => "pins the policy and leaves DANE out",
        (_, Some(_), ..) => "pins the policy",
        (.., true, true) => "leaves MTA-STS and DANE out",
        (.., true, false) => "leaves MTA-STS out",
        _ => "leaves DANE out",
    };
    Some(format!("an override of the configuration {what}"))
}

fn record_step(domain: &DomainName, seen: &RecordLookup) -> String {
    let outcome = match seen {
        RecordLookup::Published(record) => format!("announces id {}", record.id),
        RecordLookup::Absent => "is not there: no MTA-STS".to_owned(),
        RecordLookup::Invalid(why) => format!("does not count: {why}"),
        RecordLookup::Unknown(why) => format!("can't be looked up: {why}"),
    };
    format!("the record _mta-sts.{domain} {outcome}")
}

fn policy_step(domain: &DomainName, found: &EffectivePolicy) -> Option<String> {
    match found {
        EffectivePolicy::Policy { held, .. } => Some(format!(
            "https://mta-sts.{domain}/.well-known/mta-sts.txt gives mode {}, max_age {}",
            held.policy.mode, held.policy.max_age
        )),
        EffectivePolicy::Unavailable(why) => {
            Some(format!("no policy can be had ({}): {why}", why.result_type()))
        }
        EffectivePolicy::None => None,
    }
}

fn dane_steps(domain: &DomainName, route: &Route, steps: &mut Vec<String>) -> Vec<DaneHost> {
    let hosts = match route {
        Route::Hosts(hosts) => hosts,
        Route::NoDomain => {
            steps.push(format!("there is no domain {domain}"));
            return Vec::new();
        }
        Route::NullMx => {
            steps.push(format!("{domain} has the null MX"));
            return Vec::new();
        }
        Route::Unknown(error) => {
            steps.push(format!("the MX records of {domain}: {error}"));
            return Vec::new();
        }
    };
    let told = hosts.iter().map(|seen| {
        let state = match &seen.dane {
            Dane::Applies { records, .. } => format!("applies, {} TLSA records", records.len()),
            Dane::Absent => "does not apply".to_owned(),
            Dane::Unknown(error) => format!("can't be known, so the host is skipped: {error}"),
        };
        steps.push(format!("DANE at {} {state}", seen.host));
        DaneHost { host: seen.host.clone(), state }
    });
    told.collect()
}

/// What one level for all hosts leaves open (DANE-13).
fn open_step(looked: &LookupTrace, found: &EffectivePolicy) -> Option<String> {
    let Route::Hosts(hosts) = &looked.route else { return None };
    let count = DaneHosts::of(hosts);
    let is_mixed = count.usable + count.unusable > 0 && count.absent > 0;
    if looked.source != Source::Dane || !is_mixed {
        return None;
    }
    Some(match found.mode() {
        Mode::Enforce => format!(
            "the {} hosts without TLSA records are not used, since one level has to hold for all and the policy is enforced",
            count.absent
        ),
        _ => format!("the {} hosts without TLSA records are open to stripping", count.absent),
    })
}

fn verdict(looked: &LookupTrace, entry: &Entry, found: &EffectivePolicy) -> String {
    match (&looked.route, looked.source, entry.level().as_deref()) {
        (Route::NoDomain, ..) => "there is no such domain, so the message is returned",
        (Route::NullMx, ..) => "the domain takes no mail (null MX), so the message is returned",
        (_, Source::Dane, Some("dane-only")) => {
            "DANE decides: TLS with a matching certificate, or the message waits"
        }
        (_, Source::Dane, _) => {
            "DANE decides for the hosts that have TLSA records; the others get TLS where they offer it"
        }
        (_, _, Some("secure")) => {
            "TLS with a verified certificate for an MX host of the policy, or the message waits"
        }
        (_, Source::Override, _) => "the configuration decides",
        _ if entry.status == Status::Temporary => "the message waits",
        _ if found.mode() == Mode::Testing => {
            "delivers as without a policy, and reports what enforcement would have refused"
        }
        _ => "delivers with TLS where it is offered; anyone on the path can strip it",
    }
    .to_owned()
}
