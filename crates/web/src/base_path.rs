//! Serves the dashboard below a path of its host, as `dashboard.url = "https://tools.example.org/sternpost"` asks for, and
//! below the prefix of a tenant (`tenant_path`).
//!
//! Routes, templates and redirects name paths from the root of the dashboard, as if it had the host for itself. Only here,
//! where a request comes in and its response leaves, are the base path and the tenant taken off and added: to `Location`, and
//! to the links, forms and assets of a page. So a new page cannot forget them. Handlers get the [`Tenant`] as an extension. The path of cookies ([`BasePath::cookie_path`]) and absolute
//! links, which begin with `dashboard.url`, have it too.
//!
//! A proxy may pass the path on or remove it: both `/sternpost/reports` and `/reports` are found.

use crate::layout::ErrorPage;
use crate::tenant_path;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use config::failure::Failure;
use http_body_util::BodyExt;
use net::BoxFuture;
use std::sync::Arc;
use store::Tenant;
use tower_service::Service;

/// The path of `dashboard.url`, without a slash at its end; empty for the root of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasePath(Arc<str>);

/// The attributes of a page that name paths of the dashboard. Texts of others can't contain them, since templates escape
/// quotes.
const ATTRIBUTES: [&str; 4] = [" href=\"/", " action=\"/", " formaction=\"/", " src=\"/"];

/// The routers of the tenants.
pub trait TenantRouters: Send + Sync {
    /// The router of the first tenant.
    fn main(&self) -> Router;

    /// The tenant of this name with its router; `None` if there is no such tenant.
    fn named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<(Tenant, Router)>, Failure>>;
}

/// The tenant of a path, the prefix that names it, and its router. An unknown name is no prefix, so that its path is not found.
async fn tenant_of(routers: &dyn TenantRouters, path: &str) -> Result<(Tenant, String, Router), Failure> {
    if let Some((name, prefix)) = tenant_path::split(path)
        && let Some((tenant, router)) = routers.named(name).await?
    {
        return Ok((tenant, prefix.to_owned(), router));
    }
    Ok((Tenant::FIRST, String::new(), routers.main()))
}

impl BasePath {
    /// The path of a URL. It has no query and no fragment: the configuration rejects them.
    pub fn of(url: &str) -> Self {
        let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
        let path = after_scheme.find('/').and_then(|at| after_scheme.get(at..)).unwrap_or_default();
        Self(path.trim_end_matches('/').into())
    }

    /// The path that cookies are sent to.
    pub fn cookie_path(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }

    /// The path as links begin: empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The routes of all tenants, below this path.
    pub fn serve(self, routers: Arc<dyn TenantRouters>) -> Router {
        Router::new().fallback(move |request: Request| self.clone().pass(routers.clone(), request))
    }

    /// Passes on the request for the path below this one and below the tenant's, and adds both to the response.
    async fn pass(self, routers: Arc<dyn TenantRouters>, mut request: Request) -> Response {
        if let Some(uri) = self.inner(request.uri()) {
            *request.uri_mut() = uri;
        }
        let (tenant, prefix, mut router) = match tenant_of(routers.as_ref(), request.uri().path()).await {
            Ok(found) => found,
            Err(failure) => return ErrorPage::from(failure).into_response(),
        };
        let tenant_path = Self(prefix.into());
        if let Some(uri) = tenant_path.inner(request.uri()) {
            *request.uri_mut() = uri;
        }
        request.extensions_mut().insert(tenant);
        let whole = Self(format!("{}{}", self.0, tenant_path.0).into());
        let Ok(response) = router.call(request).await;
        if whole.0.is_empty() { response } else { whole.add_to(response).await }
    }

    /// The URI below this path; `None` if it is not below it.
    fn inner(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path().strip_prefix(&*self.0).filter(|_| !self.0.is_empty())?;
        let path = match rest {
            "" => "/",
            rest if rest.starts_with('/') => rest,
            _ => return None,
        };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{query}")).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// The response, with this path in its links.
    async fn add_to(self, response: Response) -> Response {
        let (mut head, body) = response.into_parts();
        let location = head.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        if let Some(path) = location.filter(|path| path.starts_with('/') && !path.starts_with("//"))
            && let Ok(value) = HeaderValue::try_from(format!("{}{path}", self.0))
        {
            head.headers.insert(LOCATION, value);
        }
        let kind = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/html")) {
            return Response::from_parts(head, body);
        }
        head.headers.remove(CONTENT_LENGTH);
        // Pages are complete in memory, so collecting one neither waits nor fails.
        let page = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        let body = match std::str::from_utf8(&page) {
            Ok(page) => Body::from(self.add_to_page(page)),
            Err(_) => Body::from(page),
        };
        Response::from_parts(head, body)
    }

    fn add_to_page(&self, page: &str) -> String {
        ATTRIBUTES.iter().fold(page.to_owned(), |page, attribute| {
            page.replace(attribute, &format!("{}{}/", attribute.trim_end_matches('/'), self.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_path_is_the_path_of_the_url() {
        for (url, path, cookies) in [
            ("https://a.example", "", "/"),
            ("https://a.example/", "", "/"),
            ("https://a.example/sternpost", "/sternpost", "/sternpost"),
            ("https://a.example:8443/tools/mail/", "/tools/mail", "/tools/mail"),
            ("http://127.0.0.1:8460", "", "/"),
        ] {
            let base = BasePath::of(url);
            assert_eq!((base.as_str(), base.cookie_path()), (path, cookies), "{url}");
        }
    }

    #[test]
    fn a_request_is_found_with_and_without_the_base_path() {
        let base = BasePath::of("https://a.example/sternpost");
        let inner = |uri: &str| base.inner(&uri.parse().unwrap()).map(|uri| uri.to_string());
        for (outer, expected) in [
            ("/sternpost", Some("/")),
            ("/sternpost/", Some("/")),
            ("/sternpost?q=a", Some("/?q=a")),
            ("/sternpost/reports?domain=%C3%A9&x", Some("/reports?domain=%C3%A9&x")),
            ("/sternpost/sternpost", Some("/sternpost")),
            ("/sternposts/reports", None),
            ("/reports", None),
            ("/", None),
        ] {
            assert_eq!(inner(outer).as_deref(), expected, "{outer}");
        }
    }

    #[test]
    fn links_forms_and_assets_get_the_base_path_and_texts_do_not() {
        let base = BasePath::of("https://a.example/x");
        let page = "<link rel=\"stylesheet\" href=\"/style.css?1\"><a href=\"/\">a</a><form method=\"post\" action=\"/check\">\
                    <script src=\"/copy.js\"></script><a href=\"#main\"> href=&#34;/no&#34; /no <a href=\"https://b.example/\">";
        let expected = "<link rel=\"stylesheet\" href=\"/x/style.css?1\"><a href=\"/x/\">a</a><form method=\"post\" action=\"/x/check\">\
                        <script src=\"/x/copy.js\"></script><a href=\"#main\"> href=&#34;/no&#34; /no <a href=\"https://b.example/\">";
        assert_eq!(base.add_to_page(page), expected);
    }
}
