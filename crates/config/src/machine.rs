//! This machine as commands and roles see it: its host name, and the users that files belong to. A command that root runs
//! gives the files that it creates to the user that the service runs as, whom it knows by the owner of their folder.

use crate::owner;
use nix::unistd::{Uid, geteuid};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

/// The mode of a secret that the group of its folder can read.
const GROUP_READABLE: u32 = 0o640;

/// The host name; empty if the system has none.
pub fn host_name() -> String {
    nix::unistd::gethostname().unwrap_or_default().to_string_lossy().trim().to_owned()
}

/// The name of the user that a file belongs to, or its folder if there is no such file. `None` if it is the user of this
/// process or has no name, and for root, who may open every file.
pub fn other_owner(file: &Path) -> Option<String> {
    let metadata = std::fs::metadata(file).or_else(|_| std::fs::metadata(folder(file))).ok()?;
    let uid = Uid::from_raw(metadata.uid());
    (uid != geteuid() && !geteuid().is_root()).then(|| owner::user_name(uid.as_raw()))?
}

/// Lets a secret that root has just created be read by the owner of its folder: the folder's owner owns it, or the
/// folder's group can read it if root owns the folder. Does nothing for other users.
///
/// # Errors
///
/// If the owner or the mode can't be changed.
pub fn give_to_service(secret: &File, path: &Path) -> io::Result<()> {
    let folder = std::fs::metadata(folder(path))?;
    match (geteuid().is_root(), folder.uid(), folder.gid()) {
        (false, ..) | (true, 0, 0) => Ok(()),
        (true, 0, group) => {
            fchown(secret, None, Some(group))?;
            secret.set_permissions(Permissions::from_mode(GROUP_READABLE))
        }
        (true, owner, group) => fchown(secret, Some(owner), Some(group)),
    }
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::chown;

    #[test]
    fn a_secret_of_root_is_readable_for_the_owner_or_the_group_of_its_folder() {
        assert!(!host_name().is_empty());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let is_root = geteuid().is_root();
        for (owner, group, expected) in
            [(0, 0, (0, 0, 0o600)), (0, 4712, (0, 4712, 0o640)), (4711, 4712, (4711, 4712, 0o600))]
        {
            if is_root {
                chown(dir.path(), Some(owner), Some(group)).unwrap();
            }
            let _ = std::fs::remove_file(&path);
            let file = File::create(&path).unwrap();
            file.set_permissions(Permissions::from_mode(0o600)).unwrap();
            give_to_service(&file, &path).unwrap();
            let metadata = std::fs::metadata(&path).unwrap();
            let found = (metadata.uid(), metadata.gid(), metadata.mode() & 0o777);
            match is_root {
                true => assert_eq!(found, expected),
                false => assert_eq!((found.0, found.2), (geteuid().as_raw(), 0o600)),
            }
            assert_eq!(other_owner(&path), None);
        }
    }
}
