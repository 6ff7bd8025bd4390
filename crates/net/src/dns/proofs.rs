//! Checks of validated answers that the library leaves out (RFC 4035 §5.3.4). [`super::Resolver`] makes them for every
//! answer that it validates itself.

use super::{Absence, Answer, Data, DnsError, Kind, Security, weaker};
use data_encoding::BASE32_DNSSEC;
use formats::DomainName;
use hickory_proto::dnssec::Proof;
use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC, NSEC3};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError as HickoryDns, NetError};
use std::time::Duration;

/// NSEC3 records of one answer that are compared with a name at most. A proof needs one for each expansion.
const NSEC3_RECORDS: usize = 8;

/// Iterations of an NSEC3 hash that are computed at most, as in the library. RFC 9276 §3.1 asks for none.
const NSEC3_ITERATIONS: u16 = 500;

/// A name of an answer whose records were expanded from a wildcard, as their signature shows (RFC 4034 §3.1.3).
struct Expansion<'m> {
    owner: &'m Name,
    /// The labels of the wildcard's parent.
    labels: u8,
    /// The zone of the wildcard.
    zone: &'m Name,
    /// The state of the signature; [`Proof::Secure`] only for one that was validated.
    proof: Proof,
}

impl<'m> Expansion<'m> {
    fn of(record: &'m Record) -> Option<Self> {
        let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data else { return None };
        let signed = signature.input();
        let (owner, labels) = (&record.name, signed.num_labels);
        let proof = record.proof;
        (labels < owner.num_labels()).then_some(Self { owner, labels, zone: &signed.signer_name, proof })
    }

    fn all(message: &'m Message) -> impl Iterator<Item = Self> {
        message.answers.iter().filter_map(Self::of)
    }

    /// The validated records of the authority section which prove that no name closer to the owner exists.
    fn proofs(&self, message: &'m Message) -> impl Iterator<Item = &'m DNSSECRData> {
        let next_closer = self.owner.trim_to(usize::from(self.labels) + 1);
        let mut hashed = 0;
        let is_proof = move |name: &Name, data: &DNSSECRData| match data {
            DNSSECRData::NSEC(nsec) => {
                signer(&message.authorities, name) == Some(self.zone)
                    && denies(name, nsec, self.owner, &next_closer)
            }
            DNSSECRData::NSEC3(nsec3) => {
                hashed += 1;
                hashed <= NSEC3_RECORDS && covers_hash(name, nsec3, self.zone, &next_closer)
            }
            _ => false,
        };
        secure_proofs(message, is_proof)
    }
}

/// The validated DNSSEC records of the authority section that `is_proof` selects by their owner and data.
fn secure_proofs(
    message: &Message,
    mut is_proof: impl FnMut(&Name, &DNSSECRData) -> bool,
) -> impl Iterator<Item = &DNSSECRData> {
    let secure = message.authorities.iter().filter(|record| record.proof == Proof::Secure);
    secure.filter_map(move |record| match &record.data {
        RData::DNSSEC(data) => is_proof(&record.name, data).then_some(data),
        _ => None,
    })
}

/// The zone whose signature of the NSEC record at `owner` was validated.
fn signer<'m>(authorities: &'m [Record], owner: &Name) -> Option<&'m Name> {
    let mut validated =
        authorities.iter().filter(|record| record.proof == Proof::Secure && record.name == *owner);
    validated.find_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
            let signed = signature.input();
            (signed.type_covered == RecordType::NSEC).then_some(&signed.signer_name)
        }
        _ => None,
    })
}

/// True if a validated record in the proof of a negative answer is from a zone that does not enclose `name`. A zone can sign
/// any interval of names, so the owner of one signed zone could deny names of all others: the library compares neither the
/// signer of NSEC records with the name, nor the zone of NSEC3 records whose iterations make an answer insecure.
pub(super) fn is_foreign_denial(authorities: &[Record], name: &Name) -> bool {
    authorities.iter().filter(|record| record.proof == Proof::Secure).any(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC(_)) => {
            !signer(authorities, &record.name).is_some_and(|zone| zone.zone_of(name))
        }
        RData::DNSSEC(DNSSECRData::NSEC3(_)) => !record.name.base_name().zone_of(name),
        _ => false,
    })
}

/// True if a record of the answer was expanded from a wildcard, and nothing proves that no name closer to the owner exists
/// (RFC 4035 §5.3.4, RFC 5155 §8.8). The library does not ask for the proof where all records of the authority section are
/// unsigned, as an attacker can make them, and accepts an NSEC record that shows that a closer name exists.
pub(super) fn is_unproven_expansion(message: &Message) -> bool {
    Expansion::all(message).any(|expansion| expansion.proofs(message).next().is_none())
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

/// Whether an NSEC3 record of `zone` proves that `name` does not exist: the hash of `name` lies between the two hashes of
/// the record (RFC 5155 §1.3).
fn covers_hash(owner: &Name, nsec3: &NSEC3, zone: &Name, name: &Name) -> bool {
    if owner.base_name() != *zone || nsec3.iterations() > NSEC3_ITERATIONS {
        return false;
    }
    let label = owner.iter().next().unwrap_or_default();
    let Ok(own) = BASE32_DNSSEC.decode(label) else { return false };
    let hash = nsec3.hash_algorithm().hash(nsec3.salt(), name, nsec3.iterations());
    let (own, next) = (own.as_slice(), nsec3.next_hashed_owner_name());
    hash.is_ok_and(|hash| match own < next {
        true => own < hash.as_ref() && hash.as_ref() < next,
        // The last record of a zone, which names the first.
        false => own < hash.as_ref() || hash.as_ref() < next,
    })
}

/// True if a record of the answer was expanded from a wildcard, and the record which proves that no closer name exists has
/// the opt-out flag: there may be an unsigned delegation, so that the answer is not secure (RFC 5155 §9.2). Only a
/// validated record of the wildcard's zone counts, since an attacker can put any other beside the answer.
pub(super) fn is_opt_out_expansion(message: &Message) -> bool {
    let has_opt_out = |data: &DNSSECRData| matches!(data, DNSSECRData::NSEC3(nsec3) if nsec3.opt_out());
    Expansion::all(message)
        .filter(|expansion| expansion.proof == Proof::Secure)
        .any(|expansion| expansion.proofs(message).any(has_opt_out))
}

/// True if a record of the answer was expanded from a wildcard.
pub(super) fn has_expansion(message: &Message) -> bool {
    Expansion::all(message).next().is_some()
}

/// True if a part of the answer is signed by a chain of trust.
pub(super) fn has_secure_part(outcome: &Result<Lookup, NetError>) -> bool {
    outcome.as_ref().is_ok_and(|lookup| lookup.answers().iter().any(|record| record.proof == Proof::Secure))
}

/// True if the signatures of a validated answer are missing, so that it does not show whether it was expanded from a
/// wildcard. The library drops them when it follows an alias by a further query, and caches the answer for its end.
pub(super) fn is_stripped(outcome: &Result<Lookup, NetError>, name: &Name) -> bool {
    let Ok(lookup) = outcome else { return false };
    let answers = lookup.answers();
    let is_alias = |record: &Record| record.record_type() == RecordType::CNAME && record.name == *name;
    has_secure_part(outcome)
        && !answers.iter().any(|record| record.record_type() == RecordType::RRSIG || is_alias(record))
}

/// True if the answer depends on aliases that have to be checked one by one: a negative answer for the end of a chain,
/// or an answer that decides on DANE or that has a secure part. Secure records at the end of a chain may belong to another
/// name, and an alias that leads out of a signed zone may be that of a wildcard which does not apply to the name.
pub(super) fn follows_alias(
    name: &Name,
    kind: Kind,
    outcome: &Result<Lookup, NetError>,
    found: &Result<Answer, DnsError>,
) -> bool {
    let is_other = |query: &Query| query.name() != name;
    match (outcome, found) {
        (_, Ok(answer)) => {
            let decides = matches!(kind, Kind::Mx | Kind::Tlsa) || has_secure_part(outcome);
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
    use hickory_proto::dnssec::rdata::{RRSIG, SigInput};
    use hickory_proto::dnssec::{Algorithm, Nsec3HashAlgorithm};
    use hickory_proto::rr::SerialNumber;

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
    fn only_a_validated_opt_out_record_about_the_expansion_makes_it_insecure() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let record = |owner: Name, data, proof| {
            let mut record = Record::from_rdata(owner, 300, RData::DNSSEC(data));
            record.proof = proof;
            record
        };
        let input = SigInput {
            type_covered: RecordType::A,
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: 1,
            original_ttl: 300,
            sig_expiration: SerialNumber::new(2),
            sig_inception: SerialNumber::new(1),
            key_tag: 1,
            signer_name: name("example."),
        };
        let signature = RRSIG::from_sig(input, vec![0; 64]);
        let hash = |text: &str| Nsec3HashAlgorithm::SHA1.hash(&[], &name(text), 0).unwrap().as_ref().to_vec();
        // The smallest interval around the hash of a name.
        let around = |covered: &str, zone: &str, opt_out, proof| {
            let (mut own, mut next) = (hash(covered), hash(covered));
            (own[19], next[19]) = (own[19].wrapping_sub(1), next[19].wrapping_add(1));
            let owner = name(&format!("{}.{zone}", BASE32_DNSSEC.encode(&own)));
            let data = NSEC3::new(Nsec3HashAlgorithm::SHA1, opt_out, 0, Vec::new(), next, [RecordType::A]);
            record(owner, DNSSECRData::NSEC3(data), proof)
        };
        let message = |signed: Proof, records: &[Record]| {
            let mut message = Message::query();
            let signature = DNSSECRData::RRSIG(signature.clone());
            message.add_answer(record(name("mx.a.example."), signature, signed));
            message.authorities.extend(records.iter().cloned());
            message
        };
        let proven = |opt_out| around("a.example.", "example.", opt_out, Proof::Secure);
        for (records, is_unproven, is_opt_out) in [
            (vec![], true, false),
            (vec![proven(false)], false, false),
            (vec![proven(true)], false, true),
            // Not validated.
            (vec![around("a.example.", "example.", true, Proof::Bogus)], true, false),
            (vec![proven(false), around("a.example.", "example.", true, Proof::Insecure)], false, false),
            // Of another zone, or about a name that is not the next closer one.
            (vec![around("a.example.", "other.", true, Proof::Secure)], true, false),
            (vec![proven(false), around("mx.a.example.", "example.", true, Proof::Secure)], false, false),
        ] {
            let message = message(Proof::Secure, &records);
            assert_eq!(is_unproven_expansion(&message), is_unproven, "{records:?}");
            assert_eq!(is_opt_out_expansion(&message), is_opt_out, "{records:?}");
        }
        let unsigned = message(Proof::Bogus, &[proven(true)]);
        assert!(!is_opt_out_expansion(&unsigned));
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
