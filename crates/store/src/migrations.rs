//! The schema, step by step. Each step is a file of `migrations/`; SQLx notes in the store which steps were taken,
//! with a digest of each, and [`migrator`] takes the others in their order. A file that was released is never changed.
//!
//! The files are listed here rather than found by SQLx's macro, which would build SQLite a second time for the compiler.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Number, description and statements of each step.
const STEPS: [(i64, &str, &str); 8] = [
    (1, "first", include_str!("../migrations/0001_first.sql")),
    (2, "policy refresh", include_str!("../migrations/0002_policy_refresh.sql")),
    (3, "receiving", include_str!("../migrations/0003_receiving.sql")),
    (4, "inbox", include_str!("../migrations/0004_inbox.sql")),
    (5, "looks", include_str!("../migrations/0005_looks.sql")),
    (6, "reporting", include_str!("../migrations/0006_reporting.sql")),
    (7, "notices", include_str!("../migrations/0007_notices.sql")),
    (8, "shared pages", include_str!("../migrations/0008_shared_pages.sql")),
];

/// Takes the steps that a store has not taken yet.
pub(crate) fn migrator() -> Migrator {
    let steps = STEPS.map(|(number, description, statements)| {
        Migration::new(number, description.into(), MigrationType::Simple, statements.into_sql_str(), false)
    });
    Migrator::with_migrations(steps.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_step_under_its_own_number_and_name() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let named = STEPS
            .map(|(number, description, _)| format!("{number:04}_{}.sql", description.replace(' ', "_")));
        assert_eq!(files, named);
        for (file, (_, _, statements)) in files.iter().zip(STEPS) {
            assert_eq!(std::fs::read_to_string(folder.join(file)).unwrap(), statements, "{file}");
        }
    }

    #[test]
    fn a_step_has_the_digest_that_stores_in_the_field_have_noted() {
        let digests: Vec<String> = migrator()
            .iter()
            .map(|step| step.checksum.iter().take(6).map(|byte| format!("{byte:02x}")).collect())
            .collect();
        assert_eq!(digests, DIGESTS);
    }

    /// The first six bytes of SHA-384 over each file.
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
