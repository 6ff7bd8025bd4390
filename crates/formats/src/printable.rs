//! Makes text from outside safe to print. File names, subjects and error texts that strangers choose reach terminals,
//! logs and the reasons of quarantined reports; control characters in them could move the cursor, set a window's title
//! or forge a log line.

/// Returns the first `most` characters of a text, with a replacement character for each control character, line
/// separator and character that changes the direction of the text. `…` marks that the text was longer.
pub fn printable(text: &str, most: usize) -> String {
    let mut out: String = text.chars().take(most).map(|c| if is_plain(c) { c } else { '\u{fffd}' }).collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}')
        && !('\u{202a}'..='\u{202e}').contains(&c)
        && !('\u{2066}'..='\u{2069}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_directions_are_replaced_and_long_texts_cut() {
        assert_eq!(printable("x\u{1b}]0;pwned\u{7}.txt", 99), "x\u{fffd}]0;pwned\u{fffd}.txt");
        assert_eq!(
            printable("a\r\nb\u{9b}c\u{202e}d\u{2028}", 99),
            "a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}"
        );
        assert_eq!(printable("Größe 日本", 99), "Größe 日本");
        assert_eq!((printable("abc", 3), printable("abcd", 3)), ("abc".into(), "abc…".into()));
    }
}
