//! Outgoing TLS reports and their delivery results (RFC 8460 §5). The report scheduler adds and updates them; commands
//! and the dashboard list them.
//!
//! There is one report per UTC day and domain, and it is built once. Several processes deliver reports by claims
//! ([`Store::claim_outgoing`]). Each target's reply is stored at once, so that a report is sent twice only after a crash
//! between the reply and that write.

use crate::claims::latest;
use crate::query::{FromRow, Row, built, insert, sql};
use crate::writing::{Counter, Tries, Writing};
use crate::{Store, StoreError, count, damaged, stored, time};
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};

/// More than any report waits for its next attempt: the retries of a report are spread over a day.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(48);

/// A newly built report, to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOutgoing {
    /// The first second of the UTC day that the report covers.
    pub day: Timestamp,
    /// The domain that the report is about.
    pub domain: DomainName,
    /// The report's `report-id`.
    pub report_id: String,
    /// The report's JSON text, compressed by gzip.
    pub packed: Vec<u8>,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
    /// When the first delivery attempt is due.
    pub due: Timestamp,
}

/// The delivery state of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryState {
    /// The first or next delivery attempt is due at `due`.
    Waiting,
    /// At least one target accepted the report.
    Sent,
    /// The domain publishes no valid `_smtp._tls` record, so the report is not sent.
    Unwanted,
    /// Every target refused the report, or none accepted it within `REPORT_LIFE`.
    GivenUp,
}

impl DeliveryState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Sent, Self::Unwanted, Self::GivenUp];

    /// The state's name in the database and in command options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Unwanted => "unwanted",
            Self::GivenUp => "given-up",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| damaged("outgoing")(format!("the state {text:?}")))
    }
}

/// An outgoing report without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The row id, which commands show as the report's number.
    pub id: i64,
    /// The first second of the UTC day that the report covers.
    pub day: Timestamp,
    /// The domain that the report is about.
    pub domain: DomainName,
    /// The report's `report-id`.
    pub report_id: String,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
    /// The delivery state.
    pub state: DeliveryState,
    /// The number of rounds so far in which no target accepted the report.
    pub tries: u32,
    /// When the next attempt is due; no meaning unless the state is [`DeliveryState::Waiting`]. While a process delivers the
    /// report, the end of its claim.
    pub due: Timestamp,
    /// The time of the first attempt that did not settle the report. `None` before that.
    pub first_try: Option<Timestamp>,
    /// The outcome of the last round in words, for people; empty if there is nothing to report.
    pub outcome_text: String,
    /// The number of the last claim. Results of earlier claims are not stored.
    pub claim: i64,
}

/// How a target replied to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The target accepted the report.
    Accepted,
    /// The attempt failed temporarily and is retried.
    Failed,
    /// The target refused the report permanently.
    Refused,
}

impl Reply {
    const ALL: [Self; 3] = [Self::Accepted, Self::Failed, Self::Refused];

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// The delivery result of a report at one target.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TargetState {
    /// The `mailto:` or `https:` URI.
    pub target: String,
    /// Whether the last attempt was accepted, failed or was refused.
    pub reply: Reply,
    /// The number of delivery attempts to this target.
    pub tries: u32,
    /// The time of the last attempt.
    pub at: Timestamp,
    /// The target's last reply, or the error, in words.
    #[serde(rename = "said")]
    pub reply_text: String,
}

/// Selects the reports that [`Store::outgoing`] returns. `None` matches everything.
#[derive(Debug, Clone, Default)]
pub struct OutgoingFilter {
    /// Reports about this domain.
    pub domain: Option<DomainName>,
    /// Reports about the UTC day that begins at this second.
    pub day: Option<Timestamp>,
    /// Reports in this state.
    pub state: Option<DeliveryState>,
    /// The maximum number of reports to return.
    pub most: u32,
}

const COLUMNS: &str =
    "id, day, domain, report_id, successful, failed, state, tries, due, first_try, said, claim";

impl Store {
    /// Queues reports for delivery. A report whose day and domain are already queued is ignored. Returns the number of
    /// queued reports.
    pub async fn put_outgoing(&self, reports: &[NewOutgoing]) -> Result<u64, StoreError> {
        let mut queued = 0;
        let mut transaction = self.writing().await?;
        let mut reports: Vec<&NewOutgoing> = reports.iter().collect();
        reports.sort_by(|one, other| (one.day, &one.domain).cmp(&(other.day, &other.domain)));
        for chunk in reports.chunks(200) {
            let head = "INSERT INTO outgoing (day, domain, report_id, packed, successful, failed, state, tries, due, first_try, said)";
            let rows = insert(head, chunk, "ON CONFLICT (day, domain) DO NOTHING", |report| {
                [
                    report.day.as_second().into(),
                    report.domain.as_str().into(),
                    report.report_id.as_str().into(),
                    report.packed.as_slice().into(),
                    stored(report.successful).into(),
                    stored(report.failed).into(),
                    DeliveryState::Waiting.as_str().into(),
                    0_i64.into(),
                    report.due.as_second().into(),
                    0_i64.into(),
                    "".into(),
                ]
            });
            queued += rows.kept(false).execute(&mut transaction).await?;
        }
        transaction.commit().await?;
        Ok(queued)
    }

    /// Closes a day: [`Store::add_tallies`] rejects further counts for it. `is_built` is true once all reports of the
    /// day are built. A day whose reports are built stays so: another process may close it once more.
    pub async fn close_day(&self, day: Timestamp, is_built: bool) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        // Waits for the transactions that add to the day.
        transaction.increase(Counter::ClosedDays, 1).await?;
        sql(
            "INSERT INTO reported_day (day, is_built) VALUES ($1, $2) ON CONFLICT (day) DO UPDATE SET is_built = excluded.is_built
             WHERE reported_day.is_built < excluded.is_built",
        )
        .bind(day.as_second())
        .bind(is_built)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await
    }

    /// Claims up to `most` reports that are due at `now`, the longest due first, until `until`. No other process gets them
    /// before that time. The claim is renewed by [`Self::hold_outgoing`], and ends with [`Self::update_outgoing`].
    pub async fn claim_outgoing(
        &self,
        now: Timestamp,
        until: Timestamp,
        most: u32,
    ) -> Result<Vec<Outgoing>, StoreError> {
        let mut tries = Tries::default();
        loop {
            let mut transaction = self.writing().await?;
            let claimed = claim(&mut transaction, now, until, most).await;
            if tries.again(&claimed) {
                transaction.rollback().await?;
                continue;
            }
            let claimed = claimed?;
            transaction.commit().await?;
            return Ok(claimed);
        }
    }

    /// Renews the claim of a report until `until`. False, and nothing is changed, if it has been claimed or queued again since.
    pub async fn hold_outgoing(&self, report: &Outgoing, until: Timestamp) -> Result<bool, StoreError> {
        let query = sql("UPDATE outgoing SET due = $3 WHERE id = $1 AND claim = $2 AND state = 'waiting'");
        let held = query.bind(report.id).bind(report.claim).bind(until.as_second()).execute(self).await?;
        Ok(held > 0)
    }

    /// Returns the reports that match `filter`, newest day first.
    pub async fn outgoing(&self, filter: &OutgoingFilter) -> Result<Vec<Outgoing>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM outgoing WHERE ($1 IS NULL OR domain = $1) AND ($2 IS NULL OR day = $2)
             AND ($3 IS NULL OR state = $3) ORDER BY day DESC, domain LIMIT $4"
        );
        let query = built(sql)
            .bind(filter.domain.as_ref().map(DomainName::as_str))
            .bind(filter.day.map(Timestamp::as_second))
            .bind(filter.state.map(DeliveryState::as_str))
            .bind(i64::from(filter.most));
        query.fetch_all(self).await
    }

    /// Returns the report with this row id.
    pub async fn outgoing_by_id(&self, id: i64) -> Result<Option<Outgoing>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM outgoing WHERE id = $1");
        built(sql).bind(id).fetch_optional(self).await
    }

    /// Returns the gzip-compressed JSON text of a report.
    pub async fn outgoing_text(&self, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sql("SELECT packed FROM outgoing WHERE id = $1").bind(id);
        Ok(query.fetch_optional(self).await?.map(|(packed,)| packed))
    }

    /// Returns the delivery results of a report, ordered by target.
    pub async fn outgoing_targets(&self, id: i64) -> Result<Vec<TargetState>, StoreError> {
        let rows: Vec<(String, String, i64, i64, String)> = sql(
            "SELECT target, state, tries, at, said FROM outgoing_target WHERE outgoing = $1 ORDER BY target",
        )
        .bind(id)
        .fetch_all(self)
        .await?;
        rows.into_iter()
            .map(|(target, state, tries, at, reply_text)| {
                let tries = u32::try_from(tries).unwrap_or(u32::MAX);
                let reply = Reply::ALL.into_iter().find(|reply| reply.as_str() == state);
                let reply =
                    reply.ok_or_else(|| damaged("outgoing_target")(format!("the state {state:?}")))?;
                Ok(TargetState { target, reply, tries, at: time("outgoing_target", at)?, reply_text })
            })
            .collect()
    }

    /// Records a target's reply to a report, and counts one more attempt there. If the report has been claimed or queued
    /// again since, only an acceptance is recorded.
    pub async fn put_target(
        &self,
        report: &Outgoing,
        target: &str,
        reply: Reply,
        at: Timestamp,
        reply_text: &str,
    ) -> Result<(), StoreError> {
        sql("INSERT INTO outgoing_target (outgoing, target, state, tries, at, said)
             SELECT id, $2, $3, 1, $4, $5 FROM outgoing WHERE id = $1 AND (claim = $6 OR $3 = 'accepted')
             ON CONFLICT (outgoing, target) DO UPDATE SET state = excluded.state, tries = outgoing_target.tries + 1,
             at = excluded.at, said = excluded.said")
        .bind(report.id)
        .bind(target)
        .bind(reply.as_str())
        .bind(at.as_second())
        .bind(reply_text)
        .bind(report.claim)
        .execute(self)
        .await?;
        Ok(())
    }

    /// Stores state, attempts, times and outcome of a report after a round of delivery, which ends the claim. False, and nothing
    /// is changed, if the report has been claimed or queued again since.
    pub async fn update_outgoing(&self, report: &Outgoing) -> Result<bool, StoreError> {
        let updated = sql(
            "UPDATE outgoing SET state = $3, tries = $4, due = $5, first_try = $6, said = $7 WHERE id = $1 AND claim = $2",
        )
        .bind(report.id)
        .bind(report.claim)
        .bind(report.state.as_str())
        .bind(i64::from(report.tries))
        .bind(report.due.as_second())
        .bind(report.first_try.map_or(0, Timestamp::as_second))
        .bind(report.outcome_text.as_str())
        .execute(self)
        .await?;
        Ok(updated > 0)
    }

    /// Queues a report again for all of its targets, and deletes its delivery results so far. A delivery that runs does not
    /// end it.
    pub async fn requeue(&self, id: i64, due: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        sql("DELETE FROM outgoing_target WHERE outgoing = $1").bind(id).execute(&mut transaction).await?;
        sql(
            "UPDATE outgoing SET state = 'waiting', tries = 0, due = $2, first_try = 0, said = '', claim = claim + 1 WHERE id = $1",
        )
        .bind(id)
        .bind(due.as_second())
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Returns the number of reports in each state that occurs.
    pub async fn outgoing_counts(&self) -> Result<Vec<(DeliveryState, u64)>, StoreError> {
        let rows: Vec<(String, i64)> =
            sql("SELECT state, COUNT(*) FROM outgoing GROUP BY state ORDER BY state").fetch_all(self).await?;
        rows.into_iter().map(|(state, rows)| Ok((DeliveryState::parse(&state)?, count(rows)))).collect()
    }

    /// Deletes reports about days before `before`, and the record that these days are closed.
    pub async fn delete_outgoing(&self, before: Timestamp) -> Result<(), StoreError> {
        for table in ["outgoing", "reported_day"] {
            let sql = format!("DELETE FROM {table} WHERE day < $1");
            built(sql).bind(before.as_second()).execute(self).await?;
        }
        Ok(())
    }
}

async fn claim(
    writing: &mut Writing,
    now: Timestamp,
    until: Timestamp,
    most: u32,
) -> Result<Vec<Outgoing>, StoreError> {
    // What was planned by a clock that was ahead is due, and the time of its first attempt is unknown.
    sql("UPDATE outgoing SET due = $1, first_try = 0 WHERE state = 'waiting' AND due > $2")
        .bind(now.as_second())
        .bind(latest(now, LONGEST_WAIT))
        .execute(&mut *writing)
        .await?;
    // PostgreSQL checks the outer condition again when another process has changed the row; the array is selected once.
    let chosen = writing.dialect().pick(
        "IN (SELECT id FROM outgoing WHERE state = 'waiting' AND due <= $1 ORDER BY due, id LIMIT $3)",
        "= ANY (ARRAY(SELECT id FROM outgoing WHERE state = 'waiting' AND due <= $1 ORDER BY due, id LIMIT $3
           FOR UPDATE SKIP LOCKED))",
    );
    let text = format!(
        "UPDATE outgoing SET due = $2, claim = claim + 1 WHERE state = 'waiting' AND due <= $1 AND id {chosen} RETURNING {COLUMNS}"
    );
    let query = built(text).bind(now.as_second()).bind(until.as_second()).bind(most);
    let mut claimed: Vec<Outgoing> = query.fetch_all(writing).await?;
    claimed.sort_by_key(|report| report.id);
    Ok(claimed)
}

impl FromRow for Outgoing {
    /// Reads the [`COLUMNS`].
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get()?,
            day: time("outgoing", row.get()?)?,
            domain: DomainName::parse(&row.get::<String>()?).map_err(damaged("outgoing"))?,
            report_id: row.get()?,
            successful: count(row.get()?),
            failed: count(row.get()?),
            state: DeliveryState::parse(&row.get::<String>()?)?,
            tries: u32::try_from(row.get::<i64>()?).unwrap_or(u32::MAX),
            due: time("outgoing", row.get()?)?,
            first_try: match row.get()? {
                0 => None,
                first => Some(time("outgoing", first)?),
            },
            outcome_text: row.get()?,
            claim: row.get()?,
        })
    }
}

#[cfg(test)]
mod tests;
