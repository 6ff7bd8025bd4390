//! Charts of sessions per day as SVG, with an equivalent text for screen readers. Failed sessions are drawn above the
//! line, successful ones below it. Colors come from the style sheet.

use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::fmt::Write;
use store::reports::{DaySum, Trend};

/// Days in the strip of a table row.
const STRIP_DAYS: i64 = 30;
/// Days in the timeline of a domain.
pub const LINE_DAYS: i64 = 90;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The last `count` days, oldest first; `None` for days without reports.
fn span(days: &[DaySum], now: Timestamp, count: i64) -> Vec<(Timestamp, Option<&DaySum>)> {
    let by_day: BTreeMap<Timestamp, &DaySum> = days.iter().map(|day| (day.day, day)).collect();
    let today = formats::report::DateRange::utc_day(now).start;
    (0..count)
        .rev()
        .map(|back| {
            today.saturating_sub(DAY.saturating_mul(i32::try_from(back).unwrap_or(0))).unwrap_or(today)
        })
        .map(|day| (day, by_day.get(&day).copied()))
        .collect()
}

/// The height of a bar on a logarithmic scale: 0 for no sessions, otherwise from 1 to `room`.
fn height(count: u64, most: u64, room: u64) -> u64 {
    match count {
        0 => 0,
        _ => {
            let share = ((count as f64).ln_1p() / (most.max(1) as f64).ln_1p()).min(1.0);
            1 + (share * (room as f64 - 1.0)).round().max(0.0) as u64
        }
    }
}

/// Strips by name, for each of `names`. Trends of other names are ignored.
pub fn strips<'t>(
    trends: &'t [Trend],
    names: impl Iterator<Item = &'t str>,
    now: Timestamp,
) -> BTreeMap<&'t str, String> {
    let mut days: BTreeMap<&str, Vec<DaySum>> = names.map(|name| (name, Vec::new())).collect();
    for trend in trends {
        if let Some(days) = days.get_mut(trend.name.as_str()) {
            days.push(DaySum {
                day: trend.day,
                successful: trend.successful,
                failed: trend.failed,
                sts_sessions: 0,
                tainted: 0,
                unproved: 0,
            });
        }
    }
    days.into_iter().map(|(name, days)| (name, strip(&days, now))).collect()
}

/// The first moment that strips cover.
pub fn strips_since(now: Timestamp) -> Timestamp {
    let days = i32::try_from(STRIP_DAYS).unwrap_or(30);
    now.saturating_sub(DAY.saturating_mul(days)).unwrap_or(now)
}

/// The strip of a table row: the last [`STRIP_DAYS`] days.
pub fn strip(days: &[DaySum], now: Timestamp) -> String {
    let span = span(days, now, STRIP_DAYS);
    let most =
        span.iter().filter_map(|(_, day)| *day).map(|day| day.successful.max(day.failed)).max().unwrap_or(0);
    let (good, bad) = bars(&span, most, 4, 3, 9, 8, 13);
    let (worked, failed) = sums(&span);
    let says = if worked == 0 && failed == 0 {
        "No reports in 30 days".to_owned()
    } else {
        format!("30 days: {worked} successful sessions, {failed} failed")
    };
    format!(
        "<svg class=\"strip\" viewBox=\"0 0 120 24\" width=\"120\" height=\"24\" role=\"img\" aria-label=\"{says}\"><title>{says}</title><path class=\"axis\" d=\"M0 9.5h120\"/><path class=\"good\" d=\"{good}\"/><path class=\"bad\" d=\"{bad}\"/></svg>"
    )
}

/// Two SVG paths: bars of successful sessions below the line, and of failed sessions above it.
fn bars(
    span: &[(Timestamp, Option<&DaySum>)],
    most: u64,
    step: usize,
    width: usize,
    line: u64,
    above: u64,
    below: u64,
) -> (String, String) {
    let (mut good, mut bad) = (String::new(), String::new());
    for (at, (_, day)) in span.iter().enumerate() {
        let Some(day) = day else { continue };
        let x = at * step;
        let up = height(day.failed, most, above);
        let down = height(day.successful, most, below);
        if down > 0 {
            let _ = write!(good, "M{x} {}h{width}v{down}h-{width}z", line + 1);
        }
        if up > 0 {
            let _ = write!(bad, "M{x} {}h{width}v{up}h-{width}z", line.saturating_sub(up));
        }
    }
    (good, bad)
}

/// Successful and failed sessions of all days.
fn sums(span: &[(Timestamp, Option<&DaySum>)]) -> (u64, u64) {
    span.iter().filter_map(|(_, day)| *day).fold((0, 0), |(worked, failed), day| {
        (worked.saturating_add(day.successful), failed.saturating_add(day.failed))
    })
}

/// The timeline of a domain: sessions per day, with events as flags.
pub fn timeline(days: &[DaySum], events: &[(Timestamp, String)], now: Timestamp) -> String {
    let span = span(days, now, LINE_DAYS);
    let most =
        span.iter().filter_map(|(_, day)| *day).map(|day| day.successful.max(day.failed)).max().unwrap_or(0);
    let (good, bad) = bars(&span, most, 8, 6, 70, 46, 80);
    let (worked, failed) = sums(&span);
    let says = format!(
        "{LINE_DAYS} days: {worked} successful sessions, {failed} failed; the table below lists the days"
    );
    let mut out = format!(
        "<svg class=\"line\" viewBox=\"0 0 720 178\" role=\"img\" aria-label=\"{says}\"><title>{says}</title><path class=\"axis\" d=\"M0 70.5h720\"/><path class=\"good\" d=\"{good}\"/><path class=\"bad\" d=\"{bad}\"/>"
    );
    for (at, (day, sum)) in span.iter().enumerate() {
        let x = at * 8;
        if let Some(sum) = sum {
            let _ = write!(
                out,
                "<rect class=\"day\" x=\"{x}\" y=\"22\" width=\"8\" height=\"130\"><title>{}: {} successful, {} failed</title></rect>",
                day.strftime("%Y-%m-%d"),
                sum.successful,
                sum.failed
            );
        }
        if at % 15 == 0 {
            let _ = write!(out, "<text class=\"tick\" x=\"{x}\" y=\"172\">{}</text>", day.strftime("%-d %b"));
        }
        let flags: Vec<&str> = events
            .iter()
            .filter(|(when, _)| *when >= *day && *when < *day + DAY)
            .map(|(_, what)| what.as_str())
            .collect();
        if !flags.is_empty() {
            let _ = write!(
                out,
                "<g class=\"flag\"><path d=\"M{x} 2v150\"/><path class=\"cloth\" d=\"M{x} 2h12l-4 5l4 5h-12z\"/><title>{}: {}</title></g>",
                day.strftime("%Y-%m-%d"),
                escaped(&flags.join("; "))
            );
        }
    }
    out + "</svg>"
}

/// Escapes text for SVG, and cuts it to 600 characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().take(600) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_describes_its_content_and_is_small() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let day = |back: i32, successful, failed| DaySum {
            day: formats::report::DateRange::utc_day(now - DAY * back).start,
            successful,
            failed,
            sts_sessions: 0,
            tainted: 0,
            unproved: 0,
        };
        let days: Vec<DaySum> = (0..40).map(|back| day(back, 1000, u64::from(back == 3))).collect();
        let svg = strip(&days, now);
        assert!(svg.contains("30000 successful sessions, 1 failed"), "{svg}");
        assert!(svg.len() < 1200, "{}", svg.len());
        assert!(strip(&[], now).contains("No reports in 30 days"));
        let trend =
            |name: &str, failed| Trend { name: name.to_owned(), day: days[0].day, successful: 0, failed };
        let trends = [trend("mx1", 4), trend("mx2", 5), trend("mx3", 6)];
        let drawn = strips(&trends, ["mx1", "mx3", "mx4"].into_iter(), now);
        assert_eq!(drawn.keys().copied().collect::<Vec<_>>(), ["mx1", "mx3", "mx4"]);
        assert!(drawn["mx3"].contains("0 successful sessions, 6 failed"));
        assert!(drawn["mx4"].contains("No reports"));
        let line = timeline(&days, &[(now, "<script>".into())], now);
        assert!(line.contains("&lt;script&gt;") && !line.contains("<script>"));
    }
}
