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
}

impl Machine {
    async fn new(token: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db")).await.unwrap();
        let clock = Arc::new(ManualClock::new("2026-11-25T12:00:00Z".parse().unwrap()));
        let collector = Collector::new(store.clone(), clock.clone());
        let router = router(collector, clock.clone(), token);
        Self { _dir: dir, store, clock, router }
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
        let store = Store::open(&path).await.unwrap();
        let collector = Collector::forwarding(store.clone(), to.machine.clock.clone()).unwrap();
        for _ in 0..10 {
            collector.add_datagram(DATAGRAM.as_bytes());
        }
        collector.store().await.unwrap();
        collector.post(formats::posted::parse(ONE.as_bytes()).unwrap()).await.unwrap();
        let forwarder = Forwarder { store: store.clone(), to: to.clone(), counts: Default::default() };
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
    assert_eq!(Store::open(&path).await.unwrap().spooled_sessions().await.unwrap(), 0);
}
