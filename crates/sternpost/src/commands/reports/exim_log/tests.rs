use super::*;
use formats::report::DateRange;
use net::clock::{Clock, ManualClock};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

struct Place {
    dir: tempfile::TempDir,
    store: Store,
    clock: Arc<ManualClock>,
    collector: Arc<Collector>,
}

fn line(message: u32) -> String {
    format!(
        "2026-11-27 10:00:00 +0000 1xWw{:02}-0007Wr-1G => b@a.example R=r T=t H=mx.a.example [203.1.113.1] X=TLS1.3:c:256 CV=yes C=\"250\"\n",
        message
    )
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let clock = Arc::new(ManualClock::new("2026-11-27T12:00:00Z".parse().unwrap()));
        let collector = Collector::new(store.clone(), clock.clone());
        Self { dir, store, clock, collector }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("mainlog")
    }

    fn append(&self, text: &str) {
        let mut file = File::options().create(true).append(true).open(self.log()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    async fn run(&self) -> Summary {
        self.run_with(&Rules::default()).await
    }

    async fn run_with(&self, rules: &Rules) -> Summary {
        collect(&self.collector, &self.store, &self.log(), rules, self.clock.now()).await.unwrap()
    }

    /// Reads a text as from standard input.
    async fn pipe(&self, text: &str) -> Result<Summary, Failure> {
        let (now, lines, summary) = (self.clock.now(), Sha256::new(), Summary::default());
        let (log, collector) = (EximLog::new(TimeZone::UTC), &*self.collector);
        let mut reading = Reading { collector, log, is_public: true, now, lines, summary };
        reading.lines(&mut text.as_bytes(), None).await?;
        Ok(reading.summary)
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.dir.path().join(from), self.dir.path().join(to)).unwrap();
    }

    async fn counted(&self) -> u64 {
        self.store.tally_sums(DateRange::utc_day(self.clock.now()).start).await.unwrap().0
    }
}

#[tokio::test]
async fn each_session_counts_once_also_after_a_rotation() {
    let place = Place::new().await;
    place.append(&line(1));
    assert_eq!((place.run().await.sessions, place.run().await.sessions), (1, 0));
    // A line that is still being written counts when it is complete.
    let (begin, end) = {
        let two = line(2);
        (two[..50].to_owned(), two[50..].to_owned())
    };
    place.append(&begin);
    assert_eq!(place.run().await.sessions, 0);
    place.append(&end);
    assert_eq!(place.run().await.sessions, 1);
    place.append(&line(3));
    std::fs::rename(place.log(), place.dir.path().join("mainlog.1")).unwrap();
    place.append(&line(4));
    let summary = place.run().await;
    assert_eq!((summary.sessions, summary.has_gap), (2, false));
    assert_eq!((place.run().await.sessions, place.counted().await), (0, 4));
}

#[tokio::test]
async fn a_log_that_was_truncated_or_whose_old_part_is_gone_is_read_from_its_beginning() {
    let place = Place::new().await;
    place.append(&line(1));
    place.append(&line(2));
    place.run().await;
    std::fs::write(place.log(), line(3)).unwrap();
    let summary = place.run().await;
    assert_eq!((summary.sessions, summary.has_gap, place.counted().await), (1, true, 3));
    std::fs::remove_file(place.log()).unwrap();
    place.append(&line(4));
    place.append(&line(5));
    assert_eq!((place.run().await.sessions, place.counted().await), (2, 5));
}

#[tokio::test]
async fn lines_of_a_closed_day_are_late_and_lines_of_any_length_are_bounded() {
    let place = Place::new().await;
    place.append(&format!("{}\n", "x".repeat(3 * EXIM_LINE_BYTES)));
    place.append(&line(1));
    assert_eq!(place.run().await.sessions, 1);
    let day = DateRange::utc_day(place.clock.now()).start;
    place.store.close_day(day, false).await.unwrap();
    place.append(&line(2));
    let summary = place.run().await;
    assert_eq!((summary.sessions, summary.late, place.counted().await), (0, 1, 1));
}

#[tokio::test]
async fn files_between_two_rotations_are_read_too() {
    for [first, second, third] in [
        ["mainlog.3", "mainlog.2", "mainlog.1"],
        ["mainlog-20261125", "mainlog-20261126", "mainlog-20261127"],
    ] {
        let place = Place::new().await;
        place.append(&line(1));
        place.run().await;
        place.append(&line(2));
        place.rename("mainlog", first);
        for (message, name) in [(3, second), (4, third)] {
            place.append(&line(message));
            place.rename("mainlog", name);
        }
        std::fs::copy(place.dir.path().join(third), place.dir.path().join("mainlog.old")).unwrap();
        place.append(&line(5));
        let summary = place.run().await;
        assert_eq!((summary.sessions, summary.has_gap, place.counted().await), (4, false, 5));
        assert_eq!(place.run().await.sessions, 0);
    }
}

#[tokio::test]
async fn a_file_between_two_rotations_that_is_missing_or_compressed_is_a_gap() {
    for other in ["mainlog.2.gz", "other"] {
        let place = Place::new().await;
        place.append(&line(1));
        place.run().await;
        place.rename("mainlog", "mainlog.3");
        place.append(&line(2));
        place.rename("mainlog", other);
        place.append(&line(3));
        place.rename("mainlog", "mainlog.1");
        place.append(&line(4));
        let summary = place.run().await;
        assert_eq!((summary.sessions, summary.has_gap), (2, true), "{other}");
    }
}

#[tokio::test]
async fn a_further_recipient_in_the_next_run_belongs_to_the_session() {
    let place = Place::new().await;
    place.append(&line(1));
    place.run().await;
    place.append(&line(1).replace("=> b@", "-> c@"));
    assert_eq!((place.run().await.sessions, place.counted().await), (0, 1));
}

#[tokio::test]
async fn hosts_with_special_addresses_are_no_mx_hosts() {
    let place = Place::new().await;
    for address in ["127.0.0.1", "10.0.0.1", "fd00::1"] {
        place.append(&line(1).replace("203.1.113.1", address));
    }
    assert_eq!(place.run().await.sessions, 0);
    place.append(&line(2).replace("203.1.113.1", "127.0.0.1"));
    assert_eq!(
        place.run_with(&Rules { allow_private_addresses: true, ..Rules::default() }).await.sessions,
        1
    );
}

#[tokio::test]
async fn the_same_standard_input_counts_once_and_sessions_of_closed_days_are_late() {
    let place = Place::new().await;
    let day = DateRange::utc_day(place.clock.now()).start;
    let before = line(0).replace("2026-11-27", "2026-11-26");
    place
        .store
        .close_day(day.saturating_sub(jiff::SignedDuration::from_hours(24)).unwrap(), false)
        .await
        .unwrap();
    let many = |count: u32| -> String {
        let lines = (0..count).map(|n| line(1).replace("1xWw01", &format!("{n:06}")));
        before.clone() + &lines.collect::<String>()
    };
    let batch = u32::try_from(BATCH_ROWS).unwrap();
    // The first batch is counted, and then the store fails.
    let summary = place.pipe(&many(batch - 1)).await.unwrap();
    assert_eq!((summary.sessions, summary.late), (u64::from(batch) - 1, 1));
    let summary = place.pipe(&many(batch + 9)).await.unwrap();
    assert_eq!((summary.sessions, summary.late), (10, 0));
    assert_eq!(place.counted().await, u64::from(batch) + 9);
}
