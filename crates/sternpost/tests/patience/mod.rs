//! Waiting for what another process or task does: for a condition, never for a fixed time. What is waited for is returned, so
//! that a test can't read it before it is there.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long something may take that does happen. Tests run beside each other on machines that have other work too, so it is
/// long; only a test that fails waits for so long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something is there, and returns it.
pub fn until_some<T>(what: &str, find: impl FnMut() -> Option<T>) -> T {
    until_some_or(|| format!("in vain: {what}"), find)
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    until_some(what, || is_so().then_some(()));
}

/// The same as [`until_some`]; the test fails with what `why` says.
pub fn until_some_or<T>(why: impl FnOnce() -> String, mut find: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() <= PATIENCE, "{}", why());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The lines of a file that another process writes. A last line whose end is not yet there is left out, and a file that is
/// not there has none.
pub fn whole_lines(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// Waits until `sternpost serve`, which logs to a file, is ready: all of its sockets are open, and it obeys signals.
pub fn until_ready(server: &mut Child, log: &Path) {
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    until_some_or(
        || format!("it does not serve: {}", said()),
        || {
            let ended = server.try_wait().unwrap();
            let is_ready = whole_lines(log).contains("ready store=");
            assert!(ended.is_none(), "it has ended: {}", said());
            is_ready.then_some(())
        },
    );
}

/// For tests that count by UTC days: returns when midnight is some minutes away.
pub fn away_from_midnight() {
    const NEAR: u64 = 5 * 60;
    let since_midnight = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 86_400;
    while since_midnight() > 86_400 - NEAR {
        std::thread::sleep(Duration::from_secs(1));
    }
}
