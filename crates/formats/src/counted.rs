//! Numbers as sentences have them: with a comma between each three digits, and with the noun in its right form.

use std::fmt::Display;

/// A number with a comma between each three digits.
pub fn count(number: impl Display) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number with its noun, which is given in the singular, such as `1 domain` or `1,200 domains`. Adjectives may be before the noun.
pub fn counted(number: impl Display, noun: &str) -> String {
    let shown = count(number);
    match (shown.as_str(), noun.strip_suffix('y')) {
        ("1", _) => format!("{shown} {noun}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{shown} {stem}ies"),
        _ if noun.ends_with("ss") || noun.ends_with("ch") => format!("{shown} {noun}es"),
        _ => format!("{shown} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_and_nouns_their_form() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1000, 1_234_567].map(count));
        assert_eq!([count(-1), count(-999), count(-1000)], ["-1", "-999", "-1,000"]);
        assert_eq!(
            [counted(1, "new report"), counted(0, "domain"), counted(1200, "day")],
            ["1 new report", "0 domains", "1,200 days"]
        );
        assert_eq!(
            [counted(1, "policy"), counted(2, "policy"), counted(3, "address"), counted(4, "query")],
            ["1 policy", "2 policies", "3 addresses", "4 queries"]
        );
    }
}
