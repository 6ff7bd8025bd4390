//! Decides whether input that could not be read claims to be a TLS report.
//!
//! An import reads folders and mailboxes that also hold unrelated mail and files. Unreadable input is quarantined
//! whole, where operators of the dashboard can read it (readers can't). Nobody should find private mail there, so input
//! of which there is a copy elsewhere is quarantined only if it claims to be a TLS report: by the headers and media types
//! of RFC 8460 §5.3, by the file name of RFC 8460 §5.1, or by the JSON members of RFC 8460 §4.4. What arrives by SMTP,
//! LMTP or a pipe is the only copy, and is quarantined in any case. A member or a file name that other programs use as
//! well is not a claim. Such hints count only beside a report ([`is_likely`]).

use super::mime::{Head, Kind, Mail};
use formats::limits::INBOX_PARTS;
use formats::report::{ReportFileName, ReportMail, beginning_of_gzip, beginning_of_text};

/// Number of bytes at the start of a text that are searched for members of a report.
const HEAD_BYTES: usize = 65_536;
/// JSON members that every report has; other formats have one of them too.
const REPORT_MEMBERS: [&[u8]; 2] = [b"\"report-id\"", b"\"date-range\""];
/// The member that has the results in each report.
const RESULTS_MEMBER: &[u8] = b"\"policies\"";

/// True for a file name in the form that RFC 8460 §5.1 requires.
pub(super) fn is_named_so(name: &str) -> bool {
    ReportFileName::parse(name).is_some()
}

/// True for text that has the members of a report near its beginning: an array of policies, or a single one, and an id or a range. Gzip
/// data is decompressed as far as possible.
pub(super) fn has_members(text: &[u8]) -> bool {
    let unpacked = beginning_of_gzip(text, HEAD_BYTES);
    let head = beginning_of_text(if unpacked.is_empty() { text } else { &unpacked }, HEAD_BYTES);
    has_any(&head, &REPORT_MEMBERS) && has_results(&head)
}

/// True for what may well be a report if there is another one beside it.
pub(super) fn is_likely(name: &str, text: &[u8]) -> bool {
    let head = beginning_of_text(text, HEAD_BYTES);
    name.to_ascii_lowercase().ends_with(".json.gz") || has_any(&head, &REPORT_MEMBERS)
}

fn has_any(text: &[u8], members: &[&[u8]]) -> bool {
    members.iter().any(|member| text.windows(member.len()).any(|at| at == *member))
}

/// True if there is a member `policies` that is an array or an object.
fn has_results(text: &[u8]) -> bool {
    let ends = text.windows(RESULTS_MEMBER.len()).enumerate().filter(|(_, at)| *at == RESULTS_MEMBER);
    ends.map(|(at, _)| text.get(at + RESULTS_MEMBER.len()..).unwrap_or_default().trim_ascii_start())
        .filter_map(|rest| rest.strip_prefix(b":")?.trim_ascii_start().first())
        .any(|first| matches!(first, b'[' | b'{'))
}

/// True for a message whose header or parts say that it is a report; the content of parts is not examined. A bounce does
/// not; neither does a message within one that is returned.
pub(super) fn mail_claims(mail: &Mail<'_, '_>, is_returned: bool) -> bool {
    let is_returned = is_returned || is_automatic_reply(&mail.head);
    let has_header =
        ["TLS-Report-Domain", "TLS-Report-Submitter"].iter().any(|name| mail.head.raw(name).is_some());
    let has_subject = || mail.head.subject().and_then(ReportMail::parse_subject).is_some();
    let mut parts =
        mail.parts.iter().take(INBOX_PARTS).filter(|part| !is_returned || part.kind != Kind::Message);
    !is_bounce(mail) && (has_header || has_subject() || parts.any(|part| is_labelled(&part.head)))
}

/// True for a part whose media type or file name marks it as a report.
pub(super) fn is_labelled(head: &Head) -> bool {
    let is_of_type = head.content_type().is_some_and(|kind| {
        let subtype = kind.subtype().unwrap_or_default().to_ascii_lowercase();
        subtype.starts_with("tlsrpt")
            || kind.attribute("report-type").is_some_and(|kind| kind.eq_ignore_ascii_case("tlsrpt"))
    });
    is_of_type || is_named_so(head.file_name())
}

/// True for a delivery status notification (RFC 3464), a disposition notification (RFC 8098) or an abuse report
/// (RFC 5965). They contain the message that they are about; a report in it was sent by us.
pub(super) fn is_bounce(mail: &Mail<'_, '_>) -> bool {
    let is_kind = |kind: &str| {
        ["delivery-status", "global-delivery-status", "disposition-notification", "feedback-report"]
            .iter()
            .any(|bounce| kind.eq_ignore_ascii_case(bounce))
    };
    mail.parts.iter().take(INBOX_PARTS).any(|part| {
        part.head.content_type().is_some_and(|kind| {
            let is_message = kind.ctype().eq_ignore_ascii_case("message");
            (is_message && kind.subtype().is_some_and(is_kind))
                || kind.attribute("report-type").is_some_and(is_kind)
        })
    })
}

/// True for a message that a program sent in reply to another, without the form of RFC 3464.
pub(super) fn is_automatic_reply(head: &Head) -> bool {
    let is_reply =
        head.raw("Auto-Submitted").unwrap_or_default().to_ascii_lowercase().starts_with("auto-replied");
    let from = head.author().unwrap_or_default().to_ascii_lowercase();
    is_reply || head.raw("Return-Path") == Some("<>") || from.starts_with("mailer-daemon")
}

#[cfg(test)]
mod tests {
    use super::super::extract::{extract_file, extract_message};
    use super::super::shape::looks_like_a_report;
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
            (
                "export.json.gz",
                formats::report::pack(b"{\"date-range\": {\"from\": 1}, \"rows\": []}").unwrap(),
            ),
            ("export.json.gz", b"\x1f\x8bbroken".to_vec()),
            ("export.json", b"{\"date-range\": {}, \"report-id\": 7, \"policies\": \"none\"}".to_vec()),
            ("insurance.json", b"{\"policies\": [{\"policy-type\": \"life\"}]}".to_vec()),
            ("5", mail("application/gzip; name=export.json.gz", "\x1f\u{8b}").into_bytes()),
            ("dmarc.xml.gz", formats::report::pack(b"<feedback><report_metadata/></feedback>").unwrap()),
        ] {
            assert!(!claims(name, &bytes), "{name}");
        }
    }

    #[test]
    fn broken_reports_claim_to_be_reports() {
        let mail = |head: &str, body: &str| format!("From: a@b.example\r\n{head}\r\n\r\n{body}\r\n");
        let mut cut = formats::report::pack(b"{\"report-id\": \"1\", \"policies\": []}").unwrap();
        cut.truncate(cut.len() - 8);
        for (name, bytes) in [
            ("a", mail("TLS-Report-Domain: example.org", "nothing").into_bytes()),
            ("b", mail("Content-Type: application/tlsrpt+json", "{\"broken\"").into_bytes()),
            ("c", mail("Content-Type: text/plain", "{\"report-id\": 1, \"policies\" : [broken").into_bytes()),
            (
                "d",
                mail("Subject: Report Domain: a.example Submitter: b.example Report-ID: <1@b.example>", "-")
                    .into_bytes(),
            ),
            ("e.json", b"{\"date-range\": {}, \"policies\":\r\n[]}".to_vec()),
            ("f.json", b"{\"report-id\": 1, \"policies\": {\"policy\": 0}}".to_vec()),
            ("b.example!a.example!1!2!3.json.gz", b"\x1f\x8bbroken".to_vec()),
            ("f.json.gz", cut),
            ("b.example!a.example!1!2.json.gz", b"\x1f\x8bbroken".to_vec()),
        ] {
            assert!(claims(name, &bytes), "{name}");
        }
    }
}
