//! One IMAP connection: sends commands and returns what the server answered. A command that the server refuses (NO,
//! BAD) is [`ImapError::Refused`], after which the connection can be used further; any other error ends it. Every
//! answer is bounded in size and time.

use super::ImapError;
use formats::imap::{FrameReader, Response, State, Status};
use formats::limits::{IMAP_REPLY_BYTES, IMAP_TIME, INBOX_MESSAGE_TIME};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::{Instant, timeout};

/// A stream in both directions: TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection to an IMAP server.
pub(super) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    frames: FrameReader,
    last_tag: u32,
    /// Bytes that the current command may still receive.
    budget: usize,
    /// Whether the server has announced messages since the last call of [`Connection::take_news`].
    has_news: bool,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream: BufReader::with_capacity(65_536, stream),
            frames: FrameReader::default(),
            last_tag: 0,
            budget: IMAP_REPLY_BYTES,
            has_news: false,
        }
    }

    /// The stream below, for TLS. Fails if the server has sent more than was asked for: an attacker could have put
    /// responses in front of the encrypted ones (RFC 9051 §6.2.1).
    pub(super) fn into_plain(self) -> Result<Box<dyn Stream>, ImapError> {
        match self.stream.buffer().is_empty() {
            true => Ok(self.stream.into_inner()),
            false => Err(ImapError::StartTls("it sent responses before the TLS handshake".to_owned())),
        }
    }

    /// Whether the server has announced new messages since the last call.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// The next response. If none arrives within `patience`, [`ImapError::Slow`]; the next call then goes on.
    pub(super) async fn response(&mut self, patience: Duration) -> Result<Response, ImapError> {
        loop {
            let read = timeout(patience, self.stream.fill_buf()).await.map_err(|_| ImapError::Slow)?;
            let bytes = read.map_err(ImapError::Broken)?;
            if bytes.is_empty() {
                return Err(ImapError::Lost);
            }
            let (taken, frame) = self.frames.take(bytes)?;
            self.stream.consume(taken);
            self.budget = self.budget.checked_sub(taken).ok_or(ImapError::TooMuch)?;
            let Some(frame) = frame else { continue };
            match Response::parse(&frame) {
                Response::State(state) if state.status == Status::Bye => {
                    return Err(ImapError::Closed(shown(&state)));
                }
                response => {
                    self.has_news |= matches!(response, Response::Exists(_));
                    return Ok(response);
                }
            }
        }
    }

    /// Runs a command, and returns the data responses to it. `text` must not contain line ends.
    pub(super) async fn command(&mut self, text: &str) -> Result<Vec<Response>, ImapError> {
        let tag = self.start(text).await?;
        self.finish(&tag, text).await
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
        let tag = self.start(&format!("AUTHENTICATE {mechanism}{inline}")).await?;
        if !is_inline {
            self.continuation(&tag, "AUTHENTICATE").await?;
            self.write(initial).await?;
        }
        loop {
            match self.response(IMAP_TIME).await? {
                Response::Continuation(_) => self.write(answer).await?,
                Response::Done { tag: found, state } if found == tag => {
                    return ended("AUTHENTICATE", Vec::new(), state).map(drop);
                }
                _ => {}
            }
        }
    }

    /// Waits in IDLE (RFC 2177) until the server announces a message, at most for `limit`.
    pub(super) async fn idle(&mut self, limit: Duration) -> Result<(), ImapError> {
        let tag = self.start("IDLE").await?;
        self.continuation(&tag, "IDLE").await?;
        let deadline = Instant::now() + limit;
        while !self.has_news {
            self.budget = IMAP_REPLY_BYTES;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.response(left).await {
                Err(ImapError::Slow) => break,
                other => drop(other?),
            }
        }
        self.write("DONE").await?;
        self.finish(&tag, "IDLE").await.map(drop)
    }

    async fn start(&mut self, text: &str) -> Result<String, ImapError> {
        self.last_tag += 1;
        self.budget = IMAP_REPLY_BYTES;
        let tag = format!("A{:04}", self.last_tag);
        self.write(&format!("{tag} {text}")).await?;
        Ok(tag)
    }

    async fn write(&mut self, line: &str) -> Result<(), ImapError> {
        let line = format!("{line}\r\n");
        let write = async {
            self.stream.write_all(line.as_bytes()).await?;
            self.stream.flush().await
        };
        timeout(IMAP_TIME, write).await.map_err(|_| ImapError::Slow)?.map_err(ImapError::Broken)
    }

    /// Waits for the continuation of a command; if the server ends the command instead, it refuses it.
    async fn continuation(&mut self, tag: &str, word: &str) -> Result<(), ImapError> {
        loop {
            match self.response(IMAP_TIME).await? {
                Response::Continuation(_) => return Ok(()),
                Response::Done { tag: found, state } if found == tag => return Err(refused(word, &state)),
                _ => {}
            }
        }
    }

    async fn finish(&mut self, tag: &str, text: &str) -> Result<Vec<Response>, ImapError> {
        let receive = async {
            let mut data = Vec::new();
            loop {
                match self.response(IMAP_TIME).await? {
                    Response::Done { tag: found, state } if found == tag => {
                        return ended(text, data, state);
                    }
                    Response::Other => {}
                    response => data.push(response),
                }
            }
        };
        timeout(INBOX_MESSAGE_TIME, receive).await.unwrap_or(Err(ImapError::Slow))
    }
}

fn ended(text: &str, data: Vec<Response>, state: State) -> Result<Vec<Response>, ImapError> {
    match state.status {
        Status::Ok => Ok(data),
        _ => Err(refused(text, &state)),
    }
}

/// The error for a refused command. It names the command without its arguments, which may be secret.
fn refused(text: &str, state: &State) -> ImapError {
    let is_by_uid = text.starts_with("UID ");
    let command = text.split(' ').take(if is_by_uid { 2 } else { 1 }).collect::<Vec<_>>().join(" ");
    ImapError::Refused {
        command,
        text: shown(state),
        is_missing_folder: state.code_value("TRYCREATE").is_some(),
    }
}

/// Response code and text of a status, for messages: at most 200 characters, without control characters.
fn shown(state: &State) -> String {
    let code = if state.code.is_empty() { String::new() } else { format!("[{}] ", state.code) };
    code.chars().chain(state.text.chars()).filter(|character| !character.is_control()).take(200).collect()
}
