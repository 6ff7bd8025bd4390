//! The version of a record: where it is, and what was written in its place.

use super::{RecordKind, slip};
use crate::causes::Cause;
use crate::causes::characters::{Place, Slip, shown};
use crate::causes::characters::{text, trim};
use crate::causes::distance::edits;

/// A record without its version: what precedes it and what follows.
pub(super) struct Version {
    pub before: Vec<Place>,
    pub after: Vec<Place>,
    /// True for a record of another protocol, whose fields mean something else.
    pub is_foreign: bool,
}

/// Protocols whose records begin with `v=`, by the beginning of the version in lower case.
const PROTOCOLS: &[(&str, &str)] = &[
    ("spf", "SPF"),
    ("dmarc", "DMARC"),
    ("dkim", "DKIM"),
    ("bimi", "BIMI"),
    ("tlsrpt", "TLS reporting"),
    ("tslrpt", "TLS reporting"),
    ("sts", "MTA-STS"),
    ("mtasts", "MTA-STS"),
    ("atps", "DKIM ATPS"),
    ("msv", "Message Security"),
    ("dkrp", "DKIM reporting"),
    ("antispam", "a mail provider"),
    ("verifydomain", "a domain verification"),
];

enum Token {
    Right,
    Case,
    Wrong,
    Foreign(&'static str),
    Unrelated,
}

fn classify(kind: RecordKind, token: &str) -> Token {
    let expected = kind.version();
    if token == expected {
        return Token::Right;
    }
    if token.eq_ignore_ascii_case(expected) {
        return Token::Case;
    }
    let plain: String =
        token.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let is_digits = plain.bytes().all(|b| b.is_ascii_digit());
    let lower = expected.to_ascii_lowercase();
    if is_digits || edits(&plain, &lower, 2).is_some() || plain.starts_with(&lower) {
        return Token::Wrong;
    }
    let names_own = match kind {
        RecordKind::Sts => plain.contains("sts"),
        RecordKind::Tlsrpt => plain.contains("rpt") || plain.starts_with("tls") || plain.contains("report"),
    };
    // What begins as another protocol is that, though it may contain the letters of this one.
    let own = match kind {
        RecordKind::Sts => "MTA-STS",
        RecordKind::Tlsrpt => "TLS reporting",
    };
    match PROTOCOLS.iter().find(|(head, name)| plain.starts_with(head) && *name != own) {
        Some((_, name)) => Token::Foreign(name),
        None if names_own => Token::Wrong,
        None => Token::Unrelated,
    }
}

/// Finds the version. `None` if nothing of the record has to do with what is expected.
pub(super) fn find(kind: RecordKind, signs: &[Place], slips: &mut Vec<Slip>) -> Option<Version> {
    match assigned(signs) {
        Some(found) => known(kind, signs, found, slips),
        None => unassigned(kind, signs, slips),
    }
}

/// Where `v=` begins, and where its value does.
#[derive(Clone, Copy)]
struct Assignment {
    begin: usize,
    value: usize,
}

/// The first `v` or `version` that is followed by `=` or `:`.
fn assigned(signs: &[Place]) -> Option<Assignment> {
    let is_word =
        |index: usize| signs.get(index).is_some_and(|(_, c)| c.is_alphanumeric() || "_-".contains(*c));
    (0..signs.len()).find_map(|begin| {
        if begin > 0 && is_word(begin - 1) {
            return None;
        }
        let word: String = signs
            .iter()
            .skip(begin)
            .map(|(_, c)| *c)
            .take_while(|c| c.is_ascii_alphabetic())
            .take(8)
            .collect();
        if !["v", "ver", "version"].contains(&word.to_ascii_lowercase().as_str()) {
            return None;
        }
        let after = skip_spaces(signs, begin + word.len());
        let is_sign = signs.get(after).is_some_and(|(_, c)| matches!(c, '=' | ':'));
        is_sign.then(|| Assignment { begin, value: skip_spaces(signs, after + 1) })
    })
}

fn skip_spaces(signs: &[Place], from: usize) -> usize {
    from + signs.iter().skip(from).take_while(|(_, c)| c.is_whitespace()).count()
}

fn at(signs: &[Place], index: usize) -> usize {
    signs.get(index).or(signs.last()).map_or(0, |(at, _)| *at)
}

fn known(kind: RecordKind, signs: &[Place], found: Assignment, slips: &mut Vec<Slip>) -> Option<Version> {
    let expected = kind.version();
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    let mut token: String =
        signs.iter().skip(found.value).map(|(_, c)| *c).take_while(|c| is_token(*c)).collect();
    // Without a separator, the name of the next field is behind the version.
    let head = token.get(..expected.len()).unwrap_or_default();
    let next = skip_spaces(signs, found.value + token.len());
    let is_joined = head.eq_ignore_ascii_case(expected)
        && token.get(expected.len()..).unwrap_or_default().starts_with(|c: char| c.is_ascii_alphabetic())
        && signs.get(next).is_some_and(|(_, c)| matches!(c, '=' | ':'));
    if is_joined {
        token.truncate(expected.len());
    }
    let end = found.value + token.len();
    let (before, after) =
        (signs.get(..found.begin).unwrap_or_default(), signs.get(end..).unwrap_or_default());
    let place = at(signs, found.value);
    let has_own = has_key(kind, before) || has_key(kind, after);
    let mut is_foreign = false;
    match classify(kind, &token) {
        Token::Right => {}
        Token::Case => slip(
            slips,
            Cause::VersionCase,
            place,
            format!("the version is {token}; it has to be {expected} exactly"),
        ),
        Token::Wrong => {
            let shown = if token.is_empty() { "empty".to_owned() } else { shown(&token, 40) };
            slip(
                slips,
                Cause::WrongVersion,
                place,
                format!("the version is {shown}, and the only one is {expected}"),
            );
        }
        Token::Foreign(protocol) => {
            is_foreign = true;
            let what = format!(
                "the version is {}: this is a record of {protocol}, not v={expected}",
                shown(&token, 40)
            );
            slip(slips, Cause::OtherProtocol, place, what);
        }
        Token::Unrelated if has_own => {
            let what = format!("the version is {}, and the only one is {expected}", shown(&token, 40));
            slip(slips, Cause::WrongVersion, place, what);
        }
        Token::Unrelated => return None,
    }
    key(signs, found, slips);
    let before = preceding(kind, before, slips);
    let after = separator(after, at(signs, end), slips);
    Some(Version { before, after, is_foreign })
}

/// Notes what deviates in `v=` itself.
fn key(signs: &[Place], found: Assignment, slips: &mut Vec<Slip>) {
    let written = text(signs.get(found.begin..found.value).unwrap_or_default());
    let place = at(signs, found.begin);
    match written.as_str() {
        "v=" => {}
        "V=" => slip(slips, Cause::KeyCase, place, "the record begins with V=, not v="),
        spaced if spaced.replace(char::is_whitespace, "") == "v=" => {
            slip(slips, Cause::SpaceInField, place, "there is white space around the `=` of v=");
        }
        other => slip(slips, Cause::NearKey, place, format!("the record has {}, not v=", other.trim())),
    }
}

/// Fields before the version are kept; other text, as of a zone file, is not.
fn preceding(kind: RecordKind, before: &[Place], slips: &mut Vec<Slip>) -> Vec<Place> {
    let before = trim(before);
    let Some((place, _)) = before.first() else { return Vec::new() };
    if before.iter().any(|(_, c)| *c == '=') || has_key(kind, before) {
        slip(
            slips,
            Cause::FieldBeforeVersion,
            *place,
            "a field precedes the version, which has to come first",
        );
        return before.to_vec();
    }
    let what = format!("`{}` precedes the version, which has to come first", shown(&text(before), 60));
    slip(slips, Cause::ZoneFileLine, *place, what);
    Vec::new()
}

/// Removes the separator between version and fields.
fn separator(after: &[Place], end: usize, slips: &mut Vec<Slip>) -> Vec<Place> {
    let rest = trim(after);
    match rest.first() {
        None => {
            slip(
                slips,
                Cause::BareVersion,
                end,
                "the record has a version and nothing else, not even the `;` behind it",
            );
            Vec::new()
        }
        Some((_, ';')) => rest.get(1..).unwrap_or_default().to_vec(),
        Some((place, c)) if !c.is_alphanumeric() && *c != '<' => {
            slip(
                slips,
                Cause::WrongSeparator,
                *place,
                format!("{c:?} is in the place of the `;` after the version"),
            );
            rest.get(1..).unwrap_or_default().to_vec()
        }
        Some((place, _)) => {
            slip(slips, Cause::MissingSemicolon, *place, "there is no `;` after the version");
            rest.to_vec()
        }
    }
}

/// A record without `v=`: one that begins with the version's value, or that has the fields.
fn unassigned(kind: RecordKind, signs: &[Place], slips: &mut Vec<Slip>) -> Option<Version> {
    let expected = kind.version();
    let word: String = signs.iter().map(|(_, c)| *c).take_while(char::is_ascii_alphanumeric).collect();
    let is_version = matches!(classify(kind, &word), Token::Right | Token::Case | Token::Wrong)
        && !word.bytes().all(|byte| byte.is_ascii_digit());
    if is_version {
        slip(
            slips,
            Cause::NoVersion,
            at(signs, 0),
            format!("the record begins with {}, not v={expected}", shown(&word, 40)),
        );
        let rest = signs.get(word.len()..).unwrap_or_default();
        let after = separator(rest, at(signs, word.len()), slips);
        return Some(Version { before: Vec::new(), after, is_foreign: false });
    }
    if !has_key(kind, signs) {
        return None;
    }
    slip(
        slips,
        Cause::NoVersion,
        at(signs, 0),
        format!("the record has no version; it has to begin with v={expected};"),
    );
    Some(Version { before: Vec::new(), after: signs.to_vec(), is_foreign: false })
}

/// True if the text has the field of the record, a report target, or the lines of a policy.
fn has_key(kind: RecordKind, signs: &[Place]) -> bool {
    let lower = text(signs).to_ascii_lowercase().replace([' ', '\t'], "");
    let has = |key: &str| {
        lower.match_indices(key).any(|(at, _)| {
            let before = lower.get(..at).unwrap_or_default().chars().next_back();
            before.is_none_or(|c| !c.is_ascii_alphanumeric())
        })
    };
    match kind {
        RecordKind::Sts => has("id=") || has("id:") || has("max_age:") || has("max_age="),
        RecordKind::Tlsrpt => has("rua=") || has("rua:") || has("ruf=mailto") || has("mailto:"),
    }
}
