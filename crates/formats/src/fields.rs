//! The `v=…; name=value; …` grammar that the `_mta-sts` and `_smtp._tls` records share
//! (RFC 8461 §3.1, RFC 8460 §3).

use crate::limits::{FIELD_NAME_BYTES, TXT_BYTES};

/// What is wrong with a record, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {fault}")]
pub struct FieldError {
    /// 1-based byte of the record after its strings are joined.
    pub column: usize,
    /// What was found there and what was expected.
    pub fault: FieldFault,
}

/// The ways in which a `name=value` record is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldFault {
    /// The record is longer than a sender looks at.
    #[error("the record has over {TXT_BYTES} bytes")]
    TooLong,
    /// A byte outside printable ASCII.
    #[error("byte 0x{0:02x} is not printable ASCII")]
    NotAscii(u8),
    /// `;;`, or a lone `;` in front.
    #[error("an empty field: `;` stands where `name=value` was expected")]
    EmptyField,
    /// No `=` in a field.
    #[error("{0:?} has no `=`; expected `name=value`")]
    NoEquals(String),
    /// A field name outside the grammar.
    #[error(
        "the field name {0:?} must be 1 to 32 of letters, digits, `_`, `-`, `.` and begin with a letter or digit"
    )]
    BadName(String),
    /// A field without a value.
    #[error("the field {0:?} has no value")]
    EmptyValue(String),
    /// A byte that no value may have.
    #[error("{1:?} cannot stand in the value of {0:?}")]
    BadValue(String, char),
    /// The required `id` is not there.
    #[error("there is no `id`; expected `id=` and 1 to 32 letters or digits")]
    NoId,
    /// The `id` has other bytes or another length than allowed.
    #[error("the id {0:?} must be 1 to 32 letters or digits")]
    BadId(String),
    /// The required `rua` is not there.
    #[error("there is no `rua`; expected `rua=mailto:…` or `rua=https://…`")]
    NoRua,
    /// A report target that is no URI of its scheme.
    #[error("the report target {0:?}: {1}")]
    BadRua(String, &'static str),
}

/// One `name=value` and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub column: usize,
    pub name: &'a str,
    pub value: &'a str,
}

/// True when the record is of this version: `version`, optional white space, `;`.
/// Erratum 6285 of RFC 8461: the grammar allows the white space that the prose does not.
pub(crate) fn has_version(record: &[u8], version: &str) -> bool {
    match record.strip_prefix(version.as_bytes()) {
        Some(rest) => rest.trim_ascii_start().first() == Some(&b';'),
        None => false,
    }
}

/// The fields after the version. The caller has looked at [`has_version`].
pub(crate) fn fields<'a>(
    record: &'a [u8],
    version: &str,
) -> Result<impl Iterator<Item = Result<Field<'a>, FieldError>>, FieldError> {
    if record.len() > TXT_BYTES {
        return Err(FieldError { column: TXT_BYTES + 1, fault: FieldFault::TooLong });
    }
    let text = ascii(record)?;
    let begin = text.find(';').map_or(text.len(), |at| at + 1).max(version.len().min(text.len()));
    let body = text.get(begin..).unwrap_or_default();
    Ok(pieces(body, begin).map(|(column, piece)| field(column, piece)))
}

fn ascii(record: &[u8]) -> Result<&str, FieldError> {
    let odd = |b: &u8| !matches!(b, b'\t' | 0x20..=0x7e);
    if let Some(at) = record.iter().position(odd) {
        let byte = record.get(at).copied().unwrap_or_default();
        return Err(FieldError { column: at + 1, fault: FieldFault::NotAscii(byte) });
    }
    std::str::from_utf8(record)
        .map_err(|e| FieldError { column: e.valid_up_to() + 1, fault: FieldFault::NotAscii(0x80) })
}

/// Splits at `;` with the column of each piece; the piece after a final `;` is left out.
fn pieces(body: &str, begin: usize) -> impl Iterator<Item = (usize, &str)> {
    let mut offset = begin;
    let last = body.matches(';').count();
    body.split(';').enumerate().filter_map(move |(index, raw)| {
        let lead = raw.len() - raw.trim_start().len();
        let column = offset + lead + 1;
        offset += raw.len() + 1;
        let piece = raw.trim();
        (index < last || !piece.is_empty()).then_some((column, piece))
    })
}

fn field(column: usize, piece: &str) -> Result<Field<'_>, FieldError> {
    let fail = |fault| Err(FieldError { column, fault });
    if piece.is_empty() {
        return fail(FieldFault::EmptyField);
    }
    let Some((name, value)) = piece.split_once('=') else {
        return fail(FieldFault::NoEquals(piece.to_owned()));
    };
    if !is_field_name(name) {
        return fail(FieldFault::BadName(name.to_owned()));
    }
    Ok(Field { column, name, value })
}

/// The value of a field that is not known to the caller (RFC 8461 §3.1 `sts-ext-value`).
pub(crate) fn check_unknown(field: Field<'_>) -> Result<(), FieldError> {
    let fail = |fault| Err(FieldError { column: field.column, fault });
    if field.value.is_empty() {
        return fail(FieldFault::EmptyValue(field.name.to_owned()));
    }
    match field.value.chars().find(|c| *c == '=' || !c.is_ascii_graphic()) {
        Some(odd) => fail(FieldFault::BadValue(field.name.to_owned(), odd)),
        None => Ok(()),
    }
}

/// The grammar of names in records and of keys in policy files.
pub(crate) fn is_field_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    name.len() <= FIELD_NAME_BYTES
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(fits)
}

/// Why no single record could be taken from a TXT answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No record has the version: nothing is published here.
    #[error("no record begins with the version")]
    None,
    /// More than one record has it, so none counts.
    #[error("{0} records have the version; exactly one must")]
    Multiple(usize),
    /// The one record is malformed.
    #[error(transparent)]
    Invalid(#[from] FieldError),
}

/// The one record of the version among all TXT records of a name.
pub(crate) fn select<'a>(
    records: impl Iterator<Item = &'a [u8]>,
    version: &str,
) -> Result<&'a [u8], SelectError> {
    let mut found = records.filter(|record| has_version(record, version));
    let first = found.next().ok_or(SelectError::None)?;
    match found.count() {
        0 => Ok(first),
        more => Err(SelectError::Multiple(more + 1)),
    }
}
