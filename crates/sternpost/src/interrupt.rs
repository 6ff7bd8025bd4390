//! SIGINT (Ctrl-C), SIGTERM and SIGHUP for commands that run long and have something to give back, such as a lease.
//!
//! A signal that is ignored when the program starts stays ignored: `nohup` ignores SIGHUP so that the program outlives its
//! terminal, and a shell script ignores SIGINT for what it runs with `&`.

use config::failure::{Exit, Failure};
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a command may go on after a signal before it says why.
const SILENCE: Duration = Duration::from_secs(2);

/// A token that the first of these signals cancels. The command then ends by itself, and says that it `finishes` something if
/// that takes a while; a second signal ends it at once.
///
/// # Errors
///
/// If the handlers can't be installed.
pub fn interruption(finishes: &'static str) -> Result<CancellationToken, Failure> {
    let fail = |error| Failure::new("can't install signal handlers", error, "");
    // If /proc is not mounted, no signal is taken as ignored.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let handler = |kind| handler(kind, &status).map_err(fail);
    let mut signals = Signals {
        interrupt: handler(SignalKind::interrupt())?,
        terminate: handler(SignalKind::terminate())?,
        hangup: handler(SignalKind::hangup())?,
    };
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        signals.any().await;
        cancelled.cancel();
        if tokio::time::timeout(SILENCE, signals.any()).await.is_err() {
            eprintln!("Interrupted. It finishes {finishes}; another signal ends it at once.");
            signals.any().await;
        }
        std::process::exit(Exit::Interrupted as i32);
    });
    Ok(token)
}

/// The signals that end a command; `None` for one that the process ignores.
struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// Waits for one of them.
    async fn any(&mut self) {
        tokio::select! {
            () = received(&mut self.interrupt) => {}
            () = received(&mut self.terminate) => {}
            () = received(&mut self.hangup) => {}
        }
    }
}

/// Handles a signal; `None` if the process ignores it.
fn handler(kind: SignalKind, status: &str) -> io::Result<Option<Signal>> {
    match is_ignored(kind, status) {
        true => Ok(None),
        false => signal(kind).map(Some),
    }
}

/// Waits for the signal; forever if it is ignored.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// True if the signal is in the mask `SigIgn` of `/proc/self/status` (proc_pid_status(5)): in hexadecimal, the lowest bit for
/// signal 1.
fn is_ignored(kind: SignalKind, status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u128::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(kind.as_raw_value() - 1).unwrap_or(u32::MAX);
    mask.checked_shr(bit).unwrap_or(0) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let ignored = |status: &str| {
            [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()]
                .map(|kind| is_ignored(kind, status))
        };
        assert_eq!(ignored("SigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n"), [true, false, false]);
        assert_eq!(ignored("SigIgn:\t0000000000000006\nSigCgt:\tffffffffffffffff\n"), [false, true, false]);
        assert_eq!(ignored("SigIgn:\tffffffffffffffff\n"), [true; 3]);
        for unreadable in ["", "SigIgn:\t0000000000000000\n", "SigIgn:\tx\n"] {
            assert_eq!(ignored(unreadable), [false; 3], "{unreadable}");
        }
    }
}
