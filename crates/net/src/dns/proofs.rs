//! Checks of validated answers that the library leaves out (RFC 4035 §5.3.4). [`super::Resolver`] makes them for every
//! answer that it validates itself.

use super::{Answer, DnsError, Kind};
use hickory_proto::dnssec::Proof;
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError as HickoryDns, NetError};

/// True if a record of the answer was expanded from a wildcard, and nothing proves that the name does not exist itself
/// (RFC 4035 §5.3.4). The library does not ask for the proof where all records of the authority section are unsigned, as
/// an attacker can make them.
pub(super) fn is_unproven_expansion(message: &Message) -> bool {
    let is_expanded = |record: &Record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
            signature.input().num_labels < record.name.num_labels()
        }
        _ => false,
    };
    let is_proof = |record: &Record| {
        record.proof == Proof::Secure && matches!(record.record_type(), RecordType::NSEC | RecordType::NSEC3)
    };
    message.answers.iter().any(is_expanded) && !message.authorities.iter().any(is_proof)
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
        (_, Ok(answer)) => matches!(kind, Kind::Mx | Kind::Tlsa) && !answer.aliases.is_empty(),
        (Err(NetError::Dns(HickoryDns::NoRecordsFound(none))), Err(_)) => is_other(&none.query),
        (Err(NetError::Dns(HickoryDns::Nsec { query, .. })), Err(_)) => is_other(query),
        (_, Err(_)) => false,
    }
}
