//! The lab's authoritative name server: a private root with signed, unsigned and deliberately bogus zones
//! (RFC 4035). Responses can be tampered with by name and record type, as an attacker would.

use formats::DomainName;
use formats::tlsa::TlsaRecord;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::{CDS, DNSKEY, DNSSECRData, DS};
use hickory_proto::dnssec::{Algorithm, DigestType, DnssecSigner, PublicKey, SigningKey};
use hickory_proto::op::{Header, HeaderCounts, ResponseCode};
use hickory_proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use hickory_proto::rr::rdata::{A, AAAA, CAA, CNAME, MX, NS, NULL, SOA, TLSA, TXT};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use hickory_server::dnssec::NxProofKind;
use hickory_server::net::runtime::{Time, TokioRuntimeProvider};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, MessageResponseBuilder, ZoneHandler, ZoneType};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};

/// The DNSSEC state of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signing {
    /// Signed, with a DS at its parent.
    Signed,
    /// Not signed; the parent proves that there is no DS record.
    Unsigned,
    /// Signed, but the DS record at the parent does not match the key.
    Bogus,
    /// Signed, but the parent proves that there is no DS record.
    Unlinked,
}

/// The data of one record. Names are absolute, with the final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rr {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A CAA `issue` property with the CA's domain; `None` allows no CA.
    Caa(Option<String>),
    /// The host name of a name server.
    Ns(String),
    /// The target of an alias.
    Cname(String),
    /// The target of the names below a name (RFC 6672), in lower case. The server does not answer for those names: an
    /// attack of [`crate::man_in_the_middle`] can make the CNAME records that other servers make.
    Dname(String),
    /// Preference and mail exchanger; `.` is the null MX.
    Mx(u16, String),
    /// A text of one or more character strings.
    Txt(Vec<String>),
    /// A TLSA record.
    Tlsa(TlsaRecord),
    /// A CDS record (RFC 7344 §3.1) with a made-up digest.
    Cds,
}

/// How responses to queries for one name and type are falsified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tampering {
    /// An empty response without DNSSEC proof.
    Suppress,
    /// A response with SERVFAIL.
    ServFail,
    /// No response.
    Drop,
    /// A response with these records, without signatures.
    Forge(Vec<Rr>),
    /// A negative response with a record of a zone in the authority section, without signatures.
    ForgeAbsence {
        /// The owner of the record, which need not enclose the name.
        zone: String,
        /// The type of the record.
        authority: ForgedAuthority,
        /// Use NXDOMAIN instead of NOERROR.
        no_such_name: bool,
    },
}

/// The record in the authority section of a forged negative response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgedAuthority {
    /// An SOA record, as in a genuine negative response.
    Soa,
    /// An NS record, as in a referral.
    Ns,
}

impl ForgedAuthority {
    fn record(self, zone: Name) -> Record {
        let data = match self {
            Self::Soa => RData::SOA(SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86_400, RECORD_TTL)),
            Self::Ns => RData::NS(NS(zone.clone())),
        };
        Record::from_rdata(zone, RECORD_TTL, data)
    }
}

/// Why the name server could not be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum DnsSetupError {
    /// The text, and why it is not a domain name.
    #[error("{0:?} is not a domain name: {1}")]
    Name(String, String),
    /// The zone, and why its keys or signatures could not be made.
    #[error("failed to sign {0}: {1}")]
    Signing(String, String),
    /// A socket could not be opened.
    #[error("the lab's name server: {0}")]
    Io(#[from] io::Error),
}

/// A running name server. Dropping it stops it.
pub struct NameServer {
    /// The listen address, for both UDP and TCP.
    pub address: SocketAddr,
    world: Arc<World>,
    _task: AbortOnDrop,
}

/// Aborts a task when dropped.
pub(crate) struct AbortOnDrop(pub tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Zone {
    signing: Signing,
    /// The TTL of records that are added from now on, in seconds.
    ttl: u32,
    records: BTreeMap<(String, u16), Vec<(u32, RData)>>,
    key: Vec<u8>,
}

#[derive(Default)]
struct World {
    zones: Mutex<HashMap<String, Zone>>,
    handlers: Mutex<HashMap<LowerName, Arc<dyn ZoneHandler>>>,
    meddling: Mutex<HashMap<(LowerName, RecordType), Tampering>>,
}

/// The default TTL of all records, in seconds.
const RECORD_TTL: u32 = 300;

/// Binds UDP and TCP to one port; 0 selects one that is free for both. The kernel selects it for UDP alone, so another program may
/// have it for TCP.
pub(crate) async fn sockets(ip: Ipv4Addr, port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..if port == 0 { 100 } else { 1 } {
        let udp = UdpSocket::bind((ip, port)).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl NameServer {
    /// Starts a name server with a signed root and a signed `test.` at this address. UDP and TCP use the same
    /// port; 0 selects a free one.
    pub async fn start(ip: Ipv4Addr, port: u16) -> Result<Self, DnsSetupError> {
        let (udp, tcp) = sockets(ip, port).await?;
        let address = udp.local_addr()?;
        let world = Arc::new(World::default());
        let mut server = hickory_server::Server::new(Handler(world.clone()));
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(10), 64);
        let task = tokio::spawn(async move {
            let _ = server.block_until_done().await;
        });
        let this = Self { address, world, _task: AbortOnDrop(task) };
        this.add_zone(".", Signing::Signed)?;
        this.set("ns.test.", vec![Rr::A(ip)])?;
        this.add_zone("test.", Signing::Signed)?;
        this.set("ns.test.", vec![Rr::A(ip)])?;
        Ok(this)
    }

    /// Adds an empty zone and its delegation. The parent zone has to exist.
    pub fn add_zone(&self, origin: &str, signing: Signing) -> Result<(), DnsSetupError> {
        self.add_zones(&[origin.to_owned()], signing)
    }

    /// Like [`Self::add_zone`], for many zones; each parent zone is signed only once.
    pub fn add_zones(&self, origins: &[String], signing: Signing) -> Result<(), DnsSetupError> {
        let mut parents = BTreeSet::new();
        for origin in origins {
            parents.extend(self.add_without_rebuild(origin, signing)?);
        }
        parents.iter().chain(origins).try_for_each(|origin| self.rebuild(origin))
    }

    /// Adds a zone and its delegation. Returns the parent zone; `None` for the root.
    fn add_without_rebuild(&self, origin: &str, signing: Signing) -> Result<Option<String>, DnsSetupError> {
        let name = parse(origin)?;
        let key = EcdsaSigningKey::generate_pkcs8(Algorithm::ECDSAP256SHA256)
            .map_err(|e| sign_error(origin, &e))?;
        let zone =
            Zone { signing, ttl: RECORD_TTL, records: BTreeMap::new(), key: key.secret_pkcs8_der().to_vec() };
        let dnskey = zone.dnskey(origin)?;
        lock(&self.world.zones).insert(origin.to_owned(), zone);
        let ns = RData::NS(NS(parse("ns.test.")?));
        self.put(origin, origin, RecordType::NS, vec![ns.clone()])?;
        if origin == "." {
            return Ok(None);
        }
        let parent = self.zone_of(&name.base_name().to_ascii());
        self.put(&parent, origin, RecordType::NS, vec![ns])?;
        if let Some(ds) = delegation(&name, &dnskey, signing)? {
            self.put(&parent, origin, RecordType::DS, vec![ds])?;
        }
        Ok(Some(parent))
    }

    /// Replaces the records at a name, for the record types that `records` contains.
    pub fn set(&self, name: &str, records: Vec<Rr>) -> Result<(), DnsSetupError> {
        self.set_without_rebuild(name, records)?;
        self.rebuild(&self.zone_of(name))
    }

    /// Like [`Self::set`], for many names of one zone, which is signed only once.
    pub fn set_all(&self, origin: &str, records: Vec<(String, Vec<Rr>)>) -> Result<(), DnsSetupError> {
        for (name, records) in records {
            self.set_without_rebuild(&name, records)?;
        }
        self.rebuild(origin)
    }

    fn set_without_rebuild(&self, name: &str, records: Vec<Rr>) -> Result<(), DnsSetupError> {
        let zone = self.zone_of(name);
        let mut by_kind: BTreeMap<RecordType, Vec<RData>> = BTreeMap::new();
        for record in records {
            let data = record.data()?;
            by_kind.entry(data.record_type()).or_default().push(data);
        }
        for (kind, data) in by_kind {
            self.put(&zone, name, kind, data)?;
        }
        Ok(())
    }

    /// Sets the TTL of records that are added to a zone from now on, in seconds.
    pub fn set_ttl(&self, origin: &str, seconds: u32) {
        if let Some(zone) = lock(&self.world.zones).get_mut(origin) {
            zone.ttl = seconds;
        }
    }

    /// Removes all records at a name.
    pub fn remove(&self, name: &str) -> Result<(), DnsSetupError> {
        let zone = self.zone_of(name);
        if let Some(zone) = lock(&self.world.zones).get_mut(&zone) {
            zone.records.retain(|(owner, _), _| owner != name);
        }
        self.rebuild(&zone)
    }

    /// Falsifies responses for one name and record type; `None` stops that.
    pub fn meddle(
        &self,
        name: &str,
        kind: TamperedKind,
        how: Option<Tampering>,
    ) -> Result<(), DnsSetupError> {
        let key = (LowerName::from(parse(name)?), kind.record_type());
        let mut meddling = lock(&self.world.meddling);
        match how {
            Some(how) => meddling.insert(key, how),
            None => meddling.remove(&key),
        };
        Ok(())
    }

    /// The trust anchor of the lab: the root's DNSKEY record in zone-file format.
    pub fn trust_anchor(&self) -> Result<String, DnsSetupError> {
        let zones = lock(&self.world.zones);
        let root = zones.get(".").ok_or_else(|| DnsSetupError::Signing(".".into(), "no root".into()))?;
        Ok(format!(". {RECORD_TTL} IN DNSKEY {}", root.dnskey(".")?))
    }

    /// The trust anchor as a DS record in zone-file format, for resolvers that need a DS.
    pub fn root_ds(&self) -> Result<String, DnsSetupError> {
        let zones = lock(&self.world.zones);
        let root = zones.get(".").ok_or_else(|| DnsSetupError::Signing(".".into(), "no root".into()))?;
        let ds = delegation(&Name::root(), &root.dnskey(".")?, Signing::Signed)?;
        Ok(ds.map(|ds| format!(". {RECORD_TTL} IN DS {ds}")).unwrap_or_default())
    }

    /// All zones as zone files, for use with another name server. DS records are omitted, since they depend on
    /// that server's keys.
    pub fn zone_files(&self) -> Vec<ZoneFile> {
        let zones = lock(&self.world.zones);
        let files = zones.iter().map(|(origin, zone)| ZoneFile {
            origin: origin.clone(),
            signing: zone.signing,
            text: zone.to_text(origin),
        });
        files.collect()
    }

    fn zone_of(&self, name: &str) -> String {
        let zones = lock(&self.world.zones);
        let mut rest = name;
        while !zones.contains_key(rest) {
            match rest.split_once('.') {
                Some((_, parent)) if !parent.is_empty() => rest = parent,
                _ => return ".".to_owned(),
            }
        }
        rest.to_owned()
    }

    fn put(&self, origin: &str, name: &str, kind: RecordType, data: Vec<RData>) -> Result<(), DnsSetupError> {
        parse(name)?;
        if let Some(zone) = lock(&self.world.zones).get_mut(origin) {
            let key = (name.to_owned(), u16::from(kind));
            zone.records.remove(&key);
            if !data.is_empty() {
                let ttl = zone.ttl;
                zone.records.insert(key, data.into_iter().map(|data| (ttl, data)).collect());
            }
        }
        Ok(())
    }

    fn rebuild(&self, origin: &str) -> Result<(), DnsSetupError> {
        let handler = match lock(&self.world.zones).get(origin) {
            Some(zone) => zone.handler(origin)?,
            None => return Ok(()),
        };
        lock(&self.world.handlers).insert(LowerName::from(parse(origin)?), handler);
        Ok(())
    }
}

/// The record types whose responses can be falsified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TamperedKind {
    /// TXT records.
    Txt,
    /// MX records.
    Mx,
    /// A records.
    A,
    /// TLSA records.
    Tlsa,
    /// DS records.
    Ds,
    /// SOA records.
    Soa,
}

impl TamperedKind {
    fn record_type(self) -> RecordType {
        match self {
            Self::Txt => RecordType::TXT,
            Self::Mx => RecordType::MX,
            Self::A => RecordType::A,
            Self::Tlsa => RecordType::TLSA,
            Self::Ds => RecordType::DS,
            Self::Soa => RecordType::SOA,
        }
    }
}

/// A zone in master file format (RFC 1035 §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneFile {
    /// The zone's name, with the final dot.
    pub origin: String,
    /// The DNSSEC state that the zone should get.
    pub signing: Signing,
    /// The contents of the file.
    pub text: String,
}

impl Zone {
    fn to_text(&self, origin: &str) -> String {
        let mut text =
            format!("{origin} {RECORD_TTL} IN SOA ns.test. hostmaster.test. 1 3600 600 86400 60\n");
        for ((owner, kind), data) in &self.records {
            let kind = RecordType::from(*kind);
            for (ttl, data) in data.iter().filter(|_| kind != RecordType::DS) {
                let shown = match data {
                    RData::TXT(txt) => {
                        txt.txt_data.iter().map(|string| quoted(string)).collect::<Vec<_>>().join(" ")
                    }
                    other => other.to_string(),
                };
                text += &format!("{owner} {ttl} IN {kind} {shown}\n");
            }
        }
        text
    }

    fn signing_key(&self, origin: &str) -> Result<EcdsaSigningKey, DnsSetupError> {
        EcdsaSigningKey::from_pkcs8(&self.key.as_slice().into(), Algorithm::ECDSAP256SHA256)
            .map_err(|e| sign_error(origin, &e))
    }

    fn dnskey(&self, origin: &str) -> Result<DNSKEY, DnsSetupError> {
        let public = self.signing_key(origin)?.to_public_key().map_err(|e| sign_error(origin, &e))?;
        debug_assert!(!public.public_bytes().is_empty());
        Ok(DNSKEY::new(true, true, false, public))
    }

    fn handler(&self, origin: &str) -> Result<Arc<dyn ZoneHandler>, DnsSetupError> {
        let name = parse(origin)?;
        let proof = (self.signing != Signing::Unsigned).then_some(NxProofKind::Nsec);
        let mut handler = InMemoryZoneHandler::<TokioRuntimeProvider>::empty(
            name.clone(),
            ZoneType::Primary,
            AxfrPolicy::Deny,
            proof,
        );
        let soa = SOA::new(parse("ns.test.")?, parse("hostmaster.test.")?, 1, 3600, 600, 86_400, 60);
        handler.upsert_mut(Record::from_rdata(name.clone(), RECORD_TTL, RData::SOA(soa)), 1);
        for ((owner, _), data) in &self.records {
            for (ttl, data) in data {
                handler.upsert_mut(Record::from_rdata(parse(owner)?, *ttl, data.clone()), 1);
            }
        }
        if self.signing != Signing::Unsigned {
            let key = self.signing_key(origin)?;
            let signer = DnssecSigner::new(
                self.dnskey(origin)?,
                Box::new(key),
                name,
                Duration::from_secs(30 * 86_400),
            );
            handler.add_zone_signing_key_mut(signer).map_err(|e| sign_error(origin, &e))?;
            handler.secure_zone_mut().map_err(|e| sign_error(origin, &e))?;
        }
        Ok(Arc::new(handler))
    }
}

impl Rr {
    /// The data as the library has it.
    pub(crate) fn data(&self) -> Result<RData, DnsSetupError> {
        Ok(match self {
            Self::A(ip) => RData::A(A(*ip)),
            Self::Aaaa(ip) => RData::AAAA(AAAA(*ip)),
            Self::Caa(issuer) => {
                RData::CAA(CAA::new_issue(false, issuer.as_deref().map(parse).transpose()?, Vec::new()))
            }
            Self::Ns(host) => RData::NS(NS(parse(host)?)),
            Self::Cname(target) => RData::CNAME(CNAME(parse(target)?)),
            Self::Dname(target) => {
                let bytes = parse(target)?.to_bytes();
                let bytes = bytes.map_err(|error| DnsSetupError::Name(target.clone(), error.to_string()))?;
                RData::Unknown { code: RecordType::DNAME, rdata: NULL::with(bytes) }
            }
            Self::Mx(preference, host) => RData::MX(MX::new(*preference, parse(host)?)),
            Self::Txt(strings) => RData::TXT(TXT::new(strings.clone())),
            Self::Tlsa(record) => RData::TLSA(TLSA::new(
                CertUsage::from(record.usage),
                Selector::from(record.selector),
                Matching::from(record.matching),
                record.data.clone(),
            )),
            Self::Cds => {
                let algorithm = Some(Algorithm::ECDSAP256SHA256);
                RData::DNSSEC(DNSSECRData::CDS(CDS::new(1, algorithm, DigestType::SHA256, vec![7; 32])))
            }
        })
    }
}

/// A character string of a TXT record in quotes, with special bytes as `\DDD`.
fn quoted(string: &[u8]) -> String {
    let byte = |byte: &u8| match byte {
        b' ' | b'!' | b'#'..=b'[' | b']'..=b'~' => char::from(*byte).to_string(),
        odd => format!("\\{odd:03}"),
    };
    format!("\"{}\"", string.iter().map(byte).collect::<String>())
}

fn delegation(name: &Name, dnskey: &DNSKEY, signing: Signing) -> Result<Option<RData>, DnsSetupError> {
    let fail = |error: &dyn std::fmt::Display| DnsSetupError::Signing(name.to_ascii(), error.to_string());
    if matches!(signing, Signing::Unsigned | Signing::Unlinked) {
        return Ok(None);
    }
    let tag = dnskey.calculate_key_tag().map_err(|e| fail(&e))?;
    let digest = dnskey.to_digest(name, DigestType::SHA256).map_err(|e| fail(&e))?;
    let mut digest = digest.as_ref().to_vec();
    if signing == Signing::Bogus {
        digest.iter_mut().take(4).for_each(|byte| *byte ^= 0xff);
    }
    let ds = DS::new(tag, Algorithm::ECDSAP256SHA256, DigestType::SHA256, digest);
    Ok(Some(RData::DNSSEC(DNSSECRData::DS(ds))))
}

struct Handler(Arc<World>);

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let Ok(info) = request.request_info() else {
            return unanswered(request);
        };
        let (name, kind) = (info.query.name().clone(), info.query.query_type());
        let meddling = lock(&self.0.meddling).get(&(name.clone(), kind)).cloned();
        match meddling {
            None => {
                let catalog = self.0.catalog(&name, kind);
                RequestHandler::handle_request::<R, T>(&catalog, request, response).await
            }
            Some(Tampering::Drop) => unanswered(request),
            Some(Tampering::ServFail) => {
                let message = MessageResponseBuilder::from_message_request(request)
                    .error_msg(&request.metadata, ResponseCode::ServFail);
                sent(response.send_response(message).await, request)
            }
            Some(Tampering::Suppress) => {
                let message =
                    MessageResponseBuilder::from_message_request(request).build_no_records(metadata(request));
                sent(response.send_response(message).await, request)
            }
            Some(Tampering::ForgeAbsence { zone, authority, no_such_name }) => {
                let mut metadata = metadata(request);
                if no_such_name {
                    metadata.response_code = ResponseCode::NXDomain;
                }
                let record: Vec<Record> =
                    parse(&zone).map(|zone| authority.record(zone)).into_iter().collect();
                let message = MessageResponseBuilder::from_message_request(request).build(
                    metadata,
                    [],
                    &record,
                    [],
                    [],
                );
                sent(response.send_response(message).await, request)
            }
            Some(Tampering::Forge(forged)) => {
                let owner = Name::from(&name);
                let records: Vec<Record> = forged
                    .iter()
                    .filter_map(|rr| rr.data().ok())
                    .map(|data| Record::from_rdata(owner.clone(), RECORD_TTL, data))
                    .collect();
                let message = MessageResponseBuilder::from_message_request(request).build(
                    metadata(request),
                    &records,
                    [],
                    [],
                    [],
                );
                sent(response.send_response(message).await, request)
            }
        }
    }
}

/// The response information that the server library records for a request without a response.
fn unanswered(request: &Request) -> ResponseInfo {
    let mut metadata = metadata(request);
    metadata.response_code = ResponseCode::ServFail;
    let counts = HeaderCounts { queries: 1, answers: 0, authorities: 0, additionals: 0 };
    ResponseInfo::from(Header { metadata, counts })
}

fn metadata(request: &Request) -> hickory_proto::op::Metadata {
    let mut metadata = hickory_proto::op::Metadata::response_from_request(&request.metadata);
    metadata.authoritative = true;
    metadata
}

fn sent<E>(outcome: Result<ResponseInfo, E>, request: &Request) -> ResponseInfo {
    outcome.unwrap_or_else(|_| unanswered(request))
}

impl World {
    /// The zone that answers: the closest enclosing zone, or its parent for DS queries at a zone's apex.
    fn catalog(&self, name: &LowerName, kind: RecordType) -> Catalog {
        let handlers = lock(&self.handlers);
        let mut candidate = name.clone();
        if kind == RecordType::DS && handlers.contains_key(&candidate) && !candidate.is_root() {
            candidate = candidate.base_name();
        }
        let mut catalog = Catalog::new();
        loop {
            if let Some(handler) = handlers.get(&candidate) {
                catalog.upsert(candidate, vec![handler.clone()]);
                return catalog;
            }
            if candidate.is_root() {
                return catalog;
            }
            candidate = candidate.base_name();
        }
    }
}

fn parse(name: &str) -> Result<Name, DnsSetupError> {
    Name::from_ascii(name).map_err(|error| DnsSetupError::Name(name.to_owned(), error.to_string()))
}

/// The name with a final dot, as this module expects it.
pub fn absolute(name: &DomainName) -> String {
    format!("{name}.")
}

fn sign_error(origin: &str, error: &dyn std::fmt::Display) -> DnsSetupError {
    DnsSetupError::Signing(origin.to_owned(), error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
