//! What is found, as Postfix's TLS policy table wants it (postconf(5), TLSRPT_README).

use super::sts::Found;
use formats::policy::lines;
use formats::tls_policy::{Answer, Level, Tlsrpt, TlsrptPolicy};
use formats::{DomainName, Mode};

/// The answer for a domain by its MTA-STS policy alone.
pub fn sts_answer(domain: &DomainName, found: &Found) -> Answer {
    let Found::Policy { held, trouble } = found else {
        return Answer::NotFound;
    };
    let report = Tlsrpt {
        policy_domain: domain.clone(),
        found: TlsrptPolicy::Sts {
            policy_string: lines(&held.body).map(str::to_owned).collect(),
            mx: held.policy.mx.clone(),
            failure: trouble.as_ref().map(super::sts::Unfetched::result_type),
        },
    };
    match held.policy.mode {
        // At level `secure` Postfix takes a policy_failure as the failure of the session, which a
        // policy that is merely not renewed is not.
        Mode::Enforce => Answer::Level(Level::Secure(held.policy.mx.clone()), Some(without_failure(report))),
        Mode::Testing => Answer::Level(Level::May, Some(report)),
        Mode::None => Answer::NotFound,
    }
}

fn without_failure(mut report: Tlsrpt) -> Tlsrpt {
    if let TlsrptPolicy::Sts { failure, .. } = &mut report.found {
        *failure = None;
    }
    report
}
