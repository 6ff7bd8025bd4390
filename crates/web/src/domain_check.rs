//! The page with the last check of a domain, as senders see it. A check connects to the domain's servers, so only an
//! operator starts one, by a form; everybody who is signed in can read its result. Results are kept in memory.

use crate::auth::verify_csrf;
use crate::layout::{Answer, Frame, Section, html};
use crate::sign_in::not_checked;
use crate::state::Dashboard;
use crate::text;
use crate::visitor::{CsrfForm, Visitor};
use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect};
use check::Finding;
use check::render::page::{SenderRow, is_about_sender, mark, sender_rows};
use formats::DomainName;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// The maximum number of concurrent checks.
const CHECKS_AT_ONCE: usize = 2;
/// Results that are kept; the oldest is dropped for a further one.
const MAX_RESULTS: usize = 100;

/// The result of a check.
#[derive(Clone)]
struct CheckResult {
    at: Timestamp,
    verdict: String,
    findings: Vec<Finding>,
    senders: Vec<SenderRow>,
}

/// The last results, by domain name.
pub struct DomainChecks {
    results: Mutex<BTreeMap<String, CheckResult>>,
    running: Semaphore,
}

impl Default for DomainChecks {
    fn default() -> Self {
        Self { results: Mutex::default(), running: Semaphore::new(CHECKS_AT_ONCE) }
    }
}

impl DomainChecks {
    fn last(&self, name: &DomainName) -> Option<CheckResult> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).get(name.as_str()).cloned()
    }

    fn keep(&self, name: &DomainName, result: CheckResult) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.insert(name.to_string(), result);
        while results.len() > MAX_RESULTS {
            let oldest = results.iter().min_by_key(|(_, result)| result.at).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| results.remove(&oldest));
        }
    }
}

#[derive(Template)]
#[template(path = "check.html")]
struct CheckPage {
    frame: Frame,
    name: String,
    /// When the domain was checked, and the verdict; `None` if it was not checked since the start of the server.
    checked: Option<(String, String)>,
    /// CSS class and label of the severity, and the finding.
    findings: Vec<(&'static str, &'static str, Finding)>,
    senders: Vec<SenderRow>,
}

/// Shows the result of the last check.
pub async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Answer {
    let domain: DomainName = dashboard.context().await?.find(&operations::world::domain(&name)?)?.name;
    let result = dashboard.checks.last(&domain);
    html(&CheckPage {
        frame: Frame::new(format!("Check of {domain}"), Section::Domains, &visitor),
        name: domain.to_string(),
        checked: result
            .as_ref()
            .map(|result| (format!("{} UTC", text::minute(&result.at)), result.verdict.clone())),
        senders: result.as_ref().map(|result| result.senders.clone()).unwrap_or_default(),
        findings: result
            .map(|result| result.findings)
            .unwrap_or_default()
            .into_iter()
            .filter(|finding| !is_about_sender(finding))
            .map(|finding| (mark(finding.severity).0, mark(finding.severity).1, finding))
            .collect(),
    })
}

/// Checks the domain now, and redirects to the result.
pub async fn run(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(form): Form<CsrfForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let Ok(_place) = dashboard.checks.running.try_acquire() else { return Ok(not_checked(None)) };
    let context = dashboard.context().await?;
    let domain: DomainName = context.find(&operations::world::domain(&name)?)?.name;
    let checker =
        context.world.checker(&context.config, context.world.check_options(&context.config), false).await?;
    let clock = context.world.clock.clone();
    drop(context);
    let examination = checker.examine(&domain).await;
    let senders = sender_rows(&examination);
    let (verdict, findings) = (examination.verdict, examination.findings);
    let result = CheckResult { at: clock.now(), verdict, findings, senders };
    dashboard.checks.keep(&domain, result);
    Ok(Redirect::to(&format!("/domains/{domain}/check")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_results_are_kept() {
        let checks = DomainChecks::default();
        let name = |number: usize| DomainName::parse(&format!("d{number}.example")).unwrap();
        for number in 0..=MAX_RESULTS {
            let at = Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
            checks.keep(
                &name(number),
                CheckResult { at, verdict: String::new(), findings: vec![], senders: vec![] },
            );
        }
        assert!(checks.last(&name(0)).is_none() && checks.last(&name(1)).is_some());
        assert!(checks.last(&name(MAX_RESULTS)).is_some());
    }
}
