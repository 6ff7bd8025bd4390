//! [`Fetcher`], the implementation of [`PolicyHosts`] over real connections. It resolves the policy host, connects by
//! Happy Eyeballs (RFC 8305), verifies the certificate and reads the response. The other HTTPS modules use its parts.

use super::{AddressFetch, Call, FetchError, Fetched, POLICY_PATH, PolicyHosts, Visits, policy_host};
use crate::BoxFuture;
use crate::address::special;
use crate::certificate::{Problem, Trust, server_name};
use crate::clock::Clock;
use crate::connect::connect_any;
use crate::dns::{Dns, host_addresses};
use crate::rate_limit::ConcurrencyLimit;
use crate::tls::Handshaker;
use formats::DomainName;
use formats::limits::{FETCHES_PER_ADDRESS, HTTP_HEADER_BYTES, POLICY_BYTES, POLICY_FETCH_TIME};
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
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The configuration of a [`Fetcher`].
#[derive(Clone)]
pub struct FetcherConfig {
    /// The root certificates that policy hosts are verified against.
    pub trust: Trust,
    /// The TCP port of policy hosts: 443, except in a lab.
    pub port: u16,
    /// True allows connections to private and other special-purpose addresses (POL-29).
    pub allow_special_addresses: bool,
    /// The time limit for a whole fetch, from DNS to the body; [`POLICY_FETCH_TIME`] by default (POL-09).
    pub time: Duration,
    /// Local addresses to connect from, at most one per address family; if empty, the system chooses.
    pub sources: Vec<IpAddr>,
}

impl FetcherConfig {
    /// The default configuration: port 443, public addresses only, [`POLICY_FETCH_TIME`].
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
    /// Completes handshakes without verifying the certificate.
    pub(super) any: Handshaker,
    pub(super) config: FetcherConfig,
    pub(super) connections: ConcurrencyLimit,
    pub(super) clock: Arc<dyn Clock>,
}

impl Fetcher {
    /// Creates a fetcher that resolves names through `dns` and checks certificate dates against `clock`.
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
            connections: ConcurrencyLimit::new(FETCHES_PER_ADDRESS),
            clock,
        })
    }

    async fn fetch_all(&self, domain: &DomainName) -> Result<Fetched, FetchError> {
        let host = policy_host(domain)?;
        let addresses = self.addresses(&host, self.config.port).await?;
        let _permit = self.permit(&addresses).await;
        let (stream, address) =
            connect_any(addresses, &self.config.sources).await.map_err(FetchError::Connect)?;
        let name = server_name(&host).map_err(FetchError::Certificate)?;
        let stream = self.verified(stream, name).await?;
        let (_, session) = stream.get_ref();
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
        Ok(Fetched { body, address: address.ip(), media_type, tls_version })
    }

    pub(super) async fn verified(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
    ) -> Result<TlsStream<TcpStream>, FetchError> {
        self.tls.connect(name, stream).await.map_err(tls_error)
    }

    /// Completes a handshake without verifying the certificate.
    pub(super) async fn unverified(
        &self,
        stream: TcpStream,
        host: &DomainName,
    ) -> Result<TlsStream<TcpStream>, FetchError> {
        self.any.connect(stream, host, true).await.0.map_err(tls_error)
    }

    /// Waits until another connection to the host is allowed. Connections are counted by the host's first address.
    pub(super) async fn permit(&self, addresses: &[SocketAddr]) -> Option<OwnedSemaphorePermit> {
        self.connections.take(addresses.first()?.ip()).await
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
                what: special(*first).unwrap_or("special".into()),
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

    fn fetch_each<'a>(
        &'a self,
        domain: &'a DomainName,
        addresses: &'a [IpAddr],
    ) -> BoxFuture<'a, Vec<AddressFetch>> {
        Box::pin(async move {
            let Ok(host) = policy_host(domain) else { return Vec::new() };
            let host = &host;
            let visit = |address: &IpAddr| -> BoxFuture<'a, AddressFetch> {
                let call = Call::policy(host, *address);
                Box::pin(async move {
                    let visit = self.visit(&call).await;
                    let (address, fetched) = (call.address, visit.judged());
                    let certificate = visit.tls.and_then(|tls| tls.chain.into_iter().next());
                    AddressFetch { address, fetched, certificate }
                })
            };
            join_all(addresses.iter().map(visit).collect()).await
        })
    }
}

/// Waits for all futures. They are few: each is polled whenever one of them may go on.
async fn join_all<T>(mut all: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in all.iter_mut().zip(&mut done).filter(|(_, slot)| slot.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
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
        None => FetchError::Tls(format!("the connection was interrupted: {text}")),
    }
}

/// Sends a request without a body and returns the result of `read` on the response. See [`send`].
pub(super) async fn request<T>(
    stream: TlsStream<TcpStream>,
    host: &DomainName,
    asked: hyper::http::request::Builder,
    agent: Option<&str>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, FetchError>,
) -> Result<T, FetchError> {
    send(stream, host, asked.header(ACCEPT, "text/plain"), agent, Empty::<Bytes>::new(), read).await
}

/// Sends one request over `stream` and returns the result of `read` on the response; the connection is then closed.
/// `agent` replaces the default `User-Agent` header.
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
    // One task drives both: a separate task for the connection would cost a wake-up for each chunk.
    tokio::select! {
        biased;
        outcome = &mut exchange => return outcome,
        // If the connection ended with an error, `exchange` returns it.
        _ = connection => {}
    }
    exchange.await
}

/// Checks status, content encoding and media type of a policy response, and returns the media type.
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

/// Reads a response body of at most `limit` bytes.
pub(super) async fn read_body(body: Incoming, limit: usize) -> Result<Vec<u8>, FetchError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(FetchError::Size),
        Err(error) => Err(FetchError::Http(error.to_string())),
    }
}
