//! POSTs to the operator's webhooks: alerts (`messages`, as `chat` writes them) and received reports (`report_hook`). With a secret, a POST is
//! signed by the convention of Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`. A retried POST
//! has the same id, so that a receiver can recognize it. Redirects are not followed.

use config::failure::Failure;
use formats::limits::HOST_ADDRESSES;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::{SignedDuration, Timestamp};
use net::address::special;
use net::causes::causes;
use net::dns::interleave;
use net::system_names::{TcpConnector, system_addresses, tcp_connector};
use net::webhook::WebhookSecret;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Time limit for a webhook's response.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for connecting to the webhook's host, divided among its addresses.
const WEBHOOK_CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// Delay after the first failure; it doubles with each further one.
const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(5);
/// Maximum delay between two attempts.
const MAX_RETRY: SignedDuration = SignedDuration::from_hours(1);

/// What is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The media type of the body.
    pub kind: &'static str,
    /// The header `Title`, which ntfy shows above the message: printable ASCII.
    pub title: Option<String>,
    pub body: String,
}

impl Message {
    /// A body in JSON.
    pub fn json(body: String) -> Self {
        Self { kind: "application/json", title: None, body }
    }
}

/// A webhook of the operator.
#[derive(Debug)]
pub struct Webhook {
    url: String,
    secret: Option<WebhookSecret>,
    /// Whether the host may have a special-purpose address.
    allow_private: bool,
    /// The trust of all connections (`[trust]`).
    tls: Arc<rustls::ClientConfig>,
}

impl Webhook {
    /// A webhook at `url`. Its POSTs are signed with the secret in the file, if one is named.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or does not contain a secret.
    pub fn new(
        url: &str,
        secret: Option<&Path>,
        allow_private: bool,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, Failure> {
        let secret = secret.map(read_secret).transpose()?;
        Ok(Self { url: url.to_owned(), secret, allow_private, tls })
    }

    /// POSTs a message. `id` identifies the event, and has no dot. On failure, returns why, as a sentence without its period.
    pub async fn post(&self, id: &str, now: Timestamp, message: &Message) -> Result<(), String> {
        match tokio::time::timeout(WEBHOOK_TIMEOUT, self.send(id, now, message)).await {
            Ok(Ok(status)) if status.is_success() => Ok(()),
            Ok(Ok(status)) => Err(format!("the webhook returned {status}")),
            Ok(Err(why)) => Err(format!("the webhook can't be reached: {why}")),
            Err(_) => Err("the webhook timed out".to_owned()),
        }
    }

    async fn send(&self, id: &str, now: Timestamp, message: &Message) -> Result<StatusCode, String> {
        let fail = |error: &dyn std::fmt::Display| error.to_string();
        let uri: Uri = self.url.parse().map_err(|error| fail(&error))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let addresses = self.addresses(&host, uri.port_u16().unwrap_or(default)).await?;
        let limit = WEBHOOK_CONNECT_TIMEOUT / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        let mut last = "the host has no addresses".to_owned();
        for address in addresses {
            let request = self.request(&uri, address, id, now, message)?;
            let name = (uri.scheme() == Some(&Scheme::HTTPS)).then_some(host.as_str());
            match self.client(name, limit)?.request(request).await {
                Ok(response) => return Ok(response.status()),
                Err(error) if error.is_connect() => last = format!("{address}: {}", causes(&error)),
                Err(error) => return Err(format!("{address}: {}", causes(&error))),
            }
        }
        Err(last)
    }

    /// The addresses of the host that may be contacted, IPv6 and IPv4 in turn.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let found = system_addresses(host).await.map_err(|error| error.to_string())?;
        let all = interleave(found).into_iter().take(HOST_ADDRESSES);
        let all: Vec<SocketAddr> = all.map(|address| SocketAddr::new(address, port)).collect();
        let is_allowed = |address: &&SocketAddr| self.allow_private || special(address.ip()).is_none();
        let allowed: Vec<SocketAddr> = all.iter().filter(is_allowed).copied().collect();
        match all.first().filter(|_| allowed.is_empty()) {
            Some(first) => Err(refusal(first.ip())),
            None => Ok(allowed),
        }
    }

    /// A client that connects to the address in a URL and expects a certificate for `host`; `None` for HTTP.
    fn client(&self, host: Option<&str>, connect_timeout: Duration) -> Result<HttpsClient, String> {
        let connector = HttpsConnectorBuilder::new().with_tls_config(self.tls.as_ref().clone());
        let mut connector = connector.https_or_http();
        if let Some(host) = host {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            connector = connector.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let connector = connector.enable_http1().wrap_connector(tcp_connector(connect_timeout));
        Ok(Client::builder(TokioExecutor::new()).build(connector))
    }

    fn request(
        &self,
        uri: &Uri,
        address: SocketAddr,
        id: &str,
        now: Timestamp,
        message: &Message,
    ) -> Result<Request<Full<Bytes>>, String> {
        let host = uri.host().unwrap_or_default();
        let host = uri.port_u16().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let to = Uri::builder()
            .scheme(uri.scheme_str().unwrap_or("http"))
            .authority(address.to_string())
            .path_and_query(uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")))
            .build()
            .map_err(|error| error.to_string())?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(to)
            .header(HOST, host)
            .header(CONTENT_TYPE, message.kind)
            .header("webhook-id", id)
            .header("webhook-timestamp", now.as_second());
        if let Some(secret) = &self.secret {
            let signature = secret.sign(id, now.as_second(), message.body.as_bytes());
            request = request.header("webhook-signature", signature);
        }
        if let Some(title) = &message.title {
            request = request.header("title", title);
        }
        request.body(Full::new(Bytes::from(message.body.clone()))).map_err(|error| error.to_string())
    }
}

fn refusal(address: IpAddr) -> String {
    let what = special(address).unwrap_or_default();
    format!("refusing to POST to {address}: it is {what} (inbox.webhook_private allows it)")
}

type HttpsClient = Client<hyper_rustls::HttpsConnector<TcpConnector>, Full<Bytes>>;

fn read_secret(file: &Path) -> Result<WebhookSecret, Failure> {
    let shown = file.display();
    let remedy = format!(
        "Create one, and give it to the webhook's receiver:\n  (printf whsec_; head -c 32 /dev/urandom | base64) > {shown}\n  chmod 600 {shown}"
    );
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("the webhook's secret {shown} can't be read"), error, &remedy)
    })?;
    WebhookSecret::parse(&text)
        .map_err(|error| Failure::usage(format!("the webhook's secret {shown} can't be used"), error, remedy))
}

/// The delay before the next attempt, after this number of failed ones.
pub fn retry_delay(tries: u32) -> SignedDuration {
    FIRST_RETRY.saturating_mul(1 << tries.min(10)).min(MAX_RETRY)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Accepts one request, and answers with this status. Returns its head and its body.
    pub async fn receive(listener: &TcpListener, status: &str) -> (String, String) {
        let (mut stream, head, body) = receive_only(listener).await;
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        (head, body)
    }

    /// Accepts one request, and does not answer. Returns the connection, the head and the body.
    pub async fn receive_only(listener: &TcpListener) -> (TcpStream, String, String) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        loop {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            request.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                let (head, body) = (head.to_owned(), body.to_owned());
                return (stream, head, body);
            }
        }
    }

    /// A configuration that trusts a CA of its own.
    pub fn tls() -> Arc<rustls::ClientConfig> {
        trusting(&lab::pki::Pki::new(NOW).unwrap())
    }

    fn trusting(pki: &lab::pki::Pki) -> Arc<rustls::ClientConfig> {
        let trust = net::certificate::Trust::from_roots([pki.root()]).unwrap();
        Arc::new(trust.client(Arc::new(net::clock::ManualClock::new(NOW))).unwrap())
    }

    /// A webhook within an organization has a certificate of its CA, which `[trust] ca_file` names.
    #[tokio::test]
    async fn the_certificate_of_a_webhook_is_verified_by_the_configured_roots() {
        let pki = lab::pki::Pki::new(NOW).unwrap();
        let identity = pki.issue("localhost", lab::pki::Cert::Good).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(identity.key.to_vec());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.certified.cert.clone(), key.into())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let mut handshakes = 0;
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                handshakes += 1;
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                let _ = stream.shutdown().await;
            }
            handshakes
        });
        let url = format!("https://localhost:{port}/");
        let post = async |tls: Arc<rustls::ClientConfig>| {
            let hook = Webhook::new(&url, None, true, tls).unwrap();
            hook.post("id-1", NOW, &Message::json("{}".to_owned())).await
        };
        let refused = post(tls()).await.unwrap_err();
        assert!(refused.contains("invalid peer certificate"), "{refused}");
        assert_eq!(post(trusting(&pki)).await, Ok(()));
        assert_eq!(serving.await.unwrap(), 1);
    }

    const NOW: Timestamp = Timestamp::constant(1_790_000_000, 0);

    /// `localhost` is `::1` before `127.0.0.1` on most machines.
    #[tokio::test]
    async fn a_webhook_is_reached_at_whichever_address_of_its_host_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hook =
            Webhook::new(&format!("http://user@localhost:{port}/hook?a=b"), None, true, tls()).unwrap();
        let message = Message::json("{}".to_owned());
        let (sent, (head, body)) =
            tokio::join!(hook.post("id-1", NOW, &message), receive(&listener, "204 No Content"));
        assert_eq!(sent, Ok(()));
        assert!(head.starts_with("POST /hook?a=b HTTP/1.1\r\n") && body == "{}", "{head}");
        assert!(head.contains(&format!("\r\nhost: localhost:{port}\r\n")), "{head}");
        assert!(!head.contains("webhook-signature"), "{head}");
    }

    #[tokio::test]
    async fn a_post_is_signed_by_the_secret_in_the_file_and_other_states_are_failures() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hook.key");
        std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let hook = Webhook::new(&url, Some(&file), true, tls()).unwrap();
        let body = r#"{"test": 2432232314}"#;
        let at = Timestamp::from_second(1_614_265_330).unwrap();
        let message = Message::json(body.to_owned());
        let post = hook.post("msg_p5jXN8AQM9LWM0D4loKWxJek", at, &message);
        let (sent, (head, _)) = tokio::join!(post, receive(&listener, "500 No"));
        assert_eq!(sent, Err("the webhook returned 500 Internal Server Error".to_owned()));
        for line in [
            "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp: 1614265330",
            "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "content-type: application/json",
        ] {
            assert!(head.contains(line), "{line}: {head}");
        }
        std::fs::write(&file, "secret").unwrap();
        let error = Webhook::new(&url, Some(&file), true, tls()).unwrap_err().to_string();
        assert!(error.contains("whsec_") && error.contains("hook.key"), "{error}");
        assert!(Webhook::new(&url, Some(&dir.path().join("none")), true, tls()).is_err());
    }

    #[tokio::test]
    async fn private_addresses_are_refused_unless_allowed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"] {
            let hook = Webhook::new(&format!("http://{host}:{port}/"), None, false, tls()).unwrap();
            let why = hook.post("id", NOW, &Message::json("{}".to_owned())).await.unwrap_err();
            assert!(why.contains("refusing to POST to"), "{host}: {why}");
        }
        let number = Webhook::new(&format!("http://2130706433:{port}/"), None, false, tls()).unwrap();
        let why = number.post("id", NOW, &Message::json("{}".to_owned())).await.unwrap_err();
        assert!(why.contains("not a valid host name"), "{why}");
        // Nothing was sent.
        let waited = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(waited.is_err());
    }

    #[test]
    fn retry_delays_double_from_seconds_to_an_hour() {
        let seconds = [0, 1, 2, 9, 10, 40].map(|tries| retry_delay(tries).as_secs());
        assert_eq!(seconds, [5, 10, 20, 2560, 3600, 3600]);
    }
}
