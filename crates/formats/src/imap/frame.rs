//! Cuts the bytes of a connection into responses. A response is a line; a line that ends with `{length}` continues with
//! as many bytes, and then with a further line (RFC 9051 §4.3).

use crate::limits::{IMAP_LINE_BYTES, IMAP_RESPONSE_BYTES};

/// Collects one response from pieces of any size.
#[derive(Debug, Default)]
pub struct FrameReader {
    frame: Vec<u8>,
    /// Where the current line begins in `frame`.
    line_start: usize,
    /// How many bytes of a literal are still to come.
    literal_left: usize,
}

/// Why a response can't be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A line is longer than [`IMAP_LINE_BYTES`].
    #[error("a line of the response is longer than {IMAP_LINE_BYTES} bytes")]
    Line,
    /// The response is larger than [`IMAP_RESPONSE_BYTES`].
    #[error("the response is larger than {IMAP_RESPONSE_BYTES} bytes")]
    Response,
}

impl FrameReader {
    /// Takes the beginning of `bytes` and returns how many bytes it took, and the response if it is complete. The
    /// response has no line end.
    ///
    /// # Errors
    ///
    /// If a limit is exceeded. The connection can't be used any more.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), FrameError> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            if self.literal_left > 0 {
                let part = rest.get(..self.literal_left).unwrap_or(rest);
                self.frame.extend_from_slice(part);
                self.literal_left -= part.len();
                taken += part.len();
                self.line_start = self.frame.len();
                continue;
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            let part = end.map_or(rest, |end| rest.get(..=end).unwrap_or(rest));
            if self.frame.len() - self.line_start + part.len() > IMAP_LINE_BYTES {
                return Err(FrameError::Line);
            }
            self.frame.extend_from_slice(part);
            taken += part.len();
            if end.is_some() && !self.continues()? {
                let mut frame = std::mem::take(self).frame;
                frame.truncate(frame.trim_ascii_end().len());
                return Ok((taken, Some(frame)));
            }
        }
        Ok((taken, None))
    }

    /// True when a literal follows the complete line at the end of the frame.
    fn continues(&mut self) -> Result<bool, FrameError> {
        let line = self.frame.get(self.line_start..).unwrap_or_default().trim_ascii_end();
        let length = match has_data(&self.frame) {
            true => literal_length(line),
            false => None,
        };
        let Some(length) = length else { return Ok(false) };
        if self.frame.len().saturating_add(length) > IMAP_RESPONSE_BYTES {
            return Err(FrameError::Response);
        }
        self.literal_left = length;
        self.line_start = self.frame.len();
        Ok(true)
    }
}

/// False for responses that end with text for people, which may look like a literal.
fn has_data(frame: &[u8]) -> bool {
    let word =
        frame.strip_prefix(b"* ").unwrap_or_default().split(|byte| !byte.is_ascii_alphanumeric()).next();
    let is_status = |word: &[u8]| {
        [b"OK".as_slice(), b"NO", b"BAD", b"BYE", b"PREAUTH"]
            .iter()
            .any(|name| word.eq_ignore_ascii_case(name))
    };
    word.is_some_and(|word| !word.is_empty() && !is_status(word))
}

/// The length in `{length}` at the end of a line without its line end, also in `{length+}`; `None` without one.
pub(super) fn literal_length(line: &[u8]) -> Option<usize> {
    let inner = line.strip_suffix(b"}")?;
    let start = inner.iter().rposition(|byte| *byte == b'{')?;
    let digits = std::str::from_utf8(inner.get(start + 1..)?).ok()?;
    let digits = digits.strip_suffix('+').unwrap_or(digits);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(bytes: &[u8], piece: usize) -> Vec<String> {
        let mut reader = FrameReader::default();
        let mut all = Vec::new();
        for piece in bytes.chunks(piece) {
            let mut rest = piece;
            while !rest.is_empty() {
                let (taken, frame) = reader.take(rest).unwrap();
                all.extend(frame.map(|frame| String::from_utf8_lossy(&frame).into_owned()));
                rest = &rest[taken..];
            }
        }
        all
    }

    #[test]
    fn responses_are_cut_at_their_ends_however_the_bytes_arrive() {
        let bytes = b"* OK hi {3}\r\n* 1 FETCH (BODY[] {9}\r\na\r\nb\r\n{7})\r\n* LIST () \"/\" {3+}\r\nx y\r\nA1 OK {9}\n";
        let expected = [
            "* OK hi {3}",
            "* 1 FETCH (BODY[] {9}\r\na\r\nb\r\n{7})",
            "* LIST () \"/\" {3+}\r\nx y",
            "A1 OK {9}",
        ];
        for piece in [1, 2, 7, 1000] {
            assert_eq!(frames(bytes, piece), expected, "{piece}");
        }
    }

    #[test]
    fn a_response_that_is_too_large_is_an_error_before_it_is_held() {
        let head = format!("* 1 FETCH (BODY[] {{{IMAP_RESPONSE_BYTES}}}\r\n");
        assert_eq!(FrameReader::default().take(head.as_bytes()), Err(FrameError::Response));
        let huge = format!("* 1 FETCH (BODY[] {{{}}}\r\n", usize::MAX);
        assert_eq!(FrameReader::default().take(huge.as_bytes()), Err(FrameError::Response));
        let long = vec![b'x'; IMAP_LINE_BYTES + 1];
        assert_eq!(FrameReader::default().take(&long), Err(FrameError::Line));
        // The literals of a response share one bound.
        let literal = [b"{1000000}\r\n".as_slice(), &vec![b'x'; 1_000_000]].concat();
        let mut reader = FrameReader::default();
        let mut result = reader.take(b"* LIST ");
        for _ in 0..IMAP_RESPONSE_BYTES / 1_000_000 {
            result = result.and_then(|_| reader.take(&literal));
        }
        assert!(matches!(result, Ok((_, None))), "{result:?}");
        assert_eq!(reader.take(&literal), Err(FrameError::Response));
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_the_same_way_in_any_pieces(
            bytes in "(\\* [A-Z]{1,4}|[ -~]|\r\n|\\{[0-9]\\}){0,40}", piece in 1_usize..9,
        ) {
            prop_assert_eq!(frames(bytes.as_bytes(), piece), frames(bytes.as_bytes(), 4096));
        }
    }
}
