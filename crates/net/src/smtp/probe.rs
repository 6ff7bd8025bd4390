//! What a preflight asks of an MX host beside a session: no mail is sent, and each question is a
//! connection of its own.

use super::client::{Client, Talk};
use super::wire::Wire;
use super::{Fault, MailHosts, SessionFailure, SessionReport, Target, TlsDemand, WireError};
use crate::BoxFuture;
use formats::hello::{Answer, Version, client_hello, server_answer};
use rustls_pki_types::UnixTime;
use sha2::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks mail hosts what they would do.
pub trait MailProbes: MailHosts {
    /// A session without the host's name in the handshake (RFC 8461 §4.2 forbids to rely on it).
    fn without_sni<'a>(
        &'a self,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>>;

    /// The cipher that the host agrees to use in `version`, when it agrees to that version at all.
    fn agrees<'a>(
        &'a self,
        target: &'a Target,
        version: Version,
        ciphers: &'static [u16],
    ) -> BoxFuture<'a, Result<Option<u16>, Fault>>;

    /// True when a command that was sent in the clear behind STARTTLS is answered after the handshake
    /// (CVE-2011-0411).
    fn takes_injection<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<bool, Fault>>;
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
            tokio::time::timeout(limit, answer(stream, hello, version))
                .await
                .unwrap_or(Err(WireError::Time(limit)))
                .map_err(Fault::Wire)
        })
    }

    fn takes_injection<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(async move {
            let mut report = SessionReport::new(target);
            let mut stream = self.connect(target).await?;
            let mut talk = Talk { wire: Wire::new(stream, self.config.reply_time), report: &mut report };
            talk.greet(&self.config.helo).await?;
            if !talk.report.offers_starttls() {
                return Err(Fault::NoStarttls);
            }
            talk.wire.send(b"STARTTLS\r\nNOOP\r\n").await?;
            let reply = talk.reply().await?;
            let (inner, has_more) = talk.wire.into_stream();
            if reply.code != 220 || has_more {
                return Ok(false);
            }
            stream = inner;
            let stream = self.handshake(stream, &mut report, true).await?;
            let mut sealed = Talk { wire: Wire::new(stream, self.config.reply_time), report: &mut report };
            sealed.ehlo(&self.config.helo).await?;
            // When NOOP was answered, every reply is one late: EHLO's comes where QUIT's belongs.
            let last = sealed.command("QUIT").await?;
            Ok(last.code != 221)
        })
    }
}

impl Client {
    async fn before_handshake(&self, report: &mut SessionReport) -> Result<TcpStream, Fault> {
        let stream = self.connect(&report.target).await?;
        let mut talk = Talk { wire: Wire::new(stream, self.config.reply_time), report };
        talk.greet(&self.config.helo).await?;
        talk.starttls().await
    }
}

/// A server that says yes to an older version says so in its own hello; another version is no answer.
async fn answer(mut stream: TcpStream, hello: Vec<u8>, version: Version) -> Result<Option<u16>, WireError> {
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
        // Some servers break off in place of an alert.
        let Ok(count) = stream.read(&mut chunk).await else { return Ok(None) };
        if count == 0 {
            return Ok(None);
        }
        read.extend(chunk.iter().take(count));
    }
}

/// A whole record.
const MAX_HELLO_BYTES: usize = 16_640;

/// The random of a ClientHello that is never finished: it protects nothing.
fn random() -> [u8; 32] {
    sha2::Sha256::digest(UnixTime::now().as_secs().to_be_bytes()).into()
}
