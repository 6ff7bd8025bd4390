//! What is found, as Postfix's TLS policy table wants it (RFC 8461 §2, RFC 7672 §2; postconf(5),
//! TLSRPT_README).

use super::route::DaneHosts;
use super::sts::{Found, Unfetched};
use formats::policy::lines;
use formats::tls_policy::{Answer, Level, Tlsrpt, TlsrptPolicy};
use formats::{DomainName, Mode};

/// What decided an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// TLSA records.
    Dane,
    /// An MTA-STS policy.
    MtaSts,
    /// The operator's table.
    Override,
    /// There is no policy, or none is possible.
    Nothing,
    /// It could not be known.
    Failure,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Dane, Self::MtaSts, Self::Override, Self::Nothing, Self::Failure];

    /// The word in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dane => "dane",
            Self::MtaSts => "mta-sts",
            Self::Override => "override",
            Self::Nothing => "nothing",
            Self::Failure => "failure",
        }
    }
}

/// The answer for a domain, and what decided it.
///
/// DANE goes first (VAL-11). One level has to serve all hosts of a domain, so where they differ
/// (DANE-13) the level is the weakest that still opens no way around either protection:
///
/// | hosts | policy not enforced | policy enforced |
/// | --- | --- | --- |
/// | all with usable TLSA | `dane-only` | `dane-only` |
/// | some with | `dane`: the others as without a policy | `dane-only`: the others are not used |
/// | TLSA, none usable | `dane`: TLS, unauthenticated | `secure`: DANE does not authenticate |
/// | some unknown | `dane`: Postfix skips those | `dane-only`, or it waits |
/// | all unknown | it waits | it waits |
pub fn decide(
    domain: &DomainName,
    dane: DaneHosts,
    found: &Found,
    testing: Option<&Level>,
) -> (Answer, Source) {
    let enforced = found.mode() == Mode::Enforce;
    let DaneHosts { usable, unusable, absent, unknown } = dane;
    match (usable, unusable, absent, unknown) {
        (0, 0, 0, 1..) => (unknown_hosts(domain), Source::Failure),
        (1.., 0, 0, 0) => (level(Level::DaneOnly), Source::Dane),
        (1.., ..) if enforced => (level(Level::DaneOnly), Source::Dane),
        (0, _, _, 1..) if enforced => (unknown_hosts(domain), Source::Failure),
        (0, 0, _, 0) => sts_answer(domain, found, testing),
        (0, _, _, 0) if enforced => sts_answer(domain, found, testing),
        _ => (level(Level::Dane), Source::Dane),
    }
}

fn level(level: Level) -> Answer {
    Answer::Level(level, None)
}

fn unknown_hosts(domain: &DomainName) -> Answer {
    Answer::Temp(format!(
        "DANE: the TLSA records of the MX hosts of {domain} can't be looked up or fail DNSSEC validation; \
         to see why: sternpost query --trace {domain}"
    ))
}

/// The answer by MTA-STS alone.
fn sts_answer(domain: &DomainName, found: &Found, testing: Option<&Level>) -> (Answer, Source) {
    let (held, trouble) = match found {
        Found::Policy { held, trouble } => (held, trouble),
        Found::Unavailable(why) => return (unavailable(domain, why, testing), Source::Nothing),
        Found::None => return (Answer::NotFound, Source::Nothing),
    };
    let report = Tlsrpt {
        policy_domain: domain.clone(),
        found: TlsrptPolicy::Sts {
            policy_string: lines(&held.body).map(str::to_owned).collect(),
            mx: held.policy.mx.clone(),
            failure: trouble.as_ref().map(Unfetched::result_type),
        },
    };
    let answer = match held.policy.mode {
        // At level `secure` Postfix takes a policy_failure as the failure of the session, which a
        // policy that is merely not renewed is not.
        Mode::Enforce => Answer::Level(Level::Secure(held.policy.mx.clone()), Some(without_failure(report))),
        Mode::Testing => match testing {
            Some(level) => Answer::Level(level.clone(), Some(report)),
            None => Answer::Reported(Level::May, report),
        },
        Mode::None => Answer::NotFound,
    };
    (answer, Source::MtaSts)
}

/// A policy is announced and can't be had: no restriction, and reported as that (SMK-08).
fn unavailable(domain: &DomainName, why: &Unfetched, testing: Option<&Level>) -> Answer {
    let found =
        TlsrptPolicy::Sts { policy_string: Vec::new(), mx: Vec::new(), failure: Some(why.result_type()) };
    let level = testing.cloned().unwrap_or(Level::May);
    Answer::Reported(level, Tlsrpt { policy_domain: domain.clone(), found })
}

fn without_failure(mut report: Tlsrpt) -> Tlsrpt {
    if let TlsrptPolicy::Sts { failure, .. } = &mut report.found {
        *failure = None;
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::sts::HeldPolicy;
    use formats::{Policy, PolicyId};
    use jiff::Timestamp;

    fn name() -> DomainName {
        DomainName::parse("example.org").unwrap()
    }

    fn policy(mode: &str) -> Found {
        let body =
            format!("version: STSv1\nmode: {mode}\nmx: mx.example.org\nmx: *.example.net\nmax_age: 86400\n");
        let policy = Policy::parse(body.as_bytes()).unwrap();
        let held =
            HeldPolicy { policy, body, id: PolicyId::parse("1").unwrap(), fetched_at: Timestamp::UNIX_EPOCH };
        Found::Policy { held, trouble: None }
    }

    fn said(hosts: [u8; 4], found: &Found) -> String {
        let [usable, unusable, absent, unknown] = hosts;
        let (answer, _) = decide(&name(), DaneHosts { usable, unusable, absent, unknown }, found, None);
        let (status, text) = answer.reply(false).parts();
        match status {
            "OK" => text,
            other => other.to_owned(),
        }
    }

    #[test]
    fn dane_12_dane_answers_are_dane_only_or_dane_and_never_secure() {
        for found in [Found::None, policy("enforce"), policy("testing")] {
            assert_eq!(said([2, 0, 0, 0], &found), "dane-only");
            assert!(said([1, 0, 1, 0], &found).starts_with("dane"), "{found:?}");
            assert!(said([1, 1, 0, 0], &found).starts_with("dane"), "{found:?}");
        }
        assert_eq!(said([0, 1, 0, 0], &Found::None), "dane");
        assert_eq!(said([0, 0, 0, 2], &policy("enforce")), "TEMP");
    }

    #[test]
    fn dane_13_hosts_that_differ_are_protected_as_well_as_can_be() {
        assert_eq!(said([1, 0, 1, 0], &Found::None), "dane");
        assert_eq!(said([1, 0, 1, 0], &policy("testing")), "dane");
        assert_eq!(said([1, 0, 1, 0], &policy("enforce")), "dane-only");
        assert_eq!(said([1, 0, 0, 1], &Found::None), "dane");
        assert_eq!(said([0, 0, 1, 1], &policy("enforce")), "TEMP");
        assert_eq!(said([0, 0, 1, 1], &Found::None), "dane");
    }

    #[test]
    fn mta_sts_is_for_the_rest() {
        let secure = "secure match=mx.example.org:.example.net servername=hostname";
        assert_eq!(said([0, 0, 1, 0], &policy("enforce")), secure);
        assert_eq!(said([0, 1, 1, 0], &policy("enforce")), secure, "unusable records authenticate nobody");
        assert_eq!(said([0, 0, 1, 0], &policy("testing")), "NOTFOUND");
        assert_eq!(said([0, 0, 1, 0], &policy("none")), "NOTFOUND");
        assert_eq!(said([0, 0, 1, 0], &Found::None), "NOTFOUND");
    }

    #[test]
    fn smk_08_a_policy_that_can_not_be_had_is_told_to_those_who_report() {
        let found = Found::Unavailable(Unfetched::Fetch(net::https::FetchError::Status(404)));
        let (answer, source) = decide(&name(), DaneHosts::default(), &found, None);
        assert_eq!((answer.reply(false).parts().0, source), ("NOTFOUND", Source::Nothing));
        let told = "may policy_type=sts policy_domain=example.org policy_failure=sts-policy-fetch-error";
        assert_eq!(answer.reply(true).parts().1, told);
    }

    #[test]
    fn the_operator_may_set_a_level_for_testing() {
        let (answer, _) = decide(&name(), DaneHosts::default(), &policy("testing"), Some(&Level::Encrypt));
        assert_eq!(answer.reply(false).parts().1, "encrypt");
        assert!(answer.reply(true).parts().1.starts_with("encrypt policy_type=sts"));
    }
}
