//! `sternpost backup` and `sternpost restore`: a copy of the store while the server runs, and the way back.

use crate::interrupt::interruption;
use crate::terminal::{marks, say};
use config::Config;
use config::failure::{Exit, Failure};
use operations::open_failure;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use store::{BackupInfo, Location, RestoredPolicies, Store, StoreError};

/// The options of `sternpost backup`.
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// The file to write, which must not exist; only you can read it
    file: PathBuf,
}

/// The options of `sternpost restore`.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// A file that `sternpost backup` wrote; it stays
    file: PathBuf,
    /// Serve the policies of the backup at once; only if nothing was published since the backup, as in a move to another machine
    #[arg(long)]
    unchanged: bool,
}

/// Writes and verifies a copy of the store.
pub async fn backup(options: &Backup, named: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(named)?;
    let file = &options.file;
    let store = store_file(&config, "pg_dump --format=custom --file=sternpost.dump")?;
    if std::fs::exists(store).is_ok_and(|exists| !exists) {
        // Opening it would create an empty one, and a copy of that is no backup.
        return Err(Failure::usage(
            format!("there is no store to back up at {}", store.display()),
            format!("it was looked for by {}", config.origins()),
            "Name the configuration of the server with --config, such as\n  sternpost --config /etc/sternpost/sternpost.toml backup FILE",
        ));
    }
    let stopped = interruption("the removal of the incomplete copy")?;
    let copied = tokio::select! {
        copied = Store::back_up(store, file) => copied,
        // The store removes a file that is not complete, and no other.
        () = stopped.cancelled() => return Ok(Exit::Interrupted),
    };
    let copied = copied.map_err(|error| failure(store, &error))?;
    say(&format!("{} {} is written and verified ({}).", marks().fine, file.display(), size(&copied)));
    say(
        "  It contains private keys, password hashes and reports. Not in it: the configuration, and the files that it names.",
    );
    Ok(Exit::Fine)
}

/// Puts a backup in the place of the store.
pub async fn restore(options: &Restore, named: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(named)?;
    let store =
        store_file(&config, "pg_restore --clean --if-exists --single-transaction --dbname=… sternpost.dump")?;
    if UnixStream::connect(config.control()).is_ok() {
        return Err(failure(store, &StoreError::InUse { path: store.display().to_string() }));
    }
    let policies = match options.unchanged {
        true => RestoredPolicies::Served,
        false => RestoredPolicies::Withheld,
    };
    let restored = Store::restore(&options.file, store, policies, jiff::Timestamp::now()).await;
    let (copied, replaced) = restored.map_err(|error| match error {
        StoreError::Open { .. } | StoreError::Broken { .. } => failure(&options.file, &error),
        other => failure(store, &other),
    })?;
    let (from, to) = (options.file.display(), store.display());
    say(&format!("{} {to} is restored from {from} ({}).", marks().fine, size(&copied)));
    if let Some(replaced) = replaced {
        say(&format!("  The store that was there is now {}.", replaced.display()));
    }
    say(match policies {
        RestoredPolicies::Served => "  Start the server, then compare the store with DNS:\n  sternpost plan",
        RestoredPolicies::Withheld => {
            "  What happened since the backup is missing, so its policies are not served before they were compared with DNS;\n  senders keep those that they hold. Start the server, then serve the policies of today:\n  sternpost plan\n  sternpost apply"
        }
    });
    Ok(Exit::Fine)
}

/// The SQLite file of the store. Fails for a PostgreSQL database, with the tool that does the same there.
fn store_file<'c>(config: &'c Config, tool: &str) -> Result<&'c Path, Failure> {
    config.store.file().ok_or_else(|| {
        Failure::usage(
            "this command copies SQLite files only",
            format!("the store is {}", config.store),
            format!("Use PostgreSQL's own tools, such as\n  {tool}"),
        )
    })
}

fn failure(store: &Path, error: &StoreError) -> Failure {
    match error {
        StoreError::Copy { path, why } => Failure::usage(
            format!("{path} can't be written"),
            why,
            "Name a new file in an existing folder that you can write to, with free space of the size of the store.",
        ),
        StoreError::Unsynced { .. } => Failure::new(
            format!("the store {} is replaced, and a power failure may undo that", store.display()),
            error,
            "Before the server is started, run\n  sync",
        ),
        StoreError::InUse { .. } => Failure::usage(
            format!("the store {} can't be replaced", store.display()),
            "a running program has it open",
            "Stop the server first:\n  systemctl stop sternpost.service",
        ),
        StoreError::Broken { path, why } => Failure::usage(
            format!("{path} is not complete"),
            why,
            "Use another backup. `sternpost serve --replace-broken-store` renames a damaged store and starts with an empty one.",
        ),
        other => open_failure(&Location::Sqlite(store.to_owned()), other),
    }
}

fn size(copied: &BackupInfo) -> String {
    format!("{:.1} MiB, schema {}", copied.bytes as f64 / f64::from(1 << 20), copied.schema)
}
