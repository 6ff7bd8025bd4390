//! The protocols in which mail servers query policies, and the listeners for them.
//!
//! [`listen`] accepts connections on TCP and Unix sockets. [`socketmap`] serves Postfix, [`lines`] serves Exim and
//! scripts. Both get their answers from [`crate::answer::PolicyService`].

pub mod lines;
pub mod listen;
pub mod socketmap;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a connection may still take for its first request after the shutdown has begun. Its client connected a moment
/// ago and is about to send; Exim, for example, opens a connection for each request and does not retry.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Graceful shutdown: listeners accept no new connections, and open connections finish their current request. A connection
/// without a request yet gets one answered, so that a restart behind sockets of systemd loses no request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled when the shutdown begins.
    pub token: CancellationToken,
    /// The tasks of open connections, which the shutdown waits for.
    pub tasks: TaskTracker,
}

impl Shutdown {
    /// Begins the shutdown and waits up to `limit` for the connections. Returns true if all ended.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.token.cancel();
        self.tasks.close();
        timeout(limit, self.tasks.wait()).await.is_ok()
    }

    /// Waits for `request`, which reads the next request of a connection; `is_first` for its first one. Returns `None` if the
    /// shutdown ends the connection instead. A request that has arrived is returned in any case.
    pub async fn next_request<F: Future>(&self, request: F, is_first: bool) -> Option<F::Output> {
        let mut request = pin!(request);
        tokio::select! {
            biased;
            request = &mut request => return Some(request),
            () = self.token.cancelled() => (),
        }
        match is_first {
            true => timeout(FIRST_REQUEST_GRACE, request).await.ok(),
            false => None,
        }
    }

    /// A shutdown that begins with this one, or separately before it.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), tasks: self.tasks.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test(start_paused = true)]
    async fn a_request_that_has_arrived_is_read_after_the_shutdown_has_begun() {
        let shutdown = Shutdown::default();
        shutdown.token.cancel();
        for is_first in [true, false] {
            assert_eq!(shutdown.next_request(ready(7), is_first).await, Some(7));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_new_connection_is_waited_for_and_not_for_long() {
        let shutdown = Shutdown::default();
        shutdown.token.cancel();
        let begun = tokio::time::Instant::now();
        assert_eq!(shutdown.next_request(pending::<u8>(), false).await, None);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let soon = async {
            tokio::time::sleep(FIRST_REQUEST_GRACE / 2).await;
            7
        };
        assert_eq!(shutdown.next_request(soon, true).await, Some(7));
        let begun = tokio::time::Instant::now();
        assert_eq!(shutdown.next_request(pending::<u8>(), true).await, None);
        assert_eq!(begun.elapsed(), FIRST_REQUEST_GRACE);
    }
}
