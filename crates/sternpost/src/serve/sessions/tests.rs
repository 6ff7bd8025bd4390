use super::*;
use axum::http::header::CONTENT_LENGTH;
use formats::report::DateRange;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use net::clock::ManualClock;
use sender::collect::Forwarder;
use serde_json::Value;
use std::sync::Mutex;
use store::Store;

const TOKEN: &str = "0123456789abcdef01234567";
const ONE: &str =
    r#"{"policy-domain":"a.example","policies":[{"policy-type":"no-policy-found","result":"success"}]}"#;
const DATAGRAM: &str = r#"{"d":"a.example","policies":[{"policy-type":9,"t":0,"f":0}]}"#;

struct Machine {
    _dir: tempfile::TempDir,
    store: Store,
    clock: Arc<ManualClock>,
    router: Router,
    requests: Counters,
}

impl Machine {
    async fn new(token: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let clock = Arc::new(ManualClock::new("2026-11-25T12:00:00Z".parse().unwrap()));
        let collector = Collector::new(store.clone(), clock.clone());
        let requests = Counters::new(&metrics::SESSION_REQUESTS);
        let router = router(collector, clock.clone(), token, requests.clone());
        Self { _dir: dir, store, clock, router, requests }
    }

    async fn post(&self, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut request = Request::post("/v1/sessions").header(CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = TowerToHyperService::new(self.router.clone()).call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn counted(&self) -> (u64, u64) {
        self.store.tally_sums(DateRange::utc_day(self.clock.now()).start).await.unwrap()
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_token_is_required_and_a_batch_counts_once() {
    let machine = Machine::new(Some(TOKEN)).await;
    let bearer = format!("Bearer {TOKEN}");
    for wrong in ["", "Bearer", "Bearer x", "Basic 0123456789abcdef01234567"] {
        assert_eq!(machine.post(&[JSON, ("authorization", wrong)], ONE).await.0, 401, "{wrong:?}");
    }
    assert_eq!(machine.post(&[JSON], ONE).await.0, 401);
    let with = [JSON, ("authorization", bearer.as_str()), ("idempotency-key", "\"x-1\"")];
    let (status, said) = machine.post(&with, ONE).await;
    assert_eq!((status, &said["sessions"], &said["repeated"]), (200, &1.into(), &false.into()));
    let (status, said) = machine.post(&with, ONE).await;
    assert_eq!((status, &said["sessions"], &said["repeated"]), (200, &0.into(), &true.into()));
    assert_eq!(machine.counted().await, (1, 0));
    let long = "x".repeat(BATCH_ID_BYTES + 1);
    let with = [JSON, ("authorization", bearer.as_str()), ("idempotency-key", long.as_str())];
    assert_eq!(machine.post(&with, ONE).await.0, 400);
    assert_eq!(machine.post(&[("authorization", bearer.as_str())], ONE).await.0, 415);
}

#[tokio::test]
async fn a_client_that_guesses_tokens_is_slowed_down() {
    let machine = Machine::new(Some(TOKEN)).await;
    let mut statuses = Vec::new();
    for _ in 0..POSTS_PER_MINUTE + 5 {
        statuses.push(machine.post(&[JSON, ("authorization", "Bearer guess")], ONE).await.0);
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses.last(), Some(&429));
    let counted = ["401", "429", "200"].map(|code| machine.requests.of(&[code]).get());
    let refused = statuses.iter().filter(|status| **status == 401).count() as u64;
    assert_eq!(counted, [refused, statuses.len() as u64 - refused, 0]);
}

#[tokio::test]
async fn a_request_is_bounded_and_late_sessions_of_a_batch_are_counted_as_such() {
    let machine = Machine::new(None).await;
    assert_eq!(machine.post(&[JSON], &" ".repeat(POSTED_BYTES + 1)).await.0, 413);
    let day = DateRange::utc_day(machine.clock.now()).start;
    machine.store.close_day(day, false).await.unwrap();
    assert_eq!(machine.post(&[JSON], ONE).await.0, 400);
    let (status, said) = machine.post(&[JSON, ("idempotency-key", "b")], ONE).await;
    assert_eq!((status, &said["sessions"], &said["late"]), (200, &0.into(), &1.into()));
}

#[tokio::test]
async fn a_time_in_the_future_is_refused_for_now_and_counts_for_today_in_a_batch() {
    let machine = Machine::new(None).await;
    let future = ONE.replace("{\"policy-domain", "{\"at\":\"2027-11-25T12:00:00Z\",\"policy-domain");
    assert_eq!(machine.post(&[JSON], &future).await.0, 503);
    let (status, said) = machine.post(&[JSON, ("idempotency-key", "b")], &future).await;
    assert_eq!((status, &said["sessions"]), (200, &1.into()));
    assert_eq!(machine.counted().await, (1, 0));
}

fn forwarder(store: &Store, to: Arc<dyn Handover>, clock: Arc<ManualClock>) -> Forwarder {
    Forwarder { store: store.clone(), to, clock, counts: Default::default() }
}

/// An older collector that does not know something, until it is updated.
struct Older {
    machine: Machine,
    unknown: Mutex<Option<&'static str>>,
    posts: Mutex<usize>,
}

impl Handover for Older {
    fn hand_over<'a>(&'a self, batch: &'a SpooledBatch) -> BoxFuture<'a, Result<u16, String>> {
        Box::pin(async move {
            *self.posts.lock().unwrap() += 1;
            assert!(batch.id.len() <= BATCH_ID_BYTES, "{}", batch.id);
            let body = String::from_utf8(batch.body.clone()).unwrap();
            if self.unknown.lock().unwrap().is_some_and(|unknown| body.contains(unknown)) {
                return Ok(400);
            }
            let id = format!("\"{}\"", batch.id);
            Ok(self.machine.post(&[JSON, ("idempotency-key", id.as_str())], &body).await.0)
        })
    }
}

/// Spools sessions with 1000 domains for a collector that refuses those with `unknown` in them.
async fn with_older(unknown: &'static str) -> (tempfile::TempDir, Arc<Older>, Forwarder) {
    let (unknown, posts) = (Mutex::new(Some(unknown)), Mutex::new(0));
    let to = Arc::new(Older { machine: Machine::new(None).await, unknown, posts });
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
    let collector = Collector::forwarding(store.clone(), to.machine.clock.clone()).unwrap();
    let all: String = (0..1000).map(|n| ONE.replace("a.example", &format!("d{n}.example"))).collect();
    collector.post(formats::posted::parse(all.as_bytes()).unwrap()).await.unwrap();
    let forwarder = forwarder(&store, to.clone(), to.machine.clock.clone());
    (dir, to, forwarder)
}

#[tokio::test]
async fn a_refused_session_costs_only_itself_and_is_counted_when_the_other_machine_is_updated() {
    let (_dir, to, forwarder) = with_older("\"d77.example\"").await;
    forwarder.forward_all().await.unwrap();
    assert_eq!(to.machine.counted().await, (999, 0));
    assert_eq!(forwarder.store.spooled_sessions().await.unwrap(), 1);
    let before = *to.posts.lock().unwrap();
    forwarder.forward_all().await.unwrap();
    assert_eq!(*to.posts.lock().unwrap(), before, "not retried at once");
    *to.unknown.lock().unwrap() = None;
    to.machine.clock.advance(600);
    forwarder.forward_all().await.unwrap();
    assert_eq!(to.machine.counted().await, (1000, 0));
    assert_eq!(forwarder.store.spooled_sessions().await.unwrap(), 0);
    assert_eq!(forwarder.counts.lost.get(), 0);
}

#[tokio::test]
async fn sessions_that_are_all_refused_are_kept_for_a_day_with_few_requests() {
    let (_dir, to, forwarder) = with_older("policy-domain").await;
    forwarder.forward_all().await.unwrap();
    assert!(*to.posts.lock().unwrap() < 100, "{}", to.posts.lock().unwrap());
    assert_eq!(forwarder.store.spooled_sessions().await.unwrap(), 1000);
    to.machine.clock.advance(11 * 3600);
    *to.unknown.lock().unwrap() = None;
    forwarder.forward_all().await.unwrap();
    assert_eq!(to.machine.counted().await, (1000, 0));
    let (_dir, to, forwarder) = with_older("\"d77.example\"").await;
    for _ in 0..2 {
        forwarder.forward_all().await.unwrap();
        to.machine.clock.advance(24 * 3600);
    }
    forwarder.forward_all().await.unwrap();
    assert_eq!((forwarder.counts.lost.get(), forwarder.store.spooled_sessions().await.unwrap()), (1, 0));
}

/// The way to another machine whose replies are lost, one by one, after it has taken the batch.
struct Unreliable {
    machine: Machine,
    faults: Mutex<Vec<Fault>>,
}

#[derive(Clone, Copy)]
enum Fault {
    /// The request does not arrive.
    NotSent,
    /// The request arrives, and its reply is lost.
    NoReply,
}

impl Handover for Unreliable {
    fn hand_over<'a>(&'a self, batch: &'a SpooledBatch) -> BoxFuture<'a, Result<u16, String>> {
        Box::pin(async move {
            let fault = self.faults.lock().unwrap().pop();
            if let Some(Fault::NotSent) = fault {
                return Err("connection refused".to_owned());
            }
            let (bearer, id) = (format!("Bearer {TOKEN}"), format!("\"{}\"", batch.id));
            let headers = [JSON, ("authorization", bearer.as_str()), ("idempotency-key", id.as_str())];
            let body = String::from_utf8(batch.body.clone()).unwrap();
            let (status, _) = self.machine.post(&headers, &body).await;
            match fault {
                Some(Fault::NoReply) => Err("no answer in time".to_owned()),
                _ => Ok(status),
            }
        })
    }
}

#[tokio::test]
async fn the_sessions_of_a_second_machine_are_counted_once_whatever_is_lost_on_the_way() {
    let faults = vec![Fault::NoReply, Fault::NotSent, Fault::NoReply, Fault::NotSent];
    let to = Arc::new(Unreliable { machine: Machine::new(Some(TOKEN)).await, faults: Mutex::new(faults) });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let mut attempts = 0;
    // Each round is a new process on the second machine, with the spool of the one before.
    for round in 0..6 {
        let store = Store::open(&path, store::Tenant::FIRST).await.unwrap();
        let collector = Collector::forwarding(store.clone(), to.machine.clock.clone()).unwrap();
        for _ in 0..10 {
            collector.add_datagram(DATAGRAM.as_bytes());
        }
        collector.store().await.unwrap();
        collector.post(formats::posted::parse(ONE.as_bytes()).unwrap()).await.unwrap();
        let forwarder = forwarder(&store, to.clone(), to.machine.clock.clone());
        attempts += u32::from(forwarder.forward_all().await.is_err());
        assert_eq!(
            store.tally_sums(DateRange::utc_day(to.machine.clock.now()).start).await.unwrap(),
            (0, 0),
            "{round}"
        );
        store.close().await;
    }
    assert_eq!(attempts, 4);
    assert_eq!(to.machine.counted().await, (6 * 11, 0));
    assert_eq!(Store::open(&path, store::Tenant::FIRST).await.unwrap().spooled_sessions().await.unwrap(), 0);
}
