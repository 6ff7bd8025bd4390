//! Errors in the configuration text, with line and column, and suggestions for misspelled names.

use std::ops::Range;
use toml::de::DeValue;

/// An error in the configuration text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    pub what: String,
    /// What to do; empty if there is no advice.
    pub remedy: String,
}

/// The type of a TOML value in words.
pub fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// An error at the start of `span` in the configuration text.
pub fn fault(text: &str, span: Range<usize>, what: String, remedy: &str) -> Fault {
    let (line, column) = line_and_column(text, span.start);
    Fault { line, column, what, remedy: remedy.to_owned() }
}

/// The line and column of a byte offset, both from 1.
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before.get(line_start..).unwrap_or_default().chars().count() + 1)
}

/// The candidate with the smallest Levenshtein distance to `typed`. `None` if more than half of the characters differ.
pub fn nearest<'c>(typed: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let most = typed.chars().count() / 2;
    candidates
        .map(|word| (changes(typed, word), word))
        .min()
        .filter(|(count, _)| *count <= most)
        .map(|(_, word)| word)
}

/// The Levenshtein distance of two texts, in characters.
pub fn changes(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (b, above) in other.iter().zip(row.iter().skip(1)) {
            left = (left + 1).min(above + 1).min(diagonal + usize::from(a != *b));
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// An error of TOML's syntax at `span`, in the words of a person who may not know TOML.
pub fn syntax_fault(text: &str, span: Range<usize>, message: &str) -> Fault {
    let (number, _) = line_and_column(text, span.start);
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    if message.contains("duplicate key") {
        return duplicate(text, span, line, number);
    }
    let name = line.split_once('=').map_or("key", |(name, _)| name.trim());
    let value = line.split_once('=').map(|(_, value)| value.trim()).unwrap_or_default();
    let is_bare = value.starts_with(|c: char| c.is_ascii_alphanumeric() || "/.*<@_-".contains(c));
    if is_bare && is_name(name) {
        let remedy = format!("Text stands in quotes: {name} = \"{}\"", without_comment(value));
        return fault(text, span, format!("the value of {name} is not a valid TOML value"), &remedy);
    }
    let what = message.replace('\n', ", ");
    let remedy = "The file is TOML: sections such as [answers], keys such as name = \"text\", lists such as [\"one\", \"two\"]. A file of \
                  another program is not. `sternpost config reference` lists all keys.";
    fault(text, span, what, remedy)
}

fn duplicate(text: &str, span: Range<usize>, line: &str, number: usize) -> Fault {
    let before = || text.lines().take(number - 1).map(str::trim).enumerate();
    if line.starts_with('[') {
        let header = line.split('#').next().unwrap_or_default().trim();
        let first = before().find(|(_, other)| other.starts_with(header)).map_or(0, |(at, _)| at + 1);
        let what = format!("the section {header} is there already, in line {first}");
        return fault(
            text,
            span,
            what,
            &format!("Move the keys below this one into {header} in line {first}, and remove this line."),
        );
    }
    let name = line.split_once('=').map_or(line, |(name, _)| name.trim());
    let is_same = |other: &str| other.split_once('=').is_some_and(|(other, _)| other.trim() == name);
    let first = before().filter(|(_, other)| is_same(other)).last().map_or(0, |(at, _)| at + 1);
    fault(text, span, format!("{name} is set already, in line {first}"), "Keep one of the two lines.")
}

/// The value before a comment.
fn without_comment(value: &str) -> &str {
    value.split(" #").next().unwrap_or_default().trim_end().trim_matches(['"', '\''])
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// An error of a TOML library about the type of a value, such as `invalid type: string "x", expected a sequence`: what was
/// given, and what is expected. `None` for another message.
pub fn type_fault(message: &str) -> Option<(String, &'static str)> {
    let (given, expected) = message.strip_prefix("invalid type: ")?.rsplit_once(", expected ")?;
    let expected = match expected {
        "a sequence" => "a list, such as [\"one\", \"two\"]",
        "a string" | "a borrowed string" => "text in quotes",
        "a boolean" => "true or false, without quotes",
        "a map" => "a table, such as { name = \"text\" }",
        text if text.starts_with("struct") => "a table, such as { name = \"text\" }",
        text if text.starts_with(['u', 'i']) => "a number, without quotes",
        _ => return None,
    };
    let given = match given.split_once(' ') {
        Some(("string", value)) => format!("the text {value}"),
        Some(("integer" | "floating", value)) => format!("the number {value}"),
        Some(("boolean", value)) => value.to_owned(),
        _ if given == "sequence" => "a list".to_owned(),
        _ if given == "map" => "a table".to_owned(),
        _ => given.to_owned(),
    };
    Some((given, expected))
}
