//! One IMAP connection: sends commands and returns what the server answered. A command that the server refuses (NO,
//! BAD) is [`ImapError::Refused`], after which the connection can be used further; any other error ends it.
//!
//! A server can't use up memory or time: each command has a limit of bytes and a deadline, stricter before the sign-in,
//! and of the responses only what the command asks for ([`ExpectedData`]) is kept. Texts of the server are shown without the
//! secrets that it was sent.

use super::ImapError;
use formats::imap::{Fetched, FrameReader, Response, State, Status, UidSet};
use formats::limits::{
    IMAP_CAPABILITIES, IMAP_CHALLENGES, IMAP_COMMAND_TIME, IMAP_LISTED, IMAP_REPLY_BYTES, IMAP_SIGN_IN_BYTES,
    IMAP_SIGN_IN_TIME, IMAP_TIME,
};
use net::redaction::Secrets;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::{Instant, timeout};

/// A stream in both directions: TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Characters of a server's text in a message.
pub(super) const SHOWN_CHARACTERS: usize = 200;
/// Alerts of one connection that are logged.
const MAX_ALERTS: usize = 10;

/// A connection to an IMAP server.
pub(super) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    frames: FrameReader,
    last_tag: u32,
    limits: CommandLimits,
    /// Bytes that the current command may still receive.
    budget: usize,
    /// Whether the server has announced messages since the last call of [`Connection::take_news`].
    has_news: bool,
    /// Texts that a person has to see (RFC 9051 §7.1, ALERT), and how many more are kept.
    alerts: Vec<String>,
    alerts_left: usize,
    pub(super) secrets: Secrets,
}

/// The limits of one command.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommandLimits {
    /// The maximum size of all responses to the command, in bytes.
    pub(super) bytes: usize,
    /// The time limit for one read or write.
    pub(super) read: Duration,
    /// The time limit for the command, from its beginning to the end of the answer.
    pub(super) command: Duration,
}

impl CommandLimits {
    /// The limits before the sign-in.
    pub(super) const BEFORE_SIGN_IN: Self =
        Self { bytes: IMAP_SIGN_IN_BYTES, read: IMAP_TIME, command: IMAP_SIGN_IN_TIME };
    /// The limits after the sign-in.
    pub(super) const AFTER_SIGN_IN: Self =
        Self { bytes: IMAP_REPLY_BYTES, read: IMAP_TIME, command: IMAP_COMMAND_TIME };
}

/// The responses that a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpectedData {
    Nothing,
    Capabilities,
    Namespaces,
    Mailboxes,
    Folder,
    Search,
    /// Data of the message with this UID.
    Message(u32),
}

/// What a server answered, as far as it was [`ExpectedData`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) capabilities: BTreeSet<String>,
    /// The prefixes of the first NAMESPACE response.
    pub(super) namespaces: Option<Vec<String>>,
    /// The names of folders that can be selected, as the server sent them; at most [`IMAP_LISTED`].
    pub(super) mailboxes: Vec<String>,
    /// The folder's `UIDVALIDITY` (RFC 9051 §2.3.1.1).
    pub(super) validity: Option<u32>,
    /// The folder's `PERMANENTFLAGS` (RFC 9051 §7.1), with the parentheses.
    pub(super) permanent_flags: Option<String>,
    /// The UIDs of all SEARCH responses; `None` without any.
    pub(super) found: Option<UidSet>,
    /// The data of the message, from all its FETCH responses; `None` without any.
    pub(super) message: Option<Fetched>,
}

impl Data {
    /// Keeps what is wanted of a response.
    fn keep(&mut self, expected: ExpectedData, response: Response) {
        match (expected, response) {
            (ExpectedData::Capabilities, Response::Capabilities(listed)) => {
                let room = IMAP_CAPABILITIES.saturating_sub(self.capabilities.len());
                self.capabilities.extend(listed.into_iter().take(room));
            }
            (ExpectedData::Namespaces, Response::Namespaces(listed)) => {
                self.namespaces.get_or_insert(listed);
            }
            (ExpectedData::Mailboxes, Response::Mailbox { name, is_selectable: true })
                if self.mailboxes.len() < IMAP_LISTED =>
            {
                self.mailboxes.push(name);
            }
            (ExpectedData::Folder, Response::State(state)) if state.status == Status::Ok => {
                if let Some(validity) = state.code_value("UIDVALIDITY") {
                    self.validity = validity.trim().parse().ok();
                }
                if let Some(flags) = state.code_value("PERMANENTFLAGS") {
                    self.permanent_flags = Some(flags.to_owned());
                }
            }
            (ExpectedData::Search, Response::Search(found)) => self.found.get_or_insert_default().join(found),
            // The server may add responses about flags of the same message.
            (ExpectedData::Message(uid), Response::Fetch(fetched)) if fetched.uid == Some(uid) => {
                let message = self.message.get_or_insert_default();
                message.uid = Some(uid);
                message.size = message.size.or(fetched.size);
                message.body = message.body.take().or(fetched.body);
            }
            _ => {}
        }
    }
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>, secrets: Secrets, limits: CommandLimits) -> Self {
        Self {
            stream: BufReader::with_capacity(65_536, stream),
            frames: FrameReader::default(),
            last_tag: 0,
            limits,
            budget: limits.bytes,
            has_news: false,
            alerts: Vec::new(),
            alerts_left: MAX_ALERTS,
            secrets,
        }
    }

    /// Changes the limits, from the next command on.
    pub(super) fn set_limits(&mut self, limits: CommandLimits) {
        self.limits = limits;
    }

    /// The stream below, for TLS. Fails if the server has sent more than was asked for: an attacker could have put
    /// responses in front of the encrypted ones (RFC 9051 §6.2.1).
    pub(super) fn into_plain(self) -> Result<Box<dyn Stream>, ImapError> {
        match self.stream.buffer().is_empty() {
            true => Ok(self.stream.into_inner()),
            false => {
                Err(ImapError::StartTls("the server sent responses before the TLS handshake".to_owned()))
            }
        }
    }

    /// Whether the server has announced new messages since the last call.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// The alerts of the server since the last call.
    pub(super) fn take_alerts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.alerts)
    }

    /// Reads the greeting.
    pub(super) async fn greeting(&mut self) -> Result<State, ImapError> {
        let deadline = Instant::now() + self.limits.command;
        match self.response(deadline, self.limits.read).await? {
            Response::State(state) => Ok(state),
            _ => Err(ImapError::Greeting),
        }
    }

    /// The next response. [`ImapError::Slow`] at the deadline, even if the server still sends, or if it sends nothing for
    /// as long as `patience`; a further call goes on.
    async fn response(&mut self, deadline: Instant, patience: Duration) -> Result<Response, ImapError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ImapError::Slow);
            }
            let read = timeout(patience.min(left), self.stream.fill_buf()).await;
            let bytes = read.map_err(|_| ImapError::Slow)?.map_err(ImapError::Broken)?;
            if bytes.is_empty() {
                return Err(ImapError::Lost);
            }
            let (taken, frame) = self.frames.take(bytes)?;
            self.stream.consume(taken);
            self.budget =
                self.budget.checked_sub(taken).ok_or(ImapError::TooMuch { bytes: self.limits.bytes })?;
            let Some(frame) = frame else { continue };
            let response = Response::parse(&frame);
            match &response {
                Response::State(state) if state.status == Status::Bye => {
                    return Err(ImapError::Closed(self.shown(state)));
                }
                Response::State(state) if state.code_value("ALERT").is_some() => self.alert(state),
                Response::Exists(_) => self.has_news = true,
                _ => {}
            }
            return Ok(response);
        }
    }

    fn alert(&mut self, state: &State) {
        if let Some(left) = self.alerts_left.checked_sub(1) {
            self.alerts_left = left;
            self.alerts.push(self.secrets.shown(&state.text, SHOWN_CHARACTERS));
        }
    }

    /// Runs a command, and returns what is wanted of the responses to it. `text` must not contain line ends.
    pub(super) async fn command(&mut self, text: &str, expected: ExpectedData) -> Result<Data, ImapError> {
        let (tag, deadline) = self.start(text).await?;
        self.finish(&tag, text, expected, deadline).await
    }

    /// Runs AUTHENTICATE with an initial response. If the server sends a challenge with it, `answer` is the response to
    /// that, and an error text is in the challenge.
    pub(super) async fn authenticate(
        &mut self,
        mechanism: &str,
        initial: &str,
        is_inline: bool,
        answer: &str,
    ) -> Result<(), ImapError> {
        let inline = if is_inline { format!(" {initial}") } else { String::new() };
        let (tag, deadline) = self.start(&format!("AUTHENTICATE {mechanism}{inline}")).await?;
        if !is_inline {
            self.continuation(&tag, "AUTHENTICATE", deadline).await?;
            self.write(initial).await?;
        }
        let mut challenges = 0;
        loop {
            match self.response(deadline, self.limits.read).await? {
                Response::Continuation(_) if challenges == IMAP_CHALLENGES => {
                    return Err(ImapError::SignIn("it sends one challenge after the other".to_owned()));
                }
                Response::Continuation(_) => {
                    challenges += 1;
                    self.write(answer).await?;
                }
                Response::Done { tag: found, state } if found == tag => {
                    return self.ended("AUTHENTICATE", &state);
                }
                _ => {}
            }
        }
    }

    /// Waits in IDLE (RFC 2177) until the server announces a message, at most for `limit`.
    pub(super) async fn idle(&mut self, limit: Duration) -> Result<(), ImapError> {
        let (tag, deadline) = self.start("IDLE").await?;
        self.continuation(&tag, "IDLE", deadline).await?;
        let until = Instant::now() + limit;
        while !self.has_news {
            // Each response may be as long as those to a command, since IDLE may last for hours.
            self.budget = self.limits.bytes;
            match self.response(until, limit).await {
                Err(ImapError::Slow) => break,
                // Some servers end it by themselves.
                Ok(Response::Done { tag: found, state }) if found == tag => {
                    return self.ended("IDLE", &state);
                }
                other => drop(other?),
            }
        }
        self.budget = self.limits.bytes;
        self.write("DONE").await?;
        let deadline = Instant::now() + self.limits.command;
        self.finish(&tag, "IDLE", ExpectedData::Nothing, deadline).await.map(drop)
    }

    /// Sends a command. Returns its tag, and the deadline of its answer.
    async fn start(&mut self, text: &str) -> Result<(String, Instant), ImapError> {
        self.last_tag += 1;
        self.budget = self.limits.bytes;
        let tag = format!("A{:04}", self.last_tag);
        let deadline = Instant::now() + self.limits.command;
        self.write(&format!("{tag} {text}")).await?;
        Ok((tag, deadline))
    }

    async fn write(&mut self, line: &str) -> Result<(), ImapError> {
        let line = format!("{line}\r\n");
        let write = async {
            self.stream.write_all(line.as_bytes()).await?;
            self.stream.flush().await
        };
        timeout(self.limits.read, write).await.map_err(|_| ImapError::Slow)?.map_err(ImapError::Broken)
    }

    /// Waits for the continuation of a command; if the server ends the command instead, it refuses it.
    async fn continuation(&mut self, tag: &str, word: &str, deadline: Instant) -> Result<(), ImapError> {
        loop {
            match self.response(deadline, self.limits.read).await? {
                Response::Continuation(_) => return Ok(()),
                Response::Done { tag: found, state } if found == tag => {
                    return Err(self.refused(word, &state));
                }
                _ => {}
            }
        }
    }

    async fn finish(
        &mut self,
        tag: &str,
        text: &str,
        expected: ExpectedData,
        deadline: Instant,
    ) -> Result<Data, ImapError> {
        let mut data = Data::default();
        loop {
            match self.response(deadline, self.limits.read).await? {
                Response::Done { tag: found, state } if found == tag => {
                    return self.ended(text, &state).map(|()| data);
                }
                response => data.keep(expected, response),
            }
        }
    }

    fn ended(&self, text: &str, state: &State) -> Result<(), ImapError> {
        match state.status {
            Status::Ok => Ok(()),
            _ => Err(self.refused(text, state)),
        }
    }

    /// The error for a refused command. It names the command without its arguments, which may be secret.
    fn refused(&self, text: &str, state: &State) -> ImapError {
        let is_by_uid = text.starts_with("UID ");
        let command = text.split(' ').take(if is_by_uid { 2 } else { 1 }).collect::<Vec<_>>().join(" ");
        ImapError::Refused {
            command,
            text: self.shown(state),
            is_missing_folder: state.code_value("TRYCREATE").is_some(),
        }
    }

    /// Response code and text of a status, for messages.
    fn shown(&self, state: &State) -> String {
        let code = if state.code.is_empty() { String::new() } else { format!("[{}] ", state.code) };
        self.secrets.shown(&format!("{code}{}", state.text), SHOWN_CHARACTERS)
    }
}

#[cfg(test)]
mod tests;
