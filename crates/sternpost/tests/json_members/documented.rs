//! Holds the members of a JSON text against a part of the documentation.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The part of a page that begins with the line that starts with `start`. A row of a table is a part of its own, a section
/// ends with the next heading, and a paragraph with the next empty line.
pub fn entry(page: &str, start: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.lines().skip_while(|line| !line.starts_with(start));
    let first = lines.next().unwrap_or_else(|| panic!("{page} has no line that starts with {start}"));
    let ends = |line: &&str| match first.chars().next() {
        Some('|') => true,
        Some('#') => line.starts_with('#'),
        _ => line.is_empty(),
    };
    std::iter::once(first).chain(lines.take_while(|line| !ends(line))).collect::<Vec<_>>().join("\n")
}

/// The members of `told` that the text does not name, in quotes or as code.
pub fn undocumented(told: &Value, text: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let named: BTreeSet<&str> = text.split(|c| !word(c)).collect();
    let mut missing = BTreeSet::new();
    collect(told, &mut |member| {
        let is_named = named.contains(member)
            && ['"', '`'].iter().any(|quote| text.contains(&format!("{quote}{member}{quote}")));
        if !is_named && member != "schema" {
            missing.insert(member.to_owned());
        }
    });
    missing.into_iter().collect()
}

fn collect(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::Object(members) => members.iter().for_each(|(member, value)| {
            each(member);
            collect(value, each);
        }),
        Value::Array(items) => items.iter().for_each(|item| collect(item, each)),
        _ => {}
    }
}
