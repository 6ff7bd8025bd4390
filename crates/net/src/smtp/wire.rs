//! Reads SMTP replies from a stream and writes commands and message text, with limits on size and time (RFC 5321 §4.2,
//! §4.5). The SMTP client in [`super::client`] is built on it.

use crate::redaction::Secrets;
use formats::limits::{SMTP_LINE_BYTES, SMTP_REPLY_LINES};
use std::fmt;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// An SMTP reply of one or more lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The reply code, from 200 to 599.
    pub code: u16,
    /// The text of each line, without the code.
    pub lines: Vec<String>,
}

impl Reply {
    /// True for the reply codes 2xx and 3xx.
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" / "))
    }
}

/// Why no reply could be read, or nothing could be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The host closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The time limit passed without a complete reply.
    #[error("no answer within {} seconds", .0.as_secs())]
    Time(Duration),
    /// The host sent something other than an SMTP reply; its first 80 characters.
    #[error("not an SMTP reply: {0:?}")]
    NotSmtp(String),
    /// A line or reply exceeded the limit.
    #[error("a reply line over {SMTP_LINE_BYTES} bytes or a reply over {SMTP_REPLY_LINES} lines")]
    TooLong,
    /// An I/O error on the connection.
    #[error("{0}")]
    Io(String),
}

/// Parses one line of a reply into the code, whether more lines follow, and the text.
pub(super) fn reply_line(line: &str) -> Option<(u16, bool, &str)> {
    let code = line.get(..3)?;
    let code: u16 = code.bytes().all(|b| b.is_ascii_digit()).then(|| code.parse().ok())??;
    let more = match line.as_bytes().get(3) {
        None | Some(b' ') => false,
        Some(b'-') => true,
        Some(_) => return None,
    };
    (200..600).contains(&code).then(|| (code, more, line.get(4..).unwrap_or_default()))
}

/// A stream with a buffer of bytes that were read but not yet parsed. `time` limits each reply and each write. Replies
/// and errors are without the secrets that were sent.
pub(super) struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
    time: Duration,
    pub(super) secrets: Secrets,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, time: Duration) -> Self {
        Self { stream, buffer: Vec::new(), time, secrets: Secrets::default() }
    }

    /// Returns the stream, and true when bytes after the last reply were already read.
    pub(super) fn into_stream(self) -> (S, bool) {
        (self.stream, !self.buffer.is_empty())
    }

    pub(super) async fn reply(&mut self) -> Result<Reply, WireError> {
        let time = self.time;
        tokio::time::timeout(time, self.read_reply()).await.unwrap_or(Err(WireError::Time(time)))
    }

    async fn read_reply(&mut self) -> Result<Reply, WireError> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            let (code, more, text) = reply_line(&line)
                .ok_or_else(|| WireError::NotSmtp(self.secrets.redacted(&line).chars().take(80).collect()))?;
            lines.push(self.secrets.redacted(text));
            if !more {
                return Ok(Reply { code, lines });
            }
            if lines.len() >= SMTP_REPLY_LINES {
                return Err(WireError::TooLong);
            }
        }
    }

    async fn line(&mut self) -> Result<String, WireError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            if self.buffer.len() > SMTP_LINE_BYTES {
                return Err(WireError::TooLong);
            }
            let mut chunk = [0; 1024];
            let count =
                self.stream.read(&mut chunk).await.map_err(|error| WireError::Io(error.to_string()))?;
            if count == 0 {
                return Err(WireError::Closed);
            }
            self.buffer.extend(chunk.iter().take(count));
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let time = self.time;
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(time, write).await {
            Ok(outcome) => outcome.map_err(|error| WireError::Io(error.to_string())),
            Err(_) => Err(WireError::Time(time)),
        }
    }
}

/// Encodes message text for DATA: CRLF line endings, leading dots doubled, and the final dot (RFC 5321 §4.5.2).
pub(super) fn data(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    let message = message.strip_suffix(b"\n").unwrap_or(message);
    for line in message.split(|b| *b == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reply_lines_are_code_separator_and_text() {
        assert_eq!(reply_line("250-SIZE 1"), Some((250, true, "SIZE 1")));
        assert_eq!(reply_line("220 ready"), Some((220, false, "ready")));
        assert_eq!(reply_line("354"), Some((354, false, "")));
        for bad in ["", "25", "2500", "25x ok", "250_ok", "199 no", "999 no", "+25 a", "HTTP/1.1 400"] {
            assert_eq!(reply_line(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn data_doubles_dots_and_normalizes_line_endings() {
        assert_eq!(data(b"a\n.b\r\n..\n"), b"a\r\n..b\r\n...\r\n.\r\n");
        assert_eq!(data(b"."), b"..\r\n.\r\n");
    }

    proptest! {
        #[test]
        fn no_message_ends_data_early(message in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60)) {
            let sent = data(&message);
            let end = sent.windows(5).position(|part| part == b"\r\n.\r\n");
            prop_assert!(end.is_none_or(|at| at + 5 == sent.len()));
        }

        #[test]
        fn any_line_is_parsed_without_panic(line in "\\PC{0,30}") {
            let _ = reply_line(&line);
        }
    }

    #[tokio::test]
    async fn a_reply_that_repeats_a_secret_is_returned_without_it_wherever_it_is_cut() {
        let secret = "AHVzZXIAY29ycmVjdC1ob3JzZQ==";
        for before in 0..90 {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            let padding = "x".repeat(before);
            far.write_all(format!("535 {padding}{secret} no\r\n{padding}{secret}\r\n").as_bytes())
                .await
                .unwrap();
            let mut wire = Wire::new(near, Duration::from_secs(5));
            wire.secrets.remember(secret);
            assert_eq!(wire.reply().await.unwrap().to_string(), format!("535 {padding}… no"));
            let error = wire.reply().await.unwrap_err().to_string();
            let leaks =
                secret.as_bytes().windows(8).any(|part| error.as_bytes().windows(8).any(|at| at == part));
            assert!(!leaks, "{error}");
        }
    }

    #[tokio::test]
    async fn endless_replies_and_lines_are_cut_off() {
        let many = "250-x\r\n".repeat(SMTP_REPLY_LINES + 1);
        let long = vec![b'2'; SMTP_LINE_BYTES * 2];
        for bytes in [many.as_bytes(), &long] {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            far.write_all(bytes).await.unwrap();
            let mut wire = Wire::new(near, Duration::from_secs(5));
            assert_eq!(wire.reply().await, Err(WireError::TooLong));
        }
    }
}
