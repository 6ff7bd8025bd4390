//! TXT records at `_mta-sts` and `_smtp._tls` that no sender accepts, although a person sees what they were meant to be.
//! [`repair`] says what deviates from the grammar (RFC 8461 §3.1, RFC 8460 §3), and writes the record anew with the values
//! of its owner: the `id`, the report targets and unknown fields. It is for people only; senders use the strict parsers in
//! `formats`, and must not guess.

use super::Cause;
pub use super::characters::Slip;
use super::characters::{Place, clean, decode, told, trim};
use super::near_record::fields::Fields;
use formats::limits::TXT_BYTES;
use formats::{DomainName, StsRecord, tlsrpt_record::TlsrptRecord};

mod fields;
mod targets;
mod version;

/// The record that is expected at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// `_mta-sts`: `v=STSv1; id=…`.
    Sts,
    /// `_smtp._tls`: `v=TLSRPTv1; rua=…`.
    Tlsrpt,
}

impl RecordKind {
    /// The value of `v`.
    pub fn version(self) -> &'static str {
        match self {
            Self::Sts => "STSv1",
            Self::Tlsrpt => "TLSRPTv1",
        }
    }

    /// The field that the record needs.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Sts => "id",
            Self::Tlsrpt => "rua",
        }
    }
}

/// What a record was meant to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearRecord {
    /// What deviates from the grammar, the most telling first.
    pub slips: Vec<Slip>,
    /// The record that the owner meant, with their own values, which the strict parsers accept.
    pub corrected: String,
}

impl NearRecord {
    /// The cause: the most telling deviation.
    pub fn cause(&self) -> Option<Cause> {
        self.slips.first().map(|slip| slip.cause)
    }

    /// All deviations in words.
    pub fn told(&self) -> String {
        told(&self.slips)
    }
}

/// Compares a record with what is expected at its name. `fallback` is the `id` to use where the record has none. Returns
/// `None` for a record that has nothing to do with it, and a result without slips for one that the strict parser accepts.
pub fn repair(kind: RecordKind, record: &[u8], domain: &DomainName, fallback: &str) -> Option<NearRecord> {
    if is_valid(kind, record) {
        let corrected = String::from_utf8_lossy(record).into_owned();
        return Some(NearRecord { slips: Vec::new(), corrected });
    }
    lenient(kind, record, domain, fallback)
}

/// Like [`repair`], also for a record that the strict parser accepts, such as one with an invalid report target among valid
/// ones.
pub(crate) fn lenient(
    kind: RecordKind,
    record: &[u8],
    domain: &DomainName,
    fallback: &str,
) -> Option<NearRecord> {
    let mut slips = Vec::new();
    let whole = decode(record.get(..TXT_BYTES).unwrap_or(record));
    let text = unquoted(clean(whole, &mut slips, |at| (0, at + 1)), &mut slips);
    let signs = tidy(&text, &mut slips);
    let version = version::find(kind, &signs, &mut slips)?;
    let found = Fields::read(kind, &version, &mut slips);
    let corrected = match kind {
        RecordKind::Sts => found.sts(fallback, &mut slips),
        RecordKind::Tlsrpt => found.tlsrpt(domain, &mut slips),
    };
    slips.sort_by_key(|slip| (slip.cause, slip.column));
    Some(NearRecord { slips, corrected })
}

fn is_valid(kind: RecordKind, record: &[u8]) -> bool {
    match kind {
        RecordKind::Sts => StsRecord::parse(record).is_ok(),
        RecordKind::Tlsrpt => TlsrptRecord::parse(record).is_ok_and(|record| !record.rua.is_empty()),
    }
}

/// Adds a slip unless one of this cause is there already.
fn slip(slips: &mut Vec<Slip>, cause: Cause, at: usize, what: impl Into<String>) {
    if !slips.iter().any(|slip| slip.cause == cause) {
        slips.push(Slip { cause, line: 0, column: at + 1, what: what.into() });
    }
}

/// Removes backslashes and quotes.
fn unquoted(text: Vec<Place>, slips: &mut Vec<Slip>) -> Vec<Place> {
    let mut out: Vec<Place> = Vec::with_capacity(text.len());
    let mut rest = text.as_slice();
    while let [(at, c), more @ ..] = rest {
        rest = more;
        match c {
            '\\' => {
                let digits: String = more.iter().take(3).map(|(_, c)| *c).collect();
                slip(slips, Cause::Backslash, *at, "there is a backslash, which belongs to zone files only");
                let escaped = digits
                    .parse::<u8>()
                    .ok()
                    .filter(|_| digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()));
                if let Some(byte) = escaped {
                    out.push((*at, char::from(byte)));
                    rest = more.get(3..).unwrap_or_default();
                }
            }
            '"' | '`' => slip(
                slips,
                Cause::Quotes,
                *at,
                format!("there is a quote ({c}), which is not part of the value"),
            ),
            '\'' if is_around(&out, more) => {
                slip(slips, Cause::Quotes, *at, "there is a quote ('), which is not part of the value");
            }
            _ => out.push((*at, *c)),
        }
    }
    out
}

/// True where an apostrophe is around a value rather than in a mail address.
fn is_around(before: &[Place], after: &[Place]) -> bool {
    let is_edge =
        |place: Option<&Place>| place.is_none_or(|(_, c)| c.is_whitespace() || ";,='\"".contains(*c));
    is_edge(before.last()) || is_edge(after.first())
}

/// Replaces line ends by spaces, and removes white space at both ends. White space at the end is no deviation.
fn tidy(signs: &[Place], slips: &mut Vec<Slip>) -> Vec<Place> {
    let plain = signs.iter().map(|(at, c)| {
        if c.is_control() && *c != '\t' {
            slip(slips, Cause::LineBreak, *at, "there is a line end or a control character");
            return (*at, ' ');
        }
        (*at, *c)
    });
    let plain: Vec<Place> = plain.collect();
    if plain.first().is_some_and(|(at, c)| *at == 0 && c.is_whitespace()) {
        slip(slips, Cause::LeadingSpace, 0, "the record begins with white space");
    }
    trim(&plain).to_vec()
}

#[cfg(test)]
mod tests;
