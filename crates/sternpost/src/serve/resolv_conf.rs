//! Follows `/etc/resolv.conf`: when a DHCP client or a container runtime replaces the file, the resolvers that it names are
//! used without a restart. It does nothing where the configuration names the resolvers.

use operations::world::World;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const PATH: &str = "/etc/resolv.conf";
/// The interval between two looks at the file's modification time.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Follows the file until the future is dropped.
pub async fn follow(world: Arc<World>) {
    let mut known = modified(Path::new(PATH));
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let now = modified(Path::new(PATH));
        // A file that is missing is being replaced.
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

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}
