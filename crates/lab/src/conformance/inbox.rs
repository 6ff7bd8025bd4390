//! The lab's inbox for TLS reports: takes the mails and posts that reached the report addresses of the cases, reads them and
//! verifies their signatures. The addresses are `CASE@HOST` and `https://reports.test/CASE`, so that a report belongs to the case
//! whose record names its address, whatever the report says.
//!
//! Nothing here shares code with Sternpost's own inbox: that would judge Sternpost's reports by Sternpost's opinion.

use super::tls_report::Arrived;
use super::world::SENDER;
use crate::LabError;
use crate::mail_host::{MailTraffic, Received};
use crate::policy_host::{PolicyHosts, Posted};
use formats::DomainName;
use formats::report::{ReadReport, Report, ReportFileName, ReportMail, unpack};
use mail_auth::AuthenticatedMessage;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::{DomainKey, VerifySignature};
use mail_builder::encoders::base64::Base64Encoder;
use mail_parser::{MessageParser, MimeHeaders};
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use std::sync::{Mutex, PoisonError};

/// The selector of the key that the lab gives to mail servers.
pub const SELECTOR: &str = "lab";

/// The key for the signatures of reports (RFC 8460 §3), whose record is in the lab's DNS.
#[derive(Debug, Clone)]
pub struct ReportKey {
    /// The private key, PKCS #8 in PEM.
    pub pem: String,
    /// The text of the record at `lab._domainkey.sender.test`.
    pub record: String,
}

impl ReportKey {
    /// Makes an RSA key of 2048 bits, since not all signers know others.
    pub fn generate() -> Result<Self, LabError> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
            .map_err(|error| LabError::Key(error.to_string()))?;
        let public = Base64Encoder::new().encode(&key.subject_public_key_info());
        let public = public.ok().and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
        Ok(Self { pem: key.serialize_pem(), record: format!("v=DKIM1; k=rsa; s=tlsrpt; p={public}") })
    }

    /// The name of the record, with the final dot.
    pub fn name() -> String {
        format!("{SELECTOR}._domainkey.{SENDER}.")
    }
}

/// The reports that have arrived, each with the name of its case.
pub struct Inbox {
    key: ReportKey,
    arrived: Mutex<Vec<(String, Arrived)>>,
}

impl Inbox {
    /// An empty inbox for reports that are signed by this key.
    pub fn new(key: ReportKey) -> Self {
        Self { key, arrived: Mutex::default() }
    }

    /// The key for signatures.
    pub fn key(&self) -> &ReportKey {
        &self.key
    }

    /// Takes what has arrived since the last call, and returns how many reports there are.
    pub fn collect(&self, mail: &MailTraffic, sites: &PolicyHosts) -> usize {
        let mails = mail.take_received().into_iter().flat_map(|received| self.by_mail(&received));
        let posts = sites.take_posted().into_iter().filter_map(by_post);
        let new: Vec<(String, Arrived)> = mails.chain(posts).collect();
        let mut arrived = self.lock();
        arrived.extend(new);
        arrived.len()
    }

    /// The reports of a case, in order.
    pub fn of(&self, case: &str) -> Vec<Arrived> {
        self.lock().iter().filter(|(of, _)| of == case).map(|(_, one)| one.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, Arrived)>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn by_mail(&self, received: &Received) -> Vec<(String, Arrived)> {
        // The yardstick's own messages go to `p1@…`.
        let is_report = |address: &&String| {
            address.rsplit_once('@').is_some_and(|(local, _)| local.starts_with("report-"))
        };
        let to: Vec<&String> = received.incoming.to.iter().filter(is_report).collect();
        if to.is_empty() {
            return Vec::new();
        }
        let message = &received.incoming.message;
        let read = MailReport::read(message);
        let signed = read
            .submitter
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|by| verify(message, by, &self.key.record));
        let each = |address: &String| {
            let case = address.split('@').next().unwrap_or_default().to_owned();
            let arrived = Arrived {
                to: format!("mailto:{address}"),
                report: read.report.clone(),
                signed: signed.clone(),
                headers: read.headers.clone(),
                file: read.file.clone(),
            };
            (case, arrived)
        };
        to.into_iter().map(each).collect()
    }
}

fn by_post(posted: Posted) -> Option<(String, Arrived)> {
    let case = posted.path.trim_start_matches('/').to_owned();
    let is_packed = posted.media_type == "application/tlsrpt+gzip";
    let is_right = is_packed || posted.media_type == "application/tlsrpt+json";
    let arrived = Arrived {
        to: format!("https://{}{}", posted.host, posted.path),
        report: text(&posted.body),
        signed: Ok(()),
        headers: require(is_right, || format!("the media type is {:?} (RFC 8460 §5.4)", posted.media_type)),
        file: require(is_packed, || "the report is not compressed (RFC 8460 §5.2)".into()),
    };
    (!case.is_empty()).then_some((case, arrived))
}

fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn text(bytes: &[u8]) -> Result<ReadReport, String> {
    let (text, _) = unpack(bytes).map_err(|error| error.to_string())?;
    Report::read(&text).map_err(|error| error.to_string())
}

/// A report mail, taken apart.
struct MailReport {
    report: Result<ReadReport, String>,
    submitter: Result<DomainName, String>,
    headers: Result<(), String>,
    file: Result<(), String>,
}

impl MailReport {
    fn read(message: &[u8]) -> Self {
        let Some(mail) = MessageParser::default().parse(message) else {
            let why = || "the mail can't be parsed".to_owned();
            return Self { report: Err(why()), submitter: Err(why()), headers: Err(why()), file: Err(why()) };
        };
        let part = mail.parts.iter().find(|part| {
            part.content_type().is_some_and(|kind| {
                kind.subtype().is_some_and(|subtype| subtype.to_ascii_lowercase().starts_with("tlsrpt+"))
            })
        });
        let header = |name: &'static str| {
            let value = mail.header_raw(name).map(|value| value.trim().to_owned());
            value.ok_or_else(|| format!("there is no header {name}"))
        };
        let submitter = header("TLS-Report-Submitter")
            .and_then(|text| DomainName::parse(&text).map_err(|_| format!("{text:?} is not a domain name")));
        let report =
            part.ok_or_else(|| "no part has the media type application/tlsrpt+gzip or +json".to_owned());
        let report = report.and_then(|part| text(part.contents()));
        Self {
            headers: headers(&mail, header("TLS-Report-Domain"), submitter.as_ref(), report.as_ref().ok()),
            file: file(part.and_then(|part| part.attachment_name())),
            report,
            submitter,
        }
    }
}

/// RFC 8460 §5.3: a multipart/report with the report type tlsrpt, the subject, and two headers.
fn headers(
    mail: &mail_parser::Message<'_>,
    domain: Result<String, String>,
    submitter: Result<&DomainName, &String>,
    report: Option<&ReadReport>,
) -> Result<(), String> {
    let (domain, submitter) = (domain?, submitter.map_err(Clone::clone)?);
    let subject = mail.subject().unwrap_or_default();
    let read = ReportMail::parse_subject(subject).ok_or_else(|| format!("the subject is {subject:?}"))?;
    let id = report.map(|read| read.report.report_id.as_str()).unwrap_or_default();
    let says_the_same = read.policy_domain.as_str() == domain && read.submitter == *submitter;
    require(says_the_same && read.report_id == id, || {
        format!(
            "the subject {subject:?} does not name the domain {domain}, the submitter {submitter} and the ID {id}"
        )
    })?;
    let kind = mail.content_type();
    let is_report = kind.is_some_and(|kind| {
        kind.ctype().eq_ignore_ascii_case("multipart")
            && kind.subtype().is_some_and(|subtype| subtype.eq_ignore_ascii_case("report"))
            && kind.attribute("report-type").is_some_and(|kind| kind.eq_ignore_ascii_case("tlsrpt"))
    });
    require(is_report, || "the mail is no multipart/report of the type tlsrpt".into())
}

fn file(name: Option<&str>) -> Result<(), String> {
    let name = name.ok_or("the report has no file name")?;
    let parsed = ReportFileName::parse(name).ok_or_else(|| format!("the file name is {name:?}"))?;
    require(parsed.gzip, || format!("{name:?} is not compressed"))
}

/// Verifies that the submitter's domain has signed the whole message by the lab's key (RFC 8460 §3, RFC 6376 §6.1).
fn verify(message: &[u8], submitter: &DomainName, record: &str) -> Result<(), String> {
    let parsed = AuthenticatedMessage::parse(message).ok_or("the mail can't be parsed")?;
    let key = DomainKey::parse(record.as_bytes()).map_err(|error| error.to_string())?;
    let of_submitter = |domain: &str| {
        let (domain, submitter) = (domain.to_ascii_lowercase(), submitter.as_str());
        domain == submitter || submitter.ends_with(&format!(".{domain}"))
    };
    let mut last = Err(format!("there is no signature by {submitter}"));
    for header in &parsed.dkim_headers {
        let signature = &header.header;
        if !of_submitter(&signature.d) {
            continue;
        }
        let name = signature.domain_key();
        let hash = HashAlgorithm::from(signature.a);
        let is_body = parsed.body_hashes.iter().any(|(form, by, length, digest)| {
            *form == signature.cb && *by == hash && *length == signature.l && *digest == signature.bh
        });
        last = if name.trim_end_matches('.') != ReportKey::name().trim_end_matches('.') {
            Err(format!("the key {name} is not the one that the lab gave out"))
        } else if signature.l > 0 {
            Err("the signature covers a part of the mail only (l=)".to_owned())
        } else if !is_body {
            Err("the mail was changed after it was signed".to_owned())
        } else {
            let unsigned = without_value(header.value);
            let mut signed = parsed.signed_headers(&signature.h, header.name, &unsigned);
            let is_valid = key.p.verify(&mut signed, &signature.b, signature.ch, signature.a);
            is_valid.map_err(|error| format!("the signature is invalid: {error}"))
        };
        if last.is_ok() {
            break;
        }
    }
    last
}

/// A DKIM-Signature header as it was signed: with an empty `b=` (RFC 6376 §3.7).
fn without_value(header: &[u8]) -> Vec<u8> {
    let header = header.strip_suffix(b"\r\n").unwrap_or(header);
    let tags = header.split(|byte| *byte == b';').map(|tag| {
        let end = tag.iter().position(|byte| *byte == b'=').map_or(0, |at| at + 1);
        let is_signature = tag.get(..end).is_some_and(|name| name.trim_ascii() == b"b=");
        if is_signature { tag.get(..end).unwrap_or(tag) } else { tag }
    });
    tags.collect::<Vec<_>>().join(&b';')
}
