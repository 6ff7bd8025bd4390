//! Refuses messages whose structure would exhaust memory or stack, before they are parsed.
//!
//! The parser nests messages within messages without a limit and keeps every part in memory, so a small message could
//! otherwise take gigabytes or end the process. The scan is stricter than the parser: it counts what can begin a part
//! or a nested message anywhere in the text. A TLS report has two parts. A nested message that is encoded, which RFC 2046
//! §5.2.1 forbids, is not seen by the scan.

/// Occurrences of the header name `Content-Type`, in any case. Each level of nesting needs one.
const MAX_CONTENT_TYPES: usize = 300;
/// Lines that begin with `--`, as boundaries do.
const MAX_BOUNDARY_LINES: usize = 10_000;

/// True if a message may be parsed.
pub(super) fn is_bounded(message: &[u8]) -> bool {
    let (mut types, mut boundaries) = (0, 0);
    for line in message.split(|byte| *byte == b'\n') {
        boundaries += usize::from(line.starts_with(b"--"));
        types += count(line, b"content-type");
        if types > MAX_CONTENT_TYPES || boundaries > MAX_BOUNDARY_LINES {
            return false;
        }
    }
    true
}

/// The number of times that a line contains `word`, which is in lower case, in any case.
fn count(line: &[u8], word: &[u8]) -> usize {
    line.windows(word.len()).filter(|window| window.eq_ignore_ascii_case(word)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_and_parts_are_bounded() {
        let nested = b"Content-Type: message/rfc822\r\n\r\n".repeat(100_000);
        assert!(!is_bounded(&nested));
        let parts = [b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec(), b"--b\n".repeat(100_000)];
        assert!(!is_bounded(&parts.concat()));
    }

    #[test]
    fn ordinary_mail_is_parsed() {
        let bounce = "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: \
                      application/gzip\r\nContent-Transfer-Encoding: base64\r\n\r\nH4sI\r\n--b--\r\n";
        assert!(is_bounded(bounce.as_bytes()));
        let patch = "--- a/file\n+++ b/file\n".repeat(5000);
        assert!(is_bounded(patch.as_bytes()));
    }
}
