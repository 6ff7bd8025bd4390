//! The schema migrations. Each migration is a file in `migrations/`, in a folder for
//! each database. SQLx records each applied migration and its digest
//! in the database, and the migrator applies the missing ones in order. Never change a file after its release.
//!
//! The files are listed here because SQLx's macro, which finds them itself, would compile SQLite a second time.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Version, description and SQL statements of a migration.
type File = (i64, &'static str, &'static str);

/// The migrations for SQLite, in order.
const SQLITE: [File; 25] = [
    (1, "first", include_str!("../migrations/sqlite/0001_first.sql")),
    (2, "policy refresh", include_str!("../migrations/sqlite/0002_policy_refresh.sql")),
    (3, "receiving", include_str!("../migrations/sqlite/0003_receiving.sql")),
    (4, "inbox", include_str!("../migrations/sqlite/0004_inbox.sql")),
    (5, "looks", include_str!("../migrations/sqlite/0005_looks.sql")),
    (6, "reporting", include_str!("../migrations/sqlite/0006_reporting.sql")),
    (7, "notices", include_str!("../migrations/sqlite/0007_notices.sql")),
    (8, "shared pages", include_str!("../migrations/sqlite/0008_shared_pages.sql")),
    (9, "counters", include_str!("../migrations/sqlite/0009_counters.sql")),
    (10, "quotas", include_str!("../migrations/sqlite/0010_quotas.sql")),
    (11, "evidence", include_str!("../migrations/sqlite/0011_evidence.sql")),
    (12, "dmarc and schedules", include_str!("../migrations/sqlite/0012_dmarc_and_schedules.sql")),
    (13, "handover", include_str!("../migrations/sqlite/0013_handover.sql")),
    (15, "record changes", include_str!("../migrations/sqlite/0015_record_changes.sql")),
    (16, "certificate orders", include_str!("../migrations/sqlite/0016_certificate_orders.sql")),
    (17, "accounts", include_str!("../migrations/sqlite/0017_accounts.sql")),
    (19, "report lists", include_str!("../migrations/sqlite/0019_report_lists.sql")),
    (25, "second factor proposals", include_str!("../migrations/sqlite/0025_second_factor_proposals.sql")),
    (30, "seen hosts", include_str!("../migrations/sqlite/0030_seen_hosts.sql")),
    (33, "mx certificates", include_str!("../migrations/sqlite/0033_mx_certificates.sql")),
    (34, "tenant keys", include_str!("../migrations/sqlite/0034_tenant_keys.sql")),
    (35, "nodes", include_str!("../migrations/sqlite/0035_nodes.sql")),
    (36, "claims", include_str!("../migrations/sqlite/0036_claims.sql")),
    (39, "public results", include_str!("../migrations/sqlite/0039_public_results.sql")),
    (42, "tenants", include_str!("../migrations/sqlite/0042_tenants.sql")),
];

/// The same for PostgreSQL. The first file has the whole schema; from there on both folders have the same numbers.
#[cfg(any(test, feature = "postgres"))]
const POSTGRES: [File; 17] = [
    (9, "first", include_str!("../migrations/postgres/0009_first.sql")),
    (10, "quotas", include_str!("../migrations/postgres/0010_quotas.sql")),
    (11, "evidence", include_str!("../migrations/postgres/0011_evidence.sql")),
    (12, "dmarc and schedules", include_str!("../migrations/postgres/0012_dmarc_and_schedules.sql")),
    (13, "handover", include_str!("../migrations/postgres/0013_handover.sql")),
    (15, "record changes", include_str!("../migrations/postgres/0015_record_changes.sql")),
    (16, "certificate orders", include_str!("../migrations/postgres/0016_certificate_orders.sql")),
    (17, "accounts", include_str!("../migrations/postgres/0017_accounts.sql")),
    (19, "report lists", include_str!("../migrations/postgres/0019_report_lists.sql")),
    (25, "second factor proposals", include_str!("../migrations/postgres/0025_second_factor_proposals.sql")),
    (30, "seen hosts", include_str!("../migrations/postgres/0030_seen_hosts.sql")),
    (33, "mx certificates", include_str!("../migrations/postgres/0033_mx_certificates.sql")),
    (34, "tenant keys", include_str!("../migrations/postgres/0034_tenant_keys.sql")),
    (35, "nodes", include_str!("../migrations/postgres/0035_nodes.sql")),
    (36, "claims", include_str!("../migrations/postgres/0036_claims.sql")),
    (39, "public results", include_str!("../migrations/postgres/0039_public_results.sql")),
    (42, "tenants", include_str!("../migrations/postgres/0042_tenants.sql")),
];

/// The number of the last migration, which both databases share.
pub(crate) fn newest() -> i64 {
    SQLITE.last().map_or(0, |file| file.0)
}

/// Returns the migrator for SQLite.
pub(crate) fn sqlite() -> Migrator {
    migrator(&SQLITE)
}

/// Returns the migrator for PostgreSQL.
#[cfg(feature = "postgres")]
pub(crate) fn postgres() -> Migrator {
    migrator(&POSTGRES)
}

/// The migrations for SQLite before a version, for a store of an earlier release.
#[cfg(test)]
pub(crate) fn sqlite_before(version: i64) -> Migrator {
    migrator(&SQLITE.into_iter().filter(|file| file.0 < version).collect::<Vec<_>>())
}

fn migrator(files: &[File]) -> Migrator {
    let migrations = files.iter().map(|(version, description, statements)| {
        Migration::new(
            *version,
            (*description).into(),
            MigrationType::Simple,
            statements.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}

#[cfg(test)]
mod with_data;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_file_is_listed_with_its_version_and_name() {
        for (folder, listed) in [("sqlite", &SQLITE[..]), ("postgres", &POSTGRES[..])] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let mut files: Vec<String> = std::fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let name = |(version, description, _): &File| {
                format!("{version:04}_{}.sql", description.replace(' ', "_"))
            };
            assert_eq!(files, listed.iter().map(name).collect::<Vec<_>>());
            for (file, (_, _, statements)) in files.iter().zip(listed) {
                assert_eq!(std::fs::read_to_string(folder.join(file)).unwrap(), *statements, "{file}");
            }
        }
    }

    #[test]
    fn both_databases_have_the_same_versions_from_the_first_postgresql_one_on() {
        let versions = |files: &[File]| files.iter().map(|file| file.0).collect::<Vec<_>>();
        assert_eq!(versions(&SQLITE[8..]), versions(&POSTGRES));
    }

    #[test]
    fn both_schemas_have_the_same_tables_and_columns() {
        // Each table with its columns; a tenant in one is a tenant in both.
        let mut tables: [BTreeMap<String, BTreeSet<String>>; 2] = Default::default();
        for (tables, files) in tables.iter_mut().zip([&SQLITE[..], &POSTGRES[..]]) {
            for (_, _, statements) in files {
                let lines = statements.lines().map(str::trim).filter(|line| !line.starts_with("--"));
                lines.collect::<Vec<_>>().join("\n").split(';').for_each(|one| apply(tables, one.trim()));
            }
        }
        let [sqlite, postgres] = tables;
        assert!(sqlite.len() > 20 && sqlite["alert"].contains("tenant"));
        assert_eq!(sqlite, postgres);
    }

    /// Applies one statement to the tables.
    fn apply(tables: &mut BTreeMap<String, BTreeSet<String>>, text: &str) {
        let word = |text: &str| text.split_whitespace().next().unwrap().to_owned();
        if let Some(rest) = text.strip_prefix("CREATE TABLE ") {
            let columns =
                rest.lines().skip(1).filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
            let columns = columns.filter(|line| !line.starts_with("receiving_ip, "));
            tables.insert(word(rest), columns.map(word).collect());
        } else if let Some(rest) = text.strip_prefix("DROP TABLE ") {
            tables.remove(rest).unwrap();
        } else if let Some(rest) = text.strip_prefix("ALTER TABLE ") {
            if let Some((table, name)) = rest.split_once(" RENAME TO ") {
                let columns = tables.remove(table).unwrap();
                tables.insert(name.to_owned(), columns);
            } else if let Some((table, column)) = rest.split_once(" ADD COLUMN ") {
                tables.get_mut(table).unwrap().insert(word(column));
            } else {
                // A key has no column of its own.
                assert!(rest.contains(" CONSTRAINT ") || rest.contains(" ADD PRIMARY KEY "), "{rest}");
            }
        }
    }

    #[test]
    fn migrations_keep_the_digests_that_existing_databases_recorded() {
        let digests: Vec<String> = sqlite()
            .iter()
            .map(|migration| migration.checksum.iter().take(6).map(|byte| format!("{byte:02x}")).collect())
            .collect();
        assert_eq!(digests, DIGESTS);
    }

    /// The first six bytes of each file's SHA-384 digest.
    const DIGESTS: [&str; 25] = [
        "be518849bc5c",
        "d7f0d8b3471c",
        "4b3d8a74ab50",
        "89391f6a465f",
        "a7672b2034c2",
        "5785c50a357b",
        "8ce08b89b557",
        "1f43e856372c",
        "98f31dbe0cb8",
        "9e8615991e1e",
        "8273e3d12a8e",
        "eea6003107bc",
        "ee918b740c2d",
        "833fa8b0137a",
        "d268ff0bbce0",
        "fddb7b0459b2",
        "c667620480f4",
        "c512d69c98a3",
        "e8e098e0d511",
        "48e08ba04efb",
        "637cc33e252f",
        "2525ed11529e",
        "91a51268f794",
        "7de9c80929ac",
        "1e6d91999a81",
    ];
}
