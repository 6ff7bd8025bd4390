//! Spans as a request of OTLP over HTTP in JSON: `ExportTraceServiceRequest` of
//! <https://github.com/open-telemetry/opentelemetry-proto>, with IDs in hexadecimal digits and 64-bit numbers as texts.

use super::FinishedSpan;
use serde_json::{Value, json};
use std::time::SystemTime;

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u8 = 1;

/// The body of a request with these spans.
pub(super) fn body(service: &str, spans: &[FinishedSpan]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "resourceSpans": [{
            "resource": { "attributes": [attribute("service.name", service), attribute("service.version", version)] },
            "scopeSpans": [{
                "scope": { "name": "sternpost", "version": version },
                "spans": spans.iter().map(span).collect::<Vec<_>>(),
            }],
        }],
    })
    .to_string()
}

fn span(span: &FinishedSpan) -> Value {
    json!({
        "traceId": span.trace,
        "spanId": span.id,
        "parentSpanId": span.parent.as_deref().unwrap_or_default(),
        "name": span.name,
        "kind": INTERNAL,
        "startTimeUnixNano": nanoseconds(span.begun),
        "endTimeUnixNano": nanoseconds(span.ended.max(span.begun)),
        "attributes": span.attributes.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
    })
}

fn attribute(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": value } })
}

fn nanoseconds(time: SystemTime) -> String {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_request_is_as_the_protocol_has_it() {
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_millis(second);
        let one = FinishedSpan {
            name: "lookup",
            trace: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            id: "b7ad6b7169203331".to_owned(),
            parent: Some("00f067aa0ba902b7".to_owned()),
            begun: at(1500),
            // The clock was set back meanwhile.
            ended: at(1400),
            attributes: vec![("domain", "a \"b\"".to_owned())],
        };
        let body: Value = serde_json::from_str(&body("mx1", &[one])).unwrap();
        let resource = &body["resourceSpans"][0];
        assert_eq!(resource["resource"]["attributes"][0], attribute("service.name", "mx1"));
        assert_eq!(
            resource["scopeSpans"][0]["spans"][0],
            json!({
                "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
                "parentSpanId": "00f067aa0ba902b7", "name": "lookup", "kind": 1,
                "startTimeUnixNano": "1500000000", "endTimeUnixNano": "1500000000",
                "attributes": [{ "key": "domain", "value": { "stringValue": "a \"b\"" } }],
            })
        );
    }
}
