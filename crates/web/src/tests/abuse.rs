//! What attackers try with a slow connection, an old cookie or password, a session that was left open, or a link.

use super::accounts::{code, set_up};
use super::*;
use crate::auth::{Method as SignInMethod, Verified};
use crate::layout::ErrorPage;
use axum::body::Bytes;
use axum::http::header::CONNECTION;
use axum::response::IntoResponse;
use formats::limits::{FORM_BYTES, FORM_TIME, FORMS_PER_CLIENT};
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use store::people::Person;
use tracing::field::{Field, Visit};

const NEW: &str = "another horse battery";

/// A body whose beginning arrives, and nothing else.
struct Stops(Option<Bytes>);

impl hyper::body::Body for Stops {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

/// The response to a form whose body stops.
async fn stopped(router: axum::Router, path: &str, from: &str) -> axum::response::Response {
    let request = Request::post(path).header(HOST, "dash.example");
    let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let mut request = request.body(Body::new(Stops(Some(Bytes::from_static(b"name="))))).unwrap();
    request.extensions_mut().insert(ClientAddr(from.parse().ok()));
    TowerToHyperService::new(router).call(request).await.unwrap()
}

#[tokio::test]
async fn a_form_that_stops_arriving_is_answered_in_time_and_ends_the_connection() {
    let place = Place::new().await;
    tokio::time::pause();
    for path in ["/sign-in", "/sign-in/code", "/welcome/x", "/account/password", "/settings/people", "/none"]
    {
        let begun = tokio::time::Instant::now();
        let answer = stopped(place.router.clone(), path, "192.0.2.66").await;
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT, "{path}");
        assert_eq!(answer.headers()[CONNECTION], "close", "{path}");
        assert!(begun.elapsed() <= FORM_TIME + std::time::Duration::from_secs(1), "{path}");
    }
}

#[tokio::test]
async fn forms_that_stop_arriving_keep_nobody_else_out() {
    let place = Place::new().await;
    let slow: Vec<_> = (0..FORMS_PER_CLIENT)
        .map(|_| {
            let router = place.router.clone();
            tokio::spawn(async move { stopped(router, "/sign-in", "192.0.2.66").await })
        })
        .collect();
    let status =
        async |from: &str| place.browser(from).post("/sign-in/code", &[("proof", ""), ("code", "")]).await;
    let refused = loop {
        let answer = status("192.0.2.66").await;
        if answer.status != StatusCode::UNAUTHORIZED {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (refused.status, refused.retry_after()),
        (StatusCode::TOO_MANY_REQUESTS, 5),
        "{}",
        refused.body
    );
    for other in ["192.0.2.67", "2001:db8::1"] {
        assert_eq!(status(other).await.status, StatusCode::UNAUTHORIZED, "{other}");
    }
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

/// True if the cookies of this browser are those of a known browser of the user.
async fn is_known(place: &Place, browser: &Browser<'_>, name: &str) -> bool {
    let person = place.store.person(Tenant::FIRST, name).await.unwrap();
    let cookies: Vec<String> =
        browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let headers = HeaderMap::from_iter([(COOKIE, cookies.join("; ").parse().unwrap())]);
    let auth = &place.dashboard.auth;
    let source = auth.source(Tenant::FIRST, person.as_ref(), ClientAddr(None), &headers).await;
    source.map_err(IntoResponse::into_response).unwrap().browser.is_some()
}

#[tokio::test]
async fn a_new_password_second_factor_or_the_end_of_a_user_ends_the_cookies_of_other_browsers() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let mut other = place.browser("198.51.100.2");
    other.sign_in("bob", PASSWORD).await;
    assert!(is_known(&place, &bob, "bob").await && is_known(&place, &other, "bob").await);
    let form = [("current", PASSWORD), ("password", NEW), ("again", NEW)];
    bob.submit("/account", "/account/password", &form).await;
    assert!(is_known(&place, &bob, "bob").await && !is_known(&place, &other, "bob").await);
    // Back to the password that `set_up` uses.
    let form = [("current", NEW), ("password", PASSWORD), ("again", PASSWORD)];
    bob.submit("/account", "/account/password", &form).await;
    other.sign_in("bob", PASSWORD).await;
    assert!(is_known(&place, &other, "bob").await);
    let (secret, _) = set_up(&place, &mut bob).await;
    assert!(is_known(&place, &bob, "bob").await && !is_known(&place, &other, "bob").await);
    place.clock.advance(60);
    let form = [("current", PASSWORD), ("code", &*code(&secret, &place))];
    let with_factor = bob.clone();
    bob.submit("/account", "/account/second-factor/remove", &form).await;
    assert!(is_known(&place, &bob, "bob").await && !is_known(&place, &with_factor, "bob").await);
    place.store.remove_person(Tenant::FIRST, "bob").await.unwrap();
    assert!(!is_known(&place, &bob, "bob").await);
}

#[tokio::test]
async fn no_session_begins_from_a_password_that_was_changed_while_it_was_verified() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let auth = &place.dashboard.auth;
    let verified = async || place.store.person(Tenant::FIRST, "bob").await.unwrap().unwrap();
    let begins = async |person: &Person| {
        let method = SignInMethod::Password;
        let user = Verified { tenant: Tenant::FIRST, person, method, second_factor: None };
        let answer = auth.sign_in(user, ClientAddr(None), &HeaderMap::new()).await;
        answer.unwrap_or_else(ErrorPage::into_response).status()
    };
    let before = verified().await;
    assert_eq!(begins(&before).await, StatusCode::SEE_OTHER);
    let form = [("current", PASSWORD), ("password", NEW), ("again", NEW)];
    bob.submit("/account", "/account/password", &form).await;
    assert_eq!(begins(&before).await, StatusCode::UNAUTHORIZED);
    let before = verified().await;
    let link = place.link("bob", None).await;
    bob.post(&link, &[("password", PASSWORD), ("again", PASSWORD)]).await;
    assert_eq!(begins(&before).await, StatusCode::UNAUTHORIZED, "a link sets a new password");
    let before = verified().await;
    set_up(&place, &mut bob).await;
    assert_eq!(begins(&before).await, StatusCode::UNAUTHORIZED, "a code is needed now");
    place.store.remove_person(Tenant::FIRST, "bob").await.unwrap();
    assert_eq!(begins(&before).await, StatusCode::UNAUTHORIZED);
    assert_eq!(place.store.sessions_of(Tenant::FIRST, "bob", place.clock.now()).await.unwrap(), []);
}

#[tokio::test]
async fn another_session_neither_sees_nor_confirms_nor_undoes_a_second_factor() {
    let place = Place::new().await;
    let mut owner = place.user("bob", Role::Reader, "198.51.100.1").await;
    let mut thief = place.browser("192.0.2.66");
    thief.sign_in("bob", PASSWORD).await;
    let begin = "/account/second-factor/begin";
    owner.submit("/account", begin, &[("current", PASSWORD)]).await;
    let page = owner.get("/account").await;
    let secret = page.body.split("?secret=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    assert!(!thief.get("/account").await.body.contains("?secret="));
    let form = [("current", PASSWORD), ("code", &*code(&secret, &place))];
    let confirm = "/account/second-factor/confirm";
    assert_eq!(thief.submit("/account", confirm, &form).await.status, StatusCode::CONFLICT);
    place.clock.advance(15 * 60);
    assert!(!owner.get("/account").await.body.contains("?secret="), "it has ended");
    let form = [("current", PASSWORD), ("code", &*code(&secret, &place))];
    assert_eq!(owner.submit("/account", confirm, &form).await.status, StatusCode::CONFLICT);
    set_up(&place, &mut owner).await;
    // What the request of the thief would still do after its check of the state.
    assert!(!place.store.cancel_second_factor(Tenant::FIRST, "bob").await.unwrap());
    assert!(place.store.second_factor(Tenant::FIRST, "bob").await.unwrap().is_some());
}

#[tokio::test]
async fn a_thief_of_the_password_keeps_nobody_from_a_recovery_code() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let (_, codes) = set_up(&place, &mut bob).await;
    let proof = place.browser("192.0.2.1").sign_in("bob", PASSWORD).await.input("proof");
    let guess = async |from: String, code: &str| {
        place.browser(&from).post("/sign-in/code", &[("proof", &proof), ("code", code)]).await.status
    };
    for third in 0..20 {
        guess(format!("192.0.{third}.1"), "no code").await;
    }
    assert_eq!(guess("203.0.113.1".to_owned(), "no code").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(guess("203.0.113.1".to_owned(), &codes[0]).await, StatusCode::SEE_OTHER);
}

/// Collects the messages of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn refused_attempts_of_a_network_write_one_line_of_the_log() {
    let place = Place::new().await;
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    for last in 0..100 {
        let mut stranger = place.browser(if last % 2 == 0 { "192.0.2.1" } else { "192.0.2.2" });
        stranger.sign_in("nobody", "guess").await;
    }
    let lines = log.0.lock().unwrap();
    let of = |message: &str| lines.iter().filter(|line| *line == message).count();
    assert_eq!((of("sign-in failed"), of("sign-in delayed")), (10, 1), "{lines:?}");
}

#[tokio::test]
async fn a_cookie_of_the_same_name_from_elsewhere_does_not_sign_out() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let good = bob.cookies["__Host-sternpost"].clone();
    let mut is_in = async |cookies: String| {
        bob.headers.insert("cookie", cookies);
        bob.is_in().await
    };
    assert!(is_in(format!("__Host-sternpost=bad; __Host-sternpost={good}")).await);
    // Browsers let other hosts of the domain set this name.
    assert!(!is_in(format!("sternpost={good}")).await);
    // As many as browsers keep for all hosts of a domain, before and after.
    let bad = |count: usize| -> String { (0..count).map(|n| format!("__Host-sternpost=bad{n}; ")).collect() };
    assert!(is_in(format!("{}__Host-sternpost={good}; {}", bad(100), bad(180))).await);
    assert!(is_in(format!("{}__Host-sternpost={good}", "__Host-sternpost=bad; ".repeat(500))).await);
    assert!(!is_in(format!("{}__Host-sternpost={good}", bad(500))).await, "so many are not tried");
}

#[tokio::test]
async fn only_the_dashboard_itself_makes_notices() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Operator, "198.51.100.1").await;
    for page in ["/settings", "/account", "/reports", "/quarantine", "/domains/one.example"] {
        for query in ["said=call+0900", "s%61id=call+0900", "said=call+0900&by=x"] {
            let shown = bob.get(&format!("{page}?{query}")).await;
            assert_eq!(shown.status, StatusCode::OK, "{page}");
            assert!(!shown.body.contains("call 0900"), "{page}?{query}");
        }
    }
    let done = bob.submit("/account", "/account/sessions/end", &[]).await;
    let shown = bob.get(done.location()).await;
    assert!(shown.body.contains("Ended 0 other sessions."), "{}", shown.body);
    let mut ann = place.user("ann", Role::Operator, "198.51.100.1").await;
    assert!(!ann.get(done.location()).await.body.contains("Ended 0"), "of another session");
}

#[tokio::test]
async fn every_refused_request_is_answered_with_a_page() {
    let place = Place::new().await;
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    for path in [
        "/?page=-1",
        "/?page=99999999999999999999999",
        "/?format=xml",
        "/domains/one.example?days=x",
        "/reports?before=x",
        "/reports/9223372036854775808",
    ] {
        let answer = ada.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(answer.header(CONTENT_TYPE).starts_with("text/html"), "{path}: {}", answer.body);
    }
    let large = "x".repeat(FORM_BYTES);
    for (kind, form, status) in [
        ("application/x-www-form-urlencoded", "name=a", StatusCode::UNPROCESSABLE_ENTITY),
        ("application/json", "{}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/x-www-form-urlencoded", &*format!("name={large}"), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        ada.headers.insert("content-type", kind.to_owned());
        let answer = ada.send(Method::POST, "/sign-in", form.to_owned()).await;
        assert_eq!(answer.status, status, "{form:.20}");
        assert!(answer.header(CONTENT_TYPE).starts_with("text/html"), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_report_address_says_that_it_takes_posts() {
    let place = Place::with("[dashboard]\n[inbox]\nhttp = \"/in\"\n").await;
    let secret = place.store.known_secret("reports").await.unwrap().unwrap();
    let answer = place.browser("192.0.2.1").get(&format!("/in/{secret}")).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(answer.body.contains("POST") && answer.header("allow").contains("POST"), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_form_is_taken_only_from_a_page_of_the_same_scheme_and_host() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    for (headers, status) in [
        (vec![("origin", "https://dash.example")], StatusCode::SEE_OTHER),
        (vec![("origin", "")], StatusCode::SEE_OTHER),
        (vec![("sec-fetch-site", "same-origin")], StatusCode::SEE_OTHER),
        (vec![("origin", "http://dash.example")], StatusCode::FORBIDDEN),
        (vec![("origin", "https://dash.example:444")], StatusCode::FORBIDDEN),
        (vec![("origin", "null")], StatusCode::FORBIDDEN),
        (vec![("origin", "\u{e9}")], StatusCode::FORBIDDEN),
        (vec![("origin", ""), ("sec-fetch-site", "cross-site")], StatusCode::FORBIDDEN),
        (vec![("origin", ""), ("sec-fetch-site", "same-site")], StatusCode::FORBIDDEN),
    ] {
        bob.headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        assert_eq!(bob.sign_in("bob", PASSWORD).await.status, status, "{headers:?}");
    }
    let request = Request::get("/sign-in").header(HOST, "dash.example").header(HOST, "dash.example");
    let answer = TowerToHyperService::new(place.router.clone()).call(request.body(Body::empty()).unwrap());
    assert_eq!(answer.await.unwrap().status(), StatusCode::BAD_REQUEST);
}
