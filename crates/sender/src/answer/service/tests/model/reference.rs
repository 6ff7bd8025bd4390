//! The pure reference: the one right answer for a state of the world, and how long it may be used.
//!
//! It is written from the documents (docs/answers.md, docs/postfix.md, RFC 7672 §2, RFC 8461 §5), host by host, and
//! shares no code with [`crate::answer::decide`]. [`weaker_than_a_policy`] and [`weaker_than_dane`] state the promise
//! again, without the table: no answer is weaker than a live policy or than DANE that is proved.

use super::acts::{Config, DAY, PINNED, RuleKind};
use super::world::{APEX, Address, Host, MxAnswer, PolicyFile, Record, Tlsa, Zone};
use crate::answer::decide::{DefaultLevel, Source};
use crate::answer::maps;
use formats::Mode;

/// What a mail server asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `domain`
    Domain,
    /// `domain:25`, which is the same next hop
    DomainAt25,
    /// `domain:587`
    DomainAt587,
    /// `[domain]`
    Host,
    /// `domain`, asked through the map [`MAP`]
    Named,
}

/// The name of the set of settings of [`Key::Named`].
pub const MAP: &str = "strict";

impl Key {
    /// The keys that differ in the cache.
    pub const CACHED: [Self; 4] = [Self::Domain, Self::DomainAt587, Self::Host, Self::Named];

    /// The named set of settings; `None` for the default one.
    pub fn set(self) -> Option<&'static str> {
        (self == Self::Named).then_some(MAP)
    }

    /// The key of the service's cache.
    pub fn cache_key(self, domain: &str) -> String {
        self.set().map_or_else(|| self.text(domain), |set| maps::key(set, &self.text(domain)))
    }

    pub fn text(self, domain: &str) -> String {
        match self {
            Self::Domain | Self::Named => domain.to_owned(),
            Self::DomainAt25 => format!("{domain}:25"),
            Self::DomainAt587 => format!("{domain}:587"),
            Self::Host => format!("[{domain}]"),
        }
    }

    pub fn canonical(self) -> Self {
        if self == Self::DomainAt25 { Self::Domain } else { self }
    }
}

/// An answer, as far as the model compares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The reply without TLSRPT attributes. The reason of a temporary failure is left out.
    pub plain: String,
    /// The level that a mail server with TLSRPT gets, or the status word.
    pub level: String,
    pub source: Source,
}

impl Reply {
    fn status(word: &str, source: Source) -> Self {
        Self { plain: word.to_owned(), level: word.to_owned(), source }
    }

    fn level(level: &str, source: Source) -> Self {
        Self { plain: format!("OK {level}"), level: level.to_owned(), source }
    }

    fn secure(number: u32, source: Source) -> Self {
        let plain = format!("OK secure match=mx{number}.example servername=hostname");
        Self { plain, level: "secure".to_owned(), source }
    }

    /// True if it is the answer by this enforced policy.
    pub fn is_by(&self, policy: PolicyFile) -> bool {
        policy.names_a_host && *self == Self::secure(policy.number, self.source)
    }
}

/// A range of seconds: its ends differ only after steps of the clock.
pub type Rest = (u64, u64);

/// The policy that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A policy with its remaining life.
    Policy(PolicyFile, Rest),
    /// A policy is announced but can't be fetched.
    Unavailable,
    None,
}

/// What DANE says about an MX host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    Usable,
    Unusable,
    Absent,
    Unknown,
    /// TLSA records, or unknown ones, behind an unsigned MX answer.
    Behind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Failing,
    Bogus,
    NoHosts,
    Hosts(Vec<HostState>),
}

/// The hosts of a next hop, and the shortest TTL of the answers that matter.
pub fn route(key: Key, zone: &Zone) -> (Route, Option<u64>) {
    let ttl = Some(zone.ttls.mx);
    let (hosts, is_secure, ttl) = match (key, zone.mx) {
        (Key::Host, _) => (&[APEX][..], true, None),
        (_, MxAnswer::Hosts(hosts)) => (hosts, zone.is_signed, ttl),
        (_, MxAnswer::NoData) => (&[APEX][..], zone.is_signed, ttl),
        (_, MxAnswer::NoDomain | MxAnswer::Null) => return (Route::NoHosts, ttl),
        (_, MxAnswer::Timeout) => return (Route::Failing, None),
        (_, MxAnswer::Bogus) => return (Route::Bogus, None),
    };
    let all = hosts.iter().map(|host| host_state(zone.hosts[*host], key != Key::DomainAt587, zone.ttls.host));
    let matters = |state: &HostState| is_secure || *state != HostState::Absent;
    let ttl = all.clone().filter(|(state, _)| matters(state)).map(|(_, ttl)| ttl).chain(ttl).min();
    let behind = |state: HostState| match state {
        state if is_secure || state == HostState::Absent => state,
        _ => HostState::Behind,
    };
    (Route::Hosts(all.map(|(state, _)| behind(state)).collect()), ttl)
}

fn host_state(host: Host, is_port_25: bool, ttl: u64) -> (HostState, u64) {
    match (host.address, host.tlsa) {
        (Address::Timeout, _) => (HostState::Unknown, FAILURE),
        (Address::Absent | Address::Unsigned, _) => (HostState::Absent, ttl),
        (Address::Signed, Tlsa::Unproven | Tlsa::Bogus | Tlsa::Timeout) => (HostState::Unknown, ttl),
        (Address::Signed, Tlsa::Usable) if is_port_25 => (HostState::Usable, ttl),
        (Address::Signed, Tlsa::Unusable) if is_port_25 => (HostState::Unusable, ttl),
        (Address::Signed, _) => (HostState::Absent, ttl),
    }
}

/// The right answer.
pub fn answer(config: Config, route: &Route, found: Found) -> Reply {
    let found = match config.rule {
        RuleKind::Answer => return Reply::level("encrypt", Source::Override),
        RuleKind::SkipMtaSts => Found::None,
        RuleKind::Pinned => Found::Policy(
            PolicyFile { number: PINNED, mode: Mode::Enforce, max_age: 0, names_a_host: true },
            (u64::MAX, u64::MAX),
        ),
        RuleKind::None | RuleKind::SkipDane => found,
    };
    let hosts: &[HostState] = match route {
        Route::Failing | Route::Bogus => return Reply::status("TEMP", Source::Failure),
        Route::NoHosts if !matches!(found, Found::Policy(..)) => {
            return Reply::status("NOTFOUND", Source::NoPolicy);
        }
        Route::Hosts(hosts) if config.rule != RuleKind::SkipDane => hosts,
        Route::NoHosts | Route::Hosts(_) => &[],
    };
    by_dane(config, hosts, is_enforced(found)).unwrap_or_else(|| by_policy(config, hosts, found))
}

fn is_enforced(found: Found) -> bool {
    matches!(found, Found::Policy(file, _) if file.mode == Mode::Enforce)
}

/// The answer where DANE decides, or where it may and can't be looked up.
fn by_dane(config: Config, hosts: &[HostState], is_enforced: bool) -> Option<Reply> {
    let has = |state| hosts.contains(&state);
    let all = |state| !hosts.is_empty() && hosts.iter().all(|host| *host == state);
    let has_dane = has(HostState::Usable) || has(HostState::Unusable) || has(HostState::Unknown);
    let is_strict = config.default_level == DefaultLevel::Stricter;
    if all(HostState::Unknown) {
        return Some(Reply::status("TEMP", Source::Failure));
    }
    if all(HostState::Usable) || has(HostState::Usable) && (is_enforced || is_strict) {
        return Some(Reply::level("dane-only", Source::Dane));
    }
    match (has_dane, is_enforced) {
        (false, _) => None,
        (true, true) if has(HostState::Unknown) => Some(Reply::status("TEMP", Source::Failure)),
        (true, true) => None,
        (true, false) if is_strict => Some(Reply::status("NOTFOUND", Source::Dane)),
        (true, false) => Some(Reply::level("dane", Source::Dane)),
    }
}

/// The answer by MTA-STS alone.
fn by_policy(config: Config, hosts: &[HostState], found: Found) -> Reply {
    let source = if config.rule == RuleKind::Pinned { Source::Override } else { Source::MtaSts };
    let level = if config.is_testing_encrypt { "encrypt" } else { "may" };
    let is_behind = hosts.contains(&HostState::Behind);
    let is_may = config.default_level == DefaultLevel::May;
    // What only carries attributes must not be weaker than what the mail server does without an answer (VAL-27).
    let is_weaker = if config.is_testing_encrypt { !is_may && is_behind } else { !is_may || is_behind };
    let reported = |source| match is_weaker {
        true => Reply::status("NOTFOUND", source),
        false => Reply { plain: "NOTFOUND".to_owned(), level: level.to_owned(), source },
    };
    match found {
        Found::None => Reply::status("NOTFOUND", Source::NoPolicy),
        Found::Unavailable => reported(Source::NoPolicy),
        Found::Policy(file, _) => match file.mode {
            Mode::Enforce if !file.names_a_host => Reply::status("TEMP", source),
            Mode::Enforce => Reply::secure(file.number, source),
            Mode::Testing if config.is_testing_encrypt && !is_weaker => Reply::level("encrypt", source),
            Mode::Testing => reported(source),
            Mode::None => Reply::status("NOTFOUND", source),
        },
    }
}

/// How long a failed lookup is remembered, in seconds.
const FAILURE: u64 = 30;
/// How long "no policy" is used at most, in seconds.
const NOTHING: u64 = 3600;

/// The longest times in seconds until an answer from this source is looked up again, and until it expires.
pub fn lifetime(
    config: Config,
    zone: &Zone,
    route_ttl: Option<u64>,
    reply: &Reply,
    found: Found,
) -> (u64, u64) {
    let is_discovered = matches!(config.rule, RuleKind::None | RuleKind::SkipDane);
    let record_ttl = if zone.record == Record::Timeout { FAILURE } else { zone.ttls.record };
    let ttl = route_ttl.into_iter().chain(is_discovered.then_some(record_ttl)).min();
    let least = config.recheck;
    let ttl = ttl.unwrap_or(least).max(least).min(u64::from(DAY).max(least));
    match (reply.source, found) {
        (Source::Override, _) if config.rule == RuleKind::Answer => (u64::MAX, u64::MAX),
        (Source::Override, _) => (ttl, u64::MAX),
        (Source::Failure, _) => (FAILURE, FAILURE),
        (Source::MtaSts, Found::Policy(file, (_, rest))) if file.mode == Mode::Enforce => {
            (ttl.min(rest), rest)
        }
        (Source::MtaSts, Found::Policy(_, (_, rest))) => (ttl.min(rest), ttl.min(rest)),
        (Source::NoPolicy, _) => (ttl.min(NOTHING.max(least)), ttl.min(NOTHING.max(least))),
        (Source::Dane | Source::MtaSts | Source::Test, _) => (ttl, ttl),
    }
}

/// Why an answer is weaker than this live policy; `None` if it is not. A temporary failure is weaker than nothing.
pub fn weaker_than_a_policy(reply: &Reply, policy: PolicyFile) -> Option<String> {
    let is_kept = policy.mode != Mode::Enforce
        || [reply.plain.as_str(), reply.level.as_str()].contains(&"TEMP")
        || reply.level == "dane-only"
        || reply.is_by(policy);
    (!is_kept).then(|| format!("{reply:?} is weaker than {policy:?}"))
}

/// Why an answer is weaker than DANE; `None` if it is not.
pub fn weaker_than_dane(reply: &Reply, hosts: &[HostState], is_enforced: bool) -> Option<String> {
    let needs_dane = hosts.contains(&HostState::Usable);
    let is_needed_at_all = needs_dane && (is_enforced || hosts.iter().all(|host| *host == HostState::Usable));
    let is_kept = match reply.level.as_str() {
        "TEMP" | "dane-only" => true,
        "dane" => !is_needed_at_all,
        _ => !needs_dane,
    };
    (!is_kept).then(|| format!("{reply:?} is weaker than DANE at {hosts:?}"))
}
