//! Outgoing TLS reports and their delivery results (RFC 8460 §5). The report scheduler adds and updates them; commands
//! and the dashboard list them.
//!
//! There is one report per UTC day and domain, and it is built once. Each target's reply is stored at once, so that a
//! report is sent twice only after a crash between the reply and that write.

use crate::query::{FromRow, Row, built, insert, sql};
use crate::writing::Counter;
use crate::{Store, StoreError, count, damaged, stored, time};
use formats::DomainName;
use jiff::Timestamp;

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
    /// When the next attempt is due; no meaning unless the state is [`DeliveryState::Waiting`].
    pub due: Timestamp,
    /// The time of the first attempt that did not settle the report. `None` before that.
    pub first_try: Option<Timestamp>,
    /// The outcome of the last round in words, for people; empty if there is nothing to report.
    pub outcome_text: String,
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

const COLUMNS: &str = "id, day, domain, report_id, successful, failed, state, tries, due, first_try, said";

impl Store {
    /// Queues reports for delivery. A report whose day and domain are already queued is ignored.
    pub async fn put_outgoing(&self, reports: &[NewOutgoing]) -> Result<(), StoreError> {
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
            rows.kept(false).execute(&mut transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Closes a day: [`Store::add_tallies`] rejects further counts for it. `is_built` is true once all reports of the
    /// day are built.
    pub async fn close_day(&self, day: Timestamp, is_built: bool) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        // Waits for the transactions that add to the day.
        transaction.increase(Counter::ClosedDays, 1).await?;
        sql(
            "INSERT INTO reported_day (day, is_built) VALUES ($1, $2) ON CONFLICT (day) DO UPDATE SET is_built = excluded.is_built",
        )
        .bind(day.as_second())
        .bind(is_built)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await
    }

    /// Returns up to `most` due reports, the longest due first. To get the next page, pass the last report of this
    /// one as `after`.
    pub async fn due_outgoing(
        &self,
        now: Timestamp,
        after: Option<&Outgoing>,
        most: u32,
    ) -> Result<Vec<Outgoing>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM outgoing WHERE state = 'waiting' AND due <= $1 AND (due > $2 OR due = $2 AND id > $3)
             ORDER BY due, id LIMIT $4"
        );
        let query = built(sql)
            .bind(now.as_second())
            .bind(after.map_or(i64::MIN, |last| last.due.as_second()))
            .bind(after.map_or(0, |last| last.id))
            .bind(i64::from(most));
        query.fetch_all(self).await
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

    /// Records a target's reply to a report, and counts one more attempt there.
    pub async fn put_target(
        &self,
        id: i64,
        target: &str,
        reply: Reply,
        at: Timestamp,
        reply_text: &str,
    ) -> Result<(), StoreError> {
        sql(
            "INSERT INTO outgoing_target (outgoing, target, state, tries, at, said) VALUES ($1, $2, $3, 1, $4, $5)
             ON CONFLICT (outgoing, target) DO UPDATE SET state = excluded.state, tries = outgoing_target.tries + 1,
             at = excluded.at, said = excluded.said",
        )
        .bind(id)
        .bind(target)
        .bind(reply.as_str())
        .bind(at.as_second())
        .bind(reply_text)
        .execute(self)
        .await?;
        Ok(())
    }

    /// Stores state, attempts, times and outcome of a report after a round of delivery.
    pub async fn update_outgoing(&self, report: &Outgoing) -> Result<(), StoreError> {
        sql("UPDATE outgoing SET state = $2, tries = $3, due = $4, first_try = $5, said = $6 WHERE id = $1")
            .bind(report.id)
            .bind(report.state.as_str())
            .bind(i64::from(report.tries))
            .bind(report.due.as_second())
            .bind(report.first_try.map_or(0, Timestamp::as_second))
            .bind(report.outcome_text.as_str())
            .execute(self)
            .await?;
        Ok(())
    }

    /// Queues a report again for all of its targets, and deletes its delivery results so far.
    pub async fn requeue(&self, id: i64, due: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        sql("DELETE FROM outgoing_target WHERE outgoing = $1").bind(id).execute(&mut transaction).await?;
        sql(
            "UPDATE outgoing SET state = 'waiting', tries = 0, due = $2, first_try = 0, said = '' WHERE id = $1",
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn report(domain: &str, due: i64) -> NewOutgoing {
        NewOutgoing {
            day: at(86_400),
            domain: DomainName::parse(domain).unwrap(),
            report_id: format!("id of {domain}"),
            packed: vec![1, 2, 3],
            successful: 4,
            failed: 5,
            due: at(due),
        }
    }

    #[tokio::test]
    async fn a_report_is_queued_once_and_sent_when_due() {
        let (_dir, store) = crate::scratch().await;
        store.put_outgoing(&[report("a.example", 100), report("b.example", 50)]).await.unwrap();
        let other = NewOutgoing { packed: vec![9], due: at(1), ..report("a.example", 0) };
        store.put_outgoing(&[other]).await.unwrap();
        assert_eq!(store.due_outgoing(at(49), None, 10).await.unwrap(), []);
        let due = store.due_outgoing(at(100), None, 10).await.unwrap();
        assert_eq!(due.iter().map(|row| row.domain.as_str()).collect::<Vec<_>>(), ["b.example", "a.example"]);
        assert_eq!(store.due_outgoing(at(100), Some(&due[0]), 10).await.unwrap(), due[1..]);
        assert_eq!(store.outgoing_text(due[1].id).await.unwrap(), Some(vec![1, 2, 3]));
        let mut sent = due[0].clone();
        store.put_target(sent.id, "mailto:x@b.example", Reply::Failed, at(100), "busy").await.unwrap();
        store.put_target(sent.id, "mailto:x@b.example", Reply::Accepted, at(200), "250").await.unwrap();
        (sent.state, sent.tries, sent.first_try, sent.outcome_text) =
            (DeliveryState::Sent, 2, Some(at(100)), "ok".into());
        store.update_outgoing(&sent).await.unwrap();
        assert_eq!(store.due_outgoing(at(1000), None, 10).await.unwrap().len(), 1);
        let filter =
            OutgoingFilter { domain: Some(sent.domain.clone()), most: 10, ..OutgoingFilter::default() };
        assert_eq!(store.outgoing(&filter).await.unwrap(), [sent.clone()]);
        let targets = store.outgoing_targets(sent.id).await.unwrap();
        assert_eq!(
            (targets[0].reply, targets[0].tries, targets[0].reply_text.as_str()),
            (Reply::Accepted, 2, "250")
        );
        assert_eq!(
            store.outgoing_counts().await.unwrap(),
            [(DeliveryState::Sent, 1), (DeliveryState::Waiting, 1)]
        );
        store.requeue(sent.id, at(300)).await.unwrap();
        assert_eq!(store.outgoing_targets(sent.id).await.unwrap(), []);
        assert_eq!(store.due_outgoing(at(300), None, 10).await.unwrap().len(), 2);
        store.delete_outgoing(at(86_401)).await.unwrap();
        assert_eq!(
            store.outgoing(&OutgoingFilter { most: 9, ..OutgoingFilter::default() }).await.unwrap(),
            []
        );
    }
}
