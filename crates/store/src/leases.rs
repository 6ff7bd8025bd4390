//! Leases: they keep processes that share the database from doing the same work at once, such as applying a rollout or
//! ordering a certificate.
//!
//! A lease has a name, a holder, an end and a fence. The holder renews it while it works and releases it afterwards. A holder
//! that was killed can do neither: [`LeaseHolder`] therefore says which process it is, and [`Store::acquire`] takes the lease of
//! a process of this machine that no longer runs. The lease of a process elsewhere ends by itself, or by
//! [`Store::take_lease`], which an operator decides.
//!
//! On PostgreSQL leases begin and end by the clock of the database, so that the clocks of the machines do not matter. Processes
//! that share an SQLite file share a machine, and count from its start (`steady`), so that setting its clock neither ends a
//! lease nor extends it. A lease that ends later than any can was given by a clock that was ahead and was set right since, and is
//! over.
//!
//! A process that stands still for longer than its lease does not know that it has lost it. Therefore each new holder gets a
//! larger fence, and [`Store::under`] returns a handle whose writes take place only while the lease has the fence of its
//! holder. Whether other effects may still begin, such as a change of DNS records, is said by [`HeldLease::is_over`]: by the
//! monotonic clock of this process, a second before others may get the lease.

mod held;
mod holder;
mod steady;

pub use held::HeldLease;
pub use holder::LeaseHolder;

use crate::query::{Dialect, built, sql};
use crate::writing::Writing;
use crate::{Store, StoreError, time};
use jiff::Timestamp;
use std::time::Duration;

/// More than any lease lasts.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A lease that has not been released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The text that names the holder.
    pub holder: String,
    /// When the lease ends unless the holder renews it.
    pub until: Timestamp,
}

impl Lease {
    /// Reads a row. A lease without an end, by the latest time that there is, ends after it by PostgreSQL's clock.
    fn read(holder: String, until: i64) -> Result<Self, StoreError> {
        Ok(Self { holder, until: time("lease", until.min(Timestamp::MAX.as_second()))? })
    }

    /// The host name and process ID of the holder; `None` if an older release wrote another text.
    pub fn process(&self) -> Option<(&str, u32)> {
        let mut words = self.holder.split_whitespace();
        Some((words.next()?, words.next()?.parse().ok()?))
    }
}

/// When a lease begins and ends, in seconds: on SQLite of the steady time, on PostgreSQL only the difference counts.
#[derive(Debug, Clone, Copy)]
struct Span {
    now: i64,
    until: i64,
}

impl Span {
    /// At least `length`, since the database has whole seconds.
    fn of(now: Timestamp, length: Duration) -> Self {
        let begun = i64::from(now.subsec_nanosecond() != 0).saturating_add(now.as_second());
        let seconds = length.as_secs().saturating_add(u64::from(length.subsec_nanos() != 0));
        Self { now: now.as_second(), until: begun.saturating_add_unsigned(seconds) }
    }
}

/// SQL for the present second: by PostgreSQL's own clock, or on SQLite a parameter.
pub(crate) fn present(dialect: Dialect, parameter: &'static str) -> &'static str {
    dialect.pick(parameter, "CAST(floor(extract(epoch FROM clock_timestamp())) AS BIGINT)")
}

/// SQL for the end of a lease, whose parameters `$3` and `$4` are its [`Span`]. The second that has begun counts in addition.
fn end(dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => "$4".to_owned(),
        #[cfg(feature = "postgres")]
        Dialect::Postgres => format!("{} + 1 + ($4 - $3)", present(dialect, "")),
    }
}

impl Store {
    /// Acquires the lease `name` for a length of time, or renews it, which keeps its fence. `None` while a different holder has
    /// it. The lease of a [`LeaseHolder`] whose process has ended is taken over.
    pub async fn acquire(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        length: Duration,
    ) -> Result<Option<HeldLease>, StoreError> {
        let begun = held::since_boot();
        let span = Span::of(self.steady_time(now).await?, length);
        let fence = self.acquire_for(name, holder, span).await?;
        Ok(fence.map(|fence| HeldLease::new(name, holder, fence, begun, length)))
    }

    async fn acquire_for(&self, name: &str, holder: &str, span: Span) -> Result<Option<i64>, StoreError> {
        let taken = match self.try_lease(name, holder, span).await {
            // The answer may be what was lost. For the same holder the second time changes nothing.
            Err(StoreError::Unreachable { .. }) => self.try_lease(name, holder, span).await?,
            done => done?,
        };
        if taken.is_some() {
            return Ok(taken);
        }
        match self.lease_of(name).await? {
            Some(other) if LeaseHolder::parse(&other.holder).is_some_and(|other| other.is_dead()) => {
                self.take_from(name, &other.holder, holder, span).await
            }
            Some(_) => Ok(None),
            // It was released between the two statements.
            None => self.try_lease(name, holder, span).await,
        }
    }

    async fn try_lease(&self, name: &str, holder: &str, span: Span) -> Result<Option<i64>, StoreError> {
        let mut writing = self.unfenced().writing().await?;
        let now = present(writing.dialect(), "$3");
        let end = end(writing.dialect());
        let insert = built(format!(
            "INSERT INTO lease (name, holder, expires_at, fence) VALUES ($1, $2, {end}, 1) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at, \
             fence = CASE WHEN lease.holder = excluded.holder THEN lease.fence ELSE lease.fence + 1 END \
             WHERE lease.holder = excluded.holder OR lease.expires_at <= {now} OR lease.expires_at > {now} + $5 \
             RETURNING fence"
        ));
        let longest = i64::try_from(LONGEST.as_secs()).unwrap_or(i64::MAX);
        let insert = insert.bind(name).bind(holder).bind(span.now).bind(span.until).bind(longest);
        let row: Option<(i64,)> = insert.fetch_optional(&mut writing).await?;
        writing.commit().await?;
        Ok(row.map(|(fence,)| fence))
    }

    /// Extends a lease by its length. False if another holder has got it since, or if it was released: then it is over.
    pub async fn renew(&self, lease: &HeldLease, now: Timestamp) -> Result<bool, StoreError> {
        let begun = held::since_boot();
        let span = Span::of(self.steady_time(now).await?, lease.length());
        let renewed = match self.try_renew(lease, span).await {
            Err(StoreError::Unreachable { .. }) => self.try_renew(lease, span).await?,
            done => done?,
        };
        if renewed {
            lease.extend(begun)
        } else {
            lease.give_up()
        }
        Ok(renewed)
    }

    async fn try_renew(&self, lease: &HeldLease, span: Span) -> Result<bool, StoreError> {
        let mut writing = self.unfenced().writing().await?;
        let is_renewed = extend(&mut writing, lease, span).await?;
        writing.commit().await?;
        Ok(is_renewed)
    }

    /// Renews several leases in one transaction. Those that another holder has got since are over afterwards.
    pub async fn renew_all(&self, leases: &[HeldLease], now: Timestamp) -> Result<(), StoreError> {
        let begun = held::since_boot();
        let now = self.steady_time(now).await?;
        // In the order of the names, so that two transactions do not wait for each other.
        let mut leases: Vec<&HeldLease> = leases.iter().collect();
        leases.sort_by(|one, other| one.name().cmp(other.name()));
        let mut writing = self.unfenced().writing().await?;
        let mut renewed = Vec::with_capacity(leases.len());
        for lease in leases {
            let span = Span::of(now, lease.length());
            renewed.push((lease, extend(&mut writing, lease, span).await?));
        }
        writing.commit().await?;
        for (lease, is_renewed) in renewed {
            if is_renewed { lease.extend(begun) } else { lease.give_up() }
        }
        Ok(())
    }

    /// Returns a lease that was not released, also one that has ended.
    pub async fn lease_of(&self, name: &str) -> Result<Option<Lease>, StoreError> {
        let row: Option<(String, i64)> =
            sql("SELECT holder, expires_at FROM lease WHERE name = $1 AND holder <> ''")
                .bind(name)
                .fetch_optional(self)
                .await?;
        row.map(|(holder, until)| Lease::read(holder, until)).transpose()
    }

    /// Returns a lease that has not ended.
    pub async fn lease_in_force(&self, name: &str, now: Timestamp) -> Result<Option<Lease>, StoreError> {
        let select = built(format!(
            "SELECT holder, expires_at FROM lease WHERE name = $1 AND holder <> '' AND expires_at > {}",
            present(self.dialect(), "$2")
        ));
        let select = select.bind(name).bind(self.steady_time(now).await?.as_second());
        let row: Option<(String, i64)> = select.fetch_optional(self).await?;
        row.map(|(holder, until)| Lease::read(holder, until)).transpose()
    }

    /// Returns the leases whose names begin with `prefix` and that have not ended, by their names.
    pub async fn leases_in_force(
        &self,
        prefix: &str,
        now: Timestamp,
    ) -> Result<Vec<(String, Lease)>, StoreError> {
        let select = built(format!(
            "SELECT name, holder, expires_at FROM lease \
             WHERE name >= $1 AND name < $2 AND holder <> '' AND expires_at > {} ORDER BY name",
            present(self.dialect(), "$3")
        ));
        // Each name with the prefix is before the prefix with the last character that there is.
        let end = format!("{prefix}{}", char::MAX);
        let select = select.bind(prefix).bind(end).bind(self.steady_time(now).await?.as_second());
        let rows: Vec<(String, String, i64)> = select.fetch_all(self).await?;
        let read = |(name, holder, until)| Ok((name, Lease::read(holder, until)?));
        rows.into_iter().map(read).collect()
    }

    /// Gives the lease of `from` to `holder`, although it has not ended. `None` if `from` does not have it any more.
    pub async fn take_lease(
        &self,
        name: &str,
        from: &str,
        holder: &str,
        now: Timestamp,
        length: Duration,
    ) -> Result<Option<HeldLease>, StoreError> {
        let begun = held::since_boot();
        let span = Span::of(self.steady_time(now).await?, length);
        let fence = self.take_from(name, from, holder, span).await?;
        Ok(fence.map(|fence| HeldLease::new(name, holder, fence, begun, length)))
    }

    async fn take_from(
        &self,
        name: &str,
        from: &str,
        holder: &str,
        span: Span,
    ) -> Result<Option<i64>, StoreError> {
        let mut writing = self.unfenced().writing().await?;
        let update = built(format!(
            "UPDATE lease SET holder = $2, expires_at = {}, fence = fence + 1 \
             WHERE name = $1 AND holder = $5 RETURNING fence",
            end(writing.dialect())
        ));
        let update = update.bind(name).bind(holder).bind(span.now).bind(span.until).bind(from);
        let row: Option<(i64,)> = update.fetch_optional(&mut writing).await?;
        writing.commit().await?;
        Ok(row.map(|(fence,)| fence))
    }

    /// Releases a lease. Does nothing unless `holder` has it. The next holder gets a larger fence.
    pub async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        sql("UPDATE lease SET holder = '', expires_at = 0 WHERE name = $1 AND holder = $2")
            .bind(name)
            .bind(holder)
            .execute(&self.unfenced())
            .await?;
        Ok(())
    }

    /// Releases a lease. Does nothing if it is not this one any more.
    pub async fn give_back(&self, lease: &HeldLease) -> Result<(), StoreError> {
        lease.give_up();
        let update = sql(
            "UPDATE lease SET holder = '', expires_at = 0 WHERE name = $1 AND holder = $2 AND fence = $3",
        );
        let update = update.bind(lease.name()).bind(lease.holder()).bind(lease.fence());
        update.execute(&self.unfenced()).await.map(drop)
    }

    /// A handle for the work under a lease. Each of its writes first checks that the lease is still this one, in the same
    /// transaction, and keeps others from getting the lease until the write is done.
    ///
    /// # Errors
    ///
    /// Writes fail with [`StoreError::LeaseLost`], and change nothing, if the lease is over or another holder got it.
    pub fn under(&self, lease: &HeldLease) -> Self {
        Self { lease: Some(lease.clone()), ..self.clone() }
    }

    /// Fails if this handle belongs to a lease that is over. To be called before an effect outside the database.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`].
    pub fn check_lease(&self) -> Result<(), StoreError> {
        match &self.lease {
            Some(lease) if lease.is_over() => Err(StoreError::LeaseLost { name: lease.name().to_owned() }),
            _ => Ok(()),
        }
    }

    fn unfenced(&self) -> Self {
        Self { lease: None, ..self.clone() }
    }
}

/// Extends a lease. False if it is not this one any more.
async fn extend(writing: &mut Writing, lease: &HeldLease, span: Span) -> Result<bool, StoreError> {
    let update = built(format!(
        "UPDATE lease SET expires_at = {} WHERE name = $1 AND holder = $2 AND fence = $5",
        end(writing.dialect())
    ));
    let update = update.bind(lease.name()).bind(lease.holder()).bind(span.now).bind(span.until);
    Ok(update.bind(lease.fence()).execute(writing).await? > 0)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod paused;
#[cfg(test)]
mod tests;
