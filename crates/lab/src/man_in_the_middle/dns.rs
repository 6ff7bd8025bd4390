//! The man in the middle between a resolver or name server and its client: a forwarder over UDP and TCP.

use super::attack::{Attacks, DnsAttack, DnsChange};
use super::change::changed;
use crate::dns::AbortOnDrop;
use crate::traffic::{Outcome, Question, Traffic};
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// The maximum number of queries in progress; further ones wait.
const MAX_QUERIES: usize = 512;
/// How long the server may take to answer.
const UPSTREAM_TIME: Duration = Duration::from_secs(5);
/// The maximum number of questions whose genuine responses are kept for a replay, and of responses to each.
const MAX_REPLAYS: (usize, usize) = (4096, 4);

/// A DNS forwarder that attacks. Dropping it stops it.
pub struct DnsProxy {
    /// The listen address, for both UDP and TCP.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: [AbortOnDrop; 2],
}

/// DNS messages in wire format.
type Responses = Vec<Vec<u8>>;

struct Shared {
    upstream: RwLock<SocketAddr>,
    traffic: Traffic,
    attacks: Mutex<Attacks<DnsAttack>>,
    /// Genuine responses by question, oldest first.
    genuine: Mutex<HashMap<(String, RecordType), Responses>>,
    permits: Semaphore,
}

impl DnsProxy {
    /// Starts forwarding to `upstream`, faithfully until [`Self::attack`]. UDP and TCP listen on the same free port.
    pub async fn start(ip: Ipv4Addr, upstream: SocketAddr, traffic: Traffic) -> io::Result<Self> {
        Self::over(crate::dns::sockets(ip, 0).await?, upstream, traffic)
    }

    /// Like [`Self::start`], at a given address and port.
    pub async fn start_at(address: SocketAddr, upstream: SocketAddr, traffic: Traffic) -> io::Result<Self> {
        Self::over((UdpSocket::bind(address).await?, TcpListener::bind(address).await?), upstream, traffic)
    }

    fn over(
        (udp, tcp): (UdpSocket, TcpListener),
        upstream: SocketAddr,
        traffic: Traffic,
    ) -> io::Result<Self> {
        let address = udp.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: RwLock::new(upstream),
            traffic,
            attacks: Mutex::new(Attacks::new(Vec::new())),
            genuine: Mutex::default(),
            permits: Semaphore::new(MAX_QUERIES),
        });
        let tasks = [
            AbortOnDrop(tokio::spawn(serve_udp(udp, shared.clone()))),
            AbortOnDrop(tokio::spawn(serve_tcp(tcp, shared.clone()))),
        ];
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Replaces the attacks. Of those that are aimed at a question, the first that takes place counts. An empty list
    /// makes the proxy honest again.
    pub fn attack(&self, attacks: Vec<DnsAttack>) {
        *lock(&self.shared.attacks) = Attacks::new(attacks);
    }

    /// Forgets the genuine responses for [`DnsChange::Replay`].
    pub fn forget(&self) {
        lock(&self.shared.genuine).clear();
    }

    /// The queries that the proxy received, and what the clients got.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 65_535];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let query = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, shared) = (socket.clone(), shared.clone());
        tokio::spawn(async move {
            let Ok(_permit) = shared.permits.acquire().await else { return };
            if let Some(response) = shared.answer(&query, client.ip(), false).await {
                let _ = socket.send_to(&response, client).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((mut stream, client)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            while let Ok(query) = read_message(&mut stream).await {
                let Ok(_permit) = shared.permits.acquire().await else { return };
                let Some(response) = shared.answer(&query, client.ip(), true).await else { return };
                if write_message(&mut stream, &response).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Shared {
    /// The response that the client gets; `None` for none.
    async fn answer(&self, query: &[u8], client: IpAddr, is_tcp: bool) -> Option<Vec<u8>> {
        let asked = Message::from_vec(query).ok()?;
        let question = asked.queries.first()?;
        let (name, kind) = (question.name().to_lowercase().to_ascii(), question.query_type());
        let attack = lock(&self.attacks).next(&name, Some(kind));
        let (response, outcome) =
            self.response(query, (&name, kind), attack.map(|attack| attack.how), is_tcp).await;
        let observed = Question {
            name,
            kind,
            is_tcp,
            recursion_desired: asked.metadata.recursion_desired,
            dnssec_ok: asked.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
            authentic_data: asked.metadata.authentic_data,
            checking_disabled: asked.metadata.checking_disabled,
            outcome,
        };
        self.traffic.question(client, observed);
        response
    }

    async fn response(
        &self,
        query: &[u8],
        (name, kind): (&str, RecordType),
        how: Option<DnsChange>,
        is_tcp: bool,
    ) -> (Option<Vec<u8>>, Outcome) {
        match &how {
            Some(DnsChange::Drop) => return (None, Outcome::Nothing),
            Some(DnsChange::Delay(time)) => tokio::time::sleep(*time).await,
            _ => {}
        }
        let upstream = *self.upstream.read().unwrap_or_else(PoisonError::into_inner);
        let Ok(genuine) = exchange(upstream, query, is_tcp).await else {
            return (None, Outcome::Nothing);
        };
        let earlier = self.keep(name, kind, &genuine);
        let other = match &how {
            None | Some(DnsChange::Delay(_)) => return (Some(genuine), Outcome::Genuine),
            Some(DnsChange::Replay) => Some(earlier),
            Some(DnsChange::Borrow { name, kind, .. }) => ask(upstream, name, *kind).await,
            Some(_) => None,
        };
        let other = other.and_then(|bytes| Message::from_vec(&bytes).ok());
        let made =
            how.zip(Message::from_vec(&genuine).ok()).map(|(how, message)| changed(&how, message, other));
        match made.and_then(|message| message.to_vec().ok()) {
            Some(made) => (Some(made), Outcome::Changed),
            None => (Some(genuine), Outcome::Genuine),
        }
    }

    /// Keeps a genuine response for a replay, and returns the oldest to this question.
    fn keep(&self, name: &str, kind: RecordType, response: &[u8]) -> Vec<u8> {
        let mut all = lock(&self.genuine);
        let key = (name.to_owned(), kind);
        if all.len() >= MAX_REPLAYS.0 && !all.contains_key(&key) {
            return response.to_vec();
        }
        let kept = all.entry(key).or_default();
        let is_new = || kept.last().is_none_or(|last| last.get(2..) != response.get(2..));
        if kept.len() < MAX_REPLAYS.1 && is_new() {
            kept.push(response.to_vec());
        }
        kept.first().cloned().unwrap_or_default()
    }
}

/// Asks the server a question of the attacker's own, with the DO bit.
async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).ok()?, kind));
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = true;
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    message.set_edns(edns);
    exchange(server, &message.to_vec().ok()?, true).await.ok()
}

/// Sends a query and waits for its response.
async fn exchange(server: SocketAddr, query: &[u8], over_tcp: bool) -> io::Result<Vec<u8>> {
    let exchange = async {
        if over_tcp {
            let mut stream = TcpStream::connect(server).await?;
            write_message(&mut stream, query).await?;
            return read_message(&mut stream).await;
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(server).await?;
        socket.send(query).await?;
        let mut buffer = vec![0; 65_535];
        let length = socket.recv(&mut buffer).await?;
        buffer.truncate(length);
        Ok(buffer)
    };
    tokio::time::timeout(UPSTREAM_TIME, exchange).await.map_err(io::Error::other)?
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
