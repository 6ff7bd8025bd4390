//! Decodes the content of a part: base64, quoted-printable (RFC 2045 §6) and uuencode, and the character set of text. Errors of
//! encoders are ignored, as RFC 2045 recommends. Memory is reserved before it is used.

use super::uuencode::{self, Block};
use super::{Kind, Part, without_line_end};
use crate::inbox::shape::looks_like_a_report;
use formats::dmarc::is_dmarc_text;
use formats::report::{Held, HeldText, UnlimitedMemory, UnpackError, UnpackMemory};
use mail_parser::decoders::charsets::DecoderFnc;
use mail_parser::decoders::charsets::map::charset_decoder;

/// The encoded bytes that are decoded to see what the content is; the header of a tar archive fits in.
const BEGINNING_BYTES: usize = 1024;
/// The same for XML, whose first element may come late. In quoted-printable, a byte takes less than four.
const XML_BEGINNING_BYTES: usize = 4 * formats::dmarc::HEAD_BYTES;
/// Decoded bytes that are collected before memory is reserved for them.
const CHUNK: usize = 4096;
/// The memory of text in another character set, as a multiple of its size, at most.
const CHARSET_FACTOR: usize = 4;

/// The content of a part.
pub(in super::super) enum Decoded<'m, 'r> {
    /// The content as transferred, without an encoding to undo.
    Same(&'m [u8]),
    /// The decoded content.
    Text(HeldText<'r>),
}

impl Decoded<'_, '_> {
    /// Returns the bytes of the content.
    pub(in super::super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Same(bytes) => bytes,
            Self::Text(text) => text.bytes(),
        }
    }
}

impl<'m> Part<'m> {
    /// True if the content may be a report, by its first bytes. Other content need not be decoded.
    pub(in super::super) fn may_be_report(&self) -> bool {
        let may_be_report = |begins: &[u8]| {
            // Text in UTF-16 is told by its zeros.
            let is_wide = || self.charset().is_some() && begins.contains(&0);
            looks_like_a_report(begins) || (!begins.is_empty() && begins.trim_ascii().is_empty()) || is_wide()
        };
        let may_be_xml = |begins: &[u8]| begins.contains(&b'<');
        self.begins(BEGINNING_BYTES, may_be_report)
            || (self.begins(BEGINNING_BYTES, may_be_xml) && self.begins(XML_BEGINNING_BYTES, is_dmarc_text))
    }

    /// Tests the beginning of the content: what the first `most` encoded bytes stand for.
    fn begins(&self, most: usize, test: impl Fn(&[u8]) -> bool) -> bool {
        let encoded = self.body.get(..most).unwrap_or(self.body);
        let mut text = HeldText::new(&UnlimitedMemory);
        match self.transfer_decode(encoded, &mut text) {
            Ok(true) => test(text.bytes()),
            _ => test(encoded),
        }
    }

    /// Decodes the content.
    ///
    /// # Errors
    ///
    /// [`UnpackError::Busy`] or [`UnpackError::Memory`] if there is no memory for it.
    pub(in super::super) fn decode<'r>(
        &self,
        memory: &'r dyn UnpackMemory,
    ) -> Result<Decoded<'m, 'r>, UnpackError> {
        let mut text = HeldText::new(memory);
        let decoded = match self.transfer_decode(self.body, &mut text)? {
            true => Decoded::Text(text),
            false => Decoded::Same(self.body),
        };
        let Some(charset) = self.charset() else { return Ok(decoded) };
        let mut held = Held::new(memory);
        held.grow(decoded.bytes().len().saturating_mul(CHARSET_FACTOR))?;
        let mut text = HeldText::new(memory);
        text.push(charset(decoded.bytes()).as_bytes())?;
        Ok(Decoded::Text(text))
    }

    /// Appends the decoded content to `text`. False if it is not encoded.
    fn transfer_decode(&self, body: &[u8], text: &mut HeldText<'_>) -> Result<bool, UnpackError> {
        match self.head.encoding().as_str() {
            "base64" => base64(body, text).map(|()| true),
            "quoted-printable" => quoted_printable(body, text).map(|()| true),
            "x-uuencode" | "uuencode" | "x-uue" | "uue" => match uuencode::blocks(body).next() {
                Some(block) => block.decode(text).map(|()| true),
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }

    /// The uuencoded files within the text of this part; none for other parts.
    pub(in super::super) fn uuencoded(&self) -> impl Iterator<Item = Block<'m>> {
        let is_text = self.head.content_type().is_none_or(|kind| kind.ctype() == "text");
        let is_searched = self.kind == Kind::Content && is_text;
        uuencode::blocks(if is_searched { self.body } else { &[] })
    }

    /// Converts text to UTF-8; `None` for other content, and for text that needs no conversion.
    fn charset(&self) -> Option<DecoderFnc> {
        let kind = self.head.content_type().filter(|kind| kind.ctype() == "text")?;
        let charset = kind.attribute("charset")?;
        let is_utf8 =
            ["utf-8", "us-ascii", "utf8", "ascii"].iter().any(|one| charset.eq_ignore_ascii_case(one));
        if is_utf8 { None } else { charset_decoder(charset.as_bytes()) }
    }
}

/// Decodes base64 up to its padding. Characters outside of the alphabet are skipped.
fn base64(body: &[u8], text: &mut HeldText<'_>) -> Result<(), UnpackError> {
    let (mut chunk, mut bits, mut count) = (Vec::with_capacity(CHUNK), 0u32, 0);
    for byte in body {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => continue,
        };
        bits = ((bits << 6) | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            chunk.push(((bits >> count) & 0xff) as u8);
            if chunk.len() == CHUNK {
                text.push(&chunk)?;
                chunk.clear();
            }
        }
    }
    text.push(&chunk)
}

/// Decodes quoted-printable. What is not a valid code stays as it is.
fn quoted_printable(body: &[u8], text: &mut HeldText<'_>) -> Result<(), UnpackError> {
    let mut chunk = Vec::with_capacity(CHUNK + 2);
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let content = line.trim_ascii_end();
        let end = line.get(without_line_end(line).len()..).unwrap_or_default();
        let (content, end) = match content.strip_suffix(b"=") {
            Some(content) => (content, &[][..]),
            None => (content, end),
        };
        let mut rest = content;
        while let Some((first, after)) = rest.split_first() {
            let code = (*first == b'=').then(|| hex(after)).flatten();
            chunk.push(code.unwrap_or(*first));
            rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
            if chunk.len() >= CHUNK {
                text.push(&chunk)?;
                chunk.clear();
            }
        }
        chunk.extend_from_slice(end);
    }
    text.push(&chunk)
}

/// The byte that two hexadecimal digits stand for.
fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from((digit(0)? << 4) | digit(1)?).ok()
}
