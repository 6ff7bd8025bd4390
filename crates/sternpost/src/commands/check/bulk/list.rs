//! The list of `sternpost check --from`, and the file of earlier results that a run continues (`--resume`).

use super::lines::{LeftOut, Lines};
use config::failure::Failure;
use formats::DomainName;
use formats::limits::{DOMAIN_BYTES, LIST_LINE_BYTES, RESULT_LINE_BYTES};
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
    NotADomain(String, String),
    /// A name that the list had before.
    Repeated,
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
/// those in `done` are left out. Invalid UTF-8 in a line does not end the list, and neither does a line of any length.
pub fn read_beside(
    list: Box<dyn BufRead + Send>,
    done: HashSet<u64>,
    shard: Option<Shard>,
) -> Receiver<Listed> {
    let (send, receive) = tokio::sync::mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let (mut lines, mut names) = (Lines::new(list, LIST_LINE_BYTES), RecentNames::default());
        loop {
            let listed = match lines.next() {
                Ok(None) => return,
                Ok(Some(line)) => {
                    let (name, listed) = match line.is_too_long {
                        true => too_long(line.number, line.bytes),
                        false => match listed(&domain_of(&String::from_utf8_lossy(line.bytes))) {
                            Some(listed) => listed,
                            None => continue,
                        },
                    };
                    if done.contains(&digest(&name)) || shard.is_some_and(|shard| !shard.has(&name)) {
                        continue;
                    }
                    if names.insert(digest(&name)) { listed } else { Listed::Repeated }
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

/// A line with this text, and the name under which its result is found again; `None` for a line without text.
fn listed(text: &str) -> Option<(String, Listed)> {
    match DomainName::parse(text) {
        _ if text.is_empty() => None,
        Ok(domain) => Some((domain.as_str().to_owned(), Listed::Domain(domain))),
        Err(error) => {
            let text = beginning(text);
            Some((text.clone(), Listed::NotADomain(text, error.to_string())))
        }
    }
}

/// A line that is too long, and the name under which its result is found again.
fn too_long(number: u64, bytes: &[u8]) -> (String, Listed) {
    let text = beginning(&String::from_utf8_lossy(bytes.get(..64).unwrap_or(bytes)));
    let why = format!(
        "line {number} is longer than {LIST_LINE_BYTES} bytes. Write each domain in a line of its own"
    );
    let name = format!("{text} (line {number})");
    (name.clone(), Listed::NotADomain(name, why))
}

/// At most as many characters as a domain may have.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(DOMAIN_BYTES) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The names of the list so far, by their digests, in bounded memory: of a long list at least the last [`GENERATION`] names.
#[derive(Default)]
struct RecentNames {
    new: HashSet<u64>,
    old: HashSet<u64>,
}

/// Names that are remembered before older ones are forgotten. Two generations take some 80 MB.
const GENERATION: usize = 1 << 21;

impl RecentNames {
    /// Returns false if the name is known.
    fn insert(&mut self, name: u64) -> bool {
        if self.new.len() >= GENERATION {
            self.old = std::mem::take(&mut self.new);
        }
        !self.old.contains(&name) && self.new.insert(name)
    }
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

/// Fails if there is no such list, before anything else is asked of this machine. A pipe is not opened, since it can be read once.
pub fn expect_list(from: &Path) -> Result<(), Failure> {
    if from == Path::new("-") {
        return Ok(());
    }
    std::fs::metadata(from).map(drop).map_err(|error| unreadable(from, error))
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
    let (mut lines, mut count) = (Lines::new(open(from)?, LIST_LINE_BYTES), 0);
    while let Ok(Some(line)) = lines.next() {
        count += usize::from(!line.bytes.trim_ascii().is_empty());
    }
    Ok(Some(count))
}

/// A hash of a domain, so that a million of them take eight bytes each.
pub fn digest(name: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// True if both paths are one file. `-` is standard input.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |path: &Path| {
        let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
        std::fs::metadata(path).ok().map(|known| (known.dev(), known.ino()))
    };
    place(one).is_some_and(|own| place(other) == Some(own))
}

/// Opens the output, to which results are appended, and passes each line in it to `line`, which returns true for a result. An
/// incomplete last line, left by a crash, is removed. A file with other content is refused, and stays as it is.
pub fn output(path: &Path, mut line: impl FnMut(&[u8]) -> bool) -> Result<Box<dyn Write>, Failure> {
    let fail = |error: std::io::Error| {
        Failure::usage(format!("{} can't be used", path.display()), error, "Name another file with --resume.")
    };
    let mut file = File::options().read(true).append(true).create(true).open(path).map_err(fail)?;
    let (mut whole, mut has_results, mut is_foreign) = (0, false, false);
    let (mut lines, mut left_out) =
        (Lines::new(BufReader::new(&mut file), RESULT_LINE_BYTES), LeftOut::default());
    while let Some(next) = lines.next().map_err(fail)? {
        if !next.is_whole {
            is_foreign |= !next.bytes.starts_with(b"{");
            continue;
        }
        whole += next.length;
        match !next.is_too_long && line(next.bytes) {
            true => has_results = true,
            false => {
                is_foreign = true;
                left_out.add(&next);
            }
        }
    }
    if is_foreign && !has_results {
        let why = "it is not empty and has no results of check --from, so nothing was written to it";
        return Err(fail(std::io::Error::other(why)));
    }
    left_out.say(path);
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

    #[tokio::test]
    async fn a_line_of_any_length_is_told_with_its_number_and_the_list_goes_on() {
        let text = format!("a.example\n{}\nb.example\n", "x.".repeat(LIST_LINE_BYTES));
        let mut all = read_beside(Box::new(std::io::Cursor::new(text.into_bytes())), HashSet::new(), None);
        assert!(matches!(all.recv().await, Some(Listed::Domain(name)) if name.as_str() == "a.example"));
        let Some(Listed::NotADomain(typed, why)) = all.recv().await else { panic!() };
        assert!(typed.starts_with("x.x.") && typed.len() < 100 && typed.ends_with("(line 2)"), "{typed}");
        assert!(why.contains("line 2 is longer than 65536 bytes"), "{why}");
        assert!(matches!(all.recv().await, Some(Listed::Domain(name)) if name.as_str() == "b.example"));
        assert!(all.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_name_that_the_list_had_before_is_not_checked_again() {
        let text = "a.example\nA.example.\nb.example\nno domain\nno domain\na.example\n";
        let mut all = read_beside(Box::new(text.as_bytes()), HashSet::new(), None);
        let mut kinds = String::new();
        while let Some(listed) = all.recv().await {
            kinds.push(match listed {
                Listed::Domain(_) => 'd',
                Listed::NotADomain(..) => 'n',
                Listed::Repeated => 'r',
                Listed::Unreadable(_) => 'u',
            });
        }
        assert_eq!(kinds, "drdnrr");
    }

    #[test]
    fn names_are_remembered_in_bounded_memory() {
        let mut names = RecentNames::default();
        assert!((0..3 * GENERATION as u64).all(|name| names.insert(name)));
        assert!(names.new.len() + names.old.len() <= 2 * GENERATION);
        assert!((2 * GENERATION as u64..3 * GENERATION as u64).all(|name| !names.insert(name)));
    }

    #[test]
    fn a_file_is_the_same_under_each_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one");
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, dir.path().join("other")).unwrap();
        assert!(is_same_file(&path, &dir.path().join("other")));
        assert!(!is_same_file(&path, dir.path()));
        assert!(!is_same_file(&dir.path().join("none"), &dir.path().join("none")));
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
