//! Standard output of the commands, and the marks for severities, which depend on the locale's character set.

use std::io::Write;
use std::sync::OnceLock;

/// Writes a line to standard output. Write errors are ignored: the reader may close the pipe early.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes text to standard output as it is, without a line end. Write errors are ignored.
pub fn show(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The marks in front of a result: symbols in a UTF-8 locale, else words.
pub struct Marks {
    /// The mark in front of a success.
    pub fine: &'static str,
    /// The mark in front of a warning.
    pub warning: &'static str,
    /// The mark in front of an error.
    pub error: &'static str,
    /// The mark in front of information.
    pub info: &'static str,
}

/// The marks for this process, chosen by LC_ALL, LC_CTYPE and LANG, in that order.
pub fn marks() -> &'static Marks {
    static MARKS: OnceLock<Marks> = OnceLock::new();
    MARKS.get_or_init(|| {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        marks_for(["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| set(name)).as_deref())
    })
}

/// Without a locale the marks are symbols: nearly every terminal and log viewer supports UTF-8.
fn marks_for(locale: Option<&str>) -> Marks {
    let plain = locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        !(locale.contains("utf-8") || locale.contains("utf8"))
    });
    match plain {
        true => Marks { fine: "ok", warning: "warn", error: "FAIL", info: "info" },
        false => Marks { fine: "✓", warning: "!", error: "✗", info: "·" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_without_unicode_get_words() {
        assert_eq!(marks_for(Some("C")).error, "FAIL");
        assert_eq!(marks_for(Some("en_GB.ISO-8859-1")).fine, "ok");
        assert_eq!(marks_for(Some("de_DE.UTF-8")).fine, "✓");
        assert_eq!(marks_for(None).fine, "✓");
    }
}
