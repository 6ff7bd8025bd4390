//! A time of the week, such as `mon 08:00`, for what happens weekly. All times are in UTC.

/// A minute of the week in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeekTime {
    /// Seconds since Monday, 00:00 UTC; below 604,800.
    second: i64,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: i64 = 86_400;
/// The first Monday after the beginning of Unix time, which was a Thursday.
const FIRST_MONDAY: i64 = 4 * DAY;

impl WeekTime {
    /// Parses a day and a time of day: `mon 08:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let (day, time) = text.split_once(' ')?;
        let day = DAYS.iter().position(|name| name.eq_ignore_ascii_case(day))?;
        let (hour, minute) = time.split_once(':')?;
        let number = |text: &str, below: i64| {
            let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<i64>().ok().filter(|number| is_number && *number < below)
        };
        let day = i64::try_from(day).ok()?;
        Some(Self { second: day * DAY + number(hour, 24)? * 3600 + number(minute, 60)? * 60 })
    }

    /// The last such time that is not after `now`. Both are in seconds since 1970.
    pub fn last(self, now: i64) -> i64 {
        now - (now - FIRST_MONDAY - self.second).rem_euclid(7 * DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_week_are_parsed() {
        for (text, second) in [("mon 00:00", 0), ("Mon 08:00", 28_800), ("sun 23:59", 7 * DAY - 60)] {
            assert_eq!(WeekTime::parse(text), Some(WeekTime { second }), "{text}");
        }
        for text in
            ["", "mon", "mon 8:00", "mon 24:00", "mon 08:60", "monday 08:00", "mon 08:00 ", "mon +8:00"]
        {
            assert_eq!(WeekTime::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_time_of_the_week_is_now_or_at_most_a_week_ago() {
        // 2026-11-23 was a Monday.
        let monday = 1_795_392_000;
        let at = WeekTime::parse("mon 08:00").unwrap();
        let due = monday + 8 * 3600;
        for (now, last) in
            [(due, due), (due + 7 * DAY - 1, due), (due - 1, due - 7 * DAY), (due + 30 * DAY, due + 28 * DAY)]
        {
            assert_eq!(at.last(now), last);
        }
    }
}
