//! Write transactions, used by all modules that make several changes at once.
//!
//! SQLx's own transactions are unsuitable. When the disk is full, SQLite rolls back by itself, but the SQLx
//! connection still counts the transaction as open, and every later transaction on that connection fails. [`Writing`]
//! instead closes its connection when it is dropped without an end, and the pool opens a new one.
//!
//! On SQLite a transaction has the database to itself from its beginning. On PostgreSQL others run beside it, so a
//! transaction that decides by what it reads first locks the row that decides ([`Writing::lock`]).

#[cfg(feature = "postgres")]
use crate::database::postgres;
use crate::database::{Database, sqlite};
use crate::leases::HeldLease;
use crate::query::{Dialect, Query, built, sql};
use crate::{Store, StoreError, Tenant};
use std::pin::Pin;
use std::time::Duration;

/// A write transaction. It is rolled back when it is dropped without a commit.
pub(crate) struct Writing {
    pub(crate) connection: Connection,
    /// The tenant whose rows are read and changed.
    pub(crate) tenant: Tenant,
    is_ended: bool,
    /// Whether references between tables are not checked.
    is_unchecked: bool,
}

pub(crate) enum Connection {
    Sqlite(sqlite::SqliteHandle),
    #[cfg(feature = "postgres")]
    Postgres(postgres::PgHandle),
}

/// A row of the table `version`. Numbers that others look for are taken from these rows within the transaction that
/// uses them: `MAX(version) + 1` could give one number twice, or a smaller number could become visible after a larger
/// one, which a reader of "all after" would miss for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    /// Increases with every change of the stored reports.
    Reports,
    /// The row id of the newest report.
    ReportId,
    /// The version of the last change of a served policy.
    Hosted,
    /// The version of the last change of a certificate.
    Certificate,
    /// Increases when a day is closed.
    ClosedDays,
    /// The last report id from before the quotas while the limits spare these reports, otherwise 0.
    EarlierReports,
    /// The last report id from before the quotas whose size is not computed; 0 if there is none.
    UnsizedReports,
    /// The Unix time since which the limits spare what was there before them, or 0.
    RetentionStart,
    /// The number of the newest tenant.
    TenantNumber,
}

impl Counter {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reports => "reports",
            Self::ReportId => "report id",
            Self::Hosted => "hosted",
            Self::Certificate => "certificate",
            Self::ClosedDays => "closed days",
            Self::EarlierReports => "earlier reports",
            Self::UnsizedReports => "unsized reports",
            Self::RetentionStart => "retention start",
            Self::TenantNumber => "tenant number",
        }
    }
}

/// A number of a tenant: a row of the table `tenant_counter`, which exists once the number has been changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TenantCounter {
    /// The number of stored reports.
    ReportCount,
    /// The number of items that the quota of the quarantine removed.
    QuarantineEvicted,
    /// The number of items that were deleted from the quarantine because of their age.
    QuarantineExpired,
    /// The number of unverified reports that their limits removed.
    ReportsEvicted,
}

impl TenantCounter {
    fn name(self) -> &'static str {
        match self {
            Self::ReportCount => "report count",
            Self::QuarantineEvicted => "quarantine evicted",
            Self::QuarantineExpired => "quarantine expired",
            Self::ReportsEvicted => "reports evicted",
        }
    }

    /// The statement that adds a number to a counter of a tenant.
    fn addition<'v>(self, tenant: Tenant, by: i64) -> Query<'v> {
        let query = sql("INSERT INTO tenant_counter (tenant, name, value) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, name) DO UPDATE SET value = tenant_counter.value + excluded.value");
        query.bind(tenant).bind(self.name()).bind(by)
    }
}

/// How a row is locked until the end of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Against changes and all locks.
    Alone,
    /// Against changes; others may lock it in the same way.
    Shared,
}

impl Store {
    /// Begins a transaction. On SQLite it waits for the end of those that were begun before.
    pub(crate) async fn writing(&self) -> Result<Writing, StoreError> {
        self.begin(false, None).await
    }

    /// As [`Self::writing`]; SQLite does not check references between tables in it.
    pub(crate) async fn writing_without_foreign_keys(&self) -> Result<Writing, StoreError> {
        self.begin(true, None).await
    }

    /// The same as [`Self::writing`], for a caller that can go on without the change: on PostgreSQL each statement ends after
    /// `limit`. SQLite has a time limit of its own.
    pub(crate) async fn writing_within(&self, limit: Duration) -> Result<Writing, StoreError> {
        self.begin(false, Some(limit)).await
    }

    #[cfg_attr(not(feature = "postgres"), expect(unused_variables))]
    async fn begin(&self, is_unchecked: bool, limit: Option<Duration>) -> Result<Writing, StoreError> {
        // From here on an error or a cancelled call closes the connection.
        let mut writing = match &self.database {
            Database::Sqlite(database) => {
                let connection = Connection::Sqlite(database.writer().await?);
                Writing { connection, tenant: self.tenant, is_ended: false, is_unchecked }
            }
            #[cfg(feature = "postgres")]
            Database::Postgres(database) => {
                let connection = Connection::Postgres(database.connection(limit).await?);
                Writing { connection, tenant: self.tenant, is_ended: false, is_unchecked: false }
            }
        };
        match &mut writing.connection {
            Connection::Sqlite(connection) => {
                if is_unchecked {
                    sqlite::check_references(connection, false).await?;
                }
                sqlite::begin(connection).await?;
            }
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection) => postgres::begin(connection, self.reach()).await?,
        }
        match &self.lease {
            Some(lease) => writing.check_lease(lease).await,
            None => Ok(writing),
        }
    }

    /// Runs a statement as its own transaction under the lease of this handle.
    pub(crate) fn write_under_lease<'a>(
        &'a self,
        query: &'a Query<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<u64, StoreError>> + Send + 'a>> {
        Box::pin(async move {
            let mut tries = Tries::default();
            loop {
                let mut writing = self.begin(false, query.limit).await?;
                let done = match writing.execute(query).await {
                    Ok(done) => writing.commit().await.map(|()| done),
                    Err(error) => Err(error),
                };
                if !tries.again(&done) {
                    return done;
                }
            }
        })
    }

    /// Returns the value of a counter.
    pub(crate) async fn counter(&self, counter: Counter) -> Result<i64, StoreError> {
        let query = sql("SELECT value FROM version WHERE name = $1").bind(counter.name());
        let (value,) = query.fetch_one(self).await?;
        Ok(value)
    }

    /// Returns the value of a counter of the tenant.
    pub(crate) async fn tenant_counter(&self, counter: TenantCounter) -> Result<i64, StoreError> {
        let query = sql("SELECT value FROM tenant_counter WHERE tenant = $1 AND name = $2");
        let row: Option<(i64,)> = query.bind(self.tenant).bind(counter.name()).fetch_optional(self).await?;
        Ok(row.map_or(0, |(value,)| value))
    }

    /// Adds a number to a counter of the tenant, as a transaction of its own.
    pub(crate) async fn increase(&self, counter: TenantCounter, by: i64) -> Result<(), StoreError> {
        counter.addition(self.tenant, by).execute(self).await.map(drop)
    }
}

/// Selects a row if the lease is still the same one, and keeps it so until the end of the transaction. A process that stands
/// still within the transaction must not keep others from the lease for long, so PostgreSQL ends it then.
const LEASE_ON_POSTGRES: &str = "SELECT set_config('idle_in_transaction_session_timeout', '5s', true) FROM lease \
    WHERE name = $1 AND holder = $2 AND fence = $3 FOR SHARE";
const LEASE_ON_SQLITE: &str = "SELECT name FROM lease WHERE name = $1 AND holder = $2 AND fence = $3";

impl Writing {
    /// Undoes the transaction unless the lease is still the same one.
    async fn check_lease(mut self, lease: &HeldLease) -> Result<Self, StoreError> {
        let is_held = !lease.is_over() && {
            let query = sql(self.dialect().pick(LEASE_ON_SQLITE, LEASE_ON_POSTGRES));
            let query = query.bind(lease.name()).bind(lease.holder()).bind(lease.fence());
            query.fetch_optional::<(String,)>(&mut self).await?.is_some()
        };
        if is_held {
            return Ok(self);
        }
        lease.give_up();
        self.rollback().await?;
        Err(StoreError::LeaseLost { name: lease.name().to_owned() })
    }

    pub(crate) async fn execute(&mut self, query: &Query<'_>) -> Result<u64, StoreError> {
        match &mut self.connection {
            Connection::Sqlite(connection) => sqlite::execute(connection, query).await,
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection) => postgres::execute(connection, query).await,
        }
    }

    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        sql("COMMIT").execute(&mut self).await?;
        if let (true, Connection::Sqlite(connection)) = (self.is_unchecked, &mut self.connection) {
            sqlite::check_references(connection, true).await?;
        }
        self.is_ended = true;
        Ok(())
    }

    /// Undoes the transaction. Unlike a drop, this keeps the connection.
    pub(crate) async fn rollback(mut self) -> Result<(), StoreError> {
        sql("ROLLBACK").execute(&mut self).await?;
        self.is_ended = true;
        Ok(())
    }

    /// The SQL that the database understands.
    pub(crate) fn dialect(&self) -> Dialect {
        match &self.connection {
            Connection::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => Dialect::Postgres,
        }
    }

    /// What a `SELECT` of rows that must not change until the commit ends with. SQLite needs no lock.
    pub(crate) fn for_update(&self) -> &'static str {
        self.dialect().pick("", " FOR UPDATE")
    }

    /// Locks a counter until the end of the transaction, and returns its value.
    pub(crate) async fn lock(&mut self, counter: Counter, lock: Lock) -> Result<i64, StoreError> {
        let ending = match lock {
            Lock::Alone => self.for_update(),
            Lock::Shared => self.dialect().pick("", " FOR SHARE"),
        };
        let query = built(format!("SELECT value FROM version WHERE name = $1{ending}")).bind(counter.name());
        let (value,) = query.fetch_one(&mut *self).await?;
        Ok(value)
    }

    /// Sets the value of a counter.
    pub(crate) async fn set(&mut self, counter: Counter, to: i64) -> Result<(), StoreError> {
        let query = sql("UPDATE version SET value = $2 WHERE name = $1");
        query.bind(counter.name()).bind(to).execute(&mut *self).await?;
        Ok(())
    }

    /// Adds a number to a counter of the tenant. The row is locked until the end of the transaction, also if the number is 0.
    pub(crate) async fn add(&mut self, counter: TenantCounter, by: i64) -> Result<(), StoreError> {
        counter.addition(self.tenant, by).execute(self).await.map(drop)
    }

    /// Increases a counter, and returns its new value. The row is locked until the end of the transaction.
    pub(crate) async fn increase(&mut self, counter: Counter, by: i64) -> Result<i64, StoreError> {
        let query = sql("UPDATE version SET value = value + $2 WHERE name = $1 RETURNING value");
        let (value,) = query.bind(counter.name()).bind(by).fetch_one(&mut *self).await?;
        Ok(value)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        match &mut self.connection {
            Connection::Sqlite(connection) => connection.close_on_drop(),
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection) => connection.close_on_drop(),
        }
    }
}

/// How often a transaction is tried that PostgreSQL aborts because of concurrent ones. SQLite aborts none.
const TRIES: u32 = 3;

/// Counts the tries of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Tries(u32);

impl Tries {
    /// True if the transaction failed because of a concurrent one and should be run again, from its beginning.
    pub(crate) fn again<T>(&mut self, done: &Result<T, StoreError>) -> bool {
        self.0 += 1;
        self.0 < TRIES && matches!(done, Err(error) if error.is_conflict())
    }
}

#[cfg(test)]
mod tests;
