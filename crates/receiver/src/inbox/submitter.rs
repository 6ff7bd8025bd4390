//! Finds out who submitted a report and which domain it is about, by what the message, the file name and the report
//! claim (RFC 8460 §5). Nothing here is verified; `signature` does that for messages.

use super::mime::Head;
use formats::DomainName;
use formats::report::{Report, ReportFileName, ReportMail};
use std::net::IpAddr;

/// The submitter of a report that names none anywhere.
pub const UNKNOWN_SUBMITTER: &str = "unknown";

/// What a message claims about the reports in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    /// The submitter by `TLS-Report-Submitter`, the subject or `From`, in this order.
    pub submitter: Option<DomainName>,
    /// The policy domain by `TLS-Report-Domain` or the subject.
    pub policy_domain: Option<DomainName>,
    /// The domain of the address in `From`.
    pub from: Option<DomainName>,
}

impl Origin {
    pub(super) fn of(head: &Head) -> Self {
        let subject = head.subject().and_then(ReportMail::parse_subject);
        let from = head.author().and_then(|address| organization(address.rsplit_once('@')?.1));
        let by_subject = || organization(subject.as_ref()?.submitter.as_str());
        let about = head.raw("TLS-Report-Domain").and_then(|text| DomainName::parse(text).ok());
        let by_header = head.raw("TLS-Report-Submitter").and_then(organization);
        Self {
            submitter: by_header.or_else(by_subject).or_else(|| from.clone()),
            policy_domain: about.or_else(|| Some(subject.as_ref()?.policy_domain.clone())),
            from,
        }
    }
}

/// The submitter of an unsigned report file: by its name, else by the contact or the organization in the report.
pub(super) fn submitter_of_file(named: Option<&ReportFileName>, report: &Report) -> Option<DomainName> {
    let named = named.and_then(|named| organization(named.sender.as_str()));
    let contact = || contact_domain(report.contact_info.as_deref()?);
    named.or_else(contact).or_else(|| organization(report.organization_name.as_deref()?))
}

/// The domain of an organization. A single label such as `ACME` is a name, not a domain.
fn organization(text: &str) -> Option<DomainName> {
    let text = text.trim();
    let is_address = text.parse::<IpAddr>().is_ok();
    DomainName::parse(text).ok().filter(|domain| !is_address && domain.as_str().contains('.'))
}

/// The domain of a contact: a mail address, or the URL of a page.
pub(super) fn contact_domain(contact: &str) -> Option<DomainName> {
    let contact = contact.trim();
    let page = contact.strip_prefix("https://").or_else(|| contact.strip_prefix("http://"));
    match page {
        Some(page) => organization(page.split(['/', ':', '?', '#']).next()?),
        None => organization(contact.rsplit_once('@')?.1.split(['>', '?', ',']).next()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_and_organizations_are_domains_only_when_they_have_a_dot() {
        let domain = |contact: &str| contact_domain(contact).map(|domain| domain.to_string());
        for contact in [
            "t@a.example",
            "mailto:t@A.example",
            "TLS <t@a.example>",
            "mailto:t@a.example?subject=x",
            "https://a.example/contact",
            "https://a.example:8443",
        ] {
            assert_eq!(domain(contact).as_deref(), Some("a.example"), "{contact}");
        }
        for contact in
            ["", "a.example/x", "t@localhost", "https://ACME/", "https://a.example@b.example/", "t@192.0.2.1"]
        {
            assert_eq!(domain(contact), None, "{contact}");
        }
        assert!(organization("ACME").is_none() && organization("Acme Mail Inc.").is_none());
    }
}
