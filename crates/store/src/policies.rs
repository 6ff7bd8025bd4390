//! The cache of MTA-STS policies that the sending side has fetched (RFC 8461 §3.3). It survives restarts, since
//! losing a cached policy would allow a downgrade. The policy service writes and reads it; commands list it.

use crate::query::{Dialect, FromRow, Query, Row, built, insert, parameters, sql, unnumbered};
use crate::writing::{Tries, Writing};
use crate::{Store, StoreError, damaged, time};
use formats::{DomainName, Mode, PolicyId};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// A cached MTA-STS policy of another domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// The policy domain.
    pub domain: DomainName,
    /// The `id` of the `_mta-sts` record at the time of the fetch.
    pub record_id: PolicyId,
    /// The text of the policy file.
    pub body: String,
    /// The policy's mode.
    pub mode: Mode,
    /// The time of the fetch.
    pub fetched_at: Timestamp,
    /// `fetched_at` plus `max_age` (VAL-16).
    pub expires_at: Timestamp,
    /// When the next refresh is due (POL-13).
    pub refresh_at: Timestamp,
    /// The last known DANE state of the domain's MX hosts, as the sending side serialized it; empty if unknown.
    pub dane: String,
    /// When the policy was last used for mail. [`Store::put_policies`] stores it for new domains only.
    pub used_at: Timestamp,
}

/// A policy to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyWrite {
    /// The policy to store.
    pub policy: StoredPolicy,
    /// The time of the fetch of the policy that was stored before. It is replaced also if it seems to be newer, as after a
    /// step of the clock back. `None` if there was none.
    pub replaces: Option<Timestamp>,
}

impl PolicyWrite {
    /// The domain and the time of the fetch of the policy that is replaced although it seems to be newer.
    fn seems_older(&self) -> Option<(&DomainName, Timestamp)> {
        let replaced = self.replaces.filter(|replaced| *replaced > self.policy.fetched_at)?;
        Some((&self.policy.domain, replaced))
    }
}

impl From<StoredPolicy> for PolicyWrite {
    fn from(policy: StoredPolicy) -> Self {
        Self { policy, replaces: None }
    }
}

/// The numbers of unexpired policies by mode, and the earliest refresh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyCounts {
    /// Policies in mode `enforce`.
    pub enforce: u64,
    /// Policies in mode `testing`.
    pub testing: u64,
    /// Policies in mode `none`.
    pub none: u64,
    /// The earliest `refresh_at` of the unexpired policies that are refreshed. `None` if there are none.
    pub oldest_refresh: Option<Timestamp>,
}

/// Policies by the time of their fetch, and the current time for their age. A forward step of the clock does not age
/// what was fetched before it, so policies from before and after a step are queried apart (VAL-22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Policies fetched at this time or before do not belong to the set.
    pub after: Timestamp,
    /// Policies fetched after this time do not belong to the set.
    pub until: Timestamp,
    /// The current time for these policies.
    pub now: Timestamp,
}

impl Fetched {
    /// All policies, at one current time.
    pub fn at_any_time(now: Timestamp) -> Self {
        Self { after: Timestamp::MIN, until: Timestamp::MAX, now }
    }
}

/// The longest time between a fetch and the refresh, in seconds. A later refresh was planned before the clock was set
/// back, and is due at once.
const MAX_REFRESH_SECONDS: i64 = 86_400;

impl StoredPolicy {
    /// True if the refresh is due at `now`.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let until_refresh = self.refresh_at.as_second() - now.as_second();
        until_refresh <= 0 || until_refresh > MAX_REFRESH_SECONDS
    }
}

/// The maximum number of policies in one statement.
const BATCH_ROWS: usize = 64;
/// How long a lookup waits for a database that does not answer, before it goes on as if the store had failed.
const LOOKUP_TIME: Duration = Duration::from_secs(2);
/// How long each statement that writes the policy of a lookup may wait for such a database.
const WRITE_TIME: Duration = Duration::from_secs(5);

const COLUMNS: &str = "domain, record_id, body, mode, fetched_at, expires_at, refresh_at, dane, used_at";

/// The policies whose refresh is due, the last used first.
const DUE: &str =
    "SELECT domain FROM policy WHERE (refresh_at <= $1 OR refresh_at > $1 + $2) AND expires_at > $1
     AND fetched_at > $3 AND fetched_at <= $4 AND used_at >= $5
     ORDER BY used_at DESC, refresh_at LIMIT $6";

/// A statement with the parameters of [`DUE`].
fn due<'v>(text: String, fetched: Fetched, used_since: Timestamp, most: u32) -> Query<'v> {
    built(text)
        .bind(fetched.now.as_second())
        .bind(MAX_REFRESH_SECONDS)
        .bind(fetched.after.as_second())
        .bind(fetched.until.as_second())
        .bind(used_since.as_second())
        .bind(i64::from(most))
}

fn domain((domain,): (String,)) -> Result<DomainName, StoreError> {
    DomainName::parse(&domain).map_err(damaged("policy"))
}

async fn claim_refreshes(
    writing: &mut Writing,
    fetched: Fetched,
    used_since: Timestamp,
    until: Timestamp,
    most: u32,
) -> Result<Vec<DomainName>, StoreError> {
    // As in `outgoing`.
    let [before, after] = match writing.dialect() {
        Dialect::Sqlite => ["IN (", ")"],
        #[cfg(feature = "postgres")]
        Dialect::Postgres => ["= ANY (ARRAY(", " FOR UPDATE SKIP LOCKED))"],
    };
    let text =
        format!("UPDATE policy SET refresh_at = $7 WHERE domain {before}{DUE}{after} RETURNING domain");
    let claim = due(text, fetched, used_since, most).bind(until.as_second());
    let rows: Vec<(String,)> = claim.fetch_all(writing).await?;
    rows.into_iter().map(domain).collect()
}

impl Store {
    /// Stores policies in one transaction, and returns the domains whose policy was stored. A policy replaces the one of its
    /// domain that was fetched at the same time or earlier (VAL-19), and the one that it was fetched to replace
    /// ([`PolicyWrite::replaces`]). Of several policies of one domain, the newest is stored.
    pub async fn put_policies(&self, policies: &[PolicyWrite]) -> Result<Vec<DomainName>, StoreError> {
        let newest = newest(policies.iter().map(|write| &write.policy));
        let replaced: Vec<(&DomainName, Timestamp)> =
            policies.iter().filter_map(PolicyWrite::seems_older).collect();
        self.write_policies(&newest, &replaced, ">=").await
    }

    /// Stores policies that were not fetched here, in one transaction. A policy is stored only if its domain has none, or one
    /// that was fetched earlier. Returns the domains whose policy was stored. Of several policies of one domain, the newest is
    /// stored.
    pub async fn import_policies(&self, policies: &[StoredPolicy]) -> Result<Vec<DomainName>, StoreError> {
        self.write_policies(&newest(policies.iter()), &[], ">").await
    }

    /// Stores policies whose time of fetch compares with that of the stored ones as `is_newer` says. Those in `replaced`, by
    /// domain and time of fetch, are replaced in any case.
    async fn write_policies(
        &self,
        policies: &[&StoredPolicy],
        replaced: &[(&DomainName, Timestamp)],
        is_newer: &str,
    ) -> Result<Vec<DomainName>, StoreError> {
        if policies.is_empty() {
            return Ok(Vec::new());
        }
        let mut tries = Tries::default();
        loop {
            let done = self.write_once(policies, replaced, is_newer).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    async fn write_once(
        &self,
        policies: &[&StoredPolicy],
        replaced: &[(&DomainName, Timestamp)],
        is_newer: &str,
    ) -> Result<Vec<DomainName>, StoreError> {
        let mut stored = Vec::new();
        let mut transaction = self.writing_within(WRITE_TIME).await?;
        for (domain, fetched_at) in replaced {
            sql("UPDATE policy SET fetched_at = $1 WHERE domain = $2 AND fetched_at = $3")
                .bind(Timestamp::MIN.as_second())
                .bind(domain.as_str())
                .bind(fetched_at.as_second())
                .execute(&mut transaction)
                .await?;
        }
        let tail = format!(" WHERE excluded.fetched_at {is_newer} policy.fetched_at RETURNING domain");
        for batch in policies.chunks(BATCH_ROWS) {
            let is_reused = batch.len() == 1 || batch.len() == BATCH_ROWS;
            let rows = upsert(batch, &tail).kept(is_reused);
            let domains: Vec<(String,)> = rows.fetch_all(&mut transaction).await?;
            let parsed = domains.iter().map(|(name,)| DomainName::parse(name).map_err(damaged("policy")));
            stored.extend(parsed.collect::<Result<Vec<_>, _>>()?);
        }
        transaction.commit().await?;
        Ok(stored)
    }

    /// Returns the stored policies of these domains, expired or not, in no particular order.
    pub async fn policies_of(&self, domains: &[DomainName]) -> Result<Vec<StoredPolicy>, StoreError> {
        let mut all = Vec::new();
        for batch in domains.chunks(BATCH_ROWS) {
            let names = parameters(batch.len());
            let text = format!("SELECT {COLUMNS} FROM policy WHERE domain IN ({names})");
            let query = unnumbered(text, batch.iter().map(|domain| domain.as_str().into()));
            all.extend(query.kept(false).within(LOOKUP_TIME).fetch_all::<StoredPolicy>(self).await?);
        }
        Ok(all)
    }

    /// Returns the stored policy of a domain, expired or not.
    pub async fn policy(&self, domain: &DomainName) -> Result<Option<StoredPolicy>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM policy WHERE domain = $1");
        built(sql).bind(domain.as_str()).within(LOOKUP_TIME).fetch_optional(self).await
    }

    /// Returns up to `most` policies whose domains sort after `after`, in that order.
    pub async fn policies_after(&self, after: &str, most: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM policy WHERE domain > $1 ORDER BY domain LIMIT $2");
        built(sql).bind(after).bind(most).fetch_all(self).await
    }

    /// Returns up to `most` domains of this set whose policy is unexpired, was used at `used_since` or later, and is
    /// due for a refresh; the last used first.
    pub async fn policies_due(
        &self,
        fetched: Fetched,
        used_since: Timestamp,
        most: u32,
    ) -> Result<Vec<DomainName>, StoreError> {
        let rows: Vec<(String,)> = due(DUE.to_owned(), fetched, used_since, most).fetch_all(self).await?;
        rows.into_iter().map(domain).collect()
    }

    /// Claims refreshes that are due, as [`Self::policies_due`] returns them, and postpones each to `until`. So of several
    /// processes one refreshes a policy, and that of a process that died is due again by itself.
    pub async fn claim_refreshes(
        &self,
        fetched: Fetched,
        used_since: Timestamp,
        until: Timestamp,
        most: u32,
    ) -> Result<Vec<DomainName>, StoreError> {
        let mut tries = Tries::default();
        loop {
            let mut writing = self.writing().await?;
            let claimed = claim_refreshes(&mut writing, fetched, used_since, until, most).await;
            if tries.again(&claimed) {
                writing.rollback().await?;
                continue;
            }
            let claimed = claimed?;
            writing.commit().await?;
            return Ok(claimed);
        }
    }

    /// Postpones the next refresh of a policy to `until`.
    pub async fn postpone_refresh(&self, domain: &DomainName, until: Timestamp) -> Result<(), StoreError> {
        sql("UPDATE policy SET refresh_at = $1 WHERE domain = $2")
            .bind(until.as_second())
            .bind(domain.as_str())
            .execute(self)
            .await?;
        Ok(())
    }

    /// Records when a policy was used, and the current DANE state of its domain. `None` keeps the recorded value.
    pub async fn policy_used(
        &self,
        domain: &DomainName,
        used_at: Option<Timestamp>,
        dane: Option<&str>,
    ) -> Result<(), StoreError> {
        sql("UPDATE policy SET used_at = COALESCE($1, used_at), dane = COALESCE($2, dane) WHERE domain = $3")
            .bind(used_at.map(Timestamp::as_second))
            .bind(dane)
            .bind(domain.as_str())
            .execute(self)
            .await?;
        Ok(())
    }

    /// Deletes the policy of a domain. False if there is none.
    pub async fn delete_policy(&self, domain: &DomainName) -> Result<bool, StoreError> {
        let done = sql("DELETE FROM policy WHERE domain = $1").bind(domain.as_str()).execute(self);
        Ok(done.await? > 0)
    }

    /// Deletes the policies of this set that have expired. Returns their number.
    pub async fn delete_expired_policies(&self, fetched: Fetched) -> Result<u64, StoreError> {
        let done = sql("DELETE FROM policy WHERE expires_at <= $1 AND fetched_at > $2 AND fetched_at <= $3")
            .bind(fetched.now.as_second())
            .bind(fetched.after.as_second())
            .bind(fetched.until.as_second())
            .execute(self)
            .await?;
        Ok(done)
    }

    /// Counts the unexpired policies of this set. Those last used before `used_since` are not refreshed.
    pub async fn count_policies(
        &self,
        fetched: Fetched,
        used_since: Timestamp,
    ) -> Result<PolicyCounts, StoreError> {
        self.check_file()?;
        let rows: Vec<(String, i64, Option<i64>)> =
            sql("SELECT mode, COUNT(*) AS number, MIN(CASE WHEN used_at >= $4 THEN refresh_at END) AS oldest
             FROM policy WHERE expires_at > $1 AND fetched_at > $2 AND fetched_at <= $3 GROUP BY mode")
            .bind(fetched.now.as_second())
            .bind(fetched.after.as_second())
            .bind(fetched.until.as_second())
            .bind(used_since.as_second())
            .fetch_all(self)
            .await?;
        let mut counts = PolicyCounts::default();
        for (mode, number, oldest) in rows {
            let number = u64::try_from(number).unwrap_or(0);
            match mode.as_str() {
                "enforce" => counts.enforce = number,
                "testing" => counts.testing = number,
                _ => counts.none += number,
            }
            let oldest = oldest.map(|second| time("policy", second)).transpose()?;
            counts.oldest_refresh = counts.oldest_refresh.into_iter().chain(oldest).min();
        }
        Ok(counts)
    }
}

/// The statement that inserts policies, or replaces those of the same domains. `tail` restricts the replacement.
fn upsert<'v>(policies: &'v [&'v StoredPolicy], tail: &str) -> Query<'v> {
    let update = format!(
        "ON CONFLICT (domain) DO UPDATE SET record_id = excluded.record_id, body = excluded.body,
         mode = excluded.mode, fetched_at = excluded.fetched_at, expires_at = excluded.expires_at,
         refresh_at = excluded.refresh_at, dane = excluded.dane{tail}"
    );
    insert(&format!("INSERT INTO policy ({COLUMNS})"), policies, &update, |policy| {
        [
            policy.domain.as_str().into(),
            policy.record_id.as_str().into(),
            policy.body.as_str().into(),
            policy.mode.as_str().into(),
            policy.fetched_at.as_second().into(),
            policy.expires_at.as_second().into(),
            policy.refresh_at.as_second().into(),
            policy.dane.as_str().into(),
            policy.used_at.as_second().into(),
        ]
    })
}

/// The newest policy of each domain, in the order of the keys: two transactions that write the same rows can't wait for each
/// other.
fn newest<'p>(policies: impl Iterator<Item = &'p StoredPolicy>) -> Vec<&'p StoredPolicy> {
    let mut newest: BTreeMap<&str, &StoredPolicy> = BTreeMap::new();
    for policy in policies {
        let known = newest.entry(policy.domain.as_str()).or_insert(policy);
        if policy.fetched_at >= known.fetched_at {
            *known = policy;
        }
    }
    newest.into_values().collect()
}

impl FromRow for StoredPolicy {
    /// Reads the [`COLUMNS`].
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            domain: DomainName::parse(&row.get::<String>()?).map_err(damaged("policy"))?,
            record_id: PolicyId::parse(&row.get::<String>()?).map_err(damaged("policy"))?,
            body: row.get()?,
            mode: Mode::parse(&row.get::<String>()?).unwrap_or(Mode::None),
            fetched_at: time("policy", row.get()?)?,
            expires_at: time("policy", row.get()?)?,
            refresh_at: time("policy", row.get()?)?,
            dane: row.get()?,
            used_at: time("policy", row.get()?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn stored(name: &str, refresh: i64, expires: i64) -> StoredPolicy {
        StoredPolicy {
            domain: DomainName::parse(name).unwrap(),
            record_id: PolicyId::parse("1").unwrap(),
            body: "version: STSv1\r\n".into(),
            mode: Mode::Enforce,
            fetched_at: at(100),
            expires_at: at(expires),
            refresh_at: at(refresh),
            dane: String::new(),
            used_at: at(0),
        }
    }

    async fn put(store: &Store, policies: &[StoredPolicy]) {
        let writes: Vec<PolicyWrite> = policies.iter().cloned().map(PolicyWrite::from).collect();
        store.put_policies(&writes).await.unwrap();
    }

    #[tokio::test]
    async fn val_19_a_policy_replaces_an_earlier_one_and_the_one_that_it_was_fetched_to_replace() {
        let (_dir, store) = crate::scratch().await;
        let fetched = |at_second, id: &str| StoredPolicy {
            fetched_at: at(at_second),
            record_id: PolicyId::parse(id).unwrap(),
            ..stored("example.org", 150, 900)
        };
        for (at_second, replaces, expected) in [
            (100, None, true),
            (100, None, true),
            (99, None, false),
            (99, Some(98), false),
            (101, Some(98), true),
            (50, Some(101), true),
            (49, Some(101), false),
            (51, None, true),
        ] {
            let policy = fetched(at_second, "new");
            let domain = policy.domain.clone();
            store.policy_used(&domain, Some(at(77)), None).await.unwrap();
            let before = store.policy(&domain).await.unwrap();
            let write = PolicyWrite { policy: policy.clone(), replaces: replaces.map(at) };
            let done = store.put_policies(&[write]).await.unwrap();
            assert_eq!(done == [domain.clone()], expected, "{at_second} {replaces:?}");
            let now = store.policy(&domain).await.unwrap();
            let used_at = before.as_ref().map_or(at(0), |before| before.used_at);
            assert_eq!(now, if expected { Some(StoredPolicy { used_at, ..policy }) } else { before });
        }
        let both = [fetched(200, "newer").into(), fetched(150, "older").into()];
        store.put_policies(&both).await.unwrap();
        let stored = store.policies_after("", 9).await.unwrap();
        assert_eq!(stored.iter().map(|policy| policy.record_id.as_str()).collect::<Vec<_>>(), ["newer"]);
    }

    #[tokio::test]
    async fn val_28_a_restart_loses_no_policy() {
        let (dir, store) = crate::scratch().await;
        let mut policy = stored("example.org", 150, 200);
        let domain = policy.domain.clone();
        store.put_policies(&[policy.clone().into()]).await.unwrap();
        policy.record_id = PolicyId::parse("2").unwrap();
        store.put_policies(&[policy.clone().into()]).await.unwrap();
        store.close().await;
        let again = dir.open().await;
        assert_eq!(again.policy(&domain).await.unwrap(), Some(policy));
        assert_eq!(again.delete_expired_policies(Fetched::at_any_time(at(199))).await.unwrap(), 0);
        assert_eq!(again.delete_expired_policies(Fetched::at_any_time(at(200))).await.unwrap(), 1);
        assert_eq!(again.policy(&domain).await.unwrap(), None);
    }

    #[tokio::test]
    async fn policies_are_stored_in_batches_and_the_last_of_a_domain_wins() {
        let (_dir, store) = crate::scratch().await;
        let mut all: Vec<StoredPolicy> =
            (0..200).map(|number| stored(&format!("d{number}.example"), number, 900)).collect();
        all.push(stored("d7.example", 777, 900));
        put(&store, &all).await;
        let mut wanted: Vec<DomainName> = all[..200].iter().map(|policy| policy.domain.clone()).collect();
        wanted.push(DomainName::parse("unknown.example").unwrap());
        let found = store.policies_of(&wanted).await.unwrap();
        assert_eq!(found.len(), 200);
        assert!(found.contains(&all[200]) && found.contains(&all[199]) && !found.contains(&all[7]));
    }

    #[tokio::test]
    async fn an_imported_policy_replaces_only_an_earlier_one() {
        let (_dir, store) = crate::scratch().await;
        let fetched = |name: &str, at_second, id: &str| StoredPolicy {
            fetched_at: at(at_second),
            record_id: PolicyId::parse(id).unwrap(),
            ..stored(name, 150, 900)
        };
        let known: Vec<StoredPolicy> =
            (0..100).map(|number| fetched(&format!("d{number}.example"), 100, "old")).collect();
        put(&store, &known).await;
        let import: Vec<StoredPolicy> =
            (0..150).map(|number| fetched(&format!("d{number}.example"), 99 + number % 3, "new")).collect();
        let mut done = store.import_policies(&import).await.unwrap();
        let is_expected = |(number, _): &(usize, &StoredPolicy)| *number >= 100 || number % 3 == 2;
        let mut expected: Vec<DomainName> =
            import.iter().enumerate().filter(is_expected).map(|(_, policy)| policy.domain.clone()).collect();
        done.sort();
        expected.sort();
        assert_eq!(done, expected);
        for (policy, domain) in import.iter().map(|policy| (policy, &policy.domain)) {
            let found = store.policy(domain).await.unwrap().unwrap();
            let id = if expected.contains(domain) { "new" } else { "old" };
            assert_eq!(found.record_id.as_str(), id, "{policy:?}");
        }
        assert!(store.import_policies(&[]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn policies_written_in_opposite_orders_do_not_wait_for_each_other_for_ever() {
        let (_dir, store) = crate::scratch().await;
        let all: Vec<StoredPolicy> =
            (0..200).map(|number| stored(&format!("d{number}.example"), number, 900)).collect();
        let mut reversed = all.clone();
        reversed.reverse();
        let writes = (0..10).map(|number| {
            let (store, policies) =
                (store.clone(), if number % 2 == 0 { all.clone() } else { reversed.clone() });
            tokio::spawn(async move { store.write_once(&newest(policies.iter()), &[], ">=").await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap().unwrap();
        }
        assert_eq!(store.policies_after("", 999).await.unwrap().len(), 200);
    }

    #[tokio::test]
    async fn refreshes_are_due_in_order_the_last_used_first() {
        let (_dir, store) = crate::scratch().await;
        let all = [
            stored("a.example", 110, 900),
            stored("b.example", 120, 900),
            stored("c.example", 500, 900),
            stored("d.example", 100, 120),
        ];
        put(&store, &all).await;
        store.policy_used(&all[1].domain, Some(at(300)), Some("x")).await.unwrap();
        let now = Fetched::at_any_time(at(400));
        let due = async |most| store.policies_due(now, Timestamp::MIN, most).await.unwrap();
        assert_eq!(due(10).await, [all[1].domain.clone(), all[0].domain.clone()]);
        assert_eq!(due(1).await.len(), 1);
        store.postpone_refresh(&all[1].domain, at(600)).await.unwrap();
        assert_eq!(due(10).await, [all[0].domain.clone()]);
        let counts = store.count_policies(now, Timestamp::MIN).await.unwrap();
        assert_eq!(
            (counts.enforce, counts.oldest_refresh),
            (3, Some(at(110))),
            "the expired one is left out"
        );
        let counts = store.count_policies(now, at(300)).await.unwrap();
        assert_eq!((counts.enforce, counts.oldest_refresh), (3, Some(at(600))), "the unused ones too");
        let used = store.policies_due(Fetched::at_any_time(at(700)), at(300), 10).await.unwrap();
        assert_eq!(used, [all[1].domain.clone()], "the unused ones are not refreshed");
        assert_eq!(store.policies_after("b.example", 1).await.unwrap()[0].domain, all[2].domain);
        assert!(store.delete_policy(&all[0].domain).await.unwrap());
        assert!(!store.delete_policy(&all[0].domain).await.unwrap());
    }

    #[tokio::test]
    async fn a_refresh_is_claimed_by_one_process_and_due_again_when_that_one_has_died() {
        let (scratch, store) = crate::scratch().await;
        let other = scratch.open().await;
        put(&store, &["a.example", "b.example", "c.example"].map(|name| stored(name, 110, 9000))).await;
        let claim = async |store: &Store, now, most| {
            let set = Fetched::at_any_time(at(now));
            store.claim_refreshes(set, Timestamp::MIN, at(now + 100), most).await.unwrap()
        };
        let (first, second) = tokio::join!(claim(&store, 400, 2), claim(&other, 400, 2));
        let mut all = [first, second].concat();
        all.extend(claim(&other, 499, 9).await);
        all.sort();
        assert_eq!(all, ["a.example", "b.example", "c.example"].map(|name| DomainName::parse(name).unwrap()));
        assert_eq!(claim(&other, 599, 9).await.len(), 3);
    }

    #[tokio::test]
    async fn policies_are_due_counted_and_deleted_by_the_time_of_their_fetch() {
        let (_dir, store) = crate::scratch().await;
        let mut later = stored("later.example", 1_000_150, 1_000_900);
        later.fetched_at = at(1_000_100);
        let earlier = stored("earlier.example", 500, 900);
        put(&store, &[earlier.clone(), later.clone()]).await;
        let before = Fetched { after: Timestamp::MIN, until: at(200), now: at(400) };
        let after = Fetched { after: at(200), until: Timestamp::MAX, now: at(1_000_400) };
        assert!(store.policies_due(before, Timestamp::MIN, 10).await.unwrap().is_empty());
        assert_eq!(store.policies_due(after, Timestamp::MIN, 10).await.unwrap(), [later.domain.clone()]);
        for (set, oldest) in [(before, at(500)), (after, at(1_000_150))] {
            let counts = store.count_policies(set, Timestamp::MIN).await.unwrap();
            assert_eq!((counts.enforce, counts.oldest_refresh), (1, Some(oldest)));
            assert_eq!(store.delete_expired_policies(set).await.unwrap(), 0);
        }
        let set_back = Fetched::at_any_time(at(400));
        let due = store.policies_due(set_back, Timestamp::MIN, 10).await.unwrap();
        assert_eq!(
            due,
            [later.domain.clone()],
            "its refresh is more than a day ahead: the clock was set back"
        );
        assert!(later.is_due(at(400)) && !earlier.is_due(at(400)));
        let ended = Fetched { now: at(900), ..before };
        assert_eq!(store.delete_expired_policies(ended).await.unwrap(), 1);
        assert_eq!(store.policies_after("", 9).await.unwrap(), [later]);
    }
}
