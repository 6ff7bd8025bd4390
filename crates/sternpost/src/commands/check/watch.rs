//! Progress of a check on a terminal: shows each answer as it arrives. The lines are erased before the outcome is
//! printed, which contains the same answers, evaluated and in order.

use check::Progress;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// Maximum number of lines; a further answer replaces the last line.
const MAX_LINES: usize = 16;
/// Maximum number of characters in a line. A wrapped line would not be erased.
const MAX_COLUMNS: usize = 78;

/// The progress lines of a domain; nothing is shown unless standard error is a terminal.
pub struct Watch {
    lines: Option<Mutex<Lines>>,
}

impl Watch {
    /// Prints the first line, if standard error is a terminal.
    pub fn new(domain: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { lines: None };
        }
        let (lines, text) = Lines::begin(domain);
        show(&text);
        Self { lines: Some(Mutex::new(lines)) }
    }

    /// Erases the progress lines from the terminal.
    pub fn end(self) {
        if let Some(lines) = self.lines {
            show(&lines.into_inner().unwrap_or_else(PoisonError::into_inner).end());
        }
    }
}

impl Progress for Watch {
    fn seen(&self, part: &str, answer: &dyn Fn() -> String) {
        if let Some(lines) = &self.lines {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            show(&lines.add(part, &answer()));
        }
    }
}

fn show(text: &str) {
    let mut out = std::io::stderr();
    // A terminal that can't be written to has no reader.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The number of lines on the terminal. The methods return the text that changes them.
struct Lines(usize);

impl Lines {
    fn begin(domain: &str) -> (Self, String) {
        (Self(1), line(&format!("Checking {domain}")))
    }

    fn add(&mut self, part: &str, answer: &str) -> String {
        let text = line(&format!("  {part:<34} {answer}"));
        if self.0 < MAX_LINES {
            self.0 += 1;
            return text;
        }
        format!("\x1b[1A\x1b[K{text}")
    }

    fn end(self) -> String {
        format!("\x1b[{}A\x1b[J", self.0)
    }
}

/// Makes a line of text from outside: at most [`MAX_COLUMNS`] characters, each printable ASCII, since others could move
/// the cursor.
fn line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(MAX_COLUMNS)
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .collect();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_shown_in_lines_that_are_erased_and_contain_no_control_characters() {
        let (mut lines, begun) = Lines::begin("example.org");
        assert_eq!(begun, "Checking example.org\n");
        assert_eq!(
            lines.add("_mta-sts", "v=STSv1; id=\x1b[2J\u{202e}\n1;"),
            format!("  {:<34} v=STSv1; id=?[2J??1;\n", "_mta-sts")
        );
        let long = lines.add(&"x".repeat(300), "y");
        assert_eq!((long.len(), long.matches('\n').count()), (MAX_COLUMNS + 1, 1));
        for _ in 0..40 {
            let text = lines.add("mx", "TLSv1_3");
            assert!(text.ends_with("TLSv1_3\n"));
        }
        assert!(lines.add("mx", "late").starts_with("\x1b[1A\x1b[K  mx"));
        assert_eq!(lines.end(), "\x1b[16A\x1b[J");
    }
}
