//! Signing in by a provider in memory that does what the test says. A real one is in the program's tests (`tests/single_sign_on.rs`).

use super::*;
use crate::tests::{Browser, PASSWORD, Place, Response};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::AUTHORIZATION;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use net::BoxFuture;
use serde_json::json;
use std::sync::Mutex;

/// A key of the provider.
pub struct EcKey {
    id: String,
    key: EncodingKey,
}

impl EcKey {
    pub fn new(id: &str) -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Self { id: id.to_owned(), key: EncodingKey::from_ec_der(pkcs8.as_ref()) }
    }

    pub fn public(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(self.id.clone());
        jwk
    }
}

/// A token with these claims. Members that are null are left out.
pub fn token(key: &EcKey, claims: &Value) -> String {
    let mut claims = claims.as_object().unwrap().clone();
    claims.retain(|_, value| !value.is_null());
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
    encode(&header, &claims, &key.key).unwrap()
}

/// What the provider does next.
struct Script {
    key: EcKey,
    metadata: Value,
    /// Claims of the ID token beyond the standard ones; null removes one.
    claims: Value,
    user_info: Value,
    token_status: u16,
    /// The nonce of the last sign-in.
    nonce: String,
    /// Path, `Authorization` and body of each request.
    asked: Vec<(String, String, String)>,
}

#[derive(Clone)]
struct InMemory {
    script: Arc<Mutex<Script>>,
    clock: Arc<dyn Clock>,
}

impl InMemory {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let metadata = json!({
            "issuer": "https://id.example", "authorization_endpoint": "https://id.example/auth?tenant=1",
            "token_endpoint": "https://id.example/token", "jwks_uri": "https://id.example/keys",
            "userinfo_endpoint": "https://id.example/me", "more": {"than": ["we", "read"]},
        });
        let script = Script {
            key: EcKey::new("k1"),
            metadata,
            claims: json!({"sub": "42", "preferred_username": "ann@corp.example", "groups": ["staff", "ops"]}),
            user_info: json!({"sub": "42"}),
            token_status: 200,
            nonce: String::new(),
            asked: Vec::new(),
        };
        Self { script: Arc::new(Mutex::new(script)), clock }
    }

    fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    fn claim(&self, name: &str, value: Value) {
        self.change(|script| script.claims[name] = value);
    }

    fn paths(&self) -> Vec<String> {
        self.script.lock().unwrap().asked.drain(..).map(|(path, ..)| path).collect()
    }

    fn answer(&self, path: &str) -> (u16, Value) {
        let script = self.script.lock().unwrap();
        match path {
            "/.well-known/openid-configuration" => (200, script.metadata.clone()),
            "/keys" => (200, json!({"keys": [{"kty": "unknown"}, script.key.public()]})),
            "/me" => (200, script.user_info.clone()),
            "/token" if script.token_status != 200 => {
                (script.token_status, json!({"error": "invalid_grant", "error_description": "no such\ncode"}))
            }
            "/token" => {
                let mut claims = json!({
                    "iss": "https://id.example", "aud": "sternpost", "nonce": script.nonce,
                    "exp": self.clock.now().as_second() + 300,
                });
                for (name, value) in script.claims.as_object().unwrap() {
                    claims[name] = value.clone();
                }
                (
                    200,
                    json!({"id_token": token(&script.key, &claims), "access_token": "a1", "token_type": "Bearer"}),
                )
            }
            other => panic!("{other}"),
        }
    }
}

impl Transport for InMemory {
    fn send(&self, request: Request<Full<Bytes>>) -> BoxFuture<'_, Result<https::Answer, String>> {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path().to_owned();
            let authorization = head.headers.get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
            let body = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            self.change(|script| script.asked.push((path.clone(), authorization.to_owned(), body)));
            let (status, answer) = self.answer(&path);
            Ok((StatusCode::from_u16(status).unwrap(), Bytes::from(answer.to_string())))
        })
    }
}

const SECTION: &str = "[dashboard]\nurl = \"https://dash.example\"\n[dashboard.oidc]\nissuer = \"https://id.example\"\n\
    client_id = \"sternpost\"\nname = \"Example ID\"\noperator_groups = [\"ops\"]\nreader_groups = [\"help desk\"]\n";

async fn place(more: &str) -> (Place, InMemory) {
    let mut place = Place::with(&format!("{SECTION}{more}")).await;
    let provider = InMemory::new(place.clock.clone());
    let config = place.dashboard.config.oidc.clone().unwrap();
    let oidc = Oidc::with(config, Box::new(provider.clone()), place.clock.clone());
    place.use_provider(oidc).await;
    (place, provider)
}

/// The value of a parameter of a URL.
fn parameter(url: &str, name: &str) -> String {
    let (_, query) = url.split_once('?').unwrap();
    let pair = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    pair.unwrap_or_else(|| panic!("{name}: {url}")).to_owned()
}

/// Begins a sign-in; returns the state.
async fn begin(browser: &mut Browser<'_>, provider: &InMemory) -> String {
    let answer = browser.get("/sign-in/oidc").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let url = answer.location().to_owned();
    provider.change(|script| script.nonce = parameter(&url, "nonce"));
    parameter(&url, "state")
}

async fn sign_in(browser: &mut Browser<'_>, provider: &InMemory) -> Response {
    let state = begin(browser, provider).await;
    browser.get(&format!("/sign-in/oidc/return?code=c1&state={state}")).await
}

#[tokio::test]
async fn a_user_of_the_provider_gets_the_role_of_their_groups() {
    let (place, provider) = place("").await;
    let mut browser = place.browser("198.51.100.1");
    let page = browser.get("/sign-in").await;
    assert!(
        page.body.contains("<a class=\"button\" href=\"/sign-in/oidc\">Sign in with Example ID</a>"),
        "{}",
        page.body
    );
    let answer = browser.get("/sign-in/oidc").await;
    let url = answer.location().to_owned();
    assert!(
        url.starts_with("https://id.example/auth?tenant=1&response_type=code&client_id=sternpost&"),
        "{url}"
    );
    assert_eq!(parameter(&url, "redirect_uri"), "https%3A%2F%2Fdash.example%2Fsign-in%2Foidc%2Freturn");
    assert_eq!(
        (parameter(&url, "scope"), parameter(&url, "code_challenge_method")),
        ("openid%20profile".into(), "S256".into())
    );
    let answer = sign_in(&mut browser, &provider).await;
    assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/"), "{}", answer.body);
    let account = browser.get("/account").await.body;
    assert!(account.contains("ann@corp.example") && account.contains("Operator"), "{account}");
    assert!(
        account.contains("You sign in with Example ID") && !account.contains("type=\"password\""),
        "{account}"
    );
    // The session of a provider's user ends the same day.
    place.clock.advance(12 * 3600);
    assert!(!browser.is_in().await);
    // Another group, another role, from the next sign-in on.
    provider.claim("groups", json!("help desk"));
    sign_in(&mut browser, &provider).await;
    let people = place.store.people(Tenant::FIRST).await.unwrap();
    assert_eq!(
        people.iter().map(|one| (one.name.as_str(), one.role.as_str())).collect::<Vec<_>>(),
        [("ann@corp.example", "reader")]
    );
}

#[tokio::test]
async fn a_user_who_leaves_the_groups_is_removed() {
    let (place, provider) = place("").await;
    let (mut browser, mut other) = (place.browser("198.51.100.1"), place.browser("198.51.100.2"));
    sign_in(&mut browser, &provider).await;
    for groups in [json!([]), json!(["operators"]), json!(null), json!({"ops": true})] {
        provider.claim("groups", groups);
        let answer = sign_in(&mut other, &provider).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(answer.body.contains("none of the groups"), "{}", answer.body);
    }
    assert!(!browser.is_in().await && !other.is_in().await);
    // Also under another name.
    provider.claim("groups", json!(["ops"]));
    sign_in(&mut browser, &provider).await;
    assert!(browser.is_in().await);
    provider.claim("groups", json!([]));
    provider.claim("preferred_username", json!("renamed"));
    assert_eq!(sign_in(&mut other, &provider).await.status, StatusCode::FORBIDDEN);
    assert!(!browser.is_in().await);
    assert!(place.store.people(Tenant::FIRST).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_name_belongs_to_the_account_that_had_it_first() {
    let (place, provider) = place("").await;
    place.user("ann", Role::Operator, "198.51.100.9").await;
    provider.claim("preferred_username", json!("ann"));
    let mut browser = place.browser("198.51.100.1");
    let answer = sign_in(&mut browser, &provider).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("sternpost dashboard remove ann"), "{}", answer.body);
    // A name that the provider gave to another account.
    provider.claim("preferred_username", json!("bob"));
    assert_eq!(sign_in(&mut browser, &provider).await.location(), "/");
    provider.claim("sub", json!("43"));
    provider.change(|script| script.user_info = json!({"sub": "43"}));
    assert_eq!(sign_in(&mut place.browser("198.51.100.2"), &provider).await.status, StatusCode::FORBIDDEN);
    // An account with a new name is the same user.
    provider.claim("sub", json!("42"));
    provider.claim("preferred_username", json!("robert"));
    assert_eq!(sign_in(&mut browser, &provider).await.location(), "/");
    let names: Vec<String> =
        place.store.people(Tenant::FIRST).await.unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["ann", "robert"]);
    // No password signs in as a user of the provider.
    for password in ["", PASSWORD, "oidc$"] {
        assert_eq!(
            place.browser("198.51.100.3").sign_in("robert", password).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
}

#[tokio::test]
async fn only_the_browser_that_began_a_sign_in_can_finish_it() {
    let (place, provider) = place("").await;
    let (mut browser, mut other) = (place.browser("198.51.100.1"), place.browser("198.51.100.2"));
    let state = begin(&mut browser, &provider).await;
    let path = format!("/sign-in/oidc/return?code=c1&state={state}");
    provider.paths();
    assert_eq!(other.get(&path).await.status, StatusCode::UNAUTHORIZED);
    for query in ["", "?code=c1", "?code=c1&state=", "?code=c1&state=other"] {
        let answer = browser.get(&format!("/sign-in/oidc/return{query}")).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{query}");
    }
    place.clock.advance(15 * 60);
    assert_eq!(browser.get(&path).await.status, StatusCode::UNAUTHORIZED);
    // The provider was not asked for any of these.
    assert_eq!(provider.paths(), [""; 0]);
    // A response of another provider, and a refusal.
    let state = begin(&mut browser, &provider).await;
    let answer = browser
        .get(&format!("/sign-in/oidc/return?code=c1&state={state}&iss=https%3A%2F%2Fevil.example"))
        .await;
    assert!(answer.body.contains("not by the configured issuer"), "{}", answer.body);
    let refused =
        format!("/sign-in/oidc/return?error=access_denied&error_description=%3Cb%3Eno%0A&state={state}");
    let answer = browser.get(&refused).await;
    assert!(answer.body.contains("access_denied &#60;b&#62;no"), "{}", answer.body);
    assert!(!browser.is_in().await);
}

#[tokio::test]
async fn claims_that_the_token_lacks_are_read_from_user_info_of_the_same_user() {
    let (place, provider) = place("").await;
    let mut browser = place.browser("198.51.100.1");
    provider.claim("groups", json!(null));
    provider.change(|script| {
        script.user_info = json!({"sub": "42", "groups": ["ops"], "preferred_username": "mallory"})
    });
    assert_eq!(sign_in(&mut browser, &provider).await.location(), "/");
    assert!(browser.get("/account").await.body.contains("ann@corp.example"));
    assert_eq!(provider.paths().last().unwrap(), "/me");
    provider.change(|script| script.user_info = json!({"sub": "1", "groups": ["ops"]}));
    let answer = sign_in(&mut browser, &provider).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.body.contains("about another user"), "{}", answer.body);
}

#[tokio::test]
async fn the_client_secret_is_sent_as_the_provider_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "s:1\n").unwrap();
    let (place, provider) = place(&format!("client_secret_file = {file:?}\n")).await;
    let mut browser = place.browser("198.51.100.1");
    let token_request = |provider: &InMemory| {
        let script = provider.script.lock().unwrap();
        script.asked.iter().rev().find(|(path, ..)| path == "/token").unwrap().clone()
    };
    sign_in(&mut browser, &provider).await;
    let (_, authorization, body) = token_request(&provider);
    // "sternpost:s%3A1" (RFC 6749 §2.3.1).
    assert_eq!(authorization, "Basic c3Rlcm5wb3N0OnMlM0Ex");
    assert!(body.contains("grant_type=authorization_code&code=c1&") && !body.contains("secret"), "{body}");
    provider.change(|script| {
        script.metadata["token_endpoint_auth_methods_supported"] = json!(["client_secret_post"])
    });
    place.clock.advance(2 * 3600);
    sign_in(&mut browser, &provider).await;
    let (_, authorization, body) = token_request(&provider);
    assert_eq!(authorization, "");
    assert!(body.ends_with("client_id=sternpost&client_secret=s%3A1"), "{body}");
}

#[tokio::test]
async fn keys_are_read_again_for_a_token_by_a_new_key_once_a_minute() {
    let (place, provider) = place("").await;
    let mut browser = place.browser("198.51.100.1");
    sign_in(&mut browser, &provider).await;
    provider.paths();
    provider.change(|script| script.key = EcKey::new("k2"));
    let answer = sign_in(&mut browser, &provider).await;
    assert!(answer.body.contains("none of the provider&#39;s keys fits it"), "{}", answer.body);
    assert_eq!(provider.paths(), ["/token"]);
    place.clock.advance(60);
    assert_eq!(sign_in(&mut browser, &provider).await.location(), "/");
    assert_eq!(provider.paths(), ["/token", "/keys"]);
}

#[tokio::test]
async fn a_provider_that_is_not_the_configured_one_or_not_secure_is_not_used() {
    for (name, value, said) in [
        ("issuer", "https://id.example/", "Set dashboard.oidc.issuer to exactly that"),
        ("token_endpoint", "http://id.example/token", "which is not https"),
        ("jwks_uri", "file:///etc/passwd", "which is not https"),
    ] {
        let (place, provider) = place("").await;
        provider.change(|script| script.metadata[name] = json!(value));
        let answer = place.browser("198.51.100.1").get("/sign-in/oidc").await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert!(answer.body.contains(said), "{}", answer.body);
    }
    let (place, provider) = place("").await;
    provider.change(|script| script.token_status = 400);
    let answer = sign_in(&mut place.browser("198.51.100.1"), &provider).await;
    assert!(answer.body.contains("returned status 400: invalid_grant no suchcode"), "{}", answer.body);
}

#[tokio::test]
async fn a_provider_that_fails_is_not_asked_by_each_of_those_who_wait() {
    let (place, provider) = place("").await;
    provider.change(|script| script.metadata["issuer"] = json!("https://other.example"));
    let mut browser = place.browser("198.51.100.1");
    for _ in 0..3 {
        assert_eq!(browser.get("/sign-in/oidc").await.status, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(provider.paths().len(), 1);
    provider.change(|script| script.metadata["issuer"] = json!("https://id.example"));
    place.clock.advance(3);
    assert_eq!(sign_in(&mut browser, &provider).await.location(), "/");
}

#[tokio::test]
async fn a_network_can_cause_a_bounded_number_of_requests_to_the_provider() {
    let (place, provider) = place("").await;
    let mut browser = place.browser("198.51.100.1");
    for _ in 0..RETURNS / 2 {
        assert_eq!(sign_in(&mut browser, &provider).await.location(), "/");
    }
    provider.paths();
    let answer = browser.get("/sign-in/oidc").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.body);
    assert_eq!(provider.paths(), [""; 0]);
    assert_eq!(sign_in(&mut place.browser("203.0.113.1"), &provider).await.location(), "/");
}

#[tokio::test]
async fn only_the_first_tenant_has_the_provider_of_the_configuration() {
    let (place, _) = place("").await;
    let mut browser = place.browser("198.51.100.1");
    assert!(!browser.get("/t/second/sign-in").await.body.contains("Example ID"));
    assert_eq!(browser.get("/t/second/sign-in/oidc").await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.get("/t/second/sign-in/oidc/return?code=c").await.status, StatusCode::NOT_FOUND);
}
