//! Decides the answer for a next hop and its lifetime (RFC 8461 §2, §5; RFC 7672 §2; postconf(5), TLSRPT_README).
//!
//! [`decide`] is the only place that makes answers and lifetimes. It does no I/O and reads no clock: its input is
//! [`DecisionInput`], from `lookup`, which also caches the result. The tests are tables of facts with the
//! expected answer, source and lifetime; add a row there for each new rule.

use super::overrides::Rule;
use super::route::{DaneHosts, NextHop, Route};
use super::sts::{EffectivePolicy, PolicyUnavailable};
use formats::limits::{FAILURE_RECHECK, NOTHING_RECHECK, POLICY_REFRESH};
use formats::policy::lines;
use formats::tls_policy::{Answer, Level, Tlsrpt, TlsrptPolicy};
use formats::{DomainName, Mode, Policy};
use net::dns::DnsError;
use std::borrow::Cow;
use std::time::Duration;

/// The protocol or rule that an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// TLSA records of the MX hosts.
    Dane,
    /// An MTA-STS policy, in any mode.
    MtaSts,
    /// A rule of the operator's override table.
    Override,
    /// No policy applies.
    #[serde(rename = "nothing")]
    NoPolicy,
    /// A lookup failed, so the policy is unknown and the message is deferred.
    Failure,
    /// The fixed answer for [`formats::tls_policy::TEST_DOMAIN`], which receives no mail.
    Test,
}

impl Source {
    /// Every source, in the order of the variants.
    pub const ALL: [Self; 6] =
        [Self::Dane, Self::MtaSts, Self::Override, Self::NoPolicy, Self::Failure, Self::Test];

    /// The value of the `source` label in metrics, and the value in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dane => "dane",
            Self::MtaSts => "mta-sts",
            Self::Override => "override",
            Self::NoPolicy => "nothing",
            Self::Failure => "failure",
            Self::Test => "test",
        }
    }
}

/// The MX hosts of a next hop, as far as a decision depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MxHosts<'a> {
    /// The MX hosts are known; the counts give their DANE states.
    Known(DaneHosts),
    /// The MX answer names no host: NXDOMAIN, or the null MX of RFC 7505.
    None,
    /// The MX lookup failed.
    Unknown(&'a DnsError),
}

impl<'a> MxHosts<'a> {
    /// Counts the hosts of a route.
    pub fn of(route: &'a Route) -> Self {
        match route {
            Route::Hosts(hosts) => Self::Known(DaneHosts::of(hosts)),
            Route::NoDomain | Route::NullMx => Self::None,
            Route::Unknown(error) => Self::Unknown(error),
        }
    }
}

/// Where the facts of a decision come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The facts were looked up just now.
    LookedUp {
        /// The shortest TTL of the DNS answers; `None` when no DNS answer had one.
        ttl: Option<Duration>,
    },
    /// The facts were read from the store, where an earlier lookup saved them.
    Stored,
}

/// Everything that an answer and its lifetime depend on.
#[derive(Debug, Clone, Copy)]
pub struct DecisionInput<'a> {
    /// The policy domain of the next hop.
    pub domain: &'a DomainName,
    /// The MX hosts and their DANE states, before [`Self::rule`] is applied.
    pub hosts: MxHosts<'a>,
    /// The result of MTA-STS discovery; `None` when the operator's rule made it unnecessary.
    pub found: Option<&'a EffectivePolicy>,
    /// The remaining lifetime of the policy in [`Self::found`]; `None` when that holds no policy.
    pub policy_rest: Option<Duration>,
    /// The operator's override rule for this domain.
    pub rule: Option<&'a Rule>,
    /// The level for domains whose policy is in `testing`; `None` lets the mail server use its default level, and
    /// [`Level::Secure`] enforces such policies.
    pub testing: Option<&'a Level>,
    /// The mail server's default level, which no answer may be weaker than (VAL-27).
    pub default_level: DefaultLevel,
    /// The minimum time between two lookups; it applies when the TTL is shorter.
    pub min_recheck: Duration,
    /// Whether the facts are fresh or stored.
    pub origin: Origin,
}

/// The TLS level that the mail server uses without an answer, as far as answers depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DefaultLevel {
    /// `none` or `may`: no answer is weaker.
    #[default]
    May,
    /// `dane`: `may` and `encrypt` are weaker for hosts with TLSA records.
    Dane,
    /// `encrypt`, `dane-only`, `fingerprint`, `verify` or `secure`: also `dane` is weaker, for hosts without TLSA records.
    Stricter,
}

impl DecisionInput<'_> {
    /// The mode in which a policy is applied: a policy in `testing` is enforced if the settings say so.
    fn applied_mode(&self, found: &EffectivePolicy) -> Mode {
        match (found.mode(), self.testing) {
            (Mode::Testing, Some(Level::Secure(_))) => Mode::Enforce,
            (mode, _) => mode,
        }
    }
}

/// An answer and its lifetime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The answer for the mail server.
    pub answer: Answer,
    /// The protocol or rule that the answer comes from.
    pub source: Source,
    /// The MX hosts by DANE state; all counts are 0 when a rule skips DANE.
    pub dane: DaneHosts,
    /// After this time the next request starts a lookup in the background.
    pub recheck: Duration,
    /// After this time the answer expires. [`Duration::MAX`] means that it does not expire; zero means that it is
    /// returned once and not cached.
    pub until: Duration,
    /// True when an unexpired answer in the cache takes precedence over this one: a failing resolver does not remove
    /// an answer. A chain that became bogus does (VAL-10).
    pub yields_to_cached: bool,
}

/// Decides the answer for a domain and its lifetime.
///
/// The operator's rule comes first: it gives the answer itself, or replaces or skips the policy or DANE. The MX
/// answer comes next. A failed lookup defers the message. An answer without hosts means that no policy applies, but
/// it never removes a live policy: MTA-STS does not authenticate the MX answer, so a forged one would strip the
/// policy (RFC 8461 §5.1, §10.2).
///
/// DANE precedes MTA-STS (VAL-11). One level has to serve all hosts of a domain. Where the hosts differ (DANE-13),
/// the level is the weakest one that bypasses neither protection:
///
/// | hosts | policy not enforced | policy enforced |
/// | --- | --- | --- |
/// | all with usable TLSA | `dane-only` | `dane-only` |
/// | some with usable TLSA | `dane`: the others as without a policy | `dane-only`: the others are not used |
/// | TLSA, none usable | `dane`: TLS without authentication | `secure`: DANE can't authenticate |
/// | some unknown | `dane`: Postfix skips those | `dane-only`, or the message is deferred |
/// | all unknown | the message is deferred | the message is deferred |
pub fn decide(facts: &DecisionInput<'_>) -> Decision {
    let rule = facts.rule;
    if let Some(answer) = rule.and_then(|rule| rule.answer.clone()) {
        return Decision {
            answer,
            source: Source::Override,
            dane: DaneHosts::default(),
            recheck: Duration::MAX,
            until: Duration::MAX,
            yields_to_cached: false,
        };
    }
    let pinned = rule.and_then(Rule::pinned);
    let is_pinned = pinned.is_some();
    let (found, policy_rest) = match (pinned, facts.found) {
        (Some(pinned), _) => (Cow::Owned(pinned), None),
        (None, Some(found)) if !rule.is_some_and(|rule| rule.skip_mta_sts) => {
            (Cow::Borrowed(found), facts.policy_rest)
        }
        _ => (Cow::Owned(EffectivePolicy::None), None),
    };
    let dane = match facts.hosts {
        MxHosts::Known(dane) if !rule.is_some_and(|rule| rule.skip_dane) => dane,
        _ => DaneHosts::default(),
    };
    let (answer, source) = match facts.hosts {
        MxHosts::Unknown(error) => (unknown_mx(facts.domain, error), Source::Failure),
        MxHosts::None if !matches!(*found, EffectivePolicy::Policy { .. }) => {
            (Answer::NotFound, Source::NoPolicy)
        }
        MxHosts::Known(_) | MxHosts::None => by_policies(facts, dane, &found),
    };
    let source = match source {
        Source::MtaSts if is_pinned => Source::Override,
        source => source,
    };
    let (recheck, until) = lifetime(facts, source, facts.applied_mode(&found), policy_rest);
    let yields_to_cached = matches!(facts.hosts, MxHosts::Unknown(error) if *error != DnsError::Bogus);
    Decision { answer, source, dane, recheck, until, yields_to_cached }
}

/// The times until the recheck and the expiry of an answer from this source. `mode` and `policy_rest` are the mode and
/// the remaining lifetime of the published policy, if one applies.
///
/// Only an enforced policy is used beyond the TTL of the DNS answers. Any other answer may be weaker than the one that
/// a lookup gives by then.
fn lifetime(
    facts: &DecisionInput<'_>,
    source: Source,
    mode: Mode,
    policy_rest: Option<Duration>,
) -> (Duration, Duration) {
    let enforced_rest = policy_rest.filter(|_| source == Source::MtaSts && mode == Mode::Enforce);
    let Origin::LookedUp { ttl } = facts.origin else {
        // Due for a lookup at once, valid until the policy expires.
        return (Duration::ZERO, enforced_rest.unwrap_or_default());
    };
    let ttl =
        ttl.unwrap_or(facts.min_recheck).clamp(facts.min_recheck, POLICY_REFRESH.max(facts.min_recheck));
    if let Some(rest) = enforced_rest {
        return (ttl.min(rest), rest);
    }
    match (source, policy_rest) {
        // A pinned policy does not expire, but DANE precedes it (VAL-11), so the hosts are looked up again.
        (Source::Override, _) if mode == Mode::Enforce => (ttl, Duration::MAX),
        (Source::Override, _) => (ttl * 4 / 5, ttl),
        (Source::Failure, _) => (FAILURE_RECHECK, FAILURE_RECHECK),
        (Source::MtaSts, Some(rest)) => (ttl.min(rest) * 4 / 5, ttl.min(rest)),
        (Source::NoPolicy, None) => {
            let life = ttl.min(NOTHING_RECHECK.max(facts.min_recheck));
            (life * 4 / 5, life)
        }
        // DANE: the answer is never used beyond its TTL, since the TLSA records may have changed with the certificate.
        _ => (ttl * 4 / 5, ttl),
    }
}

/// The DANE counts to store with a policy, so that the store alone can answer: those of the domain's hosts, before
/// the operator's rule is applied. `stored` is the text that the store has now.
///
/// A failing resolver, an MX answer without hosts and a lookup of a single host keep the stored text. A bogus chain
/// clears it, so that the store does not answer until the chain validates again (VAL-10).
pub fn dane_to_store(hop: &NextHop, route: &Route, stored: &str) -> String {
    match (hop, route) {
        (_, Route::NoDomain | Route::NullMx) => stored.to_owned(),
        (hop, _) if !hop.is_mail_domain() => stored.to_owned(),
        (_, Route::Hosts(hosts)) => DaneHosts::of(hosts).to_text(),
        (_, Route::Unknown(DnsError::Bogus)) => String::new(),
        (_, Route::Unknown(_)) => stored.to_owned(),
    }
}

/// The answer by DANE and MTA-STS, following the table at [`decide`].
fn by_policies(facts: &DecisionInput<'_>, dane: DaneHosts, found: &EffectivePolicy) -> (Answer, Source) {
    let enforced = facts.applied_mode(found) == Mode::Enforce;
    let DaneHosts { usable, unusable, absent, unknown, .. } = dane;
    match (usable, unusable, absent, unknown) {
        (0, 0, 0, 1..) => (unknown_tlsa(facts.domain), Source::Failure),
        (1.., 0, 0, 0) => (level(Level::DaneOnly), Source::Dane),
        (1.., ..) if enforced => (level(Level::DaneOnly), Source::Dane),
        (0, _, _, 1..) if enforced => (unknown_tlsa(facts.domain), Source::Failure),
        (0, 0, _, 0) => by_mta_sts(facts, dane, found),
        (0, _, _, 0) if enforced => by_mta_sts(facts, dane, found),
        // Without usable records at every host, `dane` leaves TLS optional at some.
        (1.., ..) if facts.default_level == DefaultLevel::Stricter => (level(Level::DaneOnly), Source::Dane),
        _ if facts.default_level == DefaultLevel::Stricter => (Answer::NotFound, Source::Dane),
        _ => (level(Level::Dane), Source::Dane),
    }
}

fn level(level: Level) -> Answer {
    Answer::Level(level, None)
}

fn unknown_tlsa(domain: &DomainName) -> Answer {
    Answer::Temp(format!(
        "DANE: the TLSA records of the MX hosts of {domain} can't be looked up or fail DNSSEC validation; \
         to see why: sternpost query --trace {domain}"
    ))
}

fn unknown_mx(domain: &DomainName, error: &DnsError) -> Answer {
    let what = match error {
        DnsError::Bogus => "fail DNSSEC validation".to_owned(),
        other => format!("can't be looked up ({other})"),
    };
    Answer::Temp(format!("the MX records of {domain} {what}; to see why: sternpost query --trace {domain}"))
}

/// The answer by MTA-STS alone.
///
/// An enforced policy is answered also where the hosts have TLSA records behind an insecure MX answer: a forged MX
/// answer would remove DANE, and one level can't demand both. Such records are reported in the trace and a metric.
fn by_mta_sts(facts: &DecisionInput<'_>, dane: DaneHosts, found: &EffectivePolicy) -> (Answer, Source) {
    let domain = facts.domain;
    let (held, refresh_error) = match found {
        EffectivePolicy::Policy { held, refresh_error } => (held, refresh_error),
        EffectivePolicy::Unavailable(why) => {
            // No restriction, and a `policy_failure` for the TLS report (SMK-08).
            let failure = Some(why.result_type());
            let found = TlsrptPolicy::Sts { policy_string: Vec::new(), mx: Vec::new(), failure };
            let report = Tlsrpt { policy_domain: domain.clone(), found };
            let level = match facts.testing {
                Some(level @ (Level::May | Level::Encrypt | Level::Dane | Level::DaneOnly)) => level.clone(),
                // Without a policy there are no names that a certificate could be verified for.
                Some(Level::Secure(_)) | None => Level::May,
            };
            return (unrestricted(facts, dane, Answer::Reported(level, report)), Source::NoPolicy);
        }
        EffectivePolicy::None => return (Answer::NotFound, Source::NoPolicy),
    };
    let mode = facts.applied_mode(found);
    if mode == Mode::Enforce && held.policy.mx.is_empty() {
        return (no_valid_mx(domain, &held.policy), Source::MtaSts);
    }
    let report = Tlsrpt {
        policy_domain: domain.clone(),
        found: TlsrptPolicy::Sts {
            policy_string: lines(&held.body).map(str::to_owned).collect(),
            mx: held.policy.mx.clone(),
            failure: refresh_error.as_ref().map(PolicyUnavailable::result_type),
        },
    };
    let answer = match mode {
        // At level `secure` Postfix reports a policy_failure as a failed session, but a policy that could not be
        // renewed is still in force.
        Mode::Enforce => Answer::Level(Level::Secure(held.policy.mx.clone()), Some(without_failure(report))),
        Mode::Testing => {
            let answer = match facts.testing {
                Some(level) => Answer::Level(level.clone(), Some(report)),
                None => Answer::Reported(Level::May, report),
            };
            unrestricted(facts, dane, answer)
        }
        Mode::None => Answer::NotFound,
    };
    (answer, Source::MtaSts)
}

/// The answer for a policy that restricts nothing: `answer`, or "not found" where its level could be weaker than what the
/// mail server does by itself (VAL-27). That is the case where hosts have TLSA records behind an insecure MX answer,
/// which Postfix at level `dane` uses, and for `may` where the mail server's default level is stronger. The TLS
/// report about the policy then comes from Sternpost's own probes (RPT-26).
fn unrestricted(facts: &DecisionInput<'_>, dane: DaneHosts, answer: Answer) -> Answer {
    let (Answer::Reported(level, _) | Answer::Level(level, _)) = &answer else { return answer };
    let is_default_may = facts.default_level == DefaultLevel::May;
    let is_weaker = match level {
        Level::May => !is_default_may || dane.behind_insecure_mx > 0,
        Level::Encrypt => !is_default_may && dane.behind_insecure_mx > 0,
        Level::Dane | Level::DaneOnly | Level::Secure(_) => false,
    };
    if is_weaker { Answer::NotFound } else { answer }
}

/// The answer for an enforced policy that no MX host can match: level `secure` without a `match` would let Postfix match
/// names that the policy does not list.
fn no_valid_mx(domain: &DomainName, policy: &Policy) -> Answer {
    let example = policy.unmatchable.first().map_or("none", String::as_str);
    Answer::Temp(format!(
        "the enforced MTA-STS policy of {domain} names no valid MX host (its mx: {example}); \
         to see why: sternpost query --trace {domain}"
    ))
}

fn without_failure(mut report: Tlsrpt) -> Tlsrpt {
    if let TlsrptPolicy::Sts { failure, .. } = &mut report.found {
        *failure = None;
    }
    report
}

#[cfg(test)]
mod tests;
