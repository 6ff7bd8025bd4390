//! The times of a report's range (RFC 8460 §4.4, RFC 3339), with what other programs write instead: no offset, a number of
//! seconds or milliseconds since 1970, the hour 24 of ISO 8601.

use super::{Json, Members, Quirk, ReadError, Reader, find, join};
use jiff::{SignedDuration, Timestamp};

/// Characters of a time that are read.
const CHARACTERS: usize = 64;
/// Seconds since 1970 are below this number (the year 5138), milliseconds above it (1973).
const MILLISECONDS_FROM: u64 = 100_000_000_000;

impl Reader<'_> {
    /// The time of the member `name` of the range.
    pub(super) fn time(&mut self, members: &Members, name: &str) -> Result<Timestamp, ReadError> {
        let path = join("date-range", name);
        let fail = |problem: String| ReadError::Member { path: path.clone(), problem };
        let (time, quirks) = match find(members, name) {
            Some(Json::Text(text)) => of_text(text.trim()).map_err(fail)?,
            Some(Json::Count(number)) => of_number(*number).map_err(fail)?,
            // Truncated to a whole second. A value outside of the range becomes the nearest end, and then an error.
            Some(Json::Number(number)) if *number >= 0.0 => of_number(*number as u64).map_err(fail)?,
            Some(other) => return Err(fail(format!("{} where a time was expected", other.kind()))),
            None => return Err(fail("missing".into())),
        };
        for quirk in quirks {
            self.warn(&path, quirk);
        }
        Ok(time)
    }
}

type Read = Result<(Timestamp, Vec<Quirk>), String>;

fn of_text(text: &str) -> Read {
    let clipped: String = text.chars().take(CHARACTERS).collect();
    if let Ok(number) = clipped.parse::<u64>() {
        return of_number(number);
    }
    if let Ok(time) = clipped.parse::<Timestamp>() {
        let mut quirks = Vec::new();
        if !text.ends_with(['Z', 'z']) {
            quirks.push(Quirk::Offset);
        }
        if time.subsec_nanosecond() != 0 || text.contains('.') {
            quirks.push(Quirk::FractionalSeconds);
        }
        return Ok((time, quirks));
    }
    if let Some(midnight) = of_hour_24(&clipped) {
        let (time, mut quirks) = of_text(&midnight)?;
        quirks.push(Quirk::HourTwentyFour);
        let next = time.checked_add(SignedDuration::from_hours(24));
        return next.map(|time| (time, quirks)).map_err(|_| format!("{clipped:?} is out of range"));
    }
    let civil: jiff::civil::DateTime =
        clipped.parse().map_err(|_| format!("{clipped:?} is not an RFC 3339 time"))?;
    let time = jiff::tz::TimeZone::UTC.to_timestamp(civil);
    time.map(|time| (time, vec![Quirk::NoOffset])).map_err(|_| format!("{clipped:?} is out of range"))
}

fn of_number(number: u64) -> Read {
    let signed = i64::try_from(number).unwrap_or(i64::MAX);
    let time = match number < MILLISECONDS_FROM {
        true => Timestamp::from_second(signed),
        false => Timestamp::from_millisecond(signed),
    };
    time.map(|time| (time, vec![Quirk::EpochTime])).map_err(|_| format!("{number} is out of range"))
}

/// The same text with the hour 0, if its time is 24:00 or 24:00:00.
fn of_hour_24(text: &str) -> Option<String> {
    let (date, rest) = text.split_at_checked(10)?;
    let separator = rest.get(..1)?;
    let time = rest.get(1..)?.strip_prefix("24:00")?;
    let after = time.strip_prefix(":00").unwrap_or(time);
    let is_whole = after.starts_with(['Z', 'z', '+', '-']) || after.is_empty();
    is_whole.then(|| format!("{date}{separator}00:00:00{after}"))
}
