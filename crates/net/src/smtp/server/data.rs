//! Reads the data of one message (RFC 5321 §4.5.2): finds its end, undoes dot stuffing, and enforces the limits. The bytes
//! are looked at once, as they arrive; only the message itself is kept.

use crate::memory_budget::Reservation;
use formats::limits::{INBOX_LINE_BYTES, INBOX_MESSAGE_BYTES};

/// The smallest buffer for a message, in bytes.
pub(super) const FIRST_BUFFER: usize = 16_384;

/// Why a message is refused. Its data is read to the end all the same, so that the session can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataError {
    /// The message is larger than [`INBOX_MESSAGE_BYTES`].
    TooLarge,
    /// A line is longer than [`INBOX_LINE_BYTES`].
    LongLine,
    /// A line ends in LF without CR.
    BareLf,
    /// The memory for messages is in use.
    NoRoom,
}

/// Whether the data is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// The end of the data has not been received.
    More,
    /// The end of the data is at this position.
    End(usize),
}

/// The position within `CRLF . CRLF`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    Dot,
    DotCr,
    Text,
    Cr,
}

/// A message that is being received.
pub(super) struct DataReader {
    message: Vec<u8>,
    reservation: Reservation,
    position: Position,
    line: usize,
    error: Option<DataError>,
}

impl DataReader {
    /// Begins a message. The reservation grows with it.
    pub(super) fn new(reservation: Reservation) -> Self {
        Self { message: Vec::new(), reservation, position: Position::LineStart, line: 0, error: None }
    }

    /// Processes further bytes of the data.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Data {
        // The first byte of the text that is not copied yet.
        let (mut kept, mut at) = (0, 0);
        while let Some(byte) = bytes.get(at) {
            if self.position == Position::Text {
                let text = text_length(bytes.get(at..).unwrap_or_default());
                if text > 0 {
                    self.longer_line(text);
                    at += text;
                    continue;
                }
            }
            if self.position == Position::DotCr {
                if *byte == b'\n' {
                    return Data::End(at + 1);
                }
                // The CR was not part of the end, so it is part of the message.
                self.push(b"\r");
            }
            self.position = match (self.position, byte) {
                (Position::Cr, b'\n') => {
                    self.line = 0;
                    Position::LineStart
                }
                (_, b'\n') => {
                    self.fail(DataError::BareLf);
                    Position::Text
                }
                (Position::LineStart, b'.') => {
                    // The dot is not part of the message.
                    self.push(bytes.get(kept..at).unwrap_or_default());
                    kept = at + 1;
                    Position::Dot
                }
                (Position::Dot, b'\r') => {
                    kept = at + 1;
                    Position::DotCr
                }
                (_, b'\r') => Position::Cr,
                _ => Position::Text,
            };
            if self.position != Position::LineStart {
                self.longer_line(1);
            }
            at += 1;
        }
        self.push(bytes.get(kept..).unwrap_or_default());
        Data::More
    }

    fn longer_line(&mut self, bytes: usize) {
        self.line += bytes;
        // The CR and a stuffed dot are not counted against the line.
        if self.line > INBOX_LINE_BYTES && self.position == Position::Text {
            self.fail(DataError::LongLine);
        }
    }

    /// The message and the reservation of its memory, after [`Data::End`].
    pub(super) fn finish(self) -> Result<(Vec<u8>, Reservation), DataError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok((self.message, self.reservation)),
        }
    }

    /// The first error counts. The message's memory is given back at once.
    fn fail(&mut self, error: DataError) {
        self.error.get_or_insert(error);
        self.message = Vec::new();
        self.reservation.clear();
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.error.is_some() {
            return;
        }
        let length = self.message.len() + bytes.len();
        if length > INBOX_MESSAGE_BYTES {
            return self.fail(DataError::TooLarge);
        }
        if length > self.message.capacity() {
            let most = INBOX_MESSAGE_BYTES.max(length);
            let capacity = (self.message.capacity() * 2).clamp(FIRST_BUFFER, most).max(length);
            if !self.reservation.cover(capacity) {
                return self.fail(DataError::NoRoom);
            }
            self.message.reserve_exact(capacity - self.message.len());
        }
        self.message.extend_from_slice(bytes);
    }
}

/// The number of bytes before the next CR or LF. Most of a message is read here, since only line ends and what follows them
/// can be the end of the data.
fn text_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_budget::MemoryBudget;
    use proptest::prelude::*;

    /// The message and the number of bytes up to its end, with the input in chunks of this size.
    fn read(data: &[u8], size: usize) -> Option<(Result<Vec<u8>, DataError>, usize)> {
        let mut reader = DataReader::new(MemoryBudget::new(1 << 20, 1 << 20).reservation());
        let mut before = 0;
        for chunk in data.chunks(size) {
            if let Data::End(end) = reader.take(chunk) {
                return Some((reader.finish().map(|(message, _)| message), before + end));
            }
            before += chunk.len();
        }
        None
    }

    #[test]
    fn dots_are_unstuffed_in_chunks_of_any_size() {
        let data = b"a\r\n..\r\n...b\r\n.c\r\n\r\n.\rd\r\r\n.\r\nMAIL";
        for size in 1..data.len() {
            let (message, end) = read(data, size).unwrap();
            assert_eq!(message.unwrap(), b"a\r\n.\r\n..b\r\nc\r\n\r\n\rd\r\r\n", "{size}");
            assert_eq!(&data[end..], b"MAIL");
        }
        assert_eq!(read(b".\r\n", 1).unwrap().0.unwrap(), b"");
        assert!(read(b"x.\r\n\r\n.\r", 99).is_none());
    }

    #[test]
    fn a_line_is_as_long_as_it_is_whatever_the_chunks() {
        let line = |length: usize| [&vec![b'a'; length][..], b"\r\n.\r\n"].concat();
        for size in [1000, 4096, INBOX_LINE_BYTES + 1, usize::MAX] {
            let read = |data: Vec<u8>| {
                let mut reader = DataReader::new(MemoryBudget::new(4 << 20, 4 << 20).reservation());
                let ends = data.chunks(size).map(|chunk| reader.take(chunk)).filter(|end| *end != Data::More);
                assert_eq!(ends.count(), 1, "{size}");
                reader.finish().map(|(message, _)| message.len())
            };
            assert_eq!(read(line(INBOX_LINE_BYTES)), Ok(INBOX_LINE_BYTES + 2), "{size}");
            assert_eq!(read(line(INBOX_LINE_BYTES + 1)), Err(DataError::LongLine), "{size}");
            assert_eq!(read([b"a\nb".to_vec(), line(1)].concat()), Err(DataError::BareLf), "{size}");
        }
    }

    proptest! {
        #[test]
        fn stuffed_messages_are_read_unchanged_up_to_their_end(lines in proptest::collection::vec("[.\r x]{0,6}", 0..8), size in 1..9usize) {
            let message = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
            let stuffed = lines.iter().map(|line| match line.starts_with('.') {
                true => format!(".{line}\r\n"),
                false => format!("{line}\r\n"),
            }).collect::<String>();
            let (read, end) = read(format!("{stuffed}.\r\nQUIT\r\n").as_bytes(), size).unwrap();
            prop_assert_eq!((read.unwrap(), end), (message.into_bytes(), stuffed.len() + 3));
        }
    }
}
