//! Decides whether input that could not be read claims to be a TLS report.
//!
//! An import reads folders and mailboxes that also hold unrelated mail and files. Unreadable input is quarantined
//! whole, and every user of the dashboard can read it there. So only input that claims to be a TLS report may be
//! quarantined: by the headers and media types of RFC 8460 §5.3, by the file name of RFC 8460 §5.1, or by the JSON
//! members of RFC 8460 §4.4.

use super::extract::looks_like_a_report;
use formats::limits::INBOX_PARTS;
use formats::report::{ReportFileName, ReportMail};
use mail_parser::{Message, MessagePart, MimeHeaders, PartType};

/// Number of bytes at the start of a text that are searched for members of a report.
const HEAD_BYTES: usize = 65_536;
/// JSON members that every report has and that are rare elsewhere.
const REPORT_MEMBERS: [&[u8]; 3] = [b"\"report-id\"", b"\"date-range\"", b"\"policy-type\""];

/// True for the file names of reports.
pub(super) fn is_named_so(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".json.gz") || ReportFileName::parse(name).is_some()
}

/// True for text that has members of a report near its beginning.
pub(super) fn has_members(text: &[u8]) -> bool {
    let head = text.get(..HEAD_BYTES).unwrap_or(text);
    REPORT_MEMBERS.iter().any(|member| head.windows(member.len()).any(|at| at == *member))
}

/// True for a message whose headers or parts say that it is a report; the content of compressed parts is not examined. A
/// bounce does not; neither does a message within one that is returned.
pub(super) fn mail_claims(mail: &Message<'_>, is_returned: bool) -> bool {
    let is_returned = is_returned || is_automatic_reply(mail);
    let has_header =
        ["TLS-Report-Domain", "TLS-Report-Submitter"].iter().any(|name| mail.header_raw(*name).is_some());
    let has_subject = || mail.subject().and_then(ReportMail::parse_subject).is_some();
    let parts = || mail.parts.iter().take(INBOX_PARTS).filter(|part| !(is_returned && is_message(part)));
    !is_bounce(mail) && (has_header || has_subject() || parts().any(part_claims))
}

/// True for a part whose media type or file name says that it is a report.
pub(super) fn is_labelled(part: &MessagePart<'_>) -> bool {
    let is_of_type = part.content_type().is_some_and(|kind| {
        let subtype = kind.subtype().unwrap_or_default().to_ascii_lowercase();
        subtype.starts_with("tlsrpt")
            || kind.attribute("report-type").is_some_and(|kind| kind.eq_ignore_ascii_case("tlsrpt"))
    });
    is_of_type || part.attachment_name().is_some_and(|name| ReportFileName::parse(name).is_some())
}

fn part_claims(part: &MessagePart<'_>) -> bool {
    is_labelled(part)
        || match &part.body {
            PartType::Text(text) | PartType::Html(text) => body_claims(text.as_bytes()),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => body_claims(bytes),
            // A forwarded report.
            PartType::Message(inner) => inner.parts.iter().take(INBOX_PARTS).any(|part| match &part.body {
                PartType::Message(_) => false,
                _ => part_claims(part),
            }),
            PartType::Multipart(_) => false,
        }
}

fn body_claims(bytes: &[u8]) -> bool {
    looks_like_a_report(bytes) && has_members(bytes)
}

/// True for a delivery status notification (RFC 3464), a disposition notification (RFC 8098) or an abuse report
/// (RFC 5965). They contain the message that they are about; a report in it was sent by us.
pub(super) fn is_bounce(mail: &Message<'_>) -> bool {
    let is_kind = |kind: &str| {
        ["delivery-status", "global-delivery-status", "disposition-notification", "feedback-report"]
            .iter()
            .any(|bounce| kind.eq_ignore_ascii_case(bounce))
    };
    mail.parts.iter().take(INBOX_PARTS).any(|part| {
        part.content_type().is_some_and(|kind| {
            let is_message = kind.ctype().eq_ignore_ascii_case("message");
            (is_message && kind.subtype().is_some_and(is_kind))
                || kind.attribute("report-type").is_some_and(is_kind)
        })
    })
}

/// True for a part that is a message, parsed or not.
pub(super) fn is_message(part: &MessagePart<'_>) -> bool {
    let is_of_type = |kind: &mail_parser::ContentType<'_>| {
        let subtype = kind.subtype().unwrap_or_default();
        kind.ctype().eq_ignore_ascii_case("message")
            && (subtype.eq_ignore_ascii_case("rfc822") || subtype.eq_ignore_ascii_case("global"))
    };
    matches!(part.body, PartType::Message(_)) || part.content_type().is_some_and(is_of_type)
}

/// True for a message that a program sent in reply to another, without the form of RFC 3464.
pub(super) fn is_automatic_reply(mail: &Message<'_>) -> bool {
    let header = |name: &'static str| mail.header_raw(name).unwrap_or_default().trim();
    let is_reply = header("Auto-Submitted").to_ascii_lowercase().starts_with("auto-replied");
    let from = mail.from().and_then(|from| from.first()?.address()).unwrap_or_default().to_ascii_lowercase();
    is_reply || header("Return-Path") == "<>" || from.starts_with("mailer-daemon")
}

#[cfg(test)]
mod tests {
    use super::super::extract::{extract_file, extract_message};
    use super::*;
    use net::memory_budget::MemoryBudget;

    fn claims(name: &str, bytes: &[u8]) -> bool {
        let mut memory = MemoryBudget::new(usize::MAX / 2, usize::MAX).reservation();
        let found = match looks_like_a_report(bytes) {
            true => extract_file(bytes, name, &mut memory),
            false => extract_message(bytes, false, &mut memory),
        };
        let found = found.unwrap();
        assert!(found.reports.is_empty() && !found.problems.is_empty(), "{found:?}");
        found.claims
    }

    #[test]
    fn private_mail_and_files_do_not_claim_to_be_reports() {
        let docx = [b"PK\x03\x04".as_slice(), &[0; 200]].concat();
        let mail = |kind: &str, body: &str| {
            format!(
                "From: a@b.example\r\nSubject: your lab results\r\nContent-Type: {kind}\r\n\r\n{body}\r\n"
            )
        };
        for (name, bytes) in [
            ("1", mail("text/plain", "private").into_bytes()),
            ("2", mail("text/plain", "{curly} hello").into_bytes()),
            ("3", mail("application/json; name=a.json", "{\"a\":1}").into_bytes()),
            ("4", mail("application/vnd.docx; name=x.docx", "PK\x03\x04zzzz").into_bytes()),
            ("ca.key", b"-----BEGIN PRIVATE KEY-----\n".to_vec()),
            ("sternpost.db", b"SQLite format 3\0".to_vec()),
            ("credentials.json", b"{\"password\": \"x\"}".to_vec()),
            ("thesis.docx", docx),
            ("dmarc.xml.gz", formats::report::pack(b"<feedback><report_metadata/></feedback>").unwrap()),
        ] {
            assert!(!claims(name, &bytes), "{name}");
        }
    }

    #[test]
    fn broken_reports_claim_to_be_reports() {
        let mail = |head: &str, body: &str| format!("From: a@b.example\r\n{head}\r\n\r\n{body}\r\n");
        for (name, bytes) in [
            ("a", mail("TLS-Report-Domain: example.org", "nothing").into_bytes()),
            ("b", mail("Content-Type: application/tlsrpt+json", "{\"broken\"").into_bytes()),
            ("c", mail("Content-Type: text/plain", "{\"report-id\": \"1\", broken").into_bytes()),
            (
                "d",
                mail("Subject: Report Domain: a.example Submitter: b.example Report-ID: <1@b.example>", "-")
                    .into_bytes(),
            ),
            ("e.json", b"{\"date-range\": {}}".to_vec()),
            ("b.example!a.example!1!2!3.json.gz", b"\x1f\x8bbroken".to_vec()),
            ("f.json.gz", b"\x1f\x8bbroken".to_vec()),
        ] {
            assert!(claims(name, &bytes), "{name}");
        }
    }
}
