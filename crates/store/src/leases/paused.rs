//! A process that is stopped by SIGSTOP while it has a lease, and goes on when another process has taken the work over.
//!
//! The process is this test program, started again with the variable [`LOCATION`]. It stops itself, so that the place is exact,
//! and its lease is ended in the database, so that nothing depends on how fast the machine is.

use super::holder::process_state;
use super::*;
use crate::Tenant;
use crate::database::Location;
use crate::query::sql;
use crate::scratch::{Scratch, access, scratch};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The store of the process that is stopped.
const LOCATION: &str = "STERNPOST_TEST_PAUSED_STORE";
/// Where it stops.
const PLACE: &str = "STERNPOST_TEST_PAUSED_AT";
const LENGTH: Duration = Duration::from_secs(600);
const INSERT: &str = "INSERT INTO domain (tenant, name, spec) VALUES (0, $1, '1')";

fn stop_here() {
    // Not to the process, whose other threads could get the signal while this one goes on.
    raise(Signal::SIGSTOP).unwrap();
}

/// The part of the process that is stopped. As a test of its own it does nothing.
#[tokio::test]
async fn the_paused_process() {
    let (Ok(location), Ok(place)) = (std::env::var(LOCATION), std::env::var(PLACE)) else { return };
    let location = Location::parse(&location, Path::new("/")).unwrap();
    let store = Store::connect(&location, &access(), Tenant::FIRST).await.unwrap();
    let now = Timestamp::now();
    let lease = store.acquire("x", "paused", now, LENGTH).await.unwrap().unwrap();
    let under = store.under(&lease);
    sql(INSERT).bind("before.example").execute(&under).await.unwrap();
    let failed = if place == "between two writes" {
        stop_here();
        assert!(!lease.is_over(), "the clock of this process does not stop it");
        sql(INSERT).bind("late.example").execute(&under).await.map(drop)
    } else {
        let mut writing = under.writing().await.unwrap();
        sql(INSERT).bind("late.example").execute(&mut writing).await.unwrap();
        stop_here();
        writing.commit().await
    };
    println!("then: {}", failed.map_or_else(|error| error.to_string(), |()| "it was written".to_owned()));
    // Whatever was lost, the next write finds out that the lease is.
    let again = sql(INSERT).bind("again.example").execute(&under).await;
    println!("again: {}", again.map_or_else(|error| error.to_string(), |_| "it was written".to_owned()));
}

fn start(scratch: &Scratch, place: &str) -> Child {
    let location = match &scratch.location {
        Location::Sqlite(file) => format!("sqlite:{}", file.display()),
        other => other.to_string(),
    };
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leases::paused::the_paused_process", "--nocapture"])
        .env(LOCATION, location)
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the process says when it goes on after another one has the lease, and the names that are stored in the end.
async fn played(place: &str) -> (String, Vec<String>) {
    let (scratch, store) = scratch().await;
    let mut process = start(&scratch, place);
    let pid = i32::try_from(process.id()).unwrap();
    while !matches!(process_state(pid), Some(('T', _))) {
        assert!(process.try_wait().unwrap().is_none(), "it has ended before it stopped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lease = loop {
        // Waits until the database has undone the write of the other one.
        let expired = sql("UPDATE lease SET expires_at = 0 WHERE name = 'x'").execute(&store).await;
        let now = Timestamp::now();
        let taken = store.acquire("x", "next", now, LENGTH).await;
        if let (Ok(_), Ok(Some(lease))) = (expired, taken) {
            break lease;
        }
    };
    sql(INSERT).bind("next.example").execute(&store.under(&lease)).await.unwrap();
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let rows: Vec<(String,)> = sql("SELECT name FROM domain ORDER BY name").fetch_all(&store).await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), rows.into_iter().map(|(name,)| name).collect())
}

#[tokio::test]
async fn a_process_that_stood_still_between_two_writes_writes_nothing_more() {
    let (said, names) = played("between two writes").await;
    for line in ["then: the lease \"x\" is over", "again: the lease \"x\" is over"] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(names, ["before.example", "next.example"]);
}

/// On SQLite a process that stands still in the middle of a write keeps the file locked, so nobody gets its lease meanwhile.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_process_that_stood_still_in_the_middle_of_a_write_has_written_nothing() {
    if std::env::var_os("STERNPOST_TEST_POSTGRES").is_none() {
        return;
    }
    let (said, names) = played("in the middle of a write").await;
    assert!(said.contains("then: the database") && !said.contains("it was written"), "{said}");
    assert!(said.contains("again: the lease \"x\" is over"), "{said}");
    assert_eq!(names, ["before.example", "next.example"]);
}
