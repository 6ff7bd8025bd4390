//! Follows `/etc/resolv.conf`: when a DHCP client or a container runtime replaces the file, the resolvers that it names are
//! used without a restart. It does nothing where the configuration names the resolvers.

use operations::world::World;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;
use tokio::time::Instant;

const PATH: &str = "/etc/resolv.conf";
/// The interval between two checks of the file's modification time.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The interval between two tries to use a file that was refused: its resolvers may have been mended since.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Follows the file until the future is dropped. `known` is its modification time before the resolvers were built.
pub async fn follow(world: Arc<World>, mut known: Option<SystemTime>) {
    let mut refused: Option<Refused> = None;
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let now = modified();
        // A file that is missing is being replaced.
        let has_changed = now.is_some() && now != known;
        let is_retried = refused.as_ref().is_some_and(|refused| refused.at.elapsed() >= RETRY_INTERVAL);
        if has_changed || is_retried {
            known = now.or(known);
            let before = refused.take().map(|refused| refused.why);
            refused = reload(&world, before.as_deref()).await.err();
        }
    }
}

/// A file that was refused.
pub struct Refused {
    at: Instant,
    why: String,
}

/// Reads the file again. On failure the resolvers in use stay, and the failure is logged unless it is `known`.
pub async fn reload(world: &World, known: Option<&str>) -> Result<(), Refused> {
    /// One reload at a time: SIGHUP and [`follow`] may come together.
    static RELOADING: Mutex<()> = Mutex::const_new(());
    let _reloading = RELOADING.lock().await;
    match world.reload_resolvers().await {
        Ok(()) => {
            tracing::info!("the system's resolver configuration was read again");
            Ok(())
        }
        Err(error) => {
            let why = error.to_string();
            if known != Some(why.as_str()) {
                tracing::error!("{why}; the resolvers that were in use stay in use");
            }
            Err(Refused { at: Instant::now(), why })
        }
    }
}

/// The time of the file's last modification; `None` while it is missing.
pub fn modified() -> Option<SystemTime> {
    std::fs::metadata(PATH).ok()?.modified().ok()
}
