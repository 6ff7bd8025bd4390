//! Checks of validated answers that the library leaves out (RFC 4035 §5.3.4). [`super::Resolver`] makes them for every
//! answer that it validates itself.

use super::{Absence, Answer, Data, DnsError, Kind, Security, weaker};
use formats::DomainName;
use hickory_proto::dnssec::Proof;
use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError as HickoryDns, NetError};
use std::time::Duration;

/// The labels of the wildcard's parent if the signature covers a record that was expanded from a wildcard (RFC 4034 §3.1.3).
fn expanded_from(record: &Record) -> Option<u8> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
            Some(signature.input().num_labels).filter(|labels| *labels < record.name.num_labels())
        }
        _ => None,
    }
}

/// True if a record of the answer was expanded from a wildcard, and nothing proves that no name closer to the owner exists
/// (RFC 4035 §5.3.4). The library does not ask for the proof where all records of the authority section are unsigned, as
/// an attacker can make them, and accepts an NSEC record that shows that a closer name exists.
pub(super) fn is_unproven_expansion(message: &Message) -> bool {
    let is_proven = |owner: &Name, labels: u8| {
        let next_closer = owner.trim_to(usize::from(labels) + 1);
        message.authorities.iter().filter(|record| record.proof == Proof::Secure).any(|record| match &record
            .data
        {
            RData::DNSSEC(DNSSECRData::NSEC(nsec)) => denies(&record.name, nsec, owner, &next_closer),
            RData::DNSSEC(DNSSECRData::NSEC3(_)) => true,
            _ => false,
        })
    };
    message
        .answers
        .iter()
        .filter_map(|record| Some((&record.name, expanded_from(record)?)))
        .any(|(owner, labels)| !is_proven(owner, labels))
}

/// Whether an NSEC record proves that neither `name` nor its ancestor `next_closer` exists: it covers `name`, and neither of
/// its two names is at or below `next_closer`.
fn denies(owner: &Name, nsec: &NSEC, name: &Name, next_closer: &Name) -> bool {
    let next = nsec.next_domain_name();
    let is_covered = match owner < next {
        true => owner < name && name < next,
        // The last record of a zone, which names the apex.
        false => owner < name && next.zone_of(name),
    };
    // The parent's record at a zone cut says nothing about names below it, nor does the owner of a DNAME (RFC 6840 §4.1).
    let has = |kind| nsec.type_set().contains(kind);
    let is_elsewhere =
        owner.zone_of(name) && (has(RecordType::NS) && !has(RecordType::SOA) || has(RecordType::DNAME));
    is_covered && !is_elsewhere && !next_closer.zone_of(owner) && !next_closer.zone_of(next)
}

/// True if a record of the answer was expanded from a wildcard, and a record with opt-out shows that no closer name exists:
/// there may be an unsigned delegation, so that the answer is not secure (RFC 5155 §9.2).
pub(super) fn is_opt_out_expansion(message: &Message) -> bool {
    let is_opt_out = |record: &Record| match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC3(nsec3)) => nsec3.opt_out(),
        _ => false,
    };
    message.answers.iter().any(|record| expanded_from(record).is_some())
        && message.authorities.iter().any(is_opt_out)
}

/// True if all records of the answer were expanded from a wildcard above `name`, so that the same records belong to `name`.
pub(super) fn is_expanded_above(message: &Message, name: &Name) -> bool {
    let mut signatures =
        message.answers.iter().filter(|record| record.record_type() == RecordType::RRSIG).peekable();
    signatures.peek().is_some()
        && signatures.all(|record| expanded_from(record).is_some_and(|labels| labels < name.num_labels()))
}

/// True if the signatures of a validated answer are missing, so that it does not show whether it was expanded from a
/// wildcard. The library drops them when it follows an alias by a further query, and caches the answer for its end.
pub(super) fn is_stripped(outcome: &Result<Lookup, NetError>, name: &Name) -> bool {
    let Ok(lookup) = outcome else { return false };
    let answers = lookup.answers();
    let is_alias = |record: &Record| record.record_type() == RecordType::CNAME && record.name == *name;
    answers.iter().any(|record| record.proof == Proof::Secure)
        && !answers.iter().any(|record| record.record_type() == RecordType::RRSIG || is_alias(record))
}

/// True if the answer depends on aliases that have to be checked one by one: a negative answer for the end of a chain,
/// or an answer that decides on DANE. Secure records at the end of a chain may belong to another name, too.
pub(super) fn follows_alias(
    name: &Name,
    kind: Kind,
    outcome: &Result<Lookup, NetError>,
    found: &Result<Answer, DnsError>,
) -> bool {
    let is_other = |query: &Query| query.name() != name;
    match (outcome, found) {
        (_, Ok(answer)) => {
            let decides = matches!(kind, Kind::Mx | Kind::Tlsa) || answer.security == Security::Secure;
            decides && !answer.aliases.is_empty()
        }
        (Err(NetError::Dns(HickoryDns::NoRecordsFound(none))), Err(_)) => is_other(&none.query),
        (Err(NetError::Dns(HickoryDns::Nsec { query, .. })), Err(_)) => is_other(query),
        (_, Err(_)) => false,
    }
}

/// Aliases that were looked up and validated one by one, from the name in the question on.
#[derive(Debug, Default)]
pub(super) struct AliasPath {
    targets: Vec<DomainName>,
    /// The weakest state and the shortest TTL of the aliases; `None` without aliases.
    passed: Option<(Security, Duration)>,
}

impl AliasPath {
    /// Adds the answer to a query for a CNAME record. Returns the record's target, or the failure.
    pub(super) fn add(&mut self, alias: Result<Answer, DnsError>) -> Result<DomainName, DnsError> {
        let alias = alias?;
        let target = alias.records.iter().find_map(|data| match data {
            Data::Cname(target) => Some(target.clone()),
            _ => None,
        });
        let target = target.ok_or(DnsError::Bogus)?;
        self.passed = Some(self.weakest(alias.security, alias.ttl));
        self.targets.push(target.clone());
        Ok(target)
    }

    /// The outcome for the name at the start of the path, from that for its end.
    pub(super) fn lead_to(self, end: Result<Answer, DnsError>) -> Result<Answer, DnsError> {
        let absence = |absence: Absence| {
            let (security, ttl) = self.weakest(absence.security, absence.ttl.unwrap_or(Duration::MAX));
            Absence { security, ttl: Some(ttl).filter(|ttl| *ttl != Duration::MAX) }
        };
        match end {
            Ok(mut answer) => {
                (answer.security, answer.ttl) = self.weakest(answer.security, answer.ttl);
                answer.aliases.splice(..0, self.targets);
                Ok(answer)
            }
            Err(DnsError::NoSuchName(end)) => Err(DnsError::NoSuchName(absence(end))),
            Err(DnsError::NoSuchRecord(end)) => Err(DnsError::NoSuchRecord(absence(end))),
            Err(error) => Err(error),
        }
    }

    fn weakest(&self, security: Security, ttl: Duration) -> (Security, Duration) {
        self.passed.map_or((security, ttl), |passed| (weaker(passed.0, security), passed.1.min(ttl)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_nsec_record_denies_a_name_only_if_nothing_closer_exists() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let denied = |owner: &str, next: &str, types: &[RecordType], asked: &str, next_closer: &str| {
            let nsec = NSEC::new(name(next), types.iter().copied());
            denies(&name(owner), &nsec, &name(asked), &name(next_closer))
        };
        let (a, ns) = (&[RecordType::A][..], &[RecordType::NS][..]);
        // x.w.example. from *.w.example., by the wildcard's own record, by that of a sibling, and by the last of the zone.
        for (owner, next) in
            [("*.w.example.", "z.example."), ("b.w.example.", "z.w.example."), ("b.w.example.", "example.")]
        {
            assert!(denied(owner, next, a, "x.w.example.", "x.w.example."), "{owner} {next}");
        }
        // y.x.w.example. from *.w.example. if x.w.example. exists: itself, or as an empty non-terminal.
        assert!(denied("b.w.example.", "z.w.example.", a, "y.x.w.example.", "x.w.example."));
        assert!(!denied("x.w.example.", "z.w.example.", a, "y.x.w.example.", "x.w.example."));
        assert!(!denied("b.w.example.", "z.x.w.example.", a, "y.x.w.example.", "x.w.example."));
        assert!(!denied("a.x.w.example.", "z.w.example.", a, "y.x.w.example.", "x.w.example."));
        // Names that are not covered: one that exists, one before and one behind, and one of another zone.
        assert!(!denied("x.w.example.", "z.w.example.", a, "x.w.example.", "x.w.example."));
        assert!(!denied("y.w.example.", "z.w.example.", a, "x.w.example.", "x.w.example."));
        assert!(!denied("b.w.example.", "c.w.example.", a, "x.w.example.", "x.w.example."));
        assert!(!denied("b.w.example.", "example.", a, "x.w.other.", "x.w.other."));
        // The parent's record at a zone cut.
        assert!(!denied("w.example.", "z.example.", ns, "x.w.example.", "x.w.example."));
        assert!(denied(
            "w.example.",
            "z.example.",
            &[RecordType::NS, RecordType::SOA],
            "x.w.example.",
            "x.w.example."
        ));
    }

    #[test]
    fn the_end_of_a_path_is_as_secure_and_as_long_lived_as_its_weakest_part() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let answer = |records, security, seconds| Answer {
            records,
            ttl: Duration::from_secs(seconds),
            security,
            aliases: Vec::new(),
            is_split: false,
        };
        let alias = |to: &str, security, seconds| Ok(answer(vec![Data::Cname(name(to))], security, seconds));
        let path = || {
            let mut path = AliasPath::default();
            assert_eq!(path.add(alias("b.example", Security::Secure, 60)), Ok(name("b.example")));
            assert_eq!(path.add(alias("c.example", Security::Insecure, 30)), Ok(name("c.example")));
            path
        };
        let end = answer(vec![Data::Ns(name("d.example"))], Security::Secure, 300);
        let whole = path().lead_to(Ok(end.clone())).unwrap();
        assert_eq!((whole.security, whole.ttl.as_secs()), (Security::Insecure, 30));
        assert_eq!(whole.aliases, [name("b.example"), name("c.example")]);
        assert_eq!(AliasPath::default().lead_to(Ok(end.clone())), Ok(end.clone()));
        let nothing = |security, seconds| Absence { security, ttl: Some(Duration::from_secs(seconds)) };
        let absent = path().lead_to(Err(DnsError::NoSuchName(nothing(Security::Secure, 5))));
        assert_eq!(absent, Err(DnsError::NoSuchName(nothing(Security::Insecure, 5))));
        assert_eq!(path().lead_to(Err(DnsError::Timeout)), Err(DnsError::Timeout));
        // An answer without an alias is not one to follow.
        assert_eq!(path().add(Ok(end)), Err(DnsError::Bogus));
    }
}
