//! Takes reports to where the domain wants them (RFC 8460 §3, §5.3).

use super::build::Reporter;
use super::compose::{ComposeError, DkimKey, compose};
use crate::walk::{Outcome, Purpose, Walker};
use formats::DomainName;
use formats::report::Report;
use formats::tlsrpt_record::{Rua, SelectError, TlsrptRecord};
use jiff::Timestamp;
use net::dns::{Dns, DnsError, Kind};
use net::smtp::Mail;
use std::sync::Arc;

/// Looks up report targets and sends to them by mail.
pub struct Courier {
    /// Finds `_smtp._tls` records.
    pub dns: Arc<dyn Dns>,
    /// Delivers, whatever the receiver's TLS does (RPT-17).
    pub walker: Arc<Walker>,
    /// In whose name.
    pub reporter: Reporter,
    /// Signs.
    pub key: DkimKey,
}

/// What became of one report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// The domain asks for no reports.
    Unwanted,
    /// It went, or not, to each target of the record, in its order.
    Tried(Vec<(Rua, TargetOutcome)>),
}

/// What became of it at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetOutcome {
    /// The target took it.
    Accepted,
    /// Another target took it before: one is enough (RPT-20).
    NotNeeded,
    /// It did not; the reason.
    Failed(String),
    /// Reports do not go there: HTTPS is not spoken by this courier.
    Skipped,
}

/// Why a report did not even get on its way.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The record can't be looked up now.
    #[error("the record _smtp._tls.{0}: {1}")]
    Dns(DomainName, DnsError),
    /// The mail can't be made.
    #[error(transparent)]
    Compose(#[from] ComposeError),
}

impl Courier {
    /// Sends a report about `domain` to the first mail target of its record that takes it.
    pub async fn send(
        &self,
        domain: &DomainName,
        report: &Report,
        now: Timestamp,
    ) -> Result<Errand, SendError> {
        let Some(record) = self.record(domain).await? else { return Ok(Errand::Unwanted) };
        let mut tried = Vec::new();
        let mut accepted = false;
        for rua in record.rua {
            let outcome = match &rua {
                _ if accepted => TargetOutcome::NotNeeded,
                Rua::Https(_) => TargetOutcome::Skipped,
                Rua::Mailto(to) => {
                    let mail = compose(domain, report, &self.reporter, to, &self.key, now)?;
                    let envelope = Mail {
                        from: self.reporter.contact.to_string(),
                        to: vec![to.to_string()],
                        message: mail.message,
                    };
                    let walk = self.walker.deliver(to.domain(), &envelope, Purpose::Report).await;
                    match walk.outcome {
                        Outcome::Delivered { .. } => TargetOutcome::Accepted,
                        Outcome::Deferred(why) | Outcome::Refused(why) => TargetOutcome::Failed(why),
                    }
                }
            };
            accepted |= outcome == TargetOutcome::Accepted;
            tried.push((rua, outcome));
        }
        Ok(Errand::Tried(tried))
    }

    /// The domain's record; `None` when it has none, several, or a malformed one (RPT-01).
    async fn record(&self, domain: &DomainName) -> Result<Option<TlsrptRecord>, SendError> {
        let Ok(name) = domain.below("_smtp._tls") else { return Ok(None) };
        match self.dns.lookup(&name, Kind::Txt).await {
            Ok(answer) => match TlsrptRecord::select(answer.texts()) {
                Ok(record) => Ok(Some(record)),
                Err(SelectError::None | SelectError::Multiple(_) | SelectError::Invalid(_)) => Ok(None),
            },
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(SendError::Dns(domain.clone(), error)),
        }
    }
}
