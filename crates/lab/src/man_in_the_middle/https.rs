//! The man in the middle between a sender and the policy hosts. It reads the SNI of the ClientHello, and then forwards
//! bytes, breaks the connection, or answers with a certificate of its own.

use super::attack::{Attacks, HttpsAttack, HttpsChange};
use crate::dns::AbortOnDrop;
use crate::pki::{Cert, Identity, Pki, PkiError};
use crate::policy_host::acceptor;
use crate::traffic::{Connection, Outcome, Traffic};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use std::io::{self, Cursor};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The maximum number of connections in progress; further ones wait.
const MAX_CONNECTIONS: usize = 256;
/// The maximum size of a ClientHello.
const MAX_HELLO: usize = 32_768;
/// The time limit for a connection.
const CONNECTION_TIME: Duration = Duration::from_secs(30);

/// A forwarder of TCP connections to the policy hosts that attacks. Dropping it stops it.
pub struct HttpsProxy {
    /// The listen address.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDrop,
}

/// The attacker's certificates.
pub struct Attacker {
    /// The attacker's own CA, which no client trusts.
    own: Pki,
    /// A certificate that clients trust, for a name of the attacker's own.
    trusted: Identity,
}

struct Shared {
    upstream: SocketAddr,
    attacker: Arc<Attacker>,
    traffic: Traffic,
    attacks: Mutex<Attacks<HttpsAttack>>,
    permits: Arc<Semaphore>,
}

impl Attacker {
    /// Creates an attacker to whom the trusted CA `pki` issued a certificate for `name`.
    pub fn new(pki: &Pki, name: &str, now: Timestamp) -> Result<Self, PkiError> {
        Ok(Self { own: Pki::new(now)?, trusted: pki.issue(name, Cert::Good)? })
    }

    /// The root of the attacker's own CA, for a client that is weak on purpose.
    pub fn root(&self) -> CertificateDer<'static> {
        self.own.root()
    }
}

impl HttpsProxy {
    /// Starts forwarding to `upstream`, faithfully until [`Self::attack`], from a free port of this address.
    pub async fn start(
        ip: Ipv4Addr,
        upstream: SocketAddr,
        attacker: Arc<Attacker>,
        traffic: Traffic,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let attacks = Mutex::new(Attacks::new(Vec::new()));
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let shared = Arc::new(Shared { upstream, attacker, traffic, attacks, permits });
        let task = AbortOnDrop(tokio::spawn(serve(listener, shared.clone())));
        Ok(Self { address, shared, _task: task })
    }

    /// Replaces the attacks. Of those that are aimed at a host, the first that takes place counts. An empty list makes
    /// the proxy honest again.
    pub fn attack(&self, attacks: Vec<HttpsAttack>) {
        *self.shared.attacks.lock().unwrap_or_else(PoisonError::into_inner) = Attacks::new(attacks);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, client)) = listener.accept().await {
        let Ok(permit) = shared.permits.clone().acquire_owned().await else { return };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_TIME, shared.handle(stream, client)).await;
            drop(permit);
        });
    }
}

impl Shared {
    async fn handle(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        let (hello, host) = client_hello(&mut stream).await?;
        let target = host.as_deref().map_or_else(|| ".".to_owned(), |host| format!("{host}."));
        let attack = self.attacks.lock().unwrap_or_else(PoisonError::into_inner).next(&target, None);
        let how = attack.map(|attack| attack.how);
        let outcome = match how {
            None | Some(HttpsChange::Delay(_)) => Outcome::Genuine,
            Some(HttpsChange::Reset | HttpsChange::Close) => Outcome::Nothing,
            Some(_) => Outcome::Changed,
        };
        self.traffic.connection(client.ip(), Connection { host: host.clone(), outcome });
        match how {
            None => self.forward(stream, &hello, usize::MAX, None).await,
            Some(HttpsChange::Delay(time)) => {
                tokio::time::sleep(time).await;
                self.forward(stream, &hello, usize::MAX, None).await
            }
            Some(HttpsChange::Reset) => stream.set_zero_linger(),
            Some(HttpsChange::Close) => stream.shutdown().await,
            Some(HttpsChange::Cut(bytes)) => self.forward(stream, &hello, bytes, None).await,
            Some(HttpsChange::Flip(place)) => self.forward(stream, &hello, usize::MAX, Some(place)).await,
            Some(HttpsChange::UntrustedCertificate(body)) => {
                let host = host.unwrap_or_default();
                let identity = self.attacker.own.issue(&host, Cert::Good).map_err(io::Error::other)?;
                answer(stream, hello, &identity, &body).await
            }
            Some(HttpsChange::CertificateOfOther(body)) => {
                answer(stream, hello, &self.attacker.trusted, &body).await
            }
        }
    }

    /// Forwards both directions. The client gets at most `limit` bytes, with a bit flipped at `flip`.
    async fn forward(
        &self,
        stream: TcpStream,
        hello: &[u8],
        limit: usize,
        flip: Option<usize>,
    ) -> io::Result<()> {
        let server = TcpStream::connect(self.upstream).await?;
        let (mut from_client, mut to_client) = stream.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        to_server.write_all(hello).await?;
        let requests = async {
            tokio::io::copy(&mut from_client, &mut to_server).await?;
            to_server.shutdown().await
        };
        let responses = async {
            let (mut sent, mut buffer) = (0, vec![0; 16_384]);
            loop {
                let length = from_server.read(&mut buffer).await?.min(limit - sent);
                if length == 0 {
                    return to_client.shutdown().await;
                }
                let flipped = flip.and_then(|place| buffer.get_mut(place.checked_sub(sent)?));
                flipped.into_iter().for_each(|byte| *byte ^= 1);
                to_client.write_all(buffer.get(..length).unwrap_or_default()).await?;
                sent += length;
                if sent >= limit {
                    return to_client.shutdown().await;
                }
            }
        };
        // The end of the server's data ends the connection; the client may keep its half open.
        tokio::select! {
            done = responses => done,
            Err(error) = requests => Err(error),
        }
    }
}

/// Reads the ClientHello; returns its bytes and the host of the SNI.
pub(crate) async fn client_hello(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
) -> io::Result<(Vec<u8>, Option<String>)> {
    let mut hello = Vec::new();
    let mut acceptor = rustls::server::Acceptor::default();
    let mut buffer = vec![0; 4096];
    while hello.len() < MAX_HELLO {
        let length = stream.read(&mut buffer).await?;
        let part = buffer.get(..length).unwrap_or_default();
        hello.extend_from_slice(part);
        if length == 0 || acceptor.read_tls(&mut &*part).is_err() {
            break;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return Ok((hello, accepted.client_hello().server_name().map(str::to_owned)));
            }
            Err(_) => break,
        }
    }
    Ok((hello, None))
}

/// Answers in place of the policy host.
async fn answer(stream: TcpStream, hello: Vec<u8>, identity: &Identity, body: &str) -> io::Result<()> {
    let acceptor = acceptor(identity).map_err(io::Error::other)?;
    let (reader, writer) = stream.into_split();
    let mut stream = acceptor.accept(tokio::io::join(Cursor::new(hello).chain(reader), writer)).await?;
    respond(&mut stream, body).await
}

async fn respond(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), body: &str) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        head.push(stream.read_u8().await?);
    }
    let length = body.len();
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
