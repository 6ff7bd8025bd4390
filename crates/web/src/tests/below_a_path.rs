//! Every page below a path of its host: links, forms, assets, redirects, cookies and absolute links.

use super::*;
use std::collections::{BTreeSet, VecDeque};

const CONFIG: &str = "[dashboard]\nurl = \"https://dash.example/tools/sternpost\"\npublic_check = true\n[inbox]\nhttp = \"/in\"\ndmarc = true\n\
                      [[domain]]\nname = \"one.example\"\nrua = [\"mailto:r@one.example\"]\n";
const BASE: &str = "/tools/sternpost";

/// The local paths that a page names, with the attribute that names them.
fn links(page: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for attribute in ["href", "action", "src", "formaction", "content", "data", "poster", "srcset"] {
        for part in page.split(&format!(" {attribute}=\"")).skip(1) {
            let value = part.split('"').next().unwrap().replace("&amp;", "&");
            if value.starts_with('/') || value.starts_with("http") {
                found.push((attribute, value));
            }
        }
    }
    found
}

/// Follows all links from these pages; returns how many pages there are.
async fn crawl(browser: &mut Browser<'_>, from: &[&str], removed: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next: VecDeque<String> = from.iter().map(|path| format!("{BASE}{path}")).collect();
    while let Some(path) = next.pop_front() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let asked = path.strip_prefix(removed).unwrap();
        let answer = browser.get(if asked.is_empty() { "/" } else { asked }).await;
        // A visitor who is not signed in is redirected to the sign-in page, by the link on the mark.
        if answer.status == StatusCode::SEE_OTHER {
            assert_eq!(answer.location(), format!("{BASE}/sign-in"), "{path}");
            next.push_back(answer.location().to_owned());
            continue;
        }
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.headers);
        if !answer.header(CONTENT_TYPE).starts_with("text/html") {
            continue;
        }
        for (attribute, link) in links(&answer.body) {
            if link.starts_with("https://") {
                continue;
            }
            assert!(link == BASE || link.starts_with(&format!("{BASE}/")), "{path}: {attribute}={link}");
            if attribute != "action" {
                next.push_back(link);
            }
        }
    }
    seen
}

#[tokio::test]
async fn every_link_of_every_page_stays_below_the_path_whether_the_proxy_removes_it_or_not() {
    let place = Place::with(CONFIG).await;
    for (removed, name) in [("", "ada"), (BASE, "bea")] {
        let mut browser = place.browser("198.51.100.1");
        let path = place.link(name, Some(Role::Operator)).await;
        let kept = BASE.strip_prefix(removed).unwrap();
        let form = [("password", PASSWORD), ("again", PASSWORD)];
        let answer = browser.post(&format!("{kept}{path}"), &form).await;
        assert_eq!(answer.location(), format!("{BASE}/"), "{}", answer.body);
        for value in answer.headers.get_all(SET_COOKIE) {
            let value = value.to_str().unwrap();
            assert!(value.starts_with("__Secure-sternpost"), "{value}");
            assert!(value.contains("; Path=/tools/sternpost; ") && value.ends_with("; Secure"), "{value}");
        }
        let more = ["/", "/dmarc", "/check", "/quarantine", "/domains/one.example/check", "/account"];
        let seen = crawl(&mut browser, &more, removed).await;
        for page in ["/reports", "/senders", "/journal", "/sending", "/settings", "/domains/one.example"] {
            assert!(seen.contains(&format!("{BASE}{page}")), "{page}: {seen:?}");
        }
        assert!(seen.iter().any(|path| path.starts_with("/tools/sternpost/style.css")), "{seen:?}");
        let outside = crawl(&mut place.browser("198.51.100.3"), &["/sign-in", "/check"], removed).await;
        assert!(outside.len() >= 4, "{outside:?}");
    }
}

#[tokio::test]
async fn redirects_and_absolute_links_have_the_path() {
    let place = Place::with(CONFIG).await;
    let mut ada = place.browser("198.51.100.1");
    assert_eq!(ada.get(BASE).await.location(), format!("{BASE}/sign-in"));
    assert_eq!(ada.get("/tools/sternpostx").await.status, StatusCode::NOT_FOUND);
    let link = place.link("ada", Some(Role::Operator)).await;
    ada.post(&link, &[("password", PASSWORD), ("again", PASSWORD)]).await;
    let word = ada.get("/tools/sternpost/account").await.input("word");
    let ended = ada.post("/tools/sternpost/account/sessions/end", &[("word", &word)]).await;
    assert!(ended.location().starts_with("/tools/sternpost/account?said="), "{}", ended.location());
    let form = [("word", &*word), ("name", "zoe"), ("role", "reader")];
    let invited = ada.post("/tools/sternpost/settings/people", &form).await;
    assert!(invited.body.contains("https://dash.example/tools/sternpost/welcome/"), "{}", invited.body);
    let checked = ada.get("/tools/sternpost/check").await;
    assert!(
        checked.body.contains("<code>/tools/sternpost/check.json?domain=example.org</code>"),
        "{}",
        checked.body
    );
}

#[tokio::test]
async fn reports_are_taken_below_the_path() {
    let place = Place::with(CONFIG).await;
    let secret = place.store.known_secret("reports").await.unwrap().unwrap();
    for path in [format!("{BASE}/in/{secret}"), format!("/in/{secret}/one.example")] {
        let answer = place.browser("192.0.2.1").post(&path, &[("not", "a report")]).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{path} {}", answer.body);
    }
    let wrong = place.browser("192.0.2.1").post(&format!("{BASE}/in/guess"), &[("x", "y")]).await;
    assert_eq!(wrong.status, StatusCode::NOT_FOUND);
}
