//! Talks to the running program through its control socket: HTTP with JSON, by the paths of
//! [`crate::serve`].

use crate::view::Remembered;
use config::failure::Failure;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use sender::answer::route::NextHop;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

/// The longest answer that is taken.
const MAX_REPLY_BYTES: usize = 64 << 20;
/// A refresh waits for the look-up, which has a minute.
const REPLY_TIMEOUT: Duration = Duration::from_secs(90);

/// What is remembered of a domain.
pub async fn show(socket: &Path, hop: &NextHop) -> Result<Remembered, Failure> {
    ask(socket, Method::GET, &format!("/v1/policy/{hop}")).await
}

/// Asks the program behind the socket.
pub async fn ask<T: DeserializeOwned>(socket: &Path, method: Method, path: &str) -> Result<T, Failure> {
    let fail = |error: &dyn Display| {
        Failure::new(
            format!("the program behind {} does not answer as it should", socket.display()),
            error,
            "",
        )
    };
    let (status, body) = match tokio::time::timeout(REPLY_TIMEOUT, exchange(socket, method, path)).await {
        Err(_) => return Err(fail(&format!("nothing came within {} seconds", REPLY_TIMEOUT.as_secs()))),
        Ok(outcome) => outcome?,
    };
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| fail(&error));
    }
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let why = said.get("error").and_then(serde_json::Value::as_str).unwrap_or("no reason given");
    Err(Failure::usage("the running program refuses", why, ""))
}

async fn exchange(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    let shown = socket.display();
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| {
        Failure::new(
            format!("no running program at {shown}"),
            error,
            "Start it with `sternpost serve`, or name its configuration with --config.\nOnly the user that it runs as can open the socket.",
        )
    })?;
    let fail =
        |error: &dyn Display| Failure::new(format!("the program behind {shown} breaks off"), error, "");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| fail(&e))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "sternpost")
        .body(Empty::<Bytes>::new())
        .map_err(|e| fail(&e))?;
    let response = sender.send_request(request).await.map_err(|e| fail(&e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REPLY_BYTES).collect().await.map_err(|e| fail(&e))?;
    Ok((status, body.to_bytes()))
}
