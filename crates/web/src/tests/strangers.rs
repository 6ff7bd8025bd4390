//! What strangers try at the sign-in page, and what users can do meanwhile.

use super::*;

#[tokio::test]
async fn a_stranger_who_fails_all_the_time_keeps_nobody_out() {
    let place = Place::new().await;
    let known = place.user("bob", Role::Reader, "198.51.100.1").await;
    let mut stranger = place.browser("192.0.2.66");
    for _ in 0..30 {
        stranger.sign_in("bob", "guess").await;
    }
    let blocked = stranger.sign_in("bob", PASSWORD).await;
    assert_eq!(blocked.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        (1..=30).contains(&blocked.retry_after()) && blocked.body.contains("Too many"),
        "{}",
        blocked.body
    );
    // The owner with a new browser at another address, and with a known browser at the stranger's.
    for mut owner in [place.browser("203.0.113.5"), Browser { address: "192.0.2.66".into(), ..known.clone() }]
    {
        owner.cookies.remove("__Host-sternpost");
        let answer = owner.sign_in("bob", PASSWORD).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/"), "{}", answer.body);
        assert!(owner.is_in().await);
    }
    let mut other_name = place.browser("192.0.2.66");
    other_name.cookies = known.cookies.clone();
    other_name.cookies.remove("__Host-sternpost");
    for _ in 0..6 {
        other_name.sign_in("ann", "guess").await;
    }
    assert_eq!(
        other_name.sign_in("ann", "guess").await.status,
        StatusCode::TOO_MANY_REQUESTS,
        "the cookie is bob's"
    );
    place.clock.advance(30);
    assert_eq!(stranger.sign_in("bob", PASSWORD).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn unknown_names_behave_as_known_ones() {
    let place = Place::new().await;
    place.user("bob", Role::Reader, "198.51.100.1").await;
    let mut answers = Vec::new();
    for name in ["bob", "nobody"] {
        let mut stranger = place.browser("192.0.2.66");
        let mut seen = Vec::new();
        for _ in 0..7 {
            let answer = stranger.sign_in(name, "guess").await;
            seen.push((answer.status, answer.retry_after(), answer.body));
        }
        answers.push(seen);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].iter().filter(|one| one.0 == StatusCode::UNAUTHORIZED).count(), 5);
}

#[tokio::test]
async fn attempts_at_the_same_moment_do_not_pass_the_limit() {
    let place = Place::new().await;
    place.user("bob", Role::Reader, "198.51.100.1").await;
    // The limit of one client's hashes is four, so that further ones are told to wait.
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let router = place.router.clone();
        tasks.spawn(async move {
            let request = Request::post("/sign-in")
                .header(HOST, "dash.example")
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            let mut request = request.body(Body::from("name=bob&password=guess")).unwrap();
            request.extensions_mut().insert(ClientAddr("192.0.2.66".parse().ok()));
            TowerToHyperService::new(router).call(request).await.unwrap().status()
        });
    }
    let statuses = tasks.join_all().await;
    let judged = statuses.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count();
    assert!((1..=5).contains(&judged), "{statuses:?}");
}

#[tokio::test]
async fn cookies_are_for_this_dashboard_only_and_are_replaced_at_each_sign_in() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let before = bob.cookies.clone();
    bob.cookies.insert("__Host-sternpost".into(), "chosen-by-mallory".into());
    let answer = bob.sign_in("bob", PASSWORD).await;
    for value in answer.headers.get_all(SET_COOKIE) {
        let value = value.to_str().unwrap();
        assert!(
            value.contains("; Path=/; HttpOnly; SameSite=Lax; ") && value.ends_with("; Secure"),
            "{value}"
        );
    }
    for name in ["__Host-sternpost", "__Host-sternpost-browser"] {
        assert!(bob.cookies[name] != before[name] && bob.cookies[name] != "chosen-by-mallory", "{name}");
    }
    assert!(place.store.session_user("chosen-by-mallory", place.clock.now()).await.unwrap().is_none());
    // The cookie of a known browser lets nobody in.
    bob.cookies.remove("__Host-sternpost");
    assert!(!bob.is_in().await);
}

#[tokio::test]
async fn forms_with_a_wrong_token_and_other_hosts_are_rejected() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Operator, "198.51.100.1").await;
    let mut rebound = Browser { host: "rebound.example".into(), ..bob.clone() };
    assert_eq!(rebound.get("/").await.status, StatusCode::MISDIRECTED_REQUEST);
    for path in
        ["/account/password", "/account/sessions/end", "/settings/people", "/domains/one.example/check"]
    {
        let form = [("name", "x"), ("current", PASSWORD), ("password", "p"), ("again", "p"), ("word", "x")];
        assert_eq!(bob.post(path, &form).await.status, StatusCode::FORBIDDEN, "{path}");
    }
}
