//! Charts of sessions per day as SVG, with an equivalent text for screen readers. All scales are linear and begin at zero.
//! Colors come from the style sheet. `timeline` draws the two panels of a domain's page; this module has the small chart of
//! a table row, and the scales that both use.

mod timeline;

pub use timeline::{Range, Timeline};

use crate::text;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::fmt::Write;
use store::reports::{DaySum, Trend};

/// Days in the strip of a table row.
const STRIP_DAYS: i64 = 30;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The first moment of the day `back` days before the day of `now`.
fn day_before(now: Timestamp, back: i64) -> Timestamp {
    let today = formats::report::DateRange::utc_day(now).start;
    today.saturating_sub(DAY.saturating_mul(i32::try_from(back).unwrap_or(i32::MAX))).unwrap_or(today)
}

/// Strips by name, for each of `names`. Trends of other names are ignored.
pub fn strips<'t>(
    trends: &'t [Trend],
    names: impl Iterator<Item = &'t str>,
    bound: f64,
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
    days.into_iter().map(|(name, days)| (name, strip(&days, bound, now))).collect()
}

/// The first moment that strips cover.
pub fn strips_since(now: Timestamp) -> Timestamp {
    day_before(now, STRIP_DAYS - 1)
}

/// The strip of a table row: sessions per day of the last [`STRIP_DAYS`] days, and below them a mark for each day on which
/// more than the share `bound` failed.
pub fn strip(days: &[DaySum], bound: f64, now: Timestamp) -> String {
    let since = strips_since(now);
    let shown: Vec<&DaySum> = days.iter().filter(|day| day.day >= since && day.day <= now).collect();
    let most = shown.iter().map(|day| day.successful.saturating_add(day.failed)).max().unwrap_or(0);
    let sum = |of: fn(&DaySum) -> u64| shown.iter().fold(0u64, |sum, day| sum.saturating_add(of(day)));
    let (successful, failed) = (sum(|day| day.successful), sum(|day| day.failed));
    if most == 0 {
        return "<span class=\"nodata\">no data yet</span>".to_owned();
    }
    let (mut good, mut bad, mut above, mut marked) = (String::new(), String::new(), String::new(), 0);
    for day in shown {
        let x = day.day.duration_since(since).as_hours() / 24 * 4;
        let all = day.successful.saturating_add(day.failed);
        let (ok, whole) = (scaled(day.successful, most, 20.0), scaled(all, most, 20.0));
        bar(&mut good, x as f64, 21.0, 3.0, ok);
        bar(&mut bad, x as f64, 21.0 - ok, 3.0, whole - ok);
        if day.failed as f64 > bound * all as f64 {
            marked += 1;
            let _ = write!(above, "M{x} 23h3v3h-3z");
        }
    }
    let says = format!(
        "30 days: {} successful sessions, {} failed; {} above {}",
        text::count(successful),
        text::count(failed),
        text::counted(marked, "day"),
        text::bound(bound)
    );
    format!(
        "<svg class=\"strip\" viewBox=\"0 0 120 27\" width=\"120\" height=\"27\" role=\"img\" aria-label=\"{says}\"><title>{says}</title><path class=\"axis\" d=\"M0 21.5h120\"/><path class=\"good\" d=\"{good}\"/><path class=\"bad\" d=\"{bad}{above}\"/></svg>"
    )
}

/// A bar that stands on `bottom`, added to a path. Bars without height are left out.
fn bar(path: &mut String, x: f64, bottom: f64, width: f64, height: f64) {
    if height > 0.0 {
        let _ = write!(
            path,
            "M{} {}h{}v{}h-{}z",
            short(x),
            short(bottom),
            short(width),
            short(-height),
            short(width)
        );
    }
}

/// A coordinate with two digits at most.
fn short(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// The height of a count where `most` has the height `room`.
fn scaled(count: u64, most: u64, room: f64) -> f64 {
    room * count as f64 / most.max(1) as f64
}

/// The distance of the lines of a scale from 0 to `most`, so that there are 2 to 5 of them: 1, 2 or 5 times a power of ten.
fn step(most: f64) -> f64 {
    let raw = (most / 4.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|times| times * power)
        .find(|step| *step >= raw * 0.999)
        .unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_is_linear_describes_its_content_and_marks_days_above_the_bound() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let day = |back: i32, successful, failed| DaySum {
            day: formats::report::DateRange::utc_day(now - DAY * back).start,
            successful,
            failed,
            sts_sessions: 0,
            tainted: 0,
            unproved: 0,
        };
        let days: Vec<DaySum> =
            (0..40).map(|back| day(back, if back == 3 { 500 } else { 1000 }, 0)).collect();
        let svg = strip(&days, 0.005, now);
        assert!(svg.contains("29,500 successful sessions, 0 failed; 0 days above 0.5 %"), "{svg}");
        assert!(
            svg.contains("h3v-20h-3z") && svg.contains("h3v-10h-3z"),
            "half as many is half as high: {svg}"
        );
        assert!(svg.len() < 1600, "{}", svg.len());
        let failing = strip(&[day(0, 990, 10), day(1, 9999, 1)], 0.005, now);
        assert!(
            failing.contains("1 day above 0.5 %") && failing.matches(" 23h3v3h-3z").count() == 1,
            "{failing}"
        );
        assert!(strip(&[], 0.005, now).contains("no data yet"));
        assert!(strip(&[day(40, 5, 5)], 0.005, now).contains("no data yet"));
        let trend =
            |name: &str, failed| Trend { name: name.to_owned(), day: days[0].day, successful: 0, failed };
        let trends = [trend("mx1", 4), trend("mx2", 5), trend("mx3", 6)];
        let drawn = strips(&trends, ["mx1", "mx3", "mx4"].into_iter(), 0.005, now);
        assert_eq!(drawn.keys().copied().collect::<Vec<_>>(), ["mx1", "mx3", "mx4"]);
        assert!(drawn["mx3"].contains("0 successful sessions, 6 failed"));
        assert!(drawn["mx4"].contains("no data yet"));
    }

    #[test]
    fn scales_have_round_steps() {
        let steps = [0.7, 1.0, 3.0, 4.0, 9.0, 40.0, 17_753.0].map(step);
        assert_eq!(steps.map(short), [0.2, 0.5, 1.0, 1.0, 5.0, 10.0, 5000.0]);
        assert_eq!(step(1.0), 0.5);
    }
}
