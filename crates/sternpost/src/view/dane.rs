//! Why DANE applies to an MX host or not, and what Postfix would do without Sternpost (RFC 7672 §2.2; postconf(5),
//! `smtp_tls_security_level`, `smtp_tls_dane_insecure_mx_policy`). The input is the route of a lookup, or the counts that
//! a cached answer keeps; the result is a part of [`super::Explained`] and [`super::Remembered`].

use formats::tlsa::TlsaRule;
use formats::{DomainName, limits};
use net::dane::{Dane, NoDane};
use net::dns::{DnsError, Security};
use sender::answer::LookupTrace;
use sender::answer::decide::Source;
use sender::answer::route::{DaneHosts, HostLookup, Route};
use serde_json::Value;

/// The reason why DANE does not authenticate an MX host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The host has no TLSA records.
    NoTlsa,
    /// The zone with the host's addresses is not signed.
    UnsignedHost,
    /// The TLSA records are not signed.
    UnsignedTlsa,
    /// The host has TLSA records, but the MX records that name it are not signed.
    UnsignedMx,
    /// As [`Self::UnsignedMx`], and the answer is a policy in `enforce`, which takes the place of DANE.
    SetAside,
    /// No TLSA record of the host is usable.
    UnusableTlsa,
    /// The host has no addresses.
    NoAddresses,
    /// The lookup of the addresses or TLSA records failed.
    LookupFailed,
    /// The domain has more MX hosts than are looked up.
    NotLookedUp,
    /// An override of the configuration skips DANE.
    Override,
    /// `[dns]` has `dnssec = "off"`.
    DnssecOff,
}

/// An MX host in the output of `sternpost query`.
#[derive(Debug, serde::Serialize)]
pub struct DaneHost {
    /// The name of the host.
    pub host: DomainName,
    /// What was found: the predicate of a sentence about DANE at the host.
    pub state: String,
    /// Why DANE does not authenticate the host; `None` when it does.
    pub reason: Option<Reason>,
    /// True if the MX records that name the host are signed.
    pub mx_signed: bool,
    /// What follows for mail to the host; empty when DANE authenticates it.
    pub consequence: String,
    /// What can be done; empty when DANE authenticates the host.
    pub remedy: String,
}

/// What Postfix would do with mail for the domain if it did not ask Sternpost: predicates of a sentence, by the value of
/// `smtp_tls_security_level`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PostfixAlone {
    /// At level `may`.
    pub may: String,
    /// At level `dane`, with `smtp_dns_support_level = dnssec` and a validating resolver.
    pub dane: String,
}

/// MX hosts by what Postfix does with them at level `dane`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct AtLevelDane {
    authenticated: usize,
    /// TLS is mandatory, but the host is not authenticated.
    encrypted: usize,
    opportunistic: usize,
    /// Not used, since the TLSA records are unknown.
    skipped: usize,
}

/// Describes each MX host of a lookup. `is_enforced` is true if the answer is a policy in `enforce`; `sees_dnssec` is
/// false if the configuration switches DNSSEC off.
pub fn hosts(
    domain: &DomainName,
    looked: &LookupTrace,
    is_enforced: bool,
    sees_dnssec: bool,
) -> Vec<DaneHost> {
    let Route::Hosts(hosts) = &looked.route else { return Vec::new() };
    let skips_dane = looked.rule.as_ref().is_some_and(|rule| rule.skip_dane);
    let describe = |seen: &HostLookup| {
        let reason = match (sees_dnssec, skips_dane) {
            (false, _) => Some(Reason::DnssecOff),
            (true, true) => Some(Reason::Override),
            (true, false) => reason(seen, is_enforced && looked.source == Source::MtaSts),
        };
        DaneHost {
            host: seen.host.clone(),
            state: state(domain, seen, reason),
            reason,
            mx_signed: seen.mx == Security::Secure,
            consequence: reason
                .map(|reason| consequence(reason, looked.source, is_enforced))
                .unwrap_or_default(),
            remedy: reason.map(|reason| remedy(reason, domain, &seen.host)).unwrap_or_default(),
        }
    };
    hosts.iter().map(describe).collect()
}

/// Why DANE does not authenticate this host; `is_policy_answered` is true if the answer is a policy in `enforce`.
fn reason(seen: &HostLookup, is_policy_answered: bool) -> Option<Reason> {
    match (&seen.dane, seen.why_absent) {
        (Dane::Unknown(_), _) => Some(Reason::LookupFailed),
        (Dane::Applies { .. }, _) if seen.mx != Security::Secure => {
            Some(if is_policy_answered { Reason::SetAside } else { Reason::UnsignedMx })
        }
        (Dane::Applies { rule: TlsaRule::Authenticate(_), .. }, _) => None,
        (Dane::Applies { .. }, _) => Some(Reason::UnusableTlsa),
        (Dane::Absent, why) => Some(match why {
            Some(NoDane::UnsignedHost) => Reason::UnsignedHost,
            Some(NoDane::UnsignedTlsa) => Reason::UnsignedTlsa,
            Some(NoDane::UnsignedMx) => Reason::UnsignedMx,
            Some(NoDane::NoAddresses) => Reason::NoAddresses,
            Some(NoDane::NotLookedUp) => Reason::NotLookedUp,
            Some(NoDane::NoTlsa) | None => Reason::NoTlsa,
        }),
    }
}

fn state(domain: &DomainName, seen: &HostLookup, reason: Option<Reason>) -> String {
    let host = &seen.host;
    let records = match &seen.dane {
        Dane::Applies { records, .. } => records.len(),
        Dane::Absent | Dane::Unknown(_) => 0,
    };
    match reason {
        None => format!("applies, {records} TLSA records"),
        Some(Reason::NoTlsa) => format!("does not apply: there are no TLSA records at _25._tcp.{host}"),
        Some(Reason::UnsignedHost) => format!("does not apply: the zone of {host} is not signed"),
        Some(Reason::UnsignedTlsa) => "does not apply: the TLSA records are not signed".to_owned(),
        Some(Reason::UnsignedMx) => format!(
            "is left to Postfix, which uses the {records} TLSA records at level dane: the MX records of {domain} are not signed"
        ),
        Some(Reason::SetAside) => format!(
            "is set aside by the policy in mode enforce: the host has {records} TLSA records, but the MX records of {domain} are not signed"
        ),
        Some(Reason::UnusableTlsa) => {
            format!("can't authenticate the host: none of the {records} TLSA records is usable")
        }
        Some(Reason::NoAddresses) => "does not apply: the host has no addresses".to_owned(),
        Some(Reason::LookupFailed) => {
            let error = match &seen.dane {
                Dane::Unknown(error) => error.to_string(),
                Dane::Applies { .. } | Dane::Absent => String::new(),
            };
            match seen.mx {
                Security::Secure => format!("could not be looked up, so the host is skipped: {error}"),
                Security::Insecure | Security::Indeterminate => {
                    format!("could not be looked up ({error}), and the MX records of {domain} are not signed")
                }
            }
        }
        Some(Reason::NotLookedUp) => {
            format!("does not apply: only the first {} MX hosts are looked up", limits::MX_HOSTS)
        }
        Some(Reason::Override) => "is skipped by an override in the configuration".to_owned(),
        Some(Reason::DnssecOff) => "never applies, since the configuration switches DNSSEC off".to_owned(),
    }
}

fn consequence(reason: Reason, source: Source, is_enforced: bool) -> String {
    match (reason, source) {
        (Reason::UnusableTlsa, Source::Dane) => {
            "TLS to the host is mandatory, but nothing authenticates it; an active attacker can read the mail."
        }
        (Reason::LookupFailed, Source::Dane | Source::Failure) => {
            "The host is not used until the lookup succeeds; without another host, mail is deferred."
        }
        (_, Source::Dane) if is_enforced => "Other hosts have TLSA records, so this host is not used.",
        (_, Source::MtaSts) if is_enforced => "The policy in mode enforce authenticates the host instead.",
        (Reason::UnsignedMx, _) => {
            "Postfix authenticates the host at level dane; at level may, TLS to it can be stripped."
        }
        (_, Source::Override | Source::Failure | Source::Test) => "The answer below decides.",
        (_, Source::Dane | Source::MtaSts | Source::NoPolicy) => {
            "Nothing authenticates the host: TLS to it can be stripped."
        }
    }
    .to_owned()
}

fn remedy(reason: Reason, domain: &DomainName, host: &DomainName) -> String {
    match reason {
        Reason::NoTlsa => format!("The operator of {host} can publish TLSA records at _25._tcp.{host}."),
        Reason::UnsignedHost => {
            format!("The operator of {host} can sign its zone with DNSSEC, then publish TLSA records.")
        }
        Reason::UnsignedTlsa => {
            format!("The operator of {host} can sign the zone that has the TLSA records.")
        }
        Reason::UnsignedMx | Reason::SetAside => {
            format!("The operator of {domain} can sign its zone with DNSSEC; {host} needs no change.")
        }
        Reason::UnusableTlsa => {
            format!("The operator of {host} can publish a record of the form `3 1 1 DIGEST` (RFC 7672 §3.1).")
        }
        Reason::NoAddresses => format!("The operator of {domain} can correct the MX records."),
        Reason::LookupFailed => {
            format!("Compare with another resolver: dig +dnssec _25._tcp.{host} TLSA")
        }
        Reason::NotLookedUp => format!("The operator of {domain} can publish fewer MX records."),
        Reason::Override => "Remove skip_dane from the override.".to_owned(),
        Reason::DnssecOff => "Remove `dnssec = \"off\"` from [dns].".to_owned(),
    }
}

impl PostfixAlone {
    /// What Postfix would do after this lookup; `None` if the lookup was not necessary, so that the hosts are unknown.
    pub fn of_route(looked: &LookupTrace, sees_dnssec: bool) -> Option<Self> {
        match &looked.route {
            Route::Hosts(hosts) if hosts.is_empty() => None,
            Route::Hosts(_) if !sees_dnssec => Some(Self {
                dane: "unknown: the configuration switches DNSSEC off".to_owned(),
                ..Self::of(AtLevelDane::default())
            }),
            Route::Hosts(hosts) => Some(Self::of(AtLevelDane::of_hosts(hosts))),
            Route::NoDomain => Some(Self::same("the message bounces: the domain does not exist")),
            Route::NullMx => Some(Self::same("the message bounces: the domain accepts no mail (null MX)")),
            Route::Unknown(DnsError::Bogus) => {
                Some(Self::same("the message is deferred: the MX records fail DNSSEC validation"))
            }
            Route::Unknown(_) => {
                Some(Self::same("the message is deferred: the MX records can't be looked up"))
            }
        }
    }

    /// What Postfix would do, as far as the counts of a cached answer show it; `None` if they are all zero.
    pub fn of_counts(counts: DaneHosts) -> Option<Self> {
        (counts != DaneHosts::default()).then(|| Self::of(AtLevelDane::of_counts(counts)))
    }

    fn same(text: &str) -> Self {
        Self { may: text.to_owned(), dane: text.to_owned() }
    }

    fn of(hosts: AtLevelDane) -> Self {
        Self {
            may: "TLS is opportunistic, and anyone on the path can strip it".to_owned(),
            dane: hosts.in_words(),
        }
    }
}

impl AtLevelDane {
    fn of_hosts(hosts: &[HostLookup]) -> Self {
        let mut count = Self::default();
        for host in hosts {
            *match &host.dane {
                Dane::Applies { rule: TlsaRule::Authenticate(_), .. } => &mut count.authenticated,
                Dane::Applies { .. } => &mut count.encrypted,
                Dane::Absent => &mut count.opportunistic,
                Dane::Unknown(_) => &mut count.skipped,
            } += 1;
        }
        count
    }

    /// Hosts behind unsigned MX records are counted as authenticated, although some may have unusable or unknown records.
    fn of_counts(counts: DaneHosts) -> Self {
        let behind = usize::from(counts.behind_insecure_mx);
        Self {
            authenticated: usize::from(counts.usable) + behind,
            encrypted: counts.unusable.into(),
            opportunistic: usize::from(counts.absent).saturating_sub(behind),
            skipped: counts.unknown.into(),
        }
    }

    fn in_words(self) -> String {
        let all = self.authenticated + self.encrypted + self.opportunistic + self.skipped;
        let parts = [
            (self.authenticated, "DANE authenticates"),
            (self.encrypted, "TLS is mandatory, without authentication, at"),
            (self.opportunistic, "TLS is opportunistic, and anyone on the path can strip it, at"),
            (self.skipped, "the TLSA records are unknown, so Postfix skips"),
        ];
        let some: Vec<String> = parts
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| match number == all {
                true => format!("{what} every MX host"),
                false => format!("{what} {number} of {all} MX hosts"),
            })
            .collect();
        some.join("; ")
    }
}

/// The DANE counts of a cached answer as text, such as `1 MX host with usable TLSA records, 2 without DANE`.
pub fn counts_in_words(counts: &Value) -> String {
    let names = [
        ("usable", "with usable TLSA records"),
        ("unusable", "with unusable TLSA records only"),
        ("absent", "without DANE"),
        ("unknown", "with unknown TLSA records"),
        ("behind_insecure_mx", "of these with TLSA records behind unsigned MX records"),
    ];
    let number = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or(0);
    let some: Vec<String> = names
        .into_iter()
        .filter(|(name, _)| number(name) > 0)
        .map(|(name, what)| format!("{} {what}", number(name)))
        .collect();
    match some.is_empty() {
        true => "the MX hosts have no influence on this answer".to_owned(),
        false => format!("MX hosts: {}", some.join(", ")),
    }
}

#[cfg(test)]
mod tests;
