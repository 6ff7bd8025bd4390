//! The dashboard as its users and strangers meet it, request by request.

mod abuse;
mod accounts;
mod below_a_path;
mod inside;
mod long_lists;
mod manager;
mod strangers;
mod tenants;

use crate::client_addr::ClientAddr;
use crate::{Dashboard, Role, invite, router};
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use formats::report::{DateRange, Report, pack};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use net::clock::{Clock, ManualClock, SystemClock};
use operations::RolloutContext;
use operations::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::reports::{Arrival, NewReport, Trust};
use store::{Store, Tenant};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// A trusted report of Big about `one.example` and the sessions of a day.
pub(crate) fn report(day: Timestamp, id: &str, successful: u64, failed: u64) -> NewReport {
    let range = DateRange::utc_day(day);
    let details = match failed {
        0 => String::new(),
        _ => format!(
            r#"{{"result-type":"certificate-expired","receiving-mx-hostname":"mx1.one.example","failed-session-count":{failed}}}"#
        ),
    };
    let json = format!(
        r#"{{"organization-name":"Big","date-range":{{"start-datetime":"{}","end-datetime":"{}"}},"contact-info":"x","report-id":"{id}","policies":[{{"policy":{{"policy-type":"sts","policy-domain":"one.example"}},"summary":{{"total-successful-session-count":{successful},"total-failure-session-count":{failed}}},"failure-details":[{details}]}}]}}"#,
        range.start, range.end
    );
    NewReport {
        submitter: "big.example".into(),
        signer: None,
        trust: Trust::Trusted,
        about: None,
        arrival: Arrival::Smtp,
        received_at: day,
        source: String::new(),
        report: Report::read(json.as_bytes()).unwrap().report,
        warnings: 0,
        packed: pack(json.as_bytes()).unwrap(),
    }
}

/// A dashboard with a store and a clock of its own.
pub(crate) struct Place {
    pub store: Store,
    pub clock: Arc<ManualClock>,
    pub dashboard: Arc<Dashboard>,
    pub router: axum::Router,
    _folder: tempfile::TempDir,
}

/// A response, read to its end.
pub(crate) struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: impl axum::http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn location(&self) -> &str {
        self.header(LOCATION)
    }

    /// The seconds of `Retry-After`.
    pub fn retry_after(&self) -> u64 {
        self.header(RETRY_AFTER).parse().unwrap_or(0)
    }

    /// The value of the first input of this name.
    pub fn input(&self, name: &str) -> String {
        let marker = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.body.split_once(&marker).unwrap_or_else(|| panic!("{name}: {}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Place {
    pub async fn new() -> Self {
        Self::with("[dashboard]\nurl = \"https://dash.example\"\n[[domain]]\nname = \"one.example\"\n").await
    }

    pub async fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dns = if text.contains("[dns]") { "" } else { "[dns]\nservers = [\"127.0.0.1:1\"]\n" };
        let text = format!("{dns}{text}");
        let config = config::Config::parse(&text, Some(folder.path().join("sternpost.toml"))).unwrap();
        let store = Store::open(config.store.file().unwrap(), Tenant::FIRST).await.unwrap();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let mut world = World::new(&config).unwrap();
        world.clock = clock.clone();
        let world = Arc::new(world);
        let role = config.dashboard.clone().unwrap();
        let reports = match &config.inbox {
            Some(inbox) => crate::reports_by_post(inbox, &store, &world).await.unwrap(),
            None => None,
        };
        let public = role.public_check.then(|| crate::public_check(&config, &store, &world));
        let context = RolloutContext::at(config, store.clone(), world).await.unwrap();
        let dashboard = Dashboard::new(&role, context).unwrap();
        let router = router(&dashboard, reports, public);
        Self { store, clock, dashboard, router, _folder: folder }
    }

    /// Creates a link; returns its path.
    pub async fn link(&self, name: &str, role: Option<Role>) -> String {
        invite(&self.store, &store::tenants::TenantInfo::main(), self.clock.now(), name, role)
            .await
            .unwrap()
            .path
    }

    /// A new user with [`PASSWORD`], in a browser that is signed in.
    pub async fn user(&self, name: &str, role: Role, address: &str) -> Browser<'_> {
        let mut browser = self.browser(address);
        let path = self.link(name, Some(role)).await;
        let answer = browser.post(&path, &[("password", PASSWORD), ("again", PASSWORD)]).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, "/"), "{}", answer.body);
        browser
    }

    pub fn browser(&self, address: &str) -> Browser<'_> {
        Browser {
            place: self,
            address: address.to_owned(),
            host: "dash.example".to_owned(),
            cookies: BTreeMap::new(),
            headers: BTreeMap::new(),
        }
    }
}

/// A browser with its cookies, at an address.
#[derive(Clone)]
pub(crate) struct Browser<'p> {
    place: &'p Place,
    pub address: String,
    pub host: String,
    pub cookies: BTreeMap<String, String>,
    /// Headers in addition to the usual ones, or in their place; an empty one is not sent.
    pub headers: BTreeMap<&'static str, String>,
}

impl Browser<'_> {
    pub async fn get(&mut self, path: &str) -> Response {
        self.send(Method::GET, path, String::new()).await
    }

    pub async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Response {
        let encode = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        let pairs: Vec<String> =
            form.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        self.send(Method::POST, path, pairs.join("&")).await
    }

    /// Posts a form of a page, with the page's CSRF token.
    pub async fn submit(&mut self, page: &str, path: &str, form: &[(&str, &str)]) -> Response {
        let word = self.get(page).await.input("word");
        let mut form = form.to_vec();
        form.push(("word", &word));
        self.post(path, &form).await
    }

    pub async fn sign_in(&mut self, name: &str, password: &str) -> Response {
        self.post("/sign-in", &[("name", name), ("password", password)]).await
    }

    /// Whether the browser is signed in.
    pub async fn is_in(&mut self) -> bool {
        self.get("/account").await.status == StatusCode::OK
    }

    pub async fn send(&mut self, method: Method, path: &str, body: String) -> Response {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        let mut headers = BTreeMap::from([
            ("cookie", cookies.join("; ")),
            ("origin", format!("https://{}", self.host)),
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
        ]);
        headers.extend(self.headers.clone());
        for (name, value) in headers.into_iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(ClientAddr(self.address.parse().ok()));
        let answer = TowerToHyperService::new(self.place.router.clone()).call(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        for value in head.headers.get_all(SET_COOKIE) {
            let (pair, attributes) = value.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            match attributes.contains("Max-Age=0") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        Response {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }
}
