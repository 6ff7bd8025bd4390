//! Splits a mailbox in mbox format into messages (RFC 4155), for `sternpost reports import`. A line that begins with
//! `From ` after an empty line starts a message. This is the reversible variant (mboxrd): lines of a message that begin
//! with `From `, even after some `>`, have one more `>` prepended.

/// Splits a mailbox line by line, without reading it into memory as a whole.
#[derive(Debug)]
pub struct Splitter {
    most: usize,
    mail: Vec<u8>,
    is_begun: bool,
    is_too_long: bool,
    after_empty: bool,
}

/// A message of the mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The message's bytes, without its `From ` line.
    Mail(Vec<u8>),
    /// The message exceeds the size limit; its beginning, at most [`BEGINNING_BYTES`].
    TooLong(Vec<u8>),
}

/// What is kept of a message that is too long: its header, as a rule.
pub const BEGINNING_BYTES: usize = 65_536;

impl Splitter {
    /// Creates a splitter for messages of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { most, mail: Vec::new(), is_begun: false, is_too_long: false, after_empty: true }
    }

    /// Processes the next line, including its line end. If the line starts a message, returns the previous one.
    pub fn line(&mut self, line: &[u8]) -> Option<Found> {
        if self.after_empty && line.starts_with(b"From ") {
            let before = self.end();
            (self.is_begun, self.after_empty) = (true, false);
            return before;
        }
        self.after_empty = line.trim_ascii().is_empty();
        let quotes = line.iter().take_while(|byte| **byte == b'>').count();
        let is_quoted = quotes > 0 && line.get(quotes..).is_some_and(|rest| rest.starts_with(b"From "));
        let body = if is_quoted { line.get(1..).unwrap_or_default() } else { line };
        if !self.is_begun || self.is_too_long {
            return None;
        }
        let room = self.most - self.mail.len();
        self.is_too_long = body.len() > room;
        self.mail.extend_from_slice(body.get(..room).unwrap_or(body));
        if self.is_too_long {
            self.mail.truncate(BEGINNING_BYTES.min(self.most));
            self.mail.shrink_to_fit();
        }
        None
    }

    /// True if the last line was empty, as at the end of a message that was written as a whole (RFC 4155).
    pub fn is_after_empty(&self) -> bool {
        self.after_empty
    }

    /// Returns the last message at the end of the file.
    pub fn end(&mut self) -> Option<Found> {
        let mail = std::mem::take(&mut self.mail);
        let is_too_long = std::mem::take(&mut self.is_too_long);
        match (std::mem::take(&mut self.is_begun), is_too_long, mail.is_empty()) {
            (true, true, _) => Some(Found::TooLong(mail)),
            (true, false, false) => Some(Found::Mail(mail)),
            _ => None,
        }
    }

    /// Returns all messages of a mailbox in memory.
    pub fn all(file: &[u8], most: usize) -> Vec<Found> {
        let mut splitter = Self::new(most);
        let mut found: Vec<Found> =
            file.split_inclusive(|byte| *byte == b'\n').filter_map(|line| splitter.line(line)).collect();
        found.extend(splitter.end());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mail(text: &str) -> Found {
        Found::Mail(text.as_bytes().to_vec())
    }

    #[test]
    fn messages_begin_at_from_after_an_empty_line_and_are_unquoted() {
        let file = b"From a@b Mon\nSubject: 1\n\nhi\nFrom here\n>From there\n>>From\n>>From x\n\nFrom a@b Tue\r\nSubject: 2\r\n\r\nhi";
        let first = "Subject: 1\n\nhi\nFrom here\nFrom there\n>>From\n>From x\n\n";
        assert_eq!(Splitter::all(file, 1000), [mail(first), mail("Subject: 2\r\n\r\nhi")]);
        assert_eq!(Splitter::all(b"no mbox\n", 1000), []);
        assert_eq!(Splitter::all(b"From x\n\nFrom y\n", 1000), [mail("\n")]);
    }

    #[test]
    fn a_message_that_is_too_long_does_not_affect_the_next_one() {
        let file = b"From x\n12345678901\n\nFrom y\n1234\n";
        assert_eq!(Splitter::all(file, 10), [Found::TooLong(b"1234567890".to_vec()), mail("1234\n")]);
    }

    proptest! {
        #[test]
        fn no_message_exceeds_the_limit_and_nothing_panics(file in proptest::collection::vec(any::<u8>(), 0..400)) {
            for found in Splitter::all(&file, 50) {
                let (Found::Mail(mail) | Found::TooLong(mail)) = found;
                prop_assert!(mail.len() <= 50);
            }
        }

        #[test]
        fn quoted_messages_are_read_unchanged(mails in proptest::collection::vec("([>]{0,2}From |[a-z>]{0,6})(\n([>]{0,2}From |[a-z]{0,6})){0,5}", 1..5)) {
            let mut file = String::new();
            for mail in &mails {
                file += "From a@b Mon\n";
                for line in mail.split('\n') {
                    let quote = if line.trim_start_matches('>').starts_with("From ") { ">" } else { "" };
                    file += &format!("{quote}{line}\n");
                }
                file += "\n";
            }
            let expected: Vec<Found> = mails.iter().map(|text| mail(&format!("{text}\n\n"))).collect();
            prop_assert_eq!(Splitter::all(file.as_bytes(), 10_000), expected);
        }
    }
}
