//! Writes the log to standard error, as text or as JSON. `SPOST_LOG` holds the filter, as a level (`debug`) or as a
//! list of `target=level` pairs (`info,sternpost_sender=debug`); without the variable, a command logs errors only and
//! the server logs what `[log] level` asks for.

use crate::traces::TraceLayer;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line of text.
    Text,
    /// A line of text that begins with the module's name, for one command.
    TextWithTarget,
    /// A JSON object.
    Json,
}

/// Starts the log. `default` is the filter that applies unless `SPOST_LOG` holds a valid one.
pub fn start(default: &str, form: Form) {
    let filter = filter(std::env::var("SPOST_LOG").ok().as_deref(), default);
    if let Some(traces) = crate::traces::layer() {
        return with_traces(filter, form, traces);
    }
    let registry = tracing_subscriber::registry().with(filter);
    let lines = layer().with_writer(std::io::stderr);
    // A test may have started a log of its own, which then stays.
    let _ = match form {
        Form::Json => registry.with(lines.json()).try_init(),
        Form::Text => registry.with(lines.with_target(false)).try_init(),
        Form::TextWithTarget => registry.with(lines).try_init(),
    };
}

/// The log beside traces: each has a filter of its own, so that no span gets into the log.
fn with_traces(filter: Targets, form: Form, traces: TraceLayer) {
    let traced = Targets::new().with_target(net::TRACES, Level::INFO);
    let registry = tracing_subscriber::registry().with(traces.with_filter(traced));
    let filter = filter.with_target(net::TRACES, LevelFilter::OFF);
    let lines = layer().with_writer(std::io::stderr);
    let _ = match form {
        Form::Json => registry.with(lines.json().with_filter(filter)).try_init(),
        Form::Text => registry.with(lines.with_target(false).with_filter(filter)).try_init(),
        Form::TextWithTarget => registry.with(lines.with_filter(filter)).try_init(),
    };
}

fn filter(variable: Option<&str>, default: &str) -> Targets {
    let parsed = variable.and_then(|text| text.parse::<Targets>().ok());
    parsed.or_else(|| default.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_the_configuration_holds_for_every_crate_of_sternpost() {
        let filter = filter(None, "error,sternpost=info");
        for target in ["sternpost::serve", "sternpost_web::auth", "sternpost_net", "sternpost_operations"] {
            assert!(filter.would_enable(target, &Level::INFO), "{target}");
        }
        assert!(!filter.would_enable("hyper", &Level::INFO));
        assert!(filter.would_enable("hyper", &Level::ERROR));
    }

    #[test]
    fn the_variable_overrides_the_default_unless_it_is_invalid() {
        assert!(filter(Some("debug"), "error").would_enable("hyper", &Level::DEBUG));
        assert!(
            filter(Some("info,sternpost_sender=debug"), "error")
                .would_enable("sternpost_sender", &Level::DEBUG)
        );
        assert!(!filter(Some("sternpost=loud"), "error").would_enable("sternpost", &Level::INFO));
    }
}
