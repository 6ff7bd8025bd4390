//! Session datagrams of libtlsrpt: a mail server sends one JSON object per delivery attempt to a Unix datagram socket
//! (protocol of libtlsrpt 0.5; 0.5.0 has no version field, 0.5.1 and later send `"dpv": "1"`). The collector parses
//! them and adds them to the session counts of the day.
//!
//! Names and reasons come from foreign mail servers, and libtlsrpt passes them on. A session counts whatever bytes they
//! have, and whatever optional members are empty or `null`: only without the domain, the policy type or the result is
//! there nothing to count.

use crate::domain::DomainName;
use crate::limits::{DATAGRAM_BYTES, JSON_DEPTH};
use crate::result_type::{PolicyType, ResultType};
use serde::Deserialize;
use std::net::IpAddr;

/// A delivery attempt, with its result under each policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The recipient domain (member `d`).
    pub policy_domain: DomainName,
    /// The `_smtp._tls` record that the mail server found; empty if it sent none.
    pub tlsrpt_record: String,
    /// The policies that applied to the attempt, each with its own result.
    pub policies: Vec<SessionPolicy>,
}

/// The result of a delivery attempt under one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPolicy {
    /// The type of the policy.
    pub policy_type: PolicyType,
    /// The policy domain; the recipient domain if the datagram names none.
    pub policy_domain: DomainName,
    /// The lines of the policy file, or the TLSA records.
    pub policy_string: Vec<String>,
    /// The `mx` patterns of the policy.
    pub mx_host: Vec<String>,
    /// The failures, which may exist even if the attempt succeeded in the end (LIB-04).
    pub failures: Vec<SessionFailure>,
    /// True if the attempt succeeded in the end.
    pub succeeded: bool,
}

/// One failure of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFailure {
    /// The result type (RFC 8460 §4.3).
    pub result_type: ResultType,
    /// The address of the sending mail server.
    pub sending_mta_ip: Option<IpAddr>,
    /// The MX host's name; `None` if the mail server did not send it.
    pub receiving_mx_hostname: Option<String>,
    /// The name in the MX host's greeting.
    pub receiving_mx_helo: Option<String>,
    /// The address of the MX host.
    pub receiving_ip: Option<IpAddr>,
    /// Further information, as text or URI.
    pub additional_information: Option<String>,
    /// The reason; for an unknown failure code, its number (LIB-02).
    pub failure_reason_code: Option<String>,
}

/// Why a datagram is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The datagram is longer than [`DATAGRAM_BYTES`].
    #[error("the datagram has {0} bytes; at most {DATAGRAM_BYTES} are accepted")]
    TooLong(usize),
    /// The datagram is not valid JSON, or lacks a required member.
    #[error("line {line}, column {column}: {message}")]
    Json {
        /// The line of the error, counted from 1.
        line: usize,
        /// The column of the error, counted from 1.
        column: usize,
        /// The error message of the JSON parser.
        message: String,
    },
    /// The protocol version is not supported.
    #[error("the protocol version is {0:?}; expected \"1\" or none")]
    Version(String),
    /// The final result `f` is neither 0 nor 1.
    #[error("the final result `f` is {0}; expected 0 or 1")]
    FinalResult(u64),
}

#[derive(Deserialize)]
struct Wire {
    dpv: Option<String>,
    d: DomainName,
    pr: Option<String>,
    policies: Vec<WirePolicy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct WirePolicy {
    policy_type: u64,
    policy_domain: Option<String>,
    policy_string: Option<Vec<Option<String>>>,
    mx_host: Option<Vec<Option<String>>>,
    failure_details: Option<Vec<Option<WireFailure>>>,
    f: u64,
}

#[derive(Deserialize)]
struct WireFailure {
    c: Option<u64>,
    s: Option<String>,
    n: Option<String>,
    h: Option<String>,
    r: Option<String>,
    a: Option<String>,
    f: Option<String>,
}

impl Session {
    /// Parses one datagram of at most [`DATAGRAM_BYTES`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, DatagramError> {
        if bytes.len() > DATAGRAM_BYTES {
            return Err(DatagramError::TooLong(bytes.len()));
        }
        crate::json::check_depth(bytes, JSON_DEPTH).map_err(|at| DatagramError::Json {
            line: 1,
            column: at + 1,
            message: format!("nested deeper than {JSON_DEPTH}"),
        })?;
        match serde_json::from_slice::<Wire>(bytes) {
            Ok(wire) => wire.read(),
            Err(error) => match serde_json::from_str::<serde_json::Value>(&repaired(bytes)) {
                Ok(value) => Self::from_value(value).map_err(|_| json(error)),
                Err(_) => Err(json(error)),
            },
        }
    }

    /// Reads a session from a parsed JSON value.
    pub(crate) fn from_value(value: serde_json::Value) -> Result<Self, DatagramError> {
        serde_json::from_value::<Wire>(value).map_err(json)?.read()
    }
}

/// The text with all that JSON does not allow in a string replaced: bytes that are not UTF-8, control characters, and
/// escapes of lone surrogates.
fn repaired(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace(|c: char| c.is_ascii_control(), " ");
    let mut parts = text.split("\\u");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_high = |digit: char| digit.to_digit(16).is_some_and(|digit| digit >= 8);
        let is_surrogate = part.strip_prefix(['d', 'D']).is_some_and(|rest| rest.starts_with(is_high));
        match part.get(4..).filter(|_| is_surrogate) {
            Some(rest) => {
                out.push('\u{fffd}');
                out.push_str(rest);
            }
            None => {
                out.push_str("\\u");
                out.push_str(part);
            }
        }
    }
    out
}

fn json(error: serde_json::Error) -> DatagramError {
    DatagramError::Json {
        line: error.line(),
        column: error.column(),
        message: error.to_string().chars().take(200).collect(),
    }
}

impl Wire {
    fn read(self) -> Result<Session, DatagramError> {
        if let Some(version) = self.dpv.filter(|version| !version.is_empty() && version != "1") {
            return Err(DatagramError::Version(version.chars().take(20).collect()));
        }
        let policies =
            self.policies.into_iter().map(|policy| policy.read(&self.d)).collect::<Result<_, _>>()?;
        Ok(Session { policy_domain: self.d, tlsrpt_record: self.pr.unwrap_or_default(), policies })
    }
}

impl WirePolicy {
    fn read(self, domain: &DomainName) -> Result<SessionPolicy, DatagramError> {
        let succeeded = match self.f {
            0 => true,
            1 => false,
            other => return Err(DatagramError::FinalResult(other)),
        };
        Ok(SessionPolicy {
            policy_type: match self.policy_type {
                1 => PolicyType::Tlsa,
                2 => PolicyType::Sts,
                9 => PolicyType::NoPolicyFound,
                other => PolicyType::Other(other.to_string()),
            },
            policy_domain: self
                .policy_domain
                .and_then(|name| DomainName::parse(&name).ok())
                .unwrap_or_else(|| domain.clone()),
            policy_string: self.policy_string.into_iter().flatten().flatten().collect(),
            mx_host: self.mx_host.into_iter().flatten().flatten().collect(),
            failures: self.failure_details.into_iter().flatten().flatten().map(WireFailure::read).collect(),
            succeeded,
        })
    }
}

impl WireFailure {
    fn read(self) -> SessionFailure {
        let known = self.c.and_then(failure_code);
        let address = |text: Option<String>| text.and_then(|text| text.trim_matches(['[', ']']).parse().ok());
        SessionFailure {
            failure_reason_code: match self.c.filter(|_| known.is_none()) {
                Some(code) => Some(code.to_string()),
                None => self.f,
            },
            result_type: known.unwrap_or(ResultType::ValidationFailure),
            sending_mta_ip: address(self.s),
            receiving_mx_hostname: self.n,
            receiving_mx_helo: self.h,
            receiving_ip: address(self.r),
            additional_information: self.a,
        }
    }
}

fn failure_code(code: u64) -> Option<ResultType> {
    Some(match code {
        201 => ResultType::StarttlsNotSupported,
        202 => ResultType::CertificateHostMismatch,
        203 => ResultType::CertificateNotTrusted,
        204 => ResultType::CertificateExpired,
        205 => ResultType::ValidationFailure,
        301 => ResultType::StsPolicyFetchError,
        302 => ResultType::StsPolicyInvalid,
        303 => ResultType::StsWebpkiInvalid,
        304 => ResultType::TlsaInvalid,
        305 => ResultType::DnssecInvalid,
        306 => ResultType::DaneRequired,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAILED: &str = r#"{"dpv": "1","d": "example.com","pr": "v=TLSRPTv1; rua=mailto:a@example.com","policies":[{"policy-type":2,"policy-domain": "example.com","policy-string":["version: STSv1"],"mx-host":["mx1.example.com"],"failure-details":[{"c":201,"s": "192.0.2.1","n": "mx1.example.com","h": "mx1","r": "198.51.100.7","a": "more","f": "why"}],"t":1,"f":1}]}"#;

    fn parse(text: &str) -> Result<Session, DatagramError> {
        Session::parse(text.as_bytes())
    }

    #[test]
    fn lib_01_one_object_with_or_without_its_version() {
        let with = parse(FAILED).unwrap();
        assert_eq!(with, parse(&FAILED.replace(r#""dpv": "1","#, "")).unwrap());
        assert_eq!(with.policy_domain.as_str(), "example.com");
        let failure = &with.policies[0].failures[0];
        assert_eq!(failure.result_type, ResultType::StarttlsNotSupported);
        assert_eq!(failure.receiving_ip, Some("198.51.100.7".parse().unwrap()));
        assert_eq!(failure.failure_reason_code.as_deref(), Some("why"));
        assert_eq!(
            parse(&FAILED.replace(r#""dpv": "1""#, r#""dpv": "2""#)),
            Err(DatagramError::Version("2".into()))
        );
    }

    #[test]
    fn lib_02_all_types_codes_and_results() {
        let codes = [201, 202, 203, 204, 205, 301, 302, 303, 304, 305, 306];
        let kinds: std::collections::HashSet<_> = codes.iter().map(|c| failure_code(*c).unwrap()).collect();
        assert_eq!(kinds.len(), codes.len());
        let unknown = parse(&FAILED.replace("201", "777")).unwrap();
        assert_eq!(unknown.policies[0].failures[0].result_type, ResultType::ValidationFailure);
        assert_eq!(unknown.policies[0].failures[0].failure_reason_code.as_deref(), Some("777"));
        for (number, kind) in [
            (1, PolicyType::Tlsa),
            (2, PolicyType::Sts),
            (9, PolicyType::NoPolicyFound),
            (5, PolicyType::Other("5".into())),
        ] {
            let text = format!(r#"{{"d":"a.example","policies":[{{"policy-type":{number},"t":0,"f":0}}]}}"#);
            let session = parse(&text).unwrap();
            assert_eq!((&session.policies[0].policy_type, session.policies[0].succeeded), (&kind, true));
            assert_eq!(session.policies[0].policy_domain.as_str(), "a.example");
        }
        assert_eq!(parse(&FAILED.replace(r#""f":1}"#, r#""f":2}"#)), Err(DatagramError::FinalResult(2)));
    }

    #[test]
    fn lib_03_each_policy_of_a_delivery_has_its_own_outcome() {
        let session = parse(
            r#"{"d":"a.example","policies":[{"policy-type":1,"t":0,"f":0},{"policy-type":2,"t":0,"f":1}]}"#,
        )
        .unwrap();
        assert_eq!(session.policies.iter().map(|p| p.succeeded).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn lib_04_a_success_keeps_its_failure_details() {
        let session = parse(&FAILED.replace(r#""t":1,"f":1}"#, r#""t":1,"f":0}"#)).unwrap();
        assert!(session.policies[0].succeeded);
        assert_eq!(session.policies[0].failures.len(), 1);
    }

    #[test]
    fn lib_05_long_and_broken_datagrams_are_refused_with_the_place() {
        let long = format!(r#"{{"d":"a.example","policies":[],"pr":"{}"}}"#, "x".repeat(DATAGRAM_BYTES));
        assert!(matches!(parse(&long), Err(DatagramError::TooLong(_))));
        let Err(DatagramError::Json { line, column, .. }) = parse("{\"d\":\n 1}") else { panic!() };
        assert_eq!((line, column > 1), (2, true));
        for bad in [
            "",
            "[]",
            "null",
            r#"{"d":"a.example"}"#,
            r#"{"d":"not a name","policies":[]}"#,
            &"[".repeat(60_000),
        ] {
            assert!(parse(bad).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn empty_and_odd_members_do_not_lose_the_session() {
        for (from, to) in [
            (r#""dpv": "1""#, r#""dpv": """#),
            (r#""dpv": "1""#, r#""dpv": null, "pr": null, "new": {}"#),
            (r#""c":201"#, r#""c":null"#),
            (r#""c":201"#, r#""n":"\ud800","h":"\udc00 x","c":201"#),
        ] {
            let text = FAILED.replace(from, to);
            assert_ne!(text, FAILED, "{from}");
            let session = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(session.policies[0].failures.len(), 1, "{text}");
        }
        let empty = r#"{"d":"a.example","policies":[{"policy-type":2,"policy-domain":"","policy-string":[null,""],"mx-host":null,"failure-details":[null],"f":0}]}"#;
        let session = parse(empty).unwrap();
        assert_eq!(session.policies[0].policy_domain.as_str(), "a.example");
        assert_eq!(
            (session.policies[0].policy_string.as_slice(), session.policies[0].failures.len()),
            (&[String::new()][..], 0)
        );
    }

    proptest! {
        /// Any bytes but the two that end a string.
        #[test]
        fn bytes_of_foreign_servers_do_not_lose_the_session(odd in proptest::collection::vec(any::<u8>(), 0..40)) {
            let odd: Vec<u8> = odd.into_iter().filter(|byte| !matches!(byte, b'"' | b'\\')).collect();
            let at = FAILED.find("why").unwrap();
            let datagram = [&FAILED.as_bytes()[..at], &odd, &FAILED.as_bytes()[at..]].concat();
            let session = Session::parse(&datagram).unwrap();
            prop_assert_eq!(&session.policies[0].failures[0].result_type, &ResultType::StarttlsNotSupported);
            prop_assert!(session.policies[0].failures[0].failure_reason_code.as_ref().unwrap().ends_with("why"));
        }

        #[test]
        fn any_bytes_are_rejected_or_accepted(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Session::parse(&bytes);
        }

        #[test]
        fn any_truncated_datagram_is_rejected(cut in 0..FAILED.len()) {
            prop_assert!(Session::parse(&FAILED.as_bytes()[..cut]).is_err());
        }
    }
}
