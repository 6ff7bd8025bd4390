//! The page `/alerts`: everything that needs action, grouped by cause.

use super::groups::{GroupView, group_views};
use super::uncounted::uncounted;
use crate::layout::{Answer, Frame, Section, html};
use crate::state::Dashboard;
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::State;
use jiff::Timestamp;
use std::sync::Arc;

/// Groups on the page.
const MAX_ALL_GROUPS: usize = 100;

#[derive(Template)]
#[template(path = "alerts.html")]
struct AlertsPage {
    frame: Frame,
    now: Timestamp,
    groups: Vec<GroupView>,
    further: usize,
    domains: usize,
    has_guard: bool,
    as_of: Timestamp,
    newest_report: Option<Timestamp>,
    pending: usize,
}

/// Everything that needs action, grouped by cause.
pub async fn alerts(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
) -> Answer {
    let Some(snapshot) = dashboard.snapshot().await? else {
        return uncounted(&dashboard, &visitor, String::new()).await;
    };
    let context = dashboard.context().await?;
    html(&AlertsPage {
        frame: Frame::new("Needs action", Section::Domains, &visitor),
        now: context.world.clock.now(),
        groups: group_views(&snapshot.groups, MAX_ALL_GROUPS),
        further: snapshot.groups.len().saturating_sub(MAX_ALL_GROUPS),
        domains: snapshot.totals.action,
        has_guard: context.config.guard.is_some(),
        as_of: snapshot.at,
        newest_report: snapshot.newest_report,
        pending: snapshot.pending,
    })
}
