//! What each [`DnsChange`] makes of a response. Pure functions on messages; [`super::DnsProxy`] calls them.

use super::attack::{Authority, DnsChange, Proof};
use hickory_proto::dnssec::Nsec3HashAlgorithm;
use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC3};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// The TTL of a forged SOA record whose TTL does not matter, in seconds.
const NEGATIVE_TTL: u32 = 300;

/// A SHA-1 hash, as a label in base 32 and in bytes (RFC 5155 §3.3).
const NSEC3_LABEL_BYTES: usize = 32;
const NSEC3_HASH_BYTES: usize = 20;

/// The changed response. `other` is the earlier response for [`DnsChange::Replay`], and the response to the other
/// question for [`DnsChange::Borrow`]; without it the response stays as it is.
pub(super) fn changed(how: &DnsChange, genuine: Message, other: Option<Message>) -> Message {
    let mut response = genuine;
    match how {
        DnsChange::Drop | DnsChange::Delay(_) => {}
        DnsChange::Code(code) => response.metadata.response_code = *code,
        DnsChange::Negative { code, authority, ttl } => {
            response.metadata.response_code = *code;
            response.answers.clear();
            match authority {
                Authority::Genuine => {}
                Authority::Empty => response.authorities.clear(),
                Authority::Soa(zone) => response.authorities = soa(zone, *ttl).into_iter().collect(),
                Authority::Ns(zone) => response.authorities = ns(zone, *ttl).into_iter().collect(),
            }
            response.authorities.iter_mut().for_each(|record| record.ttl = *ttl);
        }
        DnsChange::Forge { records, ttl, keeps_signatures } => {
            let owner = response.queries.first().map(|query| query.name().clone()).unwrap_or_else(Name::root);
            let data = records.iter().filter_map(|record| record.data().ok());
            let mut answers: Vec<Record> =
                data.map(|data| Record::from_rdata(owner.clone(), *ttl, data)).collect();
            if *keeps_signatures {
                answers.extend(response.answers.into_iter().filter(is_signature));
            }
            response.answers = answers;
            response.authorities.retain(|record| *keeps_signatures && is_dnssec(record));
            response.metadata.response_code = ResponseCode::NoError;
        }
        DnsChange::Strip { signatures, proofs, keys } => {
            let stays = |record: &Record| {
                !(*signatures && is_signature(record)
                    || *proofs && matches!(record.record_type(), RecordType::NSEC | RecordType::NSEC3)
                    || *keys && matches!(record.record_type(), RecordType::DS | RecordType::DNSKEY))
            };
            response.answers.retain(stays);
            response.authorities.retain(stays);
        }
        DnsChange::Ttl(ttl) => {
            let records = response.answers.iter_mut().chain(&mut response.authorities);
            records.for_each(|record| record.ttl = *ttl);
        }
        DnsChange::AuthenticData(value) => response.metadata.authentic_data = *value,
        DnsChange::OptOut(zone) => response.authorities.extend(opt_out(zone)),
        DnsChange::Replay => {
            if let Some(other) = other {
                copy(&mut response, other);
            }
        }
        DnsChange::Borrow { proof, .. } => {
            if let Some(other) = other {
                borrow(&mut response, other, proof);
            }
        }
    }
    response
}

/// Takes everything but the ID and the question from another response.
fn copy(response: &mut Message, other: Message) {
    response.metadata.response_code = other.metadata.response_code;
    response.metadata.authentic_data = other.metadata.authentic_data;
    (response.answers, response.authorities) = (other.answers, other.authorities);
}

fn borrow(response: &mut Message, other: Message, proof: &Proof) {
    match proof {
        Proof::Whole => copy(response, other),
        Proof::Absence(code) => {
            response.metadata.response_code = *code;
            response.answers.clear();
            let proofs = other.answers.into_iter().filter(is_dnssec);
            response.authorities = other.authorities.into_iter().chain(proofs).collect();
        }
        Proof::Authority => response.authorities = other.authorities,
        Proof::Wildcard(zone) => {
            let owner = |query: &Query| query.name().clone();
            let asked = response.queries.first().map(owner).unwrap_or_else(Name::root);
            let borrowed = other.queries.first().map(owner).unwrap_or_else(Name::root);
            copy(response, other);
            let own = response.answers.iter_mut().filter(|record| record.name == borrowed);
            own.for_each(|record| record.name = asked.clone());
            response.authorities = soa(zone, NEGATIVE_TTL).into_iter().collect();
        }
    }
}

fn is_signature(record: &Record) -> bool {
    matches!(record.data, RData::DNSSEC(DNSSECRData::RRSIG(_)))
}

fn is_dnssec(record: &Record) -> bool {
    matches!(record.data, RData::DNSSEC(_))
}

fn soa(zone: &str, ttl: u32) -> Option<Record> {
    let zone = Name::from_ascii(zone).ok()?;
    let data = SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86_400, ttl);
    Some(Record::from_rdata(zone, ttl, RData::SOA(data)))
}

/// An NSEC3 record that seems to cover every name of the zone but one.
fn opt_out(zone: &str) -> Option<Record> {
    let owner = Name::from_ascii("0".repeat(NSEC3_LABEL_BYTES))
        .ok()?
        .append_domain(&Name::from_ascii(zone).ok()?)
        .ok()?;
    let next = vec![0xff; NSEC3_HASH_BYTES];
    let data = NSEC3::new(Nsec3HashAlgorithm::SHA1, true, 0, Vec::new(), next, [RecordType::A]);
    Some(Record::from_rdata(owner, NEGATIVE_TTL, RData::DNSSEC(DNSSECRData::NSEC3(data))))
}

fn ns(zone: &str, ttl: u32) -> Option<Record> {
    let zone = Name::from_ascii(zone).ok()?;
    Some(Record::from_rdata(zone.clone(), ttl, RData::NS(NS(zone))))
}
