//! Names of mailboxes as IMAP sends them: modified UTF-7 (RFC 3501 §5.1.3), within quotes. Some servers send UTF-8
//! instead, which RFC 9051 allows; such a name is sent back as it came.

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

/// Decodes the name of a mailbox, to show or compare it. A name that is not valid modified UTF-7, such as one in UTF-8,
/// stays as it is.
pub fn decode_mailbox(name: &str) -> String {
    decoded(name).unwrap_or_else(|| name.to_owned())
}

fn decoded(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((plain, after)) = rest.split_once('&') {
        out.push_str(plain);
        let (encoded, after) = after.split_once('-')?;
        match encoded {
            "" => out.push('&'),
            _ => {
                let bytes = BASE64_NOPAD.decode(encoded.replace(',', "/").as_bytes()).ok()?;
                let (units, odd) = bytes.as_chunks::<2>();
                let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
                out.push_str(&String::from_utf16(&units).ok().filter(|_| odd.is_empty())?);
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// Writes the name of a mailbox that a server listed as a quoted string. A name in UTF-8 goes back as it came. `None` if
/// it has control characters, which could end the line.
pub fn quote_mailbox(name: &str) -> Option<String> {
    let is_safe = !name.contains(char::is_control);
    is_safe.then(|| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")))
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
            assert_eq!(decode_mailbox(encoded), name);
            assert!(quote(&encode_mailbox(name)).is_some());
        }
    }

    #[test]
    fn a_name_in_utf_8_or_with_an_odd_ampersand_stays_as_it_is() {
        for name in ["Entwürfe", "R&D", "&@@@-", "&AGE", "&2D0-", "&AA-"] {
            assert_eq!(decode_mailbox(name), name);
        }
        assert_eq!(quote_mailbox("Entw\"ü\\").as_deref(), Some("\"Entw\\\"ü\\\\\""));
        assert_eq!(quote_mailbox("a\r\nA1 DELETE INBOX"), None);
    }

    #[test]
    fn a_quoted_string_never_ends_early() {
        assert_eq!(quote("a\"b\\"), Some("\"a\\\"b\\\\\"".to_owned()));
        assert_eq!((quote("a\r\n"), quote("ü")), (None, None));
    }
}
