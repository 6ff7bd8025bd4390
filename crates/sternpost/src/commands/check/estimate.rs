//! `sternpost check --profile`: what a test site would most likely say about a domain, as text or as JSON.

use crate::terminal::marks;
use check::Examination;
use check::profile::{Point, State, internet_nl};
use std::fmt::Write;

/// The points of Internet.nl's mail test for an examined domain, by section.
pub fn points(seen: &Examination, as_json: bool) -> String {
    let points = internet_nl(seen);
    if as_json {
        #[derive(serde::Serialize)]
        struct Line<'p> {
            schema: u32,
            domain: &'p str,
            profile: &'static str,
            is_estimate: bool,
            points: &'p [Point],
        }
        let line = Line {
            schema: 1,
            domain: seen.domain.as_str(),
            profile: "internet-nl",
            is_estimate: true,
            points: &points,
        };
        return serde_json::to_string(&line).unwrap_or_default() + "\n";
    }
    let count = |state| points.iter().filter(|point| point.state == state).count();
    let mut out = format!(
        "Estimate of the mail test of Internet.nl for {}: {} points met, {} failed, {} not known here.\nIt is derived from the \
         findings of this check; the site decides by its own rules.\n",
        seen.domain,
        count(State::Met),
        count(State::Failed),
        count(State::Unknown)
    );
    let mut section = "";
    for point in &points {
        if point.section != section {
            section = point.section;
            let _ = writeln!(out, "\n{section}");
        }
        let mark = match point.state {
            State::Met => marks().fine,
            State::Failed => marks().error,
            State::Unknown => marks().info,
        };
        let more = if point.state == State::Unknown { " (not known)" } else { "" };
        let _ = writeln!(out, "  {mark} {}{more}", point.name);
    }
    out.push('\n');
    out
}
