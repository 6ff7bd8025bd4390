//! HTTPS requests to the provider: bounded in size and time, without redirects, over verified TLS only.

use formats::limits::{CONNECT_TIME, IDENTITY_ANSWER_BYTES, IDENTITY_REQUEST_TIME};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use net::BoxFuture;
use net::causes::causes;
use net::system_names::{TcpConnector, tcp_connector};
use rustls::ClientConfig;
use std::sync::Arc;

/// A response: its status and body.
pub type Answer = (StatusCode, Bytes);

/// Sends requests to the provider. Tests have a provider in memory.
pub trait Transport: Send + Sync {
    /// Sends a request. The error says why there is no whole response.
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'_, Result<Answer, String>>;
}

/// Requests over the network.
pub struct Https(Client<HttpsConnector<TcpConnector>, Full<Bytes>>);

impl Https {
    pub fn new(tls: &Arc<ClientConfig>) -> Self {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.as_ref().clone()).https_only();
        let connector = connector.enable_http1().wrap_connector(tcp_connector(CONNECT_TIME));
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let response = self.0.request(request).await.map_err(|error| causes(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), IDENTITY_ANSWER_BYTES).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    }
}

impl Transport for Https {
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move {
            let limit = IDENTITY_REQUEST_TIME;
            tokio::time::timeout(limit, self.exchange(request))
                .await
                .map_err(|_| format!("no response within {} seconds", limit.as_secs()))?
        })
    }
}
