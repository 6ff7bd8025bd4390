//! What `observe` collected about a domain: DNS answers, visits to the policy host and sessions with MX hosts.
//! It is the only input of the topic modules apart from `Known`.

use crate::causes::Cause;
use crate::causes::near_record::{RecordKind, repair};
use formats::hello::Version;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Mode, Policy, PolicyId};
use jiff::Timestamp;
use net::address::special;
use net::dane::Dane;
use net::dns::{Answer, Caa, DnsError, HostAddresses, Security, ServerAnswer};
use net::https::{FetchError, Fetched, Revocation, Visit};
use net::smtp::{Fault, SessionFailure, SessionReport};
use std::borrow::Cow;
use std::net::IpAddr;

/// Everything that was observed about one domain.
pub(crate) struct ObservedDomain {
    pub domain: DomainName,
    pub now: Timestamp,
    /// True when answers are validated with DNSSEC.
    pub sees_signatures: bool,
    pub mx: Result<Answer, DnsError>,
    pub hosts: Vec<ObservedMxHost>,
    /// Set if the domain's zone is signed and its parent has no DS record for it; only in a full check.
    pub without_ds: Option<WithoutDs>,
    /// True when `Options::skip_port_25` was set, so that `ObservedMxHost::sessions` are empty.
    pub skipped_port_25: bool,
    /// True in the lab, where loopback addresses count as public.
    pub is_lab: bool,
    /// True for a full check, see `Depth::Full`.
    pub is_deep: bool,
    /// The fetch time above which a policy host is slow.
    pub slow: std::time::Duration,
    pub record: Result<Answer, DnsError>,
    /// The record as each name server returns it; `None` when the servers were not queried.
    pub servers: Option<Result<Vec<ServerAnswer>, DnsError>>,
    /// The numbers of name servers of the zone, and of those with an IPv6 address; `None` when they were not looked up.
    pub name_servers: Option<NameServers>,
    /// True when a random name next to `_mta-sts` has a record as well.
    pub is_wildcard: bool,
    /// MTA-STS records published at wrong names.
    pub strays: Vec<(DomainName, String)>,
    pub host: ObservedPolicyHost,
    pub policy: ObservedPolicy,
    pub tlsrpt: Result<Answer, DnsError>,
    pub tlsrpt_strays: Vec<(DomainName, String)>,
    pub rua: Vec<ObservedReportTarget>,
    pub companions: Companions,
}

/// A signed zone that its parent has no DS record for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WithoutDs {
    /// True when the zone asks for a DS record by a CDS record (RFC 8078).
    pub has_cds: bool,
}

/// The name servers of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameServers {
    /// How many NS records the zone has.
    pub all: usize,
    /// How many of the hosts in them have an IPv6 address.
    pub with_ipv6: usize,
}

/// One MX host and what was observed about it.
pub(crate) struct ObservedMxHost {
    pub name: DomainName,
    pub preference: u16,
    pub addresses: Result<HostAddresses, DnsError>,
    pub dane: Dane,
    /// TLSA records that do not take effect; only in a full check.
    pub idle_tlsa: Option<IdleTlsa>,
    pub sessions: Vec<ObservedSession>,
}

/// Why TLSA records do not take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleTlsa {
    /// The records or the host's addresses are not signed.
    UnsignedZone,
    /// The records are signed, the MX records that name the host are not (RFC 7672 §2.2.1).
    UnsignedMx,
}

impl ObservedMxHost {
    /// The name at which the TLSA records take effect: the base domain of those that apply, else the name that the
    /// host's aliases lead to (RFC 7672 §2.2.2), else the host's own name.
    pub(crate) fn tlsa_base(&self) -> &DomainName {
        match (&self.dane, &self.addresses) {
            (Dane::Applies { base, .. }, _) => base,
            (_, Ok(found)) => found.aliases.last().unwrap_or(&self.name),
            _ => &self.name,
        }
    }
}

/// The session with one address of an MX host.
pub(crate) struct ObservedSession {
    pub address: IpAddr,
    pub outcome: Result<SessionReport, Box<SessionFailure>>,
    pub deep: Option<ExtraProbes>,
}

/// The results of the additional connections of a full check.
pub(crate) struct ExtraProbes {
    pub without_sni: Result<SessionReport, Box<SessionFailure>>,
    pub legacy: Vec<Version>,
    pub weak: Option<u16>,
    pub accepts_injection: bool,
    /// The key exchange group with a client that prefers post-quantum groups, or why that handshake failed.
    pub large_hello: Result<String, Fault>,
}

/// The policy host and what was observed about it.
pub(crate) struct ObservedPolicyHost {
    pub name: DomainName,
    pub addresses: Result<HostAddresses, DnsError>,
    /// True if a random name below the domain has the same addresses. Looked up only if no address serves a policy.
    pub is_catch_all: bool,
    pub visits: Vec<Visit>,
    pub without_sni: Option<Visit>,
    pub as_browser: Option<Visit>,
    /// The certificate's status in the CA's CRL; `None` when it was not looked up.
    pub revocation: Option<Revocation>,
    pub caa: Vec<Caa>,
}

impl ObservedPolicyHost {
    /// What a sender gets: the outcome at the first address that accepts a connection, else the first outcome.
    pub(crate) fn fetched(&self) -> Result<Fetched, FetchError> {
        let outcomes: Vec<_> = self.visits.iter().map(Visit::judged).collect();
        let reached =
            |outcome: &&Result<Fetched, FetchError>| !matches!(outcome, Err(FetchError::Connect(_)));
        match outcomes.iter().find(reached).or(outcomes.first()) {
            Some(outcome) => outcome.clone(),
            None => Err(match &self.addresses {
                Err(error) => FetchError::Dns(error.clone()),
                Ok(found) => match found.addresses.first() {
                    Some(first) => FetchError::SpecialAddress {
                        address: *first,
                        what: special(*first).unwrap_or("skipped by an option".into()),
                    },
                    None => FetchError::Connect("the host has no addresses".to_owned()),
                },
            }),
        }
    }

    /// True when DNS confirms that the host has no address.
    pub(crate) fn is_nowhere(&self) -> bool {
        matches!(&self.addresses, Err(error) if error.is_absence())
    }
}

/// The parts of the published policy. New senders apply it only when both `id` and `valid` are present.
#[derive(Default)]
pub(crate) struct ObservedPolicy {
    /// The `id` of the `_mta-sts` record; `None` without a valid record.
    pub id: Option<PolicyId>,
    /// The fetched policy file, valid or not; `None` when the fetch failed.
    pub file: Option<Vec<u8>>,
    /// The parsed file; `None` when it is invalid.
    pub valid: Option<Policy>,
}

/// One report target (`rua`) of the TLSRPT record.
pub(crate) struct ObservedReportTarget {
    pub target: Rua,
    /// The MX hosts of the address's domain, or why it accepts no mail; only for `mailto:`.
    pub mail: Option<Result<Vec<DomainName>, String>>,
    /// The response to a request; only for `https:` in a full check.
    pub visit: Option<Result<Visit, DnsError>>,
}

/// Records of related standards; `None` when the lookup failed.
pub(crate) struct Companions {
    pub has_dmarc: Option<bool>,
    pub has_spf: Option<bool>,
    pub has_bimi: bool,
}

impl ObservedDomain {
    /// The mode that applies to senders without a cached policy.
    pub(crate) fn mode(&self) -> Mode {
        self.binding().map_or(Mode::None, |policy| policy.mode)
    }

    /// The policy that senders without a cached policy apply: valid, and announced by a valid record.
    pub(crate) fn binding(&self) -> Option<&Policy> {
        self.policy.valid.as_ref().filter(|_| self.policy.id.is_some())
    }

    /// True if the domain has a policy host, or if that could not be looked up. A server that has every name of the domain is
    /// not one.
    pub(crate) fn has_policy_host(&self) -> bool {
        !self.host.is_nowhere() && !self.host.is_catch_all
    }

    /// True if there is a record at `_mta-sts` that was meant to announce a policy, valid or not, or if that could not be
    /// looked up.
    pub(crate) fn announces_policy(&self) -> bool {
        match &self.record {
            Ok(answer) => answer.texts().any(|text| is_meant_as(RecordKind::Sts, text, &self.domain)),
            Err(error) => !error.is_absence(),
        }
    }

    /// Why senders on the internet can't reach an address; `None` for public addresses.
    pub(crate) fn special(&self, address: IpAddr) -> Option<Cow<'static, str>> {
        special(address).filter(|_| !(self.is_lab && address.is_loopback()))
    }

    /// The DNSSEC status of the MX answer.
    pub(crate) fn mx_security(&self) -> Security {
        match &self.mx {
            Ok(answer) => answer.security,
            Err(error) => error.nothing().map_or(Security::Indeterminate, |nothing| nothing.security),
        }
    }
}

/// True if a text was meant as a record of this kind, valid or not.
pub(crate) fn is_meant_as(kind: RecordKind, text: &[u8], domain: &DomainName) -> bool {
    repair(kind, text, domain, "1").is_some_and(|near| near.cause() != Some(Cause::OtherProtocol))
}

impl ObservedSession {
    /// The session report; for a failed session, up to the failure.
    pub(crate) fn report(&self) -> &SessionReport {
        match &self.outcome {
            Ok(report) => report,
            Err(failure) => &failure.report,
        }
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.outcome.as_ref().err().map(|failure| &failure.fault)
    }
}
