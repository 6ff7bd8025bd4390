//! Reads a file line by line, whatever the length of a line is: lists of domains and files of results come from others.

use config::failure::Failure;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::Path;

/// Lines of at most `most` bytes. Of a longer one, only the beginning is kept.
pub struct Lines<R> {
    from: R,
    most: usize,
    number: u64,
    bytes: Vec<u8>,
}

/// A line.
pub struct Line<'b> {
    /// Counted from 1.
    pub number: u64,
    /// The line without its end, or the beginning of one that is too long.
    pub bytes: &'b [u8],
    /// True if the line is longer than allowed.
    pub is_too_long: bool,
    /// Bytes that were read, with the end of the line.
    pub length: u64,
    /// False for a last line without an end.
    pub is_whole: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn new(from: R, most: usize) -> Self {
        Self { from, most, number: 0, bytes: Vec::new() }
    }

    /// The next line; `None` at the end of the file.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.bytes.clear();
        let (mut length, mut is_whole) = (0, false);
        while !is_whole {
            let part = match self.from.fill_buf() {
                Ok([]) => break,
                Ok(part) => part,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = part.iter().position(|byte| *byte == b'\n');
            let text = part.get(..end.unwrap_or(part.len())).unwrap_or_default();
            // One byte more shows that the line is too long.
            let room = (self.most + 1).saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(text.get(..room).unwrap_or(text));
            let used = text.len() + usize::from(end.is_some());
            self.from.consume(used);
            length += used as u64;
            is_whole = end.is_some();
        }
        if length == 0 {
            return Ok(None);
        }
        self.number += 1;
        let is_too_long = self.bytes.len() > self.most;
        self.bytes.truncate(self.most);
        Ok(Some(Line { number: self.number, bytes: &self.bytes, is_too_long, length, is_whole }))
    }
}

/// The lines of a file of results that are not results.
#[derive(Default)]
pub struct LeftOut {
    other: u64,
    too_long: Vec<u64>,
}

/// Lines that are too long and are named by their number.
const NAMED: usize = 5;

impl LeftOut {
    /// Counts a line that is not a result. Empty lines do not count.
    pub fn add(&mut self, line: &Line<'_>) {
        match line.is_too_long {
            true if self.too_long.len() < NAMED => self.too_long.push(line.number),
            true => self.other += 1,
            false => self.other += u64::from(!line.bytes.trim_ascii().is_empty()),
        }
    }

    /// Says on standard error what was left out.
    pub fn say(&self, path: &Path) {
        let mut err = io::stderr();
        for number in &self.too_long {
            let _ = writeln!(
                err,
                "{}: line {number} is longer than {} bytes and was left out. Remove it, or check its domain again.",
                path.display(),
                formats::limits::RESULT_LINE_BYTES
            );
        }
        if self.other > 0 {
            let _ = writeln!(
                err,
                "{}: lines that are not results, and were left out: {}.",
                path.display(),
                self.other
            );
        }
    }
}

/// Passes each line of a file of results to `take`, which returns false for one that is not a result. A file with lines but
/// without any result is refused. `kind` says what a result is, and `remedy` what to do then.
pub fn read_results(
    path: &Path,
    (kind, remedy): (&str, &str),
    mut take: impl FnMut(&[u8]) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let fail = |error| Failure::usage(format!("{} can't be read", path.display()), error, remedy);
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut lines = Lines::new(BufReader::new(file), formats::limits::RESULT_LINE_BYTES);
    let (mut has_lines, mut has_results, mut left_out) = (false, false, LeftOut::default());
    while let Some(line) = lines.next().map_err(fail)? {
        has_lines |= line.is_too_long || !line.bytes.trim_ascii().is_empty();
        match !line.is_too_long && take(line.bytes)? {
            true => has_results = true,
            false => left_out.add(&line),
        }
    }
    if has_lines && !has_results {
        return Err(fail(io::Error::other(format!("none of its lines is {kind}"))));
    }
    left_out.say(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], most: usize, at_once: usize) -> Vec<(u64, Vec<u8>, bool, u64, bool)> {
        let mut lines = Lines::new(BufReader::with_capacity(at_once, text), most);
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.number, line.bytes.to_vec(), line.is_too_long, line.length, line.is_whole));
        }
        assert!(lines.bytes.capacity() <= 4 * (most + 8), "{}", lines.bytes.capacity());
        all
    }

    #[test]
    fn a_line_of_any_length_is_read_and_only_its_beginning_kept() {
        for at_once in [1, 2, 3, 7, 64] {
            let long = "x".repeat(1000);
            let text = format!("abc\n\nabcd\n{long}\nabcde\nend");
            let expected = [
                (1, b"abc".to_vec(), false, 4, true),
                (2, Vec::new(), false, 1, true),
                (3, b"abcd".to_vec(), false, 5, true),
                (4, b"xxxx".to_vec(), true, 1001, true),
                (5, b"abcd".to_vec(), true, 6, true),
                (6, b"end".to_vec(), false, 3, false),
            ];
            assert_eq!(read(text.as_bytes(), 4, at_once), expected, "{at_once}");
        }
        assert_eq!(read(b"", 4, 8), []);
    }

    #[test]
    fn a_file_without_results_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let read = |content: &str| {
            std::fs::write(&path, content).unwrap();
            read_results(&path, ("a result", "Give results."), |line| Ok(line.starts_with(b"{")))
        };
        assert!(read("").is_ok() && read("\n").is_ok());
        assert!(read("{\nother\n").is_ok());
        let refused = read("example.org\n").unwrap_err().to_string();
        assert!(refused.contains("none of its lines is a result\n"), "{refused}");
        let long = "{".repeat(formats::limits::RESULT_LINE_BYTES + 1);
        assert!(read(&long).is_err());
        assert!(read(&format!("{long}\n{{\n")).is_ok());
    }
}
