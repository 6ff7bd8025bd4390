//! The client of the running server's control socket: HTTP/1.1 with JSON over a Unix socket. The routes are in
//! [`crate::serve::api`].

use crate::view::Remembered;
use config::failure::Failure;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use sender::answer::route::NextHop;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

/// Bytes of the largest response body that is accepted.
const MAX_REPLY_BYTES: usize = 64 << 20;
/// Time for a request and its response. A refresh waits for a lookup, which takes up to a minute.
const REPLY_TIMEOUT: Duration = Duration::from_secs(90);

/// Gets the answer for a next hop, from the server's cache or from a new lookup. `map` is the name of a socketmap, whose
/// settings apply; it may have the characters that [`map_name`] accepts.
pub async fn show(socket: &Path, hop: &NextHop, map: Option<&str>) -> Result<Remembered, Failure> {
    let query = map.map_or_else(String::new, |map| format!("?map={map}"));
    ask(socket, Method::GET, &format!("/v1/policy/{hop}{query}")).await
}

/// Parses the name of a socketmap in the command line.
///
/// # Errors
///
/// If a character is not a letter, a digit, `-`, `_` or `.`.
pub fn map_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("a map name has letters, digits, `-`, `_` and `.`".to_owned()),
    }
}

/// Sends a request and parses the response. A response other than 200 fails with the server's `error` text.
pub async fn ask<T: DeserializeOwned>(socket: &Path, method: Method, path: &str) -> Result<T, Failure> {
    send(socket, method, path, Vec::new()).await
}

/// Sends a request with a body, as [`ask`].
pub async fn send<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T, Failure> {
    let fail = |error: &dyn Display| {
        Failure::new(format!("the server at {} did not answer properly", socket.display()), error, "")
    };
    let (status, body) = match tokio::time::timeout(REPLY_TIMEOUT, exchange(socket, method, path, body)).await
    {
        Err(_) => return Err(fail(&format!("no response within {} seconds", REPLY_TIMEOUT.as_secs()))),
        Ok(outcome) => outcome?,
    };
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| fail(&error));
    }
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let why = said.get("error").and_then(serde_json::Value::as_str).unwrap_or("no reason given");
    Err(Failure::usage("the running server rejected the request", why, ""))
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), Failure> {
    let shown = socket.display();
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return Failure::new(
                format!("this user may not connect to the server at {shown}"),
                error,
                "Run the command as root, or as the user that the server runs as:\n  sudo -u sternpost sternpost …",
            );
        }
        Failure::new(
            format!("no server is running at {shown}"),
            error,
            "Start it with `sternpost serve`, or name its configuration with --config.",
        )
    })?;
    let fail =
        |error: &dyn Display| Failure::new(format!("the request to the server at {shown} failed"), error, "");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| fail(&e))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "sternpost")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| fail(&e))?;
    let response = sender.send_request(request).await.map_err(|e| fail(&e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REPLY_BYTES).collect().await.map_err(|e| fail(&e))?;
    Ok((status, body.to_bytes()))
}
