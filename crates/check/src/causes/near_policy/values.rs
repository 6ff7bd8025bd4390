//! The values of a policy file, corrected without loss of what the owner wrote.

use super::{Line, slip};
use crate::causes::Cause;
use crate::causes::characters::{Slip, shown};
use crate::causes::distance::edits;
use formats::limits::MAX_AGE_SECONDS;
use formats::{DomainName, Mode, MxPattern};

/// Removes quotes, comments, punctuation at the end, and the brackets of a template.
pub(super) fn bare(line: &Line, slips: &mut Vec<Slip>) -> String {
    let place = line.value_place;
    let mut value = line.value.clone();
    if let Some(at) = [" #", "\t#", " //", " ;"].iter().filter_map(|mark| value.find(mark)).min() {
        slip(
            slips,
            Cause::Comment,
            place,
            format!("there is a comment behind the value of {}, and the format has none", line.key),
        );
        value.truncate(at);
    }
    let mut trimmed = value.trim_end().trim_end_matches([';', ',']).trim_end();
    if trimmed.len() != value.trim_end().len() {
        slip(slips, Cause::Punctuation, place, format!("the value of {} ends in punctuation", line.key));
    }
    let unquoted = trimmed.trim_matches(|c| matches!(c, '"' | '\'' | '`'));
    if unquoted.len() != trimmed.len() {
        slip(slips, Cause::Quotes, place, format!("the value of {} is in quotes", line.key));
        trimmed = unquoted;
    }
    // RFC 5321 address literals, such as [192.0.2.1], are not templates.
    let is_address = trimmed.starts_with('[') && trimmed.bytes().any(|byte| byte.is_ascii_digit());
    let is_bracket = |c: char| "<>{}[]$%()".contains(c);
    if trimmed.contains(is_bracket) && !is_address {
        slip(
            slips,
            Cause::Template,
            place,
            format!("{} is a placeholder, or has brackets that do not belong there", shown(trimmed, 60)),
        );
        return trimmed.replace(is_bracket, "").trim().to_owned();
    }
    trimmed.trim().to_owned()
}

pub(super) fn version(value: &str, line: &Line, slips: &mut Vec<Slip>) {
    let place = line.value_place;
    match value {
        "STSv1" => {}
        _ if value.eq_ignore_ascii_case("STSv1") => {
            slip(
                slips,
                Cause::ValueCase,
                place,
                format!("the version is {value}; it has to be STSv1 exactly"),
            );
        }
        // What follows is a record, as `STSv1; id=…`.
        _ if value.starts_with("STSv1") && value.contains("id=") => {
            slip(
                slips,
                Cause::RecordInPolicy,
                place,
                "the text of the _mta-sts record is in the policy file",
            );
        }
        _ => slip(
            slips,
            Cause::NearValue,
            place,
            format!("the version is {}, and the only one is STSv1", shown(value, 40)),
        ),
    }
}

/// Words that people write for the modes.
const MODES: &[(&str, Mode)] = &[
    ("enforced", Mode::Enforce),
    ("enforcing", Mode::Enforce),
    ("enforcement", Mode::Enforce),
    ("strict", Mode::Enforce),
    ("test", Mode::Testing),
    ("tested", Mode::Testing),
    ("report", Mode::Testing),
    ("report-only", Mode::Testing),
    ("reporting", Mode::Testing),
    ("monitor", Mode::Testing),
    ("monitoring", Mode::Testing),
    ("off", Mode::None),
    ("disabled", Mode::None),
    ("no", Mode::None),
];

pub(super) fn mode(value: &str, line: &Line, slips: &mut Vec<Slip>) -> Option<Mode> {
    let place = line.value_place;
    if let Some(mode) = Mode::parse(value) {
        return Some(mode);
    }
    let lower = value.to_ascii_lowercase();
    if let Some(mode) = Mode::parse(&lower) {
        slip(slips, Cause::ValueCase, place, format!("the mode is {value}; modes are in lower case"));
        return Some(mode);
    }
    let all = [Mode::Enforce, Mode::Testing, Mode::None];
    let most = if lower.len() > 5 { 2 } else { 1 };
    let near = all.into_iter().find(|mode| edits(&lower, mode.as_str(), most).is_some());
    let meant = MODES.iter().find(|(word, _)| *word == lower).map(|(_, mode)| *mode).or(near);
    let more = meant.map(|mode| format!("; did you mean {mode}?")).unwrap_or_default();
    slip(
        slips,
        Cause::NearValue,
        place,
        format!("the mode is {}, not enforce, testing or none{more}", shown(value, 40)),
    );
    meant
}

pub(super) fn max_age(value: &str, line: &Line, slips: &mut Vec<Slip>) -> Option<u32> {
    let place = line.value_place;
    if (1..=10).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return value.parse::<u64>().ok().map(capped);
    }
    slip(
        slips,
        Cause::Number,
        place,
        format!("max_age is {}; it has to be seconds in 1 to 10 digits", shown(value, 40)),
    );
    let lower = value.to_ascii_lowercase();
    let unit = lower.trim_start_matches(|c: char| c.is_ascii_digit() || " ,._'+".contains(c)).trim();
    let digits: String = lower
        .get(..lower.len() - unit.len())
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_digit)
        .take(12)
        .collect();
    let seconds: u64 = match unit {
        "" | "s" | "sec" | "secs" | "second" | "seconds" | "sekunden" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 604_800,
        "month" | "months" => 2_592_000,
        "y" | "year" | "years" => 31_557_600,
        _ => return None,
    };
    digits.parse::<u64>().ok().map(|number| capped(number.saturating_mul(seconds)))
}

fn capped(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX).min(MAX_AGE_SECONDS)
}

/// The patterns that a value was meant to be.
pub(super) fn mx(value: &str, line: &Line, slips: &mut Vec<Slip>) -> Vec<MxPattern> {
    let place = line.value_place;
    if let Ok(pattern) = MxPattern::parse(value) {
        return vec![pattern];
    }
    let mut words: Vec<&str> = value
        .split(|c: char| c.is_whitespace() || ",;|".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    if let [first, _, ..] = words.as_slice()
        && first.bytes().all(|byte| byte.is_ascii_digit())
    {
        slip(
            slips,
            Cause::MxPreference,
            place,
            format!("{} has a preference, which belongs to MX records only", shown(value, 80)),
        );
        words.remove(0);
    }
    if words.len() > 1 {
        slip(
            slips,
            Cause::MxList,
            place,
            format!("{} hosts are in one line; each needs a line `mx: …` of its own", words.len()),
        );
    }
    if words.is_empty() {
        slip(slips, Cause::BadLine, place, format!("{} has no value", line.key));
    }
    words.iter().filter_map(|word| one_mx(word, place, slips)).collect()
}

fn one_mx(word: &str, place: (usize, usize), slips: &mut Vec<Slip>) -> Option<MxPattern> {
    let word = word.trim_matches(|c: char| "\"'<>()".contains(c));
    if let Ok(pattern) = MxPattern::parse(word) {
        return Some(pattern);
    }
    let mut host = word;
    for scheme in ["https://", "http://", "smtp://", "smtps://", "smtp:", "mx:", "mx="] {
        if let Some(rest) = host.strip_prefix(scheme) {
            slip(slips, Cause::MxAddress, place, format!("{} is a URL, not a host name", shown(word, 80)));
            host = rest.split('/').next().unwrap_or_default();
        }
    }
    if host.contains('@') {
        slip(
            slips,
            Cause::MxAddress,
            place,
            format!("{} is a mail address, not the name of an MX host", shown(word, 80)),
        );
        return None;
    }
    if let Some((name, port)) = host.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && !name.contains(':')
    {
        slip(
            slips,
            Cause::MxAddress,
            place,
            format!("{} has a port, and MX hosts always have port 25", shown(word, 80)),
        );
        host = name;
    }
    let wildcard = host
        .strip_prefix("*.")
        .or(host.strip_prefix('.'))
        .or(host.strip_prefix('*'))
        .or(host.strip_prefix("%."));
    if let Some(parent) = wildcard {
        if !host.starts_with("*.") {
            slip(
                slips,
                Cause::MxWildcard,
                place,
                format!("{} is not a wildcard; one is written `*.` and a host name", shown(word, 80)),
            );
        }
        let pattern =
            DomainName::parse(parent).ok().and_then(|name| MxPattern::parse(&format!("*.{name}")).ok());
        return fitting(pattern, word, place, slips);
    }
    let pattern = DomainName::parse(host).ok().and_then(|name| MxPattern::exact(&name).ok());
    fitting(pattern, word, place, slips)
}

/// Notes a value that can't be a pattern, and one that only becomes one by another spelling.
fn fitting(
    pattern: Option<MxPattern>,
    word: &str,
    place: (usize, usize),
    slips: &mut Vec<Slip>,
) -> Option<MxPattern> {
    match &pattern {
        None => slip(slips, Cause::MxAddress, place, format!("{} is not a host name", shown(word, 80))),
        Some(pattern) if !word.is_ascii() => {
            slip(slips, Cause::MxAddress, place, format!("{} has to be written {pattern}", shown(word, 80)));
        }
        Some(_) => {}
    }
    pattern
}
