//! Tenants: their names in paths and links, and that no page, form or link of one reaches another one. The routes are read from the
//! router's source, so that a new one is tried as well.

use super::*;
use store::tenants::{TenantInfo, TenantName};

/// A user of a further tenant, signed in, and the tenant.
struct Member<'p> {
    browser: Browser<'p>,
    tenant: TenantInfo,
}

impl Place {
    async fn tenant(&self, name: &str) -> TenantInfo {
        let name: TenantName = name.parse().unwrap();
        self.store.add_tenant(&name, name.as_str(), self.clock.now()).await.unwrap().unwrap();
        let all = self.store.tenants().await.unwrap();
        all.into_iter().find(|one| one.name == name).unwrap()
    }

    /// A tenant with things that nobody else has, and an operator of it.
    async fn member(&self, name: &str, address: &str) -> Member<'_> {
        let tenant = self.tenant(name).await;
        let store = self.store.of_tenant(tenant.tenant);
        let domain = formats::DomainName::parse(&format!("{name}.example")).unwrap();
        let now = self.clock.now();
        store.put_domain(&domain, &receiver::domain::DomainSpec::new(domain.clone())).await.unwrap();
        store.journal(&domain, now, &format!("who-{name}"), "held").await.unwrap();
        let mut new = report(now, &format!("report-of-{name}"), 3, 1);
        new.report.policies[0].policy_domain = Some(domain.clone());
        new.submitter = format!("submitter-{name}.example");
        store.keep_report(&new).await.unwrap();
        let quarantined = store::reports::NewQuarantined {
            received_at: now,
            arrival: Arrival::Smtp,
            source: "",
            is_trusted: false,
            reason: &format!("reason-{name}"),
            raw: name.as_bytes(),
        };
        store.quarantine(&quarantined, &store::reports::Quota { bytes: 1 << 20, items: 9 }).await.unwrap();
        let path = invite(&self.store, &tenant, now, &format!("user-{name}"), Some(Role::Operator))
            .await
            .unwrap()
            .path;
        let mut browser = self.browser(address);
        let answer = browser.post(&path, &[("password", PASSWORD), ("again", PASSWORD)]).await;
        assert_eq!(answer.location(), format!("/t/{name}/"), "{}", answer.body);
        Member { browser, tenant }
    }

    /// Everything that belongs to a tenant, as text.
    async fn things(&self, tenant: &TenantInfo) -> Vec<String> {
        let mut all = Vec::new();
        let mut write = |table: &str, row: serde_json::Map<String, serde_json::Value>| {
            all.push(format!("{table} {}", serde_json::Value::from(row)));
            Ok(())
        };
        self.store.of_tenant(tenant.tenant).export_tenant(&mut write).await.unwrap();
        all
    }
}

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
    // A tenant that is added while the dashboard runs.
    let tenant = place.tenant("second").await;
    let invitation = invite(&place.store, &tenant, now, "ada", Some(Role::Reader)).await.unwrap();
    assert!(invitation.path.starts_with("/t/second/welcome/"), "{}", invitation.path);
    // The link is none of another tenant, and ends no invitation and no role of the user with the same name there.
    let elsewhere = invitation.path.strip_prefix("/t/second").unwrap();
    let mut second = place.browser("198.51.100.2");
    let form = [("password", "another long password"), ("again", "another long password")];
    assert_eq!(second.post(elsewhere, &form).await.status, StatusCode::NOT_FOUND);
    let answer = second.post(&invitation.path, &form).await;
    assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/t/second/"), "{}", answer.body);
    assert!(second.get("/t/second/account").await.body.contains("Viewer"));
    assert!(first.get("/account").await.body.contains("Operator"));
    // The domains, the reports and the configuration are those of the first tenant.
    for path in ["/t/second/", "/t/second/reports", "/t/second/settings", "/t/second/journal"] {
        let page = second.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        let folder = place._folder.path().to_str().unwrap();
        for foreign in ["one.example", "dash.example", folder] {
            assert!(!page.body.contains(foreign), "{path} {foreign}: {}", page.body);
        }
    }
    for path in ["/t/second/domains/one.example", "/t/second/sending"] {
        assert_eq!(second.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
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
    // Nothing of a tenant is left once it is gone.
    let store = place.store.of_tenant(tenant.tenant);
    assert!(store.begin_erasure().await.unwrap());
    store.erase_rows().await.unwrap();
    assert_eq!(store.remove_tenant().await.unwrap(), []);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(second.get("/t/second/account").await.status, StatusCode::NOT_FOUND);
}

/// The paths of the router, each with whether it takes GET and POST.
fn routes() -> Vec<(String, bool, bool)> {
    let source = include_str!("../dashboard.rs");
    let found: Vec<_> = source
        .lines()
        .filter_map(|line| {
            let (path, handlers) = line.trim().strip_prefix(".route(\"")?.split_once('"')?;
            Some((path.to_owned(), handlers.contains("get("), handlers.contains("post(")))
        })
        .collect();
    assert!(found.len() > 35 && found.iter().all(|(_, get, post)| *get || *post), "{found:?}");
    found
}

/// A path with the values of another tenant.
fn filled(path: &str, of: &str, id: usize) -> String {
    path.replace("{name}", &format!("{of}.example")).replace("{id}", &id.to_string()).replace("{secret}", "x")
}

#[tokio::test]
async fn no_route_shows_or_changes_what_belongs_to_another_tenant() {
    let place = Place::new().await;
    let mut red = place.member("red", "198.51.100.1").await;
    let mut blue = place.member("blue", "198.51.100.2").await;
    let main = TenantInfo::main();
    let of_main = place.things(&main).await;
    let of_red = place.things(&red.tenant).await;
    assert!(of_red.len() > 8, "{of_red:?}");
    let csrf = async |member: &mut Member<'_>, name: &str| {
        member.browser.get(&format!("/t/{name}/settings")).await.input("word")
    };
    let words = [csrf(&mut red, "red").await, csrf(&mut blue, "blue").await];
    let mut tried = 0;
    for (own, other, place_of_own) in [("red", "blue", 0_usize), ("blue", "red", 1)] {
        // A form may well change what belongs to its own tenant.
        let of_other = if own == "red" { &blue.tenant } else { &red.tenant }.clone();
        let untouched = place.things(&of_other).await;
        for (route, takes_get, takes_post) in routes() {
            // Its own things are lost by its own sign-out and by ending its own sessions.
            let ends_session = ["/sign-out", "/account/sessions/end"].contains(&route.as_str());
            // The other's report and quarantined item, and what nobody has.
            for id in [2 - place_of_own, 9] {
                let path = filled(&route, other, id);
                for prefix in
                    [format!("/t/{own}"), format!("/t/{other}"), String::new(), "/t/main".to_owned()]
                {
                    let member = if place_of_own == 0 { &mut red } else { &mut blue };
                    let full = format!("{prefix}{path}");
                    let mut pages = Vec::new();
                    if takes_get {
                        pages.push(member.browser.get(&full).await);
                    }
                    let is_own = prefix == format!("/t/{own}");
                    if takes_post && !(ends_session && is_own) && !route.starts_with("/welcome") {
                        let (id, name, user) =
                            (id.to_string(), format!("{other}.example"), format!("user-{other}"));
                        let form = [
                            ("word", words[place_of_own].as_str()),
                            ("id", id.as_str()),
                            (
                                "name",
                                if route.contains("people") || route.contains("invitations") {
                                    user.as_str()
                                } else {
                                    name.as_str()
                                },
                            ),
                            ("domain", name.as_str()),
                            ("reason", "crossing"),
                            ("password", "none of theirs"),
                            ("code", "123456"),
                            ("proof", ""),
                        ];
                        pages.push(member.browser.post(&full, &form).await);
                    }
                    for page in pages {
                        tried += 1;
                        // What was typed comes back in messages.
                        let shown = page
                            .body
                            .replace(&format!("{other}.example"), "")
                            .replace(&format!("user-{other}"), "");
                        for foreign in ["report-of-", "submitter-", "reason-", "who-"] {
                            assert!(
                                !shown.contains(&format!("{foreign}{other}")),
                                "{full} shows {foreign}{other}"
                            );
                        }
                        if takes_get && route.contains("{name}") {
                            assert_ne!(page.status, StatusCode::OK, "{full}");
                        }
                    }
                }
            }
        }
        let after = place.things(&of_other).await;
        assert_eq!(after, untouched, "{own} has changed what belongs to {other}");
    }
    assert_eq!(place.things(&main).await, of_main);
    assert!(tried > 600, "{tried}");
    // The same paths show what belongs to their own tenant.
    let page = red.browser.get("/t/red/domains/red.example").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert!(red.browser.get("/t/red/reports").await.body.contains("submitter-red.example"));
}
