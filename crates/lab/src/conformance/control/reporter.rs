//! The reporter of the controls: counts the sessions of [`ReferenceSender`](crate::reference_sender::ReferenceSender) and sends a
//! report about each domain at the end of a day (RFC 8460), with one fault at most.

use super::Control;
use crate::Clients;
use crate::conformance::inbox::{ReportKey, SELECTOR};
use crate::conformance::world::SENDER;
use crate::reference_sender::Delivery;
use formats::report::{DateRange, PolicyReport, Report, ReportMail, file_name_of, pack};
use formats::tlsrpt_record::{Rua, TlsrptRecord};
use formats::{DomainName, ResultType};
use jiff::{SignedDuration, Timestamp};
use mail_auth::common::crypto::{RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use mail_builder::MessageBuilder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;
use net::BoxFuture;
use net::dns::Kind;
use net::https::{Bytes, Posts, Verify};
use net::smtp::Mail;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The header fields that the signature covers.
const SIGNED: [&str; 7] =
    ["From", "To", "Subject", "MIME-Version", "Content-Type", "TLS-Report-Domain", "TLS-Report-Submitter"];

/// Delivers a report mail, whatever TLS does.
pub(super) trait DeliversReports: Send + Sync {
    /// Delivers `mail` to the MX hosts of `domain`.
    fn deliver<'a>(&'a self, domain: &'a DomainName, mail: &'a Mail) -> BoxFuture<'a, Delivery>;
}

pub(super) struct Reporter {
    control: Control,
    key: ReportKey,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    /// How many days the reporter has ended.
    days: u32,
    domains: BTreeMap<DomainName, Vec<PolicyReport>>,
}

impl Reporter {
    pub(super) fn new(control: Control, key: ReportKey) -> Self {
        Self { control, key, counted: Mutex::default() }
    }

    /// Counts a session with a domain.
    pub(super) fn count(&self, domain: &DomainName, entries: Vec<PolicyReport>) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let all = counted.domains.entry(domain.clone()).or_default();
        for entry in entries {
            let is_same = |one: &&mut PolicyReport| {
                (one.policy_type == entry.policy_type && one.policy_string == entry.policy_string)
                    && one.mx_host == entry.mx_host
            };
            match all.iter_mut().find(is_same) {
                Some(known) => {
                    known.successful += entry.successful;
                    known.failed += entry.failed;
                    known.details.extend(entry.details);
                }
                None => all.push(entry),
            }
        }
    }

    /// Sends the reports about all sessions so far. Later sessions are of the next day.
    pub(super) async fn send(
        &self,
        clients: &Clients,
        now: Timestamp,
        by: &dyn DeliversReports,
    ) -> Result<(), String> {
        let (days, domains) = {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted.days += 1;
            (counted.days - 1, std::mem::take(&mut counted.domains))
        };
        let today = now
            .saturating_add(SignedDuration::from_hours(24 * i64::from(days)))
            .map_err(|error| error.to_string())?;
        for (domain, entries) in domains {
            self.report(&domain, entries, DateRange::utc_day(today), clients, by).await?;
        }
        Ok(())
    }

    async fn report(
        &self,
        domain: &DomainName,
        entries: Vec<PolicyReport>,
        day: DateRange,
        clients: &Clients,
        by: &dyn DeliversReports,
    ) -> Result<(), String> {
        let name = domain.below("_smtp._tls").map_err(|error| error.to_string())?;
        let entries: Vec<PolicyReport> =
            entries.into_iter().filter(|entry| entry.successful + entry.failed > 0).collect();
        if entries.is_empty() {
            return Ok(());
        }
        // A domain without a record asks for no reports.
        let Ok(answer) = clients.dns.lookup(&name, Kind::Txt).await else { return Ok(()) };
        let Ok(record) = TlsrptRecord::select(answer.texts()) else { return Ok(()) };
        let report = Report {
            organization_name: Some("Control".into()),
            date_range: day,
            contact_info: Some(format!("reports@{SENDER}")),
            report_id: format!("{}.{domain}@{SENDER}", day.start.as_second()),
            policies: entries.into_iter().map(|entry| self.bent(entry)).collect(),
        };
        let text = report.to_json().map_err(|error| error.to_string())?;
        let packed = pack(&text).map_err(|error| error.to_string())?;
        let most = if self.control == Control::ReportsToFirstTarget { 1 } else { record.rua.len() };
        for target in record.rua.iter().take(most) {
            match target {
                Rua::Https(url) => {
                    let body = Bytes::from(packed.clone());
                    let _ = clients
                        .policies
                        .post(url, "application/tlsrpt+gzip", body, Verify::Certificate)
                        .await;
                }
                Rua::Mailto(address) => {
                    let message = self.mail(domain, &report, packed.clone(), &address.to_string())?;
                    let mail =
                        Mail { from: format!("reports@{SENDER}"), to: vec![address.to_string()], message };
                    let delivery = by.deliver(address.domain(), &mail).await;
                    if self.control == Control::ReportsReports {
                        self.count(address.domain(), delivery.entries);
                    }
                }
            }
        }
        Ok(())
    }

    /// The entry with the fault of the control.
    fn bent(&self, mut entry: PolicyReport) -> PolicyReport {
        match self.control {
            Control::ReportsWrongCounts => entry.successful += 1,
            Control::ReportsNoPolicyStrings => entry.policy_string.clear(),
            Control::ReportsOneResultType => {
                entry
                    .details
                    .iter_mut()
                    .for_each(|detail| detail.result_type = ResultType::ValidationFailure);
            }
            _ => {}
        }
        entry
    }

    fn mail(
        &self,
        domain: &DomainName,
        report: &Report,
        packed: Vec<u8>,
        to: &str,
    ) -> Result<Vec<u8>, String> {
        let submitter = DomainName::parse(SENDER).map_err(|error| error.to_string())?;
        let names = ReportMail {
            policy_domain: domain.clone(),
            submitter: submitter.clone(),
            report_id: report.report_id.clone(),
        };
        let file = file_name_of(&submitter, domain, report.date_range, None).to_string();
        let parts = vec![
            MimePart::new(ContentType::new("text/plain"), "A TLS report.\r\n"),
            MimePart::new("application/tlsrpt+gzip", packed).attachment(file),
        ];
        let kind = ContentType::new("multipart/report").attribute("report-type", "tlsrpt");
        let unsigned = MessageBuilder::new()
            .from(format!("reports@{SENDER}"))
            .to(to.to_owned())
            .header("Subject", Raw::new(names.subject()))
            .header("TLS-Report-Domain", Raw::new(domain.to_string()))
            .header("TLS-Report-Submitter", Raw::new(submitter.to_string()))
            .body(MimePart::new(kind, parts))
            .write_to_vec()
            .map_err(|error| error.to_string())?;
        if self.control == Control::ReportsUnsigned {
            return Ok(unsigned);
        }
        let key =
            PrivateKeyDer::from_pem_slice(self.key.pem.as_bytes()).map_err(|error| error.to_string())?;
        let key = RsaKey::<Sha256>::from_key_der(key).map_err(|error| error.to_string())?;
        let signer = DkimSigner::from_key(key).domain(SENDER).selector(SELECTOR).headers(SIGNED);
        let signature = signer.sign(&unsigned).map_err(|error| error.to_string())?;
        Ok([signature.to_header().into_bytes(), unsigned].concat())
    }
}
