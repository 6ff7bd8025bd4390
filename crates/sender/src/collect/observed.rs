//! Completes sessions of mail servers that do not know the policy ([`Observed`]) with the policy that the store has.
//!
//! The store has the MTA-STS policies of the domains that a mail server asked this installation about. A session with a
//! domain that has none counts as `no-policy-found`. TLSA records are not in the store: a session counts under DANE if the
//! mail server says that DANE was used or failed, and then without the records.

use formats::datagram::{Session, SessionFailure, SessionPolicy};
use formats::policy::lines;
use formats::posted::{Observed, ObservedTls};
use formats::result_type::PolicyType;
use formats::{DomainName, Mode, Policy, ResultType};
use jiff::Timestamp;
use store::policies::StoredPolicy;

/// The session under the policy that was valid at the time `at`; `held` is the stored policy of its domain.
pub(super) fn complete(observed: Observed, held: Option<&StoredPolicy>, at: Timestamp) -> Session {
    let domain = observed.domain.clone();
    let policy = match &observed.tls {
        ObservedTls::Dane | ObservedTls::DaneFailed(_) => dane(&observed),
        _ => match held.filter(|held| held.mode != Mode::None && at < held.expires_at) {
            Some(held) => sts(&observed, held),
            None => without_policy(&observed),
        },
    };
    Session { policy_domain: domain, tlsrpt_record: String::new(), policies: vec![policy] }
}

/// A DANE policy belongs to the MX host.
fn dane(observed: &Observed) -> SessionPolicy {
    let host = observed.mx.as_deref().and_then(|mx| DomainName::parse(mx).ok());
    let failure = match &observed.tls {
        ObservedTls::DaneFailed(result) => Some((result.clone(), None)),
        _ => None,
    };
    let policy_domain = host.unwrap_or_else(|| observed.domain.clone());
    policy(observed, PolicyType::Tlsa, policy_domain, failure)
}

fn sts(observed: &Observed, held: &StoredPolicy) -> SessionPolicy {
    let patterns = Policy::parse(held.body.as_bytes()).map(|policy| policy.mx).unwrap_or_default();
    let host = observed.mx.as_deref().and_then(|mx| DomainName::parse(mx).ok());
    let is_listed = host.is_none_or(|host| patterns.iter().any(|pattern| pattern.matches(&host)));
    let failure = match &observed.tls {
        ObservedTls::Failed(result) => Some((result.clone(), None)),
        ObservedTls::None => Some((ResultType::StarttlsNotSupported, None)),
        _ if !is_listed => Some((ResultType::ValidationFailure, Some("the MX host is not in the policy"))),
        ObservedTls::Untrusted => Some((ResultType::ValidationFailure, Some("the certificate is not valid"))),
        _ => None,
    };
    SessionPolicy {
        policy_string: lines(&held.body).map(str::to_owned).collect(),
        mx_host: patterns.iter().map(ToString::to_string).collect(),
        ..policy(observed, PolicyType::Sts, observed.domain.clone(), failure)
    }
}

/// Without a policy, any TLS is a success.
fn without_policy(observed: &Observed) -> SessionPolicy {
    let failure = match &observed.tls {
        ObservedTls::Failed(result) => Some((result.clone(), None)),
        ObservedTls::None => Some((ResultType::StarttlsNotSupported, None)),
        _ => None,
    };
    policy(observed, PolicyType::NoPolicyFound, observed.domain.clone(), failure)
}

fn policy(
    observed: &Observed,
    policy_type: PolicyType,
    policy_domain: DomainName,
    failure: Option<(ResultType, Option<&str>)>,
) -> SessionPolicy {
    let failures = failure.into_iter().map(|(result_type, reason)| SessionFailure {
        result_type,
        sending_mta_ip: None,
        receiving_mx_hostname: observed.mx.clone(),
        receiving_mx_helo: None,
        receiving_ip: observed.ip,
        additional_information: None,
        failure_reason_code: observed.reason.clone().or_else(|| reason.map(str::to_owned)),
    });
    let failures: Vec<SessionFailure> = failures.collect();
    SessionPolicy {
        policy_type,
        policy_domain,
        policy_string: Vec::new(),
        mx_host: Vec::new(),
        succeeded: failures.is_empty(),
        failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::PolicyId;

    const BODY: &str = "version: STSv1\nmode: enforce\nmx: mx1.a.example\nmax_age: 86400\n";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn held(mode: Mode) -> StoredPolicy {
        StoredPolicy {
            domain: DomainName::parse("a.example").unwrap(),
            record_id: PolicyId::parse("1").unwrap(),
            body: BODY.into(),
            mode,
            fetched_at: at(0),
            expires_at: at(86_400),
            refresh_at: at(43_200),
            dane: String::new(),
            used_at: at(0),
        }
    }

    /// The policy type, and the result of its failure if there is one.
    fn seen(
        tls: ObservedTls,
        mx: &str,
        held: Option<&StoredPolicy>,
        second: i64,
    ) -> (String, Option<String>) {
        let domain = DomainName::parse("a.example").unwrap();
        let observed = Observed { domain, tls, mx: Some(mx.into()), ip: None, reason: None };
        let policy = complete(observed, held, at(second)).policies.remove(0);
        assert_eq!(policy.succeeded, policy.failures.is_empty());
        (policy.policy_type.to_string(), policy.failures.first().map(|one| one.result_type.to_string()))
    }

    #[test]
    fn a_session_counts_under_the_policy_that_was_valid() {
        let (listed, other) = ("mx1.a.example", "mx9.a.example");
        let enforce = held(Mode::Enforce);
        let expired = ResultType::CertificateExpired;
        for (tls, mx, policy, second, expected) in [
            (ObservedTls::Verified, listed, Some(&enforce), 1, ("sts", None)),
            (ObservedTls::Unverified, listed, Some(&enforce), 1, ("sts", None)),
            (ObservedTls::Verified, other, Some(&enforce), 1, ("sts", Some("validation-failure"))),
            (ObservedTls::Untrusted, listed, Some(&enforce), 1, ("sts", Some("validation-failure"))),
            (ObservedTls::None, listed, Some(&enforce), 1, ("sts", Some("starttls-not-supported"))),
            (
                ObservedTls::Failed(expired.clone()),
                listed,
                Some(&enforce),
                1,
                ("sts", Some("certificate-expired")),
            ),
            (ObservedTls::Verified, listed, Some(&enforce), 86_400, ("no-policy-found", None)),
            (ObservedTls::Verified, listed, Some(&held(Mode::None)), 1, ("no-policy-found", None)),
            (ObservedTls::Untrusted, listed, None, 1, ("no-policy-found", None)),
            (ObservedTls::None, listed, None, 1, ("no-policy-found", Some("starttls-not-supported"))),
            (ObservedTls::Dane, other, Some(&enforce), 1, ("tlsa", None)),
            (ObservedTls::DaneFailed(expired), other, None, 1, ("tlsa", Some("certificate-expired"))),
        ] {
            let shown = format!("{tls:?} at {mx}");
            let (kind, failure) = seen(tls, mx, policy, second);
            assert_eq!((kind.as_str(), failure.as_deref()), expected, "{shown}");
        }
    }

    #[test]
    fn the_policy_is_reported_as_it_was_published() {
        let domain = DomainName::parse("a.example").unwrap();
        let observed = Observed { domain, tls: ObservedTls::Verified, mx: None, ip: None, reason: None };
        let policy = complete(observed, Some(&held(Mode::Enforce)), at(1)).policies.remove(0);
        assert_eq!(policy.policy_string[1], "mode: enforce");
        assert_eq!(policy.mx_host, ["mx1.a.example"]);
    }
}
