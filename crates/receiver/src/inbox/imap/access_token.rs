//! Access tokens for mailboxes that take no password: from a file or a command that another program provides, or from
//! the provider's OAuth server, by refresh token (RFC 6749 §6) or client credentials (§4.4).
//!
//! A token is requested at each sign-in. A new refresh token in the answer replaces the old one in its file. Secrets
//! appear in no error text.

use super::ImapError;
use super::sign_in::{dial, secure};
use formats::limits::{ACCESS_TOKEN_BYTES, IMAP_TIME};
use formats::tlsrpt_record::HttpsUrl;
use http_body_util::{BodyExt, Full, Limited};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use net::dns::Dns;
use net::percent::encoded;
use net::redaction::Secrets;
use rustls::ClientConfig;
use serde::Deserialize;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

/// Where access tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A file with a current access token, which another program keeps up to date.
    File(PathBuf),
    /// A program with its arguments that prints an access token.
    Command(Vec<String>),
    /// The token endpoint of an OAuth server.
    Endpoint(TokenEndpoint),
}

/// The token endpoint of an OAuth server, and the client's registration there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEndpoint {
    /// The URL of the endpoint.
    pub url: HttpsUrl,
    /// The client identifier (RFC 6749 §2.2).
    pub client_id: String,
    /// The file with the client's secret; `None` for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// The file with the refresh token; `None` requests tokens by client credentials.
    pub refresh_token_file: Option<PathBuf>,
    /// The scope to request; `None` leaves it to the server.
    pub scope: Option<String>,
}

/// Characters of an OAuth server's error text that are shown.
const ERROR_CHARACTERS: usize = 300;

/// Why there is no access token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A file with a secret can't be read.
    #[error("can't read {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// Other users of the machine can read a file with a secret.
    #[error("{0} can be read by other users of the machine. Run: chmod 600 {0}")]
    Readable(PathBuf),
    /// The command for an access token failed, for this reason.
    #[error("the command for an access token failed: {0}")]
    Command(String),
    /// The token endpoint could not be reached, or its answer is not valid.
    #[error("no access token from the token endpoint {0}: {1}")]
    Endpoint(String, String),
    /// The OAuth server refused the request (RFC 6749 §5.2).
    #[error("the OAuth server refuses a token: {0}")]
    Refused(String),
    /// The new refresh token of this client can't be written to its file.
    #[error(
        "can't store the new refresh token of {0} in {1}: {2}. Make the file and its folder writable, or sign-in fails once the \
         old token expires"
    )]
    NotStored(String, PathBuf, std::io::Error),
    /// The source has no token, or one with characters that a token can't have.
    #[error("there is no valid access token in {0}")]
    Invalid(String),
}

/// The answer of a token endpoint (RFC 6749 §5.1, §5.2).
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    refresh_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl TokenSource {
    /// An access token for one sign-in. It is remembered in `secrets`, as are those that are sent to get it.
    pub(super) async fn token(
        &self,
        dns: &dyn Dns,
        tls: &Arc<ClientConfig>,
        secrets: &Secrets,
    ) -> Result<String, ImapError> {
        let token = match self {
            Self::File(path) => secret(path)?,
            Self::Command(words) => output(words).await?,
            Self::Endpoint(endpoint) => endpoint.token(dns, tls, secrets).await?,
        };
        secrets.remember(&token);
        // Anything else would end the SASL message early.
        match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(token),
            false => Err(TokenError::Invalid(self.place()).into()),
        }
    }

    fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Command(words) => format!("the output of {}", words.first().map_or("", String::as_str)),
            Self::Endpoint(endpoint) => format!("the answer of {}", endpoint.url.host()),
        }
    }
}

impl TokenEndpoint {
    async fn token(
        &self,
        dns: &dyn Dns,
        tls: &Arc<ClientConfig>,
        secrets: &Secrets,
    ) -> Result<String, ImapError> {
        let client_secret = self.client_secret_file.as_deref().map(secret).transpose()?;
        let refresh_token = self.refresh_token_file.as_deref().map(secret).transpose()?;
        for known in client_secret.iter().chain(&refresh_token) {
            secrets.remember(known);
        }
        let body = self.form(client_secret.as_deref(), refresh_token.as_deref());
        let exchange = self.post(dns, tls, body);
        let (status, bytes) =
            tokio::time::timeout(IMAP_TIME, exchange).await.map_err(|_| ImapError::Slow)??;
        let answer = self.answer(status, &bytes, secrets)?;
        if let (Some(path), Some(new)) = (&self.refresh_token_file, &answer.refresh_token)
            && Some(new) != refresh_token.as_ref()
            && let Err(error) = self.keep(path, new)
        {
            tracing::error!("{error}");
        }
        Ok(answer.access_token.unwrap_or_default())
    }

    fn form(&self, client_secret: Option<&str>, refresh_token: Option<&str>) -> String {
        let grant = if refresh_token.is_some() { "refresh_token" } else { "client_credentials" };
        let fields = [
            ("grant_type", Some(grant)),
            ("client_id", Some(self.client_id.as_str())),
            ("client_secret", client_secret),
            ("refresh_token", refresh_token),
            ("scope", self.scope.as_deref()),
        ];
        let fields = fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded((*value)?))));
        fields.collect::<Vec<_>>().join("&")
    }

    /// Posts the form and returns status and body of the answer: errors have a body too.
    async fn post(
        &self,
        dns: &dyn Dns,
        tls: &Arc<ClientConfig>,
        body: String,
    ) -> Result<(StatusCode, Vec<u8>), ImapError> {
        let stream = dial(dns, self.url.host(), self.url.port()).await?;
        let stream = secure(tls, self.url.host(), stream).await?;
        let failed = |error: &dyn std::fmt::Display| {
            ImapError::Token(TokenError::Endpoint(self.url.host().to_string(), error.to_string()))
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let request = hyper::Request::post(self.url.path())
            .header(HOST, self.authority())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ACCESS_TOKEN_BYTES).collect().await;
            Ok((status, body.map_err(|error| failed(&error))?.to_bytes().to_vec()))
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            outcome = &mut exchange => return outcome,
            _ = connection => {}
        }
        exchange.await
    }

    /// The host, with the port if it is not 443.
    fn authority(&self) -> String {
        match self.url.port() {
            443 => self.url.host().to_string(),
            port => format!("{}:{port}", self.url.host()),
        }
    }

    /// Reads an answer. An error text that repeats secrets, also new ones, is shown without them.
    fn answer(&self, status: StatusCode, bytes: &[u8], secrets: &Secrets) -> Result<Answer, TokenError> {
        let unusable = |what: &str| {
            let why = format!("status {}, {what}", status.as_u16());
            TokenError::Endpoint(self.url.host().to_string(), why)
        };
        // The reason could quote a part of the answer.
        let answer: Answer = serde_json::from_slice(bytes)
            .map_err(|_| unusable("and the answer is not the JSON of RFC 6749"))?;
        for new in answer.access_token.iter().chain(&answer.refresh_token) {
            secrets.remember(new);
        }
        if let Some(error) = &answer.error {
            let about = answer.error_description.as_deref().unwrap_or_default();
            return Err(TokenError::Refused(secrets.shown(&format!("{error}: {about}"), ERROR_CHARACTERS)));
        }
        if !status.is_success() {
            return Err(unusable("without an error code of RFC 6749"));
        }
        Ok(answer)
    }

    /// Replaces the refresh token in its file. If that fails, the old token stays, which many servers still take.
    pub(super) fn keep(&self, path: &Path, token: &str) -> Result<(), TokenError> {
        let failed = |error| TokenError::NotStored(self.client_id.clone(), path.to_owned(), error);
        replace(path, token).map_err(failed)
    }
}

/// Reads a secret from a file that only its owner may read.
fn secret(path: &Path) -> Result<String, TokenError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error| TokenError::File(path.to_owned(), error);
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & 0o007 != 0 {
        return Err(TokenError::Readable(path.to_owned()));
    }
    let mut text = String::new();
    file.take(ACCESS_TOKEN_BYTES as u64).read_to_string(&mut text).map_err(failed)?;
    Ok(text.trim().to_owned())
}

/// Replaces a file at once, with mode 0600.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// Runs a program and returns what it prints.
async fn output(words: &[String]) -> Result<String, TokenError> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(TokenError::Command("there is no command".to_owned()));
    };
    let failed = |why: String| TokenError::Command(format!("{program}: {why}"));
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let run = async {
        use tokio::io::AsyncReadExt;
        let mut text = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(ACCESS_TOKEN_BYTES as u64).read_to_string(&mut text).await?;
        }
        Ok::<_, std::io::Error>((text, child.wait().await?))
    };
    let (text, status) = tokio::time::timeout(IMAP_TIME, run)
        .await
        .map_err(|_| failed(format!("no end within {} seconds", IMAP_TIME.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    match status.success() {
        true => Ok(text.trim().to_owned()),
        false => Err(failed(status.to_string())),
    }
}
