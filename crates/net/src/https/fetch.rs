//! The real [`PolicyHosts`].

use super::{FetchError, Fetched, POLICY_PATH, PolicyHosts, policy_host};
use crate::BoxFuture;
use crate::address::special;
use crate::certificate::{Problem, Trust, ends, server_name};
use crate::clock::Clock;
use crate::connect::tcp;
use crate::dns::{Dns, host_addresses};
use crate::rate_limit::ConcurrencyLimit;
use crate::tls::Handshaker;
use formats::DomainName;
use formats::limits::{
    CONNECT_TIME, FETCHES_PER_ADDRESS, HAPPY_EYEBALLS_DELAY, HTTP_HEADER_BYTES, POLICY_BYTES,
    POLICY_FETCH_TIME,
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a [`Fetcher`] works.
#[derive(Clone)]
pub struct FetcherConfig {
    /// Which roots are trusted.
    pub trust: Trust,
    /// 443, except in a lab.
    pub port: u16,
    /// True lets it reach private and other special addresses (POL-29).
    pub allow_special_addresses: bool,
    /// The ceiling over everything, one minute by default (POL-09).
    pub time: Duration,
    /// Addresses of this machine that connections come from; the system's choice without any.
    pub sources: Vec<IpAddr>,
}

impl FetcherConfig {
    /// Port 443, public addresses only, one minute.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            port: 443,
            allow_special_addresses: false,
            time: POLICY_FETCH_TIME,
            sources: Vec::new(),
        }
    }
}

/// Fetches policy files over real connections.
pub struct Fetcher {
    dns: Arc<dyn Dns>,
    tls: TlsConnector,
    pub(super) any: Handshaker,
    pub(super) config: FetcherConfig,
    pub(super) places: ConcurrencyLimit,
    pub(super) clock: Arc<dyn Clock>,
}

impl Fetcher {
    /// A fetcher that resolves by `dns` and judges dates by `clock`.
    pub fn new(
        config: FetcherConfig,
        dns: Arc<dyn Dns>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        let any = Handshaker::new(config.trust.clone(), clock.clone(), &[b"http/1.1"])?;
        let mut tls = config.trust.client(clock.clone())?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            dns,
            tls: TlsConnector::from(Arc::new(tls)),
            any,
            config,
            places: ConcurrencyLimit::new(FETCHES_PER_ADDRESS),
            clock,
        })
    }

    async fn fetch_all(&self, domain: &DomainName) -> Result<Fetched, FetchError> {
        let host = policy_host(domain)?;
        let addresses = self.addresses(&host, self.config.port).await?;
        let _place = self.place(&addresses).await;
        let (stream, address) = connect_any(addresses, &self.config.sources).await?;
        let name = server_name(&host).map_err(FetchError::Certificate)?;
        let stream = self.verified(stream, name).await?;
        let (_, session) = stream.get_ref();
        let certificate_ends = session.peer_certificates().and_then(|chain| chain.first()).and_then(ends);
        let tls_version =
            session.protocol_version().and_then(|version| version.as_str()).unwrap_or("unknown").to_owned();
        let read = async |response: Response<Incoming>| {
            let header = |name: &str| {
                let value = response.headers().get(name)?;
                Some(String::from_utf8_lossy(value.as_bytes()).chars().take(100).collect())
            };
            let media_type = check_head(response.status().as_u16(), header)?;
            Ok((media_type, read_body(response.into_body(), POLICY_BYTES).await?))
        };
        let (media_type, body) = request(stream, &host, Request::get(POLICY_PATH), None, read).await?;
        Ok(Fetched { body, address, media_type, certificate_ends, tls_version })
    }

    pub(super) async fn verified(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
    ) -> Result<TlsStream<TcpStream>, FetchError> {
        self.tls.connect(name, stream).await.map_err(tls_error)
    }

    /// A handshake with whoever answers.
    pub(super) async fn unverified(
        &self,
        stream: TcpStream,
        host: &DomainName,
    ) -> Result<TlsStream<TcpStream>, FetchError> {
        self.any.connect(stream, host, true).await.0.map_err(tls_error)
    }

    /// Waits for a place at the host that is talked to, by its first address, and holds it.
    pub(super) async fn place(&self, addresses: &[SocketAddr]) -> Option<OwnedSemaphorePermit> {
        self.places.take(addresses.first()?.ip()).await
    }

    pub(super) async fn addresses(
        &self,
        host: &DomainName,
        port: u16,
    ) -> Result<Vec<SocketAddr>, FetchError> {
        let found = host_addresses(self.dns.as_ref(), host).await.map_err(FetchError::Dns)?;
        let allowed = |ip: &IpAddr| self.config.allow_special_addresses || special(*ip).is_none();
        let addresses: Vec<_> =
            found.addresses.iter().copied().filter(allowed).map(|ip| SocketAddr::new(ip, port)).collect();
        match found.addresses.first() {
            Some(first) if addresses.is_empty() => Err(FetchError::SpecialAddress {
                address: *first,
                what: special(*first).unwrap_or("special"),
            }),
            _ => Ok(addresses),
        }
    }
}

impl PolicyHosts for Fetcher {
    fn fetch<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async move {
            match tokio::time::timeout(self.config.time, self.fetch_all(domain)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(FetchError::Time),
            }
        })
    }
}

/// Connects to the first address that answers; each gets a head start over the next, so that one
/// that hangs costs little (POL-28, RFC 8305).
pub(super) async fn connect_any(
    addresses: Vec<SocketAddr>,
    sources: &[IpAddr],
) -> Result<(TcpStream, IpAddr), FetchError> {
    let mut attempts = JoinSet::new();
    let mut waiting = interleave(addresses).into_iter();
    let mut last = String::from("there is no address");
    loop {
        match waiting.next() {
            // Nothing to race against.
            Some(address) if waiting.len() == 0 && attempts.is_empty() => {
                let attempt = (tcp(address, sources, CONNECT_TIME).await, address);
                return settle(Ok(attempt), &mut last).ok_or(FetchError::Connect(last));
            }
            Some(address) => {
                let sources = sources.to_vec();
                attempts.spawn(async move { (tcp(address, &sources, CONNECT_TIME).await, address) });
                tokio::select! {
                    Some(outcome) = attempts.join_next() => if let Some(found) = settle(outcome, &mut last) { return Ok(found) },
                    () = tokio::time::sleep(HAPPY_EYEBALLS_DELAY) => {}
                }
            }
            None => match attempts.join_next().await {
                Some(outcome) => {
                    if let Some(found) = settle(outcome, &mut last) {
                        return Ok(found);
                    }
                }
                None => return Err(FetchError::Connect(last)),
            },
        }
    }
}

type Attempt = (Result<TcpStream, String>, SocketAddr);

fn settle(
    outcome: Result<Attempt, tokio::task::JoinError>,
    last: &mut String,
) -> Option<(TcpStream, IpAddr)> {
    match outcome {
        Ok((Ok(stream), address)) => return Some((stream, address.ip())),
        Ok((Err(why), address)) => *last = format!("{address}: {why}"),
        Err(error) => *last = error.to_string(),
    }
    None
}

/// IPv6 and IPv4 in turn, so that a broken family delays by one step only.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = (v6.next(), v4.next());
        if pair == (None, None) {
            return mixed;
        }
        mixed.extend(pair.0.into_iter().chain(pair.1));
    }
}

pub(super) fn tls_error(error: std::io::Error) -> FetchError {
    let text = error.to_string();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(error)) => FetchError::Certificate(Problem::of(error)),
        Some(
            rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(
                rustls::AlertDescription::ProtocolVersion | rustls::AlertDescription::HandshakeFailure,
            ),
        ) => FetchError::TlsVersion(text),
        Some(_) => FetchError::Tls(text),
        None => FetchError::Tls(format!("the connection broke off: {text}")),
    }
}

/// A GET or the like; what `read` makes of the response.
pub(super) async fn request<T>(
    stream: TlsStream<TcpStream>,
    host: &DomainName,
    asked: hyper::http::request::Builder,
    agent: Option<&str>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, FetchError>,
) -> Result<T, FetchError> {
    send(stream, host, asked.header(ACCEPT, "text/plain"), agent, Empty::<Bytes>::new(), read).await
}

/// One request over a connection of its own, which ends with what `read` makes of the response.
pub(super) async fn send<S, B, T>(
    stream: S,
    host: &DomainName,
    asked: hyper::http::request::Builder,
    agent: Option<&str>,
    body: B,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, FetchError>,
) -> Result<T, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let http = |error: hyper::Error| FetchError::Http(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HTTP_HEADER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(http)?;
    let request = asked
        .header(HOST, host.as_str())
        .header(USER_AGENT, agent.unwrap_or(concat!("sternpost/", env!("CARGO_PKG_VERSION"))))
        .body(body)
        .map_err(|error| FetchError::Http(error.to_string()))?;
    let mut exchange = pin!(async { read(sender.send_request(request).await.map_err(http)?).await });
    // Both in one task: a task for the connection would be woken, and wake, for each piece.
    tokio::select! {
        biased;
        outcome = &mut exchange => return outcome,
        // Whatever it ended with, the exchange learns of it.
        _ = connection => {}
    }
    exchange.await
}

/// Status and media type; returns the media type.
pub(super) fn check_head(status: u16, header: impl Fn(&str) -> Option<String>) -> Result<String, FetchError> {
    if status != 200 {
        return Err(FetchError::Status(status));
    }
    if let Some(encoding) =
        header(CONTENT_ENCODING.as_str()).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return Err(FetchError::Compressed(encoding));
    }
    let media_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("text/plain") {
        Ok(media_type)
    } else {
        Err(FetchError::MediaType(media_type))
    }
}

pub(super) async fn read_body(body: Incoming, most: usize) -> Result<Vec<u8>, FetchError> {
    match Limited::new(body, most).collect().await {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(FetchError::Size),
        Err(error) => Err(FetchError::Http(error.to_string())),
    }
}
