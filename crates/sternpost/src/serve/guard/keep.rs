//! What the process that keeps the alerts does: it updates them by the checks of all processes.

use super::lead::Leading;
use super::own_alerts::check_failed;
use super::reach::raised_after;
use super::{FAILED_CHECKS, GuardRole, POLL_INTERVAL, StoredVerdict};
use formats::DomainName;
use jiff::Timestamp;
use receiver::rollout::guard::AlertKind;
use store::guard_schedule::{CheckClaim, CheckRow};
use store::{Store, StoreError};
use tokio::time::Instant;

/// Verdicts of other processes that are read at once.
const VERDICTS: u32 = 500;

impl GuardRole {
    /// Settles what other processes have found, if this one keeps the alerts.
    pub(super) async fn keep_alerts(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let store = match self.lead.look() {
            Leading::No => return Ok(()),
            Leading::Still(store) => store,
            Leading::New(store) => {
                self.book.write_to(store.clone());
                // Without the active alerts, each would be announced again, and none that is over would end.
                let begun = match self.book.load().await {
                    Ok(()) => self.watch(&store, now).await,
                    failed => failed,
                };
                if let Err(error) = begun {
                    self.lead.forget();
                    return Err(error);
                }
                store
            }
        };
        if self.next_verdicts <= Instant::now() {
            self.next_verdicts = Instant::now() + POLL_INTERVAL;
            self.settle_others(&store).await?;
        }
        Ok(())
    }

    /// Sets which domains all processes check.
    pub(super) async fn watch(&self, store: &Store, now: Timestamp) -> Result<(), StoreError> {
        let names = self.watched.keys().map(String::as_str).collect();
        store.watch_domains(&names, now, self.every()).await
    }

    /// Updates the alerts by the checks of other processes.
    pub(super) async fn settle_others(&mut self, store: &Store) -> Result<(), StoreError> {
        loop {
            let waiting = store.waiting_verdicts(VERDICTS).await?;
            for one in &waiting {
                let domain = DomainName::from_ascii(&one.claim.domain);
                let found = serde_json::from_str::<StoredVerdict>(&one.verdict);
                match (domain, found) {
                    (Ok(domain), Ok(found)) if self.watched.contains_key(domain.as_str()) => {
                        store.check_lease()?;
                        self.update_alerts(&domain, found, one.row).await;
                    }
                    (_, Err(error)) => {
                        tracing::error!(
                            domain = one.claim.domain,
                            "the verdict of another process can't be read: {error}"
                        );
                    }
                    _ => {}
                }
            }
            let claims: Vec<CheckClaim> = waiting.into_iter().map(|one| one.claim).collect();
            if claims.is_empty() {
                return Ok(());
            }
            // If the lease was lost on the way, this fails, and its next holder reads the verdicts.
            store.end_verdicts(&claims).await?;
        }
    }

    /// Updates the alerts of a domain after a check.
    pub(super) async fn update_alerts(&mut self, domain: &DomainName, found: StoredVerdict, row: CheckRow) {
        let alerts = match found {
            StoredVerdict::Alerts(alerts) => alerts,
            // A failed check neither ends alerts nor raises others: the last verdict stays. After several in a row, an
            // alert says that it is an old one.
            StoredVerdict::Failed(why) if row.failed >= FAILED_CHECKS => {
                return self.book.add(domain, check_failed(domain, &why)).await;
            }
            StoredVerdict::Failed(_) => return,
        };
        let is_active = self.book.has(domain.as_str(), AlertKind::MxUnreached);
        let is_raised = is_active || row.unreached >= FAILED_CHECKS;
        // If the store fails, the alert has its own cause.
        let reaches_any = row.unreached == 0 || self.context.store.reaches_mx().await.unwrap_or(true);
        self.book.update(domain, raised_after(alerts, is_raised, reaches_any)).await;
    }
}
