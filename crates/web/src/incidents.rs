//! Days on which more sessions failed than the gate allows. An average over a month hides them: six days of an outage are
//! 0.2 % of the month. The pages show the worst day beside each average, and the days of the outage in words.

use crate::text;
use jiff::{SignedDuration, Timestamp};
use store::reports::{DaySum, FailureGroup};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The day with the largest share of failed sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorstDay {
    /// The first second of the day.
    pub day: Timestamp,
    pub failed: u64,
    /// All sessions of the day.
    pub sessions: u64,
}

impl WorstDay {
    /// The share that failed.
    pub fn share(&self) -> String {
        text::percent(self.failed, self.sessions).unwrap_or_default()
    }
}

/// Consecutive days on which more failed than allowed. A day without sessions does not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Incident {
    /// The first seconds of the first and the last of the days.
    first: Timestamp,
    last: Timestamp,
    failed: u64,
    /// All sessions of the days.
    sessions: u64,
    worst: WorstDay,
}

fn sessions(day: &DaySum) -> u64 {
    day.successful.saturating_add(day.failed)
}

/// True if the share that failed is larger.
fn is_worse(one: &WorstDay, other: &WorstDay) -> bool {
    u128::from(one.failed) * u128::from(other.sessions) > u128::from(other.failed) * u128::from(one.sessions)
}

/// The worst of these days, the first of equal ones; `None` if no session failed on any.
pub fn worst_day<'d>(days: impl Iterator<Item = &'d DaySum>) -> Option<WorstDay> {
    let failed = days.filter(|day| day.failed > 0);
    failed
        .map(|day| WorstDay { day: day.day, failed: day.failed, sessions: sessions(day) })
        .reduce(|worst, day| if is_worse(&day, &worst) { day } else { worst })
}

/// The incidents on these days, which are in the order of time. `bound` is the share that is allowed, from 0 to 1.
fn incidents<'d>(days: impl Iterator<Item = &'d DaySum>, bound: f64) -> Vec<Incident> {
    let mut found: Vec<Incident> = Vec::new();
    let mut goes_on = false;
    for day in days.filter(|day| sessions(day) > 0) {
        let worst = WorstDay { day: day.day, failed: day.failed, sessions: sessions(day) };
        let is_above = day.failed as f64 > bound * worst.sessions as f64;
        match found.last_mut().filter(|_| goes_on && is_above) {
            Some(last) => {
                last.last = day.day;
                last.failed = last.failed.saturating_add(day.failed);
                last.sessions = last.sessions.saturating_add(worst.sessions);
                if is_worse(&worst, &last.worst) {
                    last.worst = worst;
                }
            }
            None if is_above => found.push(Incident {
                first: day.day,
                last: day.day,
                failed: day.failed,
                sessions: worst.sessions,
                worst,
            }),
            None => {}
        }
        goes_on = is_above;
    }
    found
}

impl Incident {
    /// Its days, such as `2026-11-04 to 2026-11-09`.
    fn days(&self) -> String {
        match self.first == self.last {
            true => text::date(&self.first),
            false => format!("{} to {}", text::date(&self.first), text::date(&self.last)),
        }
    }

    /// What happened, in one sentence.
    fn sentence(&self) -> String {
        let share = text::percent(self.failed, self.sessions).unwrap_or_default();
        let of = format!("{} of {}", text::count(self.failed), text::counted(self.sessions, "session"));
        // Days that were equally bad have no worst one.
        match self.first == self.last || self.worst.share() == share {
            true => format!("{of} failed ({share})."),
            false => format!(
                "{of} failed ({share}), and {} on the worst day, {}.",
                self.worst.share(),
                text::date(&self.worst.day)
            ),
        }
    }

    /// What senders reported about its days, such as `certificate-expired at mx1.example.org`; empty if nothing that counts.
    fn causes(&self, groups: &[FailureGroup]) -> String {
        let is_of = |group: &&FailureGroup| {
            group.counts && group.first < self.last + DAY && group.last + DAY > self.first
        };
        let cause = |group: &FailureGroup| match group.host.as_str() {
            "" => group.result_type.clone(),
            host => format!("{} at {}", group.result_type, text::unicode(host)),
        };
        let named: Vec<String> = groups.iter().filter(is_of).take(2).map(cause).collect();
        named.join(", ")
    }
}

/// An incident in words.
pub struct IncidentLine {
    pub days: String,
    pub what: String,
    /// What senders reported about these days; may be empty.
    pub causes: String,
}

/// The last `most` incidents on these days, the newest first, with what senders reported.
pub fn incident_lines<'d>(
    days: impl Iterator<Item = &'d DaySum>,
    bound: f64,
    groups: &[FailureGroup],
    most: usize,
) -> Vec<IncidentLine> {
    let line = |incident: Incident| IncidentLine {
        days: incident.days(),
        what: incident.sentence(),
        causes: incident.causes(groups),
    };
    incidents(days, bound).into_iter().rev().take(most).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).unwrap()
    }

    fn day(number: i64, successful: u64, failed: u64) -> DaySum {
        DaySum { day: at(number), successful, failed, sts_sessions: 0, tainted: 0, unproved: 0 }
    }

    #[test]
    fn an_average_within_the_bound_does_not_hide_the_days_of_an_outage() {
        // 0.2 % of all sessions, but 1 % and 2 % on three days.
        let mut days: Vec<DaySum> = (0..30).map(|number| day(number, 1_000, 0)).collect();
        days[10] = day(10, 990, 10);
        days[11] = day(11, 0, 0);
        days[12] = day(12, 980, 20);
        days[20] = day(20, 999, 1);
        days[28] = day(28, 900, 100);
        let worst = worst_day(days.iter()).unwrap();
        assert_eq!((worst.day, worst.share().as_str()), (at(28), "10.0 %"));
        let found = incidents(days.iter(), 0.005);
        let shown: Vec<(String, String)> =
            found.iter().map(|incident| (incident.days(), incident.sentence())).collect();
        let expected = [
            (
                "1970-01-11 to 1970-01-13",
                "30 of 2,000 sessions failed (1.50 %), and 2.00 % on the worst day, 1970-01-13.",
            ),
            ("1970-01-29", "100 of 1,000 sessions failed (10.0 %)."),
        ];
        assert_eq!(shown, expected.map(|(days, sentence)| (days.to_owned(), sentence.to_owned())));
    }

    #[test]
    fn days_that_are_good_again_end_an_incident_and_what_is_allowed_is_none() {
        let days = [day(1, 9, 1), day(2, 10, 0), day(3, 9, 1), day(4, 1_000, 5)];
        assert_eq!(incidents(days.iter(), 0.005).len(), 2);
        assert_eq!(incidents(days.iter().skip(3), 0.005), []);
        assert_eq!(worst_day([day(1, 10, 0), day(2, 0, 0)].iter()), None);
        assert_eq!(worst_day(days.iter()).unwrap().day, at(1), "the first of equal days");
    }

    #[test]
    fn an_incident_names_what_senders_reported_about_its_days() {
        let group = |result: &str, host: &str, first, last, counts| FailureGroup {
            result_type: result.into(),
            host: host.into(),
            counts,
            sessions: 5,
            senders: 1,
            sender: "big.example".into(),
            addresses: 1,
            address: String::new(),
            first: at(first),
            last: at(last),
            report: 1,
        };
        let groups = [
            group("certificate-expired", "mx1.a.example", 4, 9, true),
            group("validation-failure", "", 7, 7, true),
            group("starttls-not-supported", "mx1.a.example", 9, 9, true),
            group("tlsa-invalid", "", 7, 7, false),
        ];
        let days = [day(7, 9, 1), day(8, 9, 1)];
        let incident = incidents(days.iter(), 0.005).remove(0);
        assert_eq!(incident.causes(&groups), "certificate-expired at mx1.a.example, validation-failure");
        assert_eq!(incident.causes(&groups[3..]), "");
    }
}
