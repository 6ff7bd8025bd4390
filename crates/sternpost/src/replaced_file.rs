//! Writes a file that people or a web server read: whole under another name first, then renamed. Nobody reads half of it, and
//! a link of that name is replaced, not followed, so that root can write into the folder of another user.

use std::fs::{OpenOptions, remove_file, rename};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Writes a file, in the place of one that exists.
///
/// # Errors
///
/// If the folder does not exist or can't be written to. Then the file is as before.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let temporary = path.with_file_name(temporary);
    // Left by a program that was killed, or a link.
    match remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    let written = file.write_all(content.as_ref()).and_then(|()| rename(&temporary, path));
    if written.is_err() {
        let _ = remove_file(&temporary);
    }
    written
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
        symlink(&victim, dir.path().join(".page.1.new")).unwrap();
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
}
