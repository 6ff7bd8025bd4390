//! `sternpost check merge`: joins the results of several machines or runs into one list, with one result for each name.

use super::list::digest;
use super::tally::{Reader, Tally};
use config::failure::{Exit, Failure};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Prints the first result for each name, or with `has_summary` the counts of these results. Lines that are not results, such as an
/// incomplete last one, are left out.
pub fn merge(files: &[PathBuf], has_summary: bool, as_json: bool) -> Result<Exit, Failure> {
    let (reader, mut seen, mut tally) = (Reader::default(), HashSet::new(), Tally::new(None));
    let mut out = BufWriter::new(std::io::stdout().lock());
    let fail = |error| Failure::new("the output can't be written", error, "");
    for path in files {
        for line in BufReader::new(File::open(path).map_err(|error| unreadable(path, error))?).split(b'\n') {
            let line = line.map_err(|error| unreadable(path, error))?;
            let Some(earlier) = reader.read(&line).filter(|earlier| seen.insert(digest(&earlier.name)))
            else {
                continue;
            };
            match has_summary {
                true => tally.add_earlier(&earlier),
                false => out.write_all(&[line.as_slice(), b"\n"].concat()).map_err(fail)?,
            }
        }
    }
    out.flush().map_err(fail)?;
    drop(out);
    if has_summary {
        tally.show(as_json);
    }
    Ok(Exit::Fine)
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    Failure::usage(
        format!("{} can't be read", path.display()),
        error,
        "Give files with results of sternpost check --from.",
    )
}
