//! [`Client`], the implementation of [`MailHosts`] over real connections. It connects, upgrades to TLS, verifies the
//! certificate as demanded, and delivers the message; [`super::probe`] reuses its steps.

use super::wire::{self, Reply, Wire};
use super::{Fault, Helo, Mail, MailHosts, SessionFailure, SessionReport, Target, TlsDemand, TlsFacts};
use crate::BoxFuture;
use crate::address::special;
use crate::certificate::Trust;
use crate::clock::Clock;
use crate::connect::tcp;
use crate::tls::Handshaker;
use data_encoding::BASE64;
use formats::DomainName;
use formats::limits::{CONNECT_TIME, SMTP_REPLY_TIME};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The configuration of a [`Client`].
#[derive(Clone)]
pub struct ClientConfig {
    /// The root certificates that mail hosts are verified against.
    pub trust: Trust,
    /// The name sent in EHLO and HELO.
    pub helo: Helo,
    /// The TCP port of mail hosts: 25, except in a lab.
    pub port: u16,
    /// True allows connections to private and other special-purpose addresses.
    pub allow_special_addresses: bool,
    /// The time limit for one reply, and for the TLS handshake.
    pub reply_time: Duration,
    /// Local addresses to connect from, at most one per address family; if empty, the system chooses.
    pub sources: Vec<IpAddr>,
    /// Credentials for SMTP AUTH. They are sent only after the host passed certificate verification
    /// ([`TlsDemand::Pkix`]).
    pub login: Option<Login>,
}

/// Credentials for SMTP AUTH.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    /// Leaves out the password, so that it is never logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

impl ClientConfig {
    /// The default configuration: port 25, public addresses only, no login.
    pub fn new(trust: Trust, helo: impl Into<Helo>) -> Self {
        Self {
            trust,
            helo: helo.into(),
            port: 25,
            allow_special_addresses: false,
            reply_time: SMTP_REPLY_TIME,
            sources: Vec::new(),
            login: None,
        }
    }
}

/// An SMTP client over real connections.
pub struct Client {
    pub(super) config: ClientConfig,
    pub(super) tls: Handshaker,
    /// For the probe of a large ClientHello.
    pub(super) post_quantum: Handshaker,
}

impl Client {
    /// Creates a client that checks certificate dates against `clock`.
    pub fn new(config: ClientConfig, clock: Arc<dyn Clock>) -> Result<Self, rustls::Error> {
        let tls = Handshaker::new(config.trust.clone(), clock.clone(), &[])?;
        let post_quantum = Handshaker::post_quantum(config.trust.clone(), clock)?;
        Ok(Self { config, tls, post_quantum })
    }

    /// Runs a whole session and records it in `report`.
    pub(super) async fn run(
        &self,
        report: &mut SessionReport,
        demand: &TlsDemand,
        with_sni: bool,
        mail: Option<&Mail>,
    ) -> Result<(), Fault> {
        let stream = self.connect(&report.target).await?;
        let helo = self.helo(&stream);
        let mut clear = Session { wire: Wire::new(stream, self.config.reply_time), report };
        clear.greet(&helo).await?;
        let offered = clear.report.offers_starttls();
        match demand {
            TlsDemand::Never => return clear.finish(mail).await,
            TlsDemand::Opportunistic if !offered => return clear.finish(mail).await,
            _ => {}
        }
        let stream = clear.starttls().await?;
        let host = report.target.host.clone();
        let stream = self.handshake(stream, report, demand.server_name(&host), with_sni).await?;
        let facts = self.inspect(&stream, &report.target.host, demand);
        let verdict = verdict(&facts, demand);
        report.tls = Some(facts);
        let mut sealed = Session { wire: Wire::new(stream, self.config.reply_time), report };
        if let Err(fault) = verdict {
            sealed.quit().await;
            return Err(fault);
        }
        sealed.ehlo(&helo).await?;
        if let Some(login) = self.config.login.as_ref().filter(|_| *demand == TlsDemand::Pkix)
            && let Err(fault) = sealed.log_in(login).await
        {
            sealed.quit().await;
            return Err(fault);
        }
        sealed.finish(mail).await
    }

    pub(super) async fn connect(&self, target: &Target) -> Result<TcpStream, Fault> {
        if let Some(what) = special(target.address).filter(|_| !self.config.allow_special_addresses) {
            return Err(Fault::Connect(format!("refusing to connect to {}: it is {what}", target.address)));
        }
        let address = SocketAddr::new(target.address, self.config.port);
        let limit = CONNECT_TIME.min(self.config.reply_time);
        tcp(address, &self.config.sources, limit).await.map_err(Fault::Connect)
    }

    /// The name for EHLO on this connection.
    pub(super) fn helo(&self, stream: &TcpStream) -> String {
        self.config.helo.on(stream.local_addr().ok().map(|address| address.ip()))
    }

    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        report: &mut SessionReport,
        name: &DomainName,
        with_sni: bool,
    ) -> Result<TlsStream<TcpStream>, Fault> {
        let limit = self.config.reply_time;
        match tokio::time::timeout(limit, self.tls.connect(stream, name, with_sni)).await {
            Ok((outcome, asked)) => {
                report.asks_for_certificate = asked;
                outcome.map_err(|error| Fault::Handshake(error.to_string()))
            }
            Err(_) => Err(Fault::Handshake(format!("not completed within {} seconds", limit.as_secs()))),
        }
    }

    /// What the handshake showed, with the certificate verified against trusted roots and, if demanded, DANE.
    fn inspect(&self, stream: &TlsStream<TcpStream>, host: &DomainName, demand: &TlsDemand) -> TlsFacts {
        let mut facts = self.tls.inspect(stream, host);
        if let TlsDemand::Dane { rule, base, next_hop } = demand {
            let (_, session) = stream.get_ref();
            let chain = session.peer_certificates().unwrap_or_default();
            let now = self.tls.clock().now();
            facts.dane = Some(self.tls.trust().check_dane(chain, rule, base, next_hop, now));
        }
        facts
    }
}

impl MailHosts for Client {
    fn session<'a>(
        &'a self,
        target: &'a Target,
        demand: &'a TlsDemand,
        mail: Option<&'a Mail>,
    ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>> {
        Box::pin(async move {
            let mut report = SessionReport::new(target);
            match self.run(&mut report, demand, true, mail).await {
                Ok(()) => Ok(report),
                Err(fault) => Err(Box::new(SessionFailure { fault, report })),
            }
        })
    }
}

fn verdict(facts: &TlsFacts, demand: &TlsDemand) -> Result<(), Fault> {
    let outcome = match demand {
        TlsDemand::Pkix => facts.pkix.clone(),
        TlsDemand::Dane { .. } => facts.dane.clone().unwrap_or(Ok(())),
        TlsDemand::Never | TlsDemand::Opportunistic | TlsDemand::Encrypt => Ok(()),
    };
    outcome.map_err(Fault::Certificate)
}

/// The exchange of commands and replies, recorded in `report`.
pub(super) struct Session<'r, S> {
    pub(super) wire: Wire<S>,
    pub(super) report: &'r mut SessionReport,
}

impl Session<'_, TcpStream> {
    /// Sends STARTTLS and returns the stream, on which the TLS handshake begins next.
    pub(super) async fn starttls(mut self) -> Result<TcpStream, Fault> {
        if !self.report.offers_starttls() {
            self.quit().await;
            return Err(Fault::NoStarttls);
        }
        let reply = self.command("STARTTLS").await?;
        if reply.code != 220 {
            self.quit().await;
            return Err(Fault::StarttlsRefused(reply));
        }
        let (stream, injected) = self.wire.into_stream();
        if injected { Err(Fault::Injected) } else { Ok(stream) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    pub(super) async fn greet(&mut self, helo: &str) -> Result<(), Fault> {
        let banner = self.reply().await?;
        self.report.banner = Some(banner.lines.join(" "));
        if banner.code != 220 {
            self.quit().await;
            return Err(Fault::Refused("the connection", banner));
        }
        self.ehlo(helo).await
    }

    pub(super) async fn ehlo(&mut self, helo: &str) -> Result<(), Fault> {
        let reply = self.command(&format!("EHLO {helo}")).await?;
        if reply.code == 250 {
            self.report.capabilities =
                reply.lines.iter().skip(1).map(|line| line.trim().to_ascii_uppercase()).collect();
            return Ok(());
        }
        self.report.capabilities.clear();
        let reply = self.command(&format!("HELO {helo}")).await?;
        if reply.is_positive() { Ok(()) } else { Err(Fault::Refused("HELO", reply)) }
    }

    /// Authenticates with AUTH PLAIN (RFC 4954, RFC 4616), or with AUTH LOGIN if the host does not offer PLAIN.
    async fn log_in(&mut self, login: &Login) -> Result<(), Fault> {
        self.wire.secrets.remember(&login.password);
        let mechanisms = self.report.capabilities.iter().find_map(|line| line.strip_prefix("AUTH "));
        let mechanisms: Vec<String> = mechanisms.unwrap_or_default().split(' ').map(str::to_owned).collect();
        let offers = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
        let base64 = |text: &str| BASE64.encode(text.as_bytes());
        let last = if offers("PLAIN") {
            self.send_secret("AUTH PLAIN", &base64(&format!("\0{}\0{}", login.user, login.password))).await?
        } else if offers("LOGIN") {
            self.expect_334("AUTH LOGIN").await?;
            let asked = self.send_secret("", &base64(&login.user)).await?;
            if asked.code != 334 {
                return Err(Fault::Refused("AUTH", asked));
            }
            self.send_secret("", &base64(&login.password)).await?
        } else {
            return Err(Fault::NoLogin);
        };
        if last.code == 235 { Ok(()) } else { Err(Fault::Refused("AUTH", last)) }
    }

    async fn expect_334(&mut self, line: &str) -> Result<(), Fault> {
        let reply = self.command(line).await?;
        if reply.code == 334 { Ok(()) } else { Err(Fault::Refused("AUTH", reply)) }
    }

    /// Sends `secret` after `command`, keeping the secret out of the transcript.
    async fn send_secret(&mut self, command: &str, secret: &str) -> Result<Reply, Fault> {
        self.record(format!("C: {command} …"));
        self.wire.secrets.remember(secret);
        let line = format!("{command} {secret}");
        self.wire.send(format!("{}\r\n", line.trim_start()).as_bytes()).await?;
        self.reply().await
    }

    async fn finish(&mut self, mail: Option<&Mail>) -> Result<(), Fault> {
        let outcome = match mail {
            Some(mail) => self.deliver(mail).await,
            None => Ok(()),
        };
        self.quit().await;
        outcome
    }

    async fn deliver(&mut self, mail: &Mail) -> Result<(), Fault> {
        self.expect("MAIL FROM", &format!("MAIL FROM:<{}>", mail.from)).await?;
        for to in &mail.to {
            self.expect("RCPT TO", &format!("RCPT TO:<{to}>")).await?;
        }
        self.expect("DATA", "DATA").await?;
        self.wire.send(&wire::data(&mail.message)).await?;
        let reply = self.reply().await?;
        if reply.is_positive() { Ok(()) } else { Err(Fault::Refused("the message", reply)) }
    }

    async fn expect(&mut self, what: &'static str, line: &str) -> Result<(), Fault> {
        let reply = self.command(line).await?;
        if reply.is_positive() { Ok(()) } else { Err(Fault::Refused(what, reply)) }
    }

    /// Sends QUIT and ignores the outcome, since the session ends in any case.
    pub(super) async fn quit(&mut self) {
        let _ = self.command("QUIT").await;
    }

    pub(super) async fn command(&mut self, line: &str) -> Result<Reply, Fault> {
        if line.contains(['\r', '\n', '\0']) {
            return Err(Fault::Wire(wire::WireError::NotSmtp("a line break in a command".into())));
        }
        self.record(format!("C: {line}"));
        self.wire.send(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    pub(super) async fn reply(&mut self) -> Result<Reply, Fault> {
        let reply = self.wire.reply().await?;
        self.record(format!("S: {reply}"));
        Ok(reply)
    }

    /// Adds a line to the transcript.
    fn record(&mut self, line: String) {
        if self.report.transcript.len() < 200 {
            self.report.transcript.push(line.chars().take(1000).collect());
        }
    }
}
