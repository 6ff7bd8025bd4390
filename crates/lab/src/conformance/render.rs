//! Writes a report as text, Markdown, JUnit and HTML.

mod html;
mod junit;
mod markdown;
mod senders;
mod text;

pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use senders::senders;
pub use text::{differences, explain, line, list, summary};

/// The text with the characters escaped that XML and HTML reserve; control characters become spaces.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}
