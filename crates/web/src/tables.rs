//! Exports the tables of pages as CSV (RFC 4180) and JSON, selected by `?format=csv` or `?format=json`. JSON has the names
//! of the fields, for scripts. CSV has headings in words, dates as dates and one value in a cell, for spreadsheets.

use crate::layout::{Answer, ErrorPage};
use crate::text::without_controls;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The HTML page.
    #[default]
    Html,
    /// One table for spreadsheets, as an attachment.
    Csv,
    /// One table for scripts.
    Json,
}

/// A column of a CSV table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The name of the value in the JSON form.
    key: &'static str,
    /// The heading, in plain words.
    title: &'static str,
    cell: Cell,
}

/// What a cell contains.
#[derive(Debug, Clone, Copy)]
enum Cell {
    /// The value as it is.
    Value,
    /// The day of a time, such as `2026-11-27`.
    Date,
    /// A time as spreadsheets read it, such as `2026-11-27 14:05:00`.
    Time,
    /// `yes` or `no`.
    YesNo,
    /// The first text of a list.
    First,
    /// The further texts of a list, with spaces between them.
    Others,
    /// The share in per cent of the column with failed sessions, of both kinds of sessions.
    Share(&'static str, &'static str),
}

const fn column(key: &'static str, title: &'static str) -> Column {
    Column { key, title, cell: Cell::Value }
}

const fn of(cell: Cell, key: &'static str, title: &'static str) -> Column {
    Column { key, title, cell }
}

const FAILED_SHARE: Column = of(Cell::Share("successful", "failed"), "", "Failed (%)");

/// The columns of the table of domains.
pub const DOMAINS: &[Column] = &[
    column("domain", "Domain"),
    column("need", "State"),
    column("mode", "Mode"),
    column("wanted", "Desired mode"),
    of(Cell::Time, "since", "In this mode since (UTC)"),
    column("evidence", "Evidence"),
    column("next", "Next step"),
    column("sessions_30_days", "Sessions in 30 days"),
    column("failed_30_days", "Failed sessions in 30 days"),
    of(Cell::Time, "certificate_ends", "Certificate expires (UTC)"),
];

/// The columns of sums by day.
pub const DAYS: &[Column] = &[
    of(Cell::Date, "day", "Day (UTC)"),
    column("successful", "Successful sessions"),
    column("failed", "Failed sessions"),
    FAILED_SHARE,
    column("sts_sessions", "Sessions under MTA-STS"),
    column("tainted", "Reports with failures under MTA-STS"),
    column("unproved", "Sessions in unverified reports"),
];

/// The columns of senders of reports.
pub const SENDERS: &[Column] = &[
    column("submitter", "Sender"),
    of(Cell::YesNo, "counts", "Counts as evidence"),
    column("reports", "Reports"),
    column("successful", "Successful sessions"),
    column("failed", "Failed sessions"),
    FAILED_SHARE,
    of(Cell::Date, "last", "Last day (UTC)"),
];

/// The columns of sums by name and day: of senders, or of MX hosts.
pub const TRENDS: &[Column] = &[
    column("name", "Name"),
    of(Cell::Date, "day", "Day (UTC)"),
    column("successful", "Successful sessions"),
    column("failed", "Failed sessions"),
];

/// The columns of failures about a domain.
pub const FAILURES: &[Column] = &[
    column("result_type", "Result"),
    column("host", "MX host"),
    column("address", "MX address"),
    column("kind", "Policy type"),
    column("sessions", "Failed sessions"),
    column("senders", "Senders"),
    column("sender", "One of the senders"),
    of(Cell::Date, "first", "First day (UTC)"),
    of(Cell::Date, "last", "Last day (UTC)"),
    of(Cell::YesNo, "counts", "Counts as evidence"),
    column("report", "Newest report"),
    column("what", "What happened"),
    column("whose", "Likely cause"),
];

/// The columns of MX hosts.
pub const HOSTS: &[Column] = &[
    column("host", "MX host"),
    column("good", "Probes passed"),
    column("bad", "Probes failed"),
    column("last_problem", "Last problem"),
    column("reported", "Failed sessions in reports"),
];

/// The columns of a domain's journal.
pub const JOURNAL: &[Column] =
    &[of(Cell::Time, "at", "Time (UTC)"), column("who", "Author"), column("what", "Entry")];

/// The columns of the journal of all domains.
pub const FULL_JOURNAL: &[Column] = &[
    column("id", "Number"),
    column("domain", "Domain"),
    of(Cell::Time, "at", "Time (UTC)"),
    column("who", "Author"),
    column("what", "Entry"),
];

/// The columns of received reports.
pub const REPORTS: &[Column] = &[
    column("id", "Number"),
    of(Cell::Time, "received_at", "Received (UTC)"),
    column("submitter", "Sender"),
    column("organization", "Organization"),
    column("report_id", "Report ID"),
    of(Cell::Time, "start", "Period from (UTC)"),
    of(Cell::Time, "end", "Period to (UTC)"),
    of(Cell::First, "domains", "Domain"),
    of(Cell::Others, "domains", "Further domains"),
    column("about", "Domain of the mail"),
    column("successful", "Successful sessions"),
    column("failed", "Failed sessions"),
    FAILED_SHARE,
    column("trust", "Signature"),
    column("evidence", "Evidence"),
    column("way", "Received via"),
    column("warnings", "Deviations from RFC 8460"),
];

/// The columns of the quarantine.
pub const QUARANTINE: &[Column] = &[
    column("id", "Number"),
    of(Cell::Time, "received_at", "Received (UTC)"),
    column("way", "Received via"),
    column("source", "Source"),
    column("size", "Bytes"),
    column("reason", "Reason"),
];

/// The columns of cached policies of other domains.
pub const POLICIES: &[Column] = &[
    column("domain", "Domain"),
    column("mode", "Mode"),
    column("id", "Policy ID"),
    of(Cell::Time, "fetched_at", "Fetched (UTC)"),
    of(Cell::Time, "expires_at", "Expires (UTC)"),
];

/// The columns of DMARC sums.
pub const DMARC: &[Column] = &[
    of(Cell::Date, "day", "Day (UTC)"),
    column("domain", "Domain"),
    column("source", "Source"),
    column("dkim", "DKIM"),
    column("spf", "SPF"),
    column("disposition", "Disposition"),
    of(Cell::YesNo, "verified", "Senders verified"),
    column("messages", "Messages"),
    column("reports", "Reports"),
];

/// The rows as CSV or JSON; `None` if the page itself is requested. `name` is the name of the CSV file.
pub fn export<R: Serialize>(format: Format, name: &str, columns: &[Column], rows: &[R]) -> Option<Answer> {
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
            ([kind, file], csv(columns, &rows)).into_response()
        })),
    }
}

/// The rows as CSV.
fn csv(columns: &[Column], rows: &[Value]) -> String {
    let line = |cells: Vec<String>| cells.join(",") + "\r\n";
    let mut out = line(columns.iter().map(|column| cell(column.title)).collect());
    for row in rows {
        out.push_str(&line(columns.iter().map(|column| cell(&content(column, row))).collect()));
    }
    out
}

/// The content of a cell, not quoted.
fn content(column: &Column, row: &Value) -> String {
    let value = row.get(column.key);
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let whole = value.map(text).unwrap_or_default();
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let number = |key: &str| row.get(key).and_then(Value::as_u64).unwrap_or(0);
    match column.cell {
        Cell::Value => whole,
        Cell::Date => whole.chars().take(10).collect(),
        Cell::Time => whole.replace('T', " ").chars().take(19).collect(),
        Cell::YesNo => if value == Some(&Value::Bool(true)) { "yes" } else { "no" }.to_owned(),
        Cell::First => list.first().map(text).unwrap_or_default(),
        Cell::Others => list.iter().skip(1).map(text).collect::<Vec<_>>().join(" "),
        Cell::Share(successful, failed) => {
            let (successful, failed) = (number(successful), number(failed));
            let all = successful as f64 + failed as f64;
            if all > 0.0 { format!("{:.4}", 100.0 * failed as f64 / all) } else { String::new() }
        }
    }
}

/// One cell. Texts come from third parties, so a text that looks like a formula is prefixed with `'`, and control
/// characters are replaced.
fn cell(text: &str) -> String {
    let text = &*without_controls(text.to_owned());
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
        let columns = [column("a", "A"), column("b", "B"), column("c", "C"), column("d", "D")];
        let rows = [serde_json::json!({ "a": "x,\"y\"", "b": -3, "c": "=cmd()", "d": null })];
        assert_eq!(csv(&columns, &rows), "A,B,C,D\r\n\"x,\"\"y\"\"\",-3,'=cmd(),\r\n");
        assert_eq!(csv(&columns, &[]), "A,B,C,D\r\n");
        let rows = [serde_json::json!({ "a": "x\u{202e}y", "b": "\u{1b}[2J", "c": "p\nq", "d": null })];
        assert_eq!(csv(&columns, &rows), "A,B,C,D\r\nx\u{fffd}y,\u{fffd}[2J,\"p\nq\",\r\n");
    }

    #[test]
    fn headings_are_words_dates_are_dates_and_a_cell_has_one_value() {
        let rows = [serde_json::json!({
            "id": 1, "received_at": "2026-11-27T10:00:01.5Z", "domains": ["a.example", "b.example", "c.example"],
            "successful": 3, "failed": 1, "day": "2026-11-27T00:00:00Z", "counts": true
        })];
        let cells = |columns: &[Column]| csv(columns, &rows).lines().last().unwrap().to_owned();
        let reports = cells(REPORTS);
        assert!(
            reports.contains("1,2026-11-27 10:00:01,") && reports.contains(",a.example,b.example c.example,")
        );
        assert!(cells(DAYS).starts_with("2026-11-27,3,1,25.0000,"));
        assert!(cells(SENDERS).contains(",yes,"));
        for columns in
            [DOMAINS, DAYS, SENDERS, TRENDS, FAILURES, HOSTS, FULL_JOURNAL, REPORTS, POLICIES, DMARC]
        {
            assert!(columns.iter().all(|column| !column.title.contains('_')));
        }
    }
}
