//! The results as a table on the terminal, and files.

use config::failure::Failure;
use lab::conformance::case::Group;
use lab::conformance::render;
use lab::conformance::report::{Report, SCHEMA};
use std::path::Path;

/// The largest file of results that is read.
const MAX_BYTES: u64 = 256 << 20;

/// One line for each case, group by group, and the summary.
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    for group in Group::ALL {
        let mut cases = report.cases.iter().filter(|case| case.group == group).peekable();
        if cases.peek().is_some() {
            out += &format!("{}\n", group.as_str());
        }
        cases.for_each(|case| out += &format!("  {}\n", render::line(case)));
    }
    out + "\n" + &render::summary(report)
}

/// The report as JSON.
pub fn json(report: &Report) -> Result<String, Failure> {
    serde_json::to_string_pretty(report)
        .map(|text| text + "\n")
        .map_err(|error| Failure::new("can't write the results as JSON", error, ""))
}

/// Writes a file.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::new(format!("can't write {}", path.display()), error, "Name another file."))
}

/// Reads a file of `--json`.
pub fn read(path: &Path) -> Result<Report, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(format!("can't read {}", path.display()), error, "Name a file that --json has written.")
    };
    let size = std::fs::metadata(path).map_err(|error| fail(&error))?.len();
    if size > MAX_BYTES {
        return Err(fail(&format!("it has more than {MAX_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    let report: Report = serde_json::from_str(&text).map_err(|error| fail(&error))?;
    if report.schema != SCHEMA {
        return Err(fail(&format!("its schema is {}, and this program reads {SCHEMA}", report.schema)));
    }
    Ok(report)
}
