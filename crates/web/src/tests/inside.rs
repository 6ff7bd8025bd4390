//! What readers see and may do, and what requests of unknown shape get.

use super::*;
use axum::http::header::ALLOW;
use lab::{Lab, Ports};
use store::nodes::NodeInfo;

/// The forms of operators.
const CHANGES: [&str; 10] = [
    "/domains/one.example/approve",
    "/domains/one.example/hold",
    "/domains/one.example/excuse",
    "/domains/one.example/check",
    "/reports/1/drop",
    "/quarantine/retry",
    "/quarantine/drop",
    "/settings/people",
    "/settings/people/remove",
    "/settings/invitations/end",
];

#[tokio::test]
async fn readers_change_nothing_and_see_neither_configuration_nor_invitations() {
    let place = Place::new().await;
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.2").await;
    place.link("zoe", Some(Role::Operator)).await;
    let word = bob.get("/account").await.input("word");
    for path in CHANGES {
        let answer = bob.post(path, &[("word", &word), ("name", "ada"), ("reason", "x"), ("all", "x")]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    let node = NodeInfo {
        id: "1".to_owned(),
        holder: "mail1 7 1 boot/pid 1".to_owned(),
        name: "mail1".to_owned(),
        version: "0.9".to_owned(),
        roles: vec!["dashboard".to_owned()],
    };
    place.store.keep_node(&node, place.clock.now()).await.unwrap();
    let (of_reader, of_operator) = (bob.get("/settings").await.body, ada.get("/settings").await.body);
    for part in ["[dashboard]", "zoe", "<h2>Configuration</h2>", "<h2>Servers</h2>", "mail1"] {
        assert!(!of_reader.contains(part) && of_operator.contains(part), "{part}: {of_reader}");
    }
    assert_eq!(bob.get("/quarantine/1").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_page_of_a_check_connects_nowhere_until_an_operator_asks() {
    let cases: Vec<_> = lab::cases::all().into_iter().filter(|case| case.name == "good-enforce").collect();
    let lab = Lab::with_cases(Ports::free(), SystemClock.now(), &cases).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (authority, anchor) = (folder.path().join("ca.pem"), folder.path().join("root.key"));
    std::fs::write(&authority, lab.pki.root_pem()).unwrap();
    std::fs::write(&anchor, lab.names.trust_anchor().unwrap()).unwrap();
    let place = Place::with(&format!(
        "[dns]\nservers = [\"{}\"]\ntrust_anchor = \"{}\"\n[trust]\nca_file = \"{}\"\nallow_private_addresses = true\n\
         [lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n\
         [dashboard]\nurl = \"https://dash.example\"\n[[domain]]\nname = \"good-enforce.test\"\n",
        lab.names.address,
        anchor.display(),
        authority.display(),
        lab.names.address.port(),
        lab.https_port,
        lab.smtp_port
    ))
    .await;
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.2").await;
    let page = "/domains/good-enforce.test/check";
    for browser in [&mut ada, &mut bob] {
        let shown = browser.get(page).await;
        assert!(
            shown.status == StatusCode::OK && shown.body.contains("has not been checked"),
            "{}",
            shown.body
        );
    }
    assert_eq!(ada.post(page, &[]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(ada.post(page, &[("word", "x")]).await.status, StatusCode::FORBIDDEN);
    assert!(ada.get(page).await.body.contains("has not been checked"));
    let checked = ada.submit(page, page, &[]).await;
    assert_eq!((checked.status, checked.location()), (StatusCode::SEE_OTHER, page), "{}", checked.body);
    let shown = bob.get(page).await;
    assert!(shown.body.contains("Checked on ") && !shown.body.contains("Check now"), "{}", shown.body);
    for part in ["What senders do with mail for this domain today", "A sender that honors MTA-STS"] {
        assert!(shown.body.contains(part), "{part}: {}", shown.body);
    }
    assert!(ada.get(page).await.body.contains("Check now"));
}

#[tokio::test]
async fn a_method_that_a_page_does_not_have_is_answered_with_a_page_that_says_so() {
    let place = Place::new().await;
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    for (method, path) in
        [(Method::DELETE, "/reports"), (Method::PUT, "/sign-in"), (Method::GET, "/sign-out")]
    {
        let answer = ada.send(method, path, String::new()).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert!(answer.body.contains("<h1>Method Not Allowed</h1>"), "{}", answer.body);
        assert!(!answer.header(ALLOW).is_empty(), "{path}");
    }
}
