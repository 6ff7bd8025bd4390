//! The chart of a domain: sessions per day as stacked bars, and below them the share that failed in per cent, on one time
//! axis. A line shows the share that the rollout gate allows. Each day has its values as a title, which the script shows
//! for the pointer and for arrow keys; the page has them as a table too. A year is drawn by weeks.

use super::{DAY, bar, day_before, scaled, short, step};
use crate::text;
use jiff::Timestamp;
use serde::Deserialize;
use std::fmt::Write;
use store::reports::DaySum;

/// The period that a chart covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Range {
    #[serde(rename = "7")]
    Week,
    #[default]
    #[serde(rename = "30")]
    Month,
    #[serde(rename = "90")]
    Quarter,
    #[serde(rename = "365")]
    Year,
}

impl Range {
    pub const ALL: [Self; 4] = [Self::Week, Self::Month, Self::Quarter, Self::Year];

    /// The number of days, including today.
    pub fn days(self) -> i64 {
        match self {
            Self::Week => 7,
            Self::Month => 30,
            Self::Quarter => 90,
            Self::Year => 365,
        }
    }

    /// The first moment of the first day.
    pub fn since(self, now: Timestamp) -> Timestamp {
        day_before(now, self.days() - 1)
    }

    /// The first and the last day, such as `2026-10-29 to 2026-11-27`.
    pub fn period(self, now: Timestamp) -> String {
        format!("{} to {}", text::date(&self.since(now)), text::date(&now))
    }

    /// Days per bar.
    fn bucket(self) -> i64 {
        if self == Self::Year { 7 } else { 1 }
    }
}

/// What a chart shows.
pub struct Timeline<'a> {
    /// The sums of days, oldest first.
    pub days: &'a [DaySum],
    /// The events to mark, such as a change of the mode.
    pub events: &'a [(Timestamp, String)],
    /// The share of failed sessions that the gate allows, from 0 to 1.
    pub bound: f64,
    pub range: Range,
    pub now: Timestamp,
}

/// The sums of a bar.
struct Bucket {
    from: Timestamp,
    successful: u64,
    failed: u64,
}

/// The width and the margins of a drawing, in SVG user units.
struct Layout {
    class: &'static str,
    width: f64,
    left: f64,
    right: f64,
    /// The number of labels on the time axis, at most.
    labels: usize,
}

const WIDE: Layout = Layout { class: "plot wide", width: 960.0, left: 56.0, right: 8.0, labels: 9 };
const NARROW: Layout = Layout { class: "plot narrow", width: 340.0, left: 44.0, right: 4.0, labels: 4 };
/// The top and the height of both panels, and the baseline of the dates.
const SESSIONS: (f64, f64) = (36.0, 132.0);
const SHARES: (f64, f64) = (208.0, 84.0);
const DATES: f64 = 310.0;
const HEIGHT: f64 = 318.0;
/// The shortest time axis in bars, so that a single day is not as wide as the page.
const MIN_BUCKETS: i64 = 14;
/// The width of a bar, where there are few.
const MAX_BAR: f64 = 28.0;
/// Characters of the description of an event.
const EVENT_CHARACTERS: usize = 200;

impl Layout {
    /// The left end and the width of a bar in the middle of its place.
    fn bar(&self, pitch: f64, place: usize) -> (f64, f64) {
        let width = (pitch * 0.8).min(MAX_BAR);
        (self.left + pitch * (place as f64 + 0.5) - width / 2.0, width)
    }
}

impl Bucket {
    fn all(&self) -> u64 {
        self.successful.saturating_add(self.failed)
    }

    /// The share that failed, in per cent; `None` without sessions.
    fn share(&self) -> Option<f64> {
        (self.all() > 0).then(|| 100.0 * self.failed as f64 / self.all() as f64)
    }
}

impl Timeline<'_> {
    /// The chart for wide and for narrow screens; the style sheet shows one of them. `None` without sessions.
    pub fn draw(&self) -> Option<String> {
        let buckets = self.buckets();
        let has_data = buckets.iter().any(|bucket| bucket.all() > 0);
        has_data.then(|| self.svg(&buckets, &WIDE) + &self.svg(&buckets, &NARROW))
    }

    /// The bars, oldest first. They begin with the first day that has data, if that is later than the range.
    fn buckets(&self) -> Vec<Bucket> {
        let length = self.range.bucket();
        let wanted = (self.range.days() + length - 1) / length;
        let first = self.days.iter().find(|day| day.successful > 0 || day.failed > 0).map(|day| day.day);
        let today = day_before(self.now, 0);
        let age = first.map_or(0, |first| today.duration_since(first).as_hours() / 24);
        let needed = (age / length + 2).max(MIN_BUCKETS).min(wanted);
        let mut buckets: Vec<Bucket> = (0..needed)
            .rev()
            .map(|back| Bucket {
                from: day_before(self.now, (back + 1) * length - 1),
                successful: 0,
                failed: 0,
            })
            .collect();
        for day in self.days {
            let back = today.duration_since(day.day).as_hours() / 24 / length;
            let place = usize::try_from(needed - 1 - back).ok().filter(|_| day.day <= today);
            if let Some(bucket) = place.and_then(|place| buckets.get_mut(place)) {
                bucket.successful = bucket.successful.saturating_add(day.successful);
                bucket.failed = bucket.failed.saturating_add(day.failed);
            }
        }
        buckets
    }

    fn svg(&self, buckets: &[Bucket], layout: &Layout) -> String {
        let (successful, failed) = buckets.iter().fold((0u64, 0u64), |(successful, failed), bucket| {
            (successful.saturating_add(bucket.successful), failed.saturating_add(bucket.failed))
        });
        let says = format!(
            "{} days: {} succeeded and {} failed ({}). The table below has the values.",
            self.range.days(),
            text::counted(successful, "session"),
            text::count(failed),
            text::percent(failed, successful.saturating_add(failed)).unwrap_or_default()
        );
        let (width, class) = (layout.width, layout.class);
        let mut out = format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"{says}\">"
        );
        let pitch = (width - layout.left - layout.right) / buckets.len().max(1) as f64;
        // The texts of the panels are drawn above the lines of events.
        self.events(&mut out, buckets, layout, pitch);
        self.sessions(&mut out, buckets, layout, pitch);
        self.shares(&mut out, buckets, layout, pitch);
        self.dates(&mut out, buckets, layout, pitch);
        self.hits(&mut out, buckets, layout, pitch);
        out + "</svg>"
    }

    fn per(&self) -> &'static str {
        if self.range.bucket() == 1 { "day" } else { "week" }
    }

    /// The panel with the sessions, succeeded and above them failed.
    fn sessions(&self, out: &mut String, buckets: &[Bucket], layout: &Layout, pitch: f64) {
        let most = buckets.iter().map(Bucket::all).max().unwrap_or(0).max(1);
        let step = step(most as f64).max(1.0);
        let top = (most as f64 / step).ceil() * step;
        axis(out, layout, SESSIONS, step, top, compact);
        let _ = write!(out, "<text class=\"panel\" x=\"0\" y=\"12\">Sessions per {}</text>", self.per());
        let (mut good, mut bad) = (String::new(), String::new());
        let (bottom, room) = (SESSIONS.0 + SESSIONS.1, SESSIONS.1);
        for (at, bucket) in buckets.iter().enumerate() {
            let (x, width) = layout.bar(pitch, at);
            let ok = scaled(bucket.successful, top as u64, room);
            bar(&mut good, x, bottom, width, ok);
            bar(&mut bad, x, bottom - ok, width, scaled(bucket.failed, top as u64, room));
        }
        let _ = write!(out, "<path class=\"good\" d=\"{good}\"/><path class=\"bad\" d=\"{bad}\"/>");
    }

    /// The panel with the share that failed, and the gate's bound.
    fn shares(&self, out: &mut String, buckets: &[Bucket], layout: &Layout, pitch: f64) {
        let bound = self.bound * 100.0;
        let most = buckets.iter().filter_map(Bucket::share).fold(bound * 2.0, f64::max).min(100.0);
        let step = step(most);
        let top = (most / step).ceil() * step;
        axis(out, layout, SHARES, step, top, |value| format!("{} %", short(value)));
        let title = SHARES.0 - 14.0;
        let _ = write!(out, "<text class=\"panel\" x=\"0\" y=\"{title}\">Share that failed</text>");
        let (bottom, room) = (SHARES.0 + SHARES.1, SHARES.1);
        let (mut within, mut above) = (String::new(), String::new());
        for (at, bucket) in buckets.iter().enumerate() {
            let (x, width) = layout.bar(pitch, at);
            let share = bucket.share().unwrap_or(0.0);
            let bars = if share > bound { &mut above } else { &mut within };
            bar(bars, x, bottom, width, room * share / top);
        }
        let (y, end) = (short(bottom - room * bound / top), layout.width - layout.right);
        let _ = write!(
            out,
            "<path class=\"within\" d=\"{within}\"/><path class=\"bad\" d=\"{above}\"/><path class=\"bound\" d=\"M{} {y}H{end}\"/><text class=\"bound\" x=\"{end}\" y=\"{title}\" text-anchor=\"end\">allowed: {}</text>",
            layout.left,
            text::bound(self.bound)
        );
    }

    fn dates(&self, out: &mut String, buckets: &[Bucket], layout: &Layout, pitch: f64) {
        let every = buckets.len().div_ceil(layout.labels).max(1);
        for (at, bucket) in buckets.iter().enumerate().filter(|(at, _)| at % every == 0) {
            let x = short(layout.left + pitch * (at as f64 + 0.5));
            // A label at the end would be cut off.
            if x + 24.0 < layout.width {
                let day = bucket.from.strftime("%m-%d");
                let _ = write!(out, "<text x=\"{x}\" y=\"{DATES}\" text-anchor=\"middle\">{day}</text>");
            }
        }
    }

    fn events(&self, out: &mut String, buckets: &[Bucket], layout: &Layout, pitch: f64) {
        let length = DAY.saturating_mul(i32::try_from(self.range.bucket()).unwrap_or(1));
        for (at, bucket) in buckets.iter().enumerate() {
            let is_in = |when: Timestamp| when >= bucket.from && when < bucket.from + length;
            let said: Vec<&str> =
                self.events.iter().filter(|(when, _)| is_in(*when)).map(|(_, what)| what.as_str()).collect();
            if said.is_empty() {
                continue;
            }
            let x = short(layout.left + pitch * (at as f64 + 0.5));
            let (top, bottom) = (SESSIONS.0 - 6.0, SHARES.0 + SHARES.1);
            let _ = write!(
                out,
                "<g class=\"event\"><path d=\"M{x} {top}V{bottom}\"/><path class=\"flag\" d=\"M{x} {top}l-5-7h10z\"/><title>{}: {}</title></g>",
                text::date(&bucket.from),
                text::escaped(&said.join("; "), EVENT_CHARACTERS)
            );
        }
    }

    /// The areas that have the values of each day as their titles.
    fn hits(&self, out: &mut String, buckets: &[Bucket], layout: &Layout, pitch: f64) {
        out.push_str("<g class=\"hits\">");
        let height = SHARES.0 + SHARES.1 - SESSIONS.0;
        for (at, bucket) in buckets.iter().enumerate() {
            let (x, width) = (short(layout.left + pitch * at as f64), short(pitch));
            let _ = write!(
                out,
                "<rect x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{height}\"><title>{}</title></rect>",
                SESSIONS.0,
                self.values(bucket)
            );
        }
        out.push_str("</g>");
    }

    /// The values of a bar in words.
    fn values(&self, bucket: &Bucket) -> String {
        let day = match self.range.bucket() {
            1 => text::date(&bucket.from),
            length => {
                let days = DAY.saturating_mul(i32::try_from(length - 1).unwrap_or(0));
                let last = bucket.from.saturating_add(days).unwrap_or(bucket.from);
                format!("{} to {}", text::date(&bucket.from), text::date(&last))
            }
        };
        match text::percent(bucket.failed, bucket.all()) {
            None => format!("{day}: no report"),
            Some(share) => format!(
                "{day}: {} succeeded, {} failed ({share})",
                text::count(bucket.successful),
                text::count(bucket.failed)
            ),
        }
    }
}

/// The lines of a scale from 0 to `top`, with their values.
fn axis(
    out: &mut String,
    layout: &Layout,
    (above, room): (f64, f64),
    step: f64,
    top: f64,
    label: impl Fn(f64) -> String,
) {
    let mut lines = String::new();
    let count = (top / step).round() as u32;
    for number in 0..=count {
        let value = step * f64::from(number);
        let y = short(above + room - room * value / top);
        let _ = write!(lines, "M{} {y}H{}", layout.left, layout.width - layout.right);
        let x = layout.left - 6.0;
        let _ = write!(out, "<text x=\"{x}\" y=\"{}\" text-anchor=\"end\">{}</text>", y + 4.0, label(value));
    }
    let _ = write!(out, "<path class=\"axis\" d=\"{lines}\"/>");
}

/// A count for an axis.
fn compact(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", short(value / 1e6)),
        1e4.. => format!("{} k", text::count((value / 1e3).round())),
        _ => text::count(value.round()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-25T12:00:00Z".parse().unwrap()
    }

    fn day(back: i64, successful: u64, failed: u64) -> DaySum {
        DaySum { day: day_before(now(), back), successful, failed, sts_sessions: 0, tainted: 0, unproved: 0 }
    }

    fn drawn(days: &[DaySum], events: &[(Timestamp, String)], range: Range) -> Option<String> {
        Timeline { days, events, bound: 0.005, range, now: now() }.draw()
    }

    #[test]
    fn a_day_has_its_values_and_the_scales_are_labelled_and_linear() {
        let days: Vec<DaySum> =
            (0..90).rev().map(|back| day(back, 17_707, if back == 3 { 46 } else { 0 })).collect();
        let svg = drawn(&days, &[], Range::Quarter).unwrap();
        assert!(svg.contains("2026-11-22: 17,707 succeeded, 46 failed (0.26 %)"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 2 * 90);
        for label in [">0<", ">20 k<", ">0.5 %<", ">1 %<", ">allowed: 0.5 %<", ">Sessions per day<"] {
            assert!(svg.contains(label), "{label}: {svg}");
        }
        // The share of 0.26 % of a scale to 1 % is 0.26 of 84.
        assert!(svg.contains("v-21.77h"), "{svg}");
        assert!(svg.len() < 40_000, "{}", svg.len());
    }

    #[test]
    fn the_axis_begins_with_the_data_and_a_year_is_drawn_by_weeks() {
        let svg = drawn(&[day(20, 5, 0), day(0, 5, 5)], &[], Range::Quarter).unwrap();
        assert_eq!(svg.matches("<rect").count(), 2 * 22);
        assert!(svg.contains("2026-11-24: no report"));
        let short = drawn(&[day(0, 5, 5)], &[], Range::Quarter).unwrap();
        assert_eq!(short.matches("<rect").count(), 2 * 14);
        let week = drawn(&[day(0, 5, 5)], &[], Range::Week).unwrap();
        assert_eq!(week.matches("<rect").count(), 2 * 7);
        let days: Vec<DaySum> = (0..365).rev().map(|back| day(back, 1, 0)).collect();
        let year = drawn(&days, &[], Range::Year).unwrap();
        assert_eq!(year.matches("<rect").count(), 2 * 53);
        assert!(year.contains("2026-11-19 to 2026-11-25: 7 succeeded, 0 failed (0 %)"), "{year}");
        assert_eq!(drawn(&[], &[], Range::Year), None);
        assert_eq!(drawn(&[day(500, 1, 1)], &[], Range::Year), None);
    }

    #[test]
    fn a_share_that_is_allowed_does_not_look_like_one_that_is_not() {
        let svg = drawn(&[day(2, 999, 1), day(1, 90, 10)], &[], Range::Week).unwrap();
        let bars = |class: &str| {
            let shares = svg.split(">Share that failed<").nth(1).unwrap();
            let path = shares.split(&format!("<path class=\"{class}\" d=\"")).nth(1).unwrap();
            path.split('"').next().unwrap().matches('M').count()
        };
        assert_eq!((bars("within"), bars("bad")), (1, 1), "{svg}");
    }

    #[test]
    fn events_are_marked_on_their_day_and_escaped() {
        let events = [(now(), "<script>".to_owned()), (now(), "second".to_owned())];
        let svg = drawn(&[day(1, 1, 0)], &events, Range::Month).unwrap();
        assert!(svg.contains("2026-11-25: &lt;script&gt;; second") && !svg.contains("<script>"));
        assert_eq!(svg.matches("class=\"event\"").count(), 2);
    }
}
