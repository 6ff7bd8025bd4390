//! The router of the dashboard. `inside` holds the pages that require a sign-in, `outside` those that do not. All of
//! them check the `Host` and `Origin` headers and get security headers.

use crate::state::Dashboard;
use crate::{actions, dmarc, domain, layout, other_pages, overview, reports, sign_in};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use formats::limits::FORM_BYTES;
use std::sync::Arc;

/// Everything served at the dashboard's address. `reports` are the routes that receive TLS reports by POST, made by
/// `report_post`. `public` are the routes of the public check, made by `public_check`. `None` leaves them out.
pub fn router(dashboard: &Arc<Dashboard>, reports: Option<Router>, public: Option<Router>) -> Router {
    let inside = Router::new()
        .route("/", get(overview::page))
        .route("/alerts", get(overview::alerts))
        .route("/domains/{name}", get(domain::page))
        .route("/domains/{name}/report", get(domain::manager::page))
        .route("/domains/{name}/check", get(domain::check))
        .route("/domains/{name}/approve", post(actions::approve))
        .route("/domains/{name}/hold", post(actions::hold))
        .route("/domains/{name}/excuse", post(actions::excuse))
        .route("/reports", get(reports::list))
        .route("/reports/{id}", get(reports::one))
        .route("/reports/{id}/raw", get(reports::raw))
        .route("/reports/{id}/drop", post(actions::drop_report))
        .route("/dmarc", get(dmarc::page))
        .route("/quarantine", get(reports::quarantine))
        .route("/quarantine/{id}", get(reports::quarantined))
        .route("/quarantine/retry", post(actions::retry))
        .route("/quarantine/drop", post(actions::drop_quarantined))
        .route("/senders", get(other_pages::senders))
        .route("/journal", get(other_pages::journal))
        .route("/sending", get(other_pages::sending))
        .route("/settings", get(other_pages::settings))
        .route("/settings/people", post(actions::invite))
        .route("/settings/people/remove", post(actions::remove))
        .route("/sign-out", post(sign_in::sign_out))
        .layer(from_fn_with_state(dashboard.clone(), sign_in::require_sign_in));
    let outside = Router::new()
        .route("/sign-in", get(sign_in::sign_in_page).post(sign_in::sign_in))
        .route("/welcome/{secret}", get(sign_in::welcome_page).post(sign_in::welcome))
        .route("/style.css", get(layout::style))
        .route("/mark.svg", get(layout::icon))
        .route("/page.js", get(layout::script));
    let pages = inside
        .merge(outside)
        .fallback(layout::page_not_found)
        .layer(from_fn_with_state(dashboard.clone(), sign_in::require_same_origin))
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .with_state(dashboard.clone());
    pages
        .merge(reports.unwrap_or_default())
        .layer(from_fn(layout::add_security_headers))
        .merge(public.unwrap_or_default())
}
