//! Follows `/etc/resolv.conf`: when a DHCP client or a container runtime replaces the file, the resolvers that it names are
//! used without a restart. It does nothing where the configuration names the resolvers.

use operations::world::World;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const PATH: &str = "/etc/resolv.conf";
/// The interval between two looks at the file's modification time.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Follows the file until the future is dropped. `known` is its modification time before the resolvers were built.
pub async fn follow(world: Arc<World>, mut known: Option<SystemTime>) {
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let now = modified();
        // A file that is missing is being replaced. One that can't be used is tried again when it changes.
        if now.is_some() && now != known {
            known = now;
            reload(&world);
        }
    }
}

/// Reads the file again. On failure the resolvers in use stay.
pub fn reload(world: &World) {
    match world.reload_resolvers() {
        Ok(()) => tracing::info!("the system's resolver configuration was read again"),
        Err(error) => tracing::error!("{error}; the resolvers that were in use stay in use"),
    }
}

/// The time of the file's last modification; `None` while it is missing.
pub fn modified() -> Option<SystemTime> {
    std::fs::metadata(PATH).ok()?.modified().ok()
}
