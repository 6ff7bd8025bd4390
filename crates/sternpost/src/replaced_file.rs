//! Writes a file that people or a web server read: whole under another name first, then renamed. Nobody reads half of it, and
//! a link of that name is replaced, not followed, so that root can write into the folder of another user. Two programs that
//! write the same file at once have names of their own; one of the files stays.
//!
//! A file that exists keeps its mode and owner, and a new one can be read by all, whatever the umask is: what a web server
//! can't read any more, senders lose within `max_age`.

use std::fs::{Permissions, create_dir_all, set_permissions, symlink_metadata};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

/// The mode of a new file, and of a new folder.
const NEW_FILE: u32 = 0o644;
const NEW_FOLDER: u32 = 0o755;

/// Writes a file, in the place of one that exists.
///
/// # Errors
///
/// If the folder does not exist or can't be written to. Then the file is as before.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let before = symlink_metadata(path).ok().filter(std::fs::Metadata::is_file);
    // Removed if an error follows.
    let mut file = tempfile::Builder::new().prefix(".").suffix(".new").tempfile_in(folder)?;
    file.write_all(content.as_ref())?;
    let mut mode = NEW_FILE;
    if let Some(before) = before {
        mode = before.mode() & 0o777;
        let now = file.as_file().metadata()?;
        let changed = |now: u32, before: u32| (now != before).then_some(before);
        let (owner, group) = (changed(now.uid(), before.uid()), changed(now.gid(), before.gid()));
        // Only root can give a file away, and its owner can give it to a group of theirs only.
        // A web server that read the file as one of the group reads it as one of all otherwise.
        if fchown(file.as_file(), owner, group).is_err() && fchown(file.as_file(), None, group).is_err() {
            mode |= (mode & 0o040) >> 3;
        }
    }
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Creates a folder and those that it is in, which all users can list, whatever the umask is.
///
/// # Errors
///
/// If one of them can't be created.
pub fn create_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|one| !one.exists()).collect();
    create_dir_all(folder)?;
    for one in missing.into_iter().filter(|one| !one.as_os_str().is_empty()) {
        set_permissions(one, Permissions::from_mode(NEW_FOLDER))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Uid;
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
    fn a_file_keeps_its_mode_and_owner_and_a_new_one_is_for_all_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        let path = dir.path().join("a/b/mta-sts.txt");
        create_folders(path.parent().unwrap()).unwrap();
        // The temporary file has mode 0600 as under a umask of 077.
        replace(&path, "one").unwrap();
        assert_eq!(
            (mode(&path), mode(&dir.path().join("a")), mode(&dir.path().join("a/b"))),
            (0o644, 0o755, 0o755)
        );
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        set_permissions(dir.path().join("a"), Permissions::from_mode(0o750)).unwrap();
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(&path, Some(33), Some(34)).unwrap();
        }
        let owner = |path: &Path| std::fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
        let before = owner(&path);
        create_folders(path.parent().unwrap()).unwrap();
        replace(&path, "two").unwrap();
        assert_eq!((mode(&path), mode(&dir.path().join("a")), owner(&path)), (0o640, 0o750, before));
    }

    #[test]
    fn nobody_reads_half_of_a_file_that_several_write_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mta-sts.txt");
        let content = |letter: &str| letter.repeat(10_000);
        replace(&path, content("a")).unwrap();
        std::thread::scope(|scope| {
            let writers = ["a", "b"].map(|letter| {
                let path = &path;
                scope.spawn(move || (0..200).for_each(|_| replace(path, content(letter)).unwrap()))
            });
            while writers.iter().any(|writer| !writer.is_finished()) {
                let read = std::fs::read_to_string(&path).unwrap();
                assert!(read == content("a") || read == content("b"), "{} bytes", read.len());
            }
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
