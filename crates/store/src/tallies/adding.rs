//! Adds counts to a day, within a transaction. Rows are written in the order of their keys: two transactions that write
//! the same rows can't wait for each other.

use super::{DayTally, Key};
use crate::query::{Value, added, insert, parameters, sql, unnumbered};
use crate::writing::Writing;
use crate::{StoreError, damaged, stored};
use formats::DomainName;
use formats::limits::TALLY_FAILURES;
use formats::report::{FailureDetail, PolicyReport};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

/// The maximum number of rows in one statement. A row has up to 10 parameters; SQLite allows 32,766 per statement.
const BATCH_ROWS: usize = 500;

/// Adds all counts of a day.
pub(super) async fn add(writing: &mut Writing, day: Timestamp, tally: &DayTally) -> Result<(), StoreError> {
    let merged = merge(day, tally)?;
    add_counts(writing, day, &merged).await?;
    add_failures(writing, merged).await?;
    add_records(writing, day, tally).await
}

/// The sum of all entries for one policy, recipient domain and day.
struct Merged {
    domain: DomainName,
    entry: PolicyReport,
    policy_string: String,
    mx_host: String,
    failures: BTreeMap<Key, FailureDetail>,
}

impl Merged {
    fn policy_domain(&self) -> &DomainName {
        self.entry.policy_domain.as_ref().unwrap_or(&self.domain)
    }
}

fn merge(day: Timestamp, tally: &DayTally) -> Result<BTreeMap<Key, Merged>, StoreError> {
    let list = |texts: &[String]| serde_json::to_string(texts).map_err(damaged("tally"));
    let day = day.as_second().to_string();
    let mut all: BTreeMap<Key, Merged> = BTreeMap::new();
    for (domain, entry) in
        tally.iter().flat_map(|(domain, added)| added.entries.iter().map(move |entry| (domain, entry)))
    {
        let new = Merged {
            domain: domain.clone(),
            entry: PolicyReport { successful: 0, failed: 0, details: Vec::new(), ..entry.clone() },
            policy_string: list(&entry.policy_string)?,
            mx_host: list(&entry.mx_host)?,
            failures: BTreeMap::new(),
        };
        let key = digest(&[
            &day,
            domain.as_str(),
            new.policy_domain().as_str(),
            entry.policy_type.as_str(),
            &new.policy_string,
            &new.mx_host,
        ]);
        let merged = all.entry(key).or_insert(new);
        merged.entry.successful = merged.entry.successful.saturating_add(entry.successful);
        merged.entry.failed = merged.entry.failed.saturating_add(entry.failed);
        for detail in &entry.details {
            add_detail(&mut merged.failures, detail.clone());
        }
    }
    Ok(all)
}

fn add_detail(failures: &mut BTreeMap<Key, FailureDetail>, detail: FailureDetail) {
    let count = detail.failed_session_count;
    let known = failures
        .entry(failure_key(&detail))
        .or_insert_with(|| FailureDetail { failed_session_count: 0, ..detail });
    known.failed_session_count = known.failed_session_count.saturating_add(count);
}

fn digest(parts: &[&str]) -> Key {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().iter().take(16).copied().collect()
}

fn failure_key(detail: &FailureDetail) -> Key {
    let texts = texts(detail);
    digest(&texts.each_ref().map(String::as_str))
}

/// The values that distinguish failures, in the order of the columns.
fn texts(detail: &FailureDetail) -> [String; 7] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let address = |address: Option<IpAddr>| address.map(|ip| ip.to_string()).unwrap_or_default();
    [
        detail.result_type.as_str().to_owned(),
        address(detail.sending_mta_ip),
        text(&detail.receiving_mx_hostname),
        text(&detail.receiving_mx_helo),
        address(detail.receiving_ip),
        text(&detail.additional_information),
        text(&detail.failure_reason_code),
    ]
}

/// Removes the details of a failure, so that it is summed with others of its result type.
fn summed_up(detail: FailureDetail) -> FailureDetail {
    FailureDetail {
        sending_mta_ip: None,
        receiving_mx_hostname: None,
        receiving_mx_helo: None,
        receiving_ip: None,
        additional_information: Some("further failures, summed up".to_owned()),
        failure_reason_code: None,
        ..detail
    }
}

async fn add_counts(
    writing: &mut Writing,
    day: Timestamp,
    merged: &BTreeMap<Key, Merged>,
) -> Result<(), StoreError> {
    let rows: Vec<_> = merged.iter().collect();
    let head = "INSERT INTO tally (key, day, domain, policy_domain, policy_type, policy_string, mx_host, successful, failed)";
    let add = added(writing.dialect(), "tally", &["successful", "failed"]);
    let update = format!("ON CONFLICT (key) DO UPDATE SET {add}");
    for chunk in rows.chunks(BATCH_ROWS) {
        let insert = insert(head, chunk, &update, |(key, one)| {
            [
                key.as_slice().into(),
                day.as_second().into(),
                one.domain.as_str().into(),
                one.policy_domain().as_str().into(),
                one.entry.policy_type.as_str().into(),
                one.policy_string.as_str().into(),
                one.mx_host.as_str().into(),
                stored(one.entry.successful).into(),
                stored(one.entry.failed).into(),
            ]
        });
        insert.kept(chunk.len() == BATCH_ROWS).execute(&mut *writing).await?;
    }
    Ok(())
}

async fn add_failures(writing: &mut Writing, merged: BTreeMap<Key, Merged>) -> Result<(), StoreError> {
    let with: Vec<(Key, BTreeMap<Key, FailureDetail>)> = merged
        .into_iter()
        .filter(|(_, one)| !one.failures.is_empty())
        .map(|(key, one)| (key, one.failures))
        .collect();
    let mut rows: Vec<(Key, Key, FailureDetail)> = Vec::new();
    for chunk in with.chunks(BATCH_ROWS) {
        let counts = failure_counts(writing, chunk).await?;
        for (tally, failures) in chunk {
            let count = counts.get(tally).copied().unwrap_or(0);
            let mut room = TALLY_FAILURES.saturating_sub(count);
            // A failure that is stored takes no room.
            let stored = match failures.len() > room {
                true => stored_failures(writing, tally).await?,
                false => HashSet::new(),
            };
            let mut kept = BTreeMap::new();
            for (key, detail) in failures {
                let (detail, is_stored) = (detail.clone(), stored.contains(key));
                add_detail(&mut kept, if is_stored || room > 0 { detail } else { summed_up(detail) });
                room = room.saturating_sub(usize::from(!is_stored));
            }
            rows.extend(kept.into_iter().map(|(key, detail)| (tally.clone(), key, detail)));
        }
    }
    let head = "INSERT INTO tally_failure (tally, key, result_type, sending_mta_ip, receiving_mx_hostname, receiving_mx_helo,
         receiving_ip, additional_information, failure_reason_code, failed)";
    let add = added(writing.dialect(), "tally_failure", &["failed"]);
    let update = format!("ON CONFLICT (tally, key) DO UPDATE SET {add}");
    for chunk in rows.chunks(BATCH_ROWS) {
        let insert = insert(head, chunk, &update, |(tally, key, detail)| {
            let [result, ip, host, helo, receiving, information, reason] = texts(detail).map(Value::from);
            let failed = stored(detail.failed_session_count).into();
            let (tally, key) = (tally.as_slice().into(), key.as_slice().into());
            [tally, key, result, ip, host, helo, receiving, information, reason, failed]
        });
        insert.kept(chunk.len() == BATCH_ROWS).execute(&mut *writing).await?;
    }
    Ok(())
}

/// Returns the number of distinct failures that are stored for each of these tallies.
async fn failure_counts(
    writing: &mut Writing,
    tallies: &[(Key, BTreeMap<Key, FailureDetail>)],
) -> Result<HashMap<Key, usize>, StoreError> {
    let keys = parameters(tallies.len());
    let text = format!("SELECT tally, COUNT(*) FROM tally_failure WHERE tally IN ({keys}) GROUP BY tally");
    let query = unnumbered(text, tallies.iter().map(|(key, _)| key.as_slice().into()));
    let rows: Vec<(Key, i64)> = query.kept(false).fetch_all(&mut *writing).await?;
    Ok(rows.into_iter().map(|(key, count)| (key, usize::try_from(count).unwrap_or(usize::MAX))).collect())
}

/// Returns the keys of the failures that are stored for a tally, at most [`TALLY_FAILURES`] and one for each result type.
async fn stored_failures(writing: &mut Writing, tally: &Key) -> Result<HashSet<Key>, StoreError> {
    let query = sql("SELECT key FROM tally_failure WHERE tally = $1").bind(tally.as_slice());
    let rows: Vec<(Key,)> = query.fetch_all(&mut *writing).await?;
    Ok(rows.into_iter().map(|(key,)| key).collect())
}

async fn add_records(writing: &mut Writing, day: Timestamp, tally: &DayTally) -> Result<(), StoreError> {
    let rows: Vec<(&DomainName, &String)> =
        tally.iter().filter_map(|(domain, added)| Some((domain, added.record.as_ref()?))).collect();
    for chunk in rows.chunks(BATCH_ROWS) {
        let update = "ON CONFLICT (day, domain) DO UPDATE SET record = excluded.record WHERE tally_record.record <> excluded.record";
        let insert =
            insert("INSERT INTO tally_record (day, domain, record)", chunk, update, |(domain, record)| {
                [day.as_second().into(), domain.as_str().into(), record.as_str().into()]
            });
        insert.kept(chunk.len() == BATCH_ROWS).execute(&mut *writing).await?;
    }
    Ok(())
}
