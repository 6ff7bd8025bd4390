//! Exports the tables of pages as CSV (RFC 4180) and JSON, selected by `?format=csv` or `?format=json`.

use crate::layout::{Answer, ErrorPage};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The page.
    #[default]
    Html,
    /// One table for spreadsheets, as an attachment.
    Csv,
    /// One table for scripts.
    Json,
}

/// The rows as CSV or JSON; `None` if the page itself is requested. `name` is the name of the CSV file.
pub fn export<R: Serialize>(format: Format, name: &str, rows: &[R]) -> Option<Answer> {
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

/// The rows as CSV, with the columns of the first row.
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

/// One cell. Texts come from third parties, so a text that looks like a formula is prefixed with `'`.
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
    fn cells_are_quoted_and_formulas_are_escaped() {
        let rows = [serde_json::json!({ "a": "x,\"y\"", "b": -3, "c": "=cmd()", "d": null })];
        assert_eq!(csv(&rows), "a,b,c,d\r\n\"x,\"\"y\"\"\",-3,'=cmd(),\r\n");
        assert_eq!(csv(&[]), "");
    }
}
