//! What requests answer: tags of settings, filters, many domains at once, decisions, operations, tokens and errors.

use super::*;
use formats::limits::{API_BULK_LINES, FORM_BYTES};
use formats::{Mode, MxPattern, Policy};
use jiff::SignedDuration;
use receiver::rollout::RolloutState;
use receiver::rollout::state::InMode;
use store::api_tokens::NewApiToken;

async fn server_and_token() -> (Server, String) {
    let server = Server::new().await;
    let token = server.token(Tenant::FIRST, "panel", Scopes::all()).await;
    (server, token)
}

/// A domain whose senders know this mode.
async fn in_mode(server: &Server, name: &str, mode: Mode) {
    let domain = DomainName::parse(name).unwrap();
    let since = Timestamp::now() - SignedDuration::from_hours(1);
    let policy = Policy::new(mode, 600, vec![MxPattern::parse("mx.one.example").unwrap()]).unwrap();
    let mut rollout = RolloutState { mode: Some(InMode { mode, since }), ..RolloutState::default() };
    rollout.intend(&policy);
    // Senders know of it.
    rollout.announce_due = false;
    server.store.put_rollout(&domain, &rollout).await.unwrap();
}

#[tokio::test]
async fn a_change_for_another_version_of_the_settings_is_not_made() {
    let (server, token) = server_and_token().await;
    let put = async |body: &str, headers: &[(&str, &str)]| {
        server.send_with(&token, "put", "/v1/domains/a.example", body, headers).await
    };
    assert_eq!(put("{}", &[("if-match", "*")]).await.status, 412, "there is no domain");
    let first = put("{}", &[("if-none-match", "*")]).await;
    assert_eq!((first.status, first.json()["changed"].as_bool()), (201, Some(true)));
    let tag = first.header("etag").to_owned();
    let same = put("{}", &[]).await;
    assert_eq!(
        (same.status, same.json()["changed"].as_bool(), same.header("etag")),
        (200, Some(false), &*tag)
    );
    assert_eq!(put("{}", &[("if-none-match", "*")]).await.status, 412);
    let second = put(r#"{"mode":"testing"}"#, &[("if-match", &tag)]).await;
    assert_eq!((second.status, second.json()["changed"].as_bool()), (200, Some(true)));
    let late = put(r#"{"mode":"none"}"#, &[("if-match", &tag)]).await;
    assert_eq!(
        (late.status, late.json()["type"].as_str()),
        (412, Some("urn:sternpost:problem:version-differs"))
    );
    let seen = server.send(&token, "get", "/v1/domains/a.example", "").await;
    assert_eq!(
        (seen.json()["wanted"]["mode"].as_str(), seen.header("etag")),
        (Some("testing"), second.header("etag"))
    );
    let path = "/v1/domains/a.example";
    assert_eq!(server.send_with(&token, "delete", path, "", &[("if-match", &tag)]).await.status, 412);
    let tags = format!("\"other\", {}", second.header("etag"));
    assert_eq!(server.send_with(&token, "delete", path, "", &[("if-match", &tags)]).await.status, 204);
    assert_eq!(server.send(&token, "get", path, "").await.status, 404);
    // Only what changed is in the journal.
    let journal = server.send(&token, "get", "/v1/journal?domain=a.example", "").await.json();
    let who: Vec<&str> =
        journal["journal"].as_array().unwrap().iter().map(|one| one["who"].as_str().unwrap()).collect();
    assert_eq!(who, ["api:panel"; 3]);
}

#[tokio::test]
async fn domains_are_filtered_by_mode_and_tag_from_page_to_page() {
    let (server, token) = server_and_token().await;
    for number in 0..30 {
        let body = if number % 10 == 0 { r#"{"tags":["shop"]}"# } else { "{}" };
        server.send(&token, "put", &format!("/v1/domains/d{number:02}.example"), body).await;
    }
    in_mode(&server, "d25.example", Mode::Testing).await;
    let names = async |query: &str| {
        let answer = server.send(&token, "get", &format!("/v1/domains?{query}"), "").await;
        let domains =
            answer.json()["domains"].as_array().unwrap_or_else(|| panic!("{}", answer.text)).clone();
        domains.iter().map(|one| one["wanted"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("mode=testing&limit=4").await, ["d25.example"]);
    assert_eq!(names("tag=shop").await, ["d00.example", "d10.example", "d20.example"]);
    assert_eq!(names("mode=testing&tag=shop").await, [] as [&str; 0]);
    assert_eq!(names("alert=any").await, [] as [&str; 0]);
    assert_eq!(names("mode=off&after=d28.example").await, ["d29.example", "file.example"]);
    for query in ["mode=strict", "limit=many", "colour=red"] {
        let answer = server.send(&token, "get", &format!("/v1/domains?{query}"), "").await;
        assert_eq!(answer.status, 400, "{}", answer.text);
    }
}

#[tokio::test]
async fn many_domains_are_stored_by_one_request_with_an_answer_for_each() {
    let (server, token) = server_and_token().await;
    server.send(&token, "put", "/v1/domains/same.example", "{}").await;
    server.send(&token, "put", "/v1/domains/other.example", "{}").await;
    let long = "x".repeat(FORM_BYTES);
    let body = [
        r#"{"name":"New.Example","rua":["mailto:a@b.example"]}"#,
        r#"{"name":"same.example"}"#,
        "",
        r#"{"name":"other.example","mode":"testing"}"#,
        r#"{"name":"file.example"}"#,
        r#"{"name":"new.example"}"#,
        r#"{"mode":"testing"}"#,
        "[1]",
        r#"{"name":"x.example","modus":1}"#,
        &format!(r#"{{"name":"{long}"}}"#),
        r#"{"name":"last.example"}"#,
    ]
    .join("\n");
    let expected = [
        "created",
        "unchanged",
        "changed",
        "refused",
        "changed",
        "refused",
        "refused",
        "refused",
        "refused",
        "created",
    ];
    let lines = async |query: &str| {
        let answer = server.send(&token, "post", &format!("/v1/domains{query}"), &body).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "application/x-ndjson"),
            "{}",
            answer.text
        );
        answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let dry = lines("?dry_run=true").await;
    assert_eq!(server.send(&token, "get", "/v1/domains/new.example", "").await.status, 404);
    assert_eq!((&dry[0]["outcome"], &dry[10]["dry_run"]), (&json!("created"), &json!(true)));
    let all = lines("").await;
    let outcomes: Vec<&str> = all[..10].iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, expected, "{all:?}");
    assert_eq!(all[0]["domain"], "new.example");
    for refused in all.iter().filter(|line| line["outcome"] == "refused") {
        assert!(!refused["problem"]["remedy"].as_str().unwrap().is_empty(), "{refused}");
    }
    let end = json!({ "schema": 1, "end": true, "complete": true, "dry_run": false, "lines": 11, "created": 2, "changed": 2, "unchanged": 1, "refused": 5 });
    assert_eq!(all[10], end);
    let kept = server.send(&token, "get", "/v1/domains/new.example", "").await.json();
    assert_eq!(kept["wanted"]["rua"], json!([]));
}

#[tokio::test]
async fn more_lines_than_the_most_are_not_read_and_the_answer_says_so() {
    let (server, token) = server_and_token().await;
    let body = "[]\n".repeat(API_BULK_LINES + 1);
    let answer = server.send(&token, "post", "/v1/domains?dry_run=true", &body).await;
    let last: Value = serde_json::from_str(answer.text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["complete"], &last["lines"]), (&json!(false), &json!(API_BULK_LINES)), "{last}");
    assert!(last["why"].as_str().unwrap().contains("more than 100000 lines"), "{last}");
}

#[tokio::test]
async fn decisions_are_those_of_the_commands_and_say_whether_they_changed_anything() {
    let (server, token) = server_and_token().await;
    in_mode(&server, "file.example", Mode::Testing).await;
    let post = async |what: &str, body: &str| {
        server.send(&token, "post", &format!("/v1/domains/file.example/{what}"), body).await
    };
    let status = async || server.send(&token, "get", "/v1/domains/file.example/status", "").await.json();
    let refused = post("promote", "").await;
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (409, Some("urn:sternpost:problem:refused"))
    );
    assert!(refused.json()["why"].as_str().unwrap().contains("evidence"), "{}", refused.text);
    assert_eq!(status().await["progress"], json!({ "rest": "evidence", "applying": false }));
    let held = post("hold", r#"{"reason":"new hosts"}"#).await;
    assert_eq!((held.status, held.json()["changed"].as_bool()), (200, Some(true)), "{}", held.text);
    let shown = status().await;
    assert_eq!(
        (&shown["progress"]["rest"], &shown["decisions"]["held"]["who"]),
        (&json!("done"), &json!("api:panel"))
    );
    let unknown = post("excuse", r#"{"result":"certificate-expird","reason":"x"}"#).await;
    assert_eq!(unknown.status, 409);
    assert!(unknown.text.contains("Did you mean certificate-expired?"), "{}", unknown.text);
    let again = post("excuse", r#"{"result":"certificate-expired","undo":true}"#).await;
    assert_eq!((again.status, again.json()["changed"].as_bool()), (200, Some(false)));
    for (what, body) in [
        ("hold", "{}"),
        ("hold", r#"{"reason":" "}"#),
        ("promote", r#"{"force":true}"#),
        ("promote", r#"{"forced":true}"#),
        ("excuse", "[]"),
        ("excuse", r#"{"result":"certificate-expired"}"#),
    ] {
        let answer = post(what, body).await;
        assert_eq!(answer.status, 422, "{what} {body}: {}", answer.text);
    }
    assert_eq!(
        server.send(&token, "post", "/v1/domains/no.example/hold", r#"{"reason":"x"}"#).await.status,
        404
    );
}

#[tokio::test]
async fn an_operation_ends_without_its_request_and_is_found_by_its_path() {
    let (server, token) = server_and_token().await;
    let begun = server.send(&token, "post", "/v1/domains/file.example/apply?wait=0", "").await;
    assert!([200, 202].contains(&begun.status), "{}", begun.text);
    let path = begun.header("location").to_owned();
    // No resolver answers here, so the work fails, and says so in words.
    let ended = server.send(&token, "get", &format!("{path}?wait=60"), "").await;
    let shown = ended.json();
    assert_eq!((ended.status, shown["state"].as_str()), (200, Some("failed")), "{}", ended.text);
    assert_eq!(shown["problem"]["type"], "urn:sternpost:problem:unavailable");
    assert!(shown["problem"]["remedy"].as_str().unwrap().contains("127.0.0.1:1"), "{shown}");
    assert_eq!(server.send(&token, "get", "/v1/operations/0", "").await.status, 404);
    // The lease is free again. Another holder's is respected.
    let status = server.send(&token, "get", "/v1/domains/file.example/status", "").await.json();
    assert_eq!(status["progress"]["applying"], false);
    let now = Timestamp::now();
    let other = store::leases::LeaseHolder::new().to_string();
    let hour = std::time::Duration::from_secs(3600);
    server.store.acquire("rollout file.example", &other, now, hour).await.unwrap().unwrap();
    let busy = server.send(&token, "post", "/v1/domains/file.example/apply", "").await;
    assert_eq!((busy.status, busy.json()["type"].as_str()), (409, Some("urn:sternpost:problem:plan-in-use")));
    let status = server.send(&token, "get", "/v1/domains/file.example/status", "").await.json();
    assert_eq!(status["progress"]["applying"], true);
}

#[tokio::test]
async fn a_token_that_a_token_creates_ends_with_it() {
    let (server, all) = server_and_token().await;
    let body = r#"{"name":"short","scopes":["tokens"],"expires_in_days":2}"#;
    let short = server.send(&all, "post", "/v1/tokens", body).await.json();
    for (name, days) in [("a", ""), ("b", r#","expires_in_days":300"#)] {
        let body = format!(r#"{{"name":"{name}","scopes":["tokens"]{days}}}"#);
        let made = server.send(short["token"].as_str().unwrap(), "post", "/v1/tokens", &body).await.json();
        let second = |token: &Value| token["expires_at"].as_str().unwrap()[..19].to_owned();
        assert_eq!(second(&made), second(&short));
    }
}

#[tokio::test]
async fn tokens_are_created_with_fewer_scopes_shown_once_and_revoked_at_once() {
    let (server, all) = server_and_token().await;
    let few: Scopes = [Scope::Tokens, Scope::Read].into_iter().collect();
    let own = server.token(Tenant::FIRST, "own", few).await;
    let too_much = server.send(&own, "post", "/v1/tokens", r#"{"name":"x","scopes":["manage"]}"#).await;
    assert_eq!(too_much.status, 403, "{}", too_much.text);
    let made = server
        .send(&own, "post", "/v1/tokens", r#"{"name":"x","scopes":["read"],"expires_in_days":1}"#)
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let made = made.json();
    let token = made["token"].as_str().unwrap();
    assert_eq!(server.send(token, "get", "/v1/domains", "").await.status, 200);
    let listed = server.send(&all, "get", "/v1/tokens", "").await;
    assert!(!listed.text.contains(token), "{}", listed.text);
    let x =
        listed.json()["tokens"].as_array().unwrap().iter().find(|one| one["name"] == "x").unwrap().clone();
    assert!(x["last_used"].is_string() && x["expires_at"].is_string(), "{x}");
    for body in [
        r#"{"name":"x","scopes":["read"]}"#,
        r#"{"name":"a b","scopes":["read"]}"#,
        r#"{"name":"y","scopes":[]}"#,
        r#"{"name":"y","scopes":["root"]}"#,
    ] {
        let answer = server.send(&all, "post", "/v1/tokens", body).await;
        assert!([409, 422].contains(&answer.status), "{body}: {}", answer.text);
    }
    assert_eq!(server.send(&all, "delete", "/v1/tokens/x", "").await.status, 204);
    assert_eq!(server.send(token, "get", "/v1/domains", "").await.status, 401);
    assert_eq!(server.send(&all, "delete", "/v1/tokens/x", "").await.status, 404);
    // An expired token is refused.
    let secret = "sternpost_expired";
    let digest = crate::auth::digest(secret);
    let zero = Timestamp::UNIX_EPOCH;
    let expired = NewApiToken {
        digest: &digest,
        name: "old",
        scopes: "read",
        created_at: zero,
        expires_at: Some(zero),
    };
    server.store.add_api_token(&expired, 9).await.unwrap();
    assert_eq!(server.send(secret, "get", "/v1/domains", "").await.status, 401);
}

#[tokio::test]
async fn every_error_is_a_problem_with_the_id_of_its_request() {
    let (server, token) = server_and_token().await;
    let large = format!("{{\"mx\":[\"{}\"]}}", "x".repeat(FORM_BYTES));
    for (token, method, path, body, status, kind) in [
        ("", "get", "/v1/domains", "", 401, "token-refused"),
        ("sternpost_unknown", "get", "/nowhere", "", 401, "token-refused"),
        (&*token, "get", "/nowhere", "", 404, "unknown-path"),
        (&*token, "patch", "/v1/domains", "", 405, "method-not-allowed"),
        (&*token, "get", "/v1/domains?limit=x", "", 400, "request-not-valid"),
        (&*token, "get", "/v1/reports/x", "", 400, "request-not-valid"),
        (&*token, "get", "/v1/reports/7", "", 404, "unknown-report"),
        (&*token, "get", "/v1/domains/x.example", "", 404, "unknown-domain"),
        (&*token, "put", "/v1/domains/file.example", "{}", 409, "domain-in-file"),
        (&*token, "put", "/v1/domains/x.example", &*large, 413, "body-too-large"),
        (&*token, "put", "/v1/domains/x.example", "{", 422, "settings-not-valid"),
        (&*token, "get", "/v1/domains/-bad-.example", "", 422, "settings-not-valid"),
    ] {
        let answer = server.send(token, method, path, body).await;
        let shown = answer.json();
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, "application/problem+json"),
            "{path}"
        );
        assert_eq!(shown["type"], format!("urn:sternpost:problem:{kind}"), "{shown}");
        assert_eq!(
            (shown["status"].as_u64(), shown["request_id"].as_str()),
            (Some(status.into()), Some(answer.header("x-request-id")))
        );
        for part in ["title", "detail", "what", "why", "remedy", "request_id"] {
            assert!(!shown[part].as_str().unwrap().is_empty(), "{part}: {shown}");
        }
    }
    let fine = server.send(&token, "get", "/v1/domains", "").await;
    let again = server.send(&token, "get", "/v1/domains", "").await;
    assert!(
        fine.header("x-request-id").len() == 16
            && fine.header("x-request-id") != again.header("x-request-id")
    );
    let document = server.send(&token, "get", "/v1/openapi.json", "").await.json();
    assert_eq!(document, super::document());
}
