//! Tests of an MX host for the preflight check that go beyond a normal session. No mail is sent, and each test opens
//! its own connection.

use super::client::{Client, Session};
use super::wire::Wire;
use super::{Fault, MailHosts, SessionFailure, SessionReport, Target, TlsDemand, WireError};
use crate::BoxFuture;
use formats::hello::{Answer, Version, client_hello, server_answer};
use rustls_pki_types::UnixTime;
use sha2::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Tests of a mail host's TLS behavior.
pub trait MailProbes: MailHosts {
    /// Opens a session whose TLS handshake does not send the host's name (SNI).
    fn without_sni<'a>(
        &'a self,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>>;

    /// The cipher suite that the host selects from `ciphers` in this TLS version; `None` when it does not accept the
    /// version or any of the suites.
    fn agrees<'a>(
        &'a self,
        target: &'a Target,
        version: Version,
        ciphers: &'static [u16],
    ) -> BoxFuture<'a, Result<Option<u16>, Fault>>;

    /// The key exchange group that the host agrees on with a client that prefers `X25519MLKEM768`. The client's hello is
    /// longer than one TCP segment, which some hosts do not read to the end: they fail with [`Fault::Handshake`].
    fn large_hello<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<String, Fault>>;

    /// Tests for STARTTLS command injection (CVE-2011-0411). True when a plaintext command sent along with STARTTLS is
    /// executed after the handshake.
    fn accepts_injection<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<bool, Fault>>;
}

impl MailProbes for Client {
    fn without_sni<'a>(
        &'a self,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>> {
        Box::pin(async move {
            let mut report = SessionReport::new(target);
            match self.run(&mut report, &TlsDemand::Encrypt, false, None).await {
                Ok(()) => Ok(report),
                Err(fault) => Err(Box::new(SessionFailure { fault, report })),
            }
        })
    }

    fn agrees<'a>(
        &'a self,
        target: &'a Target,
        version: Version,
        ciphers: &'static [u16],
    ) -> BoxFuture<'a, Result<Option<u16>, Fault>> {
        Box::pin(async move {
            let mut report = SessionReport::new(target);
            let stream = self.before_handshake(&mut report).await?;
            let hello = client_hello(version, ciphers, &target.host, random());
            let limit = self.config.reply_time;
            tokio::time::timeout(limit, exchange_hellos(stream, hello, version))
                .await
                .unwrap_or(Err(WireError::Time(limit)))
                .map_err(Fault::Wire)
        })
    }

    fn large_hello<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            let mut report = SessionReport::new(target);
            let stream = self.before_handshake(&mut report).await?;
            let limit = self.config.reply_time;
            match tokio::time::timeout(limit, self.post_quantum.connect(stream, &target.host, true)).await {
                Ok((Ok(stream), _)) => Ok(crate::tls::group(stream.get_ref().1)),
                Ok((Err(error), _)) => Err(Fault::Handshake(error.to_string())),
                Err(_) => Err(Fault::Handshake(format!("not completed within {} seconds", limit.as_secs()))),
            }
        })
    }

    fn accepts_injection<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(async move {
            let mut report = SessionReport::new(target);
            let mut stream = self.connect(target).await?;
            let helo = self.helo(&stream);
            let mut clear = Session { wire: Wire::new(stream, self.config.reply_time), report: &mut report };
            clear.greet(&helo).await?;
            if !clear.report.offers_starttls() {
                return Err(Fault::NoStarttls);
            }
            clear.wire.send(b"STARTTLS\r\nNOOP\r\n").await?;
            let reply = clear.reply().await?;
            let (inner, has_more) = clear.wire.into_stream();
            if reply.code != 220 || has_more {
                return Ok(false);
            }
            stream = inner;
            let stream = self.handshake(stream, &mut report, &target.host, true).await?;
            let mut sealed = Session { wire: Wire::new(stream, self.config.reply_time), report: &mut report };
            sealed.ehlo(&helo).await?;
            // If the host answered NOOP, later replies are off by one: the reply read here belongs to EHLO, not QUIT.
            let last = sealed.command("QUIT").await?;
            Ok(last.code != 221)
        })
    }
}

impl Client {
    /// Connects and sends STARTTLS; the TLS handshake begins next on the stream.
    async fn before_handshake(&self, report: &mut SessionReport) -> Result<TcpStream, Fault> {
        let stream = self.connect(&report.target).await?;
        let helo = self.helo(&stream);
        let mut clear = Session { wire: Wire::new(stream, self.config.reply_time), report };
        clear.greet(&helo).await?;
        clear.starttls().await
    }
}

/// Sends a ClientHello and reads the ServerHello. Returns the cipher suite if the server selected exactly `version`.
async fn exchange_hellos(
    mut stream: TcpStream,
    hello: Vec<u8>,
    version: Version,
) -> Result<Option<u16>, WireError> {
    let io = |error: std::io::Error| WireError::Io(error.to_string());
    stream.write_all(&hello).await.map_err(io)?;
    let mut read = Vec::new();
    loop {
        match server_answer(&read) {
            Answer::Agrees { version: agreed, cipher } => {
                return Ok((agreed == version.number()).then_some(cipher));
            }
            Answer::Refuses => return Ok(None),
            Answer::Unfinished if read.len() > MAX_HELLO_BYTES => return Ok(None),
            Answer::Unfinished => {}
        }
        let mut chunk = [0; 1024];
        // Some servers close the connection instead of sending an alert.
        let Ok(count) = stream.read(&mut chunk).await else { return Ok(None) };
        if count == 0 {
            return Ok(None);
        }
        read.extend(chunk.iter().take(count));
    }
}

/// The maximum number of bytes read while waiting for a ServerHello: one TLS record of maximum size.
const MAX_HELLO_BYTES: usize = 16_640;

/// The random field of the ClientHello. It may be predictable, since the handshake is never completed.
fn random() -> [u8; 32] {
    sha2::Sha256::digest(UnixTime::now().as_secs().to_be_bytes()).into()
}
