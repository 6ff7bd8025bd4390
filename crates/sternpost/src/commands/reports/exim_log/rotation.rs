//! Finds the files into which a log was rotated since it was read: the file that was read, under its new name, and those
//! that were written after it. Their names are `NAME.3`, `NAME.2`, `NAME.1` (logrotate, exicyclog), or `NAME-20261127`
//! and `NAME.20261127`.

use super::hex;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use store::handover::LogPlace;

/// The first bytes of a file, by which it is recognized.
const HEAD_BYTES: u64 = 256;
/// The files of a folder among which rotated logs are searched.
const MAX_FILES: usize = 10_000;
/// From this number of digits on, the number in a name is a date.
const DATE_DIGITS: usize = 6;

/// The files that were written before the current one.
#[derive(Debug, Default)]
pub(super) struct Rotated {
    /// The file that was read, from the place on, and all later ones in their order.
    pub(super) files: Vec<File>,
    /// True if lines are missing before, between or after these files.
    pub(super) has_gap: bool,
}

pub(super) fn inode(file: &File) -> io::Result<String> {
    let metadata = file.metadata()?;
    Ok(format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// The digest of the first bytes that have been read.
pub(super) fn head(file: &File, read_to: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut file = file.try_clone()?;
    // The clone shares the position of the file, which a buffered reader has left behind.
    let before = file.stream_position()?;
    file.seek(SeekFrom::Start(0))?;
    file.by_ref().take(read_to.min(HEAD_BYTES)).read_to_end(&mut bytes)?;
    file.seek(SeekFrom::Start(before))?;
    Ok(hex(&Sha256::digest(&bytes)))
}

/// True if this file is the one of the place, with at least as many bytes as were read.
pub(super) fn is_same(file: &File, place: &LogPlace) -> io::Result<bool> {
    Ok(inode(file)? == place.inode
        && file.metadata()?.len() >= place.read_to
        && head(file, place.read_to)? == place.head)
}

/// Finds the file of a place and the later ones, in the folder of the log at `path`, whose file is now `current`.
pub(super) fn rotated(path: &Path, current: &File, place: &LogPlace) -> io::Result<Rotated> {
    let gap = Rotated { files: Vec::new(), has_gap: true };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(gap);
    };
    let others = std::fs::read_dir(folder)?.take(MAX_FILES).filter_map(Result::ok).map(|entry| entry.path());
    let others: Vec<PathBuf> = others.filter(|other| other != path).collect();
    let Some((old, file)) = file_of(&others, place)? else { return Ok(gap) };
    let Some(old) = Age::of(old, name) else {
        // A name without a number does not say which files are later.
        return Ok(Rotated { files: vec![file], has_gap: false });
    };
    let mut later: Vec<(Age, &PathBuf)> =
        others.iter().filter_map(|other| Some((Age::of(other, name)?, other))).collect();
    later.retain(|(age, _)| age.is_date == old.is_date && age.is_later_than(&old));
    // Of a file and its compressed copy, the file comes first.
    later.sort_by_key(|(age, _)| (age.place(), age.is_compressed));
    later.dedup_by_key(|(age, _)| age.number);
    let current = inode(current)?;
    let (mut files, mut has_gap, mut before) = (vec![file], false, old.number);
    for (age, other) in later {
        has_gap |= age.is_compressed || !age.is_date && before - age.number > 1;
        before = age.number;
        if age.is_compressed {
            continue;
        }
        match File::open(other) {
            // Rotated just now: it is still read as the current one.
            Ok(file) if inode(&file)? == current => {}
            Ok(file) => files.push(file),
            Err(_) => has_gap = true,
        }
    }
    // The newest old file has the number 1, or 0.
    has_gap |= !old.is_date && before > 1;
    Ok(Rotated { files, has_gap })
}

/// The file of a place under its new name.
fn file_of<'p>(others: &'p [PathBuf], place: &LogPlace) -> io::Result<Option<(&'p Path, File)>> {
    for other in others {
        let is_file = std::fs::metadata(other).is_ok_and(|metadata| {
            metadata.is_file() && format!("{}:{}", metadata.dev(), metadata.ino()) == place.inode
        });
        // A file that can't be opened is not the one that was read before.
        if let Some(file) = is_file.then(|| File::open(other).ok()).flatten()
            && is_same(&file, place)?
        {
            return Ok(Some((other, file)));
        }
    }
    Ok(None)
}

/// The age of a rotated log by its name.
#[derive(Debug, Clone, Copy)]
struct Age {
    number: u64,
    /// True if larger numbers are later.
    is_date: bool,
    is_compressed: bool,
}

impl Age {
    /// The age of a file of the log `name`; `None` if its name has no number.
    fn of(path: &Path, name: &str) -> Option<Self> {
        let rest = path.file_name()?.to_str()?.strip_prefix(name)?.strip_prefix(['.', '-'])?;
        let (digits, suffix) = rest.split_once('.').unwrap_or((rest, ""));
        let is_compressed = !suffix.is_empty();
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self { number: digits.parse().ok()?, is_date: digits.len() >= DATE_DIGITS, is_compressed })
    }

    /// The place among files of one kind, from the oldest to the newest.
    fn place(&self) -> u64 {
        if self.is_date { self.number } else { u64::MAX - self.number }
    }

    fn is_later_than(&self, other: &Self) -> bool {
        self.place() > other.place()
    }
}
