//! What was seen of a domain. The topics judge it, and look at nothing else.

use formats::hello::Version;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Mode, Policy, PolicyId};
use jiff::Timestamp;
use net::address::special;
use net::dane::Dane;
use net::dns::{Answer, Caa, DnsError, HostAddresses, Security, ServerAnswer};
use net::https::{FetchError, Fetched, Revocation, Visit};
use net::smtp::{Fault, SessionFailure, SessionReport};
use std::net::IpAddr;

/// Everything about one domain.
pub(crate) struct ObservedDomain {
    pub domain: DomainName,
    pub now: Timestamp,
    /// Answers are validated, so that it is seen what is signed.
    pub sees_signatures: bool,
    pub mx: Result<Answer, DnsError>,
    pub hosts: Vec<ObservedMxHost>,
    /// True when port 25 was left out as asked.
    pub skipped_port_25: bool,
    /// Loopback counts as a public place: a lab.
    pub is_lab: bool,
    /// Everything was looked at that a deep look looks at.
    pub is_deep: bool,
    /// A policy host that takes longer is slow.
    pub slow: std::time::Duration,
    pub record: Result<Answer, DnsError>,
    /// By each name server, when they were asked.
    pub servers: Option<Result<Vec<ServerAnswer>, DnsError>>,
    /// True when a made-up name beside the record has one too.
    pub is_wildcard: bool,
    /// Records of `_mta-sts` at other names.
    pub strays: Vec<(DomainName, String)>,
    pub host: ObservedPolicyHost,
    pub policy: ObservedPolicy,
    pub tlsrpt: Result<Answer, DnsError>,
    pub tlsrpt_strays: Vec<(DomainName, String)>,
    pub rua: Vec<ObservedReportTarget>,
    pub companions: Companions,
}

/// One MX host.
pub(crate) struct ObservedMxHost {
    pub name: DomainName,
    pub preference: u16,
    pub addresses: Result<HostAddresses, DnsError>,
    pub dane: Dane,
    /// TLSA records that do not count, since the zone is not signed.
    pub unsigned_tlsa: bool,
    pub sessions: Vec<ObservedSession>,
}

/// One address of an MX host.
pub(crate) struct ObservedSession {
    pub address: IpAddr,
    pub outcome: Result<SessionReport, Box<SessionFailure>>,
    pub deep: Option<ExtraProbes>,
}

/// What further connections showed.
pub(crate) struct ExtraProbes {
    pub without_sni: Result<SessionReport, Box<SessionFailure>>,
    pub legacy: Vec<Version>,
    pub weak: Option<u16>,
    pub takes_injection: bool,
}

/// The policy host.
pub(crate) struct ObservedPolicyHost {
    pub name: DomainName,
    pub addresses: Result<HostAddresses, DnsError>,
    pub visits: Vec<Visit>,
    pub without_sni: Option<Visit>,
    pub as_browser: Option<Visit>,
    /// What the authority says of the certificate, when it was asked.
    pub revocation: Option<Revocation>,
    pub caa: Vec<Caa>,
}

impl ObservedPolicyHost {
    /// What a sender gets: the first visit that gives a policy, else why the first one does not.
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
                        what: special(*first).unwrap_or("left out as asked"),
                    },
                    None => FetchError::Connect("there is no address".to_owned()),
                },
            }),
        }
    }

    /// True when DNS certainly has no such host.
    pub(crate) fn is_nowhere(&self) -> bool {
        matches!(&self.addresses, Err(error) if error.is_absence())
    }
}

/// The policy, and whether it binds anyone.
#[derive(Default)]
pub(crate) struct ObservedPolicy {
    /// The one of the record, when that is valid.
    pub id: Option<PolicyId>,
    /// What was fetched, whatever it is.
    pub file: Option<Vec<u8>>,
    /// The file, when it is valid.
    pub valid: Option<Policy>,
}

/// One report target.
pub(crate) struct ObservedReportTarget {
    pub target: Rua,
    /// Hosts that take its mail; for `mailto:` only.
    pub mail: Option<Result<Vec<DomainName>, String>>,
    /// How it answers; for `https:` only.
    pub visit: Option<Result<Visit, DnsError>>,
}

/// Neighbours.
pub(crate) struct Companions {
    pub has_dmarc: Option<bool>,
    pub has_spf: Option<bool>,
    pub has_bimi: bool,
}

impl ObservedDomain {
    /// The mode that binds senders that come new today.
    pub(crate) fn mode(&self) -> Mode {
        self.binding().map_or(Mode::None, |policy| policy.mode)
    }

    /// The policy, when a record announces it.
    pub(crate) fn binding(&self) -> Option<&Policy> {
        self.policy.valid.as_ref().filter(|_| self.policy.id.is_some())
    }

    /// Whether senders on the internet can't reach an address.
    pub(crate) fn special(&self, address: IpAddr) -> Option<&'static str> {
        special(address).filter(|_| !(self.is_lab && address.is_loopback()))
    }

    /// The state of the answer that named the MX hosts.
    pub(crate) fn mx_security(&self) -> Security {
        match &self.mx {
            Ok(answer) => answer.security,
            Err(error) => error.nothing().map_or(Security::Indeterminate, |nothing| nothing.security),
        }
    }
}

impl ObservedSession {
    /// How far it got.
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
