//! When the guard checks each domain, for all processes with this store. A process claims the domains that are due; after a
//! check it stores the verdict, and how many checks in a row have failed. One process at a time keeps the alerts: it reads
//! the verdicts of the others here.

use crate::query::{FromRow, Row, built, insert, sql};
use crate::writing::{Tries, Writing};
use crate::{Store, StoreError, damaged, time};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// Rows in one statement.
const BATCH_ROWS: usize = 500;
/// More than the seconds for which a check is claimed at once.
const CLAIM_SECONDS: i64 = 600;

/// A domain whose check one process has claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckClaim {
    /// The name of the domain.
    pub domain: String,
    pub(crate) number: i64,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The check has no verdict.
    Failed,
    /// The check has a verdict.
    Complete {
        /// Whether the domain has MX hosts, and the check reached none.
        is_unreached: bool,
        /// Whether the check reached an MX host.
        has_reached: bool,
    },
}

/// The end of a check.
#[derive(Debug, Clone, Copy)]
pub struct FinishedCheck<'a> {
    /// How the check ended.
    pub outcome: CheckOutcome,
    /// Whether the check took long, so that the next one has a slot for slow domains.
    pub is_slow: bool,
    /// When the next check is due.
    pub due: Timestamp,
    /// The verdict as JSON, for the process that keeps the alerts. `None` if that is the one that checked.
    pub verdict: Option<&'a str>,
}

/// The last checks of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckRow {
    /// Checks in a row that failed.
    pub failed: u32,
    /// Complete checks in a row that reached no MX host.
    pub unreached: u32,
}

/// A verdict that the process that keeps the alerts has not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingVerdict {
    /// The check that found it.
    pub claim: CheckClaim,
    /// The last checks of the domain, with this one.
    pub row: CheckRow,
    /// The verdict as JSON.
    pub verdict: String,
}

impl FromRow for CheckRow {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        let mut next = || Ok::<_, StoreError>(u32::try_from(row.get::<i64>()?).unwrap_or(u32::MAX));
        Ok(Self { failed: next()?, unreached: next()? })
    }
}

impl Store {
    /// Sets which domains are checked. The first checks of new ones are spread evenly over `every`, and so are those of all
    /// domains if none has been due within `every`, as after a stop of all processes. A domain that is due later than any check
    /// can make it was scheduled by a clock that was ahead, and is scheduled again.
    pub async fn watch_domains(
        &self,
        domains: &BTreeSet<&str>,
        now: Timestamp,
        every: SignedDuration,
    ) -> Result<(), StoreError> {
        let rows: Vec<(String, i64)> = sql("SELECT domain, due FROM guard_domain WHERE tenant = $1")
            .bind(self.tenant)
            .fetch_all(self)
            .await?;
        let last = rows.iter().map(|(_, due)| *due).max().unwrap_or(i64::MIN);
        let is_new_start = last < now.as_second().saturating_sub(every.as_secs());
        let latest =
            now.as_second().saturating_add(every.as_secs().saturating_mul(2)).saturating_add(CLAIM_SECONDS);
        let known: BTreeSet<&str> = rows.iter().map(|(domain, _)| domain.as_str()).collect();
        let timely = rows.iter().filter(|(_, due)| !is_new_start && *due <= latest);
        let timely: BTreeSet<&str> = timely.map(|(domain, _)| domain.as_str()).collect();
        let new: Vec<&str> = domains.difference(&timely).copied().collect();
        let count = i64::try_from(new.len()).unwrap_or(i64::MAX).max(1);
        let spread: Vec<(&str, i64)> = (0_i64..)
            .zip(new)
            .map(|(place, domain)| {
                (domain, now.as_second().saturating_add(every.as_secs().saturating_mul(place) / count))
            })
            .collect();
        for chunk in spread.chunks(BATCH_ROWS) {
            let head =
                "INSERT INTO guard_domain (tenant, domain, slow, due, claim, failed, unreached, reached)";
            let tail = "ON CONFLICT (tenant, domain) DO UPDATE SET due = excluded.due, claim = guard_domain.claim + 1";
            let rows = insert(head, chunk, tail, |(domain, due)| {
                let zero = || 0_i64.into();
                [self.tenant.into(), (*domain).into(), zero(), (*due).into(), zero(), zero(), zero(), zero()]
            });
            rows.kept(false).execute(self).await?;
        }
        for gone in known.difference(domains) {
            let query = sql("DELETE FROM guard_domain WHERE tenant = $1 AND domain = $2");
            query.bind(self.tenant).bind(*gone).execute(self).await?;
        }
        Ok(())
    }

    /// When the domain that waits longest for a check is or was due, of the slow ones or of the others.
    pub async fn oldest_check(&self, is_slow: bool) -> Result<Option<Timestamp>, StoreError> {
        let query = sql("SELECT min(due) FROM guard_domain WHERE tenant = $1 AND slow = $2");
        let (due,): (Option<i64>,) = query.bind(self.tenant).bind(is_slow).fetch_one(self).await?;
        due.map(|due| time("guard_domain", due)).transpose()
    }

    /// Claims the checks of up to `most` domains that are due at `now`, the longest due first, until `until`. Domains that this
    /// process does not know, as after a change of the settings of another one, are left to those that do.
    pub async fn claim_checks(
        &self,
        is_slow: bool,
        now: Timestamp,
        until: Timestamp,
        most: usize,
        is_known: &(impl Fn(&str) -> bool + Sync),
    ) -> Result<Vec<CheckClaim>, StoreError> {
        let mut tries = Tries::default();
        loop {
            let mut writing = self.writing().await?;
            let claimed = match choose(&mut writing, is_slow, now, most, is_known).await {
                Ok(domains) if domains.is_empty() => Ok(Vec::new()),
                Ok(domains) => claim(&mut writing, &domains, until).await,
                Err(error) => Err(error),
            };
            if tries.again(&claimed) {
                writing.rollback().await?;
                continue;
            }
            let claimed = claimed?;
            writing.commit().await?;
            return Ok(claimed);
        }
    }

    /// Sets the end of a claim: later to renew it, or to the time when the domain is due, to end it without a check. Changes
    /// nothing if another process has claimed the domain since.
    pub async fn hold_check(&self, claim: &CheckClaim, until: Timestamp) -> Result<(), StoreError> {
        let query = sql("UPDATE guard_domain SET due = $4 WHERE tenant = $1 AND domain = $2 AND claim = $3");
        let query = query.bind(self.tenant).bind(&claim.domain).bind(claim.number);
        query.bind(until.as_second()).execute(self).await.map(drop)
    }

    /// Stores the end of a check, which ends the claim. `None`, and nothing is changed, if another process has claimed the
    /// domain since.
    pub async fn finish_check(
        &self,
        claim: &CheckClaim,
        finished: &FinishedCheck<'_>,
    ) -> Result<Option<CheckRow>, StoreError> {
        let (failed, unreached, reached) = match finished.outcome {
            CheckOutcome::Failed => ("failed + 1", "unreached", "reached"),
            CheckOutcome::Complete { is_unreached, has_reached } => {
                ("0", if is_unreached { "unreached + 1" } else { "0" }, if has_reached { "1" } else { "0" })
            }
        };
        let text = format!(
            "UPDATE guard_domain SET claim = claim + 1, slow = $4, due = $5, verdict = $6, failed = {failed}, unreached = {unreached}, reached = {reached}
             WHERE tenant = $1 AND domain = $2 AND claim = $3 RETURNING failed, unreached"
        );
        let mut writing = self.writing().await?;
        let row = built(text)
            .bind(self.tenant)
            .bind(&claim.domain)
            .bind(claim.number)
            .bind(finished.is_slow)
            .bind(finished.due.as_second())
            .bind(finished.verdict)
            .fetch_optional(&mut writing)
            .await?;
        writing.commit().await?;
        Ok(row)
    }

    /// Returns up to `most` verdicts that the process that keeps the alerts has not read yet.
    pub async fn waiting_verdicts(&self, most: u32) -> Result<Vec<WaitingVerdict>, StoreError> {
        let query = sql("SELECT domain, claim, failed, unreached, verdict FROM guard_domain
             WHERE tenant = $1 AND verdict IS NOT NULL ORDER BY domain LIMIT $2");
        query.bind(self.tenant).bind(most).fetch_all(self).await
    }

    /// Ends verdicts that were read. One stays if the domain was claimed or checked since, and is read again: claims and ends of
    /// checks both change the number.
    pub async fn end_verdicts(&self, claims: &[CheckClaim]) -> Result<(), StoreError> {
        let mut writing = self.writing().await?;
        for claim in claims {
            sql("UPDATE guard_domain SET verdict = NULL WHERE tenant = $1 AND domain = $2 AND claim = $3")
                .bind(self.tenant)
                .bind(&claim.domain)
                .bind(claim.number)
                .execute(&mut writing)
                .await?;
        }
        writing.commit().await
    }

    /// Whether the last complete check of any domain reached an MX host.
    pub async fn reaches_mx(&self) -> Result<bool, StoreError> {
        let query = sql("SELECT 1 FROM guard_domain WHERE tenant = $1 AND reached = 1 LIMIT 1");
        let row: Option<(i64,)> = query.bind(self.tenant).fetch_optional(self).await?;
        Ok(row.is_some())
    }
}

/// The domains that are due, the longest due first, as many as are wanted of those that this process knows.
async fn choose(
    writing: &mut Writing,
    is_slow: bool,
    now: Timestamp,
    most: usize,
    is_known: &(impl Fn(&str) -> bool + Sync),
) -> Result<Vec<String>, StoreError> {
    // Another process that claims at the same time gets others.
    let lock = writing.dialect().pick("", " FOR UPDATE SKIP LOCKED");
    let text = format!(
        "SELECT domain, due FROM guard_domain WHERE tenant = $1 AND slow = $2 AND due <= $3
           AND (due > $4 OR (due = $4 AND domain > $5)) ORDER BY due, domain LIMIT $6{lock}"
    );
    let (mut chosen, mut after, mut page) = (Vec::new(), (String::new(), i64::MIN), most);
    loop {
        let select = built(text.clone()).bind(writing.tenant).bind(is_slow).bind(now.as_second());
        let select = select.bind(after.1).bind(after.0).bind(i64::try_from(page).unwrap_or(i64::MAX));
        let rows: Vec<(String, i64)> = select.fetch_all(&mut *writing).await?;
        let is_last = rows.len() < page;
        after = rows.last().cloned().unwrap_or_default();
        let left = most.saturating_sub(chosen.len());
        chosen
            .extend(rows.into_iter().map(|(domain, _)| domain).filter(|domain| is_known(domain)).take(left));
        if is_last || chosen.len() >= most {
            return Ok(chosen);
        }
        page = BATCH_ROWS;
    }
}

async fn claim(
    writing: &mut Writing,
    domains: &[String],
    until: Timestamp,
) -> Result<Vec<CheckClaim>, StoreError> {
    // A verdict of the earlier check stays for its reader.
    let chosen = writing.dialect().pick(
        "IN (SELECT value FROM json_each($3))",
        "= ANY (ARRAY(SELECT json_array_elements_text(CAST($3 AS json))))",
    );
    let text = format!(
        "UPDATE guard_domain SET due = $2, claim = claim + 1 WHERE tenant = $1 AND domain {chosen} RETURNING domain, claim"
    );
    let names = serde_json::to_string(domains).map_err(damaged("guard_domain"))?;
    let query = built(text).bind(writing.tenant).bind(until.as_second()).bind(names);
    let rows: Vec<(String, i64)> = query.fetch_all(writing).await?;
    Ok(rows.into_iter().map(|(domain, number)| CheckClaim { domain, number }).collect())
}

impl FromRow for WaitingVerdict {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        let claim = CheckClaim { domain: row.get()?, number: row.get()? };
        Ok(Self { claim, row: CheckRow::from_row(row)?, verdict: row.get()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const EVERY: SignedDuration = SignedDuration::from_secs(300);

    async fn names(store: &Store, now: i64, until: i64, most: usize) -> Vec<CheckClaim> {
        let mut claimed = store.claim_checks(false, at(now), at(until), most, &|_| true).await.unwrap();
        claimed.sort_by(|one, other| one.domain.cmp(&other.domain));
        claimed
    }

    fn complete(due: i64, verdict: Option<&str>) -> FinishedCheck<'_> {
        let outcome = CheckOutcome::Complete { is_unreached: false, has_reached: true };
        FinishedCheck { outcome, is_slow: false, due: at(due), verdict }
    }

    #[tokio::test]
    async fn domains_are_spread_over_the_interval_and_each_is_claimed_by_one_process_until_its_time() {
        let (scratch, store) = crate::scratch().await;
        let other = scratch.open().await;
        let domains = BTreeSet::from(["a.example", "b.example", "c.example"]);
        store.watch_domains(&domains, at(9000), EVERY).await.unwrap();
        assert_eq!(store.oldest_check(false).await.unwrap(), Some(at(9000)));
        let first = names(&store, 9000, 9200, 9).await;
        assert_eq!((first.len(), first[0].domain.as_str()), (1, "a.example"));
        assert_eq!(names(&other, 9100, 9300, 9).await[0].domain, "b.example");
        // The other process dies, and this one finishes.
        store.finish_check(&first[0], &complete(9300, None)).await.unwrap().unwrap();
        let both = names(&store, 9300, 9500, 9).await;
        assert_eq!(
            both.iter().map(|one| one.domain.as_str()).collect::<Vec<_>>(),
            ["a.example", "b.example", "c.example"]
        );
        // A new domain is due at once, and one that has gone is not checked any more.
        store.watch_domains(&BTreeSet::from(["a.example", "d.example"]), at(9310), EVERY).await.unwrap();
        assert_eq!(names(&store, 9310, 9500, 9).await[0].domain, "d.example");
        assert_eq!(names(&store, 9500, 9700, 9).await.len(), 2);
        // After a long stop of all processes, not all are due at once.
        store.watch_domains(&BTreeSet::from(["a.example", "d.example"]), at(99_000), EVERY).await.unwrap();
        assert_eq!(names(&store, 99_000, 99_200, 9).await.len(), 1);
    }

    #[tokio::test]
    async fn a_process_claims_the_domains_that_it_knows_and_leaves_the_others_due() {
        let (scratch, store) = crate::scratch().await;
        let other = scratch.open().await;
        let all: Vec<String> = (0..1200).map(|number| format!("d{number:04}.example")).collect();
        let domains = all.iter().map(String::as_str).collect();
        store.watch_domains(&domains, at(9000), SignedDuration::ZERO).await.unwrap();
        let is_known = |domain: &str| domain > "d1100";
        let claimed = store.claim_checks(false, at(9000), at(9030), 3, &is_known).await.unwrap();
        let mut names: Vec<&str> = claimed.iter().map(|claim| claim.domain.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["d1100.example", "d1101.example", "d1102.example"]);
        assert_eq!(store.claim_checks(false, at(9000), at(9030), 3, &|_| false).await.unwrap(), []);
        let rest = other.claim_checks(false, at(9000), at(9030), 2000, &|_| true).await.unwrap();
        assert_eq!(rest.len(), 1197, "they are still due");
    }

    #[tokio::test]
    async fn domains_are_checked_after_a_clock_that_was_a_year_ahead_is_set_right() {
        let (_scratch, store) = crate::scratch().await;
        let domains = BTreeSet::from(["a.example", "b.example"]);
        let year = 365 * 86_400;
        store.watch_domains(&domains, at(9000 + year), EVERY).await.unwrap();
        let claim = names(&store, 9000 + year, 9030 + year, 1).await.remove(0);
        store.finish_check(&claim, &complete(9300 + year, None)).await.unwrap().unwrap();
        store.watch_domains(&domains, at(9000), EVERY).await.unwrap();
        assert_eq!(names(&store, 9300, 9330, 9).await.len(), 2);
        // What is due within the usual time stays as it is.
        store.watch_domains(&domains, at(9000), EVERY).await.unwrap();
        assert_eq!(names(&store, 9329, 9400, 9).await, []);
    }

    #[tokio::test]
    async fn a_check_that_took_too_long_changes_nothing_and_failures_are_counted_over_processes() {
        let (scratch, store) = crate::scratch().await;
        let other = scratch.open().await;
        store.watch_domains(&BTreeSet::from(["a.example"]), at(9000), EVERY).await.unwrap();
        let slow = names(&store, 9000, 9200, 1).await.remove(0);
        let next = names(&other, 9200, 9400, 1).await.remove(0);
        assert_eq!(store.finish_check(&slow, &complete(9999, Some("late"))).await.unwrap(), None);
        let failed = |due| FinishedCheck {
            outcome: CheckOutcome::Failed,
            is_slow: true,
            due: at(due),
            verdict: Some("failed"),
        };
        let row = other.finish_check(&next, &failed(9500)).await.unwrap();
        assert_eq!(row, Some(CheckRow { failed: 1, unreached: 0 }));
        assert!(names(&store, 9500, 9700, 1).await.is_empty(), "it waits for a slot of slow domains");
        let claim = store.claim_checks(true, at(9500), at(9700), 9, &|_| true).await.unwrap().remove(0);
        let row = store.finish_check(&claim, &failed(9800)).await.unwrap();
        assert_eq!(row, Some(CheckRow { failed: 2, unreached: 0 }));
        assert!(!store.reaches_mx().await.unwrap());
        let waiting = other.waiting_verdicts(9).await.unwrap();
        assert_eq!((waiting.len(), waiting[0].verdict.as_str(), waiting[0].row.failed), (1, "failed", 2));
        // A newer check of the domain comes before its reader has ended the verdict.
        let claim = store.claim_checks(true, at(9800), at(9999), 9, &|_| true).await.unwrap().remove(0);
        let unreached = CheckOutcome::Complete { is_unreached: true, has_reached: false };
        let finished = FinishedCheck { outcome: unreached, ..complete(10_000, Some("newer")) };
        let row = store.finish_check(&claim, &finished).await.unwrap();
        assert_eq!(row, Some(CheckRow { failed: 0, unreached: 1 }));
        other.end_verdicts(&[waiting[0].claim.clone()]).await.unwrap();
        let newer = other.waiting_verdicts(9).await.unwrap();
        assert_eq!(newer[0].verdict, "newer");
        other.end_verdicts(&[newer[0].claim.clone()]).await.unwrap();
        assert_eq!(other.waiting_verdicts(9).await.unwrap(), []);
        let claim = names(&store, 10_000, 10_200, 1).await.remove(0);
        store.hold_check(&claim, at(10_100)).await.unwrap();
        let claim = names(&store, 10_100, 10_200, 1).await.remove(0);
        assert!(store.finish_check(&claim, &complete(11_000, None)).await.unwrap().is_some());
        assert!(store.reaches_mx().await.unwrap());
    }
}
