//! Posts received TLS reports to `inbox.webhook`. Anyone may send reports, so a report does not cause a request: at most one
//! request is made in `webhook_every` seconds, with all reports that arrived since the one before. It lists the most trusted
//! ones and counts the others. The store has the position, so a restart neither repeats nor skips reports, and reports that
//! `sternpost reports import` adds are posted too. Of several processes with one store, the one that has claimed the webhook
//! posts.

use super::webhook::{Message, Webhook, retry_delay};
use config::ReportWebhook;
use config::failure::Failure;
use formats::printable::printable;
use jiff::{SignedDuration, Timestamp};
use net::clock::{Clock, later};
use net::metrics::{self, Counters};
use operations::world::World;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use store::report_hook::ReportHook;
use store::reports::{ArrivedCounts, ArrivedReport, WhichReports};
use store::tenants::{TenantInfo, TenantName};
use store::{Store, StoreError};

/// The name of the webhook in the store.
const HOOK: &str = "reports";
/// The interval between two queries for new reports.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How long the webhook is claimed for: longer than a request may take.
const CLAIM_TIME: SignedDuration = SignedDuration::from_secs(60);
/// Age after which an undelivered notice is dropped.
const NOTICE_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Maximum number of reports that one notice covers. Further ones are in the next notice.
const MAX_COVERED: i64 = 10_000;
/// Maximum number of reports that one notice lists.
const MAX_LISTED: u32 = 100;
/// Maximum number of domains that are listed for one report.
const MAX_DOMAINS: usize = 10;
/// Characters of a text in a notice.
const TEXT_CHARACTERS: usize = 200;

/// The body of a POST. Its members are documented in docs/reports.md.
#[derive(Debug, Serialize)]
struct ReportNotice {
    /// The version of this JSON format.
    schema: u32,
    event: &'static str,
    /// The tenant that the reports belong to; left out for the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantName>,
    /// When the notice was built.
    at: Timestamp,
    /// Whether only reports with failed sessions are counted and listed.
    failures_only: bool,
    /// The sums of the reports that count as evidence.
    verified: Sums,
    /// The sums of the other reports.
    unverified: Sums,
    /// The most trusted reports first.
    reports: Vec<Listed>,
    /// The number of reports that are counted, but not listed.
    more: u64,
}

#[derive(Debug, Default, Serialize)]
struct Sums {
    reports: u64,
    successful: u64,
    failed: u64,
}

/// A listed report; the members are those of `sternpost reports list --json`.
#[derive(Debug, Serialize)]
struct Listed {
    id: i64,
    submitter: String,
    report_id: String,
    start: Timestamp,
    end: Timestamp,
    domains: Vec<String>,
    /// True if the report is about more domains than are listed.
    more_domains: bool,
    successful: u64,
    failed: u64,
    trust: store::reports::Trust,
    way: store::reports::Arrival,
    received_at: Timestamp,
}

/// Delivers notices of received reports.
#[derive(Clone)]
pub struct ReportHookRole {
    store: Store,
    clock: Arc<dyn Clock>,
    webhook: Arc<Webhook>,
    failures_only: bool,
    every: Duration,
    tenant: Option<TenantName>,
    /// The counters of POSTs, by outcome.
    pub posts: Counters,
}

impl ReportHookRole {
    /// # Errors
    ///
    /// If the webhook's secret can't be read.
    pub fn new(config: &ReportWebhook, store: &Store, world: &World) -> Result<Self, Failure> {
        let (secret, tls) = (config.secret.as_deref(), world.tls.clone());
        Ok(Self {
            store: store.clone(),
            clock: world.clock.clone(),
            webhook: Arc::new(Webhook::new(&config.url, secret, config.allow_private, tls)?),
            failures_only: config.failures_only,
            every: config.every,
            tenant: None,
            posts: Counters::new(&metrics::REPORT_WEBHOOK_POSTS),
        })
    }

    /// The role for a further tenant.
    pub fn of(&self, tenant: &TenantInfo, store: Store) -> Self {
        Self { store, tenant: tenant.name_if_further(), ..self.clone() }
    }

    /// The same role, which writes its position to this handle of the store.
    pub fn on(&self, store: Store) -> Self {
        Self { store, ..self.clone() }
    }

    /// Posts reports until the task is dropped.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.round().await {
                tracing::error!("received reports can't be posted to the webhook: {error}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Posts what is new, if it is time to.
    pub async fn round(&self) -> Result<(), StoreError> {
        let now = self.store.common_time(self.clock.now()).await?;
        // Read first, so that nothing is written while there is nothing to post.
        let known = self.store.report_hook(HOOK).await?;
        if known.due > now
            || known.target == known.position && self.store.newest_report().await? <= known.position
        {
            return Ok(());
        }
        match self.store.claim_report_hook(HOOK, now, later(now, CLAIM_TIME)).await? {
            Some(hook) => self.post(hook, now).await,
            None => Ok(()),
        }
    }

    /// Posts what is new on the claimed webhook.
    async fn post(&self, mut hook: ReportHook, now: Timestamp) -> Result<(), StoreError> {
        if hook.target == hook.position {
            let newest = self.store.newest_report().await?;
            let target = newest.min(hook.position.saturating_add(MAX_COVERED));
            if !self.store.begin_report_notice(HOOK, hook.claim, target, now).await? {
                return Ok(());
            }
            hook = ReportHook { target, begun: now, tries: 0, ..hook };
        }
        let Some(notice) = self.notice(hook, now).await? else {
            return self.store.end_report_notice(HOOK, hook.claim, now).await.map(drop);
        };
        let id = format!("reports-{}-{}-{}", hook.position, hook.target, hook.begun.as_second());
        let body = serde_json::to_string(&notice).unwrap_or_default();
        let recorded = match self.webhook.post(&id, self.clock.now(), &Message::json(body)).await {
            Ok(()) => {
                self.posts.inc(&["delivered"]);
                self.store.end_report_notice(HOOK, hook.claim, later(now, self.pause())).await?
            }
            Err(why) if now.duration_since(hook.begun) > NOTICE_LIFETIME => {
                self.posts.inc(&["dropped"]);
                tracing::error!(
                    "dropped a notice of received reports that could not be delivered within a day: {why}"
                );
                self.store.end_report_notice(HOOK, hook.claim, later(now, self.pause())).await?
            }
            Err(why) => {
                self.posts.inc(&["failed"]);
                let due = later(now, retry_delay(hook.tries).max(self.pause()));
                tracing::warn!(again = %due, "received reports can't be posted: {why}");
                self.store.postpone_report_notice(HOOK, hook.claim, due).await?
            }
        };
        if !recorded {
            tracing::warn!("another process posts the received reports, since this one took too long");
        }
        Ok(())
    }

    /// The least time between two requests.
    fn pause(&self) -> SignedDuration {
        SignedDuration::try_from(self.every).unwrap_or(SignedDuration::MAX)
    }

    /// The notice of the reports from the position to the target. `None` if none of them is to be posted.
    async fn notice(&self, hook: ReportHook, now: Timestamp) -> Result<Option<ReportNotice>, StoreError> {
        let which = WhichReports { after: hook.position, to: hook.target, failed: self.failures_only };
        let counted = self.store.count_arrived(which).await?;
        let sums = |counts: bool| {
            let found = counted.iter().find(|one| one.counts == counts);
            found.map_or_else(Sums::default, |ArrivedCounts { reports, successful, failed, .. }| Sums {
                reports: *reports,
                successful: *successful,
                failed: *failed,
            })
        };
        let (verified, unverified) = (sums(true), sums(false));
        let all = verified.reports.saturating_add(unverified.reports);
        if all == 0 {
            return Ok(None);
        }
        let domains = u32::try_from(MAX_DOMAINS + 1).unwrap_or(u32::MAX);
        let reports = self.store.arrived(which, MAX_LISTED, domains).await?;
        Ok(Some(ReportNotice {
            schema: 1,
            event: "reports",
            tenant: self.tenant.clone(),
            at: now,
            failures_only: self.failures_only,
            verified,
            unverified,
            more: all.saturating_sub(u64::try_from(reports.len()).unwrap_or(u64::MAX)),
            reports: reports.into_iter().map(Listed::from).collect(),
        }))
    }
}

impl From<ArrivedReport> for Listed {
    fn from(report: ArrivedReport) -> Self {
        let text = |text: &String| printable(text, TEXT_CHARACTERS);
        Self {
            id: report.id,
            submitter: text(&report.submitter),
            report_id: text(&report.report_id),
            start: report.start,
            end: report.end,
            more_domains: report.domains.len() > MAX_DOMAINS,
            domains: report.domains.iter().take(MAX_DOMAINS).map(text).collect(),
            successful: report.successful,
            failed: report.failed,
            trust: report.trust,
            way: report.arrival,
            received_at: report.received_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::webhook::tests::{receive, tls};
    use super::*;
    use formats::report::Report;
    use net::clock::ManualClock;
    use serde_json::Value;
    use store::reports::{Arrival, NewReport, Trust};
    use tokio::net::TcpListener;

    struct Fixture {
        _dir: tempfile::TempDir,
        listener: TcpListener,
        clock: Arc<ManualClock>,
        role: ReportHookRole,
    }

    impl Fixture {
        /// A webhook that posts at most once a minute, after its position was stored.
        async fn new(failures_only: bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_790_000_000).unwrap()));
            let role = ReportHookRole {
                store: Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap(),
                clock: clock.clone(),
                webhook: Arc::new(Webhook::new(&url, None, true, tls()).unwrap()),
                failures_only,
                every: Duration::from_secs(60),
                tenant: None,
                posts: Counters::new(&metrics::REPORT_WEBHOOK_POSTS),
            };
            let fixture = Self { _dir: dir, listener, clock, role };
            fixture.keep("old.example", 0, Trust::Verified).await;
            fixture.quiet().await;
            fixture
        }

        async fn keep(&self, submitter: &str, failed: u64, trust: Trust) {
            let count = self.role.store.report_count().await.unwrap();
            let json = format!(
                r#"{{"organization-name":"O","date-range":{{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"}},"contact-info":"a@b.example","report-id":"{count}","policies":[{{"policy":{{"policy-type":"sts","policy-string":[],"policy-domain":"a.example","mx-host":[]}},"summary":{{"total-successful-session-count":{count},"total-failure-session-count":{failed}}}}}]}}"#
            );
            let new = NewReport {
                source: String::new(),
                about: None,
                submitter: submitter.into(),
                signer: None,
                trust,
                arrival: Arrival::Smtp,
                received_at: self.clock.now(),
                report: Report::read(json.as_bytes()).unwrap().report,
                warnings: 0,
                packed: Vec::new(),
            };
            self.role.store.keep_report(&new).await.unwrap();
        }

        /// One round, in which a request is expected.
        async fn posted(&self, status: &str) -> (String, Value) {
            let (done, (head, body)) = tokio::join!(self.role.round(), receive(&self.listener, status));
            done.unwrap();
            let id = head.lines().find_map(|line| line.strip_prefix("webhook-id: ")).unwrap().to_owned();
            (id, serde_json::from_str(&body).unwrap())
        }

        /// One round, in which no request is made.
        async fn quiet(&self) {
            self.role.round().await.unwrap();
            let request = tokio::time::timeout(Duration::from_millis(20), self.listener.accept()).await;
            assert!(request.is_err(), "a request was made");
        }
    }

    #[tokio::test]
    async fn new_reports_are_posted_at_once_and_those_of_the_next_minute_together() {
        let fixture = Fixture::new(false).await;
        fixture.keep("x.example", 2, Trust::Unverified).await;
        let (_, first) = fixture.posted("204 No Content").await;
        assert_eq!(
            (&first["schema"], &first["event"], &first["more"]),
            (&1.into(), &"reports".into(), &0.into())
        );
        assert_eq!(first["verified"]["reports"], 0);
        assert_eq!(first["unverified"], serde_json::json!({ "reports": 1, "successful": 1, "failed": 2 }));
        let report = &first["reports"][0];
        for (member, value) in [
            ("submitter", "x.example"),
            ("trust", "unverified"),
            ("way", "smtp"),
            ("start", "2026-11-23T00:00:00Z"),
        ] {
            assert_eq!(report[member], value, "{report}");
        }
        assert_eq!((&report["domains"], &report["failed"]), (&serde_json::json!(["a.example"]), &2.into()));
        for _ in 0..150 {
            fixture.keep("flood.example", 0, Trust::Unverified).await;
        }
        fixture.keep("y.example", 0, Trust::Verified).await;
        fixture.quiet().await;
        fixture.clock.set_by(61);
        let (_, second) = fixture.posted("200 OK").await;
        assert_eq!(second["reports"].as_array().unwrap().len(), 100);
        assert_eq!((&second["more"], &second["verified"]["reports"]), (&51.into(), &1.into()));
        assert_eq!(second["reports"][0]["submitter"], "y.example", "the most trusted first");
        fixture.clock.set_by(61);
        fixture.quiet().await;
    }

    #[tokio::test]
    async fn a_failed_post_is_retried_with_the_same_id_and_dropped_after_a_day() {
        let fixture = Fixture::new(false).await;
        fixture.keep("x.example", 0, Trust::Verified).await;
        let (first, _) = fixture.posted("500 No").await;
        fixture.quiet().await;
        fixture.keep("y.example", 0, Trust::Verified).await;
        fixture.clock.set_by(61);
        let (again, body) = fixture.posted("500 No").await;
        assert_eq!((&again, &body["verified"]["reports"]), (&first, &1.into()));
        fixture.clock.set_by(25 * 3600);
        assert_eq!(fixture.posted("500 No").await.0, first);
        fixture.clock.set_by(61);
        let (next, body) = fixture.posted("200 OK").await;
        assert!(next != first && body["reports"][0]["submitter"] == "y.example", "{body}");
        let posts = ["delivered", "failed", "dropped"].map(|outcome| fixture.role.posts.of(&[outcome]).get());
        assert_eq!(posts, [1, 2, 1]);
    }

    #[tokio::test]
    async fn only_reports_with_failures_are_posted_if_so_configured() {
        let fixture = Fixture::new(true).await;
        fixture.keep("fine.example", 0, Trust::Verified).await;
        fixture.quiet().await;
        fixture.keep("fine.example", 0, Trust::Verified).await;
        fixture.keep("failing.example", 3, Trust::Verified).await;
        let (_, body) = fixture.posted("200 OK").await;
        assert_eq!((&body["failures_only"], &body["verified"]["failed"]), (&true.into(), &3.into()));
        assert_eq!(body["reports"].as_array().unwrap().len(), 1);
    }
}
