//! The files below a folder that others change meanwhile. Mail programs rename the mails of a maildir, from `new` to `cur`
//! and when flags change; the part of the name before the flags stays. So a mail that is not where it was listed is looked
//! for by that part. A folder that can't be read is reported, and the others are searched.

use super::Unreadable;
use formats::limits::IMPORT_DEPTH;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::FileType;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What is below a folder.
#[derive(Debug, Default)]
pub struct FoundFiles {
    /// The files, by folder; those that were just delivered to a maildir come first.
    pub files: Vec<PathBuf>,
    /// The folders that can't be read.
    pub unreadable: Vec<Unreadable>,
}

/// Returns the file at a path, or all files below a folder. Hidden files and unfinished mails of a maildir (`tmp`) are
/// left out.
///
/// # Errors
///
/// If there is nothing at the path, or the folder at the path itself can't be read.
pub fn files_below(path: &Path) -> io::Result<FoundFiles> {
    let mut found = FoundFiles::default();
    match std::fs::metadata(path)?.is_dir() {
        true => collect(path, IMPORT_DEPTH, &mut found)?,
        false => found.files.push(path.to_owned()),
    }
    Ok(found)
}

/// Folders of a maildir in the order in which mails move through them, so that one that moves during the search is found.
const MAIL_FOLDERS: [&str; 2] = ["new", "cur"];

fn collect(folder: &Path, depth: usize, found: &mut FoundFiles) -> io::Result<()> {
    let is_maildir = folder.join("cur").is_dir() && folder.join("new").is_dir();
    let mut entries = entries(folder)?;
    // A mail that moves from `new` to `cur` during the search is in one of the two.
    entries.sort_by_cached_key(|(name, _)| (!is_maildir || name != "new", name.clone()));
    for (file, kind) in entries {
        let name = file.to_string_lossy();
        let is_folder_of_maildir = is_maildir && kind.is_dir() && name.starts_with('.');
        if (name.starts_with('.') && !is_folder_of_maildir) || (is_maildir && name == "tmp") {
            continue;
        }
        let path = folder.join(&file);
        if kind.is_dir() && depth > 0 {
            match collect(&path, depth - 1, found) {
                Err(error) if !is_gone(&error) => {
                    let why = format!("the folder can't be read: {error}");
                    found.unreadable.push(Unreadable::new(&path.to_string_lossy(), why));
                }
                Ok(()) | Err(_) => {}
            }
        } else if kind.is_file() && !is_index(&name) {
            found.files.push(path);
        }
    }
    Ok(())
}

/// The entries of a folder. The type is that of a symbolic link, not of what it refers to: links are skipped, since they
/// could form a loop or leave the folder.
fn entries(folder: &Path) -> io::Result<Vec<(OsString, FileType)>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) => entries.push((entry.file_name(), kind)),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

/// Files that mail servers keep beside the mails of a maildir.
fn is_index(name: &str) -> bool {
    name.starts_with("dovecot") || name == "subscriptions" || name == "maildirfolder" || name == "maildirsize"
}

/// True for the error of a file that was moved or deleted after it was listed.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle)
}

/// True for a file in the folder `cur` or `new` of a maildir.
pub(super) fn is_in_maildir(path: &Path) -> bool {
    maildir_of(path).is_some()
}

/// The maildir that a mail is in.
fn maildir_of(path: &Path) -> Option<&Path> {
    let folder = path.parent()?;
    let is_named_so = MAIL_FOLDERS.iter().any(|name| folder.file_name().is_some_and(|one| one == *name));
    let maildir = folder.parent().filter(|_| is_named_so)?;
    MAIL_FOLDERS.iter().all(|name| maildir.join(name).is_dir()).then_some(maildir)
}

/// How often a mail may be renamed during an import and still be found.
const MOVES: usize = 4;

/// The files to read, one after the other. Mails that are not where they were listed are looked for at the end.
#[derive(Debug)]
pub struct LivingFiles {
    /// The files that were or will be read.
    listed: Vec<PathBuf>,
    /// The place in the list of the next one.
    next: usize,
    /// Files that are not where they were listed or found.
    gone: Vec<PathBuf>,
    /// How often they are searched for from now on.
    searches: usize,
}

impl LivingFiles {
    /// The files as they were listed.
    pub fn new(listed: Vec<PathBuf>) -> Self {
        Self { listed, next: 0, gone: Vec::new(), searches: MOVES }
    }

    /// The next file to read.
    pub fn next_file(&mut self) -> Option<PathBuf> {
        loop {
            if let Some(path) = self.listed.get(self.next) {
                self.next += 1;
                return Some(path.clone());
            }
            if self.gone.is_empty() || self.searches == 0 {
                return None;
            }
            self.searches -= 1;
            self.search();
        }
    }

    /// Notes that a file is not there any more ([`is_gone`]).
    pub fn is_not_there(&mut self, path: PathBuf) {
        self.gone.push(path);
    }

    /// The number of files that were moved or deleted and not found again.
    pub fn missing(&self) -> usize {
        self.gone.len()
    }

    /// Searches each maildir once for all of its mails that are gone. All other files have been read.
    fn search(&mut self) {
        let gone: HashSet<PathBuf> = std::mem::take(&mut self.gone).into_iter().collect();
        self.listed.retain(|path| !gone.contains(path));
        self.next = self.listed.len();
        let (mails, others): (Vec<_>, Vec<_>) = gone.into_iter().partition(|path| is_in_maildir(path));
        self.gone = others;
        let mut by_maildir: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
        for path in mails {
            let maildir = maildir_of(&path).unwrap_or(&path).to_owned();
            by_maildir.entry(maildir).or_default().push(path);
        }
        let read: HashSet<_> = self.listed.iter().filter_map(|path| mail_key(path)).collect();
        let mut found = BTreeSet::new();
        for (maildir, mails) in by_maildir {
            let now = mails_in(&maildir);
            for mail in mails {
                // A mail that moved while its maildir was listed has two names in the list.
                if mail_key(&mail).is_some_and(|key| read.contains(&key)) {
                    continue;
                }
                match unique_part(&mail).and_then(|unique| now.get(&unique)) {
                    Some(path) => {
                        found.insert(path.clone());
                    }
                    // It may be on its way between the two folders.
                    None => self.gone.push(mail),
                }
            }
        }
        drop(read);
        self.listed.extend(found);
    }
}

/// The maildir of a mail and the part of its name that stays.
fn mail_key(path: &Path) -> Option<(&Path, OsString)> {
    Some((path.parent()?.parent()?, unique_part(path)?))
}

/// The mails of a maildir by the part of their names that stays.
fn mails_in(maildir: &Path) -> HashMap<OsString, PathBuf> {
    let mut mails = HashMap::new();
    for folder in MAIL_FOLDERS.map(|name| maildir.join(name)) {
        let files = entries(&folder).unwrap_or_default().into_iter().filter(|(_, kind)| kind.is_file());
        for (file, _) in files {
            let path = folder.join(file);
            mails.extend(unique_part(&path).map(|unique| (unique, path)));
        }
    }
    mails
}

/// The part of a mail's name that stays when its flags change. They follow a colon, or another character on file systems
/// that allow no colon.
fn unique_part(path: &Path) -> Option<OsString> {
    let name = path.file_name()?;
    // Maildir names are ASCII; a name that is not is compared as a whole.
    let Some(text) = name.to_str() else { return Some(name.to_owned()) };
    let end = [":", ";2,", "!2,"].iter().filter_map(|begin| text.find(begin)).min();
    text.get(..end.unwrap_or(text.len())).map(Into::into)
}
