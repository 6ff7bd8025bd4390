//! A minimal SMTP and LMTP server for the report inbox and the lab (RFC 5321, RFC 3207, RFC 2033). It supports EHLO,
//! STARTTLS and message delivery to a [`Mailbox`], with limits on size, time and number. It does not relay mail.
//!
//! Lines end in CRLF only: a bare LF ends neither a command nor the data, and is refused with 550, so that no server in
//! front of this one sees other message boundaries ("SMTP smuggling"). The memory for messages comes from one
//! [`MemoryBudget`] for all sessions; a message that does not fit is refused with 452.
//!
//! A session that stores no message is ended with 421 after a number of commands, a number of refused ones, or a time
//! (RFC 5321 §3.8), so that a client can't hold a connection for nothing. A client that does not read its replies is
//! disconnected.

mod data;

use crate::BoxFuture;
use crate::memory_budget::{MemoryBudget, Reservation};
use data::{Data, DataError, DataReader};
use formats::DomainName;
use formats::limits::{
    INBOX_BAD_COMMANDS, INBOX_BUFFER_BYTES, INBOX_COMMANDS, INBOX_IDLE_TIME, INBOX_LINE_BYTES,
    INBOX_MESSAGE_BYTES, INBOX_MESSAGE_TIME, INBOX_MESSAGES, INBOX_SESSION_TIME, INBOX_SMALL_BYTES,
    SMTP_COMMAND_BYTES, SMTP_REPLY_TIME,
};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// A stream that an SMTP session can run on.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A boxed [`Stream`], either plaintext or TLS.
pub type AnyStream = Box<dyn Stream>;

/// Upgrades a plaintext stream to TLS after STARTTLS.
pub trait Upgrade: Send + Sync {
    /// Performs the TLS handshake as a server.
    fn upgrade(&self, stream: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>>;
}

impl Upgrade for tokio_rustls::TlsAcceptor {
    fn upgrade(&self, stream: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>> {
        let accept = self.accept(stream);
        Box::pin(async move { Ok(Box::new(accept.await?) as AnyStream) })
    }
}

/// How a server handles STARTTLS.
#[derive(Clone)]
pub enum Starttls {
    /// STARTTLS is not offered.
    Absent,
    /// STARTTLS is offered but answered with 454, as by a server that can't load its certificate.
    Unavailable,
    /// STARTTLS is offered and performed.
    Offered(Arc<dyn Upgrade>),
}

/// A received message that has not been acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The envelope sender from `MAIL FROM`, empty for bounces.
    pub from: String,
    /// The accepted recipients from `RCPT TO`.
    pub to: Vec<String>,
    /// The message with CRLF line endings.
    pub message: Vec<u8>,
    /// True when the message was received over TLS.
    pub tls: bool,
}

/// Decides which recipients exist, and stores messages.
pub trait Mailbox: Send + Sync {
    /// False when the client has reached its rate limit; `MAIL` is then answered with 450.
    fn is_welcome(&self) -> bool {
        true
    }
    /// True when mail for this recipient is accepted; otherwise `RCPT` is answered with 550.
    fn takes(&self, recipient: &str) -> bool;
    /// Stores a message. The server replies 250 only after `Ok`.
    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>>;
}

/// Why a message was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// A temporary failure: the client should retry (451).
    #[error("{0}")]
    Temporary(String),
    /// A permanent failure: the client must not retry (554).
    #[error("{0}")]
    Permanent(String),
}

/// The configuration of a server.
#[derive(Clone)]
pub struct ServerConfig {
    /// The host name in the greeting and in the reply to EHLO.
    pub hostname: DomainName,
    /// How STARTTLS is handled.
    pub starttls: Starttls,
    /// How long one command may take to arrive, the next piece of a message, a reply to be read, and the TLS handshake.
    pub line_time: Duration,
    /// How long a session may last without a message that is stored.
    pub idle_time: Duration,
    /// The protocol, SMTP or LMTP.
    pub protocol: Protocol,
    /// The memory for messages that are being received, over all sessions.
    pub memory: MemoryBudget,
}

/// The protocol: SMTP, or LMTP, which has another greeting and one reply for each recipient after the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP between mail servers (RFC 5321).
    Smtp,
    /// LMTP from a mail server to a mailbox (RFC 2033).
    Lmtp,
}

impl ServerConfig {
    /// The default configuration: SMTP, with [`SMTP_REPLY_TIME`] and [`INBOX_IDLE_TIME`] as the time limits, and
    /// [`INBOX_BUFFER_BYTES`] of memory for messages.
    pub fn new(hostname: DomainName, starttls: Starttls) -> Self {
        let memory = MemoryBudget::new(INBOX_BUFFER_BYTES, INBOX_SMALL_BYTES);
        let (line_time, idle_time) = (SMTP_REPLY_TIME, INBOX_IDLE_TIME);
        Self { hostname, starttls, line_time, idle_time, protocol: Protocol::Smtp, memory }
    }
}

/// Runs one session to its end, within [`INBOX_SESSION_TIME`]. An error means that the connection failed or timed out.
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

/// Declines a connection with 421 and a reason, so that the client tries again later (RFC 5321 §3.1).
pub fn decline<'a>(
    stream: AnyStream,
    config: &'a ServerConfig,
    why: &'a str,
) -> BoxFuture<'a, io::Result<()>> {
    Box::pin(async move { Session::new(stream, config, false).reply(&format!("421 {why}")).await })
}

async fn talk(stream: AnyStream, config: &ServerConfig, mailbox: &dyn Mailbox) -> io::Result<()> {
    let mut session = Session::new(stream, config, false);
    let word = if config.protocol == Protocol::Lmtp { "LMTP" } else { "ESMTP" };
    session.reply(&format!("220 {} {word}", config.hostname)).await?;
    let mut idle = Idle::new(config);
    let mut messages = 0;
    loop {
        let line = match session.line(idle.until).await? {
            Line::Command(line) => Some(line),
            Line::BareLf => None,
            Line::TooLong => return session.reply("500 5.5.2 line too long").await,
            Line::Late => return session.reply("421 4.4.2 timeout").await,
            Line::Closed => return Ok(()),
        };
        idle.commands += 1;
        if idle.commands > INBOX_COMMANDS {
            return session.reply("421 4.7.0 too many commands without a message").await;
        }
        let text = line.as_ref().map(|line| String::from_utf8_lossy(line).into_owned()).unwrap_or_default();
        let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let outcome = match verb.to_ascii_uppercase().as_str() {
            _ if line.is_none() => session.refuse("550 5.5.2 bare <LF> received").await?,
            "QUIT" => return session.reply("221 bye").await,
            "STARTTLS" => match session.starttls().await? {
                Some(upgraded) => {
                    session = upgraded;
                    Ok(())
                }
                None => Err(()),
            },
            "DATA" if messages == INBOX_MESSAGES => {
                return session.reply("421 too many messages in one session").await;
            }
            "DATA" => {
                messages += 1;
                let outcome = session.data(mailbox).await?;
                if outcome.is_ok() {
                    idle = Idle::new(config);
                }
                outcome
            }
            other => session.simple(other, rest, mailbox).await?,
        };
        idle.refused += usize::from(outcome.is_err());
        if idle.refused > INBOX_BAD_COMMANDS {
            return session.reply("421 too many errors").await;
        }
    }
}

/// What a session did since its last message that was stored.
struct Idle {
    commands: usize,
    /// Commands that were refused.
    refused: usize,
    /// When the session ends unless a message is stored.
    until: Instant,
}

impl Idle {
    fn new(config: &ServerConfig) -> Self {
        Self { commands: 0, refused: 0, until: Instant::now() + config.idle_time }
    }
}

/// A line from the client, where a command was expected.
enum Line {
    Command(Vec<u8>),
    /// The line ends in LF without CR.
    BareLf,
    /// The line is longer than [`SMTP_COMMAND_BYTES`].
    TooLong,
    /// The line was not complete in time.
    Late,
    /// The client has closed the connection.
    Closed,
}

/// The result of reading from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    More,
    Late,
    Closed,
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
    fn new(stream: AnyStream, config: &'c ServerConfig, tls: bool) -> Self {
        Self { stream, buffer: Vec::new(), config, tls, envelope: None }
    }

    /// Sends a reply. An error if the client does not read it in time.
    async fn reply(&mut self, line: &str) -> io::Result<()> {
        let text = format!("{line}\r\n");
        let write = async {
            self.stream.write_all(text.as_bytes()).await?;
            self.stream.flush().await
        };
        let written = tokio::time::timeout(self.config.line_time, write).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn refuse(&mut self, line: &str) -> io::Result<Result<(), ()>> {
        self.reply(line).await?;
        Ok(Err(()))
    }

    /// Reads one command line without its line ending, until `until` and at most for `line_time`.
    async fn line(&mut self, until: Instant) -> io::Result<Line> {
        let deadline = until.min(Instant::now() + self.config.line_time);
        loop {
            if Instant::now() >= until {
                return Ok(Line::Late);
            }
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(match line.strip_suffix(b"\r\n") {
                    _ if line.len() > SMTP_COMMAND_BYTES => Line::TooLong,
                    Some(line) => Line::Command(line.trim_ascii_end().to_vec()),
                    None => Line::BareLf,
                });
            }
            if self.buffer.len() > SMTP_COMMAND_BYTES {
                return Ok(Line::TooLong);
            }
            match self.read_more(deadline).await? {
                Input::More => {}
                Input::Late => return Ok(Line::Late),
                Input::Closed => return Ok(Line::Closed),
            }
        }
    }

    /// Reads more input into the buffer.
    async fn read_more(&mut self, deadline: Instant) -> io::Result<Input> {
        let mut chunk = [0; 4096];
        let read = tokio::time::timeout_at(deadline, self.stream.read(&mut chunk));
        let Ok(count) = read.await else { return Ok(Input::Late) };
        let count = count?;
        self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(if count > 0 { Input::More } else { Input::Closed })
    }

    /// Handles the commands that do not change the stream.
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
                let size = announced_size(rest).unwrap_or_default();
                if size > INBOX_MESSAGE_BYTES {
                    return self.refuse("552 message size exceeds the limit").await;
                }
                if !self.config.memory.has_room_for(size) {
                    return self.refuse(NO_ROOM).await;
                }
                self.envelope = Some(Envelope { from, to: Vec::new() });
                self.reply("250 ok").await?;
            }
            "RCPT" => return self.recipient(rest, mailbox).await,
            _ => return self.refuse("502 command not implemented").await,
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
        let Some(envelope) = self.envelope.as_mut() else {
            return self.refuse("503 need MAIL before RCPT").await;
        };
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

    /// Performs STARTTLS and returns the session over TLS; `None` when STARTTLS was rejected. Plaintext sent after the
    /// STARTTLS command is discarded with the old session (CVE-2011-0411).
    async fn starttls(&mut self) -> io::Result<Option<Session<'c>>> {
        let upgrade = match &self.config.starttls {
            Starttls::Offered(upgrade) if !self.tls => upgrade.clone(),
            Starttls::Absent | Starttls::Offered(_) => {
                return self.reply("502 command not implemented").await.map(|()| None);
            }
            Starttls::Unavailable => return self.reply("454 TLS not available").await.map(|()| None),
        };
        self.reply("220 go ahead").await?;
        let (unused, _) = tokio::io::duplex(1);
        let stream = std::mem::replace(&mut self.stream, Box::new(unused));
        let handshake = tokio::time::timeout(self.config.line_time, upgrade.upgrade(stream));
        let stream = handshake.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(Some(Session::new(stream, self.config, true)))
    }

    async fn data(&mut self, mailbox: &dyn Mailbox) -> io::Result<Result<(), ()>> {
        let ready = self.envelope.take().filter(|envelope| !envelope.to.is_empty());
        let Some(envelope) = ready else { return self.refuse("503 need RCPT before DATA").await };
        if !self.config.memory.has_room_for(data::FIRST_BUFFER) {
            return self.refuse(NO_ROOM).await;
        }
        self.reply("354 go ahead").await?;
        let replies = if self.config.protocol == Protocol::Lmtp { envelope.to.len() } else { 1 };
        let message = tokio::time::timeout(INBOX_MESSAGE_TIME, self.message()).await;
        let Some(message) = message.unwrap_or(Ok(None))? else {
            self.reply("421 4.4.2 timeout").await?;
            return Err(io::ErrorKind::TimedOut.into());
        };
        let (reply, outcome) = match message {
            Err(error) => (refusal(error), Err(())),
            Ok((message, _reservation)) => {
                let incoming = Incoming { from: envelope.from, to: envelope.to, message, tls: self.tls };
                match mailbox.keep(incoming).await {
                    Ok(()) => ("250 kept".to_owned(), Ok(())),
                    Err(KeepError::Temporary(why)) => (format!("451 {}", one_line(&why)), Err(())),
                    Err(KeepError::Permanent(why)) => (format!("554 {}", one_line(&why)), Err(())),
                }
            }
        };
        let replies = vec![reply; replies];
        self.reply(&replies.join("\r\n")).await?;
        Ok(outcome)
    }

    /// Reads a message up to the final dot; `None` if no more of it arrived in time. The reservation is for the message's
    /// memory, until it is stored.
    async fn message(&mut self) -> io::Result<Option<Result<(Vec<u8>, Reservation), DataError>>> {
        let mut reader = DataReader::new(self.config.memory.reservation());
        let mut on_end = 0;
        loop {
            match reader.take(&self.buffer) {
                Data::More => {
                    on_end += self.buffer.len();
                    if on_end > BYTES_ON_END {
                        on_end = 0;
                        tokio::task::yield_now().await;
                    }
                    self.buffer.clear();
                    match self.read_more(Instant::now() + self.config.line_time).await? {
                        Input::More => {}
                        Input::Late => return Ok(None),
                        Input::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
                    }
                }
                Data::End(length) => {
                    self.buffer.drain(..length);
                    return Ok(Some(reader.finish()));
                }
            }
        }
    }
}

/// The bytes of a message that a session reads on end, before others have their turn: an answer to a mail server does not
/// wait for those who send large messages as fast as they can.
const BYTES_ON_END: usize = 32_768;

/// The reply when the memory for messages is in use.
const NO_ROOM: &str = "452 4.3.1 too many messages are being received, try again later";

fn refusal(error: DataError) -> String {
    match error {
        DataError::TooLarge => "552 message size exceeds the limit".to_owned(),
        DataError::LongLine => format!("554 5.6.0 a line is longer than {INBOX_LINE_BYTES} bytes"),
        DataError::BareLf => "550 5.5.2 bare <LF> received".to_owned(),
        DataError::NoRoom => NO_ROOM.to_owned(),
    }
}

/// The address in angle brackets after `FROM:` or `TO:`.
fn path(rest: &str, word: &str) -> Option<String> {
    let head = rest.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word))?;
    let rest = rest.get(head.len()..)?.trim_start().strip_prefix('<')?;
    rest.split_once('>').map(|(address, _)| address.to_owned())
}

/// The value of the `SIZE=` parameter of `MAIL`, in bytes (RFC 1870).
fn announced_size(rest: &str) -> Option<usize> {
    let words = rest.split_ascii_whitespace().skip(1);
    words
        .filter_map(|word| word.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("SIZE"))?
        .1
        .parse()
        .ok()
}

/// Replaces control characters and limits the length, so that the text fits into one reply line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests;
