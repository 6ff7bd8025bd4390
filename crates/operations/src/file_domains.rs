//! The `[[domain]]` blocks of the configuration file. A process works by those that it read at the start. Before each step of
//! a plan it asks whether the file says something else by now, since another process may work by that ([`crate::goal`]).
//!
//! With thousands of domains that question is asked thousands of times in a round of the guard, so the file is read again
//! only if its metadata changed: size, inode, and the times of its content and of its inode.

use config::Config;
use formats::DomainName;
use receiver::domain::DomainSpec;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The settings of domains by their names.
type Specs = HashMap<DomainName, DomainSpec>;

/// The domains of the configuration file.
pub(crate) struct FileDomains {
    file: Option<PathBuf>,
    /// As this process read them at the start.
    at_start: Specs,
    /// As they were read last.
    last: Mutex<Option<LastReading>>,
}

struct LastReading {
    identity: FileIdentity,
    /// `None` if the file can't be parsed.
    specs: Option<Specs>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    /// In seconds and nanoseconds.
    modified: (i64, i64),
    /// The time of the inode, which a program can't set, unlike the time of the content.
    changed: (i64, i64),
}

/// A file that was changed within this time before it was read can be changed once more without new metadata: file systems
/// store times in steps of up to two seconds.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

impl FileDomains {
    /// The domains of a configuration that was loaded.
    pub fn new(config: &Config) -> Self {
        Self { file: config.file.clone(), at_start: by_name(&config.domains), last: Mutex::new(None) }
    }

    /// The settings of a domain that this process read at the start; `None` if the file did not have it.
    pub fn get(&self, name: &DomainName) -> Option<&DomainSpec> {
        self.at_start.get(name)
    }

    /// True if the file has other settings for the domain now. Also true if the file can't be parsed; false if there is none
    /// or it can't be read.
    pub fn is_changed(&self, name: &DomainName) -> bool {
        self.is_changed_at(name, SystemTime::now(), |file| Config::load(Some(file)).ok())
    }

    /// As [`Self::is_changed`], at the time `now`; `load` reads and parses the file.
    fn is_changed_at(
        &self,
        name: &DomainName,
        now: SystemTime,
        load: impl Fn(&Path) -> Option<Config>,
    ) -> bool {
        let Some(file) = self.file.as_deref() else { return false };
        // Taken before the file is read: a change after this line changes the identity.
        let Ok(metadata) = File::open(file).and_then(|file| file.metadata()) else { return false };
        let identity = FileIdentity::of(&metadata);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(|known| known.identity == identity) {
            return self.differs(name, known.specs.as_ref());
        }
        let specs = load(file).map(|config| by_name(&config.domains));
        let is_changed = self.differs(name, specs.as_ref());
        *last = identity.is_settled(now).then_some(LastReading { identity, specs });
        is_changed
    }

    fn differs(&self, name: &DomainName, specs: Option<&Specs>) -> bool {
        specs.is_none_or(|specs| specs.get(name) != self.get(name))
    }
}

/// The first block of each name counts, should there be two.
fn by_name(domains: &[DomainSpec]) -> Specs {
    domains.iter().rev().map(|spec| (spec.name.clone(), spec.clone())).collect()
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// True if a later change shows in the metadata.
    fn is_settled(&self, now: SystemTime) -> bool {
        let Ok(changed) = u64::try_from(self.changed.0) else { return true };
        let changed = UNIX_EPOCH.checked_add(Duration::from_secs(changed));
        changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > SETTLED_AFTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn name(number: usize) -> DomainName {
        DomainName::parse(&format!("d{number}.example")).unwrap()
    }

    fn text(domains: usize, more: &str) -> String {
        (0..domains).map(|number| format!("[[domain]]\nname = \"d{number}.example\"\n{more}")).collect()
    }

    #[test]
    fn the_file_is_read_again_only_if_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.toml");
        std::fs::write(&file, text(50, "")).unwrap();
        let domains = FileDomains::new(&Config::load(Some(&file)).unwrap());
        let loads = Cell::new(0);
        let load = |file: &Path| {
            loads.set(loads.get() + 1);
            Config::load(Some(file)).ok()
        };
        let later = SystemTime::now() + Duration::from_secs(60);
        let changed = || (0..50).filter(|n| domains.is_changed_at(&name(*n), later, load)).count();
        assert_eq!((changed(), changed(), loads.get()), (0, 0, 1));
        // Other metadata with the same content.
        std::fs::write(&file, text(50, "")).unwrap();
        assert_eq!((changed(), loads.get()), (0, 2));
        // The same size and the time of before, as some programs that copy files set it.
        let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
        std::fs::write(&file, text(50, "").replace("d49.", "d94.")).unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        assert_eq!((changed(), changed(), loads.get()), (1, 1, 3));
        // A file in its place.
        let other = folder.path().join("other.toml");
        std::fs::write(&other, text(50, "mode = \"none\"\n")).unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_eq!((changed(), changed(), loads.get()), (50, 50, 4));
        std::fs::write(&file, "mode = ").unwrap();
        assert_eq!((changed(), changed(), loads.get()), (50, 50, 5));
        std::fs::remove_file(&file).unwrap();
        assert_eq!((changed(), loads.get()), (0, 5));
        std::fs::write(&file, text(50, "")).unwrap();
        assert_eq!((changed(), changed(), loads.get()), (0, 0, 6));
    }

    #[test]
    fn a_file_that_was_changed_just_now_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.toml");
        std::fs::write(&file, text(1, "")).unwrap();
        let domains = FileDomains::new(&Config::load(Some(&file)).unwrap());
        let loads = Cell::new(0);
        let load = |file: &Path| {
            loads.set(loads.get() + 1);
            Config::load(Some(file)).ok()
        };
        let changed = std::fs::metadata(&file).unwrap().ctime();
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs((changed + seconds).try_into().unwrap());
        for (seconds, expected) in [(0, 1), (2, 2), (-60, 3), (60, 4), (61, 4), (0, 4)] {
            assert!(!domains.is_changed_at(&name(0), at(seconds), load));
            assert_eq!(loads.get(), expected, "after {seconds} seconds");
        }
    }
}
