//! Invitations, passwords, sessions and second factors.

use super::*;
use totp_rs::{Builder, Secret};

#[tokio::test]
async fn a_newer_link_ends_the_earlier_one_and_what_it_grants_is_shown() {
    let place = Place::new().await;
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    let by_mistake = place.link("mallory", Some(Role::Operator)).await;
    let answer =
        ada.submit("/settings", "/settings/people", &[("name", "mallory"), ("role", "reader")]).await;
    assert!(answer.body.contains("creates the user mallory with the role Reader"), "{}", answer.body);
    assert!(answer.body.contains("https://dash.example/welcome/"));
    let mut mallory = place.browser("203.0.113.1");
    assert_eq!(mallory.get(&by_mistake).await.status, StatusCode::NOT_FOUND);
    let form = [("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(mallory.post(&by_mistake, &form).await.status, StatusCode::NOT_FOUND);
    let settings = ada.get("/settings").await;
    assert!(
        settings.body.contains("<th scope=\"row\">mallory</th><td data-name=\"Role\">Reader</td>"),
        "{}",
        settings.body
    );
    let ended = ada.submit("/settings", "/settings/invitations/end", &[("name", "mallory")]).await;
    assert_eq!(ended.status, StatusCode::SEE_OTHER);
    assert_eq!(place.store.invitations(Tenant::FIRST, place.clock.now()).await.unwrap(), []);
}

#[tokio::test]
async fn a_link_for_a_forgotten_password_keeps_the_role_also_by_the_page() {
    let place = Place::new().await;
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.2").await;
    let answer = ada.submit("/settings", "/settings/people", &[("name", "bob")]).await;
    assert!(answer.body.contains("new password for bob, whose role stays Reader"), "{}", answer.body);
    let (_, rest) = answer.body.split_once("https://dash.example").unwrap();
    let link = rest.split('<').next().unwrap().trim().to_owned();
    assert!(bob.is_in().await, "an unused link changes nothing");
    let mut again = place.browser("198.51.100.2");
    let new = "another horse battery";
    assert_eq!(again.post(&link, &[("password", new), ("again", new)]).await.location(), "/");
    assert!(!bob.is_in().await, "earlier sessions have ended");
    assert!(again.get("/account").await.body.contains("Reader (read-only)"));
    // Neither a new user without a role nor a change of one's own role.
    for (form, status) in [
        (vec![("name", "zoe")], StatusCode::UNPROCESSABLE_ENTITY),
        (vec![("name", "ada"), ("role", "reader")], StatusCode::CONFLICT),
    ] {
        assert_eq!(ada.submit("/settings", "/settings/people", &form).await.status, status);
    }
}

#[tokio::test]
async fn removing_a_user_ends_sessions_and_links() {
    let place = Place::new().await;
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    let mut zoe = place.user("zoe", Role::Operator, "198.51.100.2").await;
    let link = place.link("zoe", None).await;
    ada.submit("/settings", "/settings/people/remove", &[("name", "zoe")]).await;
    assert!(!zoe.is_in().await);
    assert_eq!(zoe.get(&link).await.status, StatusCode::NOT_FOUND);
    let only_invited = place.link("yan", Some(Role::Operator)).await;
    ada.submit("/settings", "/settings/people/remove", &[("name", "yan")]).await;
    assert_eq!(zoe.get(&only_invited).await.status, StatusCode::NOT_FOUND);
    let own = ada.submit("/settings", "/settings/people/remove", &[("name", "ada")]).await;
    assert_eq!(own.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn readers_change_their_own_password_which_ends_their_other_sessions() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let mut elsewhere = place.browser("198.51.100.2");
    elsewhere.sign_in("bob", PASSWORD).await;
    let new = "another horse battery";
    let mut change = async |current: &str, password: &str, again: &str| {
        let form = [("current", current), ("password", password), ("again", again)];
        bob.submit("/account", "/account/password", &form).await.status
    };
    for (current, password, again) in
        [("wrong", new, new), (PASSWORD, "short", "short"), (PASSWORD, new, "another horse")]
    {
        assert_eq!(change(current, password, again).await, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert!(elsewhere.is_in().await);
    assert_eq!(change(PASSWORD, new, new).await, StatusCode::SEE_OTHER);
    assert!(bob.is_in().await && !elsewhere.is_in().await);
    assert_eq!(elsewhere.sign_in("bob", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(elsewhere.sign_in("bob", new).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_session_that_was_left_open_does_not_allow_to_guess_the_password() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let new = "another horse battery";
    let form = [("current", "guess"), ("password", new), ("again", new)];
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(bob.submit("/account", "/account/password", &form).await.status);
    }
    assert_eq!(statuses[11], StatusCode::TOO_MANY_REQUESTS, "{statuses:?}");
}

#[tokio::test]
async fn users_list_and_end_their_own_sessions_only() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let mut elsewhere = place.browser("2001:db8::7");
    elsewhere.sign_in("bob", PASSWORD).await;
    let mut ada = place.user("ada", Role::Operator, "203.0.113.9").await;
    let page = bob.get("/account").await;
    assert!(page.body.contains("2001:db8::7") && page.body.contains("198.51.100.1"), "{}", page.body);
    assert!(!page.body.contains("203.0.113.9") && page.body.matches("This session").count() == 1);
    // Another user can't end it, even with its identifier.
    let id = page.input("id");
    let foreign = ada.submit("/account", "/account/sessions/end", &[("id", &id)]).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    assert!(elsewhere.is_in().await);
    let ended = bob.submit("/account", "/account/sessions/end", &[("id", &id)]).await;
    assert_eq!(ended.status, StatusCode::SEE_OTHER);
    assert!(!elsewhere.is_in().await && bob.is_in().await && ada.is_in().await);
    elsewhere.sign_in("bob", PASSWORD).await;
    bob.submit("/account", "/account/sessions/end", &[]).await;
    assert!(!elsewhere.is_in().await && bob.is_in().await && ada.is_in().await);
    let out = bob.submit("/account", "/sign-out", &[]).await;
    assert_eq!(out.location(), "/sign-in");
    assert!(!bob.is_in().await);
}

/// The code of the app for a secret, at this time.
pub(super) fn code(secret: &str, place: &Place) -> String {
    let bytes = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let secret = Secret::new_stack(bytes.try_into().unwrap());
    let totp = Builder::new().with_secret(secret).build().unwrap();
    totp.generate(place.clock.now().as_second().try_into().unwrap()).to_string()
}

/// Sets up a second factor; returns the secret and the recovery codes.
pub(super) async fn set_up(place: &Place, browser: &mut Browser<'_>) -> (String, Vec<String>) {
    let begun = browser.submit("/account", "/account/second-factor/begin", &[("current", PASSWORD)]).await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.body);
    let page = browser.get("/account").await;
    let secret: String = page.body.split("?secret=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let mut confirm = async |current: &str, code: &str| {
        let form = [("current", current), ("code", code)];
        browser.submit("/account", "/account/second-factor/confirm", &form).await
    };
    for (current, code) in [(PASSWORD, "no code"), ("guess", &*code(&secret, place))] {
        assert_eq!(confirm(current, code).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let confirmed = confirm(PASSWORD, &code(&secret, place)).await;
    let (_, rest) = confirmed.body.split_once("aria-label=\"recovery codes\" tabindex=\"0\">").unwrap();
    let codes = rest.split("</pre>").next().unwrap().lines().map(str::to_owned).collect();
    (secret, codes)
}

#[tokio::test]
async fn with_a_second_factor_the_password_alone_lets_nobody_in() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let mut before = place.browser("198.51.100.8");
    before.sign_in("bob", PASSWORD).await;
    let (secret, codes) = set_up(&place, &mut bob).await;
    assert_eq!(codes.len(), 10);
    assert!(bob.is_in().await && !before.is_in().await, "sessions without a code have ended");
    place.clock.advance(60);
    let mut new = place.browser("198.51.100.9");
    let step = new.sign_in("bob", PASSWORD).await;
    assert_eq!(step.status, StatusCode::OK);
    assert!(step.headers.get(SET_COOKIE).is_none() && !new.is_in().await);
    let proof = step.input("proof");
    for (proof, typed) in
        [(&*proof, "no code"), (&*proof, ""), ("", "123456"), ("1.Ym9i.x", &*code(&secret, &place))]
    {
        let refused = new.post("/sign-in/code", &[("proof", proof), ("code", typed)]).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{typed}");
    }
    let now = code(&secret, &place);
    let answer = new.post("/sign-in/code", &[("proof", &proof), ("code", &now)]).await;
    assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/"), "{}", answer.body);
    assert!(new.is_in().await);
    // The same code again, as somebody who looked over the shoulder would try.
    let mut thief = place.browser("192.0.2.1");
    let again = thief.post("/sign-in/code", &[("proof", &proof), ("code", &now)]).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    // A recovery code works once, and a proof for five minutes.
    for expected in [StatusCode::SEE_OTHER, StatusCode::UNAUTHORIZED] {
        let answer = thief.post("/sign-in/code", &[("proof", &proof), ("code", &codes[0])]).await;
        assert_eq!(answer.status, expected);
    }
    place.clock.advance(300);
    let late = thief.post("/sign-in/code", &[("proof", &proof), ("code", &codes[1])]).await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
    assert_eq!(place.store.recovery_codes_left(Tenant::FIRST, "bob").await.unwrap(), 9);
}

#[tokio::test]
async fn codes_are_not_guessed_from_many_addresses() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let (secret, _) = set_up(&place, &mut bob).await;
    let proof = place.browser("192.0.2.1").sign_in("bob", PASSWORD).await.input("proof");
    let mut judged = 0;
    for third in 1..40 {
        let mut thief = place.browser(&format!("192.0.{third}.1"));
        let answer = thief.post("/sign-in/code", &[("proof", &proof), ("code", "no code")]).await;
        judged += u32::from(answer.status == StatusCode::UNAUTHORIZED);
    }
    assert_eq!(judged, 10);
    // The browser that bob has used before is not kept out.
    place.clock.advance(60);
    let mut known = bob.clone();
    let proof = known.sign_in("bob", PASSWORD).await.input("proof");
    let answer = known.post("/sign-in/code", &[("proof", &proof), ("code", &code(&secret, &place))]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_new_password_ends_the_proof_of_the_old_one_and_an_invitation_keeps_the_second_factor() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let (secret, codes) = set_up(&place, &mut bob).await;
    place.clock.advance(60);
    let mut thief = place.browser("192.0.2.1");
    let proof = thief.sign_in("bob", PASSWORD).await.input("proof");
    let link = place.link("bob", None).await;
    let new = "another horse battery";
    let mut again = place.browser("198.51.100.3");
    let set = again.post(&link, &[("password", new), ("again", new)]).await;
    assert!(set.body.contains("Sign in with it and with a code") && !again.is_in().await, "{}", set.body);
    let form = [("proof", &*proof), ("code", &codes[0])];
    assert_eq!(thief.post("/sign-in/code", &form).await.status, StatusCode::UNAUTHORIZED);
    let proof = again.sign_in("bob", new).await.input("proof");
    let form = [("proof", &*proof), ("code", &*code(&secret, &place))];
    assert_eq!(again.post("/sign-in/code", &form).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_second_factor_is_set_up_and_removed_only_with_the_password_and_a_code() {
    let place = Place::new().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.1").await;
    let begin = bob.submit("/account", "/account/second-factor/begin", &[("current", "guess")]).await;
    assert_eq!(begin.status, StatusCode::UNPROCESSABLE_ENTITY);
    let (secret, codes) = set_up(&place, &mut bob).await;
    place.clock.advance(60);
    let second = bob.submit("/account", "/account/second-factor/begin", &[("current", PASSWORD)]).await;
    assert_eq!(second.status, StatusCode::CONFLICT);
    let path = "/account/second-factor/remove";
    for form in [[("current", PASSWORD), ("code", "no code")], [("current", "guess"), ("code", &*codes[0])]] {
        assert_eq!(bob.submit("/account", path, &form).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let renewed =
        bob.submit("/account", "/account/second-factor/codes", &[("code", &*code(&secret, &place))]).await;
    assert!(renewed.status == StatusCode::OK && !renewed.body.contains(&codes[0]), "{}", renewed.body);
    let form = [("current", PASSWORD), ("code", &*codes[0])];
    assert_eq!(bob.submit("/account", path, &form).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    place.clock.advance(60);
    let form = [("current", PASSWORD), ("code", &*code(&secret, &place))];
    assert_eq!(bob.submit("/account", path, &form).await.status, StatusCode::SEE_OTHER);
    assert_eq!(bob.sign_in("bob", PASSWORD).await.location(), "/");
}
