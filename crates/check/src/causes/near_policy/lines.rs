//! The lines of a policy file that deviates from the grammar, as `key` and `value`, without what is not part of the file.

use super::{Spot, key_of, slip};
use crate::causes::Cause;
use crate::causes::characters::{Slip, shown};

/// A line with a key, or with something in its place.
pub(super) struct Line {
    /// Where the key begins.
    pub place: (usize, usize),
    /// Where the value begins.
    pub value_place: (usize, usize),
    pub key: String,
    pub value: String,
    /// The line as written.
    pub raw: String,
}

/// The text that begins comments.
const COMMENTS: &[&str] = &["#", "//", ";", "--", "/*", "<!--", "*/"];

pub(super) fn lines(text: &[Spot], slips: &mut Vec<Slip>) -> Vec<Line> {
    let page = without_tags(text, slips);
    let raw = broken(&page, slips);
    let last = raw.iter().rposition(|line| !trim(line).is_empty()).map_or(0, |last| last + 1);
    let mut found = Vec::new();
    for (number, line) in raw.iter().take(last).enumerate() {
        let Some((place, _)) = trim(line).first().copied() else {
            // Lines before the first one with text are part of the file as well.
            let place = line.first().map_or((number + 1, 1), |(place, _)| *place);
            slip(
                slips,
                Cause::BlankLine,
                place,
                "there is an empty line, which ends the policy for most senders",
            );
            continue;
        };
        if line.first().is_some_and(|(_, c)| c.is_whitespace()) && is_content(line) {
            slip(
                slips,
                Cause::LeadingSpace,
                line.first().map_or(place, |(place, _)| *place),
                "white space precedes the key",
            );
        }
        for part in one_line(trim(line), slips) {
            found.extend(read(&part, slips));
        }
    }
    found
}

fn is_content(line: &[Spot]) -> bool {
    let line = trim(line);
    !COMMENTS.iter().any(|mark| text(line).starts_with(mark))
}

pub(super) fn text(part: &[Spot]) -> String {
    part.iter().map(|(_, c)| *c).collect()
}

pub(super) fn trim(part: &[Spot]) -> &[Spot] {
    let is_space = |spot: &Spot| spot.1.is_whitespace();
    let begin = part.iter().position(|spot| !is_space(spot)).unwrap_or(part.len());
    let end = part.iter().rposition(|spot| !is_space(spot)).map_or(begin, |last| last + 1);
    part.get(begin..end).unwrap_or_default()
}

/// Removes the tags of a web page, each of which ends a line.
fn without_tags(whole: &[Spot], slips: &mut Vec<Slip>) -> Vec<Spot> {
    let head: String = text(trim(whole)).chars().take(200).collect::<String>().to_ascii_lowercase();
    let is_page = ["<!doctype", "<html", "<head", "<body", "<pre", "<p>", "<div", "<br", "<?xml"]
        .iter()
        .any(|tag| head.starts_with(tag));
    if !is_page {
        return whole.to_vec();
    }
    slip(
        slips,
        Cause::WebPage,
        whole.first().map_or((1, 1), |(place, _)| *place),
        "the policy is inside a web page",
    );
    let (mut out, mut is_tag) = (Vec::with_capacity(whole.len()), false);
    for (place, c) in whole {
        match c {
            '<' => is_tag = true,
            '>' => {
                is_tag = false;
                out.push((*place, '\n'));
            }
            _ if !is_tag => out.push((*place, *c)),
            _ => {}
        }
    }
    // Empty lines are those of the page.
    let lines: Vec<&[Spot]> = out.split(|(_, c)| *c == '\n').filter(|line| !trim(line).is_empty()).collect();
    lines.join(&((0, 0), '\n'))
}

/// Splits at line ends, also at those that are written out.
fn broken(whole: &[Spot], slips: &mut Vec<Slip>) -> Vec<Vec<Spot>> {
    let has_line_feed = whole.iter().any(|(_, c)| *c == '\n');
    let mut out: Vec<Vec<Spot>> = vec![Vec::new()];
    let mut index = 0;
    while let Some((place, c)) = whole.get(index) {
        let rest =
            text(whole.get(index..(index + 6).min(whole.len())).unwrap_or_default()).to_ascii_lowercase();
        let written =
            ["\\r\\n", "\\n", "<br/>", "<br />", "<br>"].iter().find(|mark| rest.starts_with(**mark));
        match (c, written) {
            ('\n', _) => out.push(Vec::new()),
            ('\r', _) if !has_line_feed => {
                slip(
                    slips,
                    Cause::LineBreak,
                    *place,
                    "lines end in CR alone; they have to end in CRLF or LF",
                );
                out.push(Vec::new());
            }
            ('\r', _) if whole.get(index + 1).is_none_or(|(_, next)| *next == '\n') => {}
            (_, Some(mark)) => {
                slip(slips, Cause::LiteralNewline, *place, format!("the line end is written as `{mark}`"));
                out.push(Vec::new());
                index += mark.len() - 1;
            }
            (c, _) if c.is_control() && *c != '\t' => {
                slip(
                    slips,
                    Cause::LineBreak,
                    *place,
                    format!("there is a control character (0x{:02x})", u32::from(*c)),
                );
            }
            (c, _) => {
                if let Some(line) = out.last_mut() {
                    line.push((*place, *c));
                }
            }
        }
        index += 1;
    }
    out
}

/// Splits a line that has several fields.
fn one_line(line: &[Spot], slips: &mut Vec<Slip>) -> Vec<Vec<Spot>> {
    let whole = text(line);
    if COMMENTS.iter().any(|mark| whole.starts_with(mark)) {
        return vec![line.to_vec()];
    }
    let mut begins: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let word: String = line
            .iter()
            .skip(at)
            .map(|(_, c)| *c)
            .take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c))
            .collect();
        let is_start =
            at == 0 || line.get(at - 1).is_some_and(|(_, c)| c.is_whitespace() || ";,|{\"'".contains(*c));
        let lower = word.to_ascii_lowercase();
        let is_key = is_start
            && ["v", "version", "mode", "mx", "max_age", "max-age", "maxage"].contains(&lower.as_str());
        let sign = line
            .iter()
            .skip(at + word.chars().count())
            .map(|(_, c)| *c)
            .find(|c| !c.is_whitespace() && *c != '"' && *c != '\'');
        if is_key && matches!(sign, Some(':' | '=')) {
            begins.push(at);
        }
        at += word.chars().count().max(1);
    }
    let first = begins.first().copied().unwrap_or_default();
    if first > 0 && line.iter().take(first).any(|(_, c)| matches!(c, ':' | '=')) {
        begins.insert(0, 0);
    }
    if begins.len() < 2 {
        return vec![line.to_vec()];
    }
    let second = begins.get(1).and_then(|at| line.get(*at)).map_or((1, 1), |(place, _)| *place);
    slip(
        slips,
        Cause::OneLine,
        second,
        "a further field is in the same line; each field has a line of its own",
    );
    let ends = begins.iter().skip(1).copied().chain([line.len()]);
    let part = |(begin, end): (&usize, usize)| {
        let part = trim(line.get(*begin..end).unwrap_or_default());
        let last = part
            .iter()
            .rposition(|(_, c)| !c.is_whitespace() && !";,|\"'{}".contains(*c))
            .map_or(0, |last| last + 1);
        part.get(..last).unwrap_or_default().to_vec()
    };
    begins.iter().zip(ends).map(part).collect()
}

/// Reads one line. `None` for a comment and for what surrounds a file.
fn read(line: &[Spot], slips: &mut Vec<Slip>) -> Option<Line> {
    let raw = text(line);
    let (place, _) = *line.first()?;
    if raw.starts_with("```") || ["{", "}", "---", "...", "[", "]", "~~~"].contains(&raw.as_str()) {
        slip(
            slips,
            Cause::BadLine,
            place,
            format!("`{}` is not a line of the form `key: value`", shown(&raw, 40)),
        );
        return None;
    }
    if let Some(mark) = COMMENTS.iter().find(|mark| raw.starts_with(**mark)) {
        slip(slips, Cause::Comment, place, format!("there is a comment (`{mark}`), and the format has none"));
        return None;
    }
    let sign = line.iter().position(|(_, c)| matches!(c, ':' | '='));
    let Some(sign) = sign else { return without_colon(line, place, raw, slips) };
    let written = line.get(..sign).unwrap_or_default();
    let value = trim(line.get(sign + 1..).unwrap_or_default());
    let mut key = text(trim(written));
    let bare = key.trim_matches(|c: char| "\"'`*-".contains(c) || c.is_whitespace()).to_owned();
    if bare != key {
        slip(
            slips,
            Cause::Quotes,
            place,
            format!("the key is written {}, with quotes or marks around it", shown(&key, 40)),
        );
        key = bare;
    }
    let is_equals = line.get(sign).is_some_and(|(_, c)| *c == '=');
    if trim(written).len() != written.len() && !is_equals {
        slip(
            slips,
            Cause::KeySpace,
            place,
            format!("there is white space between {} and the `:`", shown(&key, 40)),
        );
    }
    if is_equals && key_of(&key).is_some_and(|_| !key.eq_ignore_ascii_case("v")) {
        slip(
            slips,
            Cause::EqualsSign,
            line.get(sign).map_or(place, |(place, _)| *place),
            format!("`=` is in the place of the `:` after {}", shown(&key, 40)),
        );
    }
    let value_place = value.first().map_or(place, |(place, _)| *place);
    Some(Line { place, value_place, key, value: text(value), raw })
}

/// Reads a line whose key is followed by white space alone.
fn without_colon(line: &[Spot], place: (usize, usize), raw: String, slips: &mut Vec<Slip>) -> Option<Line> {
    let end = line.iter().position(|(_, c)| c.is_whitespace()).unwrap_or(line.len());
    let key = text(line.get(..end).unwrap_or_default());
    let value = trim(line.get(end..).unwrap_or_default());
    let is_key = KEYS_WITHOUT_COLON.contains(&key.to_ascii_lowercase().as_str()) && !value.is_empty();
    if !is_key {
        slip(
            slips,
            Cause::BadLine,
            place,
            format!("`{}` is not a line of the form `key: value`", shown(&raw, 60)),
        );
        return None;
    }
    slip(slips, Cause::NoColon, place, format!("there is no `:` after {key}"));
    let value_place = value.first().map_or(place, |(place, _)| *place);
    Some(Line { place, value_place, key, value: text(value), raw })
}

const KEYS_WITHOUT_COLON: &[&str] = &["version", "mode", "mx", "max_age", "max-age"];
