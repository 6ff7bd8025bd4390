//! Every table also as CSV and JSON: `?format=csv`, `?format=json`.

use crate::layout::{Answer, ErrorPage};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Html,
    /// For spreadsheets.
    Csv,
    /// For scripts.
    Json,
}

/// The rows in another format; nothing when the page is asked for.
pub fn other<R: Serialize>(format: Format, name: &str, rows: &[R]) -> Option<Answer> {
    let values = || -> Result<Vec<Value>, ErrorPage> {
        let made: Result<Vec<Value>, _> = rows.iter().map(serde_json::to_value).collect();
        made.map_err(|error| ErrorPage::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    };
    match format {
        Format::Html => None,
        Format::Json => Some(
            values().map(|rows| axum::Json(serde_json::json!({ "schema": 1, "rows": rows })).into_response()),
        ),
        Format::Csv => Some(values().map(|rows| {
            let kind = (CONTENT_TYPE, "text/csv; charset=utf-8; header=present".to_owned());
            let file = (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.csv\""));
            ([kind, file], csv(&rows)).into_response()
        })),
    }
}

/// RFC 4180, with the columns of the first row.
fn csv(rows: &[Value]) -> String {
    let Some(Value::Object(first)) = rows.first() else { return String::new() };
    let columns: Vec<&String> = first.keys().collect();
    let mut out = columns.iter().map(|name| cell(name)).collect::<Vec<_>>().join(",") + "\r\n";
    for row in rows {
        let cells = columns.iter().map(|name| match row.get(name.as_str()) {
            Some(Value::String(text)) => cell(text),
            Some(Value::Null) | None => String::new(),
            Some(other) => cell(&other.to_string()),
        });
        out.push_str(&cells.collect::<Vec<_>>().join(","));
        out.push_str("\r\n");
    }
    out
}

/// Texts are strangers': one that begins as a formula does is not to be run by a spreadsheet.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    let guarded = if is_formula { format!("'{text}") } else { text.to_owned() };
    match guarded.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", guarded.replace('"', "\"\"")),
        false => guarded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formula() {
        let rows = [serde_json::json!({ "a": "x,\"y\"", "b": -3, "c": "=cmd()", "d": null })];
        assert_eq!(csv(&rows), "a,b,c,d\r\n\"x,\"\"y\"\"\",-3,'=cmd(),\r\n");
        assert_eq!(csv(&[]), "");
    }
}
