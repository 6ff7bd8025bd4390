//! Reports on their way to those who asked for them, and what became of them (RFC 8460 §5).
//!
//! A report is built once for a day and a domain. What a target accepted is written down at once, so that only a
//! crash between its acceptance and that can send it again.

use crate::{Store, StoreError, count, damaged, stored, time};
use formats::DomainName;
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

/// A report that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOutgoing {
    /// The day that it is about, by its first second.
    pub day: Timestamp,
    /// About whom.
    pub domain: DomainName,
    /// Its `report-id`.
    pub report_id: String,
    /// Its text, packed by gzip.
    pub packed: Vec<u8>,
    /// Sessions that worked.
    pub successful: u64,
    /// Sessions that did not.
    pub failed: u64,
    /// When it is to go.
    pub due: Timestamp,
}

/// Where a report stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryState {
    /// It is to go, for the first time or again.
    Waiting,
    /// A target took it.
    Sent,
    /// The domain asks for no reports.
    Unwanted,
    /// Nobody took it for a day.
    GivenUp,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Sent, Self::Unwanted, Self::GivenUp];

    /// Its word.
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

/// A report on its way, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its number.
    pub id: i64,
    /// The day that it is about, by its first second.
    pub day: Timestamp,
    /// About whom.
    pub domain: DomainName,
    /// Its `report-id`.
    pub report_id: String,
    /// Sessions that worked.
    pub successful: u64,
    /// Sessions that did not.
    pub failed: u64,
    /// Where it stands.
    pub state: DeliveryState,
    /// Rounds of sending so far.
    pub tries: u32,
    /// When it goes next.
    pub due: Timestamp,
    /// When it went first.
    pub first_try: Option<Timestamp>,
    /// What is to be said about it.
    pub said: String,
}

/// Whether a target takes a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It did.
    Accepted,
    /// Not now.
    Failed,
    /// Not now and not later.
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

/// What one target made of a report.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TargetState {
    /// The `mailto:` or `https:` URI.
    pub target: String,
    /// Whether it took the report.
    pub reply: Reply,
    /// Times that it was tried.
    pub tries: u32,
    /// The last time.
    pub at: Timestamp,
    /// What it said.
    pub said: String,
}

/// Which reports are listed; the newest days first.
#[derive(Debug, Clone, Default)]
pub struct OutgoingFilter {
    /// About this domain.
    pub domain: Option<DomainName>,
    /// About this day.
    pub day: Option<Timestamp>,
    /// In this state.
    pub state: Option<DeliveryState>,
    /// At most so many.
    pub most: u32,
}

const COLUMNS: &str = "id, day, domain, report_id, successful, failed, state, tries, due, first_try, said";

impl Store {
    /// Puts reports in line. One that is there already stays as it is.
    pub async fn put_outgoing(&self, reports: &[NewOutgoing]) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        for chunk in reports.chunks(200) {
            let mut sql = QueryBuilder::<Sqlite>::new(
                "INSERT INTO outgoing (day, domain, report_id, packed, successful, failed, state, tries, due, first_try, said) ",
            );
            sql.push_values(chunk, |mut row, report| {
                row.push_bind(report.day.as_second())
                    .push_bind(report.domain.as_str())
                    .push_bind(report.report_id.as_str())
                    .push_bind(report.packed.as_slice())
                    .push_bind(stored(report.successful))
                    .push_bind(stored(report.failed))
                    .push_bind(DeliveryState::Waiting.as_str())
                    .push_bind(0_i64)
                    .push_bind(report.due.as_second())
                    .push_bind(0_i64)
                    .push_bind("");
            });
            sql.push(" ON CONFLICT (day, domain) DO NOTHING");
            sql.build().persistent(false).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Lets nothing more be counted for a day; `is_built` says that every report of it is built.
    pub async fn close_day(&self, day: Timestamp, is_built: bool) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO reported_day (day, is_built) VALUES ($1, $2) ON CONFLICT (day) DO UPDATE SET is_built = excluded.is_built",
        )
        .bind(day.as_second())
        .bind(i64::from(is_built))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Reports whose time has come, those that wait longest first; those after `after` of a list before.
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
        let query = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(now.as_second())
            .bind(after.map_or(i64::MIN, |last| last.due.as_second()))
            .bind(after.map_or(0, |last| last.id))
            .bind(i64::from(most));
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Reports by what is wanted.
    pub async fn outgoing(&self, wanted: &OutgoingFilter) -> Result<Vec<Outgoing>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM outgoing WHERE ($1 IS NULL OR domain = $1) AND ($2 IS NULL OR day = $2)
             AND ($3 IS NULL OR state = $3) ORDER BY day DESC, domain LIMIT $4"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(wanted.domain.as_ref().map(DomainName::as_str))
            .bind(wanted.day.map(Timestamp::as_second))
            .bind(wanted.state.map(DeliveryState::as_str))
            .bind(i64::from(wanted.most));
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// The report of a number.
    pub async fn outgoing_by_id(&self, id: i64) -> Result<Option<Outgoing>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM outgoing WHERE id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(read).transpose()
    }

    /// The text of a report, packed.
    pub async fn outgoing_text(&self, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query_scalar("SELECT packed FROM outgoing WHERE id = $1").bind(id);
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// What each target made of a report.
    pub async fn outgoing_targets(&self, id: i64) -> Result<Vec<TargetState>, StoreError> {
        let rows: Vec<(String, String, i64, i64, String)> = sqlx::query_as(
            "SELECT target, state, tries, at, said FROM outgoing_target WHERE outgoing = $1 ORDER BY target",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(target, state, tries, at, said)| {
                let tries = u32::try_from(tries).unwrap_or(u32::MAX);
                let reply = Reply::ALL.into_iter().find(|reply| reply.as_str() == state);
                let reply =
                    reply.ok_or_else(|| damaged("outgoing_target")(format!("the state {state:?}")))?;
                Ok(TargetState { target, reply, tries, at: time("outgoing_target", at)?, said })
            })
            .collect()
    }

    /// Writes down what a target made of a report.
    pub async fn put_target(
        &self,
        id: i64,
        target: &str,
        reply: Reply,
        at: Timestamp,
        said: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO outgoing_target (outgoing, target, state, tries, at, said) VALUES ($1, $2, $3, 1, $4, $5)
             ON CONFLICT (outgoing, target) DO UPDATE SET state = excluded.state, tries = outgoing_target.tries + 1,
             at = excluded.at, said = excluded.said",
        )
        .bind(id)
        .bind(target)
        .bind(reply.as_str())
        .bind(at.as_second())
        .bind(said)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Writes down where a report stands after a round.
    pub async fn put_round(&self, report: &Outgoing) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE outgoing SET state = $2, tries = $3, due = $4, first_try = $5, said = $6 WHERE id = $1",
        )
        .bind(report.id)
        .bind(report.state.as_str())
        .bind(i64::from(report.tries))
        .bind(report.due.as_second())
        .bind(report.first_try.map_or(0, Timestamp::as_second))
        .bind(report.said.as_str())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Lets a report go again to all of its targets, as if it never went.
    pub async fn send_again(&self, id: i64, due: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        sqlx::query("DELETE FROM outgoing_target WHERE outgoing = $1")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "UPDATE outgoing SET state = 'waiting', tries = 0, due = $2, first_try = 0, said = '' WHERE id = $1",
        )
        .bind(id)
        .bind(due.as_second())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// How many reports stand where.
    pub async fn outgoing_counts(&self) -> Result<Vec<(DeliveryState, u64)>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as("SELECT state, COUNT(*) FROM outgoing GROUP BY state")
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(|(state, rows)| Ok((DeliveryState::parse(&state)?, count(rows)))).collect()
    }

    /// Forgets reports about days before `before`.
    pub async fn forget_outgoing(&self, before: Timestamp) -> Result<(), StoreError> {
        for table in ["outgoing", "reported_day"] {
            let sql = format!("DELETE FROM {table} WHERE day < $1");
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(before.as_second()).execute(&self.pool).await?;
        }
        Ok(())
    }
}

fn read(row: &SqliteRow) -> Result<Outgoing, StoreError> {
    let first: i64 = row.try_get("first_try")?;
    Ok(Outgoing {
        id: row.try_get("id")?,
        day: time("outgoing", row.try_get("day")?)?,
        domain: DomainName::parse(row.try_get("domain")?).map_err(damaged("outgoing"))?,
        report_id: row.try_get("report_id")?,
        successful: count(row.try_get("successful")?),
        failed: count(row.try_get("failed")?),
        state: DeliveryState::parse(row.try_get("state")?)?,
        tries: u32::try_from(row.try_get::<i64, _>("tries")?).unwrap_or(u32::MAX),
        due: time("outgoing", row.try_get("due")?)?,
        first_try: if first == 0 { None } else { Some(time("outgoing", first)?) },
        said: row.try_get("said")?,
    })
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
    async fn a_report_is_put_in_line_once_and_goes_when_it_is_due() {
        let (_dir, store) = crate::scratch().await;
        store.put_outgoing(&[report("a.example", 100), report("b.example", 50)]).await.unwrap();
        let other = NewOutgoing { packed: vec![9], due: at(1), ..report("a.example", 0) };
        store.put_outgoing(&[other]).await.unwrap();
        assert_eq!(store.due_outgoing(at(49), None, 10).await.unwrap(), []);
        let due = store.due_outgoing(at(100), None, 10).await.unwrap();
        assert_eq!(due.iter().map(|one| one.domain.as_str()).collect::<Vec<_>>(), ["b.example", "a.example"]);
        assert_eq!(store.due_outgoing(at(100), Some(&due[0]), 10).await.unwrap(), due[1..]);
        assert_eq!(store.outgoing_text(due[1].id).await.unwrap(), Some(vec![1, 2, 3]));
        let mut sent = due[0].clone();
        store.put_target(sent.id, "mailto:x@b.example", Reply::Failed, at(100), "busy").await.unwrap();
        store.put_target(sent.id, "mailto:x@b.example", Reply::Accepted, at(200), "250").await.unwrap();
        (sent.state, sent.tries, sent.first_try, sent.said) =
            (DeliveryState::Sent, 2, Some(at(100)), "ok".into());
        store.put_round(&sent).await.unwrap();
        assert_eq!(store.due_outgoing(at(1000), None, 10).await.unwrap().len(), 1);
        let wanted =
            OutgoingFilter { domain: Some(sent.domain.clone()), most: 10, ..OutgoingFilter::default() };
        assert_eq!(store.outgoing(&wanted).await.unwrap(), [sent.clone()]);
        let targets = store.outgoing_targets(sent.id).await.unwrap();
        assert_eq!(
            (targets[0].reply, targets[0].tries, targets[0].said.as_str()),
            (Reply::Accepted, 2, "250")
        );
        assert_eq!(
            store.outgoing_counts().await.unwrap(),
            [(DeliveryState::Sent, 1), (DeliveryState::Waiting, 1)]
        );
        store.send_again(sent.id, at(300)).await.unwrap();
        assert_eq!(store.outgoing_targets(sent.id).await.unwrap(), []);
        assert_eq!(store.due_outgoing(at(300), None, 10).await.unwrap().len(), 2);
        store.forget_outgoing(at(86_401)).await.unwrap();
        assert_eq!(
            store.outgoing(&OutgoingFilter { most: 9, ..OutgoingFilter::default() }).await.unwrap(),
            []
        );
    }
}
