//! Changes a zone by DNS UPDATE (RFC 2136) over TCP, signed with TSIG (RFC 8945). `operations::publishers` gives the
//! records to publish; [`Updater::replace`] reads the existing records from the primary server and replaces ours.

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
        /// The text.
        value: String,
        /// Whether the text is to be there, or not.
        is_published: bool,
    },
    /// A CNAME, which replaces the A, AAAA and CNAME records.
    Alias(DomainName),
    /// Addresses, which replace the A, AAAA and CNAME records.
    Addresses(Vec<IpAddr>),
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

    /// Publishes `new` at `name` in one update message, which the server applies completely or not at all. `ttl` is in
    /// seconds, and `now` is the time of the signature. Returns the records that were replaced, in zone-file format.
    pub fn replace<'a>(
        &'a self,
        name: &'a DomainName,
        new: &'a Replacement,
        ttl: u32,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<String>, UpdateError>> {
        Box::pin(async move {
            let work = async {
                let mut stream = TcpStream::connect(self.server)
                    .await
                    .map_err(|error| UpdateError::Network(self.server, error))?;
                let owner = absolute(name).map_err(|error| self.invalid(&error))?;
                let mut old = Vec::new();
                for kind in new.kinds() {
                    let found = self.query(&mut stream, &owner, *kind).await?;
                    old.extend(found.into_iter().filter(|record| new.replaces(record)));
                }
                let update = self.message(&owner, &old, new, ttl)?;
                self.send(&mut stream, update, now).await?;
                Ok(old.iter().map(ToString::to_string).collect())
            };
            tokio::time::timeout(DNS_TIME, work).await.unwrap_or(Err(UpdateError::Timeout(self.server)))
        })
    }

    fn message(
        &self,
        owner: &Name,
        old: &[Record],
        new: &Replacement,
        ttl: u32,
    ) -> Result<Message, UpdateError> {
        let zone = absolute(&self.zone).map_err(|error| self.invalid(&error))?;
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.metadata.recursion_desired = false;
        let mut about = Query::query(zone, RecordType::SOA);
        about.set_query_class(DNSClass::IN);
        message.add_zone(about);
        for record in old {
            let mut gone = record.clone();
            gone.dns_class = DNSClass::NONE;
            gone.ttl = 0;
            message.add_update(gone);
        }
        for data in new.data().map_err(|error| self.invalid(&error))? {
            message.add_update(Record::from_rdata(owner.clone(), ttl, data));
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
    ) -> Result<(), UpdateError> {
        let time = u64::try_from(now.as_second()).unwrap_or_default();
        let verifier = message.finalize(&self.signer, time).map_err(|error| self.invalid(&error))?;
        let bytes = message.to_vec().map_err(|error| self.invalid(&error))?;
        let answer = self.exchange(stream, &bytes).await?;
        let plain = Message::from_vec(&answer).map_err(|error| self.invalid(&error))?;
        let code = plain.metadata.response_code;
        if code != ResponseCode::NoError {
            return Err(UpdateError::Refused(self.server, self.explain(code, &plain)));
        }
        // Only a signed response proves that the server applied the update.
        let mut verifier = verifier.ok_or_else(|| self.invalid(&"the update was not signed"))?;
        verifier.verify(&answer).map(drop).map_err(|error: ProtoError| {
            self.invalid(&format!("the response failed TSIG verification: {error}"))
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

/// The permitted clock difference in seconds (RFC 8945 §10).
const FUDGE: u16 = 300;

impl Replacement {
    fn kinds(&self) -> &'static [RecordType] {
        match self {
            Self::Txt { .. } | Self::TxtValue { .. } => &[RecordType::TXT],
            Self::Alias(_) | Self::Addresses(_) => &[RecordType::CNAME, RecordType::A, RecordType::AAAA],
        }
    }

    fn replaces(&self, record: &Record) -> bool {
        match (self, &record.data) {
            (Self::Txt { prefix, .. }, RData::TXT(txt)) => {
                let text = txt.txt_data.concat();
                let begins = text.get(..prefix.len());
                begins.is_some_and(|begin| begin.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            (Self::TxtValue { value, .. }, RData::TXT(txt)) => *txt.txt_data.concat() == *value.as_bytes(),
            (Self::Txt { .. } | Self::TxtValue { .. }, _) => false,
            _ => true,
        }
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
