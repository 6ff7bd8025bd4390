//! SIGINT (Ctrl-C), SIGTERM and SIGHUP for commands that run long and have something to give back, such as a lease.

use config::failure::{Exit, Failure};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first of these signals cancels. The command then ends by itself; a second signal ends it at once.
///
/// # Errors
///
/// If the handlers can't be installed.
pub fn interruption() -> Result<CancellationToken, Failure> {
    let fail = |error| Failure::new("can't install signal handlers", error, "");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(fail)?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(Exit::Interrupted as i32);
            }
            cancelled.cancel();
        }
    });
    Ok(token)
}
