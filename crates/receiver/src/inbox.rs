//! Imports TLS reports (RFC 8460 §3, §5): finds the reports in a message or file, verifies the DKIM signature, and
//! stores the reports. Input that can't be read is stored whole in quarantine, with the reason. Mail is acknowledged only
//! after everything in it is durable.
//!
//! The input passes through these modules: `mime` takes a message apart; `extract` finds the reports, with `shape` (what
//! input may be by its first bytes), `submitter`
//! (who sent them) and `claims` (what claims to be a report); `dmarc` is the same for DMARC reports;
//! [`signature`](check_signature) verifies them, and `hints` tells which keys that takes; `reading` joins all; this module
//! stores the result, within the limits of `retention`. `pool` bounds processor time and memory of all of it, with
//! `job_memory` for each message. `files` and `imap` bring input from files and mailboxes, `posted` knows the domain of a
//! post's address; `owners` files reports with the tenant that owns the domain; `counts` counts what arrives.

mod claims;
mod counts;
mod dmarc;
pub mod explain;
mod extract;
pub mod files;
mod hints;
#[cfg(feature = "imap")]
pub mod imap;
mod job_memory;
mod mime;
mod owners;
mod pool;
pub mod posted;
mod reading;
mod retention;
mod shape;
mod signature;
mod submitter;

pub use counts::{InboxCounts, LeftAlone};
pub use dmarc::ExtractedDmarc;
pub use extract::{Extracted, Extraction, LeftInGzip, NoReport, Problem, extract_file, extract_message};
pub use owners::{keep_dmarc_reports, keep_reports};
pub use pool::{Busy, ExtractionPool, receive_buffers};
pub use reading::{GzipFile, Reading};
pub use retention::{Removed, Retention};
pub use signature::{SignatureState, check_signature};
pub use store::reports::Quota;
pub use submitter::UNKNOWN_SUBMITTER;

use formats::DomainName;
use formats::limits::INBOX_WAIT_TIME;
use formats::printable::printable;
use net::BoxFuture;
use net::clock::Clock;
use net::dns::Dns;
use net::smtp::server::{Incoming, KeepError, Mailbox};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::dmarc::DmarcQuota;
use store::reports::{Arrival, KeepOutcome, NewQuarantined, Trust};
use store::{Store, StoreError};

/// Imports reports into the store.
#[derive(Clone)]
pub struct Inbox {
    /// Stores reports and quarantined input.
    pub store: Store,
    /// Looks up DKIM keys.
    pub dns: Arc<dyn Dns>,
    /// The current time, recorded as the time of receipt.
    pub clock: Arc<dyn Clock>,
    /// Addresses for which mail is accepted, in lower case.
    pub addresses: Vec<String>,
    /// The host name of the mail server; `postmaster` at it is accepted, as at the domains of `addresses`.
    pub name: Option<DomainName>,
    /// How the input arrives; stored with each report.
    pub arrival: Arrival,
    /// Where the input is decompressed and parsed.
    pub pool: Arc<ExtractionPool>,
    /// The client that sends the input, which gets a share of the pool; `None` if it is trusted or unknown.
    pub client: Option<IpAddr>,
    /// How long an import or a mailbox waits for memory, [`INBOX_WAIT_TIME`] if not changed.
    pub patience: Duration,
    /// The network of the client that the input comes from; empty if there is no client. What no signature vouches for from
    /// no client shares one part of the quotas: the sender that it names may be forged.
    pub source: String,
    /// The limits for quarantined input and stored reports.
    pub retention: Retention,
    /// Whether DMARC reports are imported too. Otherwise they are other mail.
    pub dmarc: bool,
    /// Counts what arrives, for the metrics.
    pub counts: Arc<InboxCounts>,
}

/// The result of importing a message or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxOutcome {
    /// The TLS reports in the message or file, duplicates included.
    pub reports: Vec<ImportedReport>,
    /// The result for each DMARC report in the message or file.
    pub dmarc: Vec<KeepOutcome>,
    /// Why something in it could not be read; the input is in quarantine then. `None` if everything was read.
    pub quarantined: Option<String>,
}

/// A TLS report that was stored, or recognized as a duplicate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedReport {
    /// The domain that submitted the report.
    pub submitter: String,
    /// How far the report is trusted, by its signature.
    pub trust: Trust,
    /// Whether the report is new or a duplicate.
    pub kept: KeepOutcome,
}

/// Why input was neither stored nor quarantined. The sender should try again later.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The memory for decompressed reports is in use.
    #[error("{0}")]
    Busy(#[from] Busy),
}

/// Bytes of reports in memory, and of input for the quarantine, that are stored without a thread of their own: what takes
/// less than a millisecond of a processor.
const STORED_INLINE: usize = 131_072;

impl Inbox {
    /// An inbox for no addresses, whose input is read in the [`ExtractionPool`] of the process.
    pub fn new(store: Store, dns: Arc<dyn Dns>, clock: Arc<dyn Clock>, arrival: Arrival) -> Self {
        let (pool, counts) = (ExtractionPool::shared(), InboxCounts::shared());
        Self {
            store,
            dns,
            clock,
            addresses: Vec::new(),
            name: None,
            arrival,
            pool,
            client: None,
            patience: INBOX_WAIT_TIME,
            source: String::new(),
            retention: Retention::default(),
            dmarc: false,
            counts,
        }
    }

    /// The same inbox for the input of one client, which has its own share of the pool, and whose network has its own share
    /// of the quotas.
    #[must_use]
    pub fn for_client(&self, client: Option<IpAddr>) -> Self {
        Self { client, source: client.map(retention::network).unwrap_or_default(), ..self.clone() }
    }

    /// Puts input into the quarantine, within its quota. `is_trusted` records that the operator vouched for it.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn quarantine(&self, raw: &[u8], reason: &str, is_trusted: bool) -> Result<(), StoreError> {
        let received_at = self.clock.now();
        let (arrival, source) = (self.arrival, self.source.as_str());
        let new = NewQuarantined { received_at, arrival, source, is_trusted, reason, raw };
        let outcome = self.store.quarantine(&new, &self.retention.quarantine).await?;
        if !outcome.is_kept {
            tracing::warn!(
                source,
                bytes = raw.len(),
                "unreadable input exceeds the quota of the quarantine and is lost"
            );
        }
        Ok(())
    }

    /// Imports a message. `is_returned` is true when the envelope names no sender. On success, the result is durable.
    pub fn accept_message(
        &self,
        message: Vec<u8>,
        is_returned: bool,
    ) -> BoxFuture<'_, Result<InboxOutcome, InboxError>> {
        Box::pin(async move {
            let message = Arc::new(message);
            let reading = self.read_mail(message.clone(), is_returned, self.arrival).await?;
            if is_returned && !reading.problems.is_empty() {
                let message = Arc::new(with_return_path(&message));
                return Ok(self.keep_reading(reading, message).await?);
            }
            Ok(self.keep_reading(reading, message).await?)
        })
    }

    /// Imports a file. Its name may identify the submitter (RFC 8460 §5.1). On success, the result is durable.
    pub fn accept_file<'a>(
        &'a self,
        bytes: Vec<u8>,
        name: &'a str,
    ) -> BoxFuture<'a, Result<InboxOutcome, InboxError>> {
        Box::pin(async move {
            let bytes = Arc::new(bytes);
            let reading = self.read_file(bytes.clone(), name, self.arrival).await?;
            Ok(self.keep_reading(reading, bytes).await?)
        })
    }

    /// Imports a report that was posted to the address of `domain`, or to the address of all domains. The domain states
    /// what the report is about, as `TLS-Report-Domain` does in a mail. On success, the result is durable.
    pub fn accept_posted(
        &self,
        bytes: Vec<u8>,
        domain: Option<DomainName>,
    ) -> BoxFuture<'_, Result<InboxOutcome, InboxError>> {
        Box::pin(async move {
            let bytes = Arc::new(bytes);
            let mut reading = self.read_file(bytes.clone(), "", self.arrival).await?;
            if let Some(domain) = &domain {
                posted::file_under(&mut reading, domain);
            }
            Ok(self.keep_posted(reading, bytes, domain).await?)
        })
    }

    /// Stores the reports, and quarantines the input if something in it could not be read.
    async fn keep_reading(&self, reading: Reading, raw: Arc<Vec<u8>>) -> Result<InboxOutcome, StoreError> {
        self.keep_posted(reading, raw, None).await
    }

    /// As [`Self::keep_reading`], for input that was posted to the address of a domain. Large input is stored on a
    /// thread of its own.
    async fn keep_posted(
        &self,
        reading: Reading,
        raw: Arc<Vec<u8>>,
        domain: Option<DomainName>,
    ) -> Result<InboxOutcome, StoreError> {
        let is_quarantined = !reading.problems.is_empty();
        if reading.memory() <= STORED_INLINE && !(is_quarantined && raw.len() > STORED_INLINE) {
            return self.keep_now(reading, &raw, domain.as_ref()).await;
        }
        let inbox = self.clone();
        let work = async move { inbox.keep_now(reading, &raw, domain.as_ref()).await };
        self.pool.store(work).await
    }

    async fn keep_now(
        &self,
        reading: Reading,
        raw: &[u8],
        domain: Option<&DomainName>,
    ) -> Result<InboxOutcome, StoreError> {
        let kept = keep_reports(&self.store, &reading.reports, Some(&self.retention.unverified)).await?;
        let dmarc = keep_dmarc_reports(&self.store, &reading.dmarc, DmarcQuota::default()).await?;
        let reason = (!reading.problems.is_empty()).then(|| posted::reason(reading.reason(), domain));
        if let Some(reason) = &reason {
            self.quarantine(raw, reason, false).await?;
        }
        let imported = reading.reports.into_iter().zip(kept);
        let imported =
            imported.map(|(new, kept)| ImportedReport { submitter: new.submitter, trust: new.trust, kept });
        let outcome = InboxOutcome { reports: imported.collect(), dmarc, quarantined: reason };
        self.counts.count(self.arrival, &outcome);
        Ok(outcome)
    }

    /// True for mail that is addressed to `postmaster` alone.
    pub fn is_for_postmaster(&self, recipients: &[String]) -> bool {
        !recipients.is_empty() && recipients.iter().all(|to| self.is_postmaster(&to.to_ascii_lowercase()))
    }

    /// True for `postmaster`, without a domain or at a domain that mail is accepted for (RFC 5321 §4.5.1).
    fn is_postmaster(&self, recipient: &str) -> bool {
        let (user, domain) = recipient.split_once('@').unwrap_or((recipient, ""));
        let mut domains = self.addresses.iter().filter_map(|address| Some(address.rsplit_once('@')?.1));
        let is_ours = domain.is_empty()
            || domains.any(|ours| ours == domain)
            || self.name.as_ref().is_some_and(|name| name.as_str() == domain);
        user == "postmaster" && is_ours
    }
}

/// The message with the header of final delivery (RFC 5321 §4.4). It keeps for the quarantine that the envelope named no
/// sender, so that a retry does not take a returned report of our own for one about us.
fn with_return_path(message: &[u8]) -> Vec<u8> {
    let header = b"Return-Path: <>\r\n".as_slice();
    match message.starts_with(header) {
        true => message.to_vec(),
        false => [header, message].concat(),
    }
}

/// Characters of a sender or subject in the log.
const LOGGED_CHARACTERS: usize = 200;

/// Writes to the log what a message to `postmaster` was. Nobody reads mail here, so it is not stored.
fn log_for_postmaster(incoming: &Incoming) {
    let head = mime::Head::of(&incoming.message);
    let subject = head.subject().unwrap_or_default();
    tracing::warn!(
        from = printable(&incoming.from, LOGGED_CHARACTERS),
        subject = printable(subject, LOGGED_CHARACTERS),
        bytes = incoming.message.len(),
        "a message to postmaster was accepted, but is not stored"
    );
}

impl Mailbox for Inbox {
    fn takes(&self, recipient: &str) -> bool {
        let recipient = recipient.to_ascii_lowercase();
        self.addresses.contains(&recipient) || self.is_postmaster(&recipient)
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        Box::pin(async move {
            if self.is_for_postmaster(&incoming.to) {
                log_for_postmaster(&incoming);
                return Ok(());
            }
            match self.accept_message(incoming.message, incoming.from.is_empty()).await {
                Ok(outcome) => {
                    tracing::info!(?outcome, "report mail imported");
                    Ok(())
                }
                Err(InboxError::Busy(busy)) => {
                    tracing::warn!("a report mail is refused for now: {busy}");
                    Err(KeepError::Temporary("too many reports are being read, try again later".into()))
                }
                // The details go to the log, not to the client.
                Err(InboxError::Store(error)) => {
                    tracing::error!(%error, "a report mail can't be stored");
                    Err(KeepError::Temporary("the report can't be stored now".into()))
                }
            }
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
