//! The plain HTTP side of the policy host: answers the ACME challenge http-01 (RFC 8555 §8.3). It never redirects:
//! senders use HTTPS only, and a redirect would hide a wrong URL.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use net::BoxFuture;
use store::{Outage, Store};

const PATH: &str = "/.well-known/acme-challenge/";
/// Maximum length of a token. Tokens are base64url (RFC 8555 §8.3), and CAs use shorter ones.
const MAX_TOKEN_BYTES: usize = 128;

/// Requests of strangers that the store fails to answer.
static OUTAGE: Outage = Outage::new();

/// Responds to a request, with the challenge's answer from the store or an error status.
pub fn respond<'a>(
    store: &'a Store,
    method: &'a Method,
    path: &'a str,
) -> BoxFuture<'a, Response<Full<Bytes>>> {
    Box::pin(async move {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        }
        let token = path.strip_prefix(PATH).filter(|token| is_token(token));
        let Some(token) = token else {
            return text(StatusCode::NOT_FOUND, "MTA-STS policies are served over HTTPS only.\n".to_owned());
        };
        let answer = store.challenge(token).await;
        OUTAGE.log(
            &answer,
            "ACME challenges can't be answered: the store fails",
            "ACME challenges are answered again",
        );
        match answer {
            Ok(Some(answer)) => text(StatusCode::OK, answer),
            Ok(None) => text(StatusCode::NOT_FOUND, "no such challenge\n".to_owned()),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "try again\n".to_owned()),
        }
    })
}

fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_base64url_and_short() {
        assert!(is_token("LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"));
        for not in ["", "../x", "a/b", "a.b", &"a".repeat(129)] {
            assert!(!is_token(not), "{not}");
        }
    }
}
