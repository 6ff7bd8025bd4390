//! The dashboard as one router: which page answers which path.

use crate::state::Dashboard;
use crate::{actions, domain, layout, other_pages, overview, reports, sign_in};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post as posted};
use formats::limits::FORM_BYTES;
use std::sync::Arc;

/// All that is served at the dashboard's address; `reports` takes them by POST, `public` is for everybody.
pub fn router(dashboard: &Arc<Dashboard>, reports: Option<Router>, public: Option<Router>) -> Router {
    let inside = Router::new()
        .route("/", get(overview::page))
        .route("/domains/{name}", get(domain::page))
        .route("/domains/{name}/check", get(domain::check))
        .route("/domains/{name}/approve", posted(actions::approve))
        .route("/domains/{name}/hold", posted(actions::hold))
        .route("/domains/{name}/excuse", posted(actions::excuse))
        .route("/reports", get(reports::list))
        .route("/reports/{id}", get(reports::one))
        .route("/reports/{id}/raw", get(reports::raw))
        .route("/quarantine", get(reports::quarantine))
        .route("/quarantine/{id}", get(reports::quarantined))
        .route("/quarantine/retry", posted(actions::retry))
        .route("/senders", get(other_pages::senders))
        .route("/journal", get(other_pages::journal))
        .route("/sending", get(other_pages::sending))
        .route("/settings", get(other_pages::settings))
        .route("/settings/people", posted(actions::invite))
        .route("/settings/people/remove", posted(actions::remove))
        .route("/sign-out", posted(sign_in::sign_out))
        .layer(from_fn_with_state(dashboard.clone(), sign_in::only_known));
    let outside = Router::new()
        .route("/sign-in", get(sign_in::sign_in_page).post(sign_in::sign_in))
        .route("/welcome/{secret}", get(sign_in::welcome_page).post(sign_in::welcome))
        .route("/style.css", get(layout::style))
        .route("/copy.js", get(layout::script));
    let pages = inside
        .merge(outside)
        .fallback(layout::nothing_here)
        .layer(from_fn_with_state(dashboard.clone(), sign_in::only_our_forms))
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .with_state(dashboard.clone());
    pages
        .merge(reports.unwrap_or_default())
        .layer(from_fn(layout::safe_headers))
        .merge(public.unwrap_or_default())
}
