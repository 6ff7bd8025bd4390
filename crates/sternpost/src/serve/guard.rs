//! The role `[guard]`: looks at each domain of the configuration again and again, says what needs somebody,
//! once when it begins and once when it is over, and widens a policy where that is allowed.

use crate::config::GuardConfig;
use crate::rollout::Desk;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::SignedDuration;
use receiver::domain::DomainSpec;
use receiver::rollout::guard::{Alert, Guard, Host, Kind};
use receiver::rollout::reported::{Told, reported};
use receiver::rollout::{Applier, Standing as Rollout};
use std::collections::BTreeMap;
use std::time::Duration;
use store::StoreError;
use store::alerts::Standing;

/// How far back reports are looked at.
const LOOKED_BACK: SignedDuration = SignedDuration::from_hours(24 * 30);
/// For a webhook's answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The watch.
pub struct Watch {
    desk: Desk,
    config: GuardConfig,
    /// What is known to be wrong, by domain, kind and subject.
    raised: BTreeMap<(String, String, String), Alert>,
}

impl Watch {
    pub fn new(desk: Desk, config: GuardConfig) -> Self {
        Self { desk, config, raised: BTreeMap::new() }
    }

    /// Watches until it is dropped. The looks at all domains are spread over the time between two.
    pub async fn run(mut self) {
        match self.desk.store.alerts::<Alert>().await {
            Ok(there) => {
                let place = |one: Standing<Alert>| {
                    ((one.domain, one.alert.kind.to_string(), one.alert.subject.clone()), one.alert)
                };
                self.raised = there.into_iter().map(place).collect();
            }
            Err(error) => tracing::error!("what stood before the start is not known: {error}"),
        }
        tracing::info!(domains = self.desk.known.len(), "the guard watches");
        loop {
            let specs = self.desk.known.clone();
            let pause = self.config.every / u32::try_from(specs.len().max(1)).unwrap_or(u32::MAX);
            for spec in &specs {
                self.one(spec).await;
                tokio::time::sleep(pause).await;
            }
            if specs.is_empty() {
                tokio::time::sleep(pause).await;
            }
            if let Err(failure) = self.desk.learn().await {
                tracing::error!("new domains are not watched: {failure}");
            }
        }
    }

    async fn one(&mut self, spec: &DomainSpec) {
        let domain = &spec.name;
        let applier = match self.desk.applier(spec) {
            Ok(applier) => applier,
            Err(failure) => return tracing::error!(%domain, "can't be watched: {failure}"),
        };
        let standing = match self.desk.standing(domain).await {
            Ok(standing) => standing,
            Err(failure) => return tracing::error!(%domain, "can't be watched: {failure}"),
        };
        let guard = Guard {
            dns: applier.dns.clone(),
            policies: applier.policies.clone(),
            mail: self.desk.world.mail.clone(),
            clock: self.desk.world.clock.clone(),
        };
        match guard.look(&self.desk.wanted(spec), &standing).await {
            // Ignorance raises nothing and ends nothing.
            Err(error) => tracing::warn!(%domain, "can't be looked at: {error}"),
            Ok((mut alerts, hosts)) => {
                self.remember(spec, &hosts).await;
                match self.reported(spec, &standing).await {
                    Ok(reported) => alerts.extend(reported),
                    Err(error) => return tracing::error!(%domain, "its reports can't be looked at: {error}"),
                }
                let uncovered = alerts.iter().any(|alert| alert.kind == Kind::MxUncovered);
                self.tell(spec, alerts).await;
                let promoted = self.desk.promote_by_evidence(spec).await;
                let promoted = promoted.unwrap_or_else(|failure| {
                    tracing::error!(%domain, "can't be promoted: {failure}");
                    false
                });
                if promoted || (uncovered && spec.repair) {
                    self.carry_on(spec, &applier).await;
                }
            }
        }
    }

    /// What reports tell.
    async fn reported(&self, spec: &DomainSpec, standing: &Rollout) -> Result<Vec<Alert>, StoreError> {
        let (desk, name) = (&self.desk, &spec.name);
        let now = desk.world.clock.now();
        let since = now.saturating_sub(LOOKED_BACK).unwrap_or(now);
        let days = desk.store.days_of(name, since).await?;
        let causes = desk.store.causes_of(name, since).await?;
        let told = Told { days: &days, causes: &causes };
        Ok(reported(name, standing, &desk.decisions(name), told, self.config.failure_rate, now))
    }

    /// Our own looks are evidence too.
    async fn remember(&self, spec: &DomainSpec, hosts: &[Host]) {
        let now = self.desk.world.clock.now();
        for host in hosts {
            let problem = host.proof.as_ref().err().map(String::as_str);
            if let Err(error) = self.desk.store.put_probe(&spec.name, &host.name, now, problem).await {
                tracing::warn!(domain = %spec.name, "a look at {} can't be kept: {error}", host.name);
            }
        }
    }

    async fn tell(&mut self, spec: &DomainSpec, alerts: Vec<Alert>) {
        let domain = spec.name.to_string();
        let key = |alert: &Alert| (domain.clone(), alert.kind.to_string(), alert.subject.clone());
        let now: BTreeMap<_, _> = alerts.into_iter().map(|alert| (key(&alert), alert)).collect();
        for (place, alert) in &now {
            if !self.raised.contains_key(place) {
                tracing::error!(
                    domain, kind = %alert.kind,
                    "{}. {} {}", alert.what, alert.consequence, alert.remedy
                );
                self.post("raised", &domain, alert).await;
            }
            let since = self.desk.world.clock.now();
            let kept = self.desk.store.raise(&spec.name, &place.1, &place.2, since, alert).await;
            kept.unwrap_or_else(|error| tracing::error!(domain, "an alert can't be kept: {error}"));
        }
        let over: Vec<_> = self
            .raised
            .keys()
            .filter(|place| place.0 == domain && !now.contains_key(*place))
            .cloned()
            .collect();
        for place in over {
            if let Some(alert) = self.raised.remove(&place) {
                tracing::info!(domain, kind = %alert.kind, subject = alert.subject, "is over");
                self.post("over", &domain, &alert).await;
                let ended = self.desk.store.end_alert(&spec.name, &place.1, &place.2).await;
                ended.unwrap_or_else(|error| {
                    tracing::error!(domain, "the end of an alert can't be kept: {error}")
                });
            }
        }
        self.raised.extend(now);
    }

    async fn post(&self, event: &str, domain: &str, alert: &Alert) {
        let Some(url) = &self.config.webhook else { return };
        let at = self.desk.world.clock.now();
        let body =
            serde_json::json!({ "schema": 1, "event": event, "domain": domain, "at": at, "alert": alert });
        let sent = tokio::time::timeout(PATIENCE, send(url, body.to_string())).await;
        match sent {
            Ok(Ok(status)) if status.is_success() => {}
            Ok(Ok(status)) => tracing::warn!(domain, "the webhook answers {status}"),
            Ok(Err(why)) => tracing::warn!(domain, "the webhook can't be reached: {why}"),
            Err(_) => tracing::warn!(domain, "the webhook does not answer in time"),
        }
    }

    /// Carries the plan out, as far as that goes without hands: widening is always safe, and the sooner the
    /// better; enforcement was allowed.
    async fn carry_on(&self, spec: &DomainSpec, applier: &Applier) {
        let domain = &spec.name;
        match self.desk.hold(domain).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => return tracing::error!(%domain, "its plan can't be carried out: {failure}"),
        }
        let outcome = match self.desk.standing(domain).await {
            Ok(standing) => applier.go_on(&self.desk.wanted(spec), Desk::permit(&standing)).await,
            Err(failure) => return tracing::error!(%domain, "its plan can't be carried out: {failure}"),
        };
        match outcome {
            Ok((steps, _)) => {
                steps.iter().for_each(|done| tracing::info!(%domain, "carried out: {}", done.step))
            }
            Err(error) => tracing::error!(%domain, "its plan stopped: {error}"),
        }
        if let Err(failure) = self.desk.release(domain).await {
            tracing::error!(%domain, "{failure}");
        }
    }
}

async fn send(url: &str, body: String) -> Result<hyper::StatusCode, String> {
    let fail = |error: &dyn std::fmt::Display| error.to_string();
    let connector =
        HttpsConnectorBuilder::new().try_with_platform_verifier().map_err(|error| fail(&error))?;
    let connector = connector.https_or_http().enable_http1().build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| fail(&error))?;
    Ok(client.request(request).await.map_err(|error| fail(&error))?.status())
}
