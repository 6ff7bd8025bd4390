//! The demo's outcome as an SVG picture, `demo.svg` in the demo's folder. A copy of it is docs/demo.svg.

use super::playbill::Playbill;
use config::failure::Failure;
use std::fmt::Write;
use std::path::Path;

/// Height of a line of text, in SVG user units.
const LINE_HEIGHT: usize = 20;
/// Width of the picture, in SVG user units.
const PAGE_WIDTH: usize = 860;

/// Draws the acts and claims and writes the picture to `path`.
pub fn write(bill: &Playbill, path: &Path) -> Result<(), Failure> {
    std::fs::write(path, draw(bill))
        .map_err(|error| Failure::new(format!("{} can't be written", path.display()), error, ""))
}

fn draw(bill: &Playbill) -> String {
    let mut rows = vec![("head", "$ sternpost demo".to_owned())];
    for act in bill.acts() {
        rows.push(("title", format!("{}. {}", act.number, act.title)));
        for claim in &act.claims {
            let (class, mark) = if claim.held { ("good", "✓") } else { ("bad", "✗") };
            rows.push((class, format!("   {mark} {}", claim.claim)));
        }
    }
    let height = LINE_HEIGHT * (rows.len() + 2);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {PAGE_WIDTH} {height}\" role=\"img\" aria-label=\"The outcome of sternpost demo\">\n\
         <style>text{{font:13px ui-monospace,monospace;white-space:pre}}.head{{fill:#9fb3c8}}.title{{fill:#fff;font-weight:bold}}.good{{fill:#8fd694}}.bad{{fill:#ff8f8f}}</style>\n\
         <rect width=\"{PAGE_WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#14202b\"/>\n"
    );
    for (number, (class, text)) in rows.iter().enumerate() {
        let y = LINE_HEIGHT * (number + 1) + 10;
        let _ = writeln!(
            svg,
            "<text class=\"{class}\" x=\"18\" y=\"{y}\" xml:space=\"preserve\">{}</text>",
            escape(text)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
