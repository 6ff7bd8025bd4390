//! Splits a mailbox in mbox format into messages (RFC 4155), for `sternpost reports import`. Programs differ in what they
//! write, so the line `From …` that begins a message is told from one of a message's text in two ways: by its time, and by the
//! empty line before it. With one of them alone, a header field has to follow. In the format MMDF, which mutt and others write
//! too, a line of four control characters is before and after each message.
//!
//! Quoted lines are read as in the reversible variant (mboxrd): lines of a message that begin with `From `, even after some
//! `>`, have one more `>` prepended.

/// Splits a mailbox line by line, without reading it into memory as a whole.
#[derive(Debug)]
pub struct Splitter {
    most: usize,
    mail: Vec<u8>,
    is_begun: bool,
    is_too_long: bool,
    after_empty: bool,
    /// A line that begins a message if a header field follows.
    candidate: Option<Vec<u8>>,
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
/// The beginning of the line that begins a message.
const FROM: &[u8] = b"From ";
/// The line before and after each message in the format MMDF.
const MMDF: &[u8] = b"\x01\x01\x01\x01";
/// A longer line does not begin a message, unless it is the first one.
const FROM_LINE_BYTES: usize = 1000;

/// True for text that begins as a mailbox does, after empty lines and a byte-order mark.
pub fn is_mbox(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let empty = text.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    text.get(empty..).is_some_and(|text| text.starts_with(FROM) || text.starts_with(MMDF))
}

impl Splitter {
    /// Creates a splitter for messages of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        let (is_begun, is_too_long, after_empty) = (false, false, true);
        Self { most, mail: Vec::new(), is_begun, is_too_long, after_empty, candidate: None }
    }

    /// Processes the next line, including its line end. If the line starts a message, or shows that the one before it did,
    /// returns the previous message.
    pub fn line(&mut self, line: &[u8]) -> Option<Found> {
        match self.candidate.take() {
            Some(_) if is_field(line) => {
                let before = self.begin();
                self.content(line);
                return before;
            }
            Some(text) => self.content(&text),
            None => {}
        }
        if !self.is_begun {
            return if is_mbox(line) { self.begin() } else { None };
        }
        if line.trim_ascii_end() == MMDF {
            return self.begin();
        }
        if line.starts_with(FROM) {
            match (self.after_empty, has_time(line)) {
                (true, true) => return self.begin(),
                (false, false) => {}
                _ if line.len() > FROM_LINE_BYTES => {}
                _ => {
                    self.candidate = Some(line.to_vec());
                    return None;
                }
            }
        }
        self.content(line);
        None
    }

    /// Begins a message. Returns the one before it.
    fn begin(&mut self) -> Option<Found> {
        let before = self.end();
        (self.is_begun, self.after_empty) = (true, false);
        before
    }

    /// Adds a line to the message.
    fn content(&mut self, line: &[u8]) {
        self.after_empty = line.trim_ascii().is_empty();
        if self.is_too_long {
            return;
        }
        let quotes = line.iter().take_while(|byte| **byte == b'>').count();
        let is_quoted = quotes > 0 && line.get(quotes..).is_some_and(|rest| rest.starts_with(FROM));
        let body = if is_quoted { line.get(1..).unwrap_or_default() } else { line };
        let room = self.most - self.mail.len();
        self.is_too_long = body.len() > room;
        self.mail.extend_from_slice(body.get(..room).unwrap_or(body));
        if self.is_too_long {
            self.mail.truncate(BEGINNING_BYTES.min(self.most));
            self.mail.shrink_to_fit();
        }
    }

    /// True if the last line was empty, as at the end of a message that was written as a whole (RFC 4155).
    pub fn is_after_empty(&self) -> bool {
        self.after_empty
    }

    /// Returns the last message at the end of the file. A line at the end that may begin another one is not part of it.
    pub fn end(&mut self) -> Option<Found> {
        self.candidate = None;
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

/// True for a line with a month and a time, as in `From a@b.example Sat Nov 21 00:10:00 2026`. Some programs add a time zone.
fn has_time(line: &[u8]) -> bool {
    let words = || line.split(u8::is_ascii_whitespace);
    let is_month = |word: &[u8]| MONTHS.contains(&word);
    line.len() <= FROM_LINE_BYTES && words().any(is_month) && words().any(is_time)
}

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// True for `hh:mm` and `hh:mm:ss`.
fn is_time(word: &[u8]) -> bool {
    let mut parts = word.split(|byte| *byte == b':');
    let is_number = |part: &[u8]| (1..=2).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
    match parts {
        [Some(hours), Some(minutes), seconds, None] => {
            is_number(hours) && is_number(minutes) && seconds.is_none_or(is_number)
        }
        _ => false,
    }
}

/// True for the first line of a header field.
fn is_field(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_graphic() && **byte != b':').count();
    name > 0 && line.get(name) == Some(&b':')
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

    fn texts(file: &str) -> Vec<String> {
        let text = |found| match found {
            Found::Mail(mail) => String::from_utf8(mail).unwrap(),
            Found::TooLong(_) => panic!("{found:?}"),
        };
        Splitter::all(file.as_bytes(), 1000).into_iter().map(text).collect()
    }

    #[test]
    fn messages_are_told_from_sentences_that_begin_with_from_without_quotes_and_empty_lines() {
        // Eudora and others write no empty line, Thunderbird no sender, mail lists no address, Google a zone.
        for line in [
            "From a@b.example Sat Nov 21 00:10:00 2026",
            "From - Sat Nov 21 00:10:00 2026",
            "From a at b.example  Sat Nov 21 00:10 2026",
            "From 1849@xxx Sat Nov 21 00:10:00 +0000 2026",
            "From MAILER-DAEMON Sat Nov  1  0:10:00 CEST 2026\r",
        ] {
            let file = format!("{line}\nX: 1\n\nhi\n{line}\nX: 2\n\nhi\n\n{line}\n\n{line}\n");
            assert_eq!(texts(&file), ["X: 1\n\nhi\n", "X: 2\n\nhi\n\n", "\n"], "{line}");
        }
        // With an empty line before it and a header after it, any such line begins a message.
        assert_eq!(texts("From x\nX: 1\n\nFrom y\nX: 2\n"), ["X: 1\n\n", "X: 2\n"]);
        // Without the empty line and with a header, or the other way round, none that is a sentence does.
        for text in [
            "X: 1\n\nFrom today on, these mails come daily.\n\nFrom\nFrom May on at 8.\nBye: B.\n",
            "X: 1\n\nFrom here\nFrom there\n\nFrom everywhere\nend\n",
            "X: 1\n\nFrom Nov on\n\nFrom 10:00 on.\n\nX\n",
        ] {
            assert_eq!(texts(&format!("From a@b Sat Nov 21 00:10:00 2026\n{text}")), [text]);
        }
    }

    #[test]
    fn empty_lines_and_a_mark_before_the_first_message_are_skipped() {
        for before in ["\n\r\n", "\u{feff}"] {
            let file = format!("{before}From x\nX: 1\n\nFrom y\nX: 2\n");
            assert!(is_mbox(file.as_bytes()));
            assert_eq!(texts(&file), ["X: 1\n\n", "X: 2\n"]);
        }
        assert!(!is_mbox(b"From: a@b.example\n") && !is_mbox(b""));
    }

    #[test]
    fn messages_in_the_format_mmdf_are_between_lines_of_control_characters() {
        let mark = "\u{1}\u{1}\u{1}\u{1}\n";
        let file = format!("{mark}X: 1\n\nFrom here\n{mark}{mark}X: 2\n\nhi\n{mark}");
        assert!(is_mbox(file.as_bytes()));
        assert_eq!(texts(&file), ["X: 1\n\nFrom here\n", "X: 2\n\nhi\n"]);
    }

    #[test]
    fn a_message_that_is_too_long_does_not_affect_the_next_one() {
        let file = b"From x\n12345678901\n\nFrom y Nov 1 1:00\n1234\n";
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
                file += "From a@b Mon Nov 23 09:00:00 2026\n";
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
