//! `sternpost check merge`: joins the results of several machines or runs into one list, with one result for each name.

use super::list::digest;
use super::tally::{Earlier, Reader, Tally};
use config::failure::{Exit, Failure};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Prints the first result for each name, or with `has_summary` the counts of these results. A result counts before a failed
/// lookup. Lines that are not results, such as an incomplete last one, are left out and counted; a file without any is refused.
pub fn merge(files: &[PathBuf], has_summary: bool, as_json: bool) -> Result<Exit, Failure> {
    let (reader, mut seen, mut tally) = (Reader::default(), HashSet::new(), Tally::new(None));
    let mut out = BufWriter::new(std::io::stdout().lock());
    let fail = |error| Failure::new("the output can't be written", error, "");
    let mut print = |line: &[u8], earlier: &Earlier| match has_summary {
        true => {
            tally.add_earlier(earlier);
            Ok(())
        }
        false => out.write_all(&[line, b"\n"].concat()).map_err(fail),
    };
    let (mut undetermined, mut left_out) = (Vec::new(), 0_u64);
    for path in files {
        let mut has_results = false;
        for line in BufReader::new(File::open(path).map_err(|error| unreadable(path, error))?).split(b'\n') {
            let line = line.map_err(|error| unreadable(path, error))?;
            let Some(earlier) = reader.read(&line) else {
                left_out += u64::from(!line.trim_ascii().is_empty());
                continue;
            };
            has_results = true;
            if earlier.is_undetermined() {
                undetermined.push((line, earlier));
            } else if seen.insert(digest(&earlier.name)) {
                print(&line, &earlier)?;
            }
        }
        if !has_results && std::fs::metadata(path).is_ok_and(|known| known.len() > 0) {
            return Err(unreadable(path, std::io::Error::other("it has no results")));
        }
    }
    for (line, earlier) in undetermined {
        if seen.insert(digest(&earlier.name)) {
            print(&line, &earlier)?;
        }
    }
    if left_out > 0 {
        say_aside(left_out);
    }
    out.flush().map_err(fail)?;
    drop(out);
    if has_summary {
        tally.show(as_json);
    }
    Ok(Exit::Fine)
}

/// Says how many lines are not results.
fn say_aside(left_out: u64) {
    let _ = writeln!(std::io::stderr(), "{left_out} lines that are not results were left out.");
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::usage(
        format!("{} can't be read", path.display()),
        error,
        "Give files with results of sternpost check --from.",
    )
}
