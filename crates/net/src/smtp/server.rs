//! The receiving end of an SMTP or LMTP session, as the report inbox and the lab need it: EHLO, STARTTLS,
//! one message at a time, everything bounded (RFC 5321, RFC 3207, RFC 2033). It relays nothing.

use crate::BoxFuture;
use formats::DomainName;
use formats::limits::{
    INBOX_MESSAGE_BYTES, INBOX_MESSAGE_TIME, INBOX_MESSAGES, INBOX_SESSION_TIME, SMTP_LINE_BYTES,
    SMTP_REPLY_TIME,
};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Any stream that a session can run on.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A boxed stream.
pub type AnyStream = Box<dyn Stream>;

/// Turns a clear stream into a TLS one after STARTTLS.
pub trait Upgrade: Send + Sync {
    /// The handshake.
    fn upgrade(&self, stream: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>>;
}

impl Upgrade for tokio_rustls::TlsAcceptor {
    fn upgrade(&self, stream: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>> {
        let accept = self.accept(stream);
        Box::pin(async move { Ok(Box::new(accept.await?) as AnyStream) })
    }
}

/// What a server does with STARTTLS.
#[derive(Clone)]
pub enum Starttls {
    /// It does not offer it.
    Absent,
    /// It offers it and answers 454, as servers do that can't load their certificate.
    Unavailable,
    /// It offers and does it.
    Offered(Arc<dyn Upgrade>),
}

/// A message that was taken, before the reply to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// `MAIL FROM`, empty for bounces.
    pub from: String,
    /// `RCPT TO`.
    pub to: Vec<String>,
    /// The message with CRLF line ends.
    pub message: Vec<u8>,
    /// True when it came through TLS.
    pub tls: bool,
}

/// Decides about recipients and takes messages.
pub trait Mailbox: Send + Sync {
    /// False when whoever is connected has brought enough for now.
    fn is_welcome(&self) -> bool {
        true
    }
    /// True when mail for this address is taken.
    fn takes(&self, recipient: &str) -> bool;
    /// Keeps a message; 250 is said only after `Ok`.
    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>>;
}

/// Why a message was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Try again later (451).
    #[error("{0}")]
    Later(String),
    /// Never (554).
    #[error("{0}")]
    Never(String),
}

/// How a server presents itself.
#[derive(Clone)]
pub struct ServerConfig {
    /// In the banner and in EHLO.
    pub hostname: DomainName,
    /// What it does with STARTTLS.
    pub starttls: Starttls,
    /// How long it waits for a line.
    pub line_time: Duration,
    /// Which of the two is spoken.
    pub protocol: Protocol,
}

/// Two protocols that differ in their greeting, and in who gets a reply to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Between mail servers (RFC 5321).
    Smtp,
    /// From a mail server to a mailbox: a reply for each recipient (RFC 2033).
    Lmtp,
}

impl ServerConfig {
    /// A server with the usual patience.
    pub fn new(hostname: DomainName, starttls: Starttls) -> Self {
        Self { hostname, starttls, line_time: SMTP_REPLY_TIME, protocol: Protocol::Smtp }
    }
}

/// Runs one session to its end. Errors are of the connection; there is nobody left to tell.
pub fn serve<'a>(
    stream: AnyStream,
    config: &'a ServerConfig,
    mailbox: &'a dyn Mailbox,
) -> BoxFuture<'a, io::Result<()>> {
    Box::pin(async move {
        let session = tokio::time::timeout(INBOX_SESSION_TIME, talk(stream, config, mailbox));
        session.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    })
}

async fn talk(stream: AnyStream, config: &ServerConfig, mailbox: &dyn Mailbox) -> io::Result<()> {
    let mut session = Session { stream, buffer: Vec::new(), config, tls: false, envelope: None };
    let word = if config.protocol == Protocol::Lmtp { "LMTP" } else { "ESMTP" };
    session.reply(&format!("220 {} {word}", config.hostname)).await?;
    let (mut errors, mut messages) = (0, 0);
    while let Some(line) = session.line().await? {
        let text = String::from_utf8_lossy(&line).into_owned();
        let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let outcome = match verb.to_ascii_uppercase().as_str() {
            "QUIT" => return session.reply("221 bye").await,
            "STARTTLS" => match session.starttls().await? {
                Some(upgraded) => {
                    session = upgraded;
                    Ok(())
                }
                None => Err(()),
            },
            "DATA" if messages == INBOX_MESSAGES => return session.reply("421 enough for one session").await,
            "DATA" => {
                messages += 1;
                session.data(mailbox).await?
            }
            other => session.simple(other, rest, mailbox).await?,
        };
        errors = if outcome.is_ok() { 0 } else { errors + 1 };
        if errors > 10 {
            return session.reply("421 too many errors").await;
        }
    }
    Ok(())
}

struct Envelope {
    from: String,
    to: Vec<String>,
}

struct Session<'c> {
    stream: AnyStream,
    buffer: Vec<u8>,
    config: &'c ServerConfig,
    tls: bool,
    envelope: Option<Envelope>,
}

impl<'c> Session<'c> {
    async fn reply(&mut self, line: &str) -> io::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    async fn refuse(&mut self, line: &str) -> io::Result<Result<(), ()>> {
        self.reply(line).await?;
        Ok(Err(()))
    }

    /// One line without its end; `None` when the other side is gone, silent or sends no lines.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.truncate(line.trim_ascii_end().len());
                return Ok(Some(line));
            }
            if self.buffer.len() > SMTP_LINE_BYTES || !self.read_more().await? {
                return Ok(None);
            }
        }
    }

    async fn read_more(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        let read = tokio::time::timeout(self.config.line_time, self.stream.read(&mut chunk));
        let count = read.await.unwrap_or(Ok(0))?;
        self.buffer.extend(chunk.iter().take(count));
        Ok(count > 0)
    }

    async fn simple(&mut self, verb: &str, rest: &str, mailbox: &dyn Mailbox) -> io::Result<Result<(), ()>> {
        match verb {
            "EHLO" if self.config.protocol == Protocol::Smtp => self.ehlo().await?,
            "LHLO" if self.config.protocol == Protocol::Lmtp => self.ehlo().await?,
            "HELO" if self.config.protocol == Protocol::Smtp => {
                self.reply(&format!("250 {}", self.config.hostname)).await?
            }
            "NOOP" => self.reply("250 ok").await?,
            "RSET" => {
                self.envelope = None;
                self.reply("250 ok").await?;
            }
            "MAIL" => {
                let Some(from) = path(rest, "FROM:") else {
                    return self.refuse("501 expected MAIL FROM:<address>").await;
                };
                if !mailbox.is_welcome() {
                    return self
                        .refuse("450 4.7.1 too many messages from your address, try again later")
                        .await;
                }
                if announced_size(rest).is_some_and(|size| size > INBOX_MESSAGE_BYTES) {
                    return self.refuse("552 too large").await;
                }
                self.envelope = Some(Envelope { from, to: Vec::new() });
                self.reply("250 ok").await?;
            }
            "RCPT" => return self.recipient(rest, mailbox).await,
            _ => return self.refuse("502 not known here").await,
        }
        Ok(Ok(()))
    }

    async fn ehlo(&mut self) -> io::Result<()> {
        self.envelope = None;
        let starttls = !self.tls && !matches!(self.config.starttls, Starttls::Absent);
        let offer = if starttls { "250-STARTTLS\r\n" } else { "" };
        self.reply(&format!(
            "250-{}\r\n250-SIZE {INBOX_MESSAGE_BYTES}\r\n{offer}250 8BITMIME",
            self.config.hostname
        ))
        .await
    }

    async fn recipient(&mut self, rest: &str, mailbox: &dyn Mailbox) -> io::Result<Result<(), ()>> {
        let Some(to) = path(rest, "TO:").filter(|to| !to.is_empty()) else {
            return self.refuse("501 expected RCPT TO:<address>").await;
        };
        let Some(envelope) = self.envelope.as_mut() else { return self.refuse("503 MAIL first").await };
        if envelope.to.len() >= 100 {
            return self.refuse("452 too many recipients").await;
        }
        if !mailbox.takes(&to) {
            return self.refuse("550 no such recipient here").await;
        }
        envelope.to.push(to);
        self.reply("250 ok").await?;
        Ok(Ok(()))
    }

    /// The session after the handshake; `None` when there was none. What was sent in the clear
    /// behind STARTTLS is thrown away with the old session (CVE-2011-0411).
    async fn starttls(&mut self) -> io::Result<Option<Session<'c>>> {
        let upgrade = match &self.config.starttls {
            Starttls::Offered(upgrade) if !self.tls => upgrade.clone(),
            Starttls::Absent | Starttls::Offered(_) => {
                return self.reply("502 not known here").await.map(|()| None);
            }
            Starttls::Unavailable => return self.reply("454 TLS not available").await.map(|()| None),
        };
        self.reply("220 go ahead").await?;
        let (unused, _) = tokio::io::duplex(1);
        let stream = std::mem::replace(&mut self.stream, Box::new(unused));
        let handshake = tokio::time::timeout(self.config.line_time, upgrade.upgrade(stream));
        let stream = handshake.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(Some(Session { stream, buffer: Vec::new(), config: self.config, tls: true, envelope: None }))
    }

    async fn data(&mut self, mailbox: &dyn Mailbox) -> io::Result<Result<(), ()>> {
        let ready = self.envelope.take().filter(|envelope| !envelope.to.is_empty());
        let Some(envelope) = ready else { return self.refuse("503 RCPT first").await };
        self.reply("354 go ahead").await?;
        let replies = if self.config.protocol == Protocol::Lmtp { envelope.to.len() } else { 1 };
        let message = tokio::time::timeout(INBOX_MESSAGE_TIME, self.message()).await;
        let (reply, outcome) = match message.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
            None => ("552 too large".to_owned(), Err(())),
            Some(message) => {
                let incoming = Incoming { from: envelope.from, to: envelope.to, message, tls: self.tls };
                match mailbox.keep(incoming).await {
                    Ok(()) => ("250 kept".to_owned(), Ok(())),
                    Err(KeepError::Later(why)) => (format!("451 {}", one_line(&why)), Err(())),
                    Err(KeepError::Never(why)) => (format!("554 {}", one_line(&why)), Err(())),
                }
            }
        };
        let replies = vec![reply; replies];
        self.reply(&replies.join("\r\n")).await?;
        Ok(outcome)
    }

    /// The message without its dots; `None` when it was too large, read to its end all the same.
    async fn message(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        let mut too_large = false;
        // Reports come in lines of any length; what was looked through is not looked through again.
        let mut looked = 0;
        loop {
            let rest = self.buffer.get(looked..).unwrap_or_default();
            let Some(end) = rest.iter().position(|b| *b == b'\n').map(|at| looked + at) else {
                looked = self.buffer.len();
                if self.buffer.len() > INBOX_MESSAGE_BYTES || !self.read_more().await? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            };
            looked = 0;
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line =
                line.strip_suffix(b"\n").map_or(line.as_slice(), |l| l.strip_suffix(b"\r").unwrap_or(l));
            if line == b"." {
                return Ok((!too_large).then_some(message));
            }
            too_large |= message.len() + line.len() > INBOX_MESSAGE_BYTES;
            if !too_large {
                message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
                message.extend_from_slice(b"\r\n");
            }
        }
    }
}

fn path(rest: &str, word: &str) -> Option<String> {
    let head = rest.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word))?;
    let rest = rest.get(head.len()..)?.trim_start().strip_prefix('<')?;
    rest.split_once('>').map(|(address, _)| address.to_owned())
}

/// What the sender announces by `SIZE=` (RFC 1870).
fn announced_size(rest: &str) -> Option<usize> {
    let words = rest.split_ascii_whitespace().skip(1);
    words
        .filter_map(|word| word.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("SIZE"))?
        .1
        .parse()
        .ok()
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Box1(Mutex<Vec<Incoming>>);

    impl Mailbox for Box1 {
        fn takes(&self, recipient: &str) -> bool {
            recipient == "a@b.example"
        }
        fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
            Box::pin(async move {
                self.0.lock().unwrap().push(incoming);
                Ok(())
            })
        }
    }

    async fn talk(script: &[u8]) -> (String, Vec<Incoming>) {
        talk_by(Protocol::Smtp, script).await
    }

    async fn talk_by(protocol: Protocol, script: &[u8]) -> (String, Vec<Incoming>) {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        let mailbox = Box1::default();
        let mut config = ServerConfig::new(DomainName::parse("mx.b.example").unwrap(), Starttls::Unavailable);
        config.line_time = Duration::from_secs(5);
        config.protocol = protocol;
        near.write_all(script).await.unwrap();
        near.shutdown().await.unwrap();
        let _ = serve(Box::new(far), &config, &mailbox).await;
        let mut said = String::new();
        near.read_to_string(&mut said).await.unwrap();
        (said, mailbox.0.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_message_is_kept_before_250_is_said() {
        let (said, kept) = talk(b"EHLO x\r\nMAIL FROM:<s@c.example>\r\nRCPT TO:<no@b.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nhi\r\n..dot\r\n.\r\nQUIT\r\n").await;
        let codes: Vec<_> = said
            .lines()
            .filter(|line| line.as_bytes().get(3) == Some(&b' '))
            .map(|line| &line[..3])
            .collect();
        assert_eq!(codes, ["220", "250", "250", "550", "250", "354", "250", "221"]);
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].message.as_slice(), kept[0].tls), (&b"hi\r\n.dot\r\n"[..], false));
    }

    #[tokio::test]
    async fn by_lmtp_each_recipient_has_a_reply() {
        let script = b"EHLO x\r\nLHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n";
        let (said, kept) = talk_by(Protocol::Lmtp, script).await;
        assert!(said.starts_with("220 mx.b.example LMTP\r\n502"), "{said}");
        assert_eq!((said.matches("250 kept\r\n").count(), kept.len()), (2, 1));
    }

    #[tokio::test]
    async fn a_message_that_is_announced_too_large_is_refused_before_it_comes() {
        let (said, _) = talk(b"EHLO x\r\nMAIL FROM:<a@b.example> BODY=8BITMIME SIZE=99999999\r\n").await;
        assert!(said.ends_with("552 too large\r\n"), "{said}");
        let (said, _) = talk(b"EHLO x\r\nMAIL FROM:<a@b.example> SIZE=1000\r\n").await;
        assert!(said.ends_with("250 ok\r\n"), "{said}");
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_ends_after_ten_errors() {
        let (said, kept) = talk(&b"GET / HTTP/1.1\r\n".repeat(30)).await;
        assert!(said.ends_with("421 too many errors\r\n"));
        assert!(kept.is_empty());
        let (said, _) = talk(b"DATA\r\nRCPT TO:<a@b.example>\r\nMAIL x\r\nSTARTTLS\r\n").await;
        assert!(said.contains("503") && said.contains("501") && said.contains("454"));
        let (said, _) = talk(&vec![b'x'; 10_000]).await;
        assert_eq!(said, "220 mx.b.example ESMTP\r\n");
    }
}
