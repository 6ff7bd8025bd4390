//! Characters that people paste into records and policy files and that no sender accepts: full-width forms, no-break
//! spaces, typographic quotes and letters that only look like Latin ones. [`clean`] replaces them and remembers where
//! they were.

use super::Cause;

/// A character and the byte position that it has in the text, counted from 0.
pub(crate) type Place = (usize, char);

/// One deviation from the format, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slip {
    /// The kind of deviation.
    pub cause: Cause,
    /// The line, counted from 1; 0 in a record.
    pub line: usize,
    /// The byte position in the record or the line, counted from 1.
    pub column: usize,
    /// The deviation, as a clause that continues "in column 7, …".
    pub what: String,
}

/// Decodes a text that should be UTF-8. Other bytes are taken as Latin-1.
pub(crate) fn decode(raw: &[u8]) -> Vec<Place> {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    for chunk in raw.utf8_chunks() {
        out.extend(chunk.valid().char_indices().map(|(offset, c)| (at + offset, c)));
        at += chunk.valid().len();
        for byte in chunk.invalid() {
            out.push((at, char::from(*byte)));
            at += 1;
        }
    }
    out
}

/// Letters of other scripts that look like these Latin ones.
const LOOK_ALIKE: &[(char, char)] = &[
    ('а', 'a'),
    ('е', 'e'),
    ('о', 'o'),
    ('р', 'p'),
    ('с', 'c'),
    ('х', 'x'),
    ('і', 'i'),
    ('ѕ', 's'),
    ('т', 't'),
    ('м', 'm'),
    ('г', 'r'),
    ('у', 'y'),
    ('А', 'A'),
    ('В', 'B'),
    ('Е', 'E'),
    ('М', 'M'),
    ('О', 'O'),
    ('Р', 'P'),
    ('С', 'C'),
    ('Ѕ', 'S'),
    ('Т', 'T'),
    ('Х', 'X'),
    ('Υ', 'Y'),
    ('Ρ', 'P'),
    ('Ѵ', 'V'),
    ('ν', 'v'),
    ('ѵ', 'v'),
    ('Ν', 'N'),
    ('Ο', 'O'),
    ('ο', 'o'),
    ('Τ', 'T'),
    ('\u{2010}', '-'),
    ('\u{2011}', '-'),
    ('\u{2012}', '-'),
    ('–', '-'),
    ('—', '-'),
    ('−', '-'),
    ('\u{37e}', ';'),
    ('\u{61b}', ';'),
    ('\u{2236}', ':'),
    ('\u{a789}', ':'),
];

/// The character to read in the place of `c`, and why; `None` in place of a character that is not visible.
fn replacement(c: char) -> Option<(Option<char>, Cause, String)> {
    let code = format!("U+{:04X}", u32::from(c));
    let as_ascii = |c: char| char::from_u32(u32::from(c).wrapping_sub(0xfee0)).unwrap_or('?');
    Some(match c {
        '\u{ff01}'..='\u{ff5e}' => (
            Some(as_ascii(c)),
            Cause::FullWidth,
            format!("{c} is a full-width character ({code}), not {:?}", as_ascii(c)),
        ),
        '\u{a0}'
        | '\u{1680}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2000}'..='\u{200a}'
        | '\u{202f}'
        | '\u{205f}'
        | '\u{3000}' => (
            Some(' '),
            Cause::NoBreakSpace,
            format!("a no-break or typographic space ({code}) is in the place of a space"),
        ),
        '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => {
            (None, Cause::Invisible, format!("there is a character that is not visible ({code})"))
        }
        '“' | '”' | '„' | '‟' | '«' | '»' => {
            (Some('"'), Cause::Quotes, format!("there is a typographic quote {c}"))
        }
        '‘' | '’' | '‚' | '´' => {
            (Some('\''), Cause::Quotes, format!("there is a typographic quote {c}"))
        }
        _ => {
            let (_, plain) = LOOK_ALIKE.iter().find(|(odd, _)| *odd == c)?;
            (Some(*plain), Cause::LookAlike, format!("{c} ({code}) is not {plain:?}, but looks like it"))
        }
    })
}

/// Replaces pasted characters. Adds one slip for each cause, with the first place; `place` gives line and column of a byte
/// position.
pub(crate) fn clean(
    text: Vec<Place>,
    slips: &mut Vec<Slip>,
    place: impl Fn(usize) -> (usize, usize),
) -> Vec<Place> {
    let mut out = Vec::with_capacity(text.len());
    for (index, (at, c)) in text.iter().copied().enumerate() {
        // A letter of another script among others of it is part of a word, such as an internationalized name.
        let is_word = || {
            let is_odd =
                |place: Option<&Place>| place.is_some_and(|(_, c)| c.is_alphabetic() && !c.is_ascii());
            c.is_alphabetic()
                && (is_odd(index.checked_sub(1).and_then(|at| text.get(at))) || is_odd(text.get(index + 1)))
        };
        let found = replacement(c)
            .filter(|(_, cause, _)| !c.is_ascii() && (*cause != Cause::LookAlike || !is_word()));
        let Some((plain, cause, what)) = found else {
            out.push((at, c));
            continue;
        };
        if !slips.iter().any(|slip| slip.cause == cause) {
            let (line, column) = place(at);
            slips.push(Slip { cause, line, column, what });
        }
        out.extend(plain.map(|plain| (at, plain)));
    }
    out
}

/// The text of a part.
pub(crate) fn text(part: &[Place]) -> String {
    part.iter().map(|(_, c)| c).collect()
}

/// The part without white space at its ends.
pub(crate) fn trim(part: &[Place]) -> &[Place] {
    let is_space = |place: &Place| place.1.is_whitespace();
    let begin = part.iter().position(|place| !is_space(place)).unwrap_or(part.len());
    let end = part.iter().rposition(|place| !is_space(place)).map_or(begin, |last| last + 1);
    part.get(begin..end).unwrap_or_default()
}

/// Joins what slips say: "in column 1, …; in line 3, column 5, …". At most four are named.
pub(crate) fn told(slips: &[Slip]) -> String {
    let one = |slip: &Slip| match slip.line {
        0 => format!("at column {}, {}", slip.column, slip.what),
        line => format!("at line {line}, column {}, {}", slip.column, slip.what),
    };
    let mut all: Vec<String> = slips.iter().take(4).map(one).collect();
    if slips.len() > 4 {
        all.push(format!("and {} more", slips.len() - 4));
    }
    let mut out = all.join("; ");
    if let Some(first) = out.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    out + "."
}

/// A text for display: at most `most` characters, without control characters.
pub(crate) fn shown(text: &str, most: usize) -> String {
    formats::printable::printable(text, most)
}
