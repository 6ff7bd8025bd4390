//! `sternpost check merge`: joins the results of several machines or runs into one list, with one result for each name.

use super::earlier::{Earlier, Reader};
use super::lines::read_results;
use super::list::digest;
use super::report::Report;
use super::tally::Tally;
use config::failure::{Exit, Failure};
use net::clock::{Clock, SystemClock};
use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Prints the first result for each name, or counts these results: with `has_summary` to standard output, with `report` into
/// a folder. A result counts before a failed lookup. Lines that are not results, such as an incomplete last one, are left out and
/// counted; a file without any is refused.
pub fn merge(
    files: &[PathBuf],
    has_summary: bool,
    as_json: bool,
    report: Option<&Path>,
) -> Result<Exit, Failure> {
    let report = report.map(Report::in_folder).transpose()?;
    let (reader, mut seen, mut tally) = (Reader::default(), HashSet::new(), Tally::new(None));
    let mut out = BufWriter::new(std::io::stdout().lock());
    let fail = |error| Failure::new("the output can't be written", error, "");
    let mut print = |line: &[u8], earlier: &Earlier| match has_summary || report.is_some() {
        true => {
            tally.add_earlier(earlier);
            Ok(())
        }
        false => out.write_all(&[line, b"\n"].concat()).map_err(fail),
    };
    let mut undetermined = Vec::new();
    for path in files {
        let remedy = "Give files with results of sternpost check --from.";
        read_results(path, ("a result of check --from", remedy), |line| {
            let Some(earlier) = reader.read(line) else { return Ok(false) };
            if earlier.is_undetermined() {
                undetermined.push(line.to_vec());
            } else if seen.insert(digest(&earlier.name)) {
                print(line, &earlier)?;
            }
            Ok(true)
        })?;
    }
    for line in undetermined {
        if let Some(earlier) = reader.read(&line).filter(|earlier| seen.insert(digest(&earlier.name))) {
            print(&line, &earlier)?;
        }
    }
    out.flush().map_err(fail)?;
    drop(out);
    if has_summary {
        tally.show(as_json);
    }
    if let Some(report) = &report {
        report.write(&tally, SystemClock.now())?;
    }
    Ok(Exit::Fine)
}
