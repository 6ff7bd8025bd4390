//! Finds the reports in decompressed text. RFC 8460 §4 has one I-JSON object in UTF-8; exports of other programs have UTF-16,
//! an array of reports, one report per line (also after U+001E, RFC 7464), or bytes after the end. [`ReportTexts`] decodes the
//! text and divides it; [`Report::read_text`](super::Report::read_text) parses each piece. The input is hostile: the text is
//! decoded and searched once, and nothing recurses.

use super::Quirk;
use std::borrow::Cow;

/// The width and byte order of the units of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Units {
    width: usize,
    is_little: bool,
    /// The length of the byte-order mark, in bytes.
    mark: usize,
}

/// Recognizes UTF-16 and UTF-32 by the byte-order mark, or by the zeros in the first character, which is ASCII (RFC 4627 §3).
fn wide(bytes: &[u8]) -> Option<Units> {
    let units = |width, is_little, mark| Some(Units { width, is_little, mark });
    match *bytes {
        [0xff, 0xfe, 0, 0, ..] => units(4, true, 4),
        [0, 0, 0xfe, 0xff, ..] => units(4, false, 4),
        [0xff, 0xfe, ..] => units(2, true, 2),
        [0xfe, 0xff, ..] => units(2, false, 2),
        [1..=255, 0, 0, 0, ..] => units(4, true, 0),
        [0, 0, 0, 1..=255, ..] => units(4, false, 0),
        [1..=255, 0, 1..=255, 0, ..] => units(2, true, 0),
        [0, 1..=255, 0, 1..=255, ..] => units(2, false, 0),
        _ => None,
    }
}

/// True for text in UTF-16 or UTF-32. Converting it to UTF-8 takes at most twice its size.
pub(super) fn is_wide(bytes: &[u8]) -> bool {
    wide(bytes).is_some()
}

impl Units {
    fn decode(self, bytes: &[u8]) -> String {
        let text = bytes.get(self.mark..).unwrap_or_default();
        let unit = |unit: &[u8]| {
            let digits = unit.iter().map(|byte| u32::from(*byte));
            match self.is_little {
                true => digits.rev().fold(0, |value, digit| (value << 8) | digit),
                false => digits.fold(0, |value, digit| (value << 8) | digit),
            }
        };
        let units = text.chunks(self.width).map(unit);
        if self.width == 4 {
            return units.map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        }
        let units = units.map(|unit| u16::try_from(unit).unwrap_or_default());
        char::decode_utf16(units).map(|one| one.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }
}

/// The beginning of a text in UTF-8, at most `most` of its bytes, to see what it is.
pub fn beginning_of_text(bytes: &[u8], most: usize) -> Cow<'_, [u8]> {
    let head = bytes.get(..most).unwrap_or(bytes);
    match wide(head) {
        Some(units) => Cow::Owned(units.decode(head).into_bytes()),
        None => Cow::Borrowed(head),
    }
}

/// True for text that begins as a JSON object or an array of objects does, in any encoding that [`ReportTexts`] decodes. What
/// the object is does not show.
pub fn begins_as_json(bytes: &[u8]) -> bool {
    /// Blanks before the text that are skipped.
    const HEAD_BYTES: usize = 4096;
    let head = beginning_of_text(bytes, HEAD_BYTES);
    let text = skip_blanks(head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head));
    match text.strip_prefix(b"[") {
        Some(inner) => skip_blanks(inner).starts_with(b"{"),
        None => text.starts_with(b"{"),
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    text.get(blanks..).unwrap_or_default()
}

/// White space, NUL, and the separator of JSON text sequences (RFC 7464).
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0 | 0x1e)
}

/// Decompressed text, decoded.
#[derive(Debug)]
pub struct ReportTexts<'t> {
    text: Cow<'t, str>,
    quirk: Option<Quirk>,
}

impl<'t> ReportTexts<'t> {
    /// Decodes UTF-8, UTF-16 and UTF-32. Anything else is read as Latin-1.
    pub fn decode(bytes: &'t [u8]) -> Self {
        if let Some(units) = wide(bytes) {
            return Self { text: Cow::Owned(units.decode(bytes)), quirk: Some(Quirk::WideUnits) };
        }
        let bare = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match std::str::from_utf8(bare) {
            Ok(text) => {
                let quirk = (bare.len() < bytes.len()).then_some(Quirk::ByteOrderMark);
                Self { text: Cow::Borrowed(text), quirk }
            }
            Err(_) => {
                let text = bare.iter().map(|byte| char::from(*byte)).collect();
                Self { text: Cow::Owned(text), quirk: Some(Quirk::Latin1) }
            }
        }
    }

    /// The deviation in the encoding of the text.
    pub(super) fn quirk(&self) -> Option<Quirk> {
        self.quirk
    }

    /// The whole text.
    pub fn whole(&self) -> &str {
        &self.text
    }

    /// The JSON objects of the text in their order. The last one may be cut.
    pub fn objects(&self) -> Objects<'_> {
        Objects { rest: &self.text, before: Before::Nothing }
    }
}

/// What an object follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Array,
    Object,
}

/// The objects of a text; see [`ReportTexts::objects`].
#[derive(Debug, Clone)]
pub struct Objects<'t> {
    rest: &'t str,
    before: Before,
}

impl<'t> Objects<'t> {
    /// What follows the objects that were taken, without blanks and without the end of an array.
    pub fn trailing(&self) -> &'t str {
        let is_noise = |c: char| u8::try_from(c).is_ok_and(is_blank);
        let rest = self.rest.trim_matches(is_noise);
        let closing = if self.before == Before::Nothing { None } else { rest.strip_prefix(']') };
        closing.map_or(rest, |rest| rest.trim_start_matches(is_noise))
    }

    /// The length of what is before the next object: blanks, and between objects a comma. `None` if there is no object.
    fn separators(&mut self) -> Option<usize> {
        for (at, byte) in self.rest.bytes().enumerate() {
            match (byte, self.before) {
                (b'{', _) => return Some(at),
                (b'[', Before::Nothing) => self.before = Before::Array,
                (b',', Before::Object) => {}
                (byte, _) if is_blank(byte) => {}
                _ => return None,
            }
        }
        None
    }
}

impl<'t> Iterator for Objects<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let before = self.before;
        let start = self.separators()?;
        let from = self.rest.get(start..).unwrap_or_default();
        let length = object_length(from);
        // An object alone keeps the white space before it, so that the lines in errors are those of the file.
        let is_first = before == Before::Nothing && self.before == Before::Nothing;
        let head = self.rest.get(..start).unwrap_or_default();
        let first = if is_first && head.bytes().all(|byte| byte.is_ascii_whitespace()) { 0 } else { start };
        let object = self.rest.get(first..start + length).unwrap_or_default();
        self.rest = self.rest.get(start + length..).unwrap_or_default();
        self.before = Before::Object;
        Some(object)
    }
}

/// The length of the object at the beginning of a text; that of the whole text if the object does not end.
fn object_length(text: &str) -> usize {
    let (mut depth, mut is_inside, mut is_escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_inside => is_escaped = true,
            b'"' => is_inside = !is_inside,
            _ if is_inside => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn objects(text: &str) -> (Vec<&str>, &str) {
        let mut objects = Objects { rest: text, before: Before::Nothing };
        let found: Vec<&str> = objects.by_ref().collect();
        (found, objects.trailing())
    }

    #[test]
    fn rec_08_reports_in_arrays_lines_and_sequences_are_told_apart() {
        let (one, other) = (r#"{"a":"}]\"{","b":[{}]}"#, "{}");
        for text in [
            format!("[{one},{other}]"),
            format!(" [ {one} , {other} ] \r\n"),
            format!("{one}\n{other}\n"),
            format!("\u{1e}{one}\n\u{1e}{other}\n"),
            format!("{one}{other}"),
            format!("{one},\0{other}\0\0"),
        ] {
            assert_eq!(objects(&text), (vec![one, other], ""), "{text:?}");
        }
        assert_eq!(objects(&format!("\n {one}")), (vec![format!("\n {one}").as_str()], ""));
        assert_eq!(objects(&format!("{one}\n-- \nlist footer]")), (vec![one], "-- \nlist footer]"));
        assert_eq!(objects(&format!("[{other}, 7]")), (vec![other], ", 7]"));
        assert_eq!(objects(r#"[{}, {"cut": ["#), (vec!["{}", r#"{"cut": ["#], ""));
        assert_eq!(objects("[]"), (vec![], "[]"));
        assert_eq!(objects("text"), (vec![], "text"));
    }

    #[test]
    fn rec_08_utf_16_and_utf_32_are_told_with_and_without_a_mark() {
        let text = " {\"ü\": \"€😀\"}";
        for mark in ["", "\u{feff}"] {
            let marked = format!("{mark}{text}");
            let utf16: Vec<u16> = marked.encode_utf16().collect();
            let utf32: Vec<u32> = marked.chars().map(u32::from).collect();
            for bytes in [
                utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<u8>>(),
                utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
                utf32.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
                utf32.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            ] {
                let texts = ReportTexts::decode(&bytes);
                assert_eq!((texts.whole(), texts.quirk()), (text, Some(Quirk::WideUnits)), "{bytes:02x?}");
                assert!(begins_as_json(&bytes) && is_wide(&bytes));
                // Pieces of units are replaced.
                ReportTexts::decode(&bytes[..bytes.len() - 1]);
            }
        }
        for other in ["{\"a\":1}", "", "{", "\u{feff}{}", "{\0"] {
            assert!(!is_wide(other.as_bytes()), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn converted_text_takes_at_most_twice_its_size(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for mark in [&b"\xff\xfe"[..], b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"\xff"] {
                let bytes = [mark, &bytes].concat();
                prop_assert!(ReportTexts::decode(&bytes).whole().len() <= 2 * bytes.len());
            }
        }

        #[test]
        fn objects_are_pieces_of_the_text_in_order(text in "[\\[\\]{}\",:a \\\\\0\u{1e}]{0,60}") {
            let (found, trailing) = objects(&text);
            prop_assert!(found.iter().map(|object| object.len()).sum::<usize>() + trailing.len() <= text.len());
            let has_brace = |object: &&str| object.contains('\u{7b}');
            prop_assert!(found.iter().all(has_brace));
        }
    }
}
