//! Sessions that mail servers without libtlsrpt report in JSON, by HTTP POST or in files. The members have the names
//! of RFC 8460 §4.4; docs/tlsrpt-sending.md describes them. Objects of libtlsrpt (see [`crate::datagram`]) are
//! accepted too. The collector adds the sessions to the counts of the day.
//!
//! A mail server that knows only how TLS went, not under which policy, reports a session as [`Observed`]; the collector
//! completes it with the policy that the store has. [`Posted::to_json`] writes what [`parse`] reads, for collectors that
//! hand their sessions over to another machine. Unknown members are ignored, since that machine may have a newer version.

use crate::datagram::{DatagramError, Session, SessionFailure, SessionPolicy};
use crate::domain::DomainName;
use crate::limits::JSON_DEPTH;
use crate::result_type::{PolicyType, ResultType};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// A session, its time, and how often it occurred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The end of the session. `None` if not stated; the session then counts for the time of its receipt.
    pub at: Option<Timestamp>,
    /// The number of equal sessions, from 1 to [`MAX_COUNT`].
    pub count: u64,
    /// The session, with its policies or as it was observed without them.
    pub session: PostedSession,
}

/// The largest `count` of a session.
pub const MAX_COUNT: u64 = 1_000_000_000;

/// A session as it was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostedSession {
    /// A session with its policies.
    Complete(Session),
    /// A session of a mail server that does not know the policy.
    Observed(Observed),
}

/// The outcome of TLS in a session, without the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The recipient domain.
    pub domain: DomainName,
    /// The outcome of TLS.
    pub tls: ObservedTls,
    /// The MX host's name; `None` if it is not stated.
    pub mx: Option<String>,
    /// The address of the MX host.
    pub ip: Option<IpAddr>,
    /// Why it failed, in the words of the mail server.
    pub reason: Option<String>,
}

/// The outcome of TLS in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedTls {
    /// The message was sent without TLS.
    None,
    /// TLS was used. Whether the certificate is valid was not checked.
    Unverified,
    /// TLS was used although the certificate is not valid.
    Untrusted,
    /// TLS was used, and the certificate is valid for the MX host.
    Verified,
    /// TLS was used, and the certificate matches the TLSA records.
    Dane,
    /// The message was not sent, because TLS failed.
    Failed(ResultType),
    /// The message was not sent, because DANE failed.
    DaneFailed(ResultType),
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
#[serde(rename_all = "kebab-case")]
struct Wire {
    policy_domain: DomainName,
    at: Option<Timestamp>,
    count: Option<u64>,
    #[serde(default)]
    tlsrpt_record: String,
    policies: Option<Vec<WirePolicy>>,
    tls: Option<WireTls>,
    result_type: Option<ResultType>,
    receiving_mx_hostname: Option<String>,
    receiving_ip: Option<IpAddr>,
    failure_reason_code: Option<String>,
}

/// The values of the member `tls`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WireTls {
    None,
    Unverified,
    Untrusted,
    Verified,
    Dane,
    Failed,
    DaneFailed,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[serde(rename_all = "kebab-case")]
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
        return Ok(Posted { at: None, count: 1, session: PostedSession::Complete(session) });
    }
    let wire: Wire = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let count = wire.count.unwrap_or(1);
    if !(1..=MAX_COUNT).contains(&count) {
        return Err(format!("the count {count} is not from 1 to {MAX_COUNT}"));
    }
    Ok(Posted { at: wire.at, count, session: wire.session()? })
}

impl Wire {
    fn session(self) -> Result<PostedSession, String> {
        let observed_only = [
            self.result_type.is_some(),
            self.receiving_mx_hostname.is_some(),
            self.receiving_ip.is_some(),
            self.failure_reason_code.is_some(),
        ];
        match (self.policies, self.tls) {
            (Some(_), Some(_)) => Err("a session has either `policies` or `tls`".to_owned()),
            (None, None) => Err("missing field `policies`".to_owned()),
            (Some(_), None) if observed_only.contains(&true) => {
                Err("beside `policies`, results belong into `failure-details`".to_owned())
            }
            (Some(policies), None) => {
                let policies = policies.into_iter().map(|policy| policy.read(&self.policy_domain));
                Ok(PostedSession::Complete(Session {
                    policies: policies.collect::<Result<_, _>>()?,
                    policy_domain: self.policy_domain,
                    tlsrpt_record: self.tlsrpt_record,
                }))
            }
            (None, Some(tls)) => Ok(PostedSession::Observed(Observed {
                domain: self.policy_domain,
                tls: tls.read(self.result_type)?,
                mx: self.receiving_mx_hostname,
                ip: self.receiving_ip,
                reason: self.failure_reason_code,
            })),
        }
    }
}

impl WireTls {
    fn read(self, result: Option<ResultType>) -> Result<ObservedTls, String> {
        let failed = matches!(self, Self::Failed | Self::DaneFailed);
        if result.is_some() && !failed {
            return Err("a `result-type` beside `tls` requires `failed` or `dane-failed`".to_owned());
        }
        if let Some(ResultType::Other(name)) = &result {
            return Err(unknown_result(name));
        }
        let result = result.unwrap_or(ResultType::ValidationFailure);
        Ok(match self {
            Self::None => ObservedTls::None,
            Self::Unverified => ObservedTls::Unverified,
            Self::Untrusted => ObservedTls::Untrusted,
            Self::Verified => ObservedTls::Verified,
            Self::Dane => ObservedTls::Dane,
            Self::Failed => ObservedTls::Failed(result),
            Self::DaneFailed => ObservedTls::DaneFailed(result),
        })
    }
}

fn unknown_result(name: &str) -> String {
    let known: Vec<String> = ResultType::registered().map(|kind| kind.to_string()).collect();
    format!("the result-type {name:?} is not one of {}", known.join(", "))
}

impl Posted {
    /// The session as one line of JSON.
    pub fn to_json(&self) -> String {
        let mut members = Map::new();
        put(&mut members, "at", self.at.map(|at| at.to_string()));
        if self.count != 1 {
            members.insert("count".to_owned(), self.count.into());
        }
        match &self.session {
            PostedSession::Complete(session) => complete(&mut members, session),
            PostedSession::Observed(observed) => observed_members(&mut members, observed),
        }
        Value::Object(members).to_string()
    }
}

fn put(members: &mut Map<String, Value>, name: &str, value: Option<String>) {
    if let Some(value) = value {
        members.insert(name.to_owned(), value.into());
    }
}

fn complete(members: &mut Map<String, Value>, session: &Session) {
    put(members, "policy-domain", Some(session.policy_domain.to_string()));
    put(members, "tlsrpt-record", Some(session.tlsrpt_record.clone()).filter(|record| !record.is_empty()));
    let policies = session.policies.iter().map(|policy| {
        json!({
            "policy-type": policy.policy_type.as_str(), "policy-domain": policy.policy_domain.as_str(),
            "policy-string": policy.policy_string, "mx-host": policy.mx_host,
            "result": if policy.succeeded { "success" } else { "failure" },
            "failure-details": policy.failures.iter().map(failure).collect::<Vec<_>>(),
        })
    });
    members.insert("policies".to_owned(), policies.collect());
}

fn failure(failure: &SessionFailure) -> Value {
    let mut members = Map::new();
    put(&mut members, "result-type", Some(failure.result_type.to_string()));
    put(&mut members, "sending-mta-ip", failure.sending_mta_ip.map(|ip| ip.to_string()));
    put(&mut members, "receiving-mx-hostname", failure.receiving_mx_hostname.clone());
    put(&mut members, "receiving-mx-helo", failure.receiving_mx_helo.clone());
    put(&mut members, "receiving-ip", failure.receiving_ip.map(|ip| ip.to_string()));
    put(&mut members, "additional-information", failure.additional_information.clone());
    put(&mut members, "failure-reason-code", failure.failure_reason_code.clone());
    Value::Object(members)
}

fn observed_members(members: &mut Map<String, Value>, observed: &Observed) {
    let (tls, result) = match &observed.tls {
        ObservedTls::None => ("none", None),
        ObservedTls::Unverified => ("unverified", None),
        ObservedTls::Untrusted => ("untrusted", None),
        ObservedTls::Verified => ("verified", None),
        ObservedTls::Dane => ("dane", None),
        ObservedTls::Failed(result) => ("failed", Some(result)),
        ObservedTls::DaneFailed(result) => ("dane-failed", Some(result)),
    };
    put(members, "policy-domain", Some(observed.domain.to_string()));
    put(members, "tls", Some(tls.to_owned()));
    put(members, "result-type", result.map(ToString::to_string));
    put(members, "receiving-mx-hostname", observed.mx.clone());
    put(members, "receiving-ip", observed.ip.map(|ip| ip.to_string()));
    put(members, "failure-reason-code", observed.reason.clone());
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
            return Err(unknown_result(name));
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
        let session = |posted: &Posted| match &posted.session {
            PostedSession::Complete(session) => session.clone(),
            PostedSession::Observed(_) => panic!("{posted:?}"),
        };
        let policy = &session(&one[0]).policies[0];
        assert_eq!(
            (policy.policy_domain.as_str(), policy.succeeded, policy.failures[0].result_type.as_str()),
            ("example.com", false, "certificate-expired")
        );
        for several in [format!("[{NAMED},{OF_LIBTLSRPT}]"), format!("{NAMED}\n\n{OF_LIBTLSRPT}\n")] {
            let both = parse(several.as_bytes()).unwrap();
            assert_eq!(both.len(), 2);
            assert_eq!(both[0], one[0]);
            assert!(session(&both[1]).policies[0].succeeded && both[1].at.is_none());
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
        assert!(wrong("\"result\"", "\"outcome\"").contains("missing field `result`"));
        assert!(wrong("\"failure\"", "\"bad\"").contains("success"));
        assert!(wrong("example.com\", \"at\"", "no name\", \"at\"").starts_with("session 2"));
        assert!(parse(b"{").unwrap_err().to_string().starts_with("session 1: "));
        assert!(parse("[".repeat(100_000).as_bytes()).unwrap_err().to_string().contains("nested"));
    }

    #[test]
    fn members_of_a_newer_version_are_ignored() {
        let newer = NAMED.replace("{\"", "{\"newer\": [{\"x\": 1}], \"");
        assert_eq!(newer.matches("newer").count(), 3);
        assert_eq!(parse(newer.as_bytes()), parse(NAMED.as_bytes()));
    }

    #[test]
    fn a_session_without_a_policy_says_how_tls_went() {
        let text = r#"{"policy-domain":"a.example","count":7,"tls":"failed","result-type":"certificate-expired",
            "receiving-mx-hostname":"mx.a.example","receiving-ip":"192.0.2.1","failure-reason-code":"why"}"#;
        let posted = parse(text.as_bytes()).unwrap().remove(0);
        let PostedSession::Observed(observed) = &posted.session else { panic!("{posted:?}") };
        assert_eq!(observed.tls, ObservedTls::Failed(ResultType::CertificateExpired));
        assert_eq!((posted.count, observed.mx.as_deref()), (7, Some("mx.a.example")));
        let said = |from: &str, to: &str| {
            assert!(text.contains(from));
            parse(text.replace(from, to).as_bytes()).unwrap_err().to_string()
        };
        assert!(said("\"failed\"", "\"good\"").contains("dane-failed"));
        assert!(said("\"failed\"", "\"verified\"").contains("requires `failed`"));
        assert!(said("certificate-expired", "old").contains("certificate-not-trusted"));
        assert!(said("\"count\":7", "\"count\":0").contains("not from 1"));
        assert!(said("\"tls\":\"failed\",", "").contains("policies"));
        assert!(said("\"count\":7", "\"policies\":[]").contains("either"));
        assert!(said("\"tls\":\"failed\"", "\"policies\":[]").contains("failure-details"));
    }

    fn text() -> impl Strategy<Value = String> {
        "[ -~\u{e9}\n]{0,12}"
    }

    prop_compose! {
        fn a_failure()(kind in 0..11usize, from in proptest::option::of(any::<IpAddr>()), host in proptest::option::of(text()),
            helo in proptest::option::of(text()), to in proptest::option::of(any::<IpAddr>()), more in proptest::option::of(text()),
            why in proptest::option::of(text())) -> SessionFailure
        {
            SessionFailure { result_type: ResultType::registered().nth(kind).unwrap(), sending_mta_ip: from, receiving_mx_hostname: host,
                receiving_mx_helo: helo, receiving_ip: to, additional_information: more, failure_reason_code: why }
        }
    }

    prop_compose! {
        fn a_policy()(kind in 0..3usize, lines in proptest::collection::vec(text(), 0..3), mx in proptest::collection::vec(text(), 0..3),
            failures in proptest::collection::vec(a_failure(), 0..3), succeeded in any::<bool>()) -> SessionPolicy
        {
            let policy_type = [PolicyType::Sts, PolicyType::Tlsa, PolicyType::NoPolicyFound][kind].clone();
            SessionPolicy { policy_type, policy_domain: DomainName::parse("mx.a.example").unwrap(), policy_string: lines, mx_host: mx, failures, succeeded }
        }
    }

    fn a_session() -> impl Strategy<Value = PostedSession> {
        let domain = || DomainName::parse("a.example").unwrap();
        let complete =
            (text(), proptest::collection::vec(a_policy(), 0..3)).prop_map(move |(record, policies)| {
                PostedSession::Complete(Session { policy_domain: domain(), tlsrpt_record: record, policies })
            });
        let result = (0..11usize).prop_map(|kind| ResultType::registered().nth(kind).unwrap());
        let observed =
            (0..7usize, result, proptest::option::of(text()), proptest::option::of(any::<IpAddr>()))
                .prop_map(move |(tls, result, mx, ip)| {
                    let tls = match tls {
                        0 => ObservedTls::None,
                        1 => ObservedTls::Unverified,
                        2 => ObservedTls::Untrusted,
                        3 => ObservedTls::Verified,
                        4 => ObservedTls::Dane,
                        5 => ObservedTls::Failed(result),
                        _ => ObservedTls::DaneFailed(result),
                    };
                    PostedSession::Observed(Observed { domain: domain(), tls, reason: mx.clone(), mx, ip })
                });
        prop_oneof![complete, observed]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(at in proptest::option::of(0..2_000_000_000_i64), count in 1..=MAX_COUNT, session in a_session()) {
            let posted = Posted { at: at.map(|at| Timestamp::from_second(at).unwrap()), count, session };
            prop_assert_eq!(parse(posted.to_json().as_bytes()), Ok(vec![posted]));
        }

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
