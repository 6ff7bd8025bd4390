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
