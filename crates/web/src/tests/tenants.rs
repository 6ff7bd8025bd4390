//! The tenant in paths, links and keys. The second tenant exists in tests only.

use super::*;

const SECOND: Tenant = Tenant::numbered(2);

#[tokio::test]
async fn a_page_under_the_name_of_the_tenant_keeps_it_in_links_forms_and_redirects() {
    let place = Place::new().await;
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    let page = ada.get("/t/main/").await;
    assert_eq!(page.status, StatusCode::OK);
    for link in
        ["href=\"/t/main/reports\"", "href=\"/t/main/domains/one.example\"", "action=\"/t/main/sign-out\""]
    {
        assert!(page.body.contains(link), "{link}");
    }
    assert!(!page.body.contains("href=\"/reports\""));
    assert!(ada.get("/").await.body.contains("href=\"/reports\""));
    assert_eq!(ada.get("/t/nobody/").await.status, StatusCode::NOT_FOUND);
    let mut stranger = place.browser("198.51.100.2");
    assert_eq!(stranger.get("/t/main/reports").await.location(), "/t/main/sign-in");
}

#[tokio::test]
async fn users_sessions_and_invitations_of_one_tenant_are_none_of_another() {
    let place = Place::new().await;
    let mut first = place.user("ada", Role::Operator, "198.51.100.1").await;
    let now = place.clock.now();
    let invitation = invite(&place.store, SECOND, now, "ada", Some(Role::Reader)).await.unwrap();
    assert!(invitation.path.starts_with("/t/second/welcome/"), "{}", invitation.path);
    // The link ends no invitation and no role of the user with the same name.
    let mut second = place.browser("198.51.100.2");
    let form = [("password", "another long password"), ("again", "another long password")];
    let answer = second.post(&invitation.path, &form).await;
    assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/t/second/"), "{}", answer.body);
    assert!(second.get("/t/second/account").await.body.contains("Reader"));
    assert!(first.get("/account").await.body.contains("Operator"));
    // The domains and the reports are those of the first tenant.
    for path in ["/t/second/", "/t/second/domains/one.example", "/t/second/reports", "/t/second/settings"] {
        let page = second.get(path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        assert!(!page.body.contains("one.example"), "{path}: {}", page.body);
    }
    // A session is of its tenant alone, and so is a password.
    for path in ["/account", "/t/main/account"] {
        assert!(second.get(path).await.location().ends_with("/sign-in"), "{path}");
    }
    assert_eq!(first.get("/t/second/account").await.location(), "/t/second/sign-in");
    let mut stranger = place.browser("198.51.100.3");
    assert_eq!(stranger.sign_in("ada", "another long password").await.status, StatusCode::UNAUTHORIZED);
    let form = [("name", "ada"), ("password", "another long password")];
    assert_eq!(stranger.post("/t/second/sign-in", &form).await.location(), "/t/second/");
}
