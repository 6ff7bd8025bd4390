use super::*;
use crate::Store;
use crate::database::Location;
use crate::query::sql;
use crate::scratch::access;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The database at the URL in the variable `STERNPOST_TEST_POSTGRES`; `None` without the variable.
fn server() -> Option<PostgresLocation> {
    let url = std::env::var("STERNPOST_TEST_POSTGRES").ok()?;
    match Location::parse(&url, std::path::Path::new("/")) {
        Ok(Location::Postgres(location)) => Some(location),
        other => panic!("{url}: {other:?}"),
    }
}

/// Runs statements as the user who owns the database.
async fn administer(statements: String) {
    let mut handle = link::connect(&server().unwrap(), &access(), 0).await.unwrap().0;
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut handle).await.unwrap();
}

/// Creates a user who owns a schema of the same name and nothing else, for one test.
pub(crate) async fn new_schema() -> Option<Location> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut location = server()?;
    let name = format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    administer(format!(
        "CREATE ROLE {name} LOGIN; CREATE SCHEMA {name} AUTHORIZATION {name}; ALTER ROLE {name} SET search_path = {name}"
    ))
    .await;
    location.user = name;
    Some(Location::Postgres(location))
}

/// The message with which opening a database fails.
async fn refused(location: &Location) -> String {
    Store::connect(location, &access(), crate::Tenant::FIRST).await.map(drop).unwrap_err().to_string()
}

fn with_database(location: &Location, name: &str) -> Location {
    let Location::Postgres(mut location) = location.clone() else { panic!() };
    location.database = name.to_owned();
    Location::Postgres(location)
}

#[tokio::test]
async fn a_database_is_migrated_by_several_programs_at_once_and_only_where_that_is_allowed() {
    let Some(location) = new_schema().await else { return };
    let strict = Access { may_migrate: false, ..access() };
    let error = Store::connect(&location, &strict, crate::Tenant::FIRST).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Outdated { schema: None, .. }), "{error}");
    let all: Vec<_> = (0..6)
        .map(|_| {
            let location = location.clone();
            tokio::spawn(async move { Store::migrate(&location, &access()).await.map(|(_, after)| after) })
        })
        .collect();
    for task in all {
        let after = task.await.unwrap().unwrap();
        assert_eq!((after.applied, after.pending), (Some(after.known), Vec::new()));
    }
    Store::connect(&location, &strict, crate::Tenant::FIRST).await.unwrap().close().await;
}

#[tokio::test]
async fn a_schema_of_an_earlier_and_of_a_newer_release_are_told_apart() {
    let Some(location) = new_schema().await else { return };
    let store = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    let strict = Access { may_migrate: false, ..access() };
    let known = crate::migrations::newest();
    let forget = "DELETE FROM _sqlx_migrations WHERE version = $1";
    sql(forget).bind(known).execute(&store).await.unwrap();
    let error = Store::connect(&location, &strict, crate::Tenant::FIRST).await.map(drop).unwrap_err();
    assert!(matches!(&error, StoreError::Outdated { schema: Some(_), .. }), "{error}");
    // The migration fails, since its tables exist, and leaves nothing behind.
    let error = Store::migrate(&location, &access()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Schema(_)), "{error}");
    let state = Store::schema(&location, &strict).await.unwrap();
    assert_eq!(state.pending, [known]);
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES ($1, 'later', TRUE, '', 0)";
    sql(newer).bind(known + 2).execute(&store).await.unwrap();
    for access in [&strict, &access()] {
        let error = Store::connect(&location, access, crate::Tenant::FIRST).await.map(drop).unwrap_err();
        assert!(matches!(&error, StoreError::Newer { schema, .. } if *schema == known + 2), "{error}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_user_who_may_not_create_tables_gets_the_words_of_the_server() {
    let Some(location) = new_schema().await else { return };
    let Location::Postgres(postgres) = &location else { panic!() };
    let name = &postgres.user;
    // As with PostgreSQL's own defaults: the schema public of a database of somebody else.
    administer(format!("ALTER ROLE {name} SET search_path = public")).await;
    let error = Store::connect(&location, &access(), crate::Tenant::FIRST).await.map(drop).unwrap_err();
    assert!(matches!(&error, StoreError::Forbidden(_) | StoreError::Schema(_)), "{error:?}");
    assert!(
        error.to_string().contains("permission denied") || error.to_string().contains("no schema"),
        "{error}"
    );
}

#[tokio::test]
async fn a_database_of_another_encoding_a_read_only_one_and_a_missing_one_are_refused_in_words() {
    let Some(location) = new_schema().await else { return };
    let Location::Postgres(postgres) = &location else { panic!() };
    let name = postgres.user.clone();
    // A pooler would need to learn of each database first.
    administer(format!(
        "CREATE DATABASE {name} OWNER {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    ))
    .await;
    let error = refused(&with_database(&location, &name)).await;
    assert!(error.contains("its encoding is LATIN1") && error.contains("ENCODING 'UTF8'"), "{error}");
    let missing = with_database(&location, "missing");
    let error = refused(&missing).await;
    assert!(error.contains("missing"), "{error}");
    let error = Store::connect(&missing, &access(), crate::Tenant::FIRST).await.err();
    // A pooler repeats the server's words under a code of its own, so that there is no remedy for this cause.
    let is_named = matches!(error, Some(StoreError::Unreachable { is_missing: true, .. }));
    assert!(is_named || is_pooled(&location), "{error:?}");
    administer(format!("ALTER ROLE {name} SET default_transaction_read_only = on")).await;
    let error = refused(&location).await;
    assert!(error.contains("it is read-only"), "{error}");
    administer(format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[tokio::test]
async fn a_server_with_another_time_zone_and_without_utf8_clients_stores_the_same() {
    let Some(location) = new_schema().await else { return };
    let Location::Postgres(postgres) = &location else { panic!() };
    let name = &postgres.user;
    administer(format!(
        "ALTER ROLE {name} SET timezone = 'Pacific/Kiritimati'; ALTER ROLE {name} SET client_encoding = 'LATIN1'; \
         ALTER ROLE {name} SET datestyle = 'German'; ALTER ROLE {name} SET standard_conforming_strings = off"
    ))
    .await;
    let store = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    let text = "\\ é ÿ 漢字 '";
    sql("INSERT INTO domain (tenant, name, spec) VALUES (0, $1, $2)")
        .bind(text)
        .bind(text)
        .execute(&store)
        .await
        .unwrap();
    let read: (String, String) = sql("SELECT name, spec FROM domain").fetch_one(&store).await.unwrap();
    assert_eq!(read, (text.to_owned(), text.to_owned()));
    store.close().await;
}

/// The clocks of the program and of the database may differ by hours. Only due times of claims use that of the database,
/// which all processes share.
#[test]
fn no_statement_but_those_about_leases_and_nodes_uses_the_clock_of_the_database() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![folder.join("src"), folder.join("migrations")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let is_sql = entry.extension().is_some_and(|extension| extension == "sql");
            let text = std::fs::read_to_string(&entry).unwrap().to_ascii_lowercase();
            for word in
                ["current_timestamp", "clock_timestamp(", "statement_timestamp(", "unixepoch(", "now()"]
            {
                // When a migration ran is for people. A word of Rust is not within quotation marks.
                let is_used = |line: &str| {
                    let before = line.split(word).next().unwrap_or_default();
                    line.contains(word) && !line.contains("installed_on") && (is_sql || before.contains('"'))
                };
                let found = text.lines().find(|line| is_used(line));
                let may_use = ["tests.rs", "claims.rs", "leases.rs"].iter().any(|name| entry.ends_with(name));
                assert!(found.is_none() || may_use, "{}: {found:?}", entry.display());
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let Some(location) = new_schema().await else { return };
    let store = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    let Location::Postgres(postgres) = &location else { panic!() };
    let kill = format!(
        "SELECT pg_terminate_backend(pid, 9000) FROM pg_stat_activity WHERE usename = '{}'",
        postgres.user
    );
    let mut writing = store.writing().await.unwrap();
    let insert = "INSERT INTO domain (tenant, name, spec) VALUES (0, 'a', '1')";
    sql(insert).execute(&mut writing).await.unwrap();
    administer(kill.clone()).await;
    // The transaction is lost and says so.
    let error = writing.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    sql(insert).execute(&store).await.unwrap();
    // A read does not notice.
    administer(kill).await;
    let (count,) = sql("SELECT count(*) FROM domain").fetch_one::<(i64,)>(&store).await.unwrap();
    assert_eq!(count, 1);
    store.close().await;
}

/// Whether the tests run through a pooler, which has connections of its own.
fn is_pooled(location: &Location) -> bool {
    matches!(location, Location::Postgres(location) if location.kept_statements == 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_further_connections_fails_no_statement_and_serves_several_processes() {
    let Some(location) = new_schema().await else { return };
    let Location::Postgres(postgres) = &location else { panic!() };
    if is_pooled(&location) {
        return;
    }
    let store = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    administer(format!("ALTER ROLE {} CONNECTION LIMIT 3", postgres.user)).await;
    sql("INSERT INTO domain (tenant, name, spec) VALUES (0, 'a', '1')").execute(&store).await.unwrap();
    let others = [store.clone(), Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap()];
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let store = others[number % 2].clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    sql("SELECT name FROM domain").fetch_one::<(String,)>(&store).await?;
                    sql("UPDATE domain SET spec = '2'").execute(&store).await?;
                }
                Ok::<_, StoreError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    // A third process comes when both have what there is, and waits until they leave it a place.
    let third = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    for store in [&others[0], &others[1], &third] {
        store.close().await;
    }
}

#[tokio::test]
async fn a_write_that_was_given_up_while_it_waited_for_a_lock_is_not_carried_out_later() {
    let Some(location) = new_schema().await else { return };
    let Location::Postgres(postgres) = &location else { panic!() };
    let name = &postgres.user;
    let store = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    let update = "INSERT INTO domain (tenant, name, spec) VALUES (0, 'a', $1) ON CONFLICT (tenant, name) DO UPDATE SET spec = excluded.spec";
    let read = async || sql("SELECT spec FROM domain").fetch_one::<(String,)>(&store).await.unwrap().0;
    // Prepared on this connection, so that the server gets all of it at once.
    sql(update).bind("first").execute(&store).await.unwrap();
    let mut other = link::connect(&server().unwrap(), &access(), 0).await.unwrap().0;
    let lock = format!("BEGIN; LOCK TABLE {name}.domain IN EXCLUSIVE MODE");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut other).await.unwrap();
    let limit = Duration::from_secs(2);
    let error = sql(update).bind("given up").within(limit).execute(&store).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    // A caller that does not wait for the end, as a command that is interrupted.
    let interrupted = sql(update).bind("interrupted").execute(&store);
    assert!(tokio::time::timeout(limit, interrupted).await.is_err());
    let mut writing = store.writing_within(limit).await.unwrap();
    sql(update).bind("transaction").execute(&mut writing).await.unwrap_err();
    drop(writing);
    let hour = Duration::from_secs(3600);
    assert!(store.acquire("x", "one", jiff::Timestamp::UNIX_EPOCH, hour).await.unwrap().is_some());
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    // Until the server has ended all that was given up.
    let waiting = format!("SELECT 1 FROM pg_stat_activity WHERE usename = '{name}' AND state <> 'idle'");
    while sqlx::raw_sql(AssertSqlSafe(waiting.clone())).fetch_optional(&mut other).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(read().await, "first");
    store.close().await;
}

/// Servers before PostgreSQL 14 keep the place for the statement's time limit.
#[tokio::test]
async fn a_read_that_was_given_up_leaves_its_place_at_the_server_within_seconds() {
    let Some(location) = new_schema().await else { return };
    let Location::Postgres(postgres) = &location else { panic!() };
    let store = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    let sleeping = format!(
        "SELECT 1 FROM pg_stat_activity WHERE usename = '{}' AND query LIKE '%pg_sleep(600)%'",
        postgres.user
    );
    let mut other = link::connect(&server().unwrap(), &access(), 0).await.unwrap().0;
    let mut count =
        async || sqlx::raw_sql(AssertSqlSafe(sleeping.clone())).fetch_all(&mut other).await.unwrap().len();
    let begun = std::time::Instant::now();
    let read = || sql("SELECT 1 FROM pg_sleep(600)");
    let interrupted: Vec<_> = (0..2)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { read().fetch_all::<(i64,)>(&store).await })
        })
        .collect();
    while count().await < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    interrupted.iter().for_each(tokio::task::JoinHandle::abort);
    // A caller that can go on without it.
    let limit = Duration::from_secs(2);
    assert!(read().within(limit).fetch_all::<(i64,)>(&store).await.is_err());
    while count().await > 0 {
        // The server's time limit for a statement is a minute.
        assert!(begun.elapsed() < Duration::from_secs(55), "only the time limits end them");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_comes_last_gets_a_place_although_the_others_are_always_busy() {
    let Some(location) = new_schema().await else { return };
    let Location::Postgres(postgres) = &location else { panic!() };
    if is_pooled(&location) {
        return;
    }
    let first = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    administer(format!("ALTER ROLE {} CONNECTION LIMIT 17", postgres.user)).await;
    sql("INSERT INTO domain (name, spec) VALUES ('a', '1')").execute(&first).await.unwrap();
    let second = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let store = [&first, &second][number % 2].clone();
            let is_over = is_over.clone();
            tokio::spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    sql("SELECT 1 FROM pg_sleep(0.01)").fetch_all::<(i64,)>(&store).await?;
                }
                Ok::<_, StoreError>(())
            })
        })
        .collect();
    let used = format!("SELECT 1 FROM pg_stat_activity WHERE usename = '{}'", postgres.user);
    let mut other = link::connect(&server().unwrap(), &access(), 0).await.unwrap().0;
    while sqlx::raw_sql(AssertSqlSafe(used.clone())).fetch_all(&mut other).await.unwrap().len() < 17 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let third = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    for _ in 0..20 {
        sql("UPDATE domain SET spec = '2'").execute(&third).await.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for store in [first, second, third] {
        store.close().await;
    }
}

#[tokio::test]
async fn the_server_has_time_limits_for_each_statement() {
    let Some(location) = new_schema().await else { return };
    let store = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    let names = ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"];
    let limits = async |writing: Option<&mut crate::writing::Writing>| {
        let query = sql("SELECT current_setting($1), current_setting($2), current_setting($3)");
        let query = query.bind(names[0]).bind(names[1]).bind(names[2]);
        let row: (String, String, String) = match writing {
            Some(writing) => query.fetch_one(writing).await.unwrap(),
            None => query.fetch_one(&store).await.unwrap(),
        };
        row
    };
    let expected = ("30s".to_owned(), "1min".to_owned(), "1min".to_owned());
    assert_eq!(limits(None).await, expected);
    let mut writing = store.writing().await.unwrap();
    assert_eq!(limits(Some(&mut writing)).await, expected);
    store.close().await;
}

/// Passes bytes to the server, and loses the answer to a `COMMIT` with the connection.
struct LossyNetwork {
    path: String,
    loses_commit: Arc<AtomicBool>,
}

impl crate::Network for LossyNetwork {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> crate::Connecting<'a, tokio::net::TcpStream> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut driver, _) = listener.accept().await.unwrap();
            let mut server = tokio::net::UnixStream::connect(&self.path).await.unwrap();
            let loses_commit = self.loses_commit.clone();
            tokio::spawn(async move {
                let (mut asked, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
                loop {
                    tokio::select! {
                        read = driver.read(&mut asked) => {
                            let length = read.unwrap_or_default();
                            if length == 0 || server.write_all(&asked[..length]).await.is_err() {
                                return;
                            }
                        }
                        read = server.read(&mut answer) => {
                            let length = read.unwrap_or_default();
                            // The end of the command ("CommandComplete" in PostgreSQL's documentation of the protocol).
                            let is_commit = answer[..length].windows(7).any(|word| word == b"COMMIT\0");
                            if length == 0
                                || is_commit && loses_commit.swap(false, Ordering::SeqCst)
                                || driver.write_all(&answer[..length]).await.is_err()
                            {
                                return;
                            }
                        }
                    }
                }
            });
            Ok(stream)
        })
    }

    fn begin_tls<'a>(
        &'a self,
        _: tokio::net::TcpStream,
        _: &'a str,
        _: Option<&'a std::path::Path>,
    ) -> crate::Connecting<'a, Box<dyn crate::Stream>> {
        Box::pin(async { Err("this network has no TLS".to_owned()) })
    }
}

#[tokio::test]
async fn where_the_answer_to_a_commit_is_lost_sessions_count_once_and_a_lease_is_known() {
    use crate::database::location::PostgresHost;
    use crate::handover::CountSource;
    let Some(Location::Postgres(mut location)) = new_schema().await else { return };
    let PostgresHost::Socket { folder, port } = &location.hosts[0] else { return };
    let loses_commit = Arc::new(AtomicBool::new(false));
    let path = format!("{}/.s.PGSQL.{port}", folder.display());
    let network = LossyNetwork { path, loses_commit: loses_commit.clone() };
    location.hosts = vec![PostgresHost::Tcp { name: "127.0.0.1".to_owned(), port: 1 }];
    let access = Access { network: Arc::new(network), ..access() };
    let store = Store::connect(&Location::Postgres(location), &access, crate::Tenant::FIRST).await.unwrap();
    let day = jiff::Timestamp::UNIX_EPOCH;
    let name = formats::DomainName::parse("a.example").unwrap();
    let entry = formats::report::PolicyReport {
        policy_type: formats::result_type::PolicyType::NoPolicyFound,
        policy_string: vec![],
        policy_domain: Some(name.clone()),
        mx_host: vec![],
        successful: 3,
        failed: 0,
        details: vec![],
    };
    let tally = crate::tallies::TallyIncrement { entries: vec![entry], record: None };
    let days = [(day, [(name, tally)].into())].into();
    let source = CountSource::Flush { id: "f-1".to_owned(), after: None, at: day };
    loses_commit.store(true, Ordering::SeqCst);
    let error = store.add_tallies_once(&days, &source).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(store.add_tallies_once(&days, &source).await.unwrap().is_repeated);
    assert_eq!(store.tally_sums(day).await.unwrap(), (3, 0));
    loses_commit.store(true, Ordering::SeqCst);
    let hour = Duration::from_secs(3600);
    assert!(store.acquire("x", "one", day, hour).await.unwrap().is_some());
    assert!(!loses_commit.load(Ordering::SeqCst));
    assert!(store.acquire("x", "two", day, hour).await.unwrap().is_none());
    store.close().await;
}

/// A new schema, with a store for its owner and one for a role that may read and change the rows of its tables and nothing else.
pub(crate) async fn behind_row_level_security() -> Option<(Store, Store)> {
    let location = new_schema().await?;
    let owner = Store::connect(&location, &access(), crate::Tenant::FIRST).await.unwrap();
    let Location::Postgres(mut location) = location else { panic!() };
    let schema = location.user.clone();
    location.user = format!("{schema}_program");
    let role = &location.user;
    administer(format!(
        "CREATE ROLE {role} LOGIN; ALTER ROLE {role} SET search_path = {schema}; \
         GRANT USAGE ON SCHEMA {schema} TO {role}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"
    ))
    .await;
    let strict = Access { may_migrate: false, ..access() };
    let store = Store::connect(&Location::Postgres(location), &strict, crate::Tenant::FIRST).await.unwrap();
    Some((owner, store))
}
