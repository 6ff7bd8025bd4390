//! The overview: the verdict about all domains with its figures, what needs action grouped by cause, and the table of
//! domains with search, filters, sorting and pages. Everything is a link or a form, so that it works without a script.
//! `snapshot` has the data.

mod alerts;
mod figures;
mod groups;
mod uncounted;

pub use alerts::alerts;

use crate::chart::strip;
use crate::judge::{Mark, NextStep, Urgency};
use crate::layout::{Answer, Frame, Section, html};
use crate::snapshot::{Entry, Snapshot, Totals};
use crate::state::Dashboard;
use crate::tables::{DOMAINS, Format, export};
use crate::text;
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use figures::{Figure, Segment, figures, lead, segments, verdict_mark};
pub use figures::{enforced_since, verdict};
use formats::Mode;
use groups::{GroupView, group_views};
use jiff::{SignedDuration, Timestamp};
use receiver::domain::{HostedBy, Tag};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uncounted::uncounted;

/// The query parameters. Unknown values are ignored; a malformed number or format is an error.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct OverviewQuery {
    /// A part of the domain's name.
    #[serde(default)]
    q: String,
    /// One of [`STATES`]; empty for all domains.
    #[serde(default)]
    state: String,
    /// A tag; empty for all domains.
    #[serde(default)]
    tag: String,
    /// The identifier of a group; empty for all domains.
    #[serde(default)]
    cause: String,
    /// One of [`SORTS`]; empty for the most urgent first.
    #[serde(default)]
    sort: String,
    /// `desc` reverses the order.
    #[serde(default)]
    dir: String,
    #[serde(default)]
    page: usize,
    #[serde(default)]
    format: Format,
}

/// The filters by state: the value in links, and the label.
const STATES: [(&str, &str); 7] = [
    ("", "All"),
    ("risk", "Mail at risk"),
    ("action", "Action needed"),
    ("testing", "In testing"),
    ("enforced", "Enforced"),
    ("unset", "Not set up"),
    ("silent", "No reports"),
];

/// The columns that sort: the value in links, the heading, and whether the largest come first.
const SORTS: [(&str, &str, bool); 5] = [
    ("domain", "Domain", false),
    ("since", "Mode", false),
    ("sessions", "Sessions", true),
    ("failed", "Failed", true),
    ("certificate", "Certificate", false),
];

/// Rows per page.
const PAGE_ROWS: usize = 30;
/// Tags that are offered as filters.
const MAX_TAG_CHIPS: usize = 12;
/// Groups on the overview; the page `/alerts` has all.
const MAX_GROUPS: usize = 5;
const DAY: SignedDuration = SignedDuration::from_hours(24);

impl OverviewQuery {
    /// The search for a part of names.
    #[cfg(test)]
    pub fn searching(q: &str) -> Self {
        Self { q: q.to_owned(), ..Self::default() }
    }

    /// True if a domain is in a state.
    fn is_in(state: &str, entry: &Entry) -> bool {
        match state {
            "risk" => entry.need == Urgency::Failing,
            "action" => entry.needs_action(),
            "testing" => entry.mode == Some(Mode::Testing),
            "enforced" => entry.mode == Some(Mode::Enforce),
            "unset" => entry.mode.is_none(),
            "silent" => entry.sessions() == 0,
            _ => true,
        }
    }

    /// The number of domains in a state.
    fn count_in(state: &str, totals: &Totals) -> usize {
        match state {
            "risk" => totals.risk,
            "action" => totals.action,
            "testing" => totals.testing,
            "enforced" => totals.enforced,
            "unset" => totals.unset,
            "silent" => totals.silent,
            _ => totals.all,
        }
    }

    /// The link to this page with some parameters changed. It leads to the first page of the table.
    fn link(&self, changes: &[(&str, &str)]) -> String {
        let current = [
            ("q", self.q.as_str()),
            ("state", &self.state),
            ("tag", &self.tag),
            ("cause", &self.cause),
            ("sort", &self.sort),
            ("dir", &self.dir),
            ("page", ""),
            ("format", ""),
        ];
        let changed = current.map(|(name, value)| {
            (name, changes.iter().find(|(changed, _)| *changed == name).map_or(value, |(_, new)| new))
        });
        let parts: Vec<String> = changed
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", text::query(value)))
            .collect();
        format!("/?{}#domains", parts.join("&"))
    }

    /// The domains that the search, the state and the cause select, in the order of the chosen column.
    fn select<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s Entry> {
        let wanted = self.q.trim().to_lowercase();
        let members = snapshot
            .group(&self.cause)
            .map(|group| group.domains.iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>());
        let is_found = |entry: &&Entry| {
            Self::is_in(&self.state, entry)
                && (self.cause.is_empty()
                    || members.as_ref().is_some_and(|members| members.contains(entry.name.as_str())))
                && (self.tag.is_empty() || entry.tags.iter().any(|tag| tag.as_str() == self.tag))
                && (wanted.is_empty()
                    || entry.name.contains(&wanted)
                    || entry.name.contains("xn--") && text::unicode(&entry.name).contains(&wanted))
        };
        let all = &snapshot.domains;
        let mut found: Vec<&Entry> = match self.sort.as_str() {
            "domain" => snapshot.by_name.iter().filter_map(|at| all.get(*at)).filter(is_found).collect(),
            _ => all.iter().filter(is_found).collect(),
        };
        match self.sort.as_str() {
            "since" => sort_by(&mut found, |entry| (entry.since.is_none(), entry.since)),
            "sessions" => sort_by(&mut found, Entry::sessions),
            "failed" => sort_by(&mut found, share),
            "certificate" => {
                sort_by(&mut found, |entry| (entry.certificate_ends.is_none(), entry.certificate_ends));
            }
            _ => {}
        }
        if self.dir == "desc" {
            found.reverse();
        }
        found
    }
}

/// Sorts by a key that is read once for each domain; equal ones keep their order.
fn sort_by<K: PartialOrd>(found: &mut Vec<&Entry>, key: impl Fn(&Entry) -> K) {
    let mut keyed: Vec<(K, &Entry)> = found.iter().map(|entry| (key(entry), *entry)).collect();
    keyed.sort_by(|(one, _), (other, _)| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    *found = keyed.into_iter().map(|(_, entry)| entry).collect();
}

/// The share of failed sessions; below all others without sessions.
fn share(entry: &Entry) -> f64 {
    if entry.sessions() == 0 { -1.0 } else { entry.failed as f64 / entry.sessions() as f64 }
}

/// A row of the CSV and JSON export.
#[derive(Debug, Serialize)]
struct ExportedRow<'a> {
    domain: &'a str,
    need: Urgency,
    mode: String,
    wanted: String,
    since: Option<Timestamp>,
    evidence: &'a str,
    next: &'a NextStep,
    sessions_30_days: u64,
    failed_30_days: u64,
    certificate_ends: Option<Timestamp>,
    tags: &'a [Tag],
}

impl<'a> From<&'a Entry> for ExportedRow<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            domain: &entry.name,
            need: entry.need,
            mode: entry.mode.map_or("not set up".to_owned(), |mode| mode.to_string()),
            wanted: entry.wanted.to_string(),
            since: entry.since,
            evidence: &entry.evidence,
            next: &entry.next,
            sessions_30_days: entry.sessions(),
            failed_30_days: entry.failed,
            certificate_ends: entry.certificate_ends,
            tags: &entry.tags,
        }
    }
}

/// A filter by state or tag.
struct Chip {
    label: String,
    count: usize,
    link: String,
    is_on: bool,
}

/// A column heading that sorts.
struct Heading {
    label: &'static str,
    link: String,
    /// The value of `aria-sort`; empty if the table is not sorted by this column.
    order: &'static str,
    is_number: bool,
}

/// A row of the table.
struct Row {
    name: String,
    mark: Mark,
    /// The mode, unless the mark says it.
    mode: &'static str,
    since: Option<Timestamp>,
    sessions: u64,
    failed: u64,
    /// The share of failed sessions; `None` without sessions.
    share: Option<String>,
    /// True if the share is above what the gate allows.
    is_above: bool,
    strip: String,
    /// The expiry of the certificate in words; empty if it is not managed here.
    certificate: String,
    certificate_ends: Option<Timestamp>,
    is_ending: bool,
    next: NextStep,
    tags: Vec<Tag>,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    frame: Frame,
    now: Timestamp,
    verdict: String,
    verdict_mark: Mark,
    segments: Vec<Segment>,
    /// What is most urgent; empty if nothing is.
    lead: String,
    figures: Vec<Figure>,
    groups: Vec<GroupView>,
    /// The number of groups that are not shown.
    further_groups: usize,
    chips: Vec<Chip>,
    tags: Vec<Chip>,
    headings: Vec<Heading>,
    rows: Vec<Row>,
    query: OverviewQuery,
    /// The title of the group that the table is limited to; empty if it is not.
    cause: String,
    all: usize,
    found: usize,
    page: usize,
    pages: usize,
    has_certificates: bool,
    has_inbox: bool,
    /// The command that adds a domain to the configuration file in use.
    init_command: String,
    bound: String,
    /// When the data was read.
    as_of: Timestamp,
    /// When the newest report was received; `None` if there is none.
    newest_report: Option<Timestamp>,
    /// The number of domains whose reports were not read yet.
    pending: usize,
}

impl Page {
    fn link(&self, name: &str, value: &str) -> String {
        self.query.link(&[(name, value)])
    }

    fn page_link(&self, page: usize) -> String {
        self.query.link(&[("page", &page.to_string())])
    }

    fn without_filters(&self) -> String {
        OverviewQuery {
            sort: self.query.sort.clone(),
            dir: self.query.dir.clone(),
            ..OverviewQuery::default()
        }
        .link(&[])
    }

    fn is_filtered(&self) -> bool {
        let query = &self.query;
        !(query.q.trim().is_empty()
            && query.state.is_empty()
            && query.tag.is_empty()
            && query.cause.is_empty())
    }

    /// What the table is limited to, in words.
    fn filters(&self) -> String {
        let mut parts = Vec::new();
        if let Some((_, label)) =
            STATES.iter().find(|(state, _)| *state == self.query.state && !state.is_empty())
        {
            parts.push(format!("state “{label}”"));
        }
        if !self.query.tag.is_empty() {
            parts.push(format!("tag “{}”", self.query.tag));
        }
        if !self.query.q.trim().is_empty() {
            parts.push(format!("name contains “{}”", self.query.q.trim()));
        }
        if !self.query.cause.is_empty() {
            parts.push(format!(
                "cause “{}”",
                if self.cause.is_empty() { &self.query.cause } else { &self.cause }
            ));
        }
        parts.join(", ")
    }
}

pub async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(query): Query<OverviewQuery>,
) -> Answer {
    let snapshot = match query.format {
        Format::Html => dashboard.snapshot().await?,
        // A program gets everything, and waits for it.
        Format::Csv | Format::Json => Some(dashboard.complete_snapshot().await?),
    };
    page_of(&dashboard, &visitor, query, snapshot).await
}

/// The page with this snapshot; without one, the domains by name.
pub async fn page_of(
    dashboard: &Dashboard,
    visitor: &Visitor,
    query: OverviewQuery,
    snapshot: Option<Arc<Snapshot>>,
) -> Answer {
    let Some(snapshot) = snapshot else { return uncounted(dashboard, visitor, query.q).await };
    let found = query.select(&snapshot);
    if query.format != Format::Html {
        let rows: Vec<ExportedRow<'_>> = found.iter().map(|entry| ExportedRow::from(*entry)).collect();
        if let Some(answer) = export(query.format, "domains", DOMAINS, &rows) {
            return answer;
        }
    }
    let context = dashboard.context().await?;
    let now = context.world.clock.now();
    let bound = context.config.thresholds.failure_rate;
    let pages = found.len().div_ceil(PAGE_ROWS).max(1);
    let page = query.page.clamp(1, pages);
    let shown = found.iter().skip((page - 1) * PAGE_ROWS).take(PAGE_ROWS);
    let has_certificates = snapshot.totals.hosted > 0;
    let rows: Vec<Row> = shown.map(|entry| row(&snapshot, entry, bound, now)).collect();
    html(&Page {
        frame: Frame::new("Domains", Section::Domains, visitor),
        now,
        verdict: verdict(&snapshot.totals),
        verdict_mark: verdict_mark(&snapshot.totals),
        segments: segments(&snapshot.totals),
        lead: snapshot.groups.first().filter(|group| !group.domains.is_empty()).map(lead).unwrap_or_default(),
        figures: figures(&snapshot, bound, now),
        groups: group_views(&snapshot.groups, MAX_GROUPS),
        further_groups: snapshot.groups.len().saturating_sub(MAX_GROUPS),
        chips: chips(&query, &snapshot),
        tags: tags(&query, &snapshot),
        headings: headings(&query, has_certificates),
        cause: snapshot.group(&query.cause).map(|group| group.what.clone()).unwrap_or_default(),
        found: found.len(),
        query,
        rows,
        all: snapshot.domains.len(),
        page,
        pages,
        has_certificates,
        has_inbox: context.config.inbox.is_some(),
        init_command: match context.tenant.name_if_further() {
            Some(tenant) => format!("sternpost domains add --tenant {tenant} example.org"),
            None => context.config.init_command("example.org"),
        },
        bound: text::bound(bound),
        as_of: snapshot.at,
        newest_report: snapshot.newest_report,
        pending: snapshot.pending,
    })
}

fn chips(query: &OverviewQuery, snapshot: &Snapshot) -> Vec<Chip> {
    let chip = |(state, label): (&'static str, &'static str)| Chip {
        label: label.to_owned(),
        count: OverviewQuery::count_in(state, &snapshot.totals),
        link: query.link(&[("state", state), ("cause", "")]),
        is_on: query.state == state && query.cause.is_empty(),
    };
    // A state that no domain is in is no choice.
    STATES.map(chip).into_iter().filter(|chip| chip.count > 0 || chip.is_on).collect()
}

/// The most frequent tags as filters, and the chosen one.
fn tags(query: &OverviewQuery, snapshot: &Snapshot) -> Vec<Chip> {
    let is_on = |tag: &Tag| tag.as_str() == query.tag;
    let shown = snapshot.tags.iter().enumerate().filter(|(at, (tag, _))| *at < MAX_TAG_CHIPS || is_on(tag));
    shown
        .map(|(_, (tag, count))| Chip {
            label: tag.to_string(),
            count: *count,
            // Another click on the chosen tag shows all domains.
            link: query.link(&[("tag", if is_on(tag) { "" } else { tag.as_str() })]),
            is_on: is_on(tag),
        })
        .collect()
}

fn headings(query: &OverviewQuery, has_certificates: bool) -> Vec<Heading> {
    let heading = |(sort, label, largest_first): (&'static str, &'static str, bool)| {
        let is_on = query.sort == sort;
        let is_descending = query.dir == "desc";
        // Another click on the same column turns the order around.
        let dir = if is_on { !is_descending } else { largest_first };
        Heading {
            label,
            link: query.link(&[("sort", sort), ("dir", if dir { "desc" } else { "" })]),
            order: match (is_on, is_descending) {
                (false, _) => "",
                (true, true) => "descending",
                (true, false) => "ascending",
            },
            is_number: largest_first,
        }
    };
    SORTS.into_iter().filter(|(sort, ..)| has_certificates || *sort != "certificate").map(heading).collect()
}

fn row(snapshot: &Snapshot, entry: &Entry, bound: f64, now: Timestamp) -> Row {
    let days = snapshot.days.get(entry.name.as_str()).map_or(&[][..], Vec::as_slice);
    let ends = entry.certificate_ends;
    Row {
        name: entry.name.clone(),
        mark: entry.need.mark(entry.mode),
        mode: match entry.mode {
            // The mark is the mode.
            Some(_) if entry.need > Urgency::Waiting => "",
            Some(Mode::Enforce) => "Enforced",
            Some(Mode::Testing) => "Testing",
            Some(Mode::None) => "Retiring",
            None => "Not set up",
        },
        since: entry.since,
        sessions: entry.sessions(),
        failed: entry.failed,
        share: text::percent(entry.failed, entry.sessions()),
        is_above: entry.failed as f64 > bound * entry.sessions() as f64,
        strip: strip(days, bound, now),
        certificate: match (ends, entry.host) {
            (Some(end), _) if end <= now => "expired".to_owned(),
            (Some(end), _) => format!("{} left", text::age(now, end)),
            (None, HostedBy::Sternpost) => "not issued yet".to_owned(),
            (None, _) => String::new(),
        },
        certificate_ends: ends,
        is_ending: entry.is_certificate_ending,
        next: entry.next.clone(),
        tags: entry.tags.clone(),
    }
}

#[cfg(test)]
mod tests;
