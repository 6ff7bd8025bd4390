//! The real [`MailHosts`].

use super::wire::{self, Reply, Wire};
use super::{Fault, Mail, MailHosts, SessionFailure, SessionReport, Target, TlsDemand, TlsFacts};
use crate::BoxFuture;
use crate::address::special;
use crate::certificate::{CertificateFacts, TlsClock, Trust, server_name};
use crate::clock::Clock;
use formats::DomainName;
use formats::limits::{CONNECT_TIME, SMTP_REPLY_TIME};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig as TlsConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a [`Client`] works.
#[derive(Clone)]
pub struct ClientConfig {
    /// Which roots are trusted.
    pub trust: Trust,
    /// What EHLO says.
    pub helo: DomainName,
    /// 25, except in a lab.
    pub port: u16,
    /// True lets it connect to private and other special addresses.
    pub allow_special_addresses: bool,
    /// How long one reply may take.
    pub reply_time: Duration,
}

impl ClientConfig {
    /// Port 25, public addresses only.
    pub fn new(trust: Trust, helo: DomainName) -> Self {
        Self { trust, helo, port: 25, allow_special_addresses: false, reply_time: SMTP_REPLY_TIME }
    }
}

/// Opens sessions over real connections.
pub struct Client {
    config: ClientConfig,
    clock: Arc<dyn Clock>,
    tls: TlsConnector,
}

impl Client {
    /// A client that judges dates by `clock`.
    pub fn new(config: ClientConfig, clock: Arc<dyn Clock>) -> Result<Self, rustls::Error> {
        let provider = config.trust.provider();
        let mut tls = TlsConfig::builder_with_details(provider.clone(), Arc::new(TlsClock(clock.clone())))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(JudgeLater(provider)))
            .with_no_client_auth();
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(Self { config, clock, tls: TlsConnector::from(Arc::new(tls)) })
    }

    async fn run(
        &self,
        report: &mut SessionReport,
        demand: &TlsDemand,
        mail: Option<&Mail>,
    ) -> Result<(), Fault> {
        let stream = self.connect(&report.target).await?;
        let mut clear = Talk { wire: Wire::new(stream, self.config.reply_time), report };
        clear.greet(&self.config.helo).await?;
        let offered = clear.report.offers_starttls();
        match demand {
            TlsDemand::Never => return clear.finish(mail).await,
            TlsDemand::Opportunistic if !offered => return clear.finish(mail).await,
            _ if !offered => {
                clear.quit().await;
                return Err(Fault::NoStarttls);
            }
            _ => {}
        }
        let reply = clear.command("STARTTLS").await?;
        if reply.code != 220 {
            clear.quit().await;
            return Err(Fault::StarttlsRefused(reply));
        }
        let (stream, injected) = clear.wire.into_stream();
        if injected {
            return Err(Fault::Injected);
        }
        let stream = self.handshake(stream, &report.target).await?;
        let facts = self.judge(&stream, &report.target.host, demand)?;
        let verdict = verdict(&facts, demand);
        report.tls = Some(facts);
        let mut sealed = Talk { wire: Wire::new(stream, self.config.reply_time), report };
        if let Err(fault) = verdict {
            sealed.quit().await;
            return Err(fault);
        }
        sealed.ehlo(&self.config.helo).await?;
        sealed.finish(mail).await
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, Fault> {
        if let Some(what) = special(target.address).filter(|_| !self.config.allow_special_addresses) {
            return Err(Fault::Connect(format!("{} is {what}, and not connected to", target.address)));
        }
        let address = SocketAddr::new(target.address, self.config.port);
        let limit = CONNECT_TIME.min(self.config.reply_time);
        match tokio::time::timeout(limit, TcpStream::connect(address)).await {
            Ok(outcome) => outcome.map_err(|error| Fault::Connect(error.to_string())),
            Err(_) => Err(Fault::Connect(format!("no answer within {} seconds", limit.as_secs()))),
        }
    }

    async fn handshake(&self, stream: TcpStream, target: &Target) -> Result<TlsStream<TcpStream>, Fault> {
        let name = server_name(&target.host).map_err(Fault::Certificate)?;
        match tokio::time::timeout(self.config.reply_time, self.tls.connect(name, stream)).await {
            Ok(outcome) => outcome.map_err(|error| Fault::Handshake(error.to_string())),
            Err(_) => {
                Err(Fault::Handshake(format!("not done within {} seconds", self.config.reply_time.as_secs())))
            }
        }
    }

    fn judge(
        &self,
        stream: &TlsStream<TcpStream>,
        host: &DomainName,
        demand: &TlsDemand,
    ) -> Result<TlsFacts, Fault> {
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let now = self.clock.now();
        let trust = &self.config.trust;
        let dane = match demand {
            TlsDemand::Dane { rule, base, next_hop } => {
                Some(trust.check_dane(chain, rule, base, next_hop, now))
            }
            _ => None,
        };
        Ok(TlsFacts {
            version: session
                .protocol_version()
                .and_then(|version| version.as_str())
                .unwrap_or("unknown")
                .to_owned(),
            cipher: session
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("unknown")
                .to_owned(),
            chain: chain.iter().take(10).filter_map(CertificateFacts::read).collect(),
            pkix: trust.check(chain, host, now),
            dane,
        })
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
            let mut report = SessionReport {
                target: target.clone(),
                banner: None,
                capabilities: Vec::new(),
                tls: None,
                transcript: Vec::new(),
            };
            match self.run(&mut report, demand, mail).await {
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

/// A conversation that writes itself down.
struct Talk<'r, S> {
    wire: Wire<S>,
    report: &'r mut SessionReport,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<'_, S> {
    async fn greet(&mut self, helo: &DomainName) -> Result<(), Fault> {
        let banner = self.reply().await?;
        self.report.banner = Some(banner.lines.join(" "));
        if banner.code != 220 {
            self.quit().await;
            return Err(Fault::Refused("the connection", banner));
        }
        self.ehlo(helo).await
    }

    async fn ehlo(&mut self, helo: &DomainName) -> Result<(), Fault> {
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

    /// `QUIT`, whatever the other side says to it: the session is over either way.
    async fn quit(&mut self) {
        let _ = self.command("QUIT").await;
    }

    async fn command(&mut self, line: &str) -> Result<Reply, Fault> {
        if line.contains(['\r', '\n', '\0']) {
            return Err(Fault::Wire(wire::WireError::NotSmtp("a line break in a command".into())));
        }
        self.note(format!("C: {line}"));
        self.wire.send(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Reply, Fault> {
        let reply = self.wire.reply().await?;
        self.note(format!("S: {reply}"));
        Ok(reply)
    }

    fn note(&mut self, line: String) {
        if self.report.transcript.len() < 200 {
            self.report.transcript.push(line.chars().take(1000).collect());
        }
    }
}

/// Completes the handshake whatever the certificate is, so that its faults can be told in full;
/// [`verdict`] decides before anything is sent. The handshake's own signatures are checked.
#[derive(Debug)]
struct JudgeLater(Arc<CryptoProvider>);

impl ServerCertVerifier for JudgeLater {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
