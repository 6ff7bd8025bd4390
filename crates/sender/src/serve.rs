//! Sockets on which mail servers ask: [`socketmap`] for Postfix, [`lines`] for Exim and scripts.

pub mod lines;
pub mod listen;
pub mod socketmap;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Ends listeners and connections in good order: no new ones, the open ones finish what they do.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled when the end begins.
    pub token: CancellationToken,
    /// The connections that are open.
    pub tasks: TaskTracker,
}

impl Shutdown {
    /// Ends everything and waits for it, up to `most`; says whether all ended.
    pub async fn finish(&self, most: std::time::Duration) -> bool {
        self.token.cancel();
        self.tasks.close();
        tokio::time::timeout(most, self.tasks.wait()).await.is_ok()
    }

    /// One that ends with this one, or before.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), tasks: self.tasks.clone() }
    }
}
