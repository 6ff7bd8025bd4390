//! Leaves gaps in a long import, in which other processes write to the same SQLite file. SQLite gives its lock to whoever
//! asks first, and a process that waits asks again every 100 ms, for as long as its `busy_timeout`: without gaps, its write
//! would fail. An import that writes in several calls has one [`ImportTurn`] for all of them.

use crate::Store;
use crate::database::Database;
use std::time::Duration;
use tokio::time::Instant;

/// How long an import writes before it leaves a gap.
const TURN: Duration = Duration::from_millis(500);
/// The length of a gap: longer than the interval in which a waiting process asks for the lock.
const GAP: Duration = Duration::from_millis(120);

/// The time in which an import writes without a gap.
#[derive(Debug)]
pub struct ImportTurn {
    /// When the import began to write after the last gap. `None` for PostgreSQL, where transactions run side by side.
    begun: Option<Instant>,
}

impl ImportTurn {
    /// Begins a turn in this store.
    pub fn of(store: &Store) -> Self {
        let is_sqlite = matches!(store.database, Database::Sqlite(_));
        Self { begun: is_sqlite.then(Instant::now) }
    }

    /// Waits for the length of a gap when the turn is over. To be called between transactions.
    pub async fn pause(&mut self) {
        if self.begun.is_some_and(|begun| begun.elapsed() > TURN) {
            tokio::time::sleep(GAP).await;
            self.begun = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn paused(turn: &mut ImportTurn) -> Duration {
        let before = Instant::now();
        turn.pause().await;
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_import_leaves_a_gap_after_each_turn_however_many_calls_it_writes_in() {
        let mut turn = ImportTurn { begun: Some(Instant::now()) };
        for _ in 0..2 {
            for _ in 0..5 {
                assert_eq!(paused(&mut turn).await, Duration::ZERO);
                tokio::time::advance(TURN / 5).await;
            }
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(paused(&mut turn).await >= GAP);
        }
        let mut postgres = ImportTurn { begun: None };
        tokio::time::advance(TURN * 2).await;
        assert_eq!(paused(&mut postgres).await, Duration::ZERO);
    }
}
