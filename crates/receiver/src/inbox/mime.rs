//! Takes a message apart into its parts (RFC 2045, RFC 2046). The input is hostile: it may consist of nothing but nested
//! parts, and an encoding may hide more of them. So nothing here recurses, and each message is taken apart one level at
//! a time: a message within a message is a part whose content the caller decodes and takes apart in turn, up to
//! [`INBOX_DEPTH`](formats::limits::INBOX_DEPTH). A multipart is split at its boundary lines within the bytes of the part
//! around it, so that a broken one can't swallow its neighbors. Header fields are read by `head`, contents by `decode`.

mod decode;
mod head;
mod uuencode;

pub(super) use head::{Head, fields};
#[cfg(test)]
pub(super) use uuencode::tests::uuencoded;

use formats::limits::INBOX_MULTIPARTS;
use formats::report::{Held, UnpackError, UnpackMemory};
use std::rc::Rc;

/// Parts of one message, with multiparts. Beyond them, a message is cut.
const MAX_NODES: usize = 300;

/// A message, split into its parts.
pub(super) struct Mail<'m, 'r> {
    /// The header of the message.
    pub head: Rc<Head>,
    /// The parts in the order of the text. The first one is the message itself.
    pub parts: Vec<Part<'m>>,
    /// True if the message has more parts than are read.
    pub is_cut: bool,
    /// True if the message has more levels of multiparts than are searched, each once, which bounds the work too.
    pub is_too_deep: bool,
    _memory: Held<'r>,
}

/// A part of a message.
pub(super) struct Part<'m> {
    /// The header of the part.
    pub head: Rc<Head>,
    /// The kind of the part's content.
    pub kind: Kind,
    /// The content in its transfer encoding.
    body: &'m [u8],
}

/// What a part contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Other parts, which follow it.
    Multipart,
    /// A message (RFC 2046 §5.2.1, RFC 6532 §3.7), in any transfer encoding.
    Message,
    /// Content of any other type.
    Content,
}

/// A part that is not taken apart yet.
struct Piece<'m> {
    bytes: &'m [u8],
    /// True for a part of a digest, whose default type is a message (RFC 2046 §5.1.5).
    is_in_digest: bool,
    /// The number of multiparts around it.
    level: usize,
}

/// Takes a message apart. `None` if there is no header field at its beginning.
///
/// # Errors
///
/// [`UnpackError::Busy`] or [`UnpackError::Memory`] if there is no memory for the headers.
pub(super) fn take_apart<'m, 'r>(
    message: &'m [u8],
    memory: &'r dyn UnpackMemory,
) -> Result<Option<Mail<'m, 'r>>, UnpackError> {
    let message = without_blank_lines(message);
    if !head::has_fields(message) {
        return Ok(None);
    }
    let mut held = Held::new(memory);
    let (mut parts, mut is_cut, mut is_too_deep) = (Vec::new(), false, false);
    let mut open = vec![Piece { bytes: message, is_in_digest: false, level: 0 }];
    while let Some(piece) = open.pop() {
        if parts.len() == MAX_NODES {
            is_cut = true;
            break;
        }
        let (head, body) = Head::read(piece.bytes, &mut held)?;
        let mut kind = head.kind(piece.is_in_digest);
        if kind == Kind::Multipart {
            let (inner, is_digest) = (split(body, &head.boundary(), MAX_NODES), head.is_digest());
            is_cut |= inner.is_cut;
            is_too_deep |= piece.level == INBOX_MULTIPARTS && !inner.pieces.is_empty();
            if inner.pieces.is_empty() || piece.level == INBOX_MULTIPARTS {
                kind = Kind::Content;
            } else {
                let pieces = inner.pieces.into_iter().rev();
                let level = piece.level + 1;
                open.extend(pieces.map(|bytes| Piece { bytes, is_in_digest: is_digest, level }));
            }
        }
        parts.push(Part { head: Rc::new(head), kind, body });
    }
    let head = parts.first().map(|root| root.head.clone());
    Ok(head.map(|head| Mail { head, parts, is_cut, is_too_deep, _memory: held }))
}

/// True for text that begins with the header of a mail, not with any lines that have a colon.
pub(super) fn is_mail(text: &[u8]) -> bool {
    let text = without_blank_lines(text);
    let is_known = |name: &str| fields(text).any(|field| field.is_named(name));
    head::has_fields(text)
        && ["From", "Content-Type", "Return-Path", "MIME-Version"].iter().any(|name| is_known(name))
}

/// True for a multipart message without the closing line of its boundary.
pub(super) fn lacks_end(message: &[u8]) -> bool {
    let boundary = Head::of(message).boundary();
    let is_closing = |line: &[u8]| delimiter(line, &boundary) == Some(true);
    !boundary.is_empty() && !message.split(|byte| *byte == b'\n').any(is_closing)
}

impl Mail<'_, '_> {
    /// True if the text of the message has the media type of a TLS report anywhere, for parts that are not read.
    pub(super) fn mentions_reports(&self) -> bool {
        const SUBTYPE: &[u8] = b"/tlsrpt";
        let text = self.parts.first().map_or(&[][..], |root| root.body);
        text.windows(SUBTYPE.len()).any(|at| at.eq_ignore_ascii_case(SUBTYPE))
    }
}

/// Some programs put blank lines before a message.
fn without_blank_lines(message: &[u8]) -> &[u8] {
    let blank = message.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    message.get(blank..).unwrap_or_default()
}

/// The parts of a multipart.
struct Split<'m> {
    pieces: Vec<&'m [u8]>,
    is_cut: bool,
}

/// Splits the body of a multipart at the lines that consist of its boundary (RFC 2046 §5.1.1). Without a closing line, the
/// last part ends with the body.
fn split<'m>(body: &'m [u8], boundary: &[u8], most: usize) -> Split<'m> {
    let mut split = Split { pieces: Vec::new(), is_cut: false };
    if boundary.is_empty() {
        return split;
    }
    let (mut start, mut at) = (None, 0);
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let end = at + line.len();
        if let Some(is_closing) = delimiter(line, boundary) {
            if let Some(start) = start.replace(end) {
                split.pieces.push(without_line_end(body.get(start..at).unwrap_or_default()));
            }
            split.is_cut = !is_closing && split.pieces.len() == most;
            if is_closing || split.is_cut {
                return split;
            }
        }
        at = end;
    }
    split.pieces.extend(start.and_then(|start| body.get(start..)));
    split
}

/// Whether a line is a delimiter for this boundary: `Some(true)` for the closing one.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    match rest.trim_ascii_end() {
        b"" => Some(false),
        b"--" => Some(true),
        // The boundary is only the beginning of another one.
        _ => None,
    }
}

/// The line end before a delimiter belongs to the delimiter.
fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

#[cfg(test)]
mod tests;
