//! Composes report mail: multipart/report, gzip, DKIM-signed (RFC 8460 §3, §5.3).
//!
//! The scheduler makes a [`PreparedReport`] from each report; the delivery composes a mail for each `mailto` target.

use super::build::Reporter;
use formats::DomainName;
use formats::report::{DateRange, Report, ReportMail, WriteError, file_name_of, pack};
use formats::tlsrpt_record::MailAddress;
use jiff::Timestamp;
use mail_auth::common::crypto::{Algorithm, Ed25519Key, RsaKey, Sha256, SigningKey};
use mail_auth::common::headers::{HeaderWriter, Writable};
use mail_auth::dkim::{DkimSigner, Signature};
use mail_builder::MessageBuilder;
use mail_builder::encoders::base64::Base64Encoder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;

/// A DKIM key that signs report mail. Its record must have `s=tlsrpt` or no `s=` (RPT-16).
pub struct DkimKey {
    /// The signing domain: that of the submitter.
    pub domain: DomainName,
    /// The DKIM selector (RFC 6376 §3.1).
    pub selector: String,
    secret: Secret,
}

/// A parsed private key, since parsing takes longer than signing. RSA also keeps its DER form, for the public key.
enum Secret {
    Rsa(Box<RsaKey<Sha256>>, Vec<u8>),
    Ed25519(Ed25519Key),
}

/// A borrowed key: the library takes keys by value.
struct Borrowed<'k, K>(&'k K);

impl<K: SigningKey> SigningKey for Borrowed<'_, K> {
    type Hasher = K::Hasher;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        self.0.sign(input)
    }

    fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }
}

/// The reason why a DKIM key can't be used. The text never contains the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DkimKeyError {
    /// The text is not a private key in PEM form.
    #[error("not a private key in PEM form (PKCS #8, or PKCS #1 for RSA)")]
    Pem,
    /// The key has an unsupported type or is malformed.
    #[error("the key is neither RSA nor Ed25519")]
    Kind,
}

/// The reason why a report mail can't be composed.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The report has no valid JSON form by RFC 8460.
    #[error("the report can't be serialized: {0}")]
    Write(#[from] WriteError),
    /// Compression failed.
    #[error("the report can't be compressed: {0}")]
    Pack(#[from] std::io::Error),
    /// Signing failed; the text is the reason.
    #[error("the report mail can't be signed: {0}")]
    Sign(String),
}

/// A signed report mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The whole message, with headers.
    pub message: Vec<u8>,
    /// The Message-ID without brackets. It is the same each time the report is sent.
    pub message_id: String,
}

impl DkimKey {
    /// Parses an RSA or Ed25519 key in PEM form.
    pub fn from_pem(domain: DomainName, selector: &str, pem: &str) -> Result<Self, DkimKeyError> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| DkimKeyError::Pem)?;
        let bytes = key.secret_der().to_vec();
        let secret = match Ed25519Key::from_pkcs8_maybe_unchecked_der(&bytes) {
            Ok(key) => Secret::Ed25519(key),
            Err(_) => Secret::Rsa(Box::new(rsa(&bytes).ok_or(DkimKeyError::Kind)?), bytes),
        };
        Ok(Self { domain, selector: selector.to_owned(), secret })
    }

    /// Generates an Ed25519 key.
    pub fn generate(domain: DomainName, selector: &str) -> Result<Self, DkimKeyError> {
        let secret = Ed25519Key::generate_pkcs8().map_err(|_| DkimKeyError::Kind)?;
        let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(&secret).map_err(|_| DkimKeyError::Kind)?;
        Ok(Self { domain, selector: selector.to_owned(), secret: Secret::Ed25519(key) })
    }

    /// The name and value of the DNS record to publish, limited to report mail by `s=tlsrpt` (RPT-16). `None` if the
    /// public key can't be encoded.
    pub fn record(&self) -> Option<(String, String)> {
        let (kind, public) = match &self.secret {
            Secret::Ed25519(key) => ("ed25519", key.public_key()),
            Secret::Rsa(_, bytes) => ("rsa", rsa_public_key(bytes)?),
        };
        let public = String::from_utf8(Base64Encoder::new().encode(&public).ok()?).ok()?;
        let name = format!("{}._domainkey.{}", self.selector, self.domain);
        Some((name, format!("v=DKIM1; k={kind}; s=tlsrpt; p={public}")))
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, String> {
        let fail = |error: mail_auth::Error| error.to_string();
        let (domain, selector) = (self.domain.as_str(), self.selector.as_str());
        match &self.secret {
            Secret::Ed25519(key) => {
                let signer = DkimSigner::from_key(Borrowed(key)).domain(domain).selector(selector);
                signer.headers(SIGNED_HEADERS).sign(message).map_err(fail)
            }
            Secret::Rsa(key, _) => {
                let signer = DkimSigner::from_key(Borrowed(key.as_ref())).domain(domain).selector(selector);
                signer.headers(SIGNED_HEADERS).sign(message).map_err(fail)
            }
        }
    }
}

impl fmt::Debug for DkimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DkimKey({}._domainkey.{})", self.selector, self.domain)
    }
}

fn rsa(bytes: &[u8]) -> Option<RsaKey<Sha256>> {
    let pkcs8 = PrivateKeyDer::Pkcs8(bytes.into());
    let pkcs1 = PrivateKeyDer::Pkcs1(bytes.into());
    RsaKey::from_key_der(pkcs8).or_else(|_| RsaKey::from_key_der(pkcs1)).ok()
}

/// The SubjectPublicKeyInfo, which verifiers expect for RSA keys in practice.
fn rsa_public_key(bytes: &[u8]) -> Option<Vec<u8>> {
    let forms = [PrivateKeyDer::Pkcs8(bytes.into()), PrivateKeyDer::Pkcs1(bytes.into())];
    let key = forms.iter().find_map(|form| rustls::crypto::aws_lc_rs::sign::any_supported_type(form).ok())?;
    Some(key.public_key()?.to_vec())
}

/// The header fields that the DKIM signature covers.
const SIGNED_HEADERS: [&str; 10] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "TLS-Report-Domain",
    "TLS-Report-Submitter",
    "TLS-Required",
];

/// A report that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedReport {
    /// The domain that the report is about.
    pub domain: DomainName,
    /// The UTC day of the report.
    pub day: DateRange,
    /// The `report-id`, which is also the Message-ID.
    pub report_id: String,
    /// The JSON text, compressed with gzip.
    pub packed: Vec<u8>,
}

impl PreparedReport {
    /// Serializes and compresses a report.
    pub fn new(domain: &DomainName, report: &Report) -> Result<Self, ComposeError> {
        Ok(Self {
            domain: domain.clone(),
            day: report.date_range,
            report_id: report.report_id.clone(),
            packed: pack(&report.to_json()?)?,
        })
    }

    /// The file name of the attachment (RFC 8460 §5.1, RPT-12).
    pub fn file_name(&self, submitter: &DomainName) -> String {
        file_name_of(submitter, &self.domain, self.day, self.installation_id()).to_string()
    }

    /// The ID of the installation in the `report-id`; `None` in IDs of releases that had none.
    fn installation_id(&self) -> Option<&str> {
        let (_, word) = self.report_id.split_once('.')?.0.split_once('-')?;
        Some(word).filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    }
}

/// Composes the mail with a report for `to`, signed with each of the keys.
pub fn compose(
    prepared: &PreparedReport,
    reporter: &Reporter,
    to: &MailAddress,
    keys: &[DkimKey],
    now: Timestamp,
) -> Result<Composed, ComposeError> {
    let domain = &prepared.domain;
    let names = ReportMail {
        policy_domain: domain.clone(),
        submitter: reporter.submitter().clone(),
        report_id: prepared.report_id.clone(),
    };
    let text = format!(
        "This is an aggregate TLS report from {} about mail to {domain}\r\nfor the day that began {} (RFC 8460). The report is attached.\r\n",
        reporter.organization, prepared.day.start
    );
    let parts = vec![
        MimePart::new(ContentType::new("text/plain").attribute("charset", "utf-8"), text),
        MimePart::new("application/tlsrpt+gzip", prepared.packed.as_slice())
            .attachment(prepared.file_name(reporter.submitter())),
    ];
    let body = MimePart::new(ContentType::new("multipart/report").attribute("report-type", "tlsrpt"), parts);
    let unsigned = MessageBuilder::new()
        .from(reporter.from.to_string())
        .to(to.to_string())
        // Raw: receivers match the literal text of RFC 8460 §5.3, not an encoded form.
        .header("Subject", Raw::new(names.subject()))
        .date(now.as_second())
        .message_id(prepared.report_id.clone())
        .header("TLS-Report-Domain", Raw::new(domain.to_string()))
        .header("TLS-Report-Submitter", Raw::new(reporter.submitter().to_string()))
        // RFC 8689 §4.1: relays that support this header deliver even if TLS fails (RPT-17).
        .header("TLS-Required", Raw::new("no"))
        .body(body)
        .write_to_vec()?;
    let mut message = Vec::with_capacity(unsigned.len() + 1024 * keys.len());
    for key in keys {
        let signature = key.sign(&unsigned).map_err(ComposeError::Sign)?;
        message.extend_from_slice(signature.to_header().as_bytes());
    }
    message.extend_from_slice(&unsigned);
    Ok(Composed { message, message_id: prepared.report_id.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::report::{PolicyReport, unpack};
    use formats::result_type::PolicyType;
    use store::tallies::DomainTally;

    fn rsa_pem() -> String {
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        key.unwrap().serialize_pem()
    }

    fn domain(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn sample(key: &DkimKey) -> (Report, Composed) {
        let reporter = Reporter {
            organization: "Sender Mail".into(),
            from: MailAddress::parse("tlsrpt@sender.example").unwrap(),
            contact: MailAddress::parse("help@desk.example").unwrap(),
            addresses: Default::default(),
        };
        let entry = PolicyReport {
            policy_type: PolicyType::NoPolicyFound,
            policy_string: vec![],
            policy_domain: Some(domain("example.org")),
            mx_host: vec![],
            successful: 3,
            failed: 0,
            details: vec![],
        };
        let now: Timestamp = "2026-11-24T13:00:00Z".parse().unwrap();
        let tally = DomainTally { domain: domain("example.org"), entries: vec![entry] };
        let report = super::super::build(now, tally, &[], &reporter, "k3x9").unwrap();
        let to = MailAddress::parse("reports@example.org").unwrap();
        let prepared = PreparedReport::new(&domain("example.org"), &report).unwrap();
        let composed = compose(&prepared, &reporter, &to, std::slice::from_ref(key), now).unwrap();
        (report, composed)
    }

    fn text(composed: &Composed) -> String {
        String::from_utf8(composed.message.clone()).unwrap()
    }

    #[test]
    fn rpt_14_the_mail_is_a_multipart_report_with_text_then_the_report_in_base64() {
        let key = DkimKey::generate(domain("sender.example"), "tlsrpt").unwrap();
        let (report, composed) = sample(&key);
        let mail = text(&composed);
        let unfolded = mail.replace("\r\n\t", " ").replace("\r\n ", " ");
        assert!(unfolded.contains("multipart/report"), "{mail}");
        assert!(unfolded.contains("report-type=\"tlsrpt\""), "{mail}");
        let plain = mail.find("text/plain").unwrap();
        let packed = mail.find("application/tlsrpt+gzip").unwrap();
        assert!(plain < packed && mail[packed..].contains("base64"));
        let encoded: String = mail[packed..]
            .split("\r\n\r\n")
            .nth(1)
            .unwrap()
            .lines()
            .take_while(|l| !l.starts_with("--"))
            .collect();
        let bytes = mail_parser::decoders::base64::base64_decode(encoded.as_bytes()).unwrap();
        assert_eq!(unpack(&bytes).unwrap().0, report.to_json().unwrap());
    }

    #[test]
    fn rpt_13_the_report_is_packed_with_gzip_under_its_media_type() {
        let key = DkimKey::generate(domain("sender.example"), "tlsrpt").unwrap();
        let mail = text(&sample(&key).1);
        assert!(mail.contains("Content-Type: application/tlsrpt+gzip"), "{mail}");
        assert!(mail.contains("sender.example!example.org!1795478400!1795564799!k3x9.json.gz"), "{mail}");
    }

    #[test]
    fn rpt_15_subject_and_headers_say_domain_submitter_and_id_in_plain_words() {
        let key = DkimKey::generate(domain("sender.example"), "tlsrpt").unwrap();
        let (report, composed) = sample(&key);
        let mail = text(&composed);
        let subject: Vec<&str> = mail
            .lines()
            .skip_while(|line| !line.starts_with("Subject: "))
            .take_while(|line| !line.starts_with("Date"))
            .collect();
        assert!(subject.iter().all(|line| line.len() <= 100 && line.is_ascii()), "{subject:?}");
        let parsed = ReportMail::parse_subject(subject.join("\r\n").trim_start_matches("Subject: ")).unwrap();
        assert_eq!(parsed.report_id, report.report_id);
        assert_eq!(
            (parsed.policy_domain.as_str(), parsed.submitter.as_str()),
            ("example.org", "sender.example")
        );
        assert!(mail.contains("\r\nFrom: <tlsrpt@sender.example>\r\n"), "{mail}");
        assert!(mail.contains("\r\nTLS-Report-Domain: example.org\r\n"));
        assert!(mail.contains("\r\nTLS-Report-Submitter: sender.example\r\n"));
        assert!(!mail.contains("=?"), "{mail}");
    }

    #[test]
    fn rpt_17_relays_are_asked_to_deliver_whatever_tls_does() {
        let key = DkimKey::generate(domain("sender.example"), "tlsrpt").unwrap();
        assert!(text(&sample(&key).1).contains("TLS-Required: no\r\n"));
    }

    #[test]
    fn rpt_16_the_mail_is_signed_whole_by_the_submitter_with_either_kind_of_key() {
        let ed25519 = DkimKey::generate(domain("sender.example"), "tlsrpt").unwrap();
        let rsa = DkimKey::from_pem(domain("sender.example"), "r", &rsa_pem()).unwrap();
        for (key, kind) in [(ed25519, "ed25519"), (rsa, "rsa")] {
            let mail = text(&sample(&key).1);
            let header = mail.split("\r\nFrom:").next().unwrap().replace("\r\n", "");
            assert!(header.starts_with("DKIM-Signature:"), "{header}");
            assert!(header.contains(&format!("a={kind}-sha256")), "{header}");
            assert!(header.contains("d=sender.example") && !header.contains(" l="), "{header}");
            let (name, record) = key.record().unwrap();
            assert!(name.ends_with("._domainkey.sender.example"));
            assert!(record.contains(&format!("k={kind}; s=tlsrpt; p=")), "{record}");
        }
    }

    #[test]
    fn debug_output_hides_the_key_and_a_broken_key_is_refused() {
        let key = DkimKey::from_pem(domain("sender.example"), "r", &rsa_pem()).unwrap();
        assert_eq!(format!("{key:?}"), "DkimKey(r._domainkey.sender.example)");
        assert_eq!(DkimKey::from_pem(domain("a.example"), "r", "hello").err(), Some(DkimKeyError::Pem));
        let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(DkimKey::from_pem(domain("a.example"), "r", broken).err(), Some(DkimKeyError::Kind));
    }
}
