//! The page of received DMARC reports: the messages of each domain in the last 30 days, and by day, source address,
//! alignment and disposition. It shows counts and gives no advice about policies.

use crate::layout::{Answer, Frame, Section, html};
use crate::reports::searched;
use crate::state::Dashboard;
use crate::tables::{self, Format, export};
use crate::text;
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use formats::dmarc::Alignment;
use jiff::SignedDuration;
use serde::Deserialize;
use std::sync::Arc;
use store::dmarc::{DmarcDomain, DmarcSearch, DmarcSum};

/// The query parameters of `/dmarc`.
#[derive(Debug, Default, Deserialize)]
pub struct DmarcQuery {
    /// Only sums about this domain.
    #[serde(default)]
    domain: String,
    #[serde(default)]
    format: Format,
}

/// The period that is shown: 30 days.
const WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);
/// The maximum number of domains on the page.
const MAX_DOMAINS: u32 = 60;
/// The maximum number of sums on the page.
const PAGE_ROWS: u32 = 60;
/// The maximum number of sums in a CSV or JSON export.
const MAX_EXPORT_ROWS: u32 = 100_000;

#[derive(Template)]
#[template(path = "dmarc.html")]
struct Page {
    frame: Frame,
    /// Whether DMARC reports are imported.
    is_on: bool,
    domain: String,
    domains: Vec<DmarcDomain>,
    rows: Vec<DmarcSum>,
    /// Whether there are more rows than are shown.
    is_cut: bool,
    /// Whether there are more domains than are shown.
    are_domains_cut: bool,
}

impl Page {
    fn share(&self, row: &DmarcDomain) -> String {
        text::percent(self.not_aligned(row), row.messages).unwrap_or_else(|| "–".to_owned())
    }

    fn not_aligned(&self, row: &DmarcDomain) -> u64 {
        row.messages.saturating_sub(row.aligned)
    }

    fn is_aligned(&self, row: &DmarcSum) -> bool {
        row.dkim == Alignment::Pass || row.spf == Alignment::Pass
    }
}

pub async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(query): Query<DmarcQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let now = context.world.clock.now();
    let since = now.saturating_sub(WINDOW).unwrap_or(now);
    let most = if query.format == Format::Html { PAGE_ROWS } else { MAX_EXPORT_ROWS };
    let domain = searched(&query.domain);
    let shown = domain.clone().unwrap_or_default();
    let rows = context.store.dmarc_sums(&DmarcSearch { domain, since, most }).await?;
    if let Some(answer) = export(query.format, "dmarc", tables::DMARC, &rows) {
        return answer;
    }
    let domains = context.store.dmarc_domains(since, MAX_DOMAINS).await?;
    html(&Page {
        frame: Frame::new("DMARC reports", Section::Reports, &visitor),
        is_on: context.config.inbox.as_ref().is_some_and(|inbox| inbox.dmarc),
        domain: shown,
        are_domains_cut: domains.len() == MAX_DOMAINS as usize,
        domains,
        is_cut: rows.len() == PAGE_ROWS as usize,
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::dmarc::Disposition;

    #[test]
    fn the_page_marks_what_is_not_aligned_or_not_verified_and_escapes_names() {
        let day = jiff::Timestamp::UNIX_EPOCH;
        let row = |source: &str, dkim, verified| DmarcSum {
            day,
            domain: "a<b>.example".into(),
            source: source.into(),
            dkim,
            spf: Alignment::Fail,
            disposition: Disposition::Reject,
            verified,
            messages: 7,
            reports: 1,
        };
        let domain = DmarcDomain {
            domain: "a.example".into(),
            verified: false,
            reports: 2,
            messages: 14,
            aligned: 7,
            stopped: 14,
            uncounted: 1,
        };
        let page = Page {
            frame: Frame::outside("DMARC reports"),
            is_on: true,
            domain: String::new(),
            domains: vec![domain],
            rows: vec![row("192.0.2.1", Alignment::Pass, true), row("", Alignment::Fail, false)],
            is_cut: false,
            are_domains_cut: true,
        };
        let text = page.render().unwrap();
        for part in [
            "1970-01-01",
            "192.0.2.1",
            "other sources",
            "not verified",
            "class=\"number failing\"",
            "reject",
            "50.0 %",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("a<b>") && text.matches("<tr>").count() == 5, "{text}");
        let empty = Page { is_on: false, domains: vec![], rows: vec![], ..page };
        assert!(empty.render().unwrap().contains("dmarc = true"));
    }
}
