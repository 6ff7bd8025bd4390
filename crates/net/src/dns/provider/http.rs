//! HTTPS requests to the API of a DNS provider. Requests are limited in size and time, do not follow redirects, and
//! verify the server against the system's root certificates. They are retried when the provider asks for it (HTTP 429
//! or 503). The API key is removed from every error text.

use super::Fault;
use crate::BoxFuture;
use crate::causes::causes;
use crate::certificate::Trust;
use crate::clock::Clock;
use crate::system_names::{TcpConnector, tcp_connector};
use formats::limits::{
    CONNECT_TIME, HTTP_HEADER_BYTES, PROVIDER_ANSWER_BYTES, PROVIDER_REQUEST_TIME, PROVIDER_RETRIES,
    PROVIDER_RETRY_PAUSE,
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// A request of a dialect, before authentication is added.
pub(super) struct Call {
    method: Method,
    /// Path and query string, percent-encoded.
    path: String,
    /// Headers in addition to those that [`Api`] adds to every request.
    headers: Vec<(HeaderName, String)>,
    media_type: &'static str,
    body: String,
    /// False if repeating the request could have a further effect, such as a duplicate record.
    is_idempotent: bool,
}

impl Call {
    /// A request without a body.
    pub(super) fn new(method: Method, path: String) -> Self {
        let media_type = "application/json";
        Self { method, path, headers: Vec::new(), media_type, body: String::new(), is_idempotent: true }
    }

    /// A request with a JSON body.
    pub(super) fn json(method: Method, path: String, body: &impl Serialize) -> Result<Self, Fault> {
        let body = serde_json::to_string(body).map_err(|error| Fault::Other(error.to_string()))?;
        Ok(Self { body, ..Self::new(method, path) })
    }

    /// Replaces the body and its media type, and adds headers.
    pub(super) fn with(
        self,
        media_type: &'static str,
        body: String,
        headers: Vec<(HeaderName, String)>,
    ) -> Self {
        Self { media_type, body, headers, ..self }
    }

    /// Marks a request that would create a duplicate if repeated.
    pub(super) fn creates(self) -> Self {
        Self { is_idempotent: false, ..self }
    }
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The pause that the provider asks for in `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// Sends requests; tests use an implementation with scripted responses.
pub(super) trait Transport: Send + Sync {
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'_, Result<Answer, String>>;
}

/// The HTTP client of a dialect.
pub(super) struct Api {
    transport: Box<dyn Transport>,
    host: &'static str,
    authorization: Option<HeaderValue>,
    /// Secrets that are removed from error texts, in case a response repeats them.
    secrets: Vec<String>,
    /// Whether a response other than 429 and 503 asks for a retry.
    is_busy: fn(&Answer) -> bool,
}

impl Api {
    /// Creates a client without an `Authorization` header.
    pub(super) fn new(transport: Box<dyn Transport>, host: &'static str, secrets: Vec<String>) -> Self {
        Self { transport, host, authorization: None, secrets, is_busy: |_| false }
    }

    /// Creates a client that sends a token with each request. `word` is the scheme, such as `Bearer`.
    pub(super) fn with_token(
        transport: Box<dyn Transport>,
        host: &'static str,
        word: &str,
        token: &str,
    ) -> Result<Self, Fault> {
        let value = HeaderValue::from_str(&format!("{word} {token}"));
        let mut value = value.map_err(|_| Fault::Other("the token can't be sent in a header".to_owned()))?;
        value.set_sensitive(true);
        let api = Self::new(transport, host, vec![token.to_owned()]);
        Ok(Self { authorization: Some(value), ..api })
    }

    /// Sets a further test for responses that ask for a retry.
    pub(super) fn busy_when(self, is_busy: fn(&Answer) -> bool) -> Self {
        Self { is_busy, ..self }
    }

    /// Sends a request, retries it while the provider asks for that, and returns the body of a successful response.
    pub(super) async fn send(&self, call: &Call) -> Result<Vec<u8>, Fault> {
        let mut retries = 0;
        loop {
            let exchange =
                tokio::time::timeout(PROVIDER_REQUEST_TIME, self.transport.send(self.request(call)?));
            let answer = match exchange.await {
                Ok(answer) => answer.map_err(|why| Fault::Other(self.redacted(&why)))?,
                Err(_) => {
                    let seconds = PROVIDER_REQUEST_TIME.as_secs();
                    return Err(Fault::Other(format!("no answer within {seconds} seconds")));
                }
            };
            let is_deferred = match answer.status {
                429 => true,
                503 => call.is_idempotent,
                _ => (self.is_busy)(&answer),
            };
            if !is_deferred || retries >= PROVIDER_RETRIES {
                return self.success(answer);
            }
            let pause = answer.retry_after.unwrap_or(Duration::from_secs(1 << retries.min(6)));
            tokio::time::sleep(pause.min(PROVIDER_RETRY_PAUSE)).await;
            retries += 1;
        }
    }

    /// Like [`Api::send`], for a JSON response. An empty body, as with status 204, counts as an empty object.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Fault> {
        let body = self.send(call).await?;
        let text = if body.trim_ascii().is_empty() { b"{}" } else { &body[..] };
        serde_json::from_slice(text).map_err(|error| self.unreadable(&error, &body))
    }

    /// The error for a response that does not have the documented format.
    pub(super) fn unreadable(&self, why: &dyn std::fmt::Display, body: &[u8]) -> Fault {
        let body = String::from_utf8_lossy(body);
        Fault::Other(self.redacted(&format!("the response can't be parsed: {why}: {}", body.trim())))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Fault> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("https://{}{}", self.host, call.path))
            .header(CONTENT_TYPE, call.media_type)
            .header(USER_AGENT, concat!("sternpost/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(call.body.clone())));
        request.map_err(|error| Fault::Other(self.redacted(&format!("the request is invalid: {error}"))))
    }

    fn success(&self, answer: Answer) -> Result<Vec<u8>, Fault> {
        match answer.status {
            200..=299 => Ok(answer.body),
            401 => Err(Fault::Unauthorized),
            404 => Err(Fault::NotFound),
            status => {
                let text = String::from_utf8_lossy(&answer.body);
                Err(Fault::Refused { status, text: self.redacted(text.trim()) })
            }
        }
    }

    /// Replaces the secrets in a text with `…`.
    fn redacted(&self, text: &str) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "…"))
    }
}

/// The [`Transport`] over HTTPS, with a connection pool for the requests of one change.
pub(super) struct Http<C>(Client<C, Full<Bytes>>);

impl Http<HttpsConnector<TcpConnector>> {
    /// Uses the system's resolver and the system's root certificates.
    pub(super) fn system(clock: Arc<dyn Clock>) -> Result<Self, String> {
        let trust = Trust::system().map_err(|error| error.to_string())?;
        let tls = trust.client(clock).map_err(|error| error.to_string())?;
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        Ok(Self::new(https.wrap_connector(tcp_connector(CONNECT_TIME))))
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> Http<C> {
    fn new(connector: C) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        Self(builder.http1_max_buf_size(HTTP_HEADER_BYTES).build(connector))
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> Transport for Http<C> {
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'_, Result<Answer, String>> {
        Box::pin(async move {
            let response = self.0.request(request).await.map_err(|error| causes(&error))?;
            let status = response.status().as_u16();
            let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
            match Limited::new(response.into_body(), PROVIDER_ANSWER_BYTES).collect().await {
                Ok(body) => Ok(Answer { status, retry_after, body: body.to_bytes().to_vec() }),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(format!("the response is larger than {PROVIDER_ANSWER_BYTES} bytes"))
                }
                Err(error) => Err(format!("the response is incomplete: {}", causes(error.as_ref()))),
            }
        })
    }
}

/// `Retry-After` in seconds. `None` for a date, in which case the default pause applies.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
pub(super) mod script {
    //! A simulated provider that sends scripted responses, for tests of the dialects.

    use super::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// The responses to send, in order, and the requests received: method, path and body.
    #[derive(Clone, Default)]
    pub(in super::super) struct Script {
        answers: Arc<Mutex<VecDeque<Answer>>>,
        pub(in super::super) asked: Arc<Mutex<Vec<(String, String, String)>>>,
    }

    impl Script {
        pub(in super::super) fn new<'a>(answers: impl IntoIterator<Item = (u16, &'a str)>) -> Self {
            let answer = |(status, body): (u16, &str)| Answer {
                status,
                retry_after: Some(Duration::ZERO),
                body: body.as_bytes().to_vec(),
            };
            let answers = answers.into_iter().map(answer).collect();
            Self { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }
        }

        /// Method, path and query of each request, in order.
        pub(in super::super) fn lines(&self) -> Vec<String> {
            let asked = self.asked.lock().unwrap();
            asked.iter().map(|(method, path, _)| format!("{method} {path}")).collect()
        }

        pub(in super::super) fn bodies(&self) -> Vec<String> {
            self.asked.lock().unwrap().iter().map(|(_, _, body)| body.clone()).collect()
        }
    }

    impl Transport for Script {
        fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'_, Result<Answer, String>> {
            Box::pin(async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let path = head.uri.path_and_query().unwrap().to_string();
                let body = String::from_utf8(body.to_vec()).unwrap();
                self.asked.lock().unwrap().push((head.method.to_string(), path, body));
                self.answers.lock().unwrap().pop_front().ok_or_else(|| "the script has ended".to_owned())
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::script::Script;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const TOKEN: &str = "t0ken";

    fn api(script: &Script) -> Api {
        Api::with_token(Box::new(script.clone()), "api.example", "Bearer", TOKEN).unwrap()
    }

    fn get() -> Call {
        Call::new(Method::GET, "/".to_owned())
    }

    #[tokio::test]
    async fn deferred_requests_are_retried_a_limited_number_of_times() {
        let script = Script::new([(429, ""), (503, ""), (200, "fine")]);
        assert_eq!(api(&script).send(&get()).await.unwrap(), b"fine");
        assert_eq!(script.lines().len(), 3);
        let script = Script::new([(429, "slow down"); 9]);
        let error = api(&script).send(&get()).await.unwrap_err();
        assert!(matches!(error, Fault::Refused { status: 429, .. }), "{error:?}");
        assert_eq!(script.lines().len(), 4);
        // A request that may have created a record is not repeated.
        let script = Script::new([(429, ""), (503, "")]);
        let call = Call::new(Method::POST, "/".to_owned()).creates();
        let error = api(&script).send(&call).await.unwrap_err();
        assert!(matches!(error, Fault::Refused { status: 503, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn error_statuses_are_distinguished_and_redirects_are_errors() {
        let script = Script::new([(401, ""), (404, ""), (302, ""), (204, "")]);
        let api = api(&script);
        assert!(matches!(api.send(&get()).await, Err(Fault::Unauthorized)));
        assert!(matches!(api.send(&get()).await, Err(Fault::NotFound)));
        assert!(matches!(api.send(&get()).await, Err(Fault::Refused { status: 302, .. })));
        assert_eq!(api.json::<serde_json::Value>(&get()).await.unwrap(), serde_json::json!({}));
    }

    #[tokio::test]
    async fn a_token_repeated_in_a_response_is_not_shown() {
        let script = Script::new([(400, "bad token t0ken"), (200, "t0ken")]);
        let api = api(&script);
        let refused = format!("{:?}", api.send(&get()).await.unwrap_err());
        assert!(refused.contains("bad token") && !refused.contains(TOKEN), "{refused}");
        let unreadable = format!("{:?}", api.json::<Vec<u8>>(&get()).await.unwrap_err());
        assert!(!unreadable.contains(TOKEN), "{unreadable}");
    }

    /// The result of the real client for a response of these bytes.
    async fn respond(bytes: Vec<u8>) -> Result<Answer, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await.unwrap();
            let _ = stream.write_all(&bytes).await;
        });
        let request = Request::get(format!("http://{address}/")).body(Full::new(Bytes::new())).unwrap();
        let answer = Http::new(tcp_connector(CONNECT_TIME)).send(request).await;
        server.abort();
        answer
    }

    #[tokio::test]
    async fn responses_are_bounded_and_redirects_are_not_followed() {
        let head = |body: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {body}\r\n\r\n").into_bytes();
        let most = [head(PROVIDER_ANSWER_BYTES), vec![b'x'; PROVIDER_ANSWER_BYTES]].concat();
        assert_eq!(respond(most).await.unwrap().body.len(), PROVIDER_ANSWER_BYTES);
        let more = [head(PROVIDER_ANSWER_BYTES + 1), vec![b'x'; PROVIDER_ANSWER_BYTES + 1]].concat();
        assert!(respond(more).await.unwrap_err().contains("larger than 4194304 bytes"));
        assert!(respond(head(5)).await.unwrap_err().contains("incomplete"));
        let wide = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(HTTP_HEADER_BYTES));
        assert!(respond(wide.into_bytes()).await.is_err());
        let moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
        let answer = respond(moved.to_vec()).await.unwrap();
        assert_eq!((answer.status, answer.retry_after), (302, Some(Duration::from_secs(7))));
    }
}
