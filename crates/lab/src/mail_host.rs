//! The lab's mail servers and the attacker in front of them. Each MX host has its own loopback address. Received
//! messages are stored in [`MailTraffic`], with the information whether they arrived over TLS.

use crate::behavior::Behavior;
use crate::dns::AbortOnDrop;
use crate::odd_mail_host;
use crate::pki::Identity;
use crate::policy_host::server_hello_of_tls_1_0;
use crate::smtp_watch::{SmtpWatch, WatchedMailbox, watch};
use crate::traffic::Traffic;
use formats::DomainName;
use net::BoxFuture;
use net::smtp::server::{AnyStream, Incoming, KeepError, Mailbox, ServerConfig, Starttls, Upgrade, serve};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// A message that a mail server received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The MX host that received the message.
    pub host: DomainName,
    /// The message and its envelope.
    pub incoming: Incoming,
}

/// The mail that all hosts received, the lines that the attacker read, and the hosts under attack.
#[derive(Default)]
pub struct MailTraffic {
    received: Mutex<Vec<Received>>,
    overheard: Mutex<Vec<String>>,
    stripping: Mutex<HashSet<DomainName>>,
    handlers: Mutex<HashMap<DomainName, Arc<dyn Mailbox>>>,
    observer: Mutex<Option<Traffic>>,
    sessions: AtomicU64,
}

impl MailTraffic {
    /// Removes and returns all mail received so far.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut *lock(&self.received))
    }

    /// Removes and returns the SMTP lines that the attacker has read so far.
    pub fn take_overheard(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.overheard))
    }

    /// Switches the attacker in front of a host on or off. The attacker strips STARTTLS and records the session.
    pub fn strip(&self, host: &DomainName, on: bool) {
        let mut stripping = lock(&self.stripping);
        if on {
            stripping.insert(host.clone())
        } else {
            stripping.remove(host)
        };
    }

    /// Records from now on what clients do.
    pub fn observe(&self, traffic: &Traffic) {
        *lock(&self.observer) = Some(traffic.clone());
    }

    fn watch(&self, host: &DomainName, client: IpAddr) -> Option<Arc<SmtpWatch>> {
        let traffic = lock(&self.observer).clone()?;
        let session = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        Some(Arc::new(SmtpWatch::new(traffic, client, host.to_string(), session)))
    }

    /// Delivers the mail of one host to another mailbox, such as a report inbox.
    pub fn hand_over(&self, host: &DomainName, mailbox: Arc<dyn Mailbox>) {
        lock(&self.handlers).insert(host.clone(), mailbox);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One mail server. Dropping it stops it.
pub(crate) struct MailHost {
    _task: AbortOnDrop,
}

impl MailHost {
    pub(crate) fn start(
        listener: TcpListener,
        host: DomainName,
        behavior: Behavior,
        identity: &Identity,
        other: &Identity,
        mail_traffic: Arc<MailTraffic>,
    ) -> Result<Self, rustls::Error> {
        let sealed = odd_mail_host::upgrade(behavior, identity, other)?;
        let starttls = match behavior {
            Behavior::NoStarttls => Starttls::Absent,
            Behavior::StarttlsRefused => Starttls::Unavailable,
            Behavior::HandshakeBreaks => Starttls::Offered(Arc::new(Broken(Vec::new()))),
            Behavior::OldTls => Starttls::Offered(Arc::new(Broken(server_hello_of_tls_1_0()))),
            Behavior::Garbage => Starttls::Offered(Arc::new(Broken(b"500 what?\r\n".to_vec()))),
            _ => Starttls::Offered(sealed.clone()),
        };
        let shared =
            Arc::new(Shared { config: ServerConfig::new(host, starttls), behavior, sealed, mail_traffic });
        let task = tokio::spawn(async move {
            let mut clients = 0_usize;
            while let Ok((stream, client)) = listener.accept().await {
                clients += 1;
                let shared = shared.clone();
                tokio::spawn(async move {
                    let seen = shared.mail_traffic.watch(&shared.config.hostname, client.ip());
                    let stream = watch(Box::new(stream), seen.clone(), false);
                    shared.accept(stream, clients, seen.as_ref()).await
                });
            }
        });
        Ok(Self { _task: AbortOnDrop(task) })
    }
}

struct Shared {
    config: ServerConfig,
    behavior: Behavior,
    sealed: Arc<dyn Upgrade>,
    mail_traffic: Arc<MailTraffic>,
}

impl Shared {
    /// Handles a connection; `client` is its number, counted from 1 per host.
    async fn accept(
        &self,
        mut stream: AnyStream,
        client: usize,
        seen: Option<&Arc<SmtpWatch>>,
    ) -> io::Result<()> {
        match self.behavior {
            Behavior::Silent => {
                let mut ignored = [0; 1024];
                while stream.read(&mut ignored).await? > 0 {}
                return Ok(());
            }
            Behavior::Closes => return Ok(()),
            Behavior::Refuses => return stream.write_all(b"554 no service here\r\n").await,
            Behavior::Busy => return stream.write_all(b"421 too busy\r\n").await,
            Behavior::Greylists => {
                return stream.write_all(b"450 4.2.0 greylisted, try again later\r\n").await;
            }
            Behavior::TakesInjection | Behavior::RequireTls => {
                let host = self.config.hostname.as_str();
                return odd_mail_host::serve(stream, host, self.behavior, self.sealed.as_ref()).await;
            }
            Behavior::Flaps if client.is_multiple_of(2) => {
                let config = ServerConfig { starttls: Starttls::Absent, ..self.config.clone() };
                return serve(stream, &config, &WatchedMailbox::new(self, seen)).await;
            }
            _ => {}
        }
        if !lock(&self.mail_traffic.stripping).contains(&self.config.hostname) {
            return self.serve(stream, seen).await;
        }
        let (attackers_end, servers_end) = tokio::io::duplex(1 << 16);
        let (outcome, ()) = tokio::join!(
            self.serve(Box::new(servers_end), seen),
            strip(stream, Box::new(attackers_end), &self.mail_traffic)
        );
        outcome
    }

    async fn serve(&self, stream: AnyStream, seen: Option<&Arc<SmtpWatch>>) -> io::Result<()> {
        let handler = lock(&self.mail_traffic.handlers).get(&self.config.hostname).cloned();
        let config = match (&self.config.starttls, seen) {
            (Starttls::Offered(upgrade), Some(seen)) => ServerConfig {
                starttls: Starttls::Offered(seen.upgrade(upgrade.clone())),
                ..self.config.clone()
            },
            _ => self.config.clone(),
        };
        let mailbox: &dyn Mailbox = handler.as_deref().unwrap_or(self);
        serve(stream, &config, &WatchedMailbox::new(mailbox, seen)).await
    }
}

impl Mailbox for Shared {
    fn takes(&self, _: &str) -> bool {
        true
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        Box::pin(async move {
            lock(&self.mail_traffic.received).push(Received { host: self.config.hostname.clone(), incoming });
            Ok(())
        })
    }
}

/// A listener whose accept queue is full, so that further connections time out.
pub(crate) struct Blackhole {
    _listener: TcpListener,
    _queue: Vec<AbortOnDrop>,
}

impl Blackhole {
    pub(crate) async fn raise(address: std::net::SocketAddr) -> io::Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(address)?;
        let listener = socket.listen(1)?;
        let mut queue = Vec::new();
        // The first connections fill the queue; the pending ones keep it full.
        for _ in 0..4 {
            let (through, is_through) = tokio::sync::oneshot::channel();
            queue.push(AbortOnDrop(tokio::spawn(async move {
                let stream = tokio::net::TcpStream::connect(address).await;
                let _ = through.send(());
                let _held = stream;
                std::future::pending::<()>().await;
            })));
            let _ = tokio::time::timeout(std::time::Duration::from_millis(50), is_through).await;
        }
        Ok(Self { _listener: listener, _queue: queue })
    }
}

/// Sends these bytes instead of a TLS handshake and closes the connection.
struct Broken(Vec<u8>);

impl Upgrade for Broken {
    fn upgrade(&self, mut stream: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>> {
        Box::pin(async move {
            let mut hello = [0; 64];
            let _ = stream.read(&mut hello).await?;
            stream.write_all(&self.0).await?;
            stream.shutdown().await?;
            Err(io::ErrorKind::ConnectionAborted.into())
        })
    }
}

/// The attacker on the path: relays the session, overwrites the STARTTLS offer as some middleboxes do, rejects the
/// STARTTLS command, and records the client's lines.
async fn strip(client: AnyStream, server: AnyStream, mail_traffic: &MailTraffic) {
    let (client_read, mut client_write) = tokio::io::split(client);
    let (server_read, mut server_write) = tokio::io::split(server);
    let (mut client_read, mut server_read) = (BufReader::new(client_read), BufReader::new(server_read));
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    loop {
        let outcome = tokio::select! {
            read = client_read.read_until(b'\n', &mut from_client) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    lock(&mail_traffic.overheard).push(String::from_utf8_lossy(&from_client).trim_end().to_owned());
                    let line = std::mem::take(&mut from_client);
                    if line.trim_ascii().eq_ignore_ascii_case(b"STARTTLS") {
                        client_write.write_all(b"502 not known here\r\n").await
                    } else {
                        server_write.write_all(&line).await
                    }
                }
            },
            read = server_read.read_until(b'\n', &mut from_server) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let line = String::from_utf8_lossy(&std::mem::take(&mut from_server)).replace("STARTTLS", "XXXXXXXA");
                    client_write.write_all(line.as_bytes()).await
                }
            },
        };
        if outcome.is_err() || client_write.flush().await.is_err() {
            return;
        }
    }
}
