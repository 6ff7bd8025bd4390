//! One HTTPS request to the interface of a DNS provider: bounded in size and time, redirects not followed, verified by
//! the system's roots, put off and repeated when the provider asks for that, and with the key cut out of every error.

use super::Fault;
use crate::BoxFuture;
use crate::certificate::Trust;
use crate::clock::Clock;
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
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// A request as a dialect states it.
pub(super) struct Call {
    method: Method,
    /// Path and query, percent-encoded.
    path: String,
    /// Headers beside those that every request of the dialect has.
    headers: Vec<(HeaderName, String)>,
    media_type: &'static str,
    body: String,
    /// False where a second execution would do something else than the first.
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

    /// Marks a request that creates something, and would create it twice when repeated.
    pub(super) fn creates(self) -> Self {
        Self { is_idempotent: false, ..self }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The pause that the provider asks for.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// Carries one request; tests have one of their own.
pub(super) trait Transport: Send + Sync {
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'_, Result<Answer, String>>;
}

/// The HTTPS side of a dialect.
pub(super) struct Api {
    transport: Box<dyn Transport>,
    host: &'static str,
    authorization: Option<HeaderValue>,
    /// What must not be shown, whatever an answer repeats.
    secrets: Vec<String>,
    /// Whether an answer asks for patience, beside statuses 429 and 503.
    is_busy: fn(&Answer) -> bool,
}

impl Api {
    /// For a host, with the secrets of a key.
    pub(super) fn new(transport: Box<dyn Transport>, host: &'static str, secrets: Vec<String>) -> Self {
        Self { transport, host, authorization: None, secrets, is_busy: |_| false }
    }

    /// For a host whose key is a token, sent with each request after a word such as `Bearer`.
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

    /// Adds a sign by which an answer asks for patience.
    pub(super) fn busy_when(self, is_busy: fn(&Answer) -> bool) -> Self {
        Self { is_busy, ..self }
    }

    /// Sends a request, again where the provider puts it off, and returns the body of a success.
    pub(super) async fn send(&self, call: &Call) -> Result<Vec<u8>, Fault> {
        let mut retries = 0;
        loop {
            let exchange =
                tokio::time::timeout(PROVIDER_REQUEST_TIME, self.transport.send(self.request(call)?));
            let answer = match exchange.await {
                Ok(answer) => answer.map_err(|why| Fault::Other(self.cleaned(&why)))?,
                Err(_) => {
                    let seconds = PROVIDER_REQUEST_TIME.as_secs();
                    return Err(Fault::Other(format!("no answer within {seconds} seconds")));
                }
            };
            let is_put_off = match answer.status {
                429 => true,
                503 => call.is_idempotent,
                _ => (self.is_busy)(&answer),
            };
            if !is_put_off || retries >= PROVIDER_RETRIES {
                return self.success(answer);
            }
            let pause = answer.retry_after.unwrap_or(Duration::from_secs(1 << retries.min(6)));
            tokio::time::sleep(pause.min(PROVIDER_RETRY_PAUSE)).await;
            retries += 1;
        }
    }

    /// The same, for an answer in JSON. An empty body, as with status 204, reads as an empty object.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Fault> {
        let body = self.send(call).await?;
        let text = if body.trim_ascii().is_empty() { b"{}" } else { &body[..] };
        serde_json::from_slice(text).map_err(|error| self.unreadable(&error, &body))
    }

    /// An answer that is not in the form that the interface is documented to have.
    pub(super) fn unreadable(&self, why: &dyn std::fmt::Display, body: &[u8]) -> Fault {
        let body = String::from_utf8_lossy(body);
        Fault::Other(self.cleaned(&format!("its answer can't be read: {why}: {}", body.trim())))
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
        request.map_err(|error| Fault::Other(self.cleaned(&format!("the request can't be made: {error}"))))
    }

    fn success(&self, answer: Answer) -> Result<Vec<u8>, Fault> {
        match answer.status {
            200..=299 => Ok(answer.body),
            401 => Err(Fault::Unauthorized),
            404 => Err(Fault::NotFound),
            status => {
                let text = String::from_utf8_lossy(&answer.body);
                Err(Fault::Refused { status, text: self.cleaned(text.trim()) })
            }
        }
    }

    fn cleaned(&self, text: &str) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "…"))
    }
}

/// A connection pool, kept for the requests of one change.
pub(super) struct Http<C>(Client<C, Full<Bytes>>);

impl Http<HttpsConnector<HttpConnector>> {
    /// HTTPS by the system's resolver and the system's roots.
    pub(super) fn system(clock: Arc<dyn Clock>) -> Result<Self, String> {
        let trust = Trust::system().map_err(|error| error.to_string())?;
        let tls = trust.client(clock).map_err(|error| error.to_string())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIME));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        Ok(Self::new(https.wrap_connector(tcp)))
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
                    Err(format!("its answer has over {PROVIDER_ANSWER_BYTES} bytes"))
                }
                Err(error) => Err(format!("its answer breaks off: {}", causes(error.as_ref()))),
            }
        })
    }
}

/// `Retry-After` in seconds; a date is not read, so that the pause is the usual one.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An error and what caused it: the outermost says hardly more than "client error".
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
pub(super) mod script {
    //! A provider that answers by a script, for tests of the dialects.

    use super::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// Answers in the order given, and the requests that came: method, path, body.
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
                self.answers.lock().unwrap().pop_front().ok_or_else(|| "the script is over".to_owned())
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
    async fn requests_that_are_put_off_are_repeated_so_often_and_no_more() {
        let script = Script::new([(429, ""), (503, ""), (200, "fine")]);
        assert_eq!(api(&script).send(&get()).await.unwrap(), b"fine");
        assert_eq!(script.lines().len(), 3);
        let script = Script::new([(429, "slow down"); 9]);
        let error = api(&script).send(&get()).await.unwrap_err();
        assert!(matches!(error, Fault::Refused { status: 429, .. }), "{error:?}");
        assert_eq!(script.lines().len(), 4);
        // What may have been created is not created again.
        let script = Script::new([(429, ""), (503, "")]);
        let call = Call::new(Method::POST, "/".to_owned()).creates();
        let error = api(&script).send(&call).await.unwrap_err();
        assert!(matches!(error, Fault::Refused { status: 503, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn statuses_are_told_apart_and_redirects_are_errors() {
        let script = Script::new([(401, ""), (404, ""), (302, ""), (204, "")]);
        let api = api(&script);
        assert!(matches!(api.send(&get()).await, Err(Fault::Unauthorized)));
        assert!(matches!(api.send(&get()).await, Err(Fault::NotFound)));
        assert!(matches!(api.send(&get()).await, Err(Fault::Refused { status: 302, .. })));
        assert_eq!(api.json::<serde_json::Value>(&get()).await.unwrap(), serde_json::json!({}));
    }

    #[tokio::test]
    async fn an_answer_that_repeats_the_token_does_not_get_it_shown() {
        let script = Script::new([(400, "bad token t0ken"), (200, "t0ken")]);
        let api = api(&script);
        let refused = format!("{:?}", api.send(&get()).await.unwrap_err());
        assert!(refused.contains("bad token") && !refused.contains(TOKEN), "{refused}");
        let unreadable = format!("{:?}", api.json::<Vec<u8>>(&get()).await.unwrap_err());
        assert!(!unreadable.contains(TOKEN), "{unreadable}");
    }

    /// What the real client makes of these bytes.
    async fn answered(bytes: Vec<u8>) -> Result<Answer, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await.unwrap();
            let _ = stream.write_all(&bytes).await;
        });
        let request = Request::get(format!("http://{address}/")).body(Full::new(Bytes::new())).unwrap();
        let answer = Http::new(HttpConnector::new()).send(request).await;
        server.abort();
        answer
    }

    #[tokio::test]
    async fn answers_are_bounded_and_redirects_are_not_followed() {
        let head = |body: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {body}\r\n\r\n").into_bytes();
        let most = [head(PROVIDER_ANSWER_BYTES), vec![b'x'; PROVIDER_ANSWER_BYTES]].concat();
        assert_eq!(answered(most).await.unwrap().body.len(), PROVIDER_ANSWER_BYTES);
        let more = [head(PROVIDER_ANSWER_BYTES + 1), vec![b'x'; PROVIDER_ANSWER_BYTES + 1]].concat();
        assert!(answered(more).await.unwrap_err().contains("over 4194304 bytes"));
        assert!(answered(head(5)).await.unwrap_err().contains("breaks off"));
        let wide = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(HTTP_HEADER_BYTES));
        assert!(answered(wide.into_bytes()).await.is_err());
        let moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
        let answer = answered(moved.to_vec()).await.unwrap();
        assert_eq!((answer.status, answer.retry_after), (302, Some(Duration::from_secs(7))));
    }
}
