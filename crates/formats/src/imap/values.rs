//! The values of a data response: atoms, strings and lists of these (RFC 9051 §4).

use crate::limits::{IMAP_DEPTH, IMAP_VALUES};
use std::borrow::Cow;

/// A value in the IMAP grammar (RFC 9051 §9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A word, number or flag, also `NIL`.
    Atom(Cow<'a, str>),
    /// A quoted string or a literal.
    Text(Cow<'a, [u8]>),
    /// Values in parentheses.
    List(Vec<Value<'a>>),
}

impl<'a> Value<'a> {
    /// The members of a list; none for other values.
    pub(super) fn members(&self) -> &[Value<'a>] {
        match self {
            Self::List(members) => members,
            _ => &[],
        }
    }

    /// The text of an atom or string; `None` for a list.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Atom(word) => Some(word.to_string()),
            Self::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::List(_) => None,
        }
    }
}

/// Reads all values. `None` if the text breaks the grammar, nests deeper than [`IMAP_DEPTH`], or has more than
/// [`IMAP_VALUES`].
pub(super) fn values(text: &[u8]) -> Option<Vec<Value<'_>>> {
    let mut rest = text;
    let mut left = IMAP_VALUES;
    let all = list(&mut rest, IMAP_DEPTH, &mut left)?;
    rest.is_empty().then_some(all)
}

/// Reads values up to a closing parenthesis, which stays, or to the end. `left` is how many values may follow.
fn list<'a>(rest: &mut &'a [u8], depth: usize, left: &mut usize) -> Option<Vec<Value<'a>>> {
    let mut all = Vec::new();
    loop {
        *rest = rest.trim_ascii_start();
        if !matches!(rest, [] | [b')', ..]) {
            *left = left.checked_sub(1)?;
        }
        match rest {
            [] | [b')', ..] => return Some(all),
            [b'(', after @ ..] => {
                *rest = after;
                let inner = list(rest, depth.checked_sub(1)?, left)?;
                *rest = rest.strip_prefix(b")")?;
                all.push(Value::List(inner));
            }
            [b'"', after @ ..] => {
                *rest = after;
                all.push(Value::Text(quoted(rest)?));
            }
            [b'{', ..] | [b'~', b'{', ..] => all.push(Value::Text(literal(rest)?)),
            _ => all.push(Value::Atom(atom(rest))),
        }
    }
}

/// Reads a quoted string, after its opening quote.
fn quoted<'a>(rest: &mut &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let mut text = Vec::new();
    loop {
        let (first, after) = rest.split_first()?;
        *rest = after;
        match first {
            b'"' => return Some(Cow::Owned(text)),
            b'\\' => {
                let (escaped, after) = rest.split_first()?;
                *rest = after;
                text.push(*escaped);
            }
            other => text.push(*other),
        }
    }
}

/// Reads `{length}`, the line end behind it, and as many bytes.
fn literal<'a>(rest: &mut &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let at = rest.iter().position(|byte| *byte == b'\n')?;
    let (head, after) = rest.split_at_checked(at + 1)?;
    let (bytes, after) = after.split_at_checked(super::frame::literal_length(head.trim_ascii_end())?)?;
    *rest = after;
    Some(Cow::Borrowed(bytes))
}

/// Reads a word. Brackets belong to it with all within them: `BODY[HEADER.FIELDS (FROM)]`.
fn atom<'a>(rest: &mut &'a [u8]) -> Cow<'a, str> {
    let mut in_brackets = false;
    let end = rest.iter().position(|byte| {
        match byte {
            b'[' => in_brackets = true,
            b']' => in_brackets = false,
            _ => {}
        }
        !in_brackets && (byte.is_ascii_whitespace() || b"()".contains(byte))
    });
    let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
    *rest = after;
    String::from_utf8_lossy(word)
}
