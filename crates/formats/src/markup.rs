//! Escapes text for pages and tables that this workspace writes without a template: HTML, XML and Markdown. The text may come
//! from outside, such as the name of a mail server or a line of an SMTP session.

/// The text with the characters escaped that XML and HTML reserve; control characters become spaces.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// The text as a cell of a Markdown table: one line, without the beginning of a tag or of another cell.
pub fn table_cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_characters_and_line_breaks_do_not_get_through() {
        assert_eq!(escaped("<a href='x'>\"&\u{1b}\n"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;  ");
        assert_eq!(table_cell("a|b\\|c\r\n<d>"), "a\\|b\\\\\\|c  &lt;d>");
    }
}
