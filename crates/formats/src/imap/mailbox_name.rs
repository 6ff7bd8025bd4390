//! Names of mailboxes as IMAP sends them: modified UTF-7 (RFC 3501 §5.1.3), within quotes.

use data_encoding::BASE64_NOPAD;

/// Encodes the name of a mailbox. The result is printable ASCII, whatever the name contains.
pub fn encode_mailbox(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut others = Vec::new();
    for character in name.chars() {
        if !matches!(character, ' '..='~') {
            others.extend(character.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()));
            continue;
        }
        flush(&mut others, &mut out);
        out.push(character);
        if character == '&' {
            out.push('-');
        }
    }
    flush(&mut others, &mut out);
    out
}

/// Writes collected UTF-16 units in base64, with `,` for `/`.
fn flush(units: &mut Vec<u8>, out: &mut String) {
    if !units.is_empty() {
        out.push('&');
        out.push_str(&BASE64_NOPAD.encode(units).replace('/', ","));
        out.push('-');
        units.clear();
    }
}

/// Writes a text as a quoted string. `None` if it has characters that a quoted string can't contain.
pub fn quote(text: &str) -> Option<String> {
    let is_plain = text.chars().all(|character| matches!(character, ' '..='~'));
    is_plain.then(|| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mailboxes_are_encoded_in_modified_utf_7() {
        for (name, encoded) in [
            ("TLS reports", "TLS reports"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("A&B", "A&-B"),
            // RFC 3501 §5.1.3.
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("😀", "&2D3eAA-"),
            ("a\r\nA2 DELETE INBOX", "a&AA0ACg-A2 DELETE INBOX"),
        ] {
            assert_eq!(encode_mailbox(name), encoded);
            assert!(quote(&encode_mailbox(name)).is_some());
        }
    }

    #[test]
    fn a_quoted_string_never_ends_early() {
        assert_eq!(quote("a\"b\\"), Some("\"a\\\"b\\\\\"".to_owned()));
        assert_eq!((quote("a\r\n"), quote("ü")), (None, None));
    }
}
