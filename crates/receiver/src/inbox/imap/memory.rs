//! What is remembered about the messages of a mailbox while the program runs, over all connections: which were handled,
//! for servers that store no keyword, and which failed and when they are tried again. Both are bounded: handled messages
//! are ranges of UIDs, and postponed ones have a limit.

use formats::imap::UidSet;
use formats::limits::IMAP_POSTPONED;
use net::redaction::Secrets;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a message may break the connection before it waits as other failures do.
const BREAKS: u32 = 3;

/// The memory of one mailbox, by folder.
#[derive(Debug, Default)]
pub(super) struct Memory {
    folders: BTreeMap<String, FolderMemory>,
    /// The texts of warnings that were logged.
    warned: BTreeSet<String>,
    /// What was sent to the server and may not appear in a log.
    pub(super) secrets: Secrets,
}

/// The memory of one folder.
#[derive(Debug, Default)]
pub(super) struct FolderMemory {
    /// The UIDs below belong to this value (RFC 9051 §2.3.1.1).
    validity: u32,
    /// The UIDs of messages that need no further handling.
    done: UidSet,
    /// The messages whose handling failed, by UID.
    failed: BTreeMap<u32, Failure>,
    /// Messages that were copied to another folder and are flagged as deleted here.
    pub(super) deleted: UidSet,
    /// The UID above which the next search begins; 0 unless a search found more than fits into a set.
    pub(super) searched_to: u32,
}

/// A message that could not be handled.
#[derive(Debug, Clone, Copy)]
struct Failure {
    /// The number of failures so far.
    count: u32,
    /// When the message is tried again, by `Clock::elapsed`.
    due_at: Duration,
}

/// How long a message that failed waits for the next try.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackOff {
    /// The delay after the first failure; it doubles with each further one.
    pub(super) first: Duration,
    /// The maximum delay.
    pub(super) longest: Duration,
}

impl BackOff {
    fn after(self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// The messages that are to be handled now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Messages that were not tried before.
    pub(super) fresh: UidSet,
    /// Messages that failed, and whose wait is over. They come last, so that they hold up no other.
    pub(super) late: Vec<u32>,
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

    /// At the beginning of a connection: forgets folders that are not read any more, and those without `UIDVALIDITY`,
    /// whose UIDs may have changed.
    pub(super) fn begin(&mut self, folders: &[String]) {
        self.folders.retain(|name, folder| folder.validity != 0 && folders.contains(name));
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
    /// Of the messages that a search found, those to handle now. Messages that a complete search did not find are
    /// forgotten, which bounds the memory.
    pub(super) fn due(&mut self, found: &UidSet, now: Duration) -> Due {
        if found.is_complete() && self.searched_to == 0 {
            self.done = self.done.intersection(found);
            self.failed.retain(|uid, _| found.contains(*uid));
        }
        let waiting = UidSet::from_ranges(self.failed.keys().map(|uid| (*uid, *uid)));
        let is_due = |uid: &u32, failure: &Failure| failure.due_at <= now && found.contains(*uid);
        let late = self.failed.iter().filter(|(uid, failure)| is_due(uid, failure));
        let mut late: Vec<(Duration, u32)> = late.map(|(uid, failure)| (failure.due_at, *uid)).collect();
        late.sort_unstable();
        Due {
            fresh: found.without(&self.done).without(&waiting),
            late: late.into_iter().map(|(_, uid)| uid).collect(),
        }
    }

    /// Records that a message needs nothing more.
    pub(super) fn done(&mut self, uid: u32) {
        self.failed.remove(&uid);
        self.done.insert(uid);
    }

    /// Records that a message could not be handled. It is tried again after a while. Beyond the limit of such messages, it
    /// counts as handled until the next start. Returns true at its first failure.
    pub(super) fn postpone(&mut self, uid: u32, now: Duration, back_off: BackOff) -> bool {
        self.fail(uid, now, |failures| back_off.after(failures))
    }

    /// Records that the connection ended while a message was handled, which may have other reasons: the message waits from
    /// the third time on. Returns true at that time.
    pub(super) fn broke(&mut self, uid: u32, now: Duration, back_off: BackOff) -> bool {
        self.fail(uid, now, |failures| match failures.checked_sub(BREAKS) {
            Some(more) => back_off.after(more + 1),
            None => Duration::ZERO,
        });
        self.failed.get(&uid).is_some_and(|failure| failure.count == BREAKS)
    }

    fn fail(&mut self, uid: u32, now: Duration, wait: impl Fn(u32) -> Duration) -> bool {
        if self.failed.len() >= IMAP_POSTPONED && !self.failed.contains_key(&uid) {
            self.done.insert(uid);
            return true;
        }
        let failure = self.failed.entry(uid).or_insert(Failure { count: 0, due_at: now });
        failure.count = failure.count.saturating_add(1);
        failure.due_at = now.saturating_add(wait(failure.count));
        failure.count == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::limits::IMAP_UID_RANGES;

    const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(60), longest: Duration::from_secs(600) };

    fn set(uids: &[u32]) -> UidSet {
        UidSet::from_ranges(uids.iter().map(|uid| (*uid, *uid)))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The UIDs that are due, in order.
    fn due(folder: &mut FolderMemory, found: &[u32], seconds: u64) -> Vec<u32> {
        let due = folder.due(&set(found), at(seconds));
        due.fresh.iter().chain(due.late).collect()
    }

    #[test]
    fn a_message_that_fails_waits_longer_each_time_and_is_never_given_up() {
        let mut memory = Memory::default();
        let folder = memory.folder("INBOX", 7);
        assert!(folder.postpone(1, at(0), BACK_OFF));
        assert_eq!(due(folder, &[1, 2], 59), [2]);
        assert_eq!(due(folder, &[1, 2], 60), [2, 1]);
        assert!(!folder.postpone(1, at(60), BACK_OFF));
        assert_eq!((due(folder, &[1], 179), due(folder, &[1], 180)), (vec![], vec![1]));
        for _ in 0..100 {
            folder.postpone(1, at(1000), BACK_OFF);
        }
        assert_eq!((due(folder, &[1], 1599), due(folder, &[1], 1600)), (vec![], vec![1]));
        folder.done(1);
        assert!(due(folder, &[1], 9999).is_empty());
    }

    #[test]
    fn a_message_that_breaks_the_connection_comes_last_and_waits_from_the_third_time_on() {
        let mut memory = Memory::default();
        let folder = memory.folder("INBOX", 7);
        assert!(!folder.broke(1, at(0), BACK_OFF));
        assert_eq!(due(folder, &[1, 2, 3], 0), [2, 3, 1]);
        assert!(!folder.broke(1, at(0), BACK_OFF));
        assert_eq!(due(folder, &[1, 2, 3], 0), [2, 3, 1]);
        assert!(folder.broke(1, at(0), BACK_OFF));
        assert_eq!((due(folder, &[1], 59), due(folder, &[1], 60)), (vec![], vec![1]));
        assert!(!folder.broke(1, at(60), BACK_OFF));
        assert_eq!((due(folder, &[1], 179), due(folder, &[1], 180)), (vec![], vec![1]));
    }

    #[test]
    fn uids_are_forgotten_when_they_are_gone_or_become_invalid() {
        let mut memory = Memory::default();
        memory.folder("INBOX", 7).done(1);
        memory.folder("INBOX", 7).postpone(3, at(0), BACK_OFF);
        assert_eq!(due(memory.folder("INBOX", 7), &[1, 2, 3], 0), [2]);
        assert_eq!(due(memory.folder("INBOX", 7), &[2], 0), [2]);
        assert_eq!(due(memory.folder("INBOX", 7), &[1, 3], 0), [1, 3]);
        memory.folder("INBOX", 7).done(1);
        memory.folder("INBOX", 7).postpone(3, at(0), BACK_OFF);
        assert_eq!(due(memory.folder("INBOX", 8), &[1, 3], 0), [1, 3]);
        memory.folder("INBOX", 0).done(1);
        memory.begin(&["INBOX".to_owned()]);
        assert_eq!(due(memory.folder("INBOX", 0), &[1], 0), [1]);
    }

    #[test]
    fn a_part_of_a_large_search_makes_nothing_forgotten() {
        let mut memory = Memory::default();
        let folder = memory.folder("INBOX", 7);
        folder.done(1);
        let mut part = set(&[5, 6]);
        part.set_incomplete();
        assert_eq!(folder.due(&part, at(0)).fresh, part);
        folder.searched_to = 4;
        assert_eq!(due(folder, &[5, 6], 0), [5, 6]);
        folder.searched_to = 0;
        assert_eq!(due(folder, &[1, 5], 0), [5]);
    }

    #[test]
    fn the_memory_of_a_hostile_mailbox_is_bounded() {
        let mut memory = Memory::default();
        let folder = memory.folder("INBOX", 7);
        let all = UidSet::from_ranges([(1, u32::MAX)]);
        let limit = u32::try_from(IMAP_POSTPONED).unwrap();
        for uid in 1..=limit + 5 {
            folder.postpone(uid, at(0), BACK_OFF);
        }
        let due = folder.due(&all, at(9999));
        assert_eq!((due.late.len(), due.fresh.iter().next()), (IMAP_POSTPONED, Some(limit + 6)));
        assert!(due.fresh.range_count() < 10 && folder.done.range_count() <= IMAP_UID_RANGES);
    }

    #[test]
    fn a_warning_is_news_once() {
        let mut memory = Memory::default();
        assert!(memory.is_news("full") && !memory.is_news("full") && memory.is_news("other"));
    }
}
