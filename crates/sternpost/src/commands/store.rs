//! `sternpost store`: shows, migrates, copies and compacts the store.

use crate::interrupt::interruption;
use crate::terminal::{marks, say};
use config::Config;
use config::failure::{Exit, Failure};
use formats::counted::counted;
use operations::{access, open_failure};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use store::{Access, CopyError, CopyOptions, Location, SchemaState, Store, StoreError};

/// The subcommands of `sternpost store`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show where the store is and whether its schema is the one of this release
    ///
    /// Nothing is changed. The exit code is 1 if the schema is another one.
    #[command(after_help = "Example:\n  sternpost store status")]
    Status,
    /// Bring the schema of the store up to date
    ///
    /// An SQLite file is migrated whenever it is opened, so this is needed for PostgreSQL only: before the first start, and
    /// after an upgrade, while no server of an earlier release runs. All migrations run in one transaction; several programs
    /// that migrate at once wait for each other.
    #[command(after_help = "Example:\n  sternpost store migrate")]
    Migrate,
    /// Copy all data into an empty store of the same or the other kind, while no server runs
    ///
    /// FROM and TO are written as the configuration writes them: `sqlite:FILE` or `postgres://USER@HOST/DATABASE`. All rows
    /// of both are compared at the end. The source stays.
    #[command(
        after_help = "Examples:\n  sternpost store copy sqlite:/var/lib/sternpost/sternpost.db postgres://sternpost@/sternpost\n  sternpost store copy --resume sqlite:old.db postgres://sternpost@db.example.org/sternpost"
    )]
    Copy(Copy),
    /// Write the store anew, without the free space that deleted data left
    #[command(after_help = "Example:\n  sternpost store compact")]
    Compact,
}

/// The options of `sternpost store copy`.
#[derive(Debug, clap::Args)]
pub struct Copy {
    /// The store to copy
    from: String,
    /// The store to fill; it must be empty
    to: String,
    /// Go on with a copy that was interrupted
    #[arg(long)]
    resume: bool,
    /// File with the password of the PostgreSQL user [default: store_password_file]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Runs the subcommand.
pub async fn run(command: &Command, named: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(named)?;
    match command {
        Command::Status => status(&config).await,
        Command::Migrate => migrate(&config).await,
        Command::Copy(options) => copy(&config, options).await,
        Command::Compact => compact(&config).await,
    }
}

async fn status(config: &Config) -> Result<Exit, Failure> {
    let state = Store::schema(&config.store, &access(config)).await;
    let state = state.map_err(|error| open_failure(&config.store, &error))?;
    let kind = if config.store.file().is_some() { "SQLite" } else { "PostgreSQL" };
    say(&format!("{} ({kind})", config.store));
    let (mark, said) = match &state {
        SchemaState { unknown: Some(number), known, .. } => (
            marks().error,
            format!("schema {number}, of a newer release; this release knows those up to {known}"),
        ),
        SchemaState { applied: None, known, .. } => {
            (marks().warning, format!("no tables yet; this release needs schema {known}"))
        }
        SchemaState { applied: Some(number), pending, known, .. } if !pending.is_empty() => {
            (marks().warning, format!("schema {number}; this release needs schema {known}"))
        }
        SchemaState { known, .. } => (marks().fine, format!("schema {known}, up to date")),
    };
    say(&format!("{mark} {said}"));
    if state.unknown.is_none() && !state.pending.is_empty() && config.store.file().is_none() {
        say("  sternpost store migrate");
    }
    Ok(if state.unknown.is_none() && state.pending.is_empty() { Exit::Fine } else { Exit::Findings })
}

async fn migrate(config: &Config) -> Result<Exit, Failure> {
    let done = Store::migrate(&config.store, &access(config)).await;
    let (before, after) = done.map_err(|error| open_failure(&config.store, &error))?;
    let known = after.known;
    say(&match before.applied {
        Some(number) if number == known => format!("{} The schema is up to date ({known}).", marks().fine),
        Some(number) => format!("{} Migrated from schema {number} to {known}.", marks().fine),
        None => format!("{} Created the tables (schema {known}).", marks().fine),
    });
    Ok(Exit::Fine)
}

async fn copy(config: &Config, options: &Copy) -> Result<Exit, Failure> {
    let (from, to) = (location(&options.from)?, location(&options.to)?);
    if UnixStream::connect(config.control()).is_ok() && (config.store == from || config.store == to) {
        return Err(copy_failure(&CopyError::InUse(config.store.to_string()), options));
    }
    let mut access: Access = access(config);
    access.password = options.password_file.clone().or(access.password);
    let stopped = interruption("the rows that it is writing")?;
    let mut shown = (String::new(), 0);
    let mut progress = |table: &str, rows: u64| {
        // Small tables are not worth a line.
        if shown.0 != table {
            shown = (table.to_owned(), 0);
        }
        if rows >= shown.1 + PROGRESS_ROWS {
            shown.1 = rows;
            eprintln!("{table}: {}", counted(rows, "row"));
        }
    };
    let copied = tokio::select! {
        copied = Store::copy(&from, &to, &access, CopyOptions { resumes: options.resume }, &mut progress) => copied,
        () = stopped.cancelled() => {
            eprintln!("The copy is not complete. Go on with\n  {}", resume_line(options));
            return Ok(Exit::Interrupted);
        }
    };
    let tables = copied.map_err(|error| copy_failure(&error, options))?;
    let rows: u64 = tables.iter().map(|table| table.rows).sum();
    say(&format!(
        "{} Copied {} of {}; both stores have the same rows.",
        marks().fine,
        counted(rows, "row"),
        counted(tables.len(), "table")
    ));
    for table in tables.iter().filter(|table| table.rows > 0) {
        say(&format!("  {}: {}", table.name, table.rows));
    }
    say(&format!("  To use the copy, set store = \"{}\" and start the server.", options.to));
    Ok(Exit::Fine)
}

fn resume_line(options: &Copy) -> String {
    format!("sternpost store copy --resume {} {}", options.from, options.to)
}

/// The number of rows between two lines of progress.
const PROGRESS_ROWS: u64 = 100_000;

/// A relative path starts at the working directory, as on every command line.
fn location(text: &str) -> Result<Location, Failure> {
    Location::parse(text, &std::env::current_dir().unwrap_or_default()).map_err(|error| {
        let near = config::nearest_parameter(&error).unwrap_or_default();
        Failure::usage(
            "the location of a store is not valid",
            format!("{error}{near}"),
            "Write it as sqlite:FILE or postgres://USER@HOST/DATABASE, and name a password's file with --password-file.",
        )
    })
}

fn copy_failure(error: &CopyError, options: &Copy) -> Failure {
    let what = "the store can't be copied";
    let remedy = match error {
        CopyError::Same(_) => "Name another store as the target.".to_owned(),
        CopyError::NoSource(_) => "Name the store to copy first, then the empty one.".to_owned(),
        CopyError::InUse(_) => "Stop all servers that use it. A pooler such as PgBouncer may hold their connections for some minutes; name the database server itself.".to_owned(),
        CopyError::NotEmpty { .. } => "Name an empty target: a file that does not exist, or a new database.".to_owned(),
        CopyError::Interrupted { .. } => {
            format!("Go on with\n  {}", resume_line(options))
        }
        CopyError::OtherSource { .. } => "Go on with that source, or make the target anew.".to_owned(),
        CopyError::Counts { .. } | CopyError::Contents(_) => "A server wrote to one of them meanwhile. Stop it, make the target anew, and copy again.".to_owned(),
        CopyError::Store(error @ StoreError::Unreachable { .. }) => {
            return Failure::new(what, error, format!("When the database answers, go on with\n  {}", resume_line(options)));
        }
        CopyError::Store(StoreError::Outdated { .. }) => {
            "Run `sternpost store migrate` for the source first.".to_owned()
        }
        CopyError::Store(StoreError::Forbidden(_)) => {
            "The PostgreSQL user has to own the target, or needs, granted by its owner:\n  GRANT CREATE ON SCHEMA public TO …".to_owned()
        }
        CopyError::Store(_) => String::new(),
    };
    Failure::usage(what, error, remedy)
}

async fn compact(config: &Config) -> Result<Exit, Failure> {
    let path = config.store.file().ok_or_else(|| {
        Failure::usage(
            "this command compacts SQLite files only",
            format!("the store is {}", config.store),
            "PostgreSQL makes free space usable by itself (autovacuum).",
        )
    })?;
    let shown = path.display();
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(
            format!("the store {shown} can't be compacted"),
            error,
            "Its folder needs free space of the size of the store. If `sternpost serve` is writing, try again later.",
        )
    };
    let size = || std::fs::metadata(path).map(|file| file.len()).map_err(|error| fail(&error));
    // A missing store is not created.
    let before = size()?;
    let store = Store::open(path, store::Tenant::FIRST).await.map_err(|error| fail(&error))?;
    store.compact().await.map_err(|error| fail(&error))?;
    store.close().await;
    let after = size()?;
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    say(&format!("{} {shown}: {}, was {}", marks().fine, mebibytes(after), mebibytes(before)));
    Ok(Exit::Fine)
}
