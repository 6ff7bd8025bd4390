//! Imports TLS reports (RFC 8460 §3, §5): finds the report in a message or file, verifies the DKIM signature, and
//! stores the report. Input that can't be read is stored whole in quarantine, with the reason. Mail is acknowledged
//! only after it is durable.

mod claims;
pub mod explain;
mod extract;
pub mod files;
#[cfg(feature = "imap")]
pub mod imap;
mod signature;

pub use claims::claims_to_be_a_report;
pub use extract::{Extracted, NoReport, extract};
pub use signature::{SignatureState, check_signature};

use formats::DomainName;
use formats::report::ReportFileName;
use jiff::SignedDuration;
use net::BoxFuture;
use net::clock::{Clock, later};
use net::dns::Dns;
use net::smtp::server::{Incoming, KeepError, Mailbox};
use std::sync::Arc;
use store::reports::{Arrival, KeepOutcome, NewReport, Trust};
use store::{Store, StoreError};

/// Imports reports into the store.
pub struct Inbox {
    /// Stores reports and quarantined input.
    pub store: Store,
    /// Looks up DKIM keys.
    pub dns: Arc<dyn Dns>,
    /// The current time, recorded as the time of receipt.
    pub clock: Arc<dyn Clock>,
    /// Addresses for which mail is accepted, in lower case.
    pub addresses: Vec<String>,
    /// How the input arrives; stored with each report.
    pub arrival: Arrival,
}

/// The result of importing a message or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxOutcome {
    /// A report was stored.
    Report {
        /// The domain that submitted the report.
        submitter: String,
        /// How far the report is trusted, by its signature.
        trust: Trust,
        /// Whether the report is new or a duplicate.
        kept: KeepOutcome,
    },
    /// The input was quarantined for this reason.
    Quarantined(NoReport),
}

impl Inbox {
    /// Imports a message. On success, the result is durable.
    pub fn accept_message<'a>(
        &'a self,
        message: &'a [u8],
    ) -> BoxFuture<'a, Result<InboxOutcome, StoreError>> {
        Box::pin(async move {
            let read = self.read_mail(message, self.arrival).await;
            self.keep_read(read, message).await
        })
    }

    /// Imports a file. Its name may identify the submitter (RFC 8460 §5.1). On success, the result is durable.
    pub fn accept_file<'a>(
        &'a self,
        bytes: &'a [u8],
        name: &'a str,
    ) -> BoxFuture<'a, Result<InboxOutcome, StoreError>> {
        Box::pin(async move {
            let read = self.read_file(bytes, name, self.arrival);
            self.keep_read(read, bytes).await
        })
    }

    /// Stores a report, or quarantines the input with the reason.
    async fn keep_read(
        &self,
        read: Result<NewReport, NoReport>,
        raw: &[u8],
    ) -> Result<InboxOutcome, StoreError> {
        match read {
            Ok(new) => {
                let kept = self.store.keep_report(&new).await?;
                Ok(InboxOutcome::Report { submitter: new.submitter, trust: new.trust, kept })
            }
            Err(why) => {
                self.store.quarantine(self.clock.now(), self.arrival, &why.to_string(), raw).await?;
                Ok(InboxOutcome::Quarantined(why))
            }
        }
    }

    /// Extracts the report from a message and verifies its signature.
    pub fn read_mail<'a>(
        &'a self,
        message: &'a [u8],
        arrival: Arrival,
    ) -> BoxFuture<'a, Result<NewReport, NoReport>> {
        Box::pin(async move {
            let extracted = extract_aside(message).await?;
            let state =
                check_signature(self.dns.as_ref(), message, &extracted.submitter, self.clock.now()).await;
            let (trust, signer) = match state {
                SignatureState::Verified { signer, .. } => (Trust::Verified, Some(signer.to_string())),
                SignatureState::Missing | SignatureState::Unknown => (Trust::Unverified, None),
                SignatureState::Failed => (Trust::Failed, None),
            };
            self.new_report(extracted, trust, signer, arrival)
        })
    }

    /// Reads an unsigned report file. The submitter comes from the file's name or from the contact address in the
    /// report.
    pub fn read_file(&self, bytes: &[u8], name: &str, arrival: Arrival) -> Result<NewReport, NoReport> {
        let named = ReportFileName::parse(name);
        let policy_domain = named.as_ref().map(|named| named.policy_domain.clone());
        let (read, packed) = extract::read_packed(bytes)?;
        let contact = || {
            let contact = read.report.contact_info.as_deref()?;
            DomainName::parse(contact.trim_start_matches("mailto:").rsplit_once('@')?.1).ok()
        };
        let submitter = named.map(|named| named.sender).or_else(contact).ok_or(NoReport::NoSubmitter)?;
        let extracted = Extracted { read, submitter, policy_domain, packed };
        self.new_report(extracted, Trust::Unverified, None, arrival)
    }

    fn new_report(
        &self,
        extracted: Extracted,
        trust: Trust,
        signer: Option<String>,
        arrival: Arrival,
    ) -> Result<NewReport, NoReport> {
        let received_at = self.clock.now();
        let mut report = extracted.read.report;
        if report.date_range.start > later(received_at, CLOCK_SKEW) {
            return Err(NoReport::Future(report.date_range.start));
        }
        for policy in &mut report.policies {
            policy.policy_domain = policy.policy_domain.take().or_else(|| extracted.policy_domain.clone());
        }
        Ok(NewReport {
            submitter: extracted.submitter.to_string(),
            signer,
            trust,
            arrival,
            received_at,
            report,
            warnings: extracted.read.warnings.len(),
            packed: extracted.packed,
        })
    }
}

/// Messages of at least this size, in bytes, are read on a blocking thread, so that they do not delay other tasks.
const LARGE_MAIL_BYTES: usize = 262_144;

async fn extract_aside(message: &[u8]) -> Result<Extracted, NoReport> {
    if message.len() < LARGE_MAIL_BYTES {
        return extract(message);
    }
    let message = message.to_vec();
    // Reading should not panic; if it does, the message counts as unreadable.
    tokio::task::spawn_blocking(move || extract(&message)).await.unwrap_or(Err(NoReport::NotMail))
}

/// A report whose period begins later than this after now is rejected.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(24);

impl Mailbox for Inbox {
    fn takes(&self, recipient: &str) -> bool {
        self.addresses.contains(&recipient.to_ascii_lowercase())
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        Box::pin(async move {
            match self.accept_message(&incoming.message).await {
                Ok(outcome) => {
                    tracing::info!(?outcome, "report mail imported");
                    Ok(())
                }
                // The details go to the log, not to the client.
                Err(error) => {
                    tracing::error!(%error, "a report mail can't be stored");
                    Err(KeepError::Temporary("the report can't be stored now".into()))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
