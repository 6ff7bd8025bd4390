//! The list of `sternpost check --from`, and the file of earlier results that a run continues (`--resume`).

use config::failure::Failure;
use formats::DomainName;
use formats::domain::DomainError;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use tokio::sync::mpsc::Receiver;

/// A line of the list.
pub enum Listed {
    /// A domain that is not in the earlier results.
    Domain(DomainName),
    /// A text that is not a domain, and why.
    NotADomain(String, DomainError),
    /// The list can't be read any further.
    Unreadable(std::io::Error),
}

/// The part of a list that one machine checks: those of `of` parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// The number of the part, from 1 to `of`.
    pub number: u64,
    /// The number of parts.
    pub of: u64,
}

impl std::str::FromStr for Shard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed =
            text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err("expected PART/PARTS, such as 3/16"),
        }
    }
}

impl Shard {
    /// True if this part has the domain. All machines and versions agree on it.
    fn has(self, name: &str) -> bool {
        // FNV-1a with 64 bits.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash >> 32) % self.of == self.number - 1
    }
}

/// Reads the domains of a list in a thread, so that slow standard input does not block the checks. Domains of other shards and
/// those in `done` are left out. Invalid UTF-8 in a line does not end the list.
pub fn read_beside(
    list: Box<dyn BufRead + Send>,
    done: HashSet<u64>,
    shard: Option<Shard>,
) -> Receiver<Listed> {
    let (send, receive) = tokio::sync::mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        for line in list.split(b'\n') {
            let listed = match line {
                Ok(line) => {
                    let text = domain_of(&String::from_utf8_lossy(&line));
                    if text.is_empty() {
                        continue;
                    }
                    let parsed = DomainName::parse(&text);
                    let name = parsed.as_ref().map_or(text.as_str(), DomainName::as_str);
                    if done.contains(&digest(name)) || shard.is_some_and(|shard| !shard.has(name)) {
                        continue;
                    }
                    match parsed {
                        Ok(domain) => Listed::Domain(domain),
                        Err(error) => Listed::NotADomain(text, error),
                    }
                }
                Err(error) => Listed::Unreadable(error),
            };
            let is_last = matches!(listed, Listed::Unreadable(_));
            if send.blocking_send(listed).is_err() || is_last {
                return;
            }
        }
    });
    receive
}

/// Lines that are read ahead.
const AHEAD: usize = 1024;

/// The domain in a line. Comments begin with `#`; in a table, the first column with a dot is the domain.
fn domain_of(line: &str) -> String {
    let text = line.split('#').next().unwrap_or_default();
    let column = text
        .split([',', '\t', ';'])
        .map(|column| column.trim().trim_matches('"'))
        .find(|column| column.contains('.'));
    column.unwrap_or(text.trim()).to_owned()
}

/// Opens a list; `-` is standard input.
pub fn open(from: &Path) -> Result<Box<dyn BufRead + Send>, Failure> {
    if from == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(from).map_err(|error| unreadable(from, error))?;
    Ok(Box::new(BufReader::new(file)))
}

/// The failure for a list that can't be read.
pub fn unreadable(from: &Path, error: std::io::Error) -> Failure {
    Failure::usage(
        format!("{} can't be read", from.display()),
        error,
        "Give a file with a domain on each line, or - for standard input.",
    )
}

/// How many lines a file has, for the estimate; `None` for standard input and pipes, which can be read only once.
pub fn count(from: &Path) -> Result<Option<usize>, Failure> {
    if from == Path::new("-") || std::fs::metadata(from).is_ok_and(|known| !known.is_file()) {
        return Ok(None);
    }
    Ok(Some(
        open(from)?.split(b'\n').map_while(Result::ok).filter(|line| !line.trim_ascii().is_empty()).count(),
    ))
}

/// A hash of a domain, so that a million of them take eight bytes each.
pub fn digest(name: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Opens the output, to which results are appended, and passes each line in it to `line`, which returns true for a result. An
/// incomplete last line, left by a crash, is removed. A file with other content is refused, and stays as it is.
pub fn output(path: &Path, mut line: impl FnMut(&[u8]) -> bool) -> Result<Box<dyn Write>, Failure> {
    let fail = |error: std::io::Error| {
        Failure::usage(format!("{} can't be used", path.display()), error, "Name another file with --resume.")
    };
    let mut file = File::options().read(true).append(true).create(true).open(path).map_err(fail)?;
    let (mut whole, mut has_results, mut is_foreign) = (0, false, false);
    let mut reader = BufReader::new(&mut file);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).map_err(fail)? > 0 {
        if bytes.ends_with(b"\n") {
            whole += bytes.len() as u64;
            match line(&bytes) {
                true => has_results = true,
                false => is_foreign = true,
            }
        } else {
            is_foreign |= !bytes.starts_with(b"{");
        }
        bytes.clear();
    }
    if is_foreign && !has_results {
        let why = "it is not empty and has no results of check --from, so nothing was written to it";
        return Err(fail(std::io::Error::other(why)));
    }
    file.set_len(whole).map_err(fail)?;
    Ok(Box::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_results_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        for content in ["a\nb", "b", "a\n"] {
            std::fs::write(&path, content).unwrap();
            assert!(output(&path, |_| false).is_err(), "{content:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        std::fs::write(&path, "{\"domain\":").unwrap();
        assert!(output(&path, |_| false).is_ok(), "an incomplete first line");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn the_lines_of_a_pipe_are_not_counted_since_that_would_read_them() {
        assert_eq!(count(Path::new("/dev/null")).unwrap(), None);
    }

    #[test]
    fn lists_in_several_formats_are_read() {
        for (line, domain) in [
            ("example.org", "example.org"),
            ("  Example.org \r", "Example.org"),
            ("17,example.org", "example.org"),
            ("\"example.org\";x", "example.org"),
            ("example.org # ours", "example.org"),
            ("# all of them", ""),
            ("", ""),
            ("not a domain", "not a domain"),
        ] {
            assert_eq!(domain_of(line), domain, "{line:?}");
        }
    }

    #[test]
    fn an_incomplete_last_line_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "{\"domain\":\"a.example\"}\n{\"domain\":\"b.exa").unwrap();
        let mut lines = 0;
        let mut out = output(&path, |_| {
            lines += 1;
            true
        })
        .unwrap();
        assert_eq!(lines, 1);
        writeln!(out, "next").unwrap();
        drop(out);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"domain\":\"a.example\"}\nnext\n");
    }

    #[test]
    fn each_name_is_in_one_shard_and_shards_are_of_a_size() {
        let shards: Vec<Shard> = (1..=16).map(|number| Shard { number, of: 16 }).collect();
        let mut sizes = vec![0; 16];
        for number in 0..16_000 {
            let name = format!("d{number}.example");
            let has: Vec<usize> =
                shards.iter().enumerate().filter(|(_, shard)| shard.has(&name)).map(|(at, _)| at).collect();
            assert_eq!(has.len(), 1, "{name}");
            sizes[has[0]] += 1;
        }
        assert!(sizes.iter().all(|size| (800..1200).contains(size)), "{sizes:?}");
        // Machines with different versions have to agree.
        assert!(Shard { number: 4, of: 16 }.has("example.org"));
        assert_eq!("3/16".parse(), Ok(Shard { number: 3, of: 16 }));
        for wrong in ["", "3", "0/16", "17/16", "3/0", "3/16/2", "-1/2", "a/b"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
