//! What the log says while the database is away, however many mail servers ask.

use super::*;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};

/// Collects the errors of the log.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn while_the_store_is_away_the_log_says_so_once_and_not_for_each_domain() {
    let bench = Bench::new().await;
    bench.store.close().await;
    let errors = Errors::default();
    let _guard = tracing::subscriber::set_default(errors.clone());
    for number in 0..50 {
        let name = format!("d{number}.example");
        bench.world.publish(&name, Published::policy("1", "enforce", 604_800));
        assert_eq!(bench.ask(&name).await, secure("1"));
    }
    let errors = errors.0.lock().unwrap();
    let of = |part: &str| errors.iter().filter(|line| line.contains(part)).count();
    assert_eq!((of("can't be read"), of("could not be stored")), (1, 1), "{errors:?}");
}
