//! The page of a domain in the public check: its newest result, its history and its badge. The link to the page stays valid,
//! whatever the next check finds. Only the badge starts checks, at most one a day, so that it does not grow old on the page of
//! its owner.

use super::badge::badge;
use super::running::Purpose;
use super::{PublicCheck, shown, unavailable};
use crate::text::minute;
use askama::Template;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use check::Protection;
use check::render::page;
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};
use operations::store_failure;
use std::sync::Arc;
use std::time::Instant;
use store::public_results::PublicResult;

/// The age of a result from which on a request for the badge starts a check.
const BADGE_AGE: SignedDuration = SignedDuration::from_hours(24);

#[derive(Template)]
#[template(path = "public_domain.html")]
struct DomainPage {
    style: &'static str,
    domain: String,
    /// The absolute URL of this page.
    url: String,
    rows: Vec<HistoryRow>,
}

/// A result in the table.
struct HistoryRow {
    /// CSS class of the label.
    class: &'static str,
    label: &'static str,
    verdict: String,
    /// The first and the last check with this result.
    since: String,
    until: String,
    /// Whether there was more than one check.
    is_period: bool,
    checks: Vec<String>,
    word: String,
    has_page: bool,
}

impl HistoryRow {
    fn of(result: PublicResult) -> Self {
        let protection = Protection::by_id(&result.protection);
        Self {
            class: class(protection),
            label: protection.map_or("unknown", Protection::label),
            verdict: result.verdict,
            since: minute(&result.since),
            until: minute(&result.until),
            is_period: result.since != result.until,
            checks: result.checks.split_whitespace().map(str::to_owned).collect(),
            word: result.word,
            has_page: result.has_page,
        }
    }
}

fn class(protection: Option<Protection>) -> &'static str {
    match protection {
        Some(Protection::Enforced | Protection::Dane) => "fine",
        Some(Protection::EnforcedWithWarnings | Protection::Testing) => "waiting",
        Some(Protection::Errors | Protection::None) => "failing",
        Some(Protection::NoMail | Protection::NoSuchDomain | Protection::Unknown) | None => "way",
    }
}

impl PublicCheck {
    /// The domain of the path and its results, the last first; or the response to a name that is none.
    async fn results_of(&self, name: &str) -> Result<(DomainName, Vec<PublicResult>), Box<Response>> {
        let domain = operations::world::domain(name)
            .map_err(|failure| self.refused(name, super::CheckError::InvalidDomain(failure.to_string())))?;
        let results = self.store.public_results(&domain).await;
        let results = results.map_err(|error| self.refused(name, unavailable(&store_failure(&error))))?;
        Ok((domain, results))
    }

    fn page_url(&self, domain: &DomainName) -> String {
        format!("{}/check/domain/{domain}", self.url)
    }
}

pub async fn page(State(public): State<Arc<PublicCheck>>, Path(name): Path<String>) -> Response {
    let (domain, results) = match public.results_of(&name).await {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let status = if results.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    let rows = results.into_iter().map(HistoryRow::of).collect();
    let url = public.page_url(&domain);
    shown(status, &DomainPage { style: page::STYLE, domain: domain.to_string(), url, rows })
}

pub async fn badge_image(State(public): State<Arc<PublicCheck>>, Path(name): Path<String>) -> Response {
    let (domain, results) = match public.results_of(&name).await {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let last = results.first();
    if last.is_some_and(|last| is_old(last, public.world.clock.now()))
        && public.rates.take_for_badge(Instant::now())
        && let Err(error) = public.start_counted(&domain, Purpose::Badge)
    {
        tracing::info!("the badge of {domain} shows an old result: {}", error.status_and_message().1);
    }
    let protection = last.and_then(|last| Protection::by_id(&last.protection));
    let head = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "max-age=3600"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ];
    (head, badge(domain.as_str(), protection)).into_response()
}

fn is_old(last: &PublicResult, now: Timestamp) -> bool {
    now.duration_since(last.until) >= BADGE_AGE
}

pub async fn history(State(public): State<Arc<PublicCheck>>, Path(name): Path<String>) -> Response {
    let (domain, results) = match public.results_of(&name).await {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let result = |result: PublicResult| {
        serde_json::json!({
            "since": result.since.to_string(),
            "until": result.until.to_string(),
            "protection": result.protection,
            "verdict": result.verdict,
            "checks": result.checks.split_whitespace().collect::<Vec<_>>(),
            "url": result.has_page.then(|| format!("{}/check/{}", public.url, result.word)),
        })
    };
    let results: Vec<_> = results.into_iter().map(result).collect();
    let all = serde_json::json!({ "schema": 1, "domain": domain.as_str(), "results": results });
    ([(header::CONTENT_TYPE, "application/json")], all.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_old_after_a_day() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let text = String::new;
        let last = PublicResult {
            word: text(),
            since: at(0),
            until: at(1000),
            protection: text(),
            verdict: text(),
            checks: text(),
            has_page: true,
        };
        assert!(!is_old(&last, at(1000 + 86_399)));
        assert!(is_old(&last, at(1000 + 86_400)));
        assert!(!is_old(&last, at(0)), "the clock was set back");
    }
}
