//! Reports that were posted to the address of a domain. The domain states what such a report is about, as `TLS-Report-Domain`
//! does in a mail. If the report can't be read, the reason in the quarantine ends with the domain, so that a retry after an
//! upgrade files the report as the post would have.

use super::Reading;
use formats::DomainName;

/// The text before the domain at the end of a reason.
const POSTED_TO: &str = " (posted to the address of ";

/// Files the reports of a post under the domain of its address.
pub fn file_under(reading: &mut Reading, domain: &DomainName) {
    for new in &mut reading.reports {
        for policy in &mut new.report.policies {
            policy.policy_domain = policy.policy_domain.take().or_else(|| Some(domain.clone()));
        }
        new.about = Some(domain.clone());
    }
}

/// The reason for the quarantine, with the domain of the address.
pub fn reason(why: String, domain: Option<&DomainName>) -> String {
    match domain {
        Some(domain) => format!("{why}{POSTED_TO}{domain})"),
        None => why,
    }
}

/// The domain in a reason; `None` if there is none. Call it only for input that arrived by HTTPS. Whoever forges the end of
/// a reason could as well have posted to the address of that domain.
pub fn domain_of(reason: &str) -> Option<DomainName> {
    let (_, domain) = reason.strip_suffix(')')?.rsplit_once(POSTED_TO)?;
    DomainName::parse(domain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_keeps_the_domain_of_the_address() {
        let domain = DomainName::parse("b\u{fc}cher.example").unwrap();
        let kept = reason("it is not JSON (line 1)".to_owned(), Some(&domain));
        assert_eq!(kept, "it is not JSON (line 1) (posted to the address of xn--bcher-kva.example)");
        assert_eq!(domain_of(&kept), Some(domain));
        for other in
            ["", ")", "it is not JSON", " (posted to the address of )", " (posted to the address of a b)"]
        {
            assert_eq!(domain_of(other), None, "{other}");
        }
    }
}
