//! What is remembered about the messages of a mailbox while the program runs, over all connections: which were handled,
//! for servers that store no keyword, and which failed, so that none is tried in each round.

use std::collections::{BTreeMap, BTreeSet};

/// How often a message may break the connection before it is passed over.
const MAX_ATTEMPTS: u32 = 3;

/// The memory of one mailbox, by folder.
#[derive(Debug, Default)]
pub(super) struct Memory {
    folders: BTreeMap<String, FolderMemory>,
    /// The texts of warnings that were logged.
    warned: BTreeSet<String>,
}

/// The memory of one folder.
#[derive(Debug, Default)]
pub(super) struct FolderMemory {
    /// The UIDs below belong to this value (RFC 9051 §2.3.1.1).
    validity: u32,
    /// Messages that need nothing more.
    done: BTreeSet<u32>,
    /// Messages whose import failed by a store or a connection that broke, and how often the connection broke.
    failed: BTreeMap<u32, u32>,
    /// Messages that were copied to another folder and are flagged as deleted here.
    pub(super) deleted: BTreeSet<u32>,
}

impl Memory {
    /// The memory of a folder, empty if its UIDs have become invalid.
    pub(super) fn folder(&mut self, name: &str, validity: u32) -> &mut FolderMemory {
        let folder = self.folders.entry(name.to_owned()).or_default();
        if folder.validity != validity {
            *folder = FolderMemory { validity, ..FolderMemory::default() };
        }
        folder
    }

    /// True when a warning with this text has not been logged. At most 1,000 texts are remembered.
    pub(super) fn is_news(&mut self, warning: &str) -> bool {
        if self.warned.len() >= 1000 {
            self.warned.clear();
        }
        self.warned.insert(warning.to_owned())
    }
}

impl FolderMemory {
    /// Of the messages that a search found, those to handle: in order, but those that failed before come last, so that
    /// they hold up no other. Messages that the search did not find are forgotten, which bounds the memory.
    pub(super) fn due(&mut self, found: &BTreeSet<u32>) -> Vec<u32> {
        self.done.retain(|uid| found.contains(uid));
        self.failed.retain(|uid, _| found.contains(uid));
        let (late, mut due): (Vec<u32>, Vec<u32>) =
            found.difference(&self.done).partition(|uid| self.failed.contains_key(uid));
        due.extend(late);
        due
    }

    /// Records that a message needs nothing more.
    pub(super) fn done(&mut self, uid: u32) {
        self.failed.remove(&uid);
        self.done.insert(uid);
    }

    /// Records that a message could not be stored. It is tried again, after all others.
    pub(super) fn postpone(&mut self, uid: u32) {
        self.failed.entry(uid).or_default();
    }

    /// Records that the connection ended while a message was handled. Returns true if it is passed over from now on.
    pub(super) fn broke(&mut self, uid: u32) -> bool {
        let count = self.failed.entry(uid).or_default();
        *count += 1;
        let is_enough = *count >= MAX_ATTEMPTS;
        if is_enough {
            self.done(uid);
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(uids: &[u32]) -> BTreeSet<u32> {
        uids.iter().copied().collect()
    }

    #[test]
    fn a_message_that_fails_comes_last_and_is_passed_over_at_the_third_time() {
        let mut memory = Memory::default();
        let folder = memory.folder("INBOX", 7);
        assert_eq!(folder.due(&set(&[1, 2, 3])), [1, 2, 3]);
        assert!(!folder.broke(1));
        folder.postpone(2);
        assert_eq!(folder.due(&set(&[1, 2, 3])), [3, 1, 2]);
        assert!(!folder.broke(1));
        assert!(folder.broke(1));
        folder.done(3);
        assert_eq!(folder.due(&set(&[1, 2, 3])), [2]);
    }

    #[test]
    fn uids_are_forgotten_when_they_are_gone_or_become_invalid() {
        let mut memory = Memory::default();
        memory.folder("INBOX", 7).done(1);
        assert_eq!(memory.folder("INBOX", 7).due(&set(&[1, 2])), [2]);
        assert_eq!(memory.folder("INBOX", 7).due(&set(&[2])), [2]);
        assert_eq!(memory.folder("INBOX", 7).due(&set(&[1])), [1]);
        memory.folder("INBOX", 7).done(1);
        assert_eq!(memory.folder("INBOX", 8).due(&set(&[1])), [1]);
    }

    #[test]
    fn a_warning_is_news_once() {
        let mut memory = Memory::default();
        assert!(memory.is_news("full") && !memory.is_news("full") && memory.is_news("other"));
    }
}
