//! Messages to systemd (sd_notify(3)): when the server is ready, reloads, stops, and that it still runs (WatchdogSec=). A
//! runtime that hangs sends none, so that systemd restarts the service.

use sd_notify::NotifyState;

/// Notifies systemd that the server is ready (sd_notify(3)).
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Notifies systemd that the configuration is reloaded; [`ready`] ends that state.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// Notifies systemd that the server is stopping.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Tells systemd that the runtime works, twice in the time that it allows between two messages. Never returns.
pub async fn keep_alive() {
    match sd_notify::watchdog_enabled() {
        Some(allowed) => {
            let pause = allowed / 2;
            beat(|| tokio::time::sleep(pause), || send(&[NotifyState::Watchdog])).await;
        }
        None => std::future::pending().await,
    }
}

/// Sends a beat after each pause, once the runtime has started and finished a task.
async fn beat<P: Future<Output = ()>>(pause: impl Fn() -> P, send: impl Fn()) {
    loop {
        pause().await;
        if tokio::spawn(tokio::task::yield_now()).await.is_ok() {
            send();
        }
    }
}

/// A message that can't be sent is not an error: without systemd, no service manager waits for it.
fn send(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;
    use tokio::sync::Notify;

    /// The shortest time that a unit may allow, so that a busy machine does not restart the service.
    const LEAST_WATCHDOG: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(20);

    /// Starts the beats on a runtime with one thread. Returns what begins one, and what it sends.
    fn started(runtime: &tokio::runtime::Runtime) -> (Arc<Notify>, Receiver<()>) {
        let begin = Arc::new(Notify::new());
        let (sent, beats) = channel();
        let wait = begin.clone();
        let pause = move || {
            let wait = wait.clone();
            async move { wait.notified().await }
        };
        let send = move || {
            let _ = sent.send(());
        };
        runtime.spawn(beat(pause, send));
        (begin, beats)
    }

    #[test]
    fn a_runtime_that_hangs_sends_no_beat_until_it_goes_on() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (begin, beats) = started(&runtime);
        begin.notify_one();
        assert!(beats.recv_timeout(LONG).is_ok());
        let (blocked, is_blocked) = channel();
        let (release, until) = channel::<()>();
        runtime.spawn(async move {
            blocked.send(()).unwrap();
            let _ = until.recv();
        });
        is_blocked.recv_timeout(LONG).unwrap();
        begin.notify_one();
        assert!(beats.recv_timeout(SHORT).is_err());
        release.send(()).unwrap();
        assert!(beats.recv_timeout(LONG).is_ok());
    }

    #[test]
    fn the_packaged_unit_leaves_a_busy_machine_enough_time() {
        let unit = include_str!("../../../../packaging/sternpost.service");
        let seconds = unit.lines().find_map(|line| line.strip_prefix("WatchdogSec=")).unwrap();
        let seconds: u64 = seconds.trim_end_matches('s').parse().unwrap();
        assert!(Duration::from_secs(seconds) >= LEAST_WATCHDOG);
    }
}
