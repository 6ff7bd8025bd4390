//! Stores reports. They are durable when the call returns. Each batch of [`TRANSACTION_REPORTS`] is one transaction, so
//! that a large import does not keep other writes waiting. After an error a part may be stored; storing all of them
//! again is safe, since those are found as duplicates.
//!
//! A report counts once (REC-06). Duplicates are found in two ways: by submitter, `report-id`, range and domains, and
//! by content, since some senders send one report under two ids. A less trusted copy never blocks or replaces a more
//! trusted one, so a forger gains nothing by sending a report under an id before the genuine one arrives.

use super::columns::{BATCH_ROWS, count, domain, first};
use super::names::TextIds;
use super::sums::Sums;
use super::{KeepOutcome, NewReport, Trust, digest, kind_number};
use crate::query::{FromRow, Row, insert as insert_rows, parameters, sql, unnumbered, without_nul};
use crate::writing::{Counter, Lock, Tries, Writing};
use crate::{Store, StoreError, TENANT, damaged};
use formats::report::{PolicyReport, Report};
use std::collections::{BTreeMap, HashMap};

/// The maximum number of reports in one transaction: some hundredths of a second.
const TRANSACTION_REPORTS: usize = 250;

/// The values of a report that identify it, for the detection of duplicates.
#[derive(Debug, Clone)]
struct ExistingReport {
    id: i64,
    submitter: i64,
    organization: i64,
    report_id: String,
    trust: Trust,
    /// The digest of its range and content.
    digest: i64,
    /// The digest of its submitter, `report-id`, range and domains.
    identity: i64,
}

impl ExistingReport {
    /// True if both have the same content and sender. The submitter of an unsigned file is a guess, so the same
    /// organization and `report-id` also count as the same sender.
    fn has_same_content(&self, other: &Self) -> bool {
        let named = |known: &Self| (known.organization, known.report_id.clone());
        self.digest == other.digest && (self.submitter == other.submitter || named(self) == named(other))
    }
}

impl Store {
    /// Stores one report; see [`Store::keep_reports`].
    pub async fn keep_report(&self, new: &NewReport) -> Result<KeepOutcome, StoreError> {
        let kept = self.keep_reports(std::slice::from_ref(new)).await?;
        kept.into_iter().next().ok_or_else(|| damaged("report")("nothing was kept"))
    }

    /// Stores reports and returns the outcome of each, in order. They are durable when this returns.
    pub async fn keep_reports(&self, new: &[NewReport]) -> Result<Vec<KeepOutcome>, StoreError> {
        let mut kept = Vec::with_capacity(new.len());
        for batch in new.chunks(TRANSACTION_REPORTS) {
            let mut tries = Tries::default();
            loop {
                let done = self.keep_batch(batch).await;
                if !tries.again(&done) {
                    kept.extend(done?);
                    break;
                }
            }
        }
        Ok(kept)
    }

    async fn keep_batch(&self, new: &[NewReport]) -> Result<Vec<KeepOutcome>, StoreError> {
        let mut transaction = self.writing().await?;
        let writing = &mut transaction;
        // One import at a time: two copies of a report must not both be new.
        let last = writing.lock(Counter::ReportId, Lock::Alone).await?;
        let mut next = last + 1;
        let ids = TextIds::of(writing, new.iter().flat_map(texts)).await?;
        let id_of = |text: &str| ids.of_text(text);
        let mut seen: Vec<ExistingReport> =
            new.iter().map(|new| fingerprint(new, &id_of)).collect::<Result<_, _>>()?;
        let mut known = Index::default();
        for existing in find_existing(writing, &seen).await? {
            known.add(existing);
        }
        let (mut kept, mut fresh, mut sums) = (Vec::new(), Vec::new(), Sums::default());
        for (report, this) in new.iter().zip(&mut seen) {
            let outcome = match known.alike(this) {
                Some(existing) if existing.trust >= this.trust => KeepOutcome::Duplicate,
                Some(existing) if existing.has_same_content(this) => {
                    confirm(writing, existing, this, report, &id_of).await?;
                    sums.subtract(report, existing.trust, existing.submitter, &id_of);
                    sums.add(report, report.trust, this.submitter, &id_of);
                    existing.submitter = this.submitter;
                    existing.trust = this.trust;
                    KeepOutcome::Confirmed
                }
                _ => {
                    this.id = next;
                    next += 1;
                    known.add(this.clone());
                    sums.add(report, report.trust, this.submitter, &id_of);
                    fresh.push((report, this.clone()));
                    KeepOutcome::New
                }
            };
            kept.push(outcome);
        }
        let fresh_reports = count(fresh.len() as u64);
        insert(writing, &fresh, &id_of).await?;
        if !sums.is_empty() {
            sums.write(writing).await?;
            writing.increase(Counter::Reports, 1).await?;
            writing.increase(Counter::ReportCount, fresh_reports).await?;
            writing.increase(Counter::ReportId, fresh_reports).await?;
        }
        transaction.commit().await?;
        for (report, _) in fresh.iter().filter(|(report, _)| !report.trust.counts()) {
            self.unverified.add(crate::count(size(report)));
        }
        Ok(kept)
    }
}

/// Existing reports, indexed by both digests.
#[derive(Default)]
struct Index {
    all: Vec<ExistingReport>,
    by_digest: HashMap<i64, Vec<usize>>,
    by_identity: HashMap<i64, Vec<usize>>,
}

impl Index {
    fn add(&mut self, known: ExistingReport) {
        let at = self.all.len();
        self.by_digest.entry(known.digest).or_default().push(at);
        self.by_identity.entry(known.identity).or_default().push(at);
        self.all.push(known);
    }

    /// Returns the most trusted of the existing copies of `this` report.
    fn alike(&mut self, this: &ExistingReport) -> Option<&mut ExistingReport> {
        let by_digest = self.by_digest.get(&this.digest).into_iter().flatten();
        let by_identity = self.by_identity.get(&this.identity).into_iter().flatten();
        let found = by_digest.chain(by_identity).copied().filter(|at| {
            self.all.get(*at).is_some_and(|one| one.identity == this.identity || one.has_same_content(this))
        });
        let best =
            found.max_by_key(|at| self.all.get(*at).map(|one| (one.trust, one.has_same_content(this))))?;
        self.all.get_mut(best)
    }
}

fn organization(report: &Report) -> &str {
    report.organization_name.as_deref().unwrap_or_default()
}

fn texts(new: &NewReport) -> impl Iterator<Item = &str> {
    let details = new.report.policies.iter().flat_map(|policy| &policy.details).flat_map(|detail| {
        [detail.result_type.as_str(), detail.receiving_mx_hostname.as_deref().unwrap_or_default()]
    });
    [new.submitter.as_str(), organization(&new.report)]
        .into_iter()
        .chain(new.signer.as_deref())
        .chain(new.report.policies.iter().map(domain))
        .chain(details)
}

fn fingerprint(new: &NewReport, id_of: &impl Fn(&str) -> i64) -> Result<ExistingReport, StoreError> {
    let report = &new.report;
    let range = [report.date_range.start, report.date_range.end].map(|at| at.as_second().to_be_bytes());
    let said = serde_json::to_vec(&report.policies).map_err(damaged("report"))?;
    let mut domains: Vec<&str> = report.policies.iter().map(domain).collect();
    domains.sort_unstable();
    domains.dedup();
    let identity = [&[new.submitter.as_str(), &report.report_id][..], &domains].concat().join("\0");
    Ok(ExistingReport {
        id: 0,
        submitter: id_of(&new.submitter),
        organization: id_of(organization(report)),
        report_id: without_nul(&report.report_id).into_owned(),
        trust: new.trust,
        digest: digest(&[&range.concat(), &said]),
        identity: digest(&[&range.concat(), identity.as_bytes()]),
    })
}

const KNOWN: &str =
    "SELECT id, submitter, organization, report_id, trust, digest, identity FROM report WHERE ";

/// Returns the stored reports that share a digest with one of `these`.
async fn find_existing(
    writing: &mut Writing,
    these: &[ExistingReport],
) -> Result<Vec<ExistingReport>, StoreError> {
    let mut found = Vec::new();
    for batch in these.chunks(BATCH_ROWS) {
        let list = parameters(batch.len());
        let text = format!("{KNOWN}digest IN ({list}) UNION {KNOWN}identity IN ({list})");
        let digests = batch.iter().map(|one| one.digest.into());
        let query = unnumbered(text, digests.chain(batch.iter().map(|one| one.identity.into())));
        found.extend(query.fetch_all::<ExistingReport>(&mut *writing).await?);
    }
    Ok(found)
}

impl FromRow for ExistingReport {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get()?,
            submitter: row.get()?,
            organization: row.get()?,
            report_id: row.get()?,
            trust: Trust::parse(row.get()?)?,
            digest: row.get()?,
            identity: row.get()?,
        })
    }
}

/// Updates a stored report of which a more trusted copy arrived.
async fn confirm(
    writing: &mut Writing,
    existing: &ExistingReport,
    this: &ExistingReport,
    report: &NewReport,
    id_of: &impl Fn(&str) -> i64,
) -> Result<(), StoreError> {
    sql("UPDATE report SET trust = $1, signer = $2, submitter = $3, way = $4, identity = $5, source = $7 WHERE id = $6")
        .bind(report.trust as i64)
        .bind(report.signer.as_deref().map(id_of))
        .bind(this.submitter)
        .bind(report.arrival as i64)
        .bind(this.identity)
        .bind(existing.id)
        .bind(report.source.as_str())
        .execute(writing)
        .await?;
    Ok(())
}

async fn insert(
    writing: &mut Writing,
    fresh: &[(&NewReport, ExistingReport)],
    id_of: &impl Fn(&str) -> i64,
) -> Result<(), StoreError> {
    for batch in fresh.chunks(BATCH_ROWS) {
        let head = "INSERT INTO report (id, tenant, submitter, report_id, range_start, range_end, organization, trust, signer, way, received_at, warnings, digest, identity, packed, source, size)";
        let rows = insert_rows(head, batch, "", |(new, known)| {
            [
                known.id.into(),
                TENANT.into(),
                known.submitter.into(),
                known.report_id.as_str().into(),
                new.report.date_range.start.as_second().into(),
                new.report.date_range.end.as_second().into(),
                id_of(organization(&new.report)).into(),
                (new.trust as i64).into(),
                new.signer.as_deref().map(id_of).into(),
                (new.arrival as i64).into(),
                new.received_at.as_second().into(),
                count(new.warnings as u64).into(),
                known.digest.into(),
                known.identity.into(),
                new.packed.as_slice().into(),
                new.source.as_str().into(),
                size(new).into(),
            ]
        });
        rows.execute(&mut *writing).await?;
    }
    let outcomes: Vec<_> = fresh
        .iter()
        .flat_map(|(new, known)| {
            let days = new.report.date_range.utc_days();
            new.report.policies.iter().map(move |policy| (known.id, first(&days), days.len(), policy))
        })
        .collect();
    for batch in outcomes.chunks(BATCH_ROWS) {
        let head = "INSERT INTO outcome (tenant, domain, day, report, days, kind, successful, failed)";
        let rows = insert_rows(head, batch, "", |(report, day, days, policy)| {
            [
                TENANT.into(),
                id_of(domain(policy)).into(),
                (*day).into(),
                (*report).into(),
                count(*days as u64).into(),
                kind_number(&policy.policy_type).into(),
                count(policy.successful).into(),
                count(policy.failed).into(),
            ]
        });
        rows.execute(&mut *writing).await?;
    }
    let failures: Vec<_> = outcomes
        .iter()
        .flat_map(|(report, day, _, policy)| {
            causes(policy).into_iter().map(move |(cause, sessions)| (*report, *day, *policy, cause, sessions))
        })
        .collect();
    for batch in failures.chunks(BATCH_ROWS) {
        let head =
            "INSERT INTO failure (tenant, domain, day, report, kind, result_type, host, address, sessions)";
        let rows =
            insert_rows(head, batch, "", |(report, day, policy, (result, host, address), sessions)| {
                [
                    TENANT.into(),
                    id_of(domain(policy)).into(),
                    (*day).into(),
                    (*report).into(),
                    kind_number(&policy.policy_type).into(),
                    id_of(result).into(),
                    id_of(host).into(),
                    address.into(),
                    (*sessions).into(),
                ]
            });
        rows.execute(&mut *writing).await?;
    }
    Ok(())
}

/// The approximate size of a report in the database: its text, its rows and those of its texts in bytes.
fn size(new: &NewReport) -> i64 {
    let details: usize = new.report.policies.iter().map(|policy| policy.details.len()).sum();
    let rows = 2 + new.report.policies.len() + details;
    count((new.packed.len() + ROW_BYTES * rows) as u64)
}

/// The approximate size of an outcome or a failure with its index entries, the texts that it names and its sums. Measured:
/// 140 bytes for an outcome with a new domain of 20 characters, 130 for a failure with a new host, 160 for a report
/// without its text; and pages are not always full.
const ROW_BYTES: usize = 200;

/// Sums the failed sessions of a policy by result type, MX host and address.
fn causes(policy: &PolicyReport) -> BTreeMap<(&str, &str, String), i64> {
    let mut sums: BTreeMap<_, i64> = BTreeMap::new();
    for detail in &policy.details {
        let host = detail.receiving_mx_hostname.as_deref().unwrap_or_default();
        let address = detail.receiving_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let sum = sums.entry((detail.result_type.as_str(), host, address)).or_default();
        *sum = sum.saturating_add(count(detail.failed_session_count));
    }
    sums
}
