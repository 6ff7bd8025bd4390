//! Decides whether input that could not be read claims to be a TLS report.
//!
//! An import reads folders and mailboxes that also hold unrelated mail and files. Unreadable input is quarantined
//! whole, and every user of the dashboard can read it there. So only input that claims to be a TLS report may be
//! quarantined: by the headers and media types of RFC 8460 §5.3, by the file name of RFC 8460 §5.1, or by the JSON
//! members of RFC 8460 §4.4.

use super::NoReport;
use super::extract::{MAX_PARTS, looks_like_a_report};
use super::files::Item;
use formats::report::{ReportFileName, ReportMail, unpack};
use mail_parser::{Message, MessageParser, MessagePart, MimeHeaders, PartType};

/// Number of bytes at the start of a text that are searched for members of a report.
const HEAD_BYTES: usize = 65_536;
/// JSON members that every report has and that are rare elsewhere.
const REPORT_MEMBERS: [&[u8]; 3] = [b"\"report-id\"", b"\"date-range\"", b"\"policy-type\""];

/// True when an item that could not be read for the reason `why` claims to be a TLS report.
pub fn claims_to_be_a_report(item: &Item, why: &NoReport) -> bool {
    match why {
        // The item is a readable report.
        NoReport::NoSubmitter | NoReport::Future(_) => true,
        NoReport::NotMail | NoReport::Missing | NoReport::Unpack(_) | NoReport::Read(_) => {
            match item.is_report_file() {
                true => is_named_so(&item.name) || has_members(&item.bytes),
                false => MessageParser::default().parse(&item.bytes).is_some_and(|mail| mail_claims(&mail)),
            }
        }
    }
}

fn is_named_so(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".json.gz") || ReportFileName::parse(name).is_some()
}

fn has_members(bytes: &[u8]) -> bool {
    let has = |text: &[u8]| {
        let head = text.get(..HEAD_BYTES).unwrap_or(text);
        REPORT_MEMBERS.iter().any(|member| head.windows(member.len()).any(|at| at == *member))
    };
    match unpack(bytes) {
        Ok((text, _)) => has(&text),
        Err(_) => has(bytes),
    }
}

fn mail_claims(mail: &Message<'_>) -> bool {
    let has_header =
        ["TLS-Report-Domain", "TLS-Report-Submitter"].iter().any(|name| mail.header_raw(*name).is_some());
    let has_subject = || mail.subject().and_then(ReportMail::parse_subject).is_some();
    has_header || has_subject() || mail.parts.iter().take(MAX_PARTS).any(part_claims)
}

fn part_claims(part: &MessagePart<'_>) -> bool {
    let is_of_type = part.content_type().is_some_and(|kind| {
        let subtype = kind.subtype().unwrap_or_default().to_ascii_lowercase();
        subtype.starts_with("tlsrpt")
            || kind.attribute("report-type").is_some_and(|kind| kind.eq_ignore_ascii_case("tlsrpt"))
    });
    let is_named = || part.attachment_name().is_some_and(|name| ReportFileName::parse(name).is_some());
    is_of_type
        || is_named()
        || match &part.body {
            PartType::Text(text) | PartType::Html(text) => body_claims(text.as_bytes()),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => body_claims(bytes),
            // A forwarded report.
            PartType::Message(inner) => inner.parts.iter().take(MAX_PARTS).any(|part| match &part.body {
                PartType::Message(_) => false,
                _ => part_claims(part),
            }),
            PartType::Multipart(_) => false,
        }
}

fn body_claims(bytes: &[u8]) -> bool {
    looks_like_a_report(bytes) && has_members(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::extract::{extract, read_packed};
    use super::*;

    fn claims(name: &str, bytes: &[u8]) -> bool {
        let item = Item { name: name.to_owned(), bytes: bytes.to_vec() };
        let why = match item.is_report_file() {
            true => read_packed(bytes).unwrap_err(),
            false => extract(bytes).unwrap_err(),
        };
        claims_to_be_a_report(&item, &why)
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
