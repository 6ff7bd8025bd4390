//! Formats values for pages: counts with separators, shares in per cent, dates, relative times with the exact time behind
//! them, and names of domains in Unicode. All times are in UTC. Templates call these functions, and so do the modules that
//! compose sentences.

use askama::filters::HtmlSafe;
use formats::DomainName;
pub use formats::counted::{count, counted};
use formats::report::DateRange;
use formats::result_type::PolicyType;
use jiff::Timestamp;
use std::fmt;

/// A policy type (RFC 8460 §4.4) in the words of the other pages.
pub fn policy_type(kind: &PolicyType) -> &str {
    match kind {
        PolicyType::Sts => "MTA-STS",
        PolicyType::Tlsa => "DANE",
        PolicyType::NoPolicyFound => "no policy",
        other => other.as_str(),
    }
}

/// A link to a page of the documentation, by its name without the suffix. The program does not serve the documentation itself.
pub fn docs(page: &'static str) -> Docs {
    Docs(page)
}

/// See [`docs`].
pub struct Docs(&'static str);

impl HtmlSafe for Docs {}

impl fmt::Display for Docs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (page, repository) = (self.0, env!("CARGO_PKG_REPOSITORY"));
        write!(f, "<a href=\"{repository}/blob/main/docs/{page}.md\">docs/{page}.md</a>")
    }
}

/// A share in per cent with two digits, or fewer where they would be zero. `None` if there is no whole.
pub fn percent(part: u64, whole: u64) -> Option<String> {
    let share = 100.0 * part as f64 / whole as f64;
    Some(match (part, whole) {
        (_, 0) => return None,
        (0, _) => "0 %".to_owned(),
        _ if part >= whole => "100 %".to_owned(),
        _ if share < 0.01 => "< 0.01 %".to_owned(),
        _ if share > 99.99 => "> 99.99 %".to_owned(),
        // With one digit, it would be rounded to all of them.
        _ if share >= 99.9 => format!("{share:.2} %"),
        _ if share >= 9.995 => format!("{share:.1} %"),
        _ => format!("{share:.2} %"),
    })
}

/// A fraction from 0 to 1 as an upper bound in per cent, such as `0.5 %`; at least `0.01 %` unless it is zero.
pub fn bound(fraction: f64) -> String {
    if fraction > 0.0 && fraction < 0.000_1 {
        return "0.01 %".to_owned();
    }
    let text = format!("{:.2}", fraction * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A day, such as `2026-11-27`, as commands and reports write it.
pub fn date(at: &Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// A time to the minute, such as `2026-11-27 14:05`.
pub fn minute(at: &Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A period, such as that of a report: `2026-11-27` for a whole day, otherwise its first and its last minute.
pub fn period(start: &Timestamp, end: &Timestamp) -> String {
    let day = DateRange::utc_day(*start);
    // Some senders end a day with its last second, others with the first of the next.
    let is_day = day.start == *start && (end.duration_since(day.end).as_secs()).abs() <= 1;
    match is_day {
        true => date(start),
        false => format!("{} to {}", minute(start), minute(end)),
    }
}

/// A text of an alert or the journal, with the times in it as [`minute`] shows them.
pub fn readable(text: &str) -> String {
    let word = |word: &str| {
        let (time, rest) = word.find('Z').map_or((word, ""), |at| word.split_at(at + 1));
        let is_time = time.len() >= 20 && rest.chars().all(|c| c.is_ascii_punctuation());
        match time.parse::<Timestamp>() {
            Ok(at) if is_time => format!("{} UTC{rest}", minute(&at)),
            _ => word.to_owned(),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The time between two moments: in minutes below two hours, in hours below two days, otherwise in days.
pub fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0);
    match seconds {
        0..7_200 => counted(seconds / 60, "minute"),
        7_200..172_800 => counted(seconds / 3_600, "hour"),
        _ => counted(seconds / 86_400, "day"),
    }
}

/// A time as HTML: relative, with the exact time as its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    at: Timestamp,
    now: Timestamp,
}

/// The time `at`, seen from `now`.
pub fn ago(at: &Timestamp, now: &Timestamp) -> Moment {
    Moment { at: *at, now: *now }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = self.at.strftime("%Y-%m-%dT%H:%M:%SZ");
        let title = self.at.strftime("%Y-%m-%d %H:%M:%S UTC");
        write!(f, "<time datetime=\"{exact}\" title=\"{title}\">")?;
        let seconds = self.now.duration_since(self.at).as_secs();
        match seconds {
            -59..60 => f.write_str("just now")?,
            60.. => write!(f, "{} ago", age(self.at, self.now))?,
            _ => write!(f, "in {}", age(self.now, self.at))?,
        }
        f.write_str("</time>")
    }
}

impl HtmlSafe for Moment {}

/// When figures were read: `as of now` below a minute, otherwise with their age and time, as HTML.
pub fn as_of(at: &Timestamp, now: &Timestamp) -> AsOf {
    AsOf(ago(at, now))
}

/// The time at which figures were read, as HTML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf(Moment);

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moment { at, now } = self.0;
        match now.duration_since(at).as_secs() {
            ..60 => write!(f, "as of now, {} UTC", minute(&at)),
            _ => write!(f, "as of {}, {} UTC", self.0, minute(&at)),
        }
    }
}

impl HtmlSafe for AsOf {}

/// A day as HTML, with its age as the title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day(Moment);

/// The day of `at`, seen from `now`.
pub fn day(at: &Timestamp, now: &Timestamp) -> Day {
    Day(ago(at, now))
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moment { at, now } = self.0;
        let title = if at <= now { format!("{} ago", age(at, now)) } else { format!("in {}", age(now, at)) };
        let day = date(&at);
        write!(f, "<time datetime=\"{day}\" title=\"{title}\">{day}</time>")
    }
}

impl HtmlSafe for Day {}

/// A domain name in Unicode; any other text as it is. Names with characters that do not belong together stay A-labels.
pub fn unicode(name: &str) -> String {
    if !name.contains("xn--") {
        return name.to_owned();
    }
    DomainName::parse(name).map_or_else(|_| name.to_owned(), |name| name.to_unicode())
}

/// A domain name as HTML: in Unicode, with its A-labels as the title where they differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// The domain name `name`, or another text that a report has in its place.
pub fn name(name: impl fmt::Display) -> Name {
    Name(name.to_string())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = unicode(&self.0);
        match shown == self.0 {
            true => f.write_str(&escaped(&shown, usize::MAX)),
            false => {
                let (shown, name) = (escaped(&shown, usize::MAX), escaped(&self.0, usize::MAX));
                write!(f, "<bdi title=\"{name}\">{shown}</bdi>")
            }
        }
    }
}

impl HtmlSafe for Name {}

/// Text for HTML and SVG, without control characters and cut after `most` characters.
pub fn escaped(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().take(most) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c if is_bidi_control(c) => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

/// True for the invisible characters that change the order in which text is shown: with them, a text of a stranger could
/// look like another one (UAX #9 §2).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with a replacement character for each control character but line breaks and tabs, and for those that change the
/// order of text.
pub fn without_controls(text: String) -> String {
    let is_unwanted = |c: char| (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || is_bidi_control(c);
    match text.contains(is_unwanted) {
        true => text.replace(is_unwanted, "\u{fffd}"),
        false => text,
    }
}

/// A text for the query of a URL.
pub fn query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn names_of_documentation_pages_in_templates_are_links_to_pages_that_exist() {
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut links = 0;
        for file in std::fs::read_dir(here.join("templates")).unwrap() {
            let path = file.unwrap().path();
            let template = std::fs::read_to_string(&path).unwrap();
            assert!(!template.contains(".md"), "{} names a page without a link to it", path.display());
            for link in template.split("text::docs(\"").skip(1) {
                let page = link.split('"').next().unwrap();
                let file = here.join(format!("../../docs/{page}.md"));
                assert!(file.exists(), "{} links to {}", path.display(), file.display());
                links += 1;
            }
        }
        assert!(links > 5);
        let link = docs("install").to_string();
        assert!(
            link.starts_with("<a href=\"https://")
                && link.ends_with("/docs/install.md\">docs/install.md</a>"),
            "{link}"
        );
    }

    #[test]
    fn counts_have_separators_and_shares_have_as_many_digits_as_they_need() {
        assert_eq!(
            (counted(1, "domain"), counted(2_000, "domain")),
            ("1 domain".into(), "2,000 domains".into())
        );
        let shares = [
            (0, 5),
            (5, 5),
            (46, 17_753),
            (1, 100_000_000),
            (1, 3),
            (9_997, 10_000),
            (9_996, 100_000),
            (999_999, 1_000_000),
        ];
        let shown = shares.map(|(part, whole)| percent(part, whole).unwrap());
        assert_eq!(shown, ["0 %", "100 %", "0.26 %", "< 0.01 %", "33.3 %", "99.97 %", "10.0 %", "> 99.99 %"]);
        assert_eq!(percent(0, 0), None);
        assert_eq!([0.005, 0.0125, 1.0].map(bound), ["0.5 %", "1.25 %", "100 %"]);
    }

    #[test]
    fn times_are_relative_with_the_exact_time_behind() {
        assert_eq!(age(at(0), at(60)), "1 minute");
        assert_eq!(age(at(0), at(7_200)), "2 hours");
        assert_eq!(age(at(0), at(1_000_000)), "11 days");
        assert_eq!(age(at(10), at(0)), "0 minutes");
        let shown = ago(&at(0), &at(1_000_000)).to_string();
        assert_eq!(
            shown,
            "<time datetime=\"1970-01-01T00:00:00Z\" title=\"1970-01-01 00:00:00 UTC\">11 days ago</time>"
        );
        assert!(ago(&at(1_000_000), &at(0)).to_string().contains(">in 11 days<"));
        assert!(ago(&at(10), &at(0)).to_string().contains(">just now<"));
        assert_eq!(as_of(&at(0), &at(9)).to_string(), "as of now, 1970-01-01 00:00 UTC");
        let old = as_of(&at(0), &at(180)).to_string();
        assert!(old.contains(">3 minutes ago</time>, 1970-01-01 00:00 UTC"), "{old}");
        assert!(day(&at(0), &at(1_000_000)).to_string().contains("title=\"11 days ago\">1970-01-01<"));
    }

    #[test]
    fn a_period_of_a_whole_day_is_its_date() {
        let day = 86_400;
        for end in [day - 1, day] {
            assert_eq!(period(&at(0), &at(end)), "1970-01-01", "{end}");
        }
        assert_eq!(period(&at(0), &at(2 * day)), "1970-01-01 00:00 to 1970-01-03 00:00");
        assert_eq!(period(&at(3_600), &at(day + 3_600)), "1970-01-01 01:00 to 1970-01-02 01:00");
    }

    #[test]
    fn times_within_texts_are_readable() {
        assert_eq!(
            readable("expires at 2026-12-04T10:00:00.5Z, or so. Zoe 2026Z"),
            "expires at 2026-12-04 10:00 UTC, or so. Zoe 2026Z"
        );
    }

    #[test]
    fn internationalized_names_are_shown_in_unicode_and_everything_is_escaped() {
        assert_eq!(unicode("xn--mller-kva.example"), "müller.example");
        assert_eq!(unicode("xn--\u{0}"), "xn--\u{0}");
        assert_eq!(
            name("xn--mller-kva.example").to_string(),
            "<bdi title=\"xn--mller-kva.example\">müller.example</bdi>"
        );
        assert_eq!(name("<b>").to_string(), "&lt;b&gt;");
        assert_eq!(escaped("a\n\"'&", 4), "a &quot;&#39;");
        assert_eq!(query("a b&ü"), "a%20b%26%C3%BC");
    }

    #[test]
    fn text_of_strangers_has_no_invisible_characters() {
        let spoofed = "a\u{202e}b\u{2066}c\u{200f}d\u{1b}[2Je\u{9b}f";
        for shown in [name(spoofed).to_string(), escaped(spoofed, 99), without_controls(spoofed.to_owned())] {
            assert!(!shown.chars().any(|c| c.is_control() || is_bidi_control(c)), "{shown:?}");
            assert!(shown.contains('a') && shown.ends_with('f'), "{shown:?}");
        }
        assert_eq!(without_controls("größe\r\n\tעברית".to_owned()), "größe\r\n\tעברית");
    }
}
