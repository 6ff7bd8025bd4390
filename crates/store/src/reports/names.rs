//! Integer ids for texts that occur in many reports, such as host names. Tables refer to the texts by these ids.

use crate::query::{insert, parameters, sql, unnumbered, without_nul};
use crate::writing::{Counter, Lock, Writing};
use crate::{Store, StoreError};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The maximum number of texts in one statement. Each text is one parameter.
const BATCH_ROWS: usize = 500;

/// The row ids of texts, which are stored once each in the table `name`.
pub struct TextIds<'t>(HashMap<Cow<'t, str>, i64>);

impl<'t> TextIds<'t> {
    /// Looks up the ids of these texts. Assigns an id to each text that has none.
    pub async fn of(
        writing: &mut Writing,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> Result<Self, StoreError> {
        let distinct: HashSet<&str> = texts.into_iter().collect();
        let mut ids = Self(distinct.into_iter().map(|text| (without_nul(text), 0)).collect());
        let mut all: Vec<Cow<'t, str>> = ids.0.keys().cloned().collect();
        // Concurrent transactions on PostgreSQL insert in one order, so that they can't wait for each other.
        all.sort_unstable();
        for texts in all.chunks(BATCH_ROWS) {
            ids.look_up(writing, texts).await?;
            let fresh: Vec<Cow<'t, str>> =
                texts.iter().filter(|text| ids.of_text(text) == 0).cloned().collect();
            if fresh.is_empty() {
                continue;
            }
            let head = "INSERT INTO name (text)";
            let rows = insert(head, &fresh, "ON CONFLICT (text) DO NOTHING", |text| [text.as_ref().into()]);
            rows.execute(&mut *writing).await?;
            ids.look_up(writing, &fresh).await?;
        }
        Ok(ids)
    }

    /// Returns the id of a text that was looked up, else 0.
    pub fn of_text(&self, text: &str) -> i64 {
        self.0.get(&*without_nul(text)).copied().unwrap_or_default()
    }

    async fn look_up(&mut self, writing: &mut Writing, texts: &[Cow<'t, str>]) -> Result<(), StoreError> {
        let list = parameters(texts.len());
        let select = format!("SELECT id, text FROM name WHERE text IN ({list})");
        let query = unnumbered(select, texts.iter().map(|text| text.as_ref().into()));
        for (id, text) in query.fetch_all::<(i64, String)>(&mut *writing).await? {
            if let Some(known) = self.0.get_mut(text.as_str()) {
                *known = id;
            }
        }
        Ok(())
    }
}

/// The maximum number of texts that one call deletes.
const MAX_FORGOTTEN: u32 = 100_000;

/// The texts that nothing refers to.
const UNUSED: &str = "SELECT id FROM name WHERE id NOT IN (
    SELECT submitter FROM report UNION SELECT organization FROM report
    UNION SELECT signer FROM report WHERE signer IS NOT NULL UNION SELECT about FROM report UNION SELECT host FROM outcome
    UNION SELECT domain FROM outcome UNION SELECT domain FROM failure UNION SELECT result_type FROM failure
    UNION SELECT host FROM failure UNION SELECT domain FROM domain_day UNION SELECT submitter FROM submitter_day
) ORDER BY id LIMIT $1";

/// The texts that reports with ids above a number refer to.
const USED_SINCE: &str =
    "SELECT submitter FROM report WHERE id > $1 UNION SELECT organization FROM report WHERE id > $1
    UNION SELECT signer FROM report WHERE id > $1 AND signer IS NOT NULL
    UNION SELECT about FROM report WHERE id > $1 UNION SELECT host FROM outcome WHERE report > $1
    UNION SELECT domain FROM outcome WHERE report > $1 UNION SELECT result_type FROM failure WHERE report > $1
    UNION SELECT host FROM failure WHERE report > $1";

impl Store {
    /// Deletes texts that nothing refers to, such as the names in dropped reports. The texts of all tenants are in one table, so
    /// those that another tenant's reports refer to stay. Returns how many; call it again while
    /// that is more than 0. Looking for them reads all reports, but holds up no write.
    pub async fn forget_texts(&self) -> Result<u64, StoreError> {
        // First, so that reports which arrive after this line are looked at again below.
        let last = self.counter(Counter::ReportId).await?;
        let across = self.across();
        let unused: Vec<(i64,)> = sql(UNUSED).bind(MAX_FORGOTTEN).fetch_all(&across).await?;
        let unused: Vec<i64> = unused.into_iter().map(|(id,)| id).collect();
        let mut forgotten = 0;
        for batch in unused.chunks(BATCH_ROWS) {
            forgotten += across.forget_batch(batch, last).await?;
        }
        Ok(forgotten)
    }

    /// Deletes those of these texts to which no report with an id above `last` refers.
    async fn forget_batch(&self, ids: &[i64], last: i64) -> Result<u64, StoreError> {
        // No column that refers to a text has an index, so the database would read all tables for each deleted row.
        let mut writing = self.writing_without_foreign_keys().await?;
        writing.lock(Counter::ReportId, Lock::Alone).await?;
        let used: Vec<(i64,)> = sql(USED_SINCE).bind(last).fetch_all(&mut writing).await?;
        let mut used: BTreeSet<i64> = used.into_iter().map(|(id,)| id).collect();
        let tenants = tenants_with_sums(&mut writing).await?;
        for column in ["domain FROM domain_day WHERE domain", "submitter FROM submitter_day WHERE submitter"]
        {
            let list = parameters(ids.len());
            // The tenant is the first column of the index.
            let text = format!("SELECT DISTINCT {column} IN ({list}) AND tenant = ?");
            for tenant in &tenants {
                let values = ids.iter().map(|id| (*id).into()).chain([(*tenant).into()]);
                let summed: Vec<(i64,)> =
                    unnumbered(text.clone(), values).kept(false).fetch_all(&mut writing).await?;
                used.extend(summed.into_iter().map(|(id,)| id));
            }
        }
        let ids: Vec<i64> = ids.iter().copied().filter(|id| !used.contains(id)).collect();
        let mut forgotten = 0;
        if !ids.is_empty() {
            let text = format!("DELETE FROM name WHERE id IN ({})", parameters(ids.len()));
            let query = unnumbered(text, ids.iter().map(|id| (*id).into())).kept(false);
            forgotten = query.execute(&mut writing).await?;
        }
        writing.commit().await?;
        Ok(forgotten)
    }
}

/// The tenants that have sums by day, each found by one step through the index.
async fn tenants_with_sums(writing: &mut Writing) -> Result<BTreeSet<i64>, StoreError> {
    let mut found = BTreeSet::new();
    for next in [
        "SELECT min(tenant) FROM domain_day WHERE tenant > $1",
        "SELECT min(tenant) FROM submitter_day WHERE tenant > $1",
    ] {
        let mut last = i64::MIN;
        while let (Some(tenant),) = sql(next).bind(last).fetch_one::<(Option<i64>,)>(&mut *writing).await? {
            found.insert(tenant);
            last = tenant;
        }
    }
    Ok(found)
}
