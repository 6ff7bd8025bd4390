//! The protocols in which mail servers query policies, and the listeners for them.
//!
//! [`listen`] accepts connections on TCP and Unix sockets. [`socketmap`] serves Postfix, [`lines`] serves Exim and
//! scripts. Both get their answers from [`crate::answer::PolicyService`].

pub mod lines;
pub mod listen;
pub mod socketmap;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Graceful shutdown: listeners accept no new connections, and open connections finish their current request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled when the shutdown begins.
    pub token: CancellationToken,
    /// The open connections.
    pub tasks: TaskTracker,
}

impl Shutdown {
    /// Begins the shutdown and waits up to `timeout` for the connections. Returns true if all ended.
    pub async fn finish(&self, timeout: std::time::Duration) -> bool {
        self.token.cancel();
        self.tasks.close();
        tokio::time::timeout(timeout, self.tasks.wait()).await.is_ok()
    }

    /// A shutdown that begins with this one, or separately before it.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), tasks: self.tasks.clone() }
    }
}
