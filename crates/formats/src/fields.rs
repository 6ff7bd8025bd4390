//! The grammar `v=…; name=value; …` that `_mta-sts` and `_smtp._tls` records share (RFC 8461 §3.1, RFC 8460 §3). The
//! modules `sts_record` and `tlsrpt_record` parse the text of a TXT record with it.

use crate::limits::{FIELD_NAME_BYTES, TXT_BYTES};

/// A syntax error in a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {fault}")]
pub struct FieldError {
    /// The byte position in the record with its strings joined, counted from 1.
    pub column: usize,
    /// What is wrong at this position.
    pub fault: FieldFault,
}

/// The kinds of syntax errors in a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldFault {
    /// The record is longer than [`TXT_BYTES`].
    #[error("the record has over {TXT_BYTES} bytes")]
    TooLong,
    /// A byte is not printable ASCII.
    #[error("byte 0x{0:02x} is not printable ASCII")]
    NotAscii(u8),
    /// A field is empty, as in `;;`.
    #[error("empty field; expected `name=value` before `;`")]
    EmptyField,
    /// A field has no `=`.
    #[error("{0:?} has no `=`; expected `name=value`")]
    NoEquals(String),
    /// A field name does not match the grammar.
    #[error(
        "the field name {0:?} must have 1 to 32 letters, digits, `_`, `-` or `.`, and begin with a letter or digit"
    )]
    BadName(String),
    /// A field has no value.
    #[error("the field {0:?} has no value")]
    EmptyValue(String),
    /// A value contains a character that the grammar does not allow.
    #[error("{1:?} is not allowed in the value of {0:?}")]
    BadValue(String, char),
    /// The required field `id` is missing.
    #[error("`id` is missing; expected `id=` and 1 to 32 letters or digits")]
    NoId,
    /// The `id` contains invalid characters or has an invalid length.
    #[error("the id {0:?} must be 1 to 32 letters or digits")]
    BadId(String),
    /// The required field `rua` is missing.
    #[error("`rua` is missing; expected `rua=mailto:…` or `rua=https://…`")]
    NoRua,
    /// A report target is not a valid URI of its scheme.
    #[error("invalid report target {0:?}: {1}")]
    BadRua(String, &'static str),
}

/// A `name=value` field and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub column: usize,
    pub name: &'a str,
    pub value: &'a str,
}

/// True if the record begins with `version`, optional white space and `;`. The grammar allows this white space,
/// although the text does not (RFC 8461, erratum 6285).
pub(crate) fn has_version(record: &[u8], version: &str) -> bool {
    match record.strip_prefix(version.as_bytes()) {
        Some(rest) => rest.trim_ascii_start().first() == Some(&b';'),
        None => false,
    }
}

/// Returns the fields after the version. The caller must have checked [`has_version`].
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
    let is_bad = |b: &u8| !matches!(b, b'\t' | 0x20..=0x7e);
    if let Some(at) = record.iter().position(is_bad) {
        let byte = record.get(at).copied().unwrap_or_default();
        return Err(FieldError { column: at + 1, fault: FieldFault::NotAscii(byte) });
    }
    std::str::from_utf8(record)
        .map_err(|e| FieldError { column: e.valid_up_to() + 1, fault: FieldFault::NotAscii(0x80) })
}

/// Splits at `;` and returns each piece with its column. An empty piece after the final `;` is omitted.
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

/// Checks the value of an unknown field (RFC 8461 §3.1, `sts-ext-value`).
pub(crate) fn check_unknown(field: Field<'_>) -> Result<(), FieldError> {
    let fail = |fault| Err(FieldError { column: field.column, fault });
    if field.value.is_empty() {
        return fail(FieldFault::EmptyValue(field.name.to_owned()));
    }
    match field.value.chars().find(|c| *c == '=' || !c.is_ascii_graphic()) {
        Some(bad) => fail(FieldFault::BadValue(field.name.to_owned(), bad)),
        None => Ok(()),
    }
}

/// True if `name` is a valid field name in a record, or key in a policy file.
pub(crate) fn is_field_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    name.len() <= FIELD_NAME_BYTES
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(fits)
}

/// Why a TXT answer does not contain exactly one valid record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No record has the expected version, so nothing is published.
    #[error("no record begins with the expected version")]
    None,
    /// Several records have the expected version, so none is valid.
    #[error("{0} records have the expected version; only one is allowed")]
    Multiple(usize),
    /// The only record of the version is malformed.
    #[error(transparent)]
    Invalid(#[from] FieldError),
}

/// Returns the only record with this version among the TXT records of a name.
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
