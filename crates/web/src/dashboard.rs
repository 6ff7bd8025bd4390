//! The router of the dashboard. `pages` holds the pages, whose changes are for operators, `account` what every signed-in
//! user may change, and `outside` what requires no sign-in. All of them check the `Host` and `Origin` headers, receive forms
//! within a time (`forms`), get security headers, and are served below the path of `dashboard.url` (`base_path`).

use crate::base_path::BasePath;
use crate::dashboards::Dashboards;
use crate::state::Dashboard;
use crate::{
    account, actions, dmarc, domain, domain_check, forms, installation, layout, other_pages, overview,
    reports, sign_in, welcome,
};
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::routing::{get, post};
use std::sync::Arc;

/// Everything served at the dashboard's address, for all tenants. `dashboard` is that of the first one. `reports` are the routes
/// that receive TLS reports by POST, made by `report_post`. `public` are the routes of the public check, made by `public_check`.
/// `None` leaves them out.
pub fn router(dashboard: &Arc<Dashboard>, reports: Option<Router>, public: Option<Router>) -> Router {
    let main = pages(dashboard)
        .merge(reports.unwrap_or_default())
        .layer(from_fn(layout::add_security_headers))
        .merge(public.unwrap_or_default());
    let dashboards = Dashboards::new(dashboard, main, routes);
    BasePath::of(&dashboard.config.url).serve(Arc::new(dashboards))
}

/// The pages of one tenant.
fn routes(dashboard: &Arc<Dashboard>) -> Router {
    pages(dashboard).layer(from_fn(layout::add_security_headers))
}

fn pages(dashboard: &Arc<Dashboard>) -> Router {
    let pages = Router::new()
        .route("/", get(overview::page))
        .route("/alerts", get(overview::alerts))
        .route("/report", get(installation::page))
        .route("/domains/{name}", get(domain::page))
        .route("/domains/{name}/report", get(domain::manager::page))
        .route("/domains/{name}/check", get(domain_check::page).post(domain_check::run))
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
        .route("/settings/invitations/end", post(actions::end_invitation))
        .layer(from_fn_with_state(dashboard.clone(), sign_in::require_operator));
    let account = Router::new()
        .route("/account", get(account::page))
        .route("/account/password", post(account::change_password))
        .route("/account/sessions/end", post(account::end_sessions))
        .route("/account/second-factor/begin", post(account::begin_second_factor))
        .route("/account/second-factor/confirm", post(account::confirm_second_factor))
        .route("/account/second-factor/codes", post(account::renew_recovery_codes))
        .route("/account/second-factor/remove", post(account::remove_second_factor))
        .route("/sign-out", post(sign_in::sign_out));
    let inside = pages.merge(account).layer(from_fn_with_state(dashboard.clone(), sign_in::require_sign_in));
    let outside = Router::new()
        .route("/sign-in", get(sign_in::sign_in_page).post(sign_in::sign_in))
        .route("/sign-in/code", get(sign_in::sign_in_page).post(sign_in::sign_in_code))
        .route("/welcome/{secret}", get(welcome::welcome_page).post(welcome::welcome))
        .route("/style.css", get(layout::style))
        .route("/mark.svg", get(layout::icon))
        .route("/page.js", get(layout::script));
    inside
        .merge(outside)
        .fallback(layout::page_not_found)
        .method_not_allowed_fallback(layout::method_not_allowed)
        .layer(map_response(forms::refused_as_page))
        .layer(from_fn_with_state(forms::arriving(), forms::receive))
        .layer(from_fn_with_state(dashboard.clone(), sign_in::require_same_origin))
        .with_state(dashboard.clone())
}
