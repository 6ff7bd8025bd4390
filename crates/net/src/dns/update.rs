//! Changes a zone by DNS UPDATE (RFC 2136) over TCP, signed with TSIG (RFC 8945). `operations::publishers` gives the
//! records to publish; [`Updater::replace`] reads the existing records from the primary server and replaces ours.
//!
//! Each update has prerequisites (RFC 2136 §2.4): the record sets at the name are as they were read. If another program has
//! changed one of them meanwhile, the server changes nothing, which is [`UpdateError::Changed`].

use crate::BoxFuture;
use formats::DomainName;
use formats::limits::DNS_TIME;
use hickory_proto::ProtoError;
use hickory_proto::op::{Message, OpCode, Query, ResponseCode, UpdateMessage};
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};
use jiff::Timestamp;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A zone and the primary server that accepts updates of it.
#[derive(Clone)]
pub struct Updater {
    server: SocketAddr,
    zone: DomainName,
    signer: TSigner,
}

/// The HMAC algorithm of a TSIG key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-sha256`.
    Sha256,
    /// `hmac-sha384`.
    Sha384,
    /// `hmac-sha512`.
    Sha512,
}

/// The records to publish at a name, and which existing records they replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// One TXT record, which replaces those that begin with `prefix`. Other TXT records are kept.
    Txt {
        /// The prefix of our records, such as `v=STSv1`.
        prefix: &'static str,
        /// The text of the new record; `None` only removes the old ones.
        value: Option<String>,
    },
    /// One text of the TXT records; all other texts are kept.
    TxtValue {
        /// The text that is published or removed.
        value: String,
        /// True to publish the text, false to remove it.
        is_published: bool,
    },
    /// A CNAME, which replaces the A, AAAA and CNAME records.
    Alias(DomainName),
    /// Addresses, which replace the A, AAAA and CNAME records. An empty list only removes the old records.
    Addresses(Vec<IpAddr>),
}

/// Our records at a name, as they were found: those that a [`Replacement`] replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Previous {
    /// The records in zone-file format, sorted.
    pub lines: Vec<String>,
    /// The replacement that publishes the same data again; `None` if no replacement does, as for two TXT records of one
    /// version, or for data that is not text.
    pub restores: Option<Replacement>,
}

/// The data of one of our records.
pub(super) enum OldData {
    Text(Vec<u8>),
    /// `None` for a target that is not a valid name.
    Target(Option<DomainName>),
    Address(IpAddr),
}

impl Previous {
    /// `like` is a replacement of the same kind as the one that reads the records.
    pub(super) fn new(like: &Replacement, mut lines: Vec<String>, found: Vec<OldData>) -> Self {
        lines.sort();
        Self { lines, restores: like.restoring(found) }
    }
}

/// Why a zone was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The TSIG key is invalid.
    #[error("the TSIG key is invalid: {0}")]
    Key(String),
    /// The server can't be reached, or the connection was lost.
    #[error("no answer from {0}: {1}")]
    Network(SocketAddr, io::Error),
    /// The whole update took longer than [`DNS_TIME`].
    #[error("{0} did not answer in time")]
    Timeout(SocketAddr),
    /// The response is malformed or failed TSIG verification, or no valid update could be built.
    #[error("the DNS UPDATE exchange with {0} failed: {1}")]
    Answer(SocketAddr, String),
    /// The server rejected a query or the update, with a DNS error code.
    #[error("{0} refused the request: {1}")]
    Refused(SocketAddr, String),
    /// The name has other records, beside which the new one can't be: a CNAME is alone at its name, and a server ignores an
    /// update that breaks this (RFC 2136 §3.4.2.2). Nothing was changed. The records, in zone-file format.
    #[error("it can't be published beside the records that are at this name, so nothing was changed: {}. A CNAME record is the only one at its name", .0.join(" and "))]
    Beside(Vec<String>),
    /// The server accepted the update and does not show the new record. The text describes the state of the old
    /// records.
    #[error(
        "{0} accepted the update and does not publish the record; there may be other records at this name. {1}"
    )]
    Ignored(SocketAddr, String),
    /// Another program changed the records while they were being replaced, so nothing was changed: the records found at the
    /// end, in zone-file format.
    #[error("another program changed the records meanwhile, so nothing was changed: {}", found(.0))]
    Changed(Vec<String>),
}

impl UpdateError {
    /// True if it is certain that the zone was not changed.
    pub fn is_unmade(&self) -> bool {
        match self {
            Self::Key(_) | Self::Refused(..) | Self::Beside(_) | Self::Changed(_) => true,
            Self::Network(_, error) => error.kind() == io::ErrorKind::ConnectionRefused,
            Self::Timeout(_) | Self::Answer(..) | Self::Ignored(..) => false,
        }
    }
}

/// The records found at a name, in words.
pub(super) fn found(lines: &[String]) -> String {
    match lines.is_empty() {
        true => "there are none now".to_owned(),
        false => format!("there is now {}", lines.join(" and ")),
    }
}

impl Updater {
    /// Creates an updater for a zone. The TSIG key consists of `key_name`, `secret` in base64 and `algorithm`.
    pub fn new(
        server: SocketAddr,
        zone: DomainName,
        key_name: &DomainName,
        secret: &str,
        algorithm: Algorithm,
    ) -> Result<Self, UpdateError> {
        let secret = data_encoding::BASE64
            .decode(secret.trim().as_bytes())
            .map_err(|_| UpdateError::Key("the secret is not base64".to_owned()))?;
        let algorithm = match algorithm {
            Algorithm::Sha256 => TsigAlgorithm::HmacSha256,
            Algorithm::Sha384 => TsigAlgorithm::HmacSha384,
            Algorithm::Sha512 => TsigAlgorithm::HmacSha512,
        };
        let key = |error: &dyn std::fmt::Display| UpdateError::Key(error.to_string());
        let name = absolute(key_name).map_err(|error| key(&error))?;
        let signer = TSigner::new(secret, algorithm, name, FUDGE).map_err(|error| key(&error))?;
        Ok(Self { server, zone, signer })
    }

    /// Reads the records at `name` that a replacement like this one replaces.
    pub fn read<'a>(
        &'a self,
        name: &'a DomainName,
        like: &'a Replacement,
    ) -> BoxFuture<'a, Result<Previous, UpdateError>> {
        Box::pin(self.in_time(async {
            let mut stream = self.connect().await?;
            let owner = absolute(name).map_err(|error| self.invalid(&error))?;
            let sets = self.record_sets(&mut stream, &owner, like).await?;
            Ok(previous(like, &sets))
        }))
    }

    /// Publishes `new` at `name` in one update message, which the server applies completely or not at all. `ttl` is in
    /// seconds, and `now` is the time of the signature. Returns the records that were replaced.
    ///
    /// # Errors
    ///
    /// [`UpdateError::Beside`] if the name has a record beside which `new` can't be. [`UpdateError::Changed`] if our records
    /// differ from `expected`, where that is given, or if any record of these kinds at the name is changed between reading and
    /// the update. If the connection is lost, the update may have been applied.
    pub fn replace<'a>(
        &'a self,
        name: &'a DomainName,
        new: &'a Replacement,
        expected: Option<&'a Previous>,
        ttl: u32,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Previous, UpdateError>> {
        Box::pin(self.in_time(async move {
            let mut stream = self.connect().await?;
            let owner = absolute(name).map_err(|error| self.invalid(&error))?;
            let sets = self.record_sets(&mut stream, &owner, new).await?;
            let old = previous(new, &sets);
            if expected.is_some_and(|expected| expected.lines != old.lines) {
                return Err(UpdateError::Changed(old.lines));
            }
            let update = self.message(&owner, &sets, new, ttl)?;
            match self.send(&mut stream, update, now).await? {
                Applied::Yes => self.check_shown(&owner, new, &sets, now).await.map(|()| old),
                Applied::Changed => {
                    // Most servers keep the connection open.
                    let mut stream = self.connect().await?;
                    let now = previous(new, &self.record_sets(&mut stream, &owner, new).await?).lines;
                    let beside = match now == old.lines {
                        true => self.excluded(&mut stream, &owner, new).await?,
                        false => Vec::new(),
                    };
                    Err(if beside.is_empty() {
                        UpdateError::Changed(now)
                    } else {
                        UpdateError::Beside(beside)
                    })
                }
            }
        }))
    }

    /// The records at the name that can't be beside `new`, in zone-file format.
    async fn excluded(
        &self,
        stream: &mut TcpStream,
        owner: &Name,
        new: &Replacement,
    ) -> Result<Vec<String>, UpdateError> {
        let mut lines = Vec::new();
        for kind in new.excluded_kinds() {
            lines.extend(self.query(stream, owner, *kind).await?.iter().map(ToString::to_string));
        }
        Ok(lines)
    }

    /// Checks that the server shows what it said to have applied. If it does not, the old records are published again:
    /// records of a kind that was not queried may be at the name. If the server can't be queried, its signed answer counts.
    async fn check_shown(
        &self,
        owner: &Name,
        new: &Replacement,
        before: &[RecordSet],
        now: Timestamp,
    ) -> Result<(), UpdateError> {
        let Ok(mut stream) = self.connect().await else { return Ok(()) };
        let Ok(sets) = self.record_sets(&mut stream, owner, new).await else { return Ok(()) };
        let wanted = new.data().map_err(|error| self.invalid(&error))?;
        let shown: Vec<&RData> = ours(&sets, new).map(|record| &record.data).collect();
        if wanted.iter().all(|data| shown.contains(&data)) && shown.len() == wanted.len() {
            return Ok(());
        }
        let old: Vec<Record> = ours(before, new).cloned().collect();
        if old.iter().all(|record| shown.contains(&&record.data)) {
            return Err(UpdateError::Ignored(self.server, "The old records are as they were".to_owned()));
        }
        if !shown.is_empty() {
            // The update was applied, and another program has changed the records since.
            return Ok(());
        }
        let mut update = self.prerequisites(owner, &sets)?;
        for record in &old {
            update.add_update(record.clone());
        }
        let what = match self.send(&mut stream, update, now).await {
            Ok(Applied::Yes) => "The old records were published again".to_owned(),
            Ok(Applied::Changed) => {
                "The old records were not published again, since another program changed them".to_owned()
            }
            Err(error) => {
                let lost: Vec<String> = old.iter().map(ToString::to_string).collect();
                format!("The old records could not be published again: {} ({error})", lost.join(" and "))
            }
        };
        Err(UpdateError::Ignored(self.server, what))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, UpdateError>>) -> Result<T, UpdateError> {
        tokio::time::timeout(DNS_TIME, work).await.unwrap_or(Err(UpdateError::Timeout(self.server)))
    }

    async fn connect(&self) -> Result<TcpStream, UpdateError> {
        TcpStream::connect(self.server).await.map_err(|error| UpdateError::Network(self.server, error))
    }

    /// All records of the kinds that `like` affects, also those of others.
    async fn record_sets(
        &self,
        stream: &mut TcpStream,
        owner: &Name,
        like: &Replacement,
    ) -> Result<Vec<RecordSet>, UpdateError> {
        let mut sets = Vec::new();
        for kind in like.kinds() {
            sets.push(RecordSet { kind: *kind, records: self.query(stream, owner, *kind).await? });
        }
        Ok(sets)
    }

    fn message(
        &self,
        owner: &Name,
        sets: &[RecordSet],
        new: &Replacement,
        ttl: u32,
    ) -> Result<Message, UpdateError> {
        let none = |kind: &RecordType| RecordSet { kind: *kind, records: Vec::new() };
        let excluded: Vec<RecordSet> = new.excluded_kinds().iter().map(none).collect();
        let mut message = self.prerequisites(owner, sets.iter().chain(&excluded))?;
        for record in ours(sets, new) {
            let mut gone = record.clone();
            (gone.dns_class, gone.ttl) = (DNSClass::NONE, 0);
            message.add_update(gone);
        }
        for data in new.data().map_err(|error| self.invalid(&error))? {
            message.add_update(Record::from_rdata(owner.clone(), ttl, data));
        }
        Ok(message)
    }

    /// An update of the zone that changes nothing yet, and is applied only if these record sets are as they were read.
    fn prerequisites<'a>(
        &self,
        owner: &Name,
        sets: impl IntoIterator<Item = &'a RecordSet>,
    ) -> Result<Message, UpdateError> {
        let zone = absolute(&self.zone).map_err(|error| self.invalid(&error))?;
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.metadata.recursion_desired = false;
        let mut about = Query::query(zone, RecordType::SOA);
        about.set_query_class(DNSClass::IN);
        message.add_zone(about);
        for set in sets {
            // "RRset Exists (Value Dependent)" and "RRset Does Not Exist" (RFC 2136 §2.4.2, §2.4.3).
            for record in &set.records {
                let mut same = record.clone();
                (same.dns_class, same.ttl) = (DNSClass::IN, 0);
                message.add_pre_requisite(same);
            }
            if set.records.is_empty() {
                let mut none = Record::update0(owner.clone(), 0, set.kind);
                none.dns_class = DNSClass::NONE;
                message.add_pre_requisite(none);
            }
        }
        Ok(message)
    }

    async fn query(
        &self,
        stream: &mut TcpStream,
        owner: &Name,
        kind: RecordType,
    ) -> Result<Vec<Record>, UpdateError> {
        let mut query = Message::query();
        query.metadata.recursion_desired = false;
        query.add_query(Query::query(owner.clone(), kind));
        let bytes = query.to_vec().map_err(|error| self.invalid(&error))?;
        let answer = self.exchange(stream, &bytes).await?;
        let answer = Message::from_vec(&answer).map_err(|error| self.invalid(&error))?;
        match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {
                let is_it = |record: &Record| record.record_type() == kind && record.name == *owner;
                Ok(answer.answers.into_iter().filter(is_it).collect())
            }
            code => Err(UpdateError::Refused(self.server, format!("{code} to a query for {owner}"))),
        }
    }

    async fn send(
        &self,
        stream: &mut TcpStream,
        mut message: Message,
        now: Timestamp,
    ) -> Result<Applied, UpdateError> {
        let time = u64::try_from(now.as_second()).unwrap_or_default();
        let verifier = message.finalize(&self.signer, time).map_err(|error| self.invalid(&error))?;
        let bytes = message.to_vec().map_err(|error| self.invalid(&error))?;
        let answer = self.exchange(stream, &bytes).await?;
        let plain = Message::from_vec(&answer).map_err(|error| self.invalid(&error))?;
        let code = plain.metadata.response_code;
        match code {
            ResponseCode::NoError => {}
            ResponseCode::NXRRSet
            | ResponseCode::YXRRSet
            | ResponseCode::NXDomain
            | ResponseCode::YXDomain => {
                return Ok(Applied::Changed);
            }
            _ => return Err(UpdateError::Refused(self.server, self.explain(code, &plain))),
        }
        if plain.signature().is_none() {
            let why = "its response to the update is not signed, so it is not known whether the update was applied. The key may be missing on the server, or another program answers at this address";
            return Err(self.invalid(&why));
        }
        // Only a signed response proves that the server applied the update.
        let mut verifier = verifier.ok_or_else(|| self.invalid(&"the update was not signed"))?;
        verifier.verify(&answer).map(|_| Applied::Yes).map_err(|error: ProtoError| {
            self.invalid(&format!(
                "its response failed TSIG verification ({error}), so it is not known whether the update was applied. The secret of the key {} or the clock may differ on the server",
                self.signer.signer_name()
            ))
        })
    }

    async fn exchange(&self, stream: &mut TcpStream, message: &[u8]) -> Result<Vec<u8>, UpdateError> {
        let broken = |error| UpdateError::Network(self.server, error);
        let length = u16::try_from(message.len()).map_err(|_| self.invalid(&"the update is too long"))?;
        let framed = [&length.to_be_bytes(), message].concat();
        stream.write_all(&framed).await.map_err(broken)?;
        let length = stream.read_u16().await.map_err(broken)?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.map_err(broken)?;
        Ok(answer)
    }

    /// Describes an error code and TSIG error in words.
    fn explain(&self, code: ResponseCode, answer: &Message) -> String {
        let key = self.signer.signer_name();
        let fault =
            answer.signature().and_then(|tsig| tsig.data.error.as_ref()).map(|error| format!("{error:?}"));
        match (code, fault.as_deref()) {
            (_, Some("BadKey")) => {
                format!(
                    "it does not know the key {key}, or does not accept it for this name (BADKEY); name and algorithm must match the server's configuration"
                )
            }
            (_, Some("BadSig")) => format!("the key {key} has a different secret on the server (BADSIG)"),
            (_, Some("BadTime")) => {
                "its clock differs from this machine's by more than five minutes (BADTIME)".to_owned()
            }
            (_, Some("BadTrunc")) => {
                format!("it demands a longer signature than that of the key {key} (BADTRUNC)")
            }
            (_, Some(other)) => format!("it rejected the signature of the key {key} (TSIG error {other})"),
            (ResponseCode::FormErr, _) => {
                "it does not understand the update (FORMERR); it may not support DNS UPDATE".to_owned()
            }
            (ResponseCode::NotImp, _) => "it does not support DNS UPDATE (NOTIMP)".to_owned(),
            (ResponseCode::ServFail, _) => {
                "it failed to apply the update (SERVFAIL); its log has the cause, such as a zone file that it can't write".to_owned()
            }
            (ResponseCode::NotAuth | ResponseCode::NotZone, _) => {
                format!(
                    "it is not a server of the zone {}, or does not accept the key {key} for it",
                    self.zone
                )
            }
            (ResponseCode::Refused, _) => {
                format!("the key {key} is not allowed to change this record in the zone {}", self.zone)
            }
            (code, _) => code.to_string(),
        }
    }

    fn invalid(&self, error: &dyn std::fmt::Display) -> UpdateError {
        UpdateError::Answer(self.server, error.to_string())
    }
}

/// Whether an update was applied.
enum Applied {
    Yes,
    /// A prerequisite does not hold.
    Changed,
}

/// All records of one kind at a name.
struct RecordSet {
    kind: RecordType,
    records: Vec<Record>,
}

/// The records that a replacement replaces.
fn ours<'a>(sets: &'a [RecordSet], new: &'a Replacement) -> impl Iterator<Item = &'a Record> {
    sets.iter().flat_map(|set| &set.records).filter(|record| new.replaces(record))
}

fn previous(new: &Replacement, sets: &[RecordSet]) -> Previous {
    let data = |record: &Record| match &record.data {
        RData::TXT(txt) => Some(OldData::Text(txt.txt_data.concat())),
        RData::CNAME(target) => Some(OldData::Target(DomainName::from_ascii(&target.0.to_ascii()).ok())),
        RData::A(ip) => Some(OldData::Address(ip.0.into())),
        RData::AAAA(ip) => Some(OldData::Address(ip.0.into())),
        _ => None,
    };
    let lines = ours(sets, new).map(ToString::to_string).collect();
    Previous::new(new, lines, ours(sets, new).filter_map(data).collect())
}

/// The permitted clock difference in seconds (RFC 8945 §10).
const FUDGE: u16 = 300;

impl Replacement {
    fn kinds(&self) -> &'static [RecordType] {
        match self {
            Self::Txt { .. } | Self::TxtValue { .. } => &[RecordType::TXT],
            Self::Alias(_) | Self::Addresses(_) => &[RecordType::CNAME, RecordType::A, RecordType::AAAA],
        }
    }

    /// The types of records that can't be at the name beside the new record (RFC 1034 §3.6.2), of those that are in use.
    fn excluded_kinds(&self) -> &'static [RecordType] {
        use RecordType::{CAA, CNAME, HTTPS, MX, SRV, SVCB, TLSA, TXT};
        match self {
            Self::Alias(_) => &[TXT, CAA, HTTPS, SVCB, MX, SRV, TLSA],
            Self::Txt { value: Some(_), .. } | Self::TxtValue { is_published: true, .. } => &[CNAME],
            Self::Txt { .. } | Self::TxtValue { .. } | Self::Addresses(_) => &[],
        }
    }

    fn replaces(&self, record: &Record) -> bool {
        match (self, &record.data) {
            (Self::Txt { .. } | Self::TxtValue { .. }, RData::TXT(txt)) => {
                self.replaces_text(&txt.txt_data.concat())
            }
            (Self::Txt { .. } | Self::TxtValue { .. }, _) => false,
            _ => true,
        }
    }

    /// Whether this replaces a TXT record with such a text. The case of a prefix does not matter.
    pub(super) fn replaces_text(&self, text: &[u8]) -> bool {
        match self {
            Self::Txt { prefix, .. } => {
                text.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            Self::TxtValue { value, .. } => text == value.as_bytes(),
            Self::Alias(_) | Self::Addresses(_) => false,
        }
    }

    /// The replacement that publishes this data again; see [`Previous::restores`].
    fn restoring(&self, found: Vec<OldData>) -> Option<Self> {
        let (mut texts, mut targets, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for one in found {
            match one {
                OldData::Text(text) => texts.push(text),
                OldData::Target(target) => targets.push(target?),
                OldData::Address(address) => addresses.push(address),
            }
        }
        if let Self::TxtValue { value, .. } = self {
            return Some(Self::TxtValue { value: value.clone(), is_published: !texts.is_empty() });
        }
        let Self::Txt { prefix, .. } = self else {
            return match (targets.pop(), targets.is_empty() && addresses.is_empty()) {
                (Some(target), true) => Some(Self::Alias(target)),
                (Some(_), false) => None,
                (None, _) => Some(Self::Addresses(addresses)),
            };
        };
        let value = match texts.pop() {
            Some(text) => {
                Some(String::from_utf8(text).ok().filter(|text| text.is_ascii() && text.len() <= 255)?)
            }
            None => None,
        };
        texts.is_empty().then_some(Self::Txt { prefix, value })
    }

    fn data(&self) -> Result<Vec<RData>, ProtoError> {
        Ok(match self {
            Self::Txt { value, .. } => {
                value.iter().map(|value| RData::TXT(TXT::new(vec![value.clone()]))).collect()
            }
            Self::TxtValue { value, is_published } => {
                is_published.then(|| RData::TXT(TXT::new(vec![value.clone()]))).into_iter().collect()
            }
            Self::Alias(target) => vec![RData::CNAME(CNAME(absolute(target)?))],
            Self::Addresses(all) => all
                .iter()
                .map(|address| match address {
                    IpAddr::V4(ip) => RData::A(A(*ip)),
                    IpAddr::V6(ip) => RData::AAAA(AAAA(*ip)),
                })
                .collect(),
        })
    }
}

fn absolute(name: &DomainName) -> Result<Name, ProtoError> {
    Name::from_ascii(format!("{name}."))
}
