//! Sessions that mail servers without libtlsrpt report in JSON, by HTTP POST or in files. The members have the names
//! of RFC 8460 §4.4; docs/tlsrpt-sending.md describes them. Objects of libtlsrpt (see [`crate::datagram`]) are
//! accepted too. The collector adds the sessions to the counts of the day.

use crate::datagram::{DatagramError, Session, SessionFailure, SessionPolicy};
use crate::domain::DomainName;
use crate::limits::JSON_DEPTH;
use crate::result_type::{PolicyType, ResultType};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;

/// A session and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The end of the session. `None` if not stated; the session then counts for the time of its receipt.
    pub at: Option<Timestamp>,
    /// The session.
    pub session: Session,
}

/// Why a session is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("session {number}: {why}")]
pub struct PostedError {
    /// The number of the session in the input, counted from 1.
    pub number: usize,
    /// What is wrong with the session.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Wire {
    policy_domain: DomainName,
    at: Option<Timestamp>,
    #[serde(default)]
    tlsrpt_record: String,
    policies: Vec<WirePolicy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WirePolicy {
    policy_type: PolicyType,
    policy_domain: Option<DomainName>,
    #[serde(default)]
    policy_string: Vec<String>,
    #[serde(default)]
    mx_host: Vec<String>,
    result: Outcome,
    #[serde(default)]
    failure_details: Vec<WireFailure>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Success,
    Failure,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WireFailure {
    result_type: ResultType,
    sending_mta_ip: Option<IpAddr>,
    receiving_mx_hostname: Option<String>,
    receiving_mx_helo: Option<String>,
    receiving_ip: Option<IpAddr>,
    additional_information: Option<String>,
    failure_reason_code: Option<String>,
}

/// Parses a session, an array of sessions, or several of either, separated by white space. If a session is invalid,
/// nothing is returned but the error for the first such session.
pub fn parse(bytes: &[u8]) -> Result<Vec<Posted>, PostedError> {
    let fail = |number, why: String| PostedError { number, why: why.chars().take(300).collect() };
    crate::json::check_depth(bytes, JSON_DEPTH)
        .map_err(|at| fail(1, format!("nested deeper than {JSON_DEPTH} at byte {}", at + 1)))?;
    let mut all = Vec::new();
    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>() {
        let number = all.len() + 1;
        match value.map_err(|error| fail(number, error.to_string()))? {
            Value::Array(items) => {
                for item in items {
                    let number = all.len() + 1;
                    all.push(read(item).map_err(|why| fail(number, why))?);
                }
            }
            other => all.push(read(other).map_err(|why| fail(number, why))?),
        }
    }
    Ok(all)
}

fn read(value: Value) -> Result<Posted, String> {
    if value.get("d").is_some() {
        let session = Session::from_value(value).map_err(|error| match error {
            DatagramError::Json { message, .. } => message,
            other => other.to_string(),
        })?;
        return Ok(Posted { at: None, session });
    }
    let wire: Wire = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let policies = wire.policies.into_iter().map(|policy| policy.read(&wire.policy_domain));
    Ok(Posted {
        at: wire.at,
        session: Session {
            policies: policies.collect::<Result<_, _>>()?,
            policy_domain: wire.policy_domain,
            tlsrpt_record: wire.tlsrpt_record,
        },
    })
}

impl WirePolicy {
    fn read(self, domain: &DomainName) -> Result<SessionPolicy, String> {
        if let PolicyType::Other(name) = &self.policy_type {
            return Err(format!("the policy-type {name:?} is not one of sts, tlsa, no-policy-found"));
        }
        Ok(SessionPolicy {
            policy_type: self.policy_type,
            policy_domain: self.policy_domain.unwrap_or_else(|| domain.clone()),
            policy_string: self.policy_string,
            mx_host: self.mx_host,
            failures: self.failure_details.into_iter().map(WireFailure::read).collect::<Result<_, _>>()?,
            succeeded: self.result == Outcome::Success,
        })
    }
}

impl WireFailure {
    fn read(self) -> Result<SessionFailure, String> {
        if let ResultType::Other(name) = &self.result_type {
            let known: Vec<String> = ResultType::registered().map(|kind| kind.to_string()).collect();
            return Err(format!("the result-type {name:?} is not one of {}", known.join(", ")));
        }
        Ok(SessionFailure {
            result_type: self.result_type,
            sending_mta_ip: self.sending_mta_ip,
            receiving_mx_hostname: self.receiving_mx_hostname,
            receiving_mx_helo: self.receiving_mx_helo,
            receiving_ip: self.receiving_ip,
            additional_information: self.additional_information,
            failure_reason_code: self.failure_reason_code,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMED: &str = r#"{"policy-domain": "example.com", "at": "2026-11-25T10:00:00Z", "tlsrpt-record": "v=TLSRPTv1; rua=mailto:a@example.com",
        "policies": [{"policy-type": "sts", "policy-string": ["version: STSv1"], "mx-host": ["mx1.example.com"], "result": "failure",
          "failure-details": [{"result-type": "certificate-expired", "sending-mta-ip": "192.0.2.1", "receiving-mx-hostname": "mx1.example.com", "failure-reason-code": "why"}]}]}"#;
    const OF_LIBTLSRPT: &str = r#"{"d":"example.com","policies":[{"policy-type":9,"t":0,"f":0}]}"#;

    #[test]
    fn one_several_or_an_array_of_either_kind() {
        let one = parse(NAMED.as_bytes()).unwrap();
        assert_eq!(one[0].at, Some("2026-11-25T10:00:00Z".parse().unwrap()));
        let policy = &one[0].session.policies[0];
        assert_eq!(
            (policy.policy_domain.as_str(), policy.succeeded, policy.failures[0].result_type.as_str()),
            ("example.com", false, "certificate-expired")
        );
        for several in [format!("[{NAMED},{OF_LIBTLSRPT}]"), format!("{NAMED}\n\n{OF_LIBTLSRPT}\n")] {
            let both = parse(several.as_bytes()).unwrap();
            assert_eq!(both.len(), 2);
            assert_eq!(both[0], one[0]);
            assert!(both[1].session.policies[0].succeeded && both[1].at.is_none());
        }
        assert_eq!(parse(b" \n"), Ok(Vec::new()));
    }

    #[test]
    fn an_error_names_the_session_and_the_valid_values() {
        let wrong = |from: &str, to: &str| {
            parse(format!("[{OF_LIBTLSRPT},{}]", NAMED.replace(from, to)).as_bytes()).unwrap_err().to_string()
        };
        let said = wrong("certificate-expired", "certificate-old");
        assert!(said.starts_with("session 2: ") && said.contains("certificate-not-trusted"), "{said}");
        assert!(wrong("\"sts\"", "\"mta-sts\"").contains("no-policy-found"));
        assert!(wrong("\"result\"", "\"outcome\"").contains("outcome"));
        assert!(wrong("\"failure\"", "\"bad\"").contains("success"));
        assert!(wrong("example.com\", \"at\"", "no name\", \"at\"").starts_with("session 2"));
        assert!(parse(b"{").unwrap_err().to_string().starts_with("session 1: "));
        assert!(parse("[".repeat(100_000).as_bytes()).unwrap_err().to_string().contains("nested"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_rejected_or_accepted(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_truncated_session_is_rejected(cut in 1..NAMED.len()) {
            prop_assert!(parse(&NAMED.as_bytes()[..cut]).is_err());
        }
    }
}
