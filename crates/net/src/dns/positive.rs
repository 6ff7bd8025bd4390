//! Records that are valid although the library rejects the response that contains them. It expects that all proofs in a response
//! are about the name in the question, as where the name does not exist:
//!
//! - For a name that gets its records from a wildcard beside it, it expects an NSEC record that covers the wildcard, which exists.
//! - A resolver that answers from its cache may follow an alias also where the alias itself was queried (Unbound does, by default).
//!   If the target does not exist, the response code and the proofs are about the target.
//!
//! The library drops such a response before it reaches its own cache. Here, the response is sent for once more and validated by
//! the same code, and the records of the name are judged alone: by their signature, and by the proof that a wildcard applies
//! (RFC 4035 §5.3.4), which [`super::servers`] checks for all answers.

use super::ResolverConfig;
use super::resolver_config::pool;
use super::sockets::Sockets;
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::dnssec::{Proof, TrustAnchors};
use hickory_proto::op::{DnsRequestOptions, DnsResponse, Message, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::NameServerPool;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::xfer::FirstAnswer;
use hickory_resolver::net::{DnsError as HickoryDns, DnsHandle, NetError, RetryDnsHandle};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Validates the records of a name, whatever else their response says.
pub(super) struct PositiveValidator {
    handle: DnssecDnsHandle<RetryDnsHandle<NameServerPool<Sockets>>>,
    options: DnsRequestOptions,
    max_ttl: Duration,
}

/// Verdicts that are remembered. The library would keep a million of them, under hashes that are not secret.
const VALIDATION_CACHE: usize = 0;
/// Retries of a query that no server answered.
const ATTEMPTS: usize = 1;

impl PositiveValidator {
    pub(super) fn new(
        config: &ResolverConfig,
        servers: &[NameServerConfig],
        anchors: Arc<TrustAnchors>,
    ) -> Result<Self, NetError> {
        let (pool, _, options) = pool(config, servers)?;
        let handle = DnssecDnsHandle::with_trust_anchor(RetryDnsHandle::new(pool, ATTEMPTS), anchors)
            .validation_cache_size(VALIDATION_CACHE);
        Ok(Self { handle, options, max_ttl: config.max_ttl })
    }

    /// The validated records of this type that `name` has; `None` if there are none.
    pub(super) async fn records(&self, name: &Name, kind: RecordType) -> Option<Lookup> {
        let query = Query::query(name.clone(), kind);
        match self.handle.lookup(query, self.options).first_answer().await {
            Ok(response) => own_records(&response, name, kind, self.max_ttl),
            Err(NetError::Dns(HickoryDns::Nsec { response, .. })) => {
                own_records(&response, name, kind, self.max_ttl)
            }
            Err(_) => None,
        }
    }
}

/// The validated records of a type that a response has for `name`, with the signature that was validated and the proofs of the
/// response. The library marks one signature of a set; a zone with two keys has others beside it, as during a rollover.
fn own_records(response: &DnsResponse, name: &Name, kind: RecordType, max_ttl: Duration) -> Option<Lookup> {
    let message: &Message = response;
    let is_own = |record: &&Record| record.name == *name && record.record_type() == kind;
    let records: Vec<&Record> = message.answers.iter().filter(is_own).collect();
    let is_validated = |record: &&Record| {
        record.name == *name && record.proof == Proof::Secure && covered_type(record) == Some(kind)
    };
    let signatures: Vec<&Record> = message.answers.iter().filter(is_validated).collect();
    let is_secure = records.iter().all(|record| record.proof == Proof::Secure);
    // Without the signature, nothing would show whether a wildcard was expanded.
    if records.is_empty() || signatures.is_empty() || !is_secure {
        return None;
    }
    let own: Vec<Record> = records.into_iter().chain(signatures).cloned().collect();
    let ttl = own.iter().map(|record| record.ttl).min().unwrap_or_default();
    let until = Instant::now() + Duration::from_secs(ttl.into()).min(max_ttl);
    let mut lookup = Lookup::new_with_deadline(Query::query(name.clone(), kind), own, until);
    lookup.extend_authorities(message.authorities.iter().cloned());
    Some(lookup)
}

/// The type of the records that a signature is of; `None` for any other record.
fn covered_type(record: &Record) -> Option<RecordType> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature.input().type_covered),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::dnssec::Algorithm;
    use hickory_proto::dnssec::rdata::{RRSIG, SigInput};
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::SerialNumber;
    use hickory_proto::rr::rdata::CNAME;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn proven(owner: &str, ttl: u32, data: RData, proof: Proof) -> Record {
        let mut record = Record::from_rdata(name(owner), ttl, data);
        record.proof = proof;
        record
    }

    fn alias(owner: &str, proof: Proof) -> Record {
        proven(owner, 60, RData::CNAME(CNAME(name("nothing.example."))), proof)
    }

    fn signature(owner: &str, proof: Proof) -> Record {
        let input = SigInput {
            type_covered: RecordType::CNAME,
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: 1,
            original_ttl: 300,
            sig_expiration: SerialNumber::new(2),
            sig_inception: SerialNumber::new(1),
            key_tag: 1,
            signer_name: name("example."),
        };
        proven(owner, 30, RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, vec![0; 64]))), proof)
    }

    #[test]
    fn only_records_of_the_name_with_a_validated_signature_are_taken_from_a_response() {
        let (secure, bogus) = (Proof::Secure, Proof::Bogus);
        let (own, other) = ("x.example.", "y.example.");
        for (answers, taken) in [
            (vec![alias(own, secure), signature(own, secure), alias(other, bogus)], 2),
            (vec![alias(own, secure), signature(own, secure)], 2),
            // A zone with two keys: the library validates one of the signatures.
            (vec![alias(own, secure), signature(own, Proof::Indeterminate), signature(own, secure)], 2),
            (vec![alias(own, bogus), signature(own, secure)], 0),
            (vec![alias(own, secure), signature(own, bogus)], 0),
            (vec![alias(own, secure), alias(own, Proof::Insecure), signature(own, secure)], 0),
            (vec![alias(own, secure)], 0),
            (vec![alias(own, Proof::Insecure)], 0),
            (vec![alias(other, secure), signature(other, secure)], 0),
            (vec![signature(own, secure)], 0),
            (vec![], 0),
        ] {
            let mut message = Message::query();
            message.metadata.response_code = ResponseCode::NXDomain;
            message.insert_answers(answers.clone());
            message.insert_authorities(vec![signature("example.", secure)]);
            let response = DnsResponse::from_message(message.into_response()).unwrap();
            let found = own_records(&response, &name(own), RecordType::CNAME, Duration::from_secs(20));
            assert_eq!(found.as_ref().map_or(0, |found| found.answers().len()), taken, "{answers:?}");
            if let Some(found) = found {
                assert_eq!(found.authorities().len(), 1);
                assert!(found.valid_until() <= Instant::now() + Duration::from_secs(20));
            }
        }
    }
}
