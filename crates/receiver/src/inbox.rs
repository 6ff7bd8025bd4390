//! Takes reports in (RFC 8460 §3, §5): finds the report in a message or a file, checks who signed it,
//! and keeps it. What can't be read is kept whole in quarantine with the reason. Nothing is
//! acknowledged before it is durable.

mod claims;
pub mod explain;
mod extract;
pub mod files;
pub mod imap;
mod signature;

pub use claims::claims_to_be_a_report;
pub use extract::{Extracted, NoReport, extract};
pub use signature::{SignatureState, Signatures, check_signature};

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

/// Takes reports in.
pub struct Inbox {
    /// Where reports are kept.
    pub store: Store,
    /// Finds DKIM keys.
    pub dns: Arc<dyn Dns>,
    /// When they came.
    pub clock: Arc<dyn Clock>,
    /// The addresses that it takes mail for, in lower case.
    pub addresses: Vec<String>,
    /// How mail comes to it.
    pub arrival: Arrival,
}

/// What became of a message or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxOutcome {
    /// A report was kept.
    Report {
        /// Whose.
        submitter: String,
        /// How far it is to be believed.
        trust: Trust,
        /// Whether it is new.
        kept: KeepOutcome,
    },
    /// It went to quarantine.
    Quarantined(NoReport),
}

impl Inbox {
    /// Takes one message in. When this returns without error, it is durable.
    pub fn accept_message<'a>(
        &'a self,
        message: &'a [u8],
    ) -> BoxFuture<'a, Result<InboxOutcome, StoreError>> {
        Box::pin(async move {
            let read = self.read_mail(message, self.arrival).await;
            self.keep_read(read, message).await
        })
    }

    /// Takes one file in, whose name may say whose report it is. When this returns without error, it is
    /// durable.
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

    /// Keeps what was read, or the reason why nothing was.
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

    /// The report in a message, and who signed it.
    pub fn read_mail<'a>(
        &'a self,
        message: &'a [u8],
        arrival: Arrival,
    ) -> BoxFuture<'a, Result<NewReport, NoReport>> {
        Box::pin(async move {
            let extracted = extract_aside(message).await?;
            let state = check_signature(self.dns.as_ref(), message, &extracted.submitter).await;
            let (trust, signer) = match state {
                SignatureState::Verified { signer, .. } => (Trust::Verified, Some(signer.to_string())),
                SignatureState::Missing | SignatureState::Unknown => (Trust::Unverified, None),
                SignatureState::Failed => (Trust::Failed, None),
            };
            self.new_report(extracted, trust, signer, arrival)
        })
    }

    /// The report in a file that nobody signed. The file's name and the contact in it say whose it is.
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

/// Messages from this size on are read on a thread of their own, so that they keep nobody waiting.
const LARGE_MAIL_BYTES: usize = 262_144;

async fn extract_aside(message: &[u8]) -> Result<Extracted, NoReport> {
    if message.len() < LARGE_MAIL_BYTES {
        return extract(message);
    }
    let message = message.to_vec();
    // Reading does not panic; if it did, the message would be as unreadable as any.
    tokio::task::spawn_blocking(move || extract(&message)).await.unwrap_or(Err(NoReport::NotMail))
}

/// A report about a day that begins later than this is not about anything that has happened.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(24);

impl Mailbox for Inbox {
    fn takes(&self, recipient: &str) -> bool {
        self.addresses.contains(&recipient.to_ascii_lowercase())
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        Box::pin(async move {
            match self.accept_message(&incoming.message).await {
                Ok(taken) => {
                    tracing::info!(?taken, "report mail");
                    Ok(())
                }
                // The details are for our log, not for a stranger.
                Err(error) => {
                    tracing::error!(%error, "report mail can't be kept");
                    Err(KeepError::Later("the report can't be kept now".into()))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
