//! The page while the figures are counted for the first time since the start. It has the domains by name, and a browser loads
//! it again by itself.

use crate::layout::{Answer, Frame, Section, html};
use crate::state::Dashboard;
use crate::text;
use crate::visitor::Visitor;
use askama::Template;
use axum::http::HeaderValue;
use axum::http::header::REFRESH;

/// Domains that the page names.
const MAX_UNCOUNTED: usize = 100;

#[derive(Template)]
#[template(path = "uncounted.html")]
struct UncountedPage {
    frame: Frame,
    all: usize,
    /// A part of the names of the domains that are shown.
    wanted: String,
    names: Vec<String>,
}

/// Seconds after which a browser loads the page again.
const RELOAD: HeaderValue = HeaderValue::from_static("3");

/// The page. `wanted` is a part of the names of the domains that it shows.
pub async fn uncounted(dashboard: &Dashboard, visitor: &Visitor, wanted: String) -> Answer {
    let context = dashboard.context().await?;
    let part = wanted.trim().to_lowercase();
    let is_wanted = |name: &&str| name.contains(&part) || text::unicode(name).contains(&part);
    let names = context.known.iter().map(|spec| spec.name.as_str()).filter(is_wanted);
    let mut answer = html(&UncountedPage {
        frame: Frame::new("Domains", Section::Domains, visitor),
        all: context.known.len(),
        names: names.take(MAX_UNCOUNTED).map(str::to_owned).collect(),
        wanted,
    })?;
    answer.headers_mut().insert(REFRESH, RELOAD);
    Ok(answer)
}
