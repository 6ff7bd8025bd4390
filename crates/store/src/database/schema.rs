//! Which schema a database has: [`Store::schema`] reads it, and [`Store::migrate`] brings it up to date. An SQLite file is
//! migrated whenever it is opened; a PostgreSQL database only where that is allowed, since several programs share it.

use super::sqlite::SqliteFile;
use super::{Access, Location, Store, StoreError};
use sqlx::migrate::{MigrateError, Migrator};

/// The migrations of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaState {
    /// The number of the last migration that the database has; `None` without any.
    pub applied: Option<i64>,
    /// The number of the last migration that this release knows.
    pub known: i64,
    /// The numbers of the migrations that the database does not have, in order.
    pub pending: Vec<i64>,
    /// The number of a migration that this release does not know, if the database has one: a newer release made it.
    pub unknown: Option<i64>,
}

impl SchemaState {
    /// Compares the migrations of a database, each with the digest of its text, with those of this release.
    pub(super) fn of(applied: &[(i64, Vec<u8>)], migrator: &Migrator) -> Result<Self, StoreError> {
        let mut unknown = None;
        for (version, digest) in applied {
            match migrator.iter().find(|migration| migration.version == *version) {
                Some(migration) if migration.checksum.as_ref() == digest.as_slice() => {}
                Some(_) => return Err(StoreError::Schema(MigrateError::VersionMismatch(*version))),
                None => unknown = Some(*version),
            }
        }
        let versions = migrator.iter().map(|migration| migration.version);
        let is_missing = |version: &i64| applied.iter().all(|(known, _)| known != version);
        Ok(Self {
            applied: applied.iter().map(|(version, _)| *version).max(),
            known: crate::migrations::newest(),
            pending: versions.filter(is_missing).collect(),
            unknown,
        })
    }

    /// Fails unless the schema is the one of this release.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code))]
    pub(super) fn check(&self, location: &Location, is_migrated: bool) -> Result<(), StoreError> {
        let (path, known) = (location.to_string(), self.known);
        match (self.unknown, self.pending.is_empty() || is_migrated) {
            (Some(schema), _) => Err(StoreError::Newer { path, schema, known }),
            (None, true) => Ok(()),
            (None, false) => Err(StoreError::Outdated { path, schema: self.applied, known }),
        }
    }
}

impl Store {
    /// Reads which schema a database has, and changes nothing. An SQLite file that does not exist has none.
    ///
    /// # Errors
    ///
    /// Those of [`Store::connect`] apart from the ones about the schema.
    pub async fn schema(location: &Location, access: &Access) -> Result<SchemaState, StoreError> {
        match location {
            Location::Sqlite(path) if !path.exists() => SchemaState::of(&[], &crate::migrations::sqlite()),
            Location::Sqlite(path) => SqliteFile::schema(path).await,
            Location::Postgres(_) => {
                let store = Self::attach(location, access, crate::Tenant::FIRST).await?;
                let state = store.own_schema().await;
                store.close().await;
                state
            }
        }
    }

    /// Runs the migrations that a database does not have. Returns its schema before and after.
    ///
    /// # Errors
    ///
    /// [`StoreError::Newer`] if a newer release made the database, [`StoreError::Schema`] and [`StoreError::Forbidden`] if a
    /// migration fails, which leaves the schema as it was.
    pub async fn migrate(
        location: &Location,
        access: &Access,
    ) -> Result<(SchemaState, SchemaState), StoreError> {
        let before = Self::schema(location, access).await?;
        let access = Access { may_migrate: true, ..access.clone() };
        match Self::connect(location, &access, crate::Tenant::FIRST).await {
            Ok(store) => store.close().await,
            // The copy goes on with a newer release as well.
            Err(StoreError::Unfinished { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok((before, Self::schema(location, &access).await?))
    }

    #[cfg(feature = "postgres")]
    async fn own_schema(&self) -> Result<SchemaState, StoreError> {
        super::postgres::schema::state(self).await
    }

    #[cfg(not(feature = "postgres"))]
    async fn own_schema(&self) -> Result<SchemaState, StoreError> {
        SchemaState::of(&[], &crate::migrations::sqlite())
    }
}
