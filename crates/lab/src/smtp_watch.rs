//! Observes an SMTP session from the side of the lab's mail server: the client's commands, its ClientHello, how the
//! handshake ended, and whether a message was accepted. The steps go into a [`Traffic`].

use crate::man_in_the_middle::client_hello;
use crate::traffic::{Mail, MailStep, Observed, Traffic};
use net::BoxFuture;
use net::smtp::server::{AnyStream, Incoming, KeepError, Mailbox, Upgrade};
use std::io::{self, Cursor};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The maximum length of a command in the record; the rest of the line is left out.
const MAX_COMMAND: usize = 200;

/// One observed session. Its end is recorded when the last part of it is dropped.
pub(crate) struct SmtpWatch {
    traffic: Traffic,
    client: IpAddr,
    host: String,
    session: u64,
}

impl SmtpWatch {
    pub(crate) fn new(traffic: Traffic, client: IpAddr, host: String, session: u64) -> Self {
        let this = Self { traffic, client, host, session };
        this.step(MailStep::Connected);
        this
    }

    fn step(&self, step: MailStep) {
        let mail = Mail { host: self.host.clone(), session: self.session, step };
        self.traffic.record(self.client, Observed::Mail(mail));
    }

    /// The same upgrade, observed.
    pub(crate) fn upgrade(self: &Arc<Self>, inner: Arc<dyn Upgrade>) -> Arc<dyn Upgrade> {
        Arc::new(WatchedUpgrade { inner, watch: self.clone() })
    }
}

impl Drop for SmtpWatch {
    fn drop(&mut self) {
        self.step(MailStep::Closed);
    }
}

struct WatchedUpgrade {
    inner: Arc<dyn Upgrade>,
    watch: Arc<SmtpWatch>,
}

impl Upgrade for WatchedUpgrade {
    fn upgrade(&self, mut stream: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>> {
        Box::pin(async move {
            let (hello, name) = client_hello(&mut stream).await?;
            self.watch.step(MailStep::Hello(name));
            let (reader, writer) = tokio::io::split(stream);
            let stream = tokio::io::join(Cursor::new(hello).chain(reader), writer);
            match self.inner.upgrade(Box::new(stream)).await {
                Ok(stream) => {
                    self.watch.step(MailStep::Secured);
                    Ok(watch(stream, Some(self.watch.clone()), true))
                }
                Err(error) => {
                    self.watch.step(MailStep::HandshakeFailed(error.to_string()));
                    Err(error)
                }
            }
        })
    }
}

/// A mailbox whose accepted messages are recorded.
pub(crate) struct WatchedMailbox<'m> {
    inner: &'m dyn Mailbox,
    watch: Option<Arc<SmtpWatch>>,
}

impl<'m> WatchedMailbox<'m> {
    pub(crate) fn new(inner: &'m dyn Mailbox, watch: Option<&Arc<SmtpWatch>>) -> Self {
        Self { inner, watch: watch.cloned() }
    }
}

impl Mailbox for WatchedMailbox<'_> {
    fn is_welcome(&self) -> bool {
        self.inner.is_welcome()
    }

    fn takes(&self, recipient: &str) -> bool {
        self.inner.takes(recipient)
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        Box::pin(async move {
            let step = MailStep::Delivered {
                from: incoming.from.clone(),
                to: incoming.to.clone(),
                tls: incoming.tls,
            };
            let outcome = self.inner.keep(incoming).await;
            if let (Ok(()), Some(watch)) = (&outcome, &self.watch) {
                watch.step(step);
            }
            outcome
        })
    }
}

/// The stream with the client's commands recorded; the stream itself if nobody observes.
pub(crate) fn watch(stream: AnyStream, watch: Option<Arc<SmtpWatch>>, tls: bool) -> AnyStream {
    match watch {
        Some(watch) => Box::new(Tap { stream, watch, tls, line: Vec::new(), part: Part::Commands }),
        None => stream,
    }
}

/// What the client is sending.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Commands,
    /// The message after DATA, up to the line with a period.
    Message,
    /// A TLS handshake.
    Tls,
}

struct Tap {
    stream: AnyStream,
    watch: Arc<SmtpWatch>,
    tls: bool,
    line: Vec<u8>,
    part: Part,
}

impl Tap {
    fn byte(&mut self, byte: u8) {
        match byte {
            // The first byte of a handshake record (RFC 8446 §5.1).
            22 if self.line.is_empty() && self.part == Part::Commands && !self.tls => self.part = Part::Tls,
            b'\n' => self.end_of_line(),
            _ if self.line.len() < MAX_COMMAND => self.line.push(byte),
            _ => {}
        }
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii_end();
        match self.part {
            Part::Message if line == b"." => self.part = Part::Commands,
            Part::Commands => {
                if line.eq_ignore_ascii_case(b"DATA") {
                    self.part = Part::Message;
                }
                let text = String::from_utf8_lossy(line).escape_debug().to_string();
                self.watch.step(MailStep::Command { line: text, tls: self.tls });
            }
            Part::Message | Part::Tls => {}
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        for byte in buf.filled().get(before..).unwrap_or_default() {
            if self.part == Part::Tls {
                break;
            }
            self.byte(*byte);
        }
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
