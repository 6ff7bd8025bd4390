//! Denials that are signed by a zone which does not enclose the name (RFC 4035 §5.4). Whoever has one signed zone can sign an
//! interval of names around all others. If that counted, TLSA records could be denied, and DANE would not apply.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::DomainName;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, NSEC, NSEC3, RRSIG, SigInput};
use hickory_proto::dnssec::{Algorithm, DigestType, DnssecSigner, Nsec3HashAlgorithm, SigningKey, TBS};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use sternpost_net::dns::{Absence, Answer, Dns, DnsError, Dnssec, Kind, Resolver, ResolverConfig, Security};
use tokio::net::UdpSocket;

const TTL: u32 = 300;
/// More iterations than the library validates; it takes such an answer for insecure.
const MANY_ITERATIONS: u16 = 101;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// A zone with a key, and a DS record in the zone above.
struct Zone {
    origin: Name,
    signer: DnssecSigner,
}

impl Zone {
    fn new(origin: &str) -> Self {
        let algorithm = Algorithm::ECDSAP256SHA256;
        let key = EcdsaSigningKey::generate_pkcs8(algorithm).unwrap();
        let key = EcdsaSigningKey::from_pkcs8(&key, algorithm).unwrap();
        let dnskey = DNSKEY::new(true, true, false, key.to_public_key().unwrap());
        let origin = name(origin);
        let signer = DnssecSigner::new(dnskey, Box::new(key), origin.clone(), Duration::from_secs(3600));
        Self { origin, signer }
    }

    fn dnskey(&self) -> DNSKEY {
        self.signer.to_dnskey()
    }

    fn ds(&self) -> RData {
        let digest = self.dnskey().to_digest(&self.origin, DigestType::SHA256).unwrap();
        let tag = self.dnskey().calculate_key_tag().unwrap();
        let ds = DS::new(tag, Algorithm::ECDSAP256SHA256, DigestType::SHA256, digest.as_ref().to_vec());
        RData::DNSSEC(DNSSECRData::DS(ds))
    }

    fn soa(&self) -> RData {
        RData::SOA(SOA::new(self.origin.clone(), self.origin.clone(), 1, 3600, 600, 86_400, 60))
    }

    /// A record and its signature. `labels` are those of the name, or fewer for one that was expanded from a wildcard.
    fn signed(&self, owner: &str, labels: u8, data: RData) -> Vec<Record> {
        let record = Record::from_rdata(name(owner), TTL, data);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let at = |second: u64| SerialNumber::new(u32::try_from(second).unwrap());
        let input = SigInput {
            type_covered: record.record_type(),
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: labels,
            original_ttl: TTL,
            sig_expiration: at(now + 3600),
            sig_inception: at(now - 3600),
            key_tag: self.dnskey().calculate_key_tag().unwrap(),
            signer_name: self.origin.clone(),
        };
        let signed = TBS::from_input(&record.name, DNSClass::IN, &input, std::iter::once(&record)).unwrap();
        let signature = RRSIG::from_sig(input, self.signer.sign(&signed).unwrap());
        let signature = Record::from_rdata(name(owner), TTL, RData::DNSSEC(DNSSECRData::RRSIG(signature)));
        vec![record, signature]
    }

    fn plain(&self, owner: &str, data: RData) -> Vec<Record> {
        self.signed(owner, name(owner).num_labels(), data)
    }

    fn nsec(&self, owner: &str, next: &str, types: &[RecordType]) -> Vec<Record> {
        let nsec = NSEC::new(name(next), types.iter().copied());
        self.plain(owner, RData::DNSSEC(DNSSECRData::NSEC(nsec)))
    }

    /// The NSEC3 record of a zone with one name, which covers all hashes but that of the name.
    fn nsec3(&self, iterations: u16) -> Vec<Record> {
        let algorithm = Nsec3HashAlgorithm::SHA1;
        let hash = algorithm.hash(&[], &self.origin, iterations).unwrap().as_ref().to_vec();
        let owner = format!("{}.{}", data_encoding::BASE32_DNSSEC.encode(&hash), self.origin);
        let types = [RecordType::SOA, RecordType::NS, RecordType::DNSKEY];
        let nsec3 = NSEC3::new(algorithm, false, iterations, Vec::new(), hash, types);
        self.plain(&owner, RData::DNSSEC(DNSSECRData::NSEC3(nsec3)))
    }
}

/// The answer to one query: response code, answers, authorities.
type Reply = (ResponseCode, Vec<Record>, Vec<Record>);
/// The replies by the type of the query.
type Replies = dyn Fn(RecordType) -> Reply + Send + Sync;

/// Starts a server that has the keys of the zones, and these replies to all other queries.
async fn server(zones: Arc<Vec<Zone>>, replies: Box<Replies>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let query = asked.queries[0].clone();
            let zone = zones.iter().find(|zone| zone.origin == *query.name());
            let parent =
                zones.iter().filter(|zone| zone.origin.zone_of(query.name()) && zone.origin != *query.name());
            let owner = query.name().to_ascii().to_ascii_lowercase();
            let (code, answers, authorities) = match (query.query_type(), zone) {
                (RecordType::DNSKEY, Some(zone)) => {
                    let key = RData::DNSSEC(DNSSECRData::DNSKEY(zone.dnskey()));
                    (ResponseCode::NoError, zone.plain(&owner, key), Vec::new())
                }
                (RecordType::DS, Some(zone)) => {
                    let parent = parent.max_by_key(|zone| zone.origin.num_labels()).unwrap();
                    (ResponseCode::NoError, parent.plain(&owner, zone.ds()), Vec::new())
                }
                (kind, _) => replies(kind),
            };
            let mut reply = Message::new(asked.metadata.id, MessageType::Response, asked.metadata.op_code);
            reply.metadata.recursion_available = true;
            reply.metadata.response_code = code;
            reply.add_query(query);
            reply.add_answers(answers);
            reply.add_authorities(authorities);
            socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
        }
    });
    address
}

async fn lookup(
    zones: &Arc<Vec<Zone>>,
    replies: Box<Replies>,
    asked: &str,
    kind: Kind,
) -> Result<Answer, DnsError> {
    let config = ResolverConfig {
        servers: vec![server(zones.clone(), replies).await],
        dnssec: Dnssec::Validate,
        trust_anchor: Some(format!(". {TTL} IN DNSKEY {}", zones[0].dnskey())),
        ..ResolverConfig::default()
    };
    Resolver::new(&config).unwrap().lookup(&DomainName::parse(asked).unwrap(), kind).await
}

const TLSA: &str = "_25._tcp.mx.victim";

/// The root, the zone of an attacker and that of a victim.
fn three() -> Arc<Vec<Zone>> {
    Arc::new([".", "attacker.", "victim."].map(Zone::new).into())
}

/// The denial of the victim's TLSA record, with the SOA record that the victim itself sends with denials.
async fn denied(zones: &Arc<Vec<Zone>>, soa: bool, denial: Vec<Record>) -> Result<Answer, DnsError> {
    let victim = &zones[2];
    let mut authorities = if soa { victim.plain("victim.", victim.soa()) } else { Vec::new() };
    authorities.extend(denial);
    let reply = (ResponseCode::NXDomain, Vec::new(), authorities);
    lookup(zones, Box::new(move |_| reply.clone()), TLSA, Kind::Tlsa).await
}

fn security(denied: &Result<Answer, DnsError>) -> Option<Security> {
    match denied {
        Err(DnsError::NoSuchName(Absence { security, .. })) => Some(*security),
        _ => None,
    }
}

const APEX: [RecordType; 3] = [RecordType::SOA, RecordType::NS, RecordType::DNSKEY];

#[tokio::test]
async fn an_nsec_record_of_another_zone_does_not_remove_dane() {
    let zones = three();
    let own = denied(&zones, true, zones[2].nsec("victim.", "victim.", &APEX)).await;
    assert_eq!(security(&own), Some(Security::Secure), "{own:?}");
    let foreign = denied(&zones, true, zones[1].nsec("attacker.", "zz.", &APEX)).await;
    assert_eq!(foreign, Err(DnsError::Bogus));
    // The root has both names, and says that the second is a zone of its own.
    let above =
        denied(&zones, true, zones[0].nsec("victim.", "zz.", &[RecordType::NS, RecordType::DS])).await;
    assert_eq!(above, Err(DnsError::Bogus));
}

#[tokio::test]
async fn an_nsec3_record_of_another_zone_does_not_make_an_answer_insecure() {
    let zones = three();
    let own = denied(&zones, true, zones[2].nsec3(MANY_ITERATIONS)).await;
    assert_eq!(security(&own), Some(Security::Insecure), "{own:?}");
    for soa in [false, true] {
        let foreign = denied(&zones, soa, zones[1].nsec3(MANY_ITERATIONS)).await;
        assert_eq!(foreign, Err(DnsError::Bogus), "{soa}");
    }
}

#[tokio::test]
async fn a_wildcard_does_not_apply_to_a_name_that_another_zone_denies() {
    // A provider with a wildcard, and two customers with zones of their own.
    let zones =
        Arc::new([".", "provider.", "attacker.provider."].map(Zone::new).into_iter().collect::<Vec<_>>());
    let expanded = zones[1].signed("victim.provider.", 1, RData::A(A::new(192, 0, 2, 66)));
    // What the library expects of a wildcard beside the name: a denial of the wildcard, and one of the name.
    let mut own = zones[1].nsec("provider.", "attacker.provider.", &APEX);
    own.extend(zones[1].nsec("attacker.provider.", "zz.provider.", &[RecordType::NS, RecordType::DS]));
    let foreign = zones[2].nsec("attacker.provider.", "zz.provider.", &APEX);
    // The name exists, and is not an alias.
    let mut no_alias = zones[1].plain("provider.", zones[1].soa());
    no_alias.extend(zones[1].nsec("victim.provider.", "zz.provider.", &[RecordType::A]));
    let found = async |authorities: Vec<Record>| {
        let (expanded, no_alias) = (expanded.clone(), no_alias.clone());
        let replies = move |kind| match kind {
            RecordType::A => (ResponseCode::NoError, expanded.clone(), authorities.clone()),
            _ => (ResponseCode::NoError, Vec::new(), no_alias.clone()),
        };
        lookup(&zones, Box::new(replies), "victim.provider", Kind::A).await
    };
    let by_own = found(own).await;
    assert!(by_own.as_ref().is_ok_and(|found| found.security == Security::Secure), "{by_own:?}");
    assert_eq!(found(foreign).await, Err(DnsError::Bogus));
}
