//! What goes to standard output, and the marks that a terminal can show.

use std::io::Write;
use std::sync::OnceLock;

/// Prints text and a line end. Whoever reads may stop reading: a closed pipe is no error of ours.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints text as it is, by the same rule.
pub fn show(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The marks for how something stands: signs where the locale is UTF-8, else words.
pub struct Marks {
    /// Fine.
    pub fine: &'static str,
    /// Something to look at.
    pub warning: &'static str,
    /// Wrong.
    pub error: &'static str,
    /// Good to know.
    pub info: &'static str,
}

/// The marks for this process.
pub fn marks() -> &'static Marks {
    static MARKS: OnceLock<Marks> = OnceLock::new();
    MARKS.get_or_init(|| {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        marks_for(["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| set(name)).as_deref())
    })
}

/// Without a locale the signs are shown too: nearly every terminal and log of today takes them.
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
