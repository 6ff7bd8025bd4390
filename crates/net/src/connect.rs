//! Opens outgoing TCP connections, from a configured local address if there is one.

use formats::limits::{CONNECT_TIME, HAPPY_EYEBALLS_DELAY};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinError, JoinSet};

/// Connects to the first address that accepts a connection. The addresses are tried in their order. Each attempt gets a
/// head start of [`HAPPY_EYEBALLS_DELAY`] over the next, so that an unresponsive address delays the connection only a
/// little (POL-28, RFC 8305 §5). `sources` are local addresses to connect from.
///
/// # Errors
/// If every attempt fails, the address and the error of the last one.
pub async fn connect_any(
    addresses: Vec<SocketAddr>,
    sources: &[IpAddr],
) -> Result<(TcpStream, SocketAddr), String> {
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.into_iter();
    let mut last = String::from("the host has no addresses");
    loop {
        match waiting.next() {
            // A single address needs no race.
            Some(address) if waiting.len() == 0 && attempts.is_empty() => {
                let attempt = (tcp(address, sources, CONNECT_TIME).await, address);
                return settle(Ok(attempt), &mut last).ok_or(last);
            }
            Some(address) => {
                let sources = sources.to_vec();
                attempts.spawn(async move { (tcp(address, &sources, CONNECT_TIME).await, address) });
                tokio::select! {
                    Some(outcome) = attempts.join_next() => if let Some(found) = settle(outcome, &mut last) { return Ok(found) },
                    () = tokio::time::sleep(HAPPY_EYEBALLS_DELAY) => {}
                }
            }
            None => match attempts.join_next().await {
                Some(outcome) => {
                    if let Some(found) = settle(outcome, &mut last) {
                        return Ok(found);
                    }
                }
                None => return Err(last),
            },
        }
    }
}

type Attempt = (Result<TcpStream, String>, SocketAddr);

/// Returns the connection of a successful attempt; otherwise writes the error to `last`.
fn settle(outcome: Result<Attempt, JoinError>, last: &mut String) -> Option<(TcpStream, SocketAddr)> {
    match outcome {
        Ok((Ok(stream), address)) => return Some((stream, address)),
        Ok((Err(why), address)) => *last = format!("{address}: {why}"),
        Err(error) => *last = error.to_string(),
    }
    None
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_first_address_that_accepts_is_used_and_else_the_last_error_is_returned() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = open.local_addr().unwrap();
        let closed = |last| SocketAddr::from(([127, 0, 0, last], good.port()));
        let (_, address) = connect_any(vec![closed(2), closed(3), good], &[]).await.unwrap();
        assert_eq!(address, good);
        let error = connect_any(vec![closed(2), closed(3)], &[]).await.unwrap_err();
        assert!(error.starts_with(&closed(3).to_string()), "{error}");
        let none = connect_any(Vec::new(), &[]).await.unwrap_err();
        assert_eq!(none, "the host has no addresses");
    }
}
