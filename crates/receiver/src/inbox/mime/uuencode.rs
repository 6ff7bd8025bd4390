//! Decodes uuencoded files (POSIX.1, `uuencode`), which old mailers put into the text of a message or name as a transfer
//! encoding: `begin MODE NAME`, lines with their length in the first character, `end`. Memory is reserved before it is used.

use formats::report::{HeldText, UnpackError};

/// A file within a text, still encoded.
pub(in super::super) struct Block<'m> {
    /// The name in the first line; may contain any characters.
    pub name: String,
    /// The lines after the first one.
    lines: &'m [u8],
}

/// The files within a text, in their order.
pub(in super::super) fn blocks(text: &[u8]) -> impl Iterator<Item = Block<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at_checked(length)?;
            rest = after;
            if let Some(name) = name_in(line) {
                return Some(Block { name, lines: after });
            }
        }
        None
    })
}

/// The name in a line `begin MODE NAME`, whose mode has three or four octal digits.
fn name_in(line: &[u8]) -> Option<String> {
    let rest = line.strip_prefix(b"begin ")?;
    let blank = rest.iter().position(|byte| *byte == b' ')?;
    let (mode, name) = rest.split_at_checked(blank)?;
    let is_mode = matches!(mode.len(), 3 | 4) && mode.iter().all(|digit| matches!(digit, b'0'..=b'7'));
    is_mode.then(|| String::from_utf8_lossy(name.trim_ascii()).into_owned())
}

impl Block<'_> {
    /// Appends the decoded file to `text`, up to the first line that is not encoded. Blanks at the ends of lines may be
    /// missing.
    pub(in super::super) fn decode(&self, text: &mut HeldText<'_>) -> Result<(), UnpackError> {
        for line in self.lines.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some((first, encoded)) = line.split_first() else { return Ok(()) };
            let length = usize::from(value(*first));
            let is_encoded = line.iter().all(|byte| matches!(byte, 32..=96));
            if length == 0 || !is_encoded {
                return Ok(());
            }
            let mut decoded = Vec::with_capacity(length + 2);
            for at in (0..length.div_ceil(3)).map(|group| group * 4) {
                let digit = |at: usize| u32::from(encoded.get(at).copied().map_or(0, value));
                let bits = digit(at) << 18 | digit(at + 1) << 12 | digit(at + 2) << 6 | digit(at + 3);
                decoded.extend(bits.to_be_bytes().into_iter().skip(1));
            }
            decoded.truncate(length);
            text.push(&decoded)?;
        }
        Ok(())
    }
}

/// The six bits that a character stands for. A blank and a grave accent are zero.
fn value(byte: u8) -> u8 {
    byte.wrapping_sub(32) & 63
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::*;
    use formats::report::UnlimitedMemory;
    use proptest::prelude::*;

    pub(in super::super::super) fn uuencoded(name: &str, bytes: &[u8]) -> String {
        let digit = |bits: u32| match bits & 63 {
            0 => '`',
            bits => char::from(32 + bits as u8),
        };
        let mut text = format!("begin 644 {name}\n");
        for line in bytes.chunks(45) {
            text.push(digit(line.len() as u32));
            for group in line.chunks(3) {
                let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
                let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
                text.extend([18, 12, 6, 0].map(|shift| digit(bits >> shift)));
            }
            text.push('\n');
        }
        text + "`\nend\n"
    }

    fn decoded(text: &[u8]) -> Vec<(String, Vec<u8>)> {
        let decode = |block: Block<'_>| {
            let mut text = HeldText::new(&UnlimitedMemory);
            block.decode(&mut text).unwrap();
            (block.name, text.bytes().to_vec())
        };
        blocks(text).map(decode).collect()
    }

    #[test]
    fn uuencoded_files_within_a_text_are_decoded() {
        let text =
            format!("hello\nbegin to read\n{}bye\n{}", uuencoded("a b.json", b"{}"), uuencoded("c", b""));
        let files = [("a b.json".to_owned(), b"{}".to_vec()), ("c".to_owned(), Vec::new())];
        assert_eq!(decoded(text.as_bytes()), files);
        assert_eq!(decoded(text.replace('\n', "\r\n").as_bytes()), files);
        // `cat` in the manual of uuencode, with a blank for zero bits that is gone from the end of the line.
        assert_eq!(decoded(b"begin 0644 x\n#0V%T\n \nend\n"), [("x".to_owned(), b"Cat".to_vec())]);
        assert_eq!(decoded(b"begin 644 x\n#0V\n"), [("x".to_owned(), b"C`\0".to_vec())]);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decoded(uuencoded("x", &bytes).as_bytes()), [("x".to_owned(), bytes)]);
        }

        #[test]
        fn any_text_is_decoded_or_not(text in "(begin 644 x\n)?[ -~\n]{0,80}") {
            prop_assert!(decoded(text.as_bytes()).iter().all(|(_, bytes)| bytes.len() <= 63 * 80));
        }
    }
}
