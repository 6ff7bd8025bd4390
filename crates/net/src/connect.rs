//! Opens outgoing TCP connections, from a configured local address if there is one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// Connects to `address` within `limit`. The connection is made from the first address in `sources` of the same family;
/// without one, the system chooses. The crate `check` recognizes a blocked port by the text of the timeout error.
pub(crate) async fn tcp(
    address: SocketAddr,
    sources: &[IpAddr],
    limit: Duration,
) -> Result<TcpStream, String> {
    let source = sources.iter().find(|source| source.is_ipv4() == address.is_ipv4());
    let connect = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(source) = source {
            socket.bind(SocketAddr::new(*source, 0))?;
        }
        socket.connect(address).await
    };
    match tokio::time::timeout(limit, connect).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} seconds", limit.as_secs_f32())),
    }
}
