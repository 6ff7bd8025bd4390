//! Traces for OpenTelemetry: how long each lookup, check, order and delivery took. The spans have the target [`net::TRACES`], so
//! that they cost next to nothing and are not in the log unless a collector is named in the environment, by the variables that
//! OpenTelemetry defines
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>). Finished spans are sent as OTLP over HTTP in JSON
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>). A queue of fixed size is between: spans that do not fit are dropped, and
//! nothing waits for a collector.

mod otlp;

use crate::serve::webhook::{Message, Webhook};
use config::failure::Failure;
use net::clock::{Clock, SystemClock};
use net::random::random_hex;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Finished spans that wait for the collector.
const QUEUE_SPANS: usize = 4096;
/// Finished spans in one request.
const BATCH_SPANS: usize = 512;
/// How long finished spans are collected before they are sent.
const INTERVAL: Duration = Duration::from_secs(2);
/// Attributes of a span, and characters of each.
const ATTRIBUTES: usize = 8;
const ATTRIBUTE_CHARACTERS: usize = 256;

/// A finished span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinishedSpan {
    name: &'static str,
    /// In 32 hexadecimal digits: the same for a span and those within it.
    trace: String,
    /// In 16 hexadecimal digits.
    id: String,
    parent: Option<String>,
    begun: SystemTime,
    ended: SystemTime,
    attributes: Vec<(&'static str, String)>,
}

/// Where spans go, by the environment: the collector's address for traces, and the name of this service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    url: String,
    service: String,
}

impl Destination {
    /// `None` if no collector is named.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let base = |url: String| format!("{}/v1/traces", url.trim_end_matches('/'));
        let url = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT").map(base))?;
        let is_off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let service = set("OTEL_SERVICE_NAME").unwrap_or_else(|| "sternpost".to_owned());
        (!is_off).then_some(Self { url, service })
    }
}

/// The spans that the log hands to [`export`].
static FINISHED: Mutex<Option<Exports>> = Mutex::new(None);

/// Where finished spans go, those that wait, and the number of those that were dropped.
type Exports = (Destination, Receiver<FinishedSpan>, Arc<AtomicU64>);

/// The layer for the log, if a collector is named.
pub fn layer() -> Option<TraceLayer> {
    let destination = Destination::of(|name| std::env::var(name).ok())?;
    let (queue, finished) = channel(QUEUE_SPANS);
    let dropped = Arc::new(AtomicU64::new(0));
    *FINISHED.lock().unwrap_or_else(PoisonError::into_inner) = Some((destination, finished, dropped.clone()));
    Some(TraceLayer { queue, dropped })
}

/// Sends finished spans until the program ends, if a collector is named.
///
/// # Errors
/// If its address is not one.
pub fn export(tls: Arc<rustls::ClientConfig>) -> Result<(), Failure> {
    let taken = FINISHED.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((destination, finished, dropped)) = taken else { return Ok(()) };
    let collector = Webhook::new(&destination.url, None, true, tls)?;
    tracing::info!(collector = destination.url, "traces are sent to the collector");
    tokio::spawn(send_all(collector, destination, finished, dropped));
    Ok(())
}

async fn send_all(
    collector: Webhook,
    destination: Destination,
    mut finished: Receiver<FinishedSpan>,
    dropped: Arc<AtomicU64>,
) {
    let (mut batch, mut has_failed) = (Vec::new(), false);
    while finished.recv_many(&mut batch, BATCH_SPANS).await > 0 {
        tokio::time::sleep(INTERVAL).await;
        while batch.len() < BATCH_SPANS {
            let Ok(span) = finished.try_recv() else { break };
            batch.push(span);
        }
        let body = otlp::body(&destination.service, &batch);
        let id = random_hex().unwrap_or_default();
        let sent = collector.post(&id, SystemClock.now(), &Message::json(body)).await;
        // A collector that is away is told once.
        if let Err(why) = &sent
            && !has_failed
        {
            let lost = dropped.load(Ordering::Relaxed);
            tracing::warn!(collector = destination.url, lost, "traces can't be sent, and are dropped: {why}");
        }
        has_failed = sent.is_err();
        batch.clear();
    }
}

/// Collects the spans of [`net::TRACES`].
pub struct TraceLayer {
    queue: Sender<FinishedSpan>,
    /// Spans that did not fit into the queue.
    dropped: Arc<AtomicU64>,
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for TraceLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let Some((trace, own)) = random_hex().ok().zip(random_hex().ok()) else { return };
        let own = own.get(..16).unwrap_or_default().to_owned();
        let outer = span.parent().and_then(|outer| {
            outer.extensions().get::<FinishedSpan>().map(|outer| (outer.trace.clone(), outer.id.clone()))
        });
        let (trace, parent) = match outer {
            Some((trace, parent)) => (trace, Some(parent)),
            None => (trace, None),
        };
        let now = SystemTime::now();
        let (name, listed) = (span.name(), Vec::new());
        let mut open =
            FinishedSpan { name, trace, id: own, parent, begun: now, ended: now, attributes: listed };
        attributes.record(&mut open);
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<FinishedSpan>() {
            values.record(open);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(mut done) =
            context.span(&id).and_then(|span| span.extensions_mut().remove::<FinishedSpan>())
        else {
            return;
        };
        done.ended = SystemTime::now();
        if self.queue.try_send(done).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Visit for FinishedSpan {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.attributes.len() < ATTRIBUTES {
            let text = format!("{value:?}").chars().take(ATTRIBUTE_CHARACTERS).collect();
            self.attributes.push((field.name(), text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn the_collector_is_named_by_the_variables_of_opentelemetry() {
        let of = |variables: &[(&str, &str)]| {
            Destination::of(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let url = |variables: &[(&str, &str)]| of(variables).map(|found| found.url);
        assert_eq!(of(&[]), None);
        assert_eq!(url(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/");
        assert_eq!(url(&[base]).unwrap(), "http://127.0.0.1:4318/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c.example/t");
        assert_eq!(url(&[base, own]).unwrap(), "https://c.example/t");
        assert_eq!(url(&[base, ("OTEL_SDK_DISABLED", "TRUE")]), None);
        assert_eq!(of(&[base, ("OTEL_SERVICE_NAME", "mx1")]).unwrap().service, "mx1");
    }

    #[test]
    fn spans_have_their_parents_attributes_and_times_and_those_that_do_not_fit_are_counted() {
        let (queue, mut finished) = channel(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let layer = TraceLayer { queue, dropped: dropped.clone() };
        let traced = Targets::new().with_target(net::TRACES, tracing::Level::INFO);
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(traced));
        tracing::subscriber::with_default(subscriber, || {
            let lookup = tracing::info_span!(target: net::TRACES, "lookup", domain = "a.example", source = tracing::field::Empty);
            lookup.record("source", "sts");
            let _entered = lookup.enter();
            drop(tracing::info_span!(target: net::TRACES, "policy"));
            drop(tracing::info_span!("not of ours"));
        });
        let (inner, outer) = (finished.try_recv().unwrap(), finished.try_recv().unwrap());
        assert_eq!((inner.name, outer.name), ("policy", "lookup"));
        assert_eq!((&inner.trace, inner.parent.as_ref()), (&outer.trace, Some(&outer.id)));
        assert_eq!((outer.trace.len(), outer.id.len(), outer.parent), (32, 16, None));
        let expected = [("domain", "a.example".to_owned()), ("source", "sts".to_owned())];
        assert_eq!(outer.attributes, expected);
        assert!(outer.begun <= inner.begun && inner.ended <= outer.ended);
        assert!(finished.try_recv().is_err() && dropped.load(Ordering::Relaxed) == 0);
    }

    /// A collector of the test: takes one request, and returns its head and its body.
    fn collector() -> (std::net::SocketAddr, std::thread::JoinHandle<(String, serde_json::Value)>) {
        use std::io::{BufRead, BufReader, Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let (mut reader, mut head) = (BufReader::new(&stream), String::new());
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).unwrap() > 0);
            }
            let length = head.to_ascii_lowercase().split("content-length: ").nth(1).unwrap().to_owned();
            let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            (head, serde_json::from_slice(&body).unwrap())
        });
        (address, served)
    }

    #[tokio::test]
    async fn a_collector_gets_the_spans_in_json() {
        let (address, served) = collector();
        let (queue, finished) = channel(9);
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let span = FinishedSpan {
            name: "lookup",
            trace: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            id: "b7ad6b7169203331".to_owned(),
            parent: None,
            begun: at(1),
            ended: at(2),
            attributes: vec![("domain", "a.example".to_owned())],
        };
        queue.send(span).await.unwrap();
        drop(queue);
        let tls = net::certificate::Trust::system().unwrap().client(Arc::new(SystemClock)).unwrap();
        let url = format!("http://{address}/v1/traces");
        let hook = Webhook::new(&url, None, true, Arc::new(tls)).unwrap();
        let destination = Destination { url, service: "mx1".to_owned() };
        tokio::time::timeout(Duration::from_secs(60), send_all(hook, destination, finished, Arc::default()))
            .await
            .unwrap();
        let (head, body) = served.join().unwrap();
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: application/json\r\n"), "{head}");
        let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
        assert_eq!(spans[0]["traceId"], "0af7651916cd43dd8448eb211c80319c");
    }
}
