//! Answers as they come, on a terminal, while the rest is looked at. They make way for the outcome, which says the same
//! judged and in order.

use check::Progress;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// Lines that are shown; further answers take the place of the last.
const MAX_LINES: usize = 16;
/// Characters of a line: none may wrap, or it would stay.
const MAX_COLUMNS: usize = 78;

/// Shows what was seen of a domain.
pub struct Watch {
    lines: Option<Mutex<Lines>>,
}

impl Watch {
    /// Begins to look at a domain. Only who sits at a terminal sees that.
    pub fn new(domain: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { lines: None };
        }
        let (lines, text) = Lines::begin(domain);
        show(&text);
        Self { lines: Some(Mutex::new(lines)) }
    }

    /// Makes way.
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
    // Nobody is left to look when it fails.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// How many lines stand, and what is to be written for others.
struct Lines(usize);

impl Lines {
    fn begin(domain: &str) -> (Self, String) {
        (Self(1), line(&format!("Looking at {domain}")))
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

/// Others wrote that, so that nothing of it may move the cursor or take more than one place.
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
    fn answers_stand_in_lines_that_go_away_and_no_answer_breaks_out() {
        let (mut lines, begun) = Lines::begin("example.org");
        assert_eq!(begun, "Looking at example.org\n");
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
