//! Takes report mail in (RFC 8460 §3, §5): finds the report in the message, checks who signed it,
//! and keeps it. What can't be read is kept whole in quarantine with the reason. A message is
//! acknowledged only when that is durable.

mod extract;
mod signature;

pub use extract::{Extracted, NoReport, extract};
pub use signature::{SignatureState, Signatures, check_signature};

use formats::DomainName;
use net::BoxFuture;
use net::clock::Clock;
use net::dns::Dns;
use net::smtp::server::{Incoming, KeepError, Mailbox};
use std::sync::Arc;
use store::reports::{Kept, NewReport, Trust};
use store::{Store, StoreError};

/// The mailbox of one or more report addresses.
pub struct Inbox {
    /// Where reports are kept.
    pub store: Store,
    /// Finds DKIM keys.
    pub dns: Arc<dyn Dns>,
    /// When they came.
    pub clock: Arc<dyn Clock>,
    /// The addresses that it takes mail for, in lower case.
    pub addresses: Vec<String>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// A report was kept.
    Report {
        /// Whose.
        submitter: DomainName,
        /// How far it is to be believed.
        trust: Trust,
        /// Whether it is new.
        kept: Kept,
    },
    /// It went to quarantine.
    Quarantined(NoReport),
}

impl Inbox {
    /// Takes one message in. When this returns without error, it is durable.
    pub async fn take(&self, message: &[u8]) -> Result<Taken, StoreError> {
        let now = self.clock.now();
        let extracted = match extract(message) {
            Ok(extracted) => extracted,
            Err(why) => {
                self.store.quarantine(now, &why.to_string(), message).await?;
                return Ok(Taken::Quarantined(why));
            }
        };
        let state = check_signature(self.dns.as_ref(), message, &extracted.submitter).await;
        let trust = match state {
            SignatureState::Verified { .. } => Trust::Verified,
            SignatureState::Missing | SignatureState::Unknown => Trust::Unverified,
            SignatureState::Failed => Trust::Failed,
        };
        let report = NewReport {
            submitter: extracted.submitter.as_str(),
            trust,
            received_at: now,
            report: &extracted.read.report,
            raw: message,
        };
        let kept = self.store.keep_report(report).await?;
        Ok(Taken::Report { submitter: extracted.submitter, trust, kept })
    }
}

impl Mailbox for Inbox {
    fn takes(&self, recipient: &str) -> bool {
        self.addresses.contains(&recipient.to_ascii_lowercase())
    }

    fn keep(&self, incoming: Incoming) -> BoxFuture<'_, Result<(), KeepError>> {
        Box::pin(async move {
            match self.take(&incoming.message).await {
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
