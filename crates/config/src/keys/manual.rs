//! The manual page `sternpost.toml`(5), generated from the table of keys in the language of man (man(7)).

use super::KEYS;
use crate::environment::variable;
use std::fmt::Write;

/// The part of the manual page before the keys, in roff.
const HEAD: &str = r#".TH STERNPOST.TOML 5
.SH NAME
sternpost.toml \- configuration of sternpost
.SH DESCRIPTION
.BR sternpost (1)
reads one file in the TOML format, which \fB\-\-config\fR names, or the environment variable \fBSTERNPOST_CONFIG\fR.
Without both it reads \fI./sternpost.toml\fR or, if that does not exist, \fI/etc/sternpost/sternpost.toml\fR.
Without a file, the defaults apply.
.PP
A section such as \fB[answers]\fR enables a role, even when it is empty.
A misspelled key is an error. Any other unknown key may belong to a newer release: it is ignored with a warning.
\fBsternpost config check\fR validates the file, and \fBsternpost config show\fR prints the effective configuration with the
origin of each value.
.SH ENVIRONMENT
A value in the environment takes precedence over the file, and the file over the default.
The variable of a key is its name in capitals with \fB_\fR for each point, after \fBSTERNPOST_\fR. Setting one enables its
section.
Text is written without quotes, a list with commas, and a key that takes tables in TOML.
A variable whose name continues with \fB_FILE\fR names a file with the value.
An empty variable counts as not set, an unknown one is ignored with a warning.
.SH PATHS
A relative path starts at the directory of the file.
A path may begin with \fB$CREDENTIALS_DIRECTORY/\fR: the files of the unit's \fBLoadCredential=\fR (see
.BR systemd.exec (5)).
.SH SOCKETS
A listen address may be \fBsystemd:NAME\fR: the sockets of a socket unit with \fBFileDescriptorName=NAME\fR (see
.BR systemd.socket (5)).
\fBsystemd\fR alone takes all sockets that no other key names, if they have one name.
"#;

/// The part of the manual page after the keys, in roff.
const TAIL: &str = r#".SH SEE ALSO
.BR sternpost (1)
"#;

/// The manual page of the configuration file.
pub fn manual() -> String {
    let mut out = HEAD.to_owned();
    let mut section = None;
    for key in KEYS {
        let (head, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if section != Some(head) {
            let title =
                if head.is_empty() { "KEYS OUTSIDE OF SECTIONS".to_owned() } else { format!("[{head}]") };
            let _ = writeln!(out, ".SH {}", text(&title));
            section = Some(head);
        }
        let default = match key.default {
            "" => format!("Not set by default: {}.", text(key.unset)),
            default => format!("Default: \\fB{}\\fR", escaped(default)),
        };
        let _ = writeln!(out, ".TP\n\\fB{}\\fR\n{}", escaped(name), text(key.about));
        let _ = writeln!(out, ".IP\nValue: {}", expected(&key.kind.expected()));
        let _ = writeln!(out, ".IP\n{default}\n.br\nVariable: {}", escaped(&variable(key.path)));
    }
    out + TAIL
}

/// The accepted values: a sentence, or a sentence with a list of members.
fn expected(markdown: &str) -> String {
    let mut out = String::new();
    let mut is_list = false;
    for line in markdown.lines() {
        match line.strip_prefix("  - ") {
            Some(member) => {
                out += if is_list { "\n" } else { "\n.RS\n" };
                let _ = write!(out, ".IP \\(bu 2\n{}", text(member));
                is_list = true;
            }
            None if out.is_empty() => out += &text(line),
            None => {
                let _ = write!(out, "\n{}", text(line.trim_start()));
            }
        }
    }
    out + if is_list { "\n.RE" } else { "" }
}

/// Converts Markdown to roff; `code` becomes bold.
fn text(markdown: &str) -> String {
    let parts = markdown.split('`').enumerate();
    let shown = |(at, part): (usize, &str)| match at % 2 {
        0 => escaped(part),
        _ => format!("\\fB{}\\fR", escaped(part)),
    };
    let joined: String = parts.map(shown).collect();
    // A line that begins with one of these characters would be a request.
    if joined.starts_with(['.', '\'']) { format!("\\&{joined}") } else { joined }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out += "\\e",
            '-' => out += "\\-",
            '"' => out += "\\(dq",
            '\'' => out += "\\(aq",
            '~' => out += "\\(ti",
            '^' => out += "\\(ha",
            '…' => out += "...",
            '§' => out += "\\(sc",
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_every_key_with_its_variable_and_no_line_is_taken_for_a_request() {
        let page = manual();
        for key in KEYS {
            let name = key
                .path
                .rsplit_once('.')
                .map_or(key.path, |(head, _)| key.path.get(head.len() + 1..).unwrap());
            assert!(page.contains(&variable(key.path)), "{}", key.path);
            assert!(!name.is_empty());
        }
        let requests = ["TH", "SH", "TP", "IP", "PP", "BR", "RS", "RE", "br"];
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line[1..].split(' ').next().unwrap();
            assert!(requests.contains(&request), "{line}");
        }
        assert!(page.is_ascii(), "{:?}", page.chars().find(|letter| !letter.is_ascii()));
        assert_eq!(page.matches(".RS").count(), page.matches(".RE").count());
    }

    #[test]
    fn markdown_becomes_the_language_of_man() {
        assert_eq!(text("a `b-c` d"), "a \\fBb\\-c\\fR d");
        assert_eq!(text(".x"), "\\&.x");
        assert_eq!(
            expected("tables:\n  - `a`: one\n    more\n  - `b`: two"),
            "tables:\n.RS\n.IP \\(bu 2\n\\fBa\\fR: one\nmore\n.IP \\(bu 2\n\\fBb\\fR: two\n.RE"
        );
    }
}
