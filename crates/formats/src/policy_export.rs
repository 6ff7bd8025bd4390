//! Files of cached policies, by which one sending machine warms another: one JSON object on each line. `sternpost cache
//! export` writes them, and `sternpost cache import` reads them; docs/answers.md describes the members.
//!
//! Only the text of the policy and the time of its fetch count. Mode, `max_age` and expiry are in the file for readers, and
//! are derived from the text again, so that no file prolongs a policy.

use crate::domain::DomainName;
use crate::limits::{EXPORT_LINE_BYTES, JSON_DEPTH};
use crate::policy::{Mode, Policy, PolicyError};
use crate::sts_record::PolicyId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A cached policy, as one line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedPolicy {
    /// The policy domain.
    pub domain: DomainName,
    /// The `id` of the record for which the policy was fetched.
    pub id: PolicyId,
    /// The policy, parsed from [`Self::text`].
    pub policy: Policy,
    /// The policy file as it was fetched.
    pub text: String,
    /// The time of the fetch, in whole seconds.
    pub fetched_at: Timestamp,
}

/// Why a line is not a valid policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The line is longer than [`EXPORT_LINE_BYTES`].
    #[error("the line has over {EXPORT_LINE_BYTES} bytes")]
    TooLong,
    /// The line is not a JSON object with the required members.
    #[error("not an exported policy: {0}")]
    Json(String),
    /// The line has a version that is not supported.
    #[error("the version (schema) is {0}; expected 1")]
    Schema(u32),
    /// The text is not a valid policy file.
    #[error("the policy is invalid: {0}")]
    Policy(#[from] PolicyError),
}

/// The members that are read. Others are ignored.
#[derive(Deserialize)]
struct Read {
    schema: u32,
    domain: DomainName,
    id: PolicyId,
    fetched_at: Timestamp,
    policy: String,
}

#[derive(Serialize)]
struct Written<'a> {
    schema: u32,
    domain: &'a DomainName,
    id: &'a PolicyId,
    mode: Mode,
    max_age: u32,
    fetched_at: Timestamp,
    expires_at: Timestamp,
    policy: &'a str,
}

impl ExportedPolicy {
    /// Parses a line, with or without its line end. Fractions of a second in the time of the fetch are dropped.
    pub fn parse(line: &[u8]) -> Result<Self, ExportError> {
        if line.len() > EXPORT_LINE_BYTES {
            return Err(ExportError::TooLong);
        }
        let json = |why: String| ExportError::Json(why.chars().take(300).collect());
        crate::json::check_depth(line, JSON_DEPTH)
            .map_err(|at| json(format!("nested deeper than {JSON_DEPTH} at byte {}", at + 1)))?;
        let read: Read = serde_json::from_slice(line).map_err(|error| json(error.to_string()))?;
        if read.schema != 1 {
            return Err(ExportError::Schema(read.schema));
        }
        Ok(Self {
            domain: read.domain,
            id: read.id,
            policy: Policy::parse(read.policy.as_bytes())?,
            text: read.policy,
            fetched_at: Timestamp::from_second(read.fetched_at.as_second()).unwrap_or(read.fetched_at),
        })
    }

    /// The line, without its line end. It has no line end inside.
    pub fn to_line(&self) -> String {
        let life = SignedDuration::from_secs(i64::from(self.policy.max_age));
        let written = Written {
            schema: 1,
            domain: &self.domain,
            id: &self.id,
            mode: self.policy.mode,
            max_age: self.policy.max_age,
            fetched_at: self.fetched_at,
            expires_at: self.fetched_at.saturating_add(life).unwrap_or(Timestamp::MAX),
            policy: &self.text,
        };
        // Writing strings and numbers does not fail.
        serde_json::to_string(&written).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmax_age: 604800\r\n";

    fn exported() -> ExportedPolicy {
        ExportedPolicy {
            domain: DomainName::parse("example.org").unwrap(),
            id: PolicyId::parse("20260101").unwrap(),
            policy: Policy::parse(TEXT.as_bytes()).unwrap(),
            text: TEXT.to_owned(),
            fetched_at: Timestamp::from_second(1_800_000_000).unwrap(),
        }
    }

    #[test]
    fn a_line_has_the_documented_members() {
        let expected = concat!(
            r#"{"schema":1,"domain":"example.org","id":"20260101","mode":"enforce","max_age":604800,"#,
            r#""fetched_at":"2027-01-15T08:00:00Z","expires_at":"2027-01-22T08:00:00Z","#,
            r#""policy":"version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmax_age: 604800\r\n"}"#
        );
        assert_eq!(exported().to_line(), expected);
        assert_eq!(ExportedPolicy::parse(format!("{expected}\r\n").as_bytes()), Ok(exported()));
    }

    #[test]
    fn what_a_line_claims_beside_the_policy_does_not_count() {
        let line = exported().to_line();
        let claims = line
            .replace("\"max_age\":604800", "\"max_age\":31557600")
            .replace("\"mode\":\"enforce\"", "\"mode\":\"none\"")
            .replace("2027-01-22", "2099-01-22")
            .replace("\"schema\":1", "\"future\":[1],\"schema\":1")
            .replace("08:00:00Z\",\"expires", "08:00:00.999Z\",\"expires");
        assert_ne!(claims, line);
        assert_eq!(ExportedPolicy::parse(claims.as_bytes()), Ok(exported()));
    }

    #[test]
    fn hostile_lines_are_rejected_with_the_reason() {
        let line = exported().to_line();
        let change = |from: &str, to: &str| {
            assert!(line.contains(from), "{from}");
            line.replace(from, to)
        };
        for (hostile, expected) in [
            (String::new(), "EOF while parsing"),
            ("null".to_owned(), "invalid type: null"),
            ("{}".to_owned(), "missing field `schema`"),
            (format!("{line}{line}"), "trailing characters"),
            (line[..line.len() - 1].to_owned(), "EOF while parsing"),
            (change("\"schema\":1", "\"schema\":2"), "the version (schema) is 2"),
            (change("\"schema\":1", "\"schema\":1,\"schema\":1"), "duplicate field `schema`"),
            (change("\"example.org\"", "\"../etc/passwd\""), "not an exported policy"),
            (change("\"example.org\"", "\"strict\\u0000example.org\""), "not an exported policy"),
            (change("\"20260101\"", "\"a b\""), "not an exported policy"),
            (change("2027-01-15T08:00:00Z", "yesterday"), "not an exported policy"),
            (change("2027-01-15T08:00:00Z", "99999-01-15T08:00:00Z"), "not an exported policy"),
            (change("STSv1", "STSv2"), "the policy is invalid"),
            (change("mode: enforce", "mode: enforced"), "the policy is invalid"),
            (change("mx1.example.org", "mx1.example.org\\u0000"), "the policy is invalid"),
            (change("max_age: 604800", "max_age: -1"), "the policy is invalid"),
            (
                change("\"schema\":1", &format!("\"x\":{}1{},\"schema\":1", "[".repeat(99), "]".repeat(99))),
                "nested deeper",
            ),
        ] {
            let error = ExportedPolicy::parse(hostile.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{hostile}: {error}");
        }
        assert!(ExportedPolicy::parse(b"\xff\xfe").is_err());
        let long = format!("{line}{}", " ".repeat(EXPORT_LINE_BYTES));
        assert_eq!(ExportedPolicy::parse(long.as_bytes()), Err(ExportError::TooLong));
    }

    #[test]
    fn the_largest_policy_fits_into_a_line() {
        let comment = format!("x: {}\r\n", "\"".repeat(900));
        let mut text = TEXT.to_owned();
        while text.len() + comment.len() <= crate::limits::POLICY_BYTES {
            text.push_str(&comment);
        }
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let large = ExportedPolicy { policy, text, ..exported() };
        assert_eq!(ExportedPolicy::parse(large.to_line().as_bytes()), Ok(large));
    }

    proptest! {
        #[test]
        fn a_written_line_parses_to_the_same_policy(
            domain in "[a-z0-9]{1,20}(\\.[a-z]{1,10}){1,3}",
            id in "[a-zA-Z0-9]{1,32}",
            second in -1_000_000_000_i64..100_000_000_000,
            max_age in 0..9_999_999_999_u64,
            mode in 0..3_usize,
            comment in "[ -~\u{a1}-\u{2ff}]{1,60}",
        ) {
            let mode = ["enforce", "testing", "none"][mode];
            let text = format!("version: STSv1\nmode: {mode}\r\nmx: *.{domain}\nmax_age: {max_age}\ncomment: x{comment}\n");
            let policy = Policy::parse(text.as_bytes());
            prop_assume!(policy.is_ok());
            let exported = ExportedPolicy {
                domain: DomainName::parse(&domain).unwrap(),
                id: PolicyId::parse(&id).unwrap(),
                policy: policy.unwrap(),
                text,
                fetched_at: Timestamp::from_second(second).unwrap(),
            };
            let line = exported.to_line();
            prop_assert!(!line.contains(['\n', '\r']));
            prop_assert_eq!(ExportedPolicy::parse(line.as_bytes()), Ok(exported));
        }

        #[test]
        fn any_line_is_rejected_or_written_again(
            at in 0..300_usize, bytes in proptest::collection::vec(any::<u8>(), 0..8)
        ) {
            let mut line = exported().to_line().into_bytes();
            let at = at.min(line.len());
            line.splice(at..(at + bytes.len()).min(line.len()), bytes);
            if let Ok(policy) = ExportedPolicy::parse(&line) {
                prop_assert_eq!(ExportedPolicy::parse(policy.to_line().as_bytes()), Ok(policy));
            }
        }
    }
}
