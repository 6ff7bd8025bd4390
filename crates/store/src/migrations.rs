//! The schema migrations. Each migration is a file in `migrations/`. SQLx records each applied migration and its digest
//! in the database, and [`migrator`] applies the missing ones in order. Never change a file after its release.
//!
//! The files are listed here because SQLx's macro, which finds them itself, would compile SQLite a second time.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Version, description and SQL statements of each migration, in order.
const MIGRATIONS: [(i64, &str, &str); 8] = [
    (1, "first", include_str!("../migrations/0001_first.sql")),
    (2, "policy refresh", include_str!("../migrations/0002_policy_refresh.sql")),
    (3, "receiving", include_str!("../migrations/0003_receiving.sql")),
    (4, "inbox", include_str!("../migrations/0004_inbox.sql")),
    (5, "looks", include_str!("../migrations/0005_looks.sql")),
    (6, "reporting", include_str!("../migrations/0006_reporting.sql")),
    (7, "notices", include_str!("../migrations/0007_notices.sql")),
    (8, "shared pages", include_str!("../migrations/0008_shared_pages.sql")),
];

/// Returns the migrator for all [`MIGRATIONS`].
pub(crate) fn migrator() -> Migrator {
    let migrations = MIGRATIONS.map(|(version, description, statements)| {
        Migration::new(version, description.into(), MigrationType::Simple, statements.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed_with_its_version_and_name() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let named = MIGRATIONS
            .map(|(version, description, _)| format!("{version:04}_{}.sql", description.replace(' ', "_")));
        assert_eq!(files, named);
        for (file, (_, _, statements)) in files.iter().zip(MIGRATIONS) {
            assert_eq!(std::fs::read_to_string(folder.join(file)).unwrap(), statements, "{file}");
        }
    }

    #[test]
    fn migrations_keep_the_digests_that_existing_databases_recorded() {
        let digests: Vec<String> = migrator()
            .iter()
            .map(|migration| migration.checksum.iter().take(6).map(|byte| format!("{byte:02x}")).collect())
            .collect();
        assert_eq!(digests, DIGESTS);
    }

    /// The first six bytes of each file's SHA-384 digest.
    const DIGESTS: [&str; 8] = [
        "be518849bc5c",
        "d7f0d8b3471c",
        "4b3d8a74ab50",
        "89391f6a465f",
        "a7672b2034c2",
        "5785c50a357b",
        "8ce08b89b557",
        "1f43e856372c",
    ];
}
