//! The challenges that are answered in DNS: dns-01 (RFC 8555 §8.4), and dns-persist-01, whose record stays. They need
//! no open port and no name that points here, so a policy host can have its certificate before its name moves here.
//!
//! The record's name may be a CNAME to a zone of ours, which the owner of a delegated domain publishes once. A record of
//! dns-01 is stored before it is published, so that it is removed afterwards even if the program is killed.

use super::error::OrderError;
use super::{ChallengeType, Orders};
use crate::publish::{Change, Records};
use formats::DomainName;
use formats::limits::ALIASES;
use jiff::SignedDuration;
use net::BoxFuture;
use net::dns::{Data, DnsError, Kind, PerServerLookup, ServerAnswer};
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use store::certificate_orders::ChallengeRecord;
use tokio::time::Instant;

/// The settings of domains and the zones of their challenge records.
pub trait ChallengeZones: Send + Sync {
    /// The challenge type that a domain's settings require; `None` leaves the choice to the settings of the CA.
    fn choice<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, Result<Option<ChallengeType>, String>>;

    /// Changes a challenge record of a domain. Returns how long the zone's name servers may take to show it. The error says
    /// what the operator has to do.
    fn change<'a>(
        &'a self,
        domain: &'a DomainName,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<Duration, String>>;
}

/// The means to publish challenge records and to verify that name servers show them.
#[derive(Clone)]
pub struct DnsChallenges {
    /// Publishes and removes the records in the domains' zones.
    pub zones: Arc<dyn ChallengeZones>,
    /// Queries the zones' name servers for the records.
    pub servers: Arc<dyn PerServerLookup>,
}

/// The interval between two queries of the name servers.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The maximum number of records that one round removes.
const REMOVAL_BATCH: u32 = 100;
/// The age at which a record belongs to an order that was interrupted.
const ABANDONED: SignedDuration = SignedDuration::from_mins(20);

impl ChallengeType {
    /// The label below the host's name that has the record of this challenge; `None` for challenges that are not answered
    /// in DNS.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::Dns01 => Some("_acme-challenge"),
            Self::DnsPersist01 => Some("_validation-persist"),
            Self::Http01 | Self::TlsAlpn01 => None,
        }
    }
}

/// The text of a record for dns-persist-01 (draft-ietf-acme-dns-persist): the CA's issuer domain name, and our account.
pub(super) fn persistent_value(issuer: &str, account: &str) -> String {
    format!("{issuer}; accounturi={account}")
}

impl Orders {
    fn in_dns(&self) -> Result<&DnsChallenges, OrderError> {
        self.dns_challenges
            .as_ref()
            .ok_or_else(|| OrderError::Record("challenges in DNS are not set up for this program".to_owned()))
    }

    /// Publishes the record of a dns-01 challenge, and waits until the name servers show it. The record is returned also
    /// when that fails, so that the caller removes it.
    pub(super) async fn publish_challenge(
        &self,
        domain: &DomainName,
        host: &DomainName,
        value: String,
        published: &mut Vec<ChallengeRecord>,
    ) -> Result<(), OrderError> {
        let name = self.record_name(host, ChallengeType::Dns01).await?;
        let created_at = self.clock.now();
        let record = ChallengeRecord { domain: domain.clone(), name, value, created_at };
        self.store.put_challenge_record(&record).await?;
        published.push(record.clone());
        let patience = self.change(domain, &record.name, &record.value, true).await?;
        self.await_shown(&record.name, &record.value, patience).await
    }

    /// Makes sure that the lasting record of dns-persist-01 is shown by the name servers.
    pub(super) async fn ensure_persistent(
        &self,
        domain: &DomainName,
        host: &DomainName,
        value: &str,
    ) -> Result<(), OrderError> {
        let name = self.record_name(host, ChallengeType::DnsPersist01).await?;
        if self.missing(&name, value).await?.is_empty() {
            return Ok(());
        }
        let patience = self.change(domain, &name, value, true).await.map_err(|error| {
            OrderError::NotHere(format!("{error}; the record is\n  {name}. IN TXT \"{value}\""))
        })?;
        self.await_shown(&name, value, patience).await
    }

    /// Removes a record whose order is over. On failure it stays in the store, and is removed later.
    pub(super) async fn remove_challenge(&self, record: &ChallengeRecord) -> Result<(), StoreError> {
        match self.change(&record.domain, &record.name, &record.value, false).await {
            Ok(_) => self.store.end_challenge_record(record).await,
            Err(error) => {
                tracing::warn!(name = %record.name, "the record of a challenge can't be removed yet: {error}");
                Ok(())
            }
        }
    }

    /// Removes the records of orders that were interrupted, and returns how many were found.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn remove_abandoned<'a>(&'a self) -> BoxFuture<'a, Result<usize, StoreError>> {
        Box::pin(async move {
            let before = self.clock.now().saturating_sub(ABANDONED).unwrap_or(jiff::Timestamp::MIN);
            let abandoned = self.store.challenge_records(before, REMOVAL_BATCH).await?;
            for record in &abandoned {
                self.remove_challenge(record).await?;
            }
            Ok(abandoned.len())
        })
    }

    async fn change(
        &self,
        domain: &DomainName,
        name: &DomainName,
        value: &str,
        is_published: bool,
    ) -> Result<Duration, OrderError> {
        let records = Records::TxtValue { value: value.to_owned(), is_published };
        let change = Change { name: name.clone(), records };
        self.in_dns()?.zones.change(domain, &change).await.map_err(OrderError::Record)
    }

    /// The name at which the record is published: below the host, or where the CNAMEs there lead to.
    async fn record_name(
        &self,
        host: &DomainName,
        challenge_type: ChallengeType,
    ) -> Result<DomainName, OrderError> {
        let label = challenge_type.label().unwrap_or_default();
        let mut name = host.below(label).map_err(|error| OrderError::NotHere(error.to_string()))?;
        for _ in 0..ALIASES {
            let answer = match self.dns.lookup(&name, Kind::Cname).await {
                Ok(answer) => answer,
                Err(error) if error.is_absence() => return Ok(name),
                Err(error) => return Err(OrderError::NotHere(format!("CNAME {name}: {error}"))),
            };
            let target = answer.records.into_iter().find_map(|data| match data {
                Data::Cname(target) => Some(target),
                _ => None,
            });
            match target {
                Some(target) => name = target,
                None => return Ok(name),
            }
        }
        Err(OrderError::NotHere(format!("more than {ALIASES} CNAMEs lead on from {label}.{host}")))
    }

    /// Waits until every name server of the zone shows the record. A CA asks any of them.
    async fn await_shown(
        &self,
        name: &DomainName,
        value: &str,
        patience: Duration,
    ) -> Result<(), OrderError> {
        let started = Instant::now();
        loop {
            let missing = self.missing(name, value).await;
            match &missing {
                Ok(missing) if missing.is_empty() => return Ok(()),
                _ if started.elapsed() < patience => tokio::time::sleep(LOOK_INTERVAL).await,
                Ok(missing) => {
                    let servers: Vec<String> = missing.iter().map(describe).collect();
                    let seconds = patience.as_secs();
                    return Err(OrderError::Record(format!(
                        "after {seconds} seconds, not every name server shows the record {name}: {}",
                        servers.join(", ")
                    )));
                }
                Err(_) => return missing.map(drop),
            }
        }
    }

    /// The answers of the name servers that do not show the record.
    async fn missing(&self, name: &DomainName, value: &str) -> Result<Vec<ServerAnswer>, OrderError> {
        let servers = &self.in_dns()?.servers;
        let answers = servers.each(name, Kind::Txt).await;
        let mut answers = answers.map_err(|error| OrderError::Record(format!("TXT {name}: {error}")))?;
        let shows = |answer: &ServerAnswer| {
            answer.answer.as_ref().is_ok_and(|said| said.texts().any(|text| text == value.as_bytes()))
        };
        answers.retain(|answer| !shows(answer));
        Ok(answers)
    }
}

fn describe(answer: &ServerAnswer) -> String {
    let said = match &answer.answer {
        Ok(_) => "has other records".to_owned(),
        Err(DnsError::Timeout) => "does not answer".to_owned(),
        Err(error) => error.to_string(),
    };
    format!("{} ({said})", answer.server)
}
