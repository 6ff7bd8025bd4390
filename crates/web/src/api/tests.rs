//! The API request by request, in one process: what each answer has, and the crossing of two tenants by the table of requests.

mod crossing;
mod requests;

use super::routes::{Place, ROUTES, Route};
use super::*;
use crate::tests::report;
use axum::body::Body;
use axum::http::Request as HttpRequest;
use axum::http::header::AUTHORIZATION;
use config::Config;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use operations::world::World;
use serde_json::json;

/// The API with a store of its own.
struct Server {
    store: Store,
    router: Router,
    _folder: tempfile::TempDir,
}

/// An answer, read to its end.
struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = "[dns]\nservers = [\"127.0.0.1:1\"]\n[host]\nlisten = []\nname = \"policy.example.net\"\n\
                    [delegation]\nzone = \"sts.example.net\"\n[admin]\n[[domain]]\nname = \"file.example\"\n";
        let config = Config::parse(text, Some(folder.path().join("sternpost.toml"))).unwrap();
        let store = Store::open(config.store.file().unwrap(), Tenant::FIRST).await.unwrap();
        let world = Arc::new(World::new(&config).unwrap());
        let role = config.admin.clone().unwrap();
        let context = RolloutContext::at(config, store.clone(), world).await.unwrap();
        let router = router(&role, context, Background::default()).unwrap();
        Self { store, router, _folder: folder }
    }

    /// A token of a tenant.
    async fn token(&self, tenant: Tenant, name: &str, scopes: Scopes) -> String {
        let now = Timestamp::now();
        create_token(&self.store.of_tenant(tenant), now, name, &scopes, TokenEnds::default()).await.unwrap().0
    }

    async fn send(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        self.send_with(token, method, path, body, &[]).await
    }

    async fn send_with(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = HttpRequest::builder()
            .method(method.to_uppercase().as_str())
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let answer = TowerToHyperService::new(self.router.clone()).call(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        Answer { status: head.status.as_u16(), headers: head.headers, text }
    }
}

/// The path of a request with these values, or those of its examples.
fn path_with(route: &Route, values: &[(&str, &str)]) -> String {
    let mut path = route.path.to_owned();
    for parameter in route.parameters.iter().filter(|parameter| parameter.place == Place::Path) {
        let given = values.iter().find(|(name, _)| *name == parameter.name);
        path = path
            .replace(&format!("{{{}}}", parameter.name), given.map_or(parameter.example, |(_, value)| value));
    }
    path
}

#[test]
fn the_documentation_is_made_from_the_table() {
    let written: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    assert!(written == document(), "run: sternpost config api > docs/openapi.json");
    let page = include_str!("../../../../docs/api.md");
    assert!(page.contains(&table()), "run sternpost config api --markdown, and paste it into docs/api.md");
}

#[test]
fn the_document_names_only_schemas_that_it_has_and_uses_each() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    for name in schemas.keys() {
        assert!(text.contains(&format!("#/components/schemas/{name}\"")), "{name} is not used");
    }
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is missing");
    }
    let mut ids: Vec<String> = Vec::new();
    for path in document["paths"].as_object().unwrap().values() {
        ids.extend(path.as_object().unwrap().values().map(|one| one["operationId"].to_string()));
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), count), (ROUTES.len(), ROUTES.len()));
}

#[test]
fn the_schema_of_settings_has_the_members_of_settings() {
    let mut spec = DomainSpec::new(DomainName::parse("a.example").unwrap());
    spec.challenge = Some(receiver::host::order::ChallengeType::Http01);
    spec.tags = vec![receiver::domain::Tag::parse("shop").unwrap()];
    let schemas = document()["components"]["schemas"].clone();
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let spec = serde_json::to_value(&spec).unwrap();
    let mut own = members(&spec);
    own.sort();
    for schema in ["Settings", "NamedSettings"] {
        let mut known = members(&schemas[schema]["properties"]);
        known.sort();
        assert_eq!(known, own, "{schema}");
    }
}
