//! Carries a plan out. Each step is proved by looking from outside before the next one is taken;
//! where it stopped, a new look and a new plan go on.

use super::look::look;
use super::plan::{Planned, Seen, Step};
use crate::publish::{DnsPublisher, PublishError, check_value};
use formats::{DomainName, Mode, Policy, PolicyId, StsRecord};
use jiff::Timestamp;
use net::BoxFuture;
use net::clock::Clock;
use net::dns::{Dns, DnsError};
use net::https::PolicyHosts;
use std::sync::Arc;
use store::{Store, StoreError};

/// Puts policy files where senders fetch them.
pub trait Hosting: Send + Sync {
    /// Serves `policy` at `mta-sts.DOMAIN` from now on.
    fn put<'a>(&'a self, domain: &'a DomainName, policy: &'a Policy) -> BoxFuture<'a, Result<(), String>>;
}

/// Carries plans out.
pub struct Applier {
    /// Looks from outside.
    pub dns: Arc<dyn Dns>,
    /// Fetches from outside.
    pub policies: Arc<dyn PolicyHosts>,
    /// Where records are put.
    pub publisher: Arc<dyn DnsPublisher>,
    /// Where files are put.
    pub hosting: Arc<dyn Hosting>,
    /// Where the standing and the journal are kept.
    pub store: Store,
    /// When.
    pub clock: Arc<dyn Clock>,
}

/// Where a domain stands, as it is kept between runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Standing {
    /// The mode that was last seen from outside.
    pub mode: Mode,
    /// Since when.
    pub since: Timestamp,
    /// The longest `max_age` that was ever served, in seconds: retiring has to wait for it (PUB-03).
    pub longest_max_age: u32,
}

/// A step that was carried out and seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The step.
    pub step: Step,
    /// What proves it.
    pub proof: String,
}

/// Why a plan stopped.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A record can't be put.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A file can't be put.
    #[error("the policy file of {0} can't be put up: {1}")]
    Hosting(DomainName, String),
    /// What was put is not seen from outside.
    #[error("{step} was done, and is not seen from outside: {seen}")]
    NotSeen {
        /// The step.
        step: String,
        /// What is seen instead.
        seen: String,
    },
    /// Looking failed.
    #[error("looking from outside: {0}")]
    Dns(#[from] DnsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Applier {
    /// What is seen of a domain now.
    pub async fn look(&self, domain: &DomainName) -> Result<Seen, ApplyError> {
        Ok(look(self.dns.as_ref(), self.policies.as_ref(), domain).await?)
    }

    /// Carries the steps out in their order and records each.
    pub async fn apply(&self, domain: &DomainName, steps: Vec<Planned>) -> Result<Vec<Applied>, ApplyError> {
        let mut applied = Vec::new();
        for planned in steps {
            self.carry_out(domain, &planned.step).await?;
            let seen = self.look(domain).await?;
            let proof = proof(&planned.step, &seen)?;
            self.record(domain, &planned.step, &seen).await?;
            applied.push(Applied { step: planned.step, proof });
        }
        Ok(applied)
    }

    async fn carry_out(&self, domain: &DomainName, step: &Step) -> Result<(), ApplyError> {
        match step {
            Step::Serve(policy) => {
                let put = self.hosting.put(domain, policy).await;
                put.map_err(|why| ApplyError::Hosting(domain.clone(), why))
            }
            Step::AskForReports(record) => self.put_txt(domain, "_smtp._tls", &record.to_string()).await,
            Step::Announce(id) => self.put_txt(domain, "_mta-sts", &announcement(id)).await,
        }
    }

    async fn put_txt(&self, domain: &DomainName, label: &str, value: &str) -> Result<(), ApplyError> {
        let name = domain
            .below(label)
            .map_err(|error| PublishError { name: domain.clone(), why: error.to_string() })?;
        check_value(&name, value)?;
        Ok(self.publisher.put_txt(&name, value).await?)
    }

    async fn record(&self, domain: &DomainName, step: &Step, seen: &Seen) -> Result<(), ApplyError> {
        let now = self.clock.now();
        self.store.journal(domain, now, "planner", &step.to_string()).await?;
        let (Step::Announce(_), Some(served)) = (step, &seen.served) else { return Ok(()) };
        let before: Option<Standing> = self.store.rollout(domain).await?;
        let since = match &before {
            Some(standing) if standing.mode == served.mode => standing.since,
            _ => now,
        };
        let longest = before.map_or(0, |standing| standing.longest_max_age);
        let standing = Standing { mode: served.mode, since, longest_max_age: longest.max(served.max_age) };
        Ok(self.store.put_rollout(domain, &standing).await?)
    }
}

fn announcement(id: &PolicyId) -> String {
    StsRecord::new(id.clone()).to_string()
}

fn proof(step: &Step, seen: &Seen) -> Result<String, ApplyError> {
    let (holds, shown) = match step {
        Step::Serve(policy) => {
            let holds = seen.served.as_ref().is_some_and(|served| served.to_string() == policy.to_string());
            let shown = seen.served.as_ref().map_or("no valid policy is fetched".to_owned(), |served| {
                format!("a sender fetches mode {} with max_age {}", served.mode, served.max_age)
            });
            (holds, shown)
        }
        Step::AskForReports(record) => {
            (seen.rua == record.rua, format!("a sender finds {} report targets", seen.rua.len()))
        }
        Step::Announce(id) => {
            let shown = seen.record.as_ref().map_or("no id".to_owned(), |seen| format!("id {seen}"));
            (seen.record.as_ref() == Some(id), format!("a sender finds {shown}"))
        }
    };
    if holds { Ok(shown) } else { Err(ApplyError::NotSeen { step: step.to_string(), seen: shown }) }
}
