//! The verdict about all domains in one sentence, and the figures below it.

use super::{DAY, OverviewQuery};
use crate::incidents::worst_day;
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

/// The figures about all domains.
pub fn figures(snapshot: &Snapshot, bound: f64, now: Timestamp) -> Vec<Figure> {
    let plain = OverviewQuery::default();
    let Totals { all, enforced, risk, action, sessions, failed, .. } = snapshot.totals;
    let (first, last) = (snapshot.totals.first_enforced, snapshot.totals.last_enforced);
    let figure = |label, value, note, class, link| Figure { label, value, note, class, link };
    let state = |state| plain.link(&[("state", state)]);
    let ending_note = format!("within {} days, or overdue", ENDS_SOON.as_hours() / 24);
    let is_above = failed as f64 > bound * sessions as f64;
    let worst = worst_day(snapshot.sums().iter().filter(|day| day.day + DAY * 30 > now));
    vec![
        match risk {
            0 => figure(
                "Action needed",
                text::count(action),
                "no mail at risk is known".to_owned(),
                if action > 0 { "waiting" } else { "" },
                state("action"),
            ),
            risk => figure(
                "Mail at risk",
                text::counted(risk, "domain"),
                match action.saturating_sub(risk) {
                    0 => "no other needs action".to_owned(),
                    1 => "1 more needs action".to_owned(),
                    more => format!("{} more need action", text::count(more)),
                },
                "failing",
                state("risk"),
            ),
        },
        figure(
            "Enforced",
            format!("{} of {}", text::count(enforced), text::count(all)),
            match (first, last) {
                (_, Some(last)) if enforced == all => format!("all since {}", text::date(&last)),
                (Some(first), _) => format!("the first since {}", text::date(&first)),
                _ => "none yet".to_owned(),
            },
            if enforced == all { "fine" } else { "" },
            state("enforced"),
        ),
        figure(
            "In testing",
            text::count(snapshot.totals.testing),
            format!("{} not set up", text::count(snapshot.totals.unset)),
            "",
            state("testing"),
        ),
        figure("Sessions", text::count(sessions), "30 days, verified reports".to_owned(), "", String::new()),
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
