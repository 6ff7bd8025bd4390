//! The verdict about all domains in one sentence, the bar of their modes, and the figures.

use super::{DAY, OverviewQuery};
use crate::incidents::worst_day;
use crate::judge::Mark;
use crate::snapshot::{ENDS_SOON, Group, Snapshot, Totals};
use crate::text;
use jiff::Timestamp;

/// A figure about all domains.
pub struct Figure {
    pub label: &'static str,
    pub value: String,
    pub note: String,
    /// The CSS class of its state; empty for a neutral one.
    pub class: &'static str,
    /// The link to the domains behind it; may be empty.
    pub link: String,
}

/// The answer to "is anything wrong?" in one sentence.
pub fn verdict(totals: &Totals) -> String {
    let Totals { all, enforced, action, risk, .. } = *totals;
    let of_all = |some: usize| match all {
        1 => "The domain".to_owned(),
        _ if some == all => format!("All {} domains", text::count(all)),
        _ => format!("{} of {} domains", text::count(some), text::count(all)),
    };
    match (action, risk) {
        (0, _) if enforced == all => format!("{} enforced, and nothing needs action", are(&of_all(all), all)),
        (0, _) => match enforced {
            0 => "Nothing needs action".to_owned(),
            _ => format!("Nothing needs action; {} enforced", are(&of_all(enforced), enforced)),
        },
        (1, 0) => format!("{} needs action", of_all(1)),
        (some, 0) => format!("{} need action", of_all(some)),
        (_, risk) => at_risk(risk, action.saturating_sub(risk), all),
    }
}

/// The domains whose mail is at risk come first, then the others that need action.
fn at_risk(risk: usize, more: usize, all: usize) -> String {
    let risk = match risk {
        1 if all == 1 => "Mail to the domain is at risk".to_owned(),
        _ if risk == all => format!("Mail is at risk for all {} domains", text::count(all)),
        _ => format!("Mail is at risk for {} of {} domains", text::count(risk), text::count(all)),
    };
    match more {
        0 => risk,
        1 => format!("{risk}; 1 more needs action"),
        more => format!("{risk}; {} more need action", text::count(more)),
    }
}

fn are(what: &str, count: usize) -> String {
    format!("{what} {}", if count == 1 { "is" } else { "are" })
}

/// The most urgent group in one sentence.
pub fn lead(group: &Group) -> String {
    let what = group.what.trim_end_matches('.');
    match group.domains.as_slice() {
        [one] if what.contains(one.as_str()) => format!("{what}."),
        [one] => format!("{}: {what}.", text::unicode(one)),
        many => format!("{what}, for {}.", text::counted(many.len(), "domain")),
    }
}

/// The CSS class and the sign of the verdict.
pub fn verdict_mark(totals: &Totals) -> Mark {
    match (totals.risk, totals.action) {
        (1.., _) => Mark("failing", "✗"),
        (0, 1..) => Mark("waiting", "!"),
        (0, 0) if totals.enforced == totals.all => Mark("fine", "✓"),
        (0, 0) => Mark("way", "·"),
    }
}

/// The domains in one mode: a segment of the bar below the verdict, and its line in the legend.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    /// The CSS class, which is also the state in the link.
    pub class: &'static str,
    pub label: &'static str,
    pub count: usize,
    pub note: String,
    pub link: String,
    /// Where the segment begins, and its width, in thousandths of the bar.
    pub from: usize,
    pub width: usize,
}

/// Thousandths of the bar that every mode with a domain has at least: one of 100,000 domains is still to be seen.
const MIN_WIDTH: usize = 8;

/// The bar of all domains by mode.
pub fn segments(totals: &Totals) -> Vec<Segment> {
    let Totals { all, enforced, testing, unset, .. } = *totals;
    let retiring = all.saturating_sub(enforced).saturating_sub(testing).saturating_sub(unset);
    let modes = [
        ("enforced", "enforced", enforced),
        ("testing", "in testing", testing),
        ("retiring", "retiring", retiring),
        ("unset", "not set up", unset),
    ];
    let mut segments = Vec::new();
    for (class, label, count) in modes.into_iter().filter(|(.., count)| *count > 0) {
        let width = (count * 1_000 / all.max(1)).max(MIN_WIDTH);
        segments.push(Segment {
            class,
            label,
            count,
            note: if class == "enforced" { enforced_since(totals) } else { String::new() },
            // There is no filter for domains whose policy is being removed.
            link: if class == "retiring" {
                String::new()
            } else {
                OverviewQuery::default().link(&[("state", class)])
            },
            from: 0,
            width,
        });
    }
    // What the small ones have too much, the largest gives.
    let excess = segments.iter().map(|segment| segment.width).sum::<usize>() as isize - 1_000;
    if let Some(largest) = segments.iter_mut().max_by_key(|segment| segment.width) {
        largest.width = largest.width.saturating_add_signed(-excess);
    }
    let mut from = 0;
    for segment in &mut segments {
        segment.from = from;
        from += segment.width;
    }
    segments
}

/// Since when the enforced domains are enforced; empty if none is.
pub fn enforced_since(totals: &Totals) -> String {
    let (Some(first), Some(last)) = (totals.first_enforced, totals.last_enforced) else {
        return String::new();
    };
    match (text::date(&first), text::date(&last)) {
        (first, last) if first == last => format!("since {first}"),
        (first, last) => format!("the first since {first}, the last since {last}"),
    }
}

/// The figures about all domains.
pub fn figures(snapshot: &Snapshot, bound: f64, now: Timestamp) -> Vec<Figure> {
    let plain = OverviewQuery::default();
    let Totals { sessions, failed, .. } = snapshot.totals;
    let figure = |label, value, note, class, link| Figure { label, value, note, class, link };
    let ending_note = format!("within {} days, or overdue", ENDS_SOON.as_hours() / 24);
    let is_above = failed as f64 > bound * sessions as f64;
    let worst = worst_day(snapshot.sums.iter().filter(|day| day.day + DAY * 30 > now));
    vec![
        figure(
            "Sessions",
            text::count(sessions),
            "30 days, verified reports".to_owned(),
            "",
            "/senders".to_owned(),
        ),
        figure(
            "Failed",
            text::percent(failed, sessions).unwrap_or_else(|| "no data yet".to_owned()),
            match (sessions, worst) {
                (0, _) => "no report has arrived".to_owned(),
                (_, Some(worst)) => format!("worst day: {} on {}", worst.share(), text::date(&worst.day)),
                (_, None) => "on no day".to_owned(),
            },
            if is_above { "failing" } else { "" },
            plain.link(&[("sort", "failed"), ("dir", "desc")]),
        ),
        figure(
            "Certificates ending",
            text::count(snapshot.ending),
            match snapshot.totals.first_expiry.is_some_and(|end| end <= now) {
                true => "some have expired".to_owned(),
                false => ending_note,
            },
            if snapshot.ending > 0 { "waiting" } else { "" },
            plain.link(&[("sort", "certificate")]),
        ),
    ]
}
