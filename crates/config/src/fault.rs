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
