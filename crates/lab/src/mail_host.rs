//! The lab's mail servers, and the attacker in front of them. Each MX host has a loopback address
//! of its own; what arrives is kept, with whether it came in the clear.

use crate::dns::AbortOnDrop;
use crate::odd_mail_host;
use crate::pki::Identity;
use crate::policy_host::server_hello_of_tls_1_0;
use formats::DomainName;
use net::BoxFuture;
use net::smtp::server::{AnyStream, Incoming, KeepError, Mailbox, ServerConfig, Starttls, Upgrade, serve};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// How a mail server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// As it should.
    Good,
    /// It does not offer STARTTLS.
    NoStarttls,
    /// It offers STARTTLS and answers 454.
    StarttlsRefused,
    /// It breaks off in the handshake.
    HandshakeBreaks,
    /// It speaks TLS 1.0 only.
    OldTls,
    /// It answers the handshake with text.
    Garbage,
    /// It takes the connection and says nothing.
    Silent,
    /// It greets with 554.
    Refuses,
    /// It greets with 421.
    Busy,
    /// It closes at once.
    Closes,
    /// It greets with 450 and asks to come again later.
    Greylists,
    /// It speaks TLS 1.2 at most.
    OnlyTls12,
    /// It gives its certificate only to those who name it, and another one to the rest.
    OnlyWithSni,
    /// It insists on a certificate of the client.
    WantsCertificate,
    /// It speaks TLS 1.0 and 1.1 too.
    OldTlsToo,
    /// It agrees to weak ciphers too.
    WeakCiphersToo,
    /// It offers STARTTLS to every other client.
    Flaps,
    /// It answers after the handshake what was sent in the clear before it.
    TakesInjection,
    /// It offers REQUIRETLS.
    RequireTls,
    /// Connections run into nothing, as behind a wall that drops them.
    Walled,
}

/// What a mail server got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Which host.
    pub host: DomainName,
    /// What.
    pub incoming: Incoming,
}

/// All mail that arrived anywhere, what the attacker read, and on which hosts he works.
#[derive(Default)]
pub struct Post {
    received: Mutex<Vec<Received>>,
    overheard: Mutex<Vec<String>>,
    stripping: Mutex<HashSet<DomainName>>,
    handlers: Mutex<HashMap<DomainName, Arc<dyn Mailbox>>>,
}

impl Post {
    /// Takes out all mail that arrived so far.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut *lock(&self.received))
    }

    /// Takes out the lines that the attacker could read so far.
    pub fn take_overheard(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.overheard))
    }

    /// Puts the attacker in front of a host, or takes him away: he strips STARTTLS and reads along.
    pub fn strip(&self, host: &DomainName, on: bool) {
        let mut stripping = lock(&self.stripping);
        if on {
            stripping.insert(host.clone())
        } else {
            stripping.remove(host)
        };
    }

    /// Hands the mail of one host to another mailbox instead, such as a report inbox.
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
        behaviour: Behaviour,
        identity: &Identity,
        other: &Identity,
        post: Arc<Post>,
    ) -> Result<Self, rustls::Error> {
        let sealed = odd_mail_host::upgrade(behaviour, identity, other)?;
        let starttls = match behaviour {
            Behaviour::NoStarttls => Starttls::Absent,
            Behaviour::StarttlsRefused => Starttls::Unavailable,
            Behaviour::HandshakeBreaks => Starttls::Offered(Arc::new(Broken(Vec::new()))),
            Behaviour::OldTls => Starttls::Offered(Arc::new(Broken(server_hello_of_tls_1_0()))),
            Behaviour::Garbage => Starttls::Offered(Arc::new(Broken(b"500 what?\r\n".to_vec()))),
            _ => Starttls::Offered(sealed.clone()),
        };
        let shared = Arc::new(Shared { config: ServerConfig::new(host, starttls), behaviour, sealed, post });
        let task = tokio::spawn(async move {
            let mut clients = 0_usize;
            while let Ok((stream, _)) = listener.accept().await {
                clients += 1;
                let shared = shared.clone();
                tokio::spawn(async move { shared.accept(Box::new(stream), clients).await });
            }
        });
        Ok(Self { _task: AbortOnDrop(task) })
    }
}

struct Shared {
    config: ServerConfig,
    behaviour: Behaviour,
    sealed: Arc<dyn Upgrade>,
    post: Arc<Post>,
}

impl Shared {
    /// `client` counts them from 1.
    async fn accept(&self, mut stream: AnyStream, client: usize) -> io::Result<()> {
        match self.behaviour {
            Behaviour::Silent => return std::future::pending().await,
            Behaviour::Closes => return Ok(()),
            Behaviour::Refuses => return stream.write_all(b"554 no service here\r\n").await,
            Behaviour::Busy => return stream.write_all(b"421 too busy\r\n").await,
            Behaviour::Greylists => {
                return stream.write_all(b"450 4.2.0 greylisted, try again later\r\n").await;
            }
            Behaviour::TakesInjection | Behaviour::RequireTls => {
                let host = self.config.hostname.as_str();
                return odd_mail_host::serve(stream, host, self.behaviour, self.sealed.as_ref()).await;
            }
            Behaviour::Flaps if client.is_multiple_of(2) => {
                let config = ServerConfig { starttls: Starttls::Absent, ..self.config.clone() };
                return serve(stream, &config, self).await;
            }
            _ => {}
        }
        if !lock(&self.post.stripping).contains(&self.config.hostname) {
            return self.serve(stream).await;
        }
        let (attackers_end, servers_end) = tokio::io::duplex(1 << 16);
        let (outcome, ()) = tokio::join!(
            self.serve(Box::new(servers_end)),
            strip(stream, Box::new(attackers_end), &self.post)
        );
        outcome
    }

    async fn serve(&self, stream: AnyStream) -> io::Result<()> {
        let handler = lock(&self.post.handlers).get(&self.config.hostname).cloned();
        match handler {
            Some(mailbox) => serve(stream, &self.config, mailbox.as_ref()).await,
            None => serve(stream, &self.config, self).await,
        }
    }
}

impl Mailbox for Shared {
    fn takes(&self, _: &str) -> bool {
        true
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        Box::pin(async move {
            lock(&self.post.received).push(Received { host: self.config.hostname.clone(), incoming });
            Ok(())
        })
    }
}

/// A place where connections run into nothing: its queue is full, and nobody takes from it.
pub(crate) struct Wall {
    _listener: TcpListener,
    _queue: Vec<AbortOnDrop>,
}

impl Wall {
    pub(crate) async fn raise(address: std::net::SocketAddr) -> io::Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(address)?;
        let listener = socket.listen(1)?;
        let mut queue = Vec::new();
        // As many as the queue holds get through at once; the rest keep it full.
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

/// Sends these bytes in place of a handshake and breaks off.
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

/// The man in the middle: passes everything on, but for the offer of STARTTLS, which he overwrites
/// as middle boxes do, and the command itself, which he refuses. He writes down what he reads.
async fn strip(client: AnyStream, server: AnyStream, post: &Post) {
    let (client_read, mut client_write) = tokio::io::split(client);
    let (server_read, mut server_write) = tokio::io::split(server);
    let (mut client_read, mut server_read) = (BufReader::new(client_read), BufReader::new(server_read));
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    loop {
        let outcome = tokio::select! {
            read = client_read.read_until(b'\n', &mut from_client) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    lock(&post.overheard).push(String::from_utf8_lossy(&from_client).trim_end().to_owned());
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
