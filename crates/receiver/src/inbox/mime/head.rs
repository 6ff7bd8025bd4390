//! Reads the header of a message or part. Only the fields that the inbox uses are parsed, each bounded in size, so that
//! the parsers of single fields see little input whatever the message contains.

use super::Kind;
use formats::report::{Held, UnlimitedMemory, UnpackError};
use mail_parser::{ContentType, Message, MessageParser, MimeHeaders};
use std::borrow::Cow;

/// The fields that are used.
const USED_FIELDS: [&str; 9] = [
    "content-type",
    "content-disposition",
    "content-transfer-encoding",
    "from",
    "subject",
    "tls-report-domain",
    "tls-report-submitter",
    "auto-submitted",
    "return-path",
];
/// A longer field is ignored.
const FIELD_BYTES: usize = 8192;
/// The used fields of one header; further ones are ignored.
const USED_BYTES: usize = 32_768;
/// The beginning of a header in which fields are looked for.
const HEADER_BYTES: usize = 262_144;
/// The memory of parsed fields, as a multiple of their size, at most.
const PARSED_FACTOR: usize = 32;
/// The memory of a header without its fields.
const HEAD_BYTES: usize = 512;

/// The used fields of a header.
pub(in super::super) struct Head(Option<Message<'static>>);

/// One header field.
pub(in super::super) struct Field<'m> {
    /// The name as written, without white space around it.
    pub name: &'m [u8],
    /// What follows the colon, with line ends.
    pub value: &'m [u8],
    /// The whole field: name, colon and value.
    whole: &'m [u8],
}

impl Head {
    /// Reads a header. Returns it and what follows the blank line after it.
    pub(super) fn read<'m>(bytes: &'m [u8], held: &mut Held<'_>) -> Result<(Self, &'m [u8]), UnpackError> {
        let (header, body) = divide(bytes);
        let mut used = Vec::new();
        for field in fields(header).filter(Field::is_used) {
            if used.len() + field.whole.len() <= USED_BYTES {
                used.extend_from_slice(field.whole);
            }
        }
        held.grow(HEAD_BYTES + used.len() * PARSED_FACTOR)?;
        Ok((Self::parse(used), body))
    }

    /// The header of a message, without a limit on memory other than that of its fields.
    pub(in super::super) fn of(message: &[u8]) -> Self {
        let mut held = Held::new(&UnlimitedMemory);
        Self::read(message, &mut held).map_or(Self(None), |(head, _)| head)
    }

    fn parse(used: Vec<u8>) -> Self {
        let parts = match MessageParser::default().parse_headers(&used) {
            Some(parsed) => parsed.parts.into_iter().map(|part| part.into_owned()).collect::<Vec<_>>(),
            None => Vec::new(),
        };
        // Methods of the message expect that there is a part.
        let is_empty = parts.is_empty();
        Self((!is_empty).then(|| Message { parts, raw_message: Cow::Owned(used), ..Message::default() }))
    }

    /// True if there is none of the fields that are used.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// `Content-Type`, whose type, subtype and attribute names are in lower case.
    pub(in super::super) fn content_type(&self) -> Option<&ContentType<'_>> {
        self.0.as_ref()?.content_type()
    }

    /// The file name; empty if there is none.
    pub(in super::super) fn file_name(&self) -> &str {
        self.0.as_ref().and_then(|message| message.attachment_name()).unwrap_or_default()
    }

    /// The value of a field, trimmed.
    pub(in super::super) fn raw(&self, name: &'static str) -> Option<&str> {
        self.0.as_ref()?.header_raw(name).map(str::trim)
    }

    /// The subject, decoded (RFC 2047); `None` if there is none.
    pub(in super::super) fn subject(&self) -> Option<&str> {
        self.0.as_ref()?.subject()
    }

    /// The first address of `From`.
    pub(in super::super) fn author(&self) -> Option<&str> {
        self.0.as_ref()?.from()?.first()?.address()
    }

    /// The first word of `Content-Transfer-Encoding` in lower case; empty if there is none.
    pub(super) fn encoding(&self) -> String {
        let value = self.raw("Content-Transfer-Encoding").unwrap_or_default();
        let end = value.find(|c: char| c.is_whitespace() || matches!(c, ';' | '('));
        let word = value.get(..end.unwrap_or(value.len())).unwrap_or_default();
        word.trim_matches('"').to_ascii_lowercase()
    }

    /// The boundary of a multipart; empty if there is none.
    pub(super) fn boundary(&self) -> Vec<u8> {
        let boundary = self.content_type().and_then(|kind| kind.attribute("boundary")).unwrap_or_default();
        boundary.trim_end().as_bytes().to_vec()
    }

    pub(super) fn is_digest(&self) -> bool {
        self.content_type().is_some_and(|kind| kind.subtype() == Some("digest"))
    }

    pub(super) fn kind(&self, is_in_digest: bool) -> Kind {
        match self.content_type() {
            Some(kind) if kind.ctype() == "multipart" => Kind::Multipart,
            Some(kind) if kind.ctype() == "message" => match kind.subtype() {
                Some("rfc822" | "global") => Kind::Message,
                _ => Kind::Content,
            },
            // Some programs attach the message that they forward as any other file.
            Some(kind) if kind.ctype() == "application" && self.is_named_as_message() => Kind::Message,
            None if is_in_digest => Kind::Message,
            _ => Kind::Content,
        }
    }

    fn is_named_as_message(&self) -> bool {
        self.file_name().to_ascii_lowercase().ends_with(".eml")
    }
}

impl Field<'_> {
    pub(in super::super) fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    fn is_used(&self) -> bool {
        self.whole.len() <= FIELD_BYTES && USED_FIELDS.iter().any(|name| self.is_named(name))
    }
}

/// Divides a message or part at the first blank line.
fn divide(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let end = at + line.len();
        if matches!(line, b"\n" | b"\r\n") {
            return (bytes.get(..at).unwrap_or_default(), bytes.get(end..).unwrap_or_default());
        }
        at = end;
    }
    (bytes, &[])
}

/// The fields at the beginning of a message, part or header, within the first [`HEADER_BYTES`]. A line that belongs to no
/// field is skipped.
pub(in super::super) fn fields(bytes: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let cut = bytes.get(..HEADER_BYTES).unwrap_or(bytes);
    let mut rest = cut;
    std::iter::from_fn(move || {
        loop {
            let (whole, after) = next_field(rest);
            rest = after;
            if whole.is_empty() || matches!(whole, b"\n" | b"\r\n") {
                return None;
            }
            if let Some(field) = field(whole) {
                return Some(field);
            }
        }
    })
}

/// The first line with the lines that continue it, and the rest.
fn next_field(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_continued = line.starts_with(b" ") || line.starts_with(b"\t");
        if end > 0 && !is_continued {
            break;
        }
        end += line.len();
        if matches!(line, b"\n" | b"\r\n") {
            break;
        }
    }
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
}

fn field(whole: &[u8]) -> Option<Field<'_>> {
    let colon = whole.iter().position(|byte| *byte == b':')?;
    let name = whole.get(..colon)?.trim_ascii_end();
    let value = whole.get(colon + 1..)?;
    let is_name = !name.is_empty() && name.iter().all(|byte| matches!(byte, 33..=126));
    is_name.then_some(Field { name, value, whole })
}

/// True if there is a header field before the first blank line.
pub(super) fn has_fields(message: &[u8]) -> bool {
    fields(message).next().is_some()
}
