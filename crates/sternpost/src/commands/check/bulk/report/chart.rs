//! A bar chart as SVG. It is narrow, so that it can be read on a phone, has its own style for light and dark viewers, and its values
//! are in its text.

use formats::markup::escaped;
use std::fmt::Write;

/// A bar with its label above it.
pub struct Bar {
    /// What the bar is about.
    pub label: String,
    /// Its length, from 0 to 1.
    pub share: f64,
    /// The value beside it.
    pub value: String,
    /// True for a part of the bar above, which is drawn lighter and indented.
    pub is_part: bool,
}

const WIDTH: f64 = 480.0;
const ROW: f64 = 40.0;

/// The space for values beside the bars.
const VALUE: f64 = 130.0;

const STYLE: &str = ".t{font:14px system-ui,sans-serif;fill:#1b1f24}.v{font:13px system-ui,sans-serif;fill:#57606a}.b{fill:#0969da}.p{fill:#80b3ea}.a{fill:#eaeef2}\
@media(prefers-color-scheme:dark){.t{fill:#e6edf3}.v{fill:#9aa4af}.b{fill:#4493f8}.p{fill:#2a5a9b}.a{fill:#21262d}}";

/// The chart. Its scale is linear, begins at zero, and ends at the longest bar.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let height = ROW * bars.len().max(1) as f64 + 6.0;
    let longest = bars.iter().map(|bar| bar.share).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let values: Vec<String> = bars.iter().map(|bar| format!("{}: {}", bar.label, bar.value)).collect();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n<style>{STYLE}</style>\n",
        escaped(title),
        escaped(&values.join("; ")),
    );
    for (bar, row) in bars.iter().zip(0_i32..) {
        let (top, left) = (f64::from(row) * ROW, if bar.is_part { 16.0 } else { 0.0 });
        let most = WIDTH - VALUE - left;
        let (length, class) = ((bar.share / longest * most).max(1.0), if bar.is_part { "p" } else { "b" });
        let _ = writeln!(
            out,
            "<text class=\"t\" x=\"{left}\" y=\"{}\">{}</text>\n<rect class=\"a\" x=\"{left}\" y=\"{bar_top}\" width=\"{most}\" height=\"10\"/>\n\
             <rect class=\"{class}\" x=\"{left}\" y=\"{bar_top}\" width=\"{length:.1}\" height=\"10\"/>\n<text class=\"v\" x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            top + 16.0,
            escaped(&bar.label),
            top + 32.0,
            escaped(&bar.value),
            bar_top = top + 22.0,
        );
    }
    if bars.is_empty() {
        out += "<text class=\"t\" x=\"0\" y=\"16\">no data</text>\n";
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_has_the_whole_width_and_all_values_are_in_the_text() {
        let bar =
            |label: &str, share, is_part| Bar { label: label.into(), share, value: "7".into(), is_part };
        let svg = bars("<title>", &[bar("one", 0.5, false), bar("a & b", 0.25, true)]);
        assert!(svg.contains("<title>&lt;title&gt;</title>") && svg.contains("a &amp; b: 7"), "{svg}");
        assert!(svg.contains("class=\"b\" x=\"0\" y=\"22\" width=\"350.0\""), "{svg}");
        assert!(svg.contains("class=\"p\" x=\"16\" y=\"62\" width=\"167.0\""), "{svg}");
        assert!(bars("none", &[]).contains("no data"));
    }
}
