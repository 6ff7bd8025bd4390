//! Writes a file that people or a web server read: whole under another name first, then renamed. Nobody reads half of it, and
//! a link of that name is replaced, not followed, so that root can write into the folder of another user. A file that exists
//! hands its permissions and its owner on.

use std::fs::{Metadata, Permissions, symlink_metadata};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use tempfile::Builder;

/// The permissions of a new file: a web server of another user has to read it.
const NEW_FILE: u32 = 0o644;

/// Writes a file, in the place of one that exists.
///
/// # Errors
///
/// If the folder does not exist or can't be written to. Then the file is as before.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A link has no permissions of its own.
    let before: Option<Metadata> = symlink_metadata(path).ok().filter(Metadata::is_file);
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    // The name is another one each time, for those that write the same file at once.
    let mut file = Builder::new().prefix(&prefix).suffix(".new").tempfile_in(folder)?;
    file.write_all(content.as_ref())?;
    if let Some(before) = &before {
        let now = file.as_file().metadata()?;
        if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
            // Only root may; the file of another user then becomes one's own, as with an editor.
            let _ = fchown(file.as_file(), Some(before.uid()), Some(before.gid()));
        }
    }
    let mode = before.map_or(NEW_FILE, |before| before.mode() & 0o777);
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|failed| failed.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_replaced_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("page.1"), dir.path().join("victim"));
        std::fs::write(&victim, "another's").unwrap();
        symlink(&victim, &path).unwrap();
        replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "another's");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(replace(&dir.path().join("none/page"), "x").is_err());
        // A folder of that name stays.
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(replace(&dir.path().join("folder"), "x").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_web_server_reads_a_new_file_and_one_that_exists_keeps_its_permissions_and_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mta-sts.txt");
        let facts = || {
            let found = std::fs::metadata(&path).unwrap();
            (found.mode() & 0o777, found.uid(), found.gid())
        };
        replace(&path, "one").unwrap();
        let (mode, own, group) = facts();
        assert_eq!(mode, 0o644);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        // Only root can give a file away.
        let other = if own == 0 { 1234 } else { own };
        std::os::unix::fs::chown(&path, Some(other), None).unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(facts(), (0o640, other, group));
    }

    #[test]
    fn of_two_that_write_at_once_a_reader_sees_one_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mta-sts.txt");
        replace(&path, "a".repeat(4000)).unwrap();
        std::thread::scope(|scope| {
            for letter in ["a", "b"] {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..100 {
                        replace(path, letter.repeat(4000)).unwrap();
                    }
                });
            }
            for _ in 0..300 {
                let text = std::fs::read_to_string(&path).unwrap();
                let first = text.chars().next().unwrap();
                assert_eq!(text, first.to_string().repeat(4000));
            }
        });
    }
}
