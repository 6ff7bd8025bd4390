//! Each request of the table, as each of two tenants against the things of the other: what a path names is unknown, and nothing of
//! the other one is shown or changed.

use super::*;
use receiver::rollout::RolloutState;
use receiver::rollout::decisions::Decisions;
use receiver::rollout::guard::{Alert, AlertKind};
use receiver::rollout::state::InMode;
use store::notices::NewNotice;

const TENANTS: [(i64, &str, &str); 2] =
    [(0, "first.example", "first-token"), (1, "second.example", "second-token")];

/// What a tenant has, and the names of it that a path may have.
struct Things {
    token: String,
    domain: &'static str,
    token_name: &'static str,
    operation: String,
    report: String,
}

async fn fill(server: &Server, (number, domain, token_name): (i64, &'static str, &'static str)) -> Things {
    let store = server.store.of_tenant(Tenant::numbered(number));
    let token = server.token(store.tenant(), token_name, Scopes::all()).await;
    let name = DomainName::parse(domain).unwrap();
    assert_eq!(server.send(&token, "put", &format!("/v1/domains/{domain}"), "{}").await.status, 201);
    let now = Timestamp::now();
    assert_eq!(store.own_domain(&name, now).await.unwrap(), store::ownership::Ownership::Own);
    let mode = Some(InMode { mode: formats::Mode::Testing, since: now });
    store.put_rollout(&name, &RolloutState { mode, ..RolloutState::default() }).await.unwrap();
    store.keep_reports(&[report(now, &format!("of {domain}"), 5, 1)]).await.unwrap();
    let alert = Alert {
        kind: AlertKind::RecordGone,
        subject: domain.to_owned(),
        what: format!("the record of {domain} is missing"),
        consequence: "".into(),
        remedy: String::new(),
        cause: None,
        domains: Vec::new(),
    };
    let none: Option<NewNotice<'_, ()>> = None;
    store.raise(&name, "record-gone", domain, now, &alert, none).await.unwrap();
    let reports = server.send(&token, "get", "/v1/reports", "").await.json();
    let applied =
        server.send(&token, "post", &format!("/v1/domains/{domain}/apply?wait=60"), "").await.json();
    Things {
        token,
        domain,
        token_name,
        operation: applied["operation"].as_str().unwrap().to_owned(),
        report: reports["reports"][0]["id"].to_string(),
    }
}

/// Everything that a tenant has and a request could change.
async fn state(server: &Server, number: i64) -> String {
    let store = server.store.of_tenant(Tenant::numbered(number));
    let domains = store.domains::<DomainSpec>().await.unwrap();
    let domains: Vec<_> = domains.into_iter().map(|(name, spec)| (name, spec.unwrap())).collect();
    let rollouts = store.rollouts::<RolloutState>().await.unwrap();
    let rollouts: Vec<_> = rollouts.into_iter().map(|(name, state)| (name, state.unwrap())).collect();
    let decisions = store.all_decisions::<Decisions>().await.unwrap();
    let decisions: Vec<_> = decisions.into_iter().map(|(name, one)| (name, one.unwrap())).collect();
    let journal = store.journal_page(None, i64::MAX, 1000).await.unwrap();
    let alerts = store.alerts::<Alert>().await.unwrap();
    let mut tokens = store.api_tokens().await.unwrap();
    tokens.iter_mut().for_each(|token| token.last_used = None);
    let reports = store.report_count().await.unwrap();
    format!("{domains:?} {rollouts:?} {decisions:?} {journal:?} {alerts:?} {tokens:?} {reports}")
}

#[tokio::test]
async fn no_request_reads_or_changes_what_another_tenant_has() {
    let server = Server::new().await;
    let added =
        server.store.add_tenant(&"second".parse().unwrap(), "Second", Timestamp::now()).await.unwrap();
    assert_eq!(added, Some(Tenant::numbered(1)));
    let things = [fill(&server, TENANTS[0]).await, fill(&server, TENANTS[1]).await];
    for (own, other) in [(0, 1), (1, 0)] {
        let (number, theirs) = (TENANTS[other].0, &things[other]);
        let before = state(&server, number).await;
        // What is added under the name of the other's domain is in the tenant's own lists from then on.
        let (last, first): (Vec<&Route>, _) = ROUTES.iter().partition(|route| route.method == "put");
        for route in first.into_iter().chain(last) {
            let values = [
                ("name", if route.path.contains("tokens") { theirs.token_name } else { theirs.domain }),
                ("id", if route.path.contains("reports") { &theirs.report } else { &theirs.operation }),
            ];
            let path = path_with(route, &values);
            let body = route.body.as_ref().map_or("", |body| body.example);
            let named = format!("{} {path}", route.method);
            let answer = server.send(&things[own].token, route.method, &path, body).await;
            let expected = match (route.method, path != route.path) {
                // Each tenant may have settings for a name. The first one is told that another one has proved it.
                ("put", true) if number == 1 => 409,
                ("put", true) => 201,
                (_, true) => 404,
                _ => route.answers[0].status,
            };
            // A check needs the network, which this server does not have.
            let is_checked = route.path == "/v1/check" && answer.status == 503;
            assert!(answer.status == expected || is_checked, "{named}: {} {}", answer.status, answer.text);
            let is_own = |text: &str| !text.contains(theirs.token_name) && !text.contains(&theirs.token);
            let shows_domain =
                answer.status < 400 && route.method == "get" && answer.text.contains(theirs.domain);
            assert!(is_own(&answer.text) && !shows_domain, "{named}: {}", answer.text);
            assert_eq!(state(&server, number).await, before, "{named} changes what another tenant has");
            if route.method == "put" && number == 0 {
                // What the tenant added under that name is its own.
                let removed = server.send(&things[own].token, "delete", &path, "").await;
                assert_eq!(removed.status, 204, "{}", removed.text);
            }
        }
    }
    // The tenants themselves find their things.
    for things in &things {
        for route in ROUTES.iter().filter(|route| route.method == "get" && !route.path.contains("plan")) {
            let values = [
                ("name", things.domain),
                ("id", if route.path.contains("reports") { &things.report } else { &things.operation }),
            ];
            let path = path_with(route, &values);
            let answer = server.send(&things.token, "get", &path, "").await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn every_request_needs_its_scope_and_says_which_one() {
    let server = Server::new().await;
    for route in ROUTES {
        let Some(scope) = route.scope else { continue };
        let others: Scopes = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
        let name = format!("without-{scope}-{}", route.method);
        server.store.revoke_api_token(&name).await.unwrap();
        let token = server.token(Tenant::FIRST, &name, others).await;
        let before = state(&server, 0).await;
        let body = route.body.as_ref().map_or("", |body| body.example);
        let path = path_with(route, &[("name", "file.example")]);
        let answer = server.send(&token, route.method, &path, body).await;
        assert_eq!(answer.status, 403, "{} {path}: {}", route.method, answer.text);
        assert!(answer.json()["what"].as_str().unwrap().ends_with(scope.as_str()), "{}", answer.text);
        assert_eq!(state(&server, 0).await, before, "{path}");
    }
}
