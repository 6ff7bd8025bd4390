//! The `_mta-sts` TXT record, which announces a policy and its `id` (RFC 8461 §3.1). The sending side and the check
//! parse the TXT answers; the receiving side publishes records with a new `id` for each change of the policy.

pub use crate::fields::{FieldError, FieldFault, SelectError};
use crate::fields::{check_unknown, fields, has_version, select};
use crate::limits::{POLICY_ID_BYTES, TXT_RECORDS};
use std::fmt;

const VERSION: &str = "v=STSv1";

/// The `id` of a policy: 1 to 32 letters or digits, compared for equality only (STS-10).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyId(Box<str>);

impl PolicyId {
    /// Parses an `id` of 1 to 32 ASCII letters or digits.
    pub fn parse(text: &str) -> Result<Self, FieldFault> {
        let fits =
            (1..=POLICY_ID_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if fits { Ok(Self(text.into())) } else { Err(FieldFault::BadId(text.to_owned())) }
    }

    /// Creates the `id` for a policy that is published at `now`: `YYYYMMDDHHMMSS` in UTC. If `previous` has the same
    /// form, the new `id` is greater (STS-14).
    pub fn at(now: jiff::Timestamp, previous: Option<&PolicyId>) -> Self {
        let stamp = now.strftime("%Y%m%d%H%M%S").to_string();
        let least = previous
            .and_then(PolicyId::as_time)
            .map(|time| time.saturating_add(jiff::SignedDuration::from_secs(1)));
        let new = match least {
            Some(Ok(least)) if least > now => least.strftime("%Y%m%d%H%M%S").to_string(),
            _ => stamp.clone(),
        };
        // The last second of the calendar has no successor.
        let is_used = previous.is_some_and(|previous| *previous.0 == *new);
        Self(if is_used { stamp } else { new }.into())
    }

    /// Returns the time that the `id` states. `None` if it does not have the form `YYYYMMDDHHMMSS`.
    pub fn as_time(&self) -> Option<jiff::Timestamp> {
        if self.0.len() != 14 || !self.0.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let civil = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", &*self.0).ok()?;
        jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
    }

    /// Returns the `id` as written in the record.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl serde::Serialize for PolicyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for PolicyId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A valid `_mta-sts` record (RFC 8461 §3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StsRecord {
    /// The `id` of the current policy.
    pub id: PolicyId,
    /// Names and values of unknown fields, in order.
    pub extensions: Vec<(String, String)>,
    /// Oddities that do not make the record invalid.
    pub notes: Vec<StsNote>,
}

/// An oddity of a valid record, for `check`, which has a finding for each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StsNote {
    /// There is white space before the first `;` (erratum 6285). Some senders discard such a record.
    SpaceBeforeDelimiter,
    /// The field of this name occurs more than once; the first value is used.
    Repeated(String),
}

impl StsRecord {
    /// Parses one TXT record with its strings joined. Fails with [`SelectError::None`] if it has a different version.
    pub fn parse(record: &[u8]) -> Result<Self, SelectError> {
        if !has_version(record, VERSION) {
            return Err(SelectError::None);
        }
        Ok(Self::parse_versioned(record)?)
    }

    /// Finds and parses the only record of this version among the TXT records of a name (STS-03).
    pub fn select<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, SelectError> {
        let record = select(records.into_iter().take(TXT_RECORDS), VERSION)?;
        Ok(Self::parse_versioned(record)?)
    }

    fn parse_versioned(record: &[u8]) -> Result<Self, FieldError> {
        let mut id = None;
        let mut extensions: Vec<(String, String)> = Vec::new();
        let mut notes = Vec::new();
        if record.get(VERSION.len()) != Some(&b';') {
            notes.push(StsNote::SpaceBeforeDelimiter);
        }
        for field in fields(record, VERSION)? {
            let field = field?;
            let seen = if field.name == "id" {
                id.is_some()
            } else {
                extensions.iter().any(|(name, _)| name == field.name)
            };
            if seen {
                notes.push(StsNote::Repeated(field.name.to_owned()));
            } else if field.name == "id" {
                id = Some(
                    PolicyId::parse(field.value)
                        .map_err(|fault| FieldError { column: field.column, fault })?,
                );
            } else {
                check_unknown(field)?;
                extensions.push((field.name.to_owned(), field.value.to_owned()));
            }
        }
        let id = id.ok_or(FieldError { column: record.len() + 1, fault: FieldFault::NoId })?;
        Ok(Self { id, extensions, notes })
    }

    /// Creates a record that contains only `id`.
    pub fn new(id: PolicyId) -> Self {
        Self { id, extensions: Vec::new(), notes: Vec::new() }
    }
}

impl fmt::Display for StsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v=STSv1; id={};", self.id)?;
        self.extensions.iter().try_for_each(|(name, value)| write!(f, " {name}={value};"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<StsRecord, SelectError> {
        StsRecord::parse(text.as_bytes())
    }

    fn id(text: &str) -> String {
        parse(text).unwrap().id.to_string()
    }

    #[test]
    fn sts_03_records_of_other_versions_are_discarded_and_one_must_remain() {
        let one: &[u8] = b"v=STSv1; id=1;";
        let select = |records: &[&[u8]]| StsRecord::select(records.iter().copied());
        assert_eq!(select(&[b"v=spf1 -all", one]).unwrap().id.as_str(), "1");
        assert_eq!(select(&[one, one]), Err(SelectError::Multiple(2)));
        assert_eq!(select(&[b"v=spf1 -all"]), Err(SelectError::None));
        assert_eq!(select(&[]), Err(SelectError::None));
        for other in [
            "v=STSv10; id=1",
            "v=STSv2; id=1",
            "v=STSv1",
            "id=1; v=STSv1;",
            " v=STSv1; id=1",
            "v =STSv1; id=1",
            "",
        ] {
            assert_eq!(parse(other), Err(SelectError::None), "{other:?}");
        }
        let spaced = parse("v=STSv1 ; id=7").unwrap();
        assert_eq!((spaced.id.as_str(), spaced.notes), ("7", vec![StsNote::SpaceBeforeDelimiter]));
    }

    #[test]
    fn sts_04_fields_after_the_version_stand_in_any_order() {
        assert_eq!(id("v=STSv1; id=1; ext=a"), "1");
        assert_eq!(id("v=STSv1; ext=a; id=1"), "1");
        assert_eq!(parse("id=1; v=STSv1"), Err(SelectError::None));
    }

    #[test]
    fn sts_05_id_is_1_to_32_letters_or_digits() {
        assert_eq!(id("v=STSv1; id=20160831085700Z;"), "20160831085700Z");
        assert_eq!(id(&format!("v=STSv1; id={}", "a".repeat(32))).len(), 32);
        let fault = |text: &str| match parse(text).unwrap_err() {
            SelectError::Invalid(error) => error.fault,
            other => panic!("{other}"),
        };
        assert_eq!(fault("v=STSv1;"), FieldFault::NoId);
        assert_eq!(fault("v=STSv1; ext=1"), FieldFault::NoId);
        for bad in ["", "test-123", "2026.01", "a b", "0123456789abcdef0123456789abcdefX", "é"] {
            assert!(parse(&format!("v=STSv1; id={bad}")).is_err(), "{bad:?}");
        }
        assert_eq!(fault("v=STSv1; id=a-b"), FieldFault::BadId("a-b".into()));
    }

    #[test]
    fn sts_06_unknown_fields_are_ignored_when_they_fit() {
        let record = parse("v=STSv1; id=a; more=a; e_x-t.2=/!~").unwrap();
        assert_eq!(record.extensions, [("more".into(), "a".into()), ("e_x-t.2".into(), "/!~".into())]);
        for bad in [
            "more=",
            "a12345678901234567890123456789012=1",
            "1%=a",
            "test==",
            "x=a b",
            "x",
            "=a",
            "_x=1",
            "more=a\u{1}",
        ] {
            assert!(parse(&format!("v=STSv1; id=a; {bad}")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sts_07_the_first_of_repeated_fields_counts() {
        let record = parse("v=STSv1; id=1; id=2; x=1; x=2").unwrap();
        assert_eq!(record.id.as_str(), "1");
        assert_eq!(record.extensions, [("x".into(), "1".into())]);
        assert_eq!(record.notes, [StsNote::Repeated("id".into()), StsNote::Repeated("x".into())]);
    }

    #[test]
    fn sts_08_names_and_version_are_case_sensitive() {
        assert_eq!(parse("V=STSv1; id=1"), Err(SelectError::None));
        assert_eq!(parse("v=stsv1; id=1"), Err(SelectError::None));
        assert!(matches!(parse("v=STSv1; ID=1"), Err(SelectError::Invalid(_))));
    }

    #[test]
    fn sts_10_ids_are_compared_for_equality_only() {
        assert_ne!(PolicyId::parse("A").unwrap(), PolicyId::parse("a").unwrap());
        assert_ne!(PolicyId::parse("01").unwrap(), PolicyId::parse("1").unwrap());
        assert_eq!(PolicyId::parse("x9").unwrap(), PolicyId::parse("x9").unwrap());
    }

    #[test]
    fn sts_11_a_trailing_semicolon_is_fine_and_an_empty_field_is_not() {
        assert_eq!(id("v=STSv1; id=a;"), "a");
        assert_eq!(id("v=STSv1; id=a ;  "), "a");
        let SelectError::Invalid(error) = parse("v=STSv1; id=a;;").unwrap_err() else { panic!() };
        assert_eq!((error.column, error.fault), (15, FieldFault::EmptyField));
        assert!(parse("v=STSv1;; id=a").is_err());
    }

    #[test]
    fn sts_12_bytes_outside_ascii_make_the_record_invalid() {
        let SelectError::Invalid(error) = StsRecord::parse(b"v=STSv1; id=a; x=\xff").unwrap_err() else {
            panic!()
        };
        assert_eq!((error.column, error.fault), (18, FieldFault::NotAscii(0xff)));
        assert!(parse("v=STSv1; id=a; x=ü").is_err());
        assert!(parse("v=STSv1; id=a\0").is_err());
    }

    #[test]
    fn sts_14_ids_are_utc_time_stamps_that_only_grow() {
        let now: jiff::Timestamp = "2026-11-24T13:30:00Z".parse().unwrap();
        let first = PolicyId::at(now, None);
        assert_eq!(first.as_str(), "20261124133000");
        assert_eq!(PolicyId::at(now, Some(&first)).as_str(), "20261124133001");
        let ahead = PolicyId::parse("20270101000000").unwrap();
        assert_eq!(PolicyId::at(now, Some(&ahead)).as_str(), "20270101000001");
        let odd = PolicyId::parse("abc").unwrap();
        assert_eq!(PolicyId::at(now, Some(&odd)), first);
        assert_eq!(PolicyId::parse("20261324133000").unwrap().as_time(), None);
    }

    proptest! {
        #[test]
        fn a_printed_record_parses_to_itself(id in "[A-Za-z0-9]{1,32}", names in proptest::collection::btree_set("[a-h][a-zA-Z0-9_.-]{0,31}", 0..4), value in "[!-:<>-~]{1,20}") {
            let value = value.replace('=', "x");
            let record = StsRecord { id: PolicyId::parse(&id).unwrap(), extensions: names.into_iter().map(|n| (n, value.clone())).collect(), notes: vec![] };
            prop_assert_eq!(parse(&record.to_string()), Ok(record));
        }

        #[test]
        fn any_bytes_are_rejected_or_normalized(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut text = b"v=STSv1;".to_vec();
            text.extend(bytes);
            if let Ok(record) = StsRecord::parse(&text) {
                let again = StsRecord::parse(record.to_string().as_bytes()).unwrap();
                prop_assert_eq!((again.id, again.extensions), (record.id, record.extensions));
            }
        }
    }
}
