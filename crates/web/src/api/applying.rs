//! Carrying out plans. A plan may wait for DNS for longer than a connection should be held, so a request begins an operation, which
//! goes on without it, and a client asks for the operation again until it has ended. A domain has one operation at a time. Operations
//! are remembered by the process that carries them out; after a restart, the status of the domain says how far it is.

use super::places::Place;
use super::problem::{Problem, ProblemType};
use super::{Api, Background, Caller, domain, json_answer};
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use axum::response::Response;
use formats::DomainName;
use formats::limits::API_OPERATIONS;
use net::random::random_hex;
use operations::RolloutContext;
use operations::apply::{Lines, Outcome, Pace, Request, Work};
use receiver::domain::DomainSpec;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::Tenant;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long an operation is remembered after its end.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How long a request waits for the end of an operation, unless it says otherwise, in seconds.
const WAIT_SECONDS: u32 = 10;
/// The longest that a request may ask to wait, in seconds.
const MAX_WAIT_SECONDS: u32 = 60;
/// How long an operation waits for each step to become visible, before it ends and says which one it was.
const PATIENCE: Duration = Duration::from_secs(60);

/// How an operation ended.
type End = Result<Outcome, Problem>;

/// The work on a domain, which runs or has ended.
struct Operation {
    id: String,
    tenant: Tenant,
    domain: DomainName,
    end: watch::Sender<Option<(Instant, Arc<End>)>>,
}

impl Operation {
    fn ended_at(&self) -> Option<Instant> {
        self.end.borrow().as_ref().map(|(at, _)| *at)
    }

    /// Waits for the end, for this long at most.
    async fn ended_within(&self, limit: Duration) -> Option<Arc<End>> {
        let mut end = self.end.subscribe();
        let seen = timeout(limit, end.wait_for(Option::is_some)).await.ok()?.ok()?;
        seen.as_ref().map(|(_, end)| end.clone())
    }

    fn finish(&self, end: End) {
        self.end.send_if_modified(|current| {
            let is_first = current.is_none();
            if is_first {
                *current = Some((Instant::now(), Arc::new(end)));
            }
            is_first
        });
    }

    fn path(&self) -> String {
        format!("/v1/operations/{}", self.id)
    }
}

/// Ends an operation when it is dropped before its end, as by a panic.
struct Running(Arc<Operation>);

impl Drop for Running {
    fn drop(&mut self) {
        let what = format!("the plan of {} was not carried out", self.0.domain);
        let remedy = "The log of the server has the reason. Apply it again: it resumes where it stopped.";
        self.0.finish(Err(Problem::new(ProblemType::Unavailable, what, "the operation ended early", remedy)));
    }
}

/// The operations of this process, by their IDs.
pub struct Operations {
    all: Mutex<BTreeMap<String, Arc<Operation>>>,
    background: Background,
}

impl Operations {
    pub fn new(background: Background) -> Self {
        Self { all: Mutex::default(), background }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Operation>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, tenant: Tenant, id: &str) -> Option<Arc<Operation>> {
        self.locked().get(id).filter(|operation| operation.tenant == tenant).cloned()
    }

    /// The operation of the domain that runs; `None` if there is none.
    fn running(&self, tenant: Tenant, domain: &DomainName) -> Option<Arc<Operation>> {
        let all = self.locked();
        let is_it =
            |one: &&Arc<Operation>| one.tenant == tenant && one.domain == *domain && one.ended_at().is_none();
        all.values().find(is_it).cloned()
    }

    /// Adds an operation for a domain; returns the one that runs already, if another request was faster.
    fn add(&self, tenant: Tenant, domain: &DomainName) -> Result<(Arc<Operation>, Option<Running>), Problem> {
        let id = random_hex()
            .map_err(|error| Problem::new(ProblemType::Unavailable, "there is no operation", error, ""))?;
        let mut all = self.locked();
        let is_it =
            |one: &&Arc<Operation>| one.tenant == tenant && one.domain == *domain && one.ended_at().is_none();
        if let Some(running) = all.values().find(is_it) {
            return Ok((running.clone(), None));
        }
        all.retain(|_, one| one.ended_at().is_none_or(|at| at.elapsed() < REMEMBERED));
        while all.values().filter(|one| one.ended_at().is_some()).count() >= API_OPERATIONS {
            let ended = all.values().filter_map(|one| Some((one.ended_at()?, one.id.clone())));
            let Some((_, earliest)) = ended.min() else { break };
            all.remove(&earliest);
        }
        let (domain, end) = (domain.clone(), watch::Sender::new(None));
        let operation = Arc::new(Operation { id: id.clone(), tenant, domain, end });
        all.insert(id, operation.clone());
        Ok((operation.clone(), Some(Running(operation))))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    wait: Option<u32>,
}

impl WaitQuery {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.wait.unwrap_or(WAIT_SECONDS).min(MAX_WAIT_SECONDS).into())
    }
}

/// Begins to carry out the plan of a domain, or joins the operation that does, and waits for its end for a short time.
pub async fn apply(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Response, Problem> {
    let (context, spec) = api.find(&caller, &domain(&name)?).await?;
    let operation = match api.operations.running(caller.tenant, &spec.name) {
        Some(running) => running,
        None => begin(&api, &caller, context, spec).await?,
    };
    shown(&operation, query.limit()).await
}

async fn begin(
    api: &Arc<Api>,
    caller: &Caller,
    context: RolloutContext,
    spec: DomainSpec,
) -> Result<Arc<Operation>, Problem> {
    if let Some(lease) = context.other_lease(&spec.name).await? {
        let remedy = "Wait until GET …/status says \"applying\": false. `sternpost serve` with [guard] applies plans too.";
        let why =
            format!("its plan is being applied by another process, until {:.0} at the latest", lease.until);
        return Err(Problem::new(ProblemType::PlanInUse, spec.name.to_string(), why, remedy));
    }
    let place = api.work.take(caller.tenant, "plans")?;
    let (operation, running) = api.operations.add(caller.tenant, &spec.name)?;
    if let Some(running) = running {
        let (stop, who) = (api.operations.background.stop.clone(), caller.who.clone());
        api.operations.background.tasks.spawn(async move {
            let _place: Place = place;
            tracing::info!(domain = %spec.name, who, operation = running.0.id, "plan is carried out");
            let request = Request {
                patience: PATIENCE,
                wait: false,
                new_id: false,
                new_certificate: false,
                take_over: false,
                is_for_all: false,
            };
            let pace = Pace::Round { is_first: true };
            let end = match Work::begin(&context, &spec, &request, &Lines::SILENT, stop, pace).await {
                Ok(work) => work.run().await,
                Err(failure) => Err(failure),
            };
            running.0.finish(end.map_err(Problem::from));
        });
    }
    Ok(operation)
}

/// An operation, and how it ended.
pub async fn operation(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Response, Problem> {
    let operation = api.operations.find(caller.tenant, &id).ok_or_else(|| {
        let why = "this server carries out none of this ID, or it ended more than an hour ago";
        let remedy = "See how far the domain is: GET /v1/domains/NAME/status";
        Problem::new(ProblemType::UnknownOperation, "unknown operation", why, remedy)
    })?;
    shown(&operation, query.limit()).await
}

async fn shown(operation: &Operation, limit: Duration) -> Result<Response, Problem> {
    let end = operation.ended_within(limit).await;
    let ended: Vec<(&str, Value)> = match end.as_deref() {
        None => vec![("state", "running".into())],
        Some(Ok(outcome)) => {
            vec![("state", "done".into()), ("changed", outcome.changed.into()), ("outcome", json!(outcome))]
        }
        Some(Err(problem)) => vec![("state", "failed".into()), ("problem", problem.parts())],
    };
    let mut body = json!({ "schema": 1, "operation": operation.id, "domain": operation.domain });
    if let Some(members) = body.as_object_mut() {
        members.extend(ended.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    let status = if end.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = json_answer(status, &body);
    let headers = response.headers_mut();
    if let Ok(path) = HeaderValue::from_str(&operation.path()) {
        headers.insert(LOCATION, path);
    }
    if end.is_none() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}
