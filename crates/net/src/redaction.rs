//! Removes secrets from texts of servers before they are logged or shown. A mail server may repeat what it was sent: the
//! password, the access token, or the SASL message with either, as it is or encoded. A part of a secret is removed too,
//! down to `WINDOW` bytes, since a text may be cut before it arrives here.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use formats::printable::printable;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a secret that are removed wherever they stand together. A shorter secret is removed whole.
const WINDOW: usize = 8;
/// Secrets that are remembered; access tokens change with each sign-in.
const MAX_SECRETS: usize = 16;
/// The shortest encoded form that is looked for; shorter ones occur in any text.
const SHORTEST_ENCODED: usize = 4;

/// The secrets that were sent to a server. Clones share them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Mutex<VecDeque<String>>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Adds a secret. The oldest beyond the limit is forgotten.
    pub fn remember(&self, secret: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if secret.is_empty() || all.iter().any(|known| known == secret) {
            return;
        }
        if all.len() == MAX_SECRETS {
            all.pop_front();
        }
        all.push_back(secret.to_owned());
    }

    /// The text without secrets. `…` marks what was removed.
    pub fn redacted(&self, text: &str) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let windows = Windows::of(all.iter());
        drop(all);
        windows.redacted(text)
    }

    /// The text without secrets, printable, and at most `most` characters.
    pub fn shown(&self, text: &str, most: usize) -> String {
        printable(&self.redacted(text), most)
    }
}

/// The pieces of all forms of the secrets, by length, in lower case.
#[derive(Default)]
struct Windows(BTreeMap<usize, HashSet<Vec<u8>>>);

impl Windows {
    fn of<'s>(secrets: impl Iterator<Item = &'s String>) -> Self {
        let mut this = Self::default();
        for secret in secrets {
            this.add(secret.as_bytes());
            for form in in_base64(secret.as_bytes()) {
                if form.len() >= SHORTEST_ENCODED {
                    this.add(form.as_bytes());
                }
            }
        }
        this
    }

    fn add(&mut self, form: &[u8]) {
        let size = form.len().min(WINDOW);
        if size > 0 {
            let pieces = form.windows(size).map(<[u8]>::to_ascii_lowercase);
            self.0.entry(size).or_default().extend(pieces);
        }
    }

    fn redacted(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_owned();
        }
        let mut is_hidden = vec![false; text.len()];
        for view in [plain, percent_decoded, quoted_printable_decoded, unescaped] {
            self.hide(&view(text.as_bytes()), &mut is_hidden);
        }
        let mut out = String::with_capacity(text.len());
        let mut was_hidden = false;
        for (at, character) in text.char_indices() {
            let bytes = is_hidden.get(at..at + character.len_utf8()).unwrap_or_default();
            let hides = bytes.contains(&true);
            match (hides, was_hidden) {
                (false, _) => out.push(character),
                (true, false) => out.push('…'),
                (true, true) => {}
            }
            was_hidden = hides;
        }
        out
    }

    /// Marks the bytes of the text that a piece of a secret comes from.
    fn hide(&self, view: &[Decoded], is_hidden: &mut [bool]) {
        let bytes: Vec<u8> = view.iter().map(|decoded| decoded.byte.to_ascii_lowercase()).collect();
        for (size, pieces) in &self.0 {
            for (window, sources) in bytes.windows(*size).zip(view.windows(*size)) {
                if let (true, [first, .., last] | [first @ last]) = (pieces.contains(window), sources) {
                    let source = first.source.start..last.source.end;
                    is_hidden.get_mut(source).unwrap_or_default().fill(true);
                }
            }
        }
    }
}

/// A byte of a text after decoding, and the bytes that it was decoded from.
struct Decoded {
    byte: u8,
    source: Range<usize>,
}

fn plain(text: &[u8]) -> Vec<Decoded> {
    decoded(text, |_| None)
}

/// `%2F` and `+`, as in URLs and forms.
fn percent_decoded(text: &[u8]) -> Vec<Decoded> {
    decoded(text, |rest| match rest {
        [b'%', high, low, ..] => Some((from_hex(*high, *low)?, 3)),
        [b'+', ..] => Some((b' ', 1)),
        _ => None,
    })
}

/// `=2F`, as in mail and in the names of SASL (RFC 5801 §4).
fn quoted_printable_decoded(text: &[u8]) -> Vec<Decoded> {
    decoded(text, |rest| match rest {
        [b'=', high, low, ..] => Some((from_hex(*high, *low)?, 3)),
        _ => None,
    })
}

/// `\"` and `\\`, as in quoted strings, and `\u002F`, as in JSON.
fn unescaped(text: &[u8]) -> Vec<Decoded> {
    decoded(text, |rest| match rest {
        [b'\\', b'u', b'0', b'0', high, low, ..] => Some((from_hex(*high, *low)?, 6)),
        [b'\\', escaped, ..] => Some((*escaped, 2)),
        _ => None,
    })
}

fn from_hex(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some((digit(high)? << 4) | digit(low)?)
}

/// Decodes a text. `escape` returns the byte that the beginning of the text stands for, and how many bytes it has; `None`
/// for a byte that stands for itself.
fn decoded(text: &[u8], escape: impl Fn(&[u8]) -> Option<(u8, usize)>) -> Vec<Decoded> {
    let mut all = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(rest) = text.get(at..)
        && let Some(first) = rest.first()
    {
        let (byte, length) = escape(rest).unwrap_or((*first, 1));
        all.push(Decoded { byte, source: at..at + length });
        at += length;
    }
    all
}

/// The secret in base64, as it looks within a longer text: without the characters that also depend on the bytes around
/// it, for each of the three positions in a group; and as it looks at the end of a text, where SASL messages have it.
fn in_base64(secret: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let bytes = [vec![0; before], secret.to_vec()].concat();
        let (start, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        for text in [BASE64.encode(&bytes), BASE64URL_NOPAD.encode(&bytes)] {
            let at_end = text.trim_end_matches('=').len();
            forms.extend([end, at_end].iter().filter_map(|end| text.get(start..*end)).map(str::to_owned));
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(secret: &str, text: &str) -> String {
        let secrets = Secrets::default();
        secrets.remember(secret);
        secrets.shown(text, 1000)
    }

    #[test]
    fn a_secret_is_removed_in_each_form_that_a_server_may_repeat() {
        let secret = "p\"ss w\\rd/+=%?1";
        let sasl = BASE64.encode(format!("\0user\0{secret}").as_bytes());
        for text in [
            secret.to_owned(),
            "p\\\"ss w\\\\rd/+=%?1".to_owned(),
            "p%22ss%20w%5Crd%2F%2B%3D%25%3F1".to_owned(),
            "p%22ss+w%5crd/%2b%3d%25?1".to_owned(),
            "p=22ss=20w\\rd/+=3D%?1".to_owned(),
            "p\\u0022ss w\\\\rd\\u002f+=%?1".to_owned(),
            secret.to_ascii_uppercase(),
        ] {
            assert_eq!(shown(secret, &format!("no: {text} is wrong")), "no: … is wrong", "{text}");
        }
        let text = shown(secret, &format!("no: {sasl} is wrong"));
        let hidden = BASE64.encode(secret.as_bytes());
        assert!(text.contains('…') && text.len() < 40 && !text.contains(&hidden[..8]), "{text}");
    }

    #[test]
    fn a_short_secret_is_removed_whole_and_nothing_else_is() {
        assert_eq!(
            shown("guess", "wrong: LOGIN \"u\" \"guess\", not guests"),
            "wrong: LOGIN \"u\" \"…\", not guests"
        );
        assert_eq!(shown("", "all is well"), "all is well");
        assert_eq!(shown("ü", "für"), "f…r");
    }

    #[test]
    fn a_part_of_a_secret_is_removed_where_the_text_was_cut() {
        assert_eq!(shown("correct horse battery", "token correct hor"), "token …");
        assert_eq!(shown("correct horse battery", "horse battery is wrong"), "… is wrong");
    }

    #[test]
    fn the_oldest_secret_is_forgotten_first() {
        let secrets = Secrets::default();
        for letter in ('a'..).take(MAX_SECRETS + 1) {
            secrets.remember(&letter.to_string().repeat(9));
        }
        assert_eq!(secrets.shown("aaaaaaaaa bbbbbbbbb", 99), "aaaaaaaaa …");
        assert_eq!(secrets.0.lock().unwrap().len(), MAX_SECRETS);
    }

    proptest! {
        #[test]
        fn no_eight_bytes_of_a_secret_are_shown_whatever_surrounds_them(
            secret in "[!-~]{8,40}", before in "[ -~]{0,20}", after in "[ -~]{0,20}", most in 0_usize..80,
            from in 0_usize..8, form in 0_usize..5,
        ) {
            let encoded = match form {
                0 => secret.clone(),
                1 => BASE64.encode(secret.as_bytes()),
                2 => BASE64.encode(format!("{before}\0{secret}").as_bytes()),
                3 => secret.bytes().map(|byte| format!("%{byte:02x}")).collect(),
                _ => secret.replace('\\', "\\\\").replace('"', "\\\""),
            };
            let text = shown_within(&secret, &format!("{before}{}{after}", &encoded[from.min(encoded.len())..]), most);
            let forms = [secret.clone(), BASE64.encode(secret.as_bytes())];
            for window in forms.iter().flat_map(|form| form.as_bytes().windows(WINDOW)) {
                // The last group of base64 depends on its end.
                prop_assert!(!text.as_bytes().windows(WINDOW).any(|at| at == window) || window.contains(&b'='));
            }
        }
    }

    fn shown_within(secret: &str, text: &str, most: usize) -> String {
        let secrets = Secrets::default();
        secrets.remember(secret);
        secrets.shown(text, most)
    }
}
