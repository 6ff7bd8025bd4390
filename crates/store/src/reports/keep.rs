//! Stores reports. They are durable when the call returns. Each batch of [`TRANSACTION_REPORTS`] or
//! [`TRANSACTION_ROWS`] is one transaction, so that neither a large import nor a large report keeps other writes waiting.
//! After an error a part may be stored; storing all of them again is safe, since those are found as duplicates.
//!
//! A report counts once (REC-06). A copy has the same sender, `report-id`, time and content, however it arrived; the most
//! trusted copy counts. A report with the same id and other content is stored beside the first (see `identities` for the sums), and so is one with
//! another id and the same content: two mail servers of a sender may well have counted the same. A less trusted copy
//! never blocks or replaces a more trusted one, so a forger gains nothing by sending a report under an id before the
//! genuine one arrives.

use super::columns::{BATCH_ROWS, count, domain};
use super::filing::{Filed, file};
use super::identities;
use super::names::TextIds;
use super::rows::{failures, insert_results};
use super::sums::{Sums, rows};
use super::turn::ImportTurn;
use super::{KeepOutcome, NewReport, Trust, digest};
use crate::query::{FromRow, Row, insert as insert_rows, parameters, sql, unnumbered, without_nul};
use crate::writing::{Counter, Lock, TenantCounter, Tries, Writing};
use crate::{Store, StoreError, damaged};
use formats::DomainName;
use formats::limits::REPORT_CAUSES;
use formats::report::{DateRange, Report};
use std::collections::HashMap;

/// The maximum number of reports in one transaction: some hundredths of a second. A transaction writes each page of the indexes that
/// it changes, and the entries of reports are spread over all of them, so that smaller ones write several times as much.
const TRANSACTION_REPORTS: usize = 1000;
/// The number of rows after which a transaction takes no further report: some tenths of a second.
const TRANSACTION_ROWS: usize = 20_000;

/// The values of a report by which copies of it are found.
#[derive(Debug, Clone)]
struct ExistingReport {
    id: i64,
    submitter: i64,
    organization: i64,
    /// The domain of the mail; 0 if it is not known.
    about: i64,
    report_id: String,
    trust: Trust,
    /// Whether only its row is left, without results.
    is_expired: bool,
    /// The digest of its range and content.
    digest: i64,
    /// The place among the reports of the batch; `None` if it was stored before.
    fresh: Option<usize>,
}

impl ExistingReport {
    /// True if both are copies of one report.
    fn is_copy_of(&self, other: &Self) -> bool {
        // The domain of the mail is unknown for a copy that was posted.
        let is_about_the_same = self.about == other.about || self.about == 0 || other.about == 0;
        self.digest == other.digest
            && self.report_id == other.report_id
            && is_about_the_same
            && self.has_same_sender(other)
    }

    /// The submitter of an unsigned report is a guess, so the same organization also counts as the same sender, except
    /// where both are verified: then one has signed what another organization is said to have sent.
    fn has_same_sender(&self, other: &Self) -> bool {
        let are_verified = self.trust == Trust::Verified && other.trust == Trust::Verified;
        self.submitter == other.submitter || (!are_verified && self.organization == other.organization)
    }
}

/// The first reports that fit into one transaction; at least one.
fn one_transaction(new: &[NewReport]) -> usize {
    let mut taken = 0;
    let fits = |report: &&NewReport| {
        taken += rows(report);
        taken <= TRANSACTION_ROWS
    };
    new.iter().take(TRANSACTION_REPORTS).take_while(fits).count().max(1)
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
        let mut rest = new;
        let mut turn = ImportTurn::of(self);
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(one_transaction(rest).min(rest.len()));
            rest = after;
            turn.pause().await;
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
        let filed = file(writing, new).await?;
        let ids =
            TextIds::of(writing, new.iter().zip(&filed).flat_map(|(new, filed)| texts(new, filed))).await?;
        let mut batch = Batch::new(&ids, last + 1);
        let mut said = Vec::new();
        let these: Vec<ExistingReport> =
            new.iter().map(|new| fingerprint(new, &ids, &mut said)).collect::<Result<_, _>>()?;
        for existing in find_existing(writing, &these).await? {
            batch.known.add(existing);
        }
        let mut kept = Vec::new();
        for ((new, filed), this) in new.iter().zip(&filed).zip(these) {
            kept.push(batch.keep(writing, new, filed, this).await?);
        }
        batch.write(writing).await?;
        transaction.commit().await?;
        for (new, _) in new.iter().zip(&kept).filter(|(_, kept)| **kept == KeepOutcome::New) {
            if !new.trust.counts() {
                self.unverified.add(crate::count(size(new)));
            }
        }
        Ok(kept)
    }
}

/// The reports of one transaction, and the changes to the sums.
struct Batch<'b> {
    ids: &'b TextIds<'b>,
    next: i64,
    known: Index,
    sums: Sums,
    /// Reports that were not stored before.
    fresh: Vec<FiledReport<'b>>,
    /// Reports that were stored before and are more trusted now.
    confirmed: Vec<FiledReport<'b>>,
}

/// A report with its row id and its filing.
struct FiledReport<'b> {
    new: &'b NewReport,
    filed: &'b [Filed<'b>],
    row: ExistingReport,
}

impl<'b> Batch<'b> {
    fn new(ids: &'b TextIds<'b>, next: i64) -> Self {
        let (known, sums) = (Index::default(), Sums::default());
        Self { ids, next, known, sums, fresh: Vec::new(), confirmed: Vec::new() }
    }

    fn domains(&self, filed: &[Filed<'_>]) -> Vec<i64> {
        filed.iter().map(|filed| self.ids.of_text(filed.domain)).collect()
    }

    async fn keep(
        &mut self,
        writing: &mut Writing,
        new: &'b NewReport,
        filed: &'b [Filed<'b>],
        mut this: ExistingReport,
    ) -> Result<KeepOutcome, StoreError> {
        let domains = self.domains(filed);
        let Some(existing) = self.known.copy_of(&this).cloned() else {
            this.id = self.next;
            this.fresh = Some(self.fresh.len());
            self.next += 1;
            self.known.add(this.clone());
            self.sums.add(new, new.trust, this.submitter, &domains);
            self.fresh.push(FiledReport { new, filed, row: this });
            return Ok(KeepOutcome::New);
        };
        if existing.trust >= this.trust {
            return Ok(KeepOutcome::Duplicate);
        }
        (this.id, this.fresh, this.is_expired) = (existing.id, existing.fresh, existing.is_expired);
        let before = match this.fresh.and_then(|at| self.fresh.get(at)) {
            Some(fresh) => self.domains(fresh.filed),
            None => match self.confirmed.iter().find(|confirmed| confirmed.row.id == this.id) {
                Some(confirmed) => self.domains(confirmed.filed),
                None if !existing.is_expired => filed_before(writing, this.id, new, self.ids).await?,
                // It has no rows that tell the domains. A copy about the same domain is filed like it.
                None if existing.about == this.about => domains.clone(),
                None if existing.about == 0 => named(new, self.ids),
                None => return Ok(KeepOutcome::Duplicate),
            },
        };
        self.sums.subtract(new, existing.trust, existing.submitter, &before);
        self.sums.add(new, new.trust, this.submitter, &domains);
        self.known.replace(&this);
        let report = FiledReport { new, filed, row: this };
        match report.row.fresh.and_then(|at| self.fresh.get_mut(at)) {
            Some(fresh) => *fresh = report,
            None => {
                self.confirmed.retain(|confirmed| confirmed.row.id != report.row.id);
                self.confirmed.push(report);
            }
        }
        Ok(KeepOutcome::Confirmed)
    }

    async fn write(&mut self, writing: &mut Writing) -> Result<(), StoreError> {
        if self.sums.is_empty() {
            return Ok(());
        }
        let identities = self.identities(writing).await?;
        identities::surplus(writing, &identities).await?.apply(&mut self.sums, 1);
        insert(writing, &self.fresh, self.ids).await?;
        for confirmed in &self.confirmed {
            confirm(writing, confirmed, self.ids).await?;
        }
        let changed = self.fresh.iter().chain(&self.confirmed);
        // An expired report stays without results.
        let changed = changed.filter(|report| !report.row.is_expired);
        let changed: Vec<_> = changed.map(|report| (report.row.id, report.new, report.filed)).collect();
        insert_results(writing, &changed, &|text: &str| self.ids.of_text(text)).await?;
        identities::surplus(writing, &identities).await?.apply(&mut self.sums, -1);
        self.sums.write(writing).await?;
        let fresh_reports = count(self.fresh.len() as u64);
        writing.increase(Counter::Reports, 1).await?;
        writing.add(TenantCounter::ReportCount, fresh_reports).await?;
        writing.increase(Counter::ReportId, fresh_reports).await?;
        Ok(())
    }
}

impl Batch<'_> {
    /// The identities of the reports that change and count as evidence, as they were and as they will be.
    async fn identities(&self, writing: &mut Writing) -> Result<Vec<i64>, StoreError> {
        let confirmed: Vec<i64> = self.confirmed.iter().map(|report| report.row.id).collect();
        let mut all = identities::of_reports(writing, &confirmed).await?;
        let changed = self.fresh.iter().chain(&self.confirmed).filter(|report| report.new.trust.counts());
        all.extend(changed.map(|report| identity(report.new, report.filed)));
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

/// Existing reports, indexed by the digest of their content.
#[derive(Default)]
struct Index(HashMap<i64, Vec<ExistingReport>>);

impl Index {
    fn add(&mut self, known: ExistingReport) {
        self.0.entry(known.digest).or_default().push(known);
    }

    /// Returns the most trusted of the existing copies of `this` report.
    fn copy_of(&self, this: &ExistingReport) -> Option<&ExistingReport> {
        let all = self.0.get(&this.digest).into_iter().flatten();
        all.filter(|one| one.is_copy_of(this)).max_by_key(|one| (one.trust, one.about == this.about))
    }

    fn replace(&mut self, this: &ExistingReport) {
        let all = self.0.get_mut(&this.digest).into_iter().flatten();
        all.filter(|one| one.id == this.id).for_each(|one| *one = this.clone());
    }
}

fn organization(report: &Report) -> &str {
    report.organization_name.as_deref().unwrap_or_default()
}

/// All texts of a report that are stored as numbers.
fn texts<'r>(new: &'r NewReport, filed: &'r [Filed<'r>]) -> impl Iterator<Item = &'r str> {
    let mut of_failures = Vec::new();
    if details(new) <= REPORT_CAUSES {
        of_failures.extend(new.report.policies.iter().flat_map(|policy| &policy.details).flat_map(
            |detail| {
                [detail.result_type.as_str(), detail.receiving_mx_hostname.as_deref().unwrap_or_default()]
            },
        ));
    } else {
        of_failures.extend(failures(new, filed).iter().flat_map(|row| [row.result_type, row.host]));
    }
    [new.submitter.as_str(), organization(&new.report)]
        .into_iter()
        .chain(new.signer.as_deref())
        .chain(new.about.as_ref().map(DomainName::as_str))
        .chain(new.report.policies.iter().map(domain))
        .chain(filed.iter().map(|filed| filed.domain))
        .chain(of_failures)
}

/// The number of failure details of a report.
fn details(new: &NewReport) -> usize {
    new.report.policies.iter().map(|policy| policy.details.len()).sum()
}

/// The values of a report by which copies of it are found. `said` is a buffer, used again for each report.
fn fingerprint(new: &NewReport, ids: &TextIds<'_>, said: &mut Vec<u8>) -> Result<ExistingReport, StoreError> {
    let report = &new.report;
    said.clear();
    serde_json::to_writer(&mut *said, &report.policies).map_err(damaged("report"))?;
    Ok(ExistingReport {
        id: 0,
        submitter: ids.of_text(&new.submitter),
        organization: ids.of_text(organization(report)),
        about: new.about.as_ref().map_or(0, |about| ids.of_text(about.as_str())),
        report_id: without_nul(&report.report_id).into_owned(),
        trust: new.trust,
        is_expired: false,
        digest: digest(&[&range(&report.date_range).concat(), said]),
        fresh: None,
    })
}

fn range(range: &DateRange) -> [[u8; 8]; 2] {
    [range.start, range.end].map(|at| at.as_second().to_be_bytes())
}

fn identity(new: &NewReport, filed: &[Filed<'_>]) -> i64 {
    let domains = filed.iter().map(|filed| filed.domain).collect();
    identity_of(&new.submitter, &new.report.report_id, &new.report.date_range, domains)
}

/// The digest of a report's submitter, `report-id`, range and the domains that it is filed under.
pub(super) fn identity_of(
    submitter: &str,
    report_id: &str,
    date_range: &DateRange,
    mut domains: Vec<&str>,
) -> i64 {
    domains.sort_unstable();
    domains.dedup();
    let text = [&[submitter, report_id][..], &domains].concat().join("\0");
    digest(&[&range(date_range).concat(), text.as_bytes()])
}

/// The query for the reports of a tenant with one of `count` digests. By the plus sign, SQLite uses the index of the digest; by the
/// one of the tenant it would read all reports.
fn with_digests(count: usize) -> String {
    let list = parameters(count);
    format!(
        "SELECT id, submitter, organization, about, report_id, trust, is_expired, digest FROM report WHERE +tenant = ? AND digest IN ({list})"
    )
}

/// Returns the stored reports that have the content of one of `these`.
async fn find_existing(
    writing: &mut Writing,
    these: &[ExistingReport],
) -> Result<Vec<ExistingReport>, StoreError> {
    let mut found = Vec::new();
    for batch in these.chunks(BATCH_ROWS) {
        let text = with_digests(batch.len());
        let values = [writing.tenant.into()].into_iter().chain(batch.iter().map(|one| one.digest.into()));
        let query = unnumbered(text, values);
        found.extend(query.fetch_all::<ExistingReport>(&mut *writing).await?);
    }
    // A digest that occurs in two batches is found twice.
    found.sort_unstable_by_key(|one| one.id);
    found.dedup_by_key(|one| one.id);
    Ok(found)
}

impl FromRow for ExistingReport {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get()?,
            submitter: row.get()?,
            organization: row.get()?,
            about: row.get()?,
            report_id: row.get()?,
            trust: Trust::parse(row.get()?)?,
            is_expired: row.get::<i64>()? != 0,
            digest: row.get()?,
            fresh: None,
        })
    }
}

/// The ids of the domains that a stored report is filed under, in the order of its policies.
async fn filed_before(
    writing: &mut Writing,
    report: i64,
    copy: &NewReport,
    ids: &TextIds<'_>,
) -> Result<Vec<i64>, StoreError> {
    let query = sql("SELECT entry, domain FROM outcome WHERE report = $1 ORDER BY entry").bind(report);
    let rows: Vec<(i64, i64)> = query.fetch_all(writing).await?;
    // Earlier versions filed each result under the domain that the report has, and did not store the order.
    if rows.iter().any(|(entry, _)| *entry < 0) {
        return Ok(named(copy, ids));
    }
    Ok(rows.into_iter().map(|(_, domain)| domain).collect())
}

/// The ids of the domains that the policies of a report name.
fn named(new: &NewReport, ids: &TextIds<'_>) -> Vec<i64> {
    new.report.policies.iter().map(|policy| ids.of_text(domain(policy))).collect()
}

/// Updates a stored report of which a more trusted copy arrived. The caller inserts its results again, since the copy may
/// be filed under other domains.
async fn confirm(
    writing: &mut Writing,
    FiledReport { new, filed, row }: &FiledReport<'_>,
    ids: &TextIds<'_>,
) -> Result<(), StoreError> {
    sql("UPDATE report SET trust = $1, signer = $2, submitter = $3, way = $4, identity = $5, about = $6, source = $7 WHERE id = $8")
        .bind(new.trust as i64)
        .bind(new.signer.as_deref().map(|signer| ids.of_text(signer)))
        .bind(row.submitter)
        .bind(new.arrival as i64)
        .bind(identity(new, filed))
        .bind(row.about)
        .bind(new.source.as_str())
        .bind(row.id)
        .execute(&mut *writing)
        .await?;
    super::rows::delete(writing, row.id).await
}

async fn insert(
    writing: &mut Writing,
    fresh: &[FiledReport<'_>],
    ids: &TextIds<'_>,
) -> Result<(), StoreError> {
    for batch in fresh.chunks(BATCH_ROWS) {
        let head = "INSERT INTO report (id, tenant, submitter, report_id, range_start, range_end, organization, trust, signer, way, received_at, warnings, digest, identity, about, packed, source, size)";
        let rows = insert_rows(head, batch, "", |FiledReport { new, filed, row }| {
            [
                row.id.into(),
                writing.tenant.into(),
                row.submitter.into(),
                row.report_id.as_str().into(),
                new.report.date_range.start.as_second().into(),
                new.report.date_range.end.as_second().into(),
                row.organization.into(),
                (new.trust as i64).into(),
                new.signer.as_deref().map(|signer| ids.of_text(signer)).into(),
                (new.arrival as i64).into(),
                new.received_at.as_second().into(),
                count(new.warnings as u64).into(),
                row.digest.into(),
                identity(new, filed).into(),
                row.about.into(),
                new.packed.as_slice().into(),
                new.source.as_str().into(),
                size(new).into(),
            ]
        });
        rows.execute(&mut *writing).await?;
    }
    Ok(())
}

/// The approximate size of a report in the database: its text, its rows and those of its texts in bytes. Each detail
/// counts, also where several are one row.
fn size(new: &NewReport) -> i64 {
    let report = &new.report;
    let rows = 2 + report.policies.len() + details(new);
    let of_details = report.policies.iter().flat_map(|policy| &policy.details).flat_map(|detail| {
        [detail.result_type.as_str(), detail.receiving_mx_hostname.as_deref().unwrap_or_default()]
    });
    let texts = [new.submitter.as_str(), organization(report), report.report_id.as_str()];
    // A text and its entry in the index.
    let long: usize =
        texts.into_iter().chain(of_details).map(|text| 2 * text.len().saturating_sub(LONG_TEXT_BYTES)).sum();
    count((new.packed.len() + ROW_BYTES * rows + long) as u64)
}

/// Texts up to this length are part of [`ROW_BYTES`].
const LONG_TEXT_BYTES: usize = 80;

/// The approximate size of an outcome or a failure with its index entries, the texts that it names and its sums. Measured:
/// 140 bytes for an outcome with a new domain of 20 characters, 130 for a failure with a new host, 160 for a report
/// without its text; and pages are not always full.
const ROW_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tenant;
    use crate::query::unnumbered;

    #[tokio::test]
    async fn reports_with_a_digest_are_found_by_its_index() {
        // The plan of SQLite, whichever database the other tests use.
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db"), Tenant::FIRST).await.unwrap();
        for count in [1, 10, BATCH_ROWS] {
            let values = std::iter::repeat_n(1_i64.into(), count + 1);
            let query = unnumbered(format!("EXPLAIN QUERY PLAN {}", with_digests(count)), values);
            let plan: Vec<(i64, i64, i64, String)> = query.fetch_all(&store).await.unwrap();
            assert!(plan.iter().any(|step| step.3.contains("report_digest")), "{count}: {plan:#?}");
        }
    }
}
