//! What the user of the service may not do, for `sternpost config check` as root, who may do everything: read the files with
//! secrets, and create sockets and the store in their folders. The user is the owner of the store or of its folder; the
//! groups are those of /etc/group and of `SupplementaryGroups=` in the unit and its drop-ins.

use super::unit_file::UnitFile;
use config::{Config, Listening};
use nix::unistd::geteuid;
use sender::serve::listen::Address;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Permission bits, as of the others.
const READ: u32 = 0o4;
const WRITE_AND_ENTER: u32 = 0o3;

/// The user of the service.
#[derive(Debug, PartialEq, Eq)]
pub struct ServiceUser {
    uid: u32,
    /// The IDs of the user's groups.
    groups: Vec<u32>,
}

impl ServiceUser {
    /// The user that the store belongs to, if this process is root and that user is not.
    pub fn find(store: &Path, root: &Path) -> Option<Self> {
        let owner = |path: &Path| std::fs::metadata(path).ok().filter(|found| found.uid() != 0);
        let found = owner(store).or_else(|| owner(store.parent()?)).filter(|_| geteuid().is_root())?;
        let table = |name: &str| std::fs::read_to_string(root.join("etc").join(name)).unwrap_or_default();
        let groups = groups(found.uid(), &table("passwd"), &table("group"), &supplementary_groups(root));
        Some(Self { uid: found.uid(), groups })
    }

    /// Whether the user has these permissions (bits as of the others) at a file or folder.
    fn may(&self, place: &Metadata, bits: u32) -> bool {
        let granted = match () {
            () if place.uid() == self.uid => place.mode() >> 6,
            () if self.groups.contains(&place.gid()) => place.mode() >> 3,
            () => place.mode(),
        };
        granted & bits == bits
    }

    /// The secrets that the user can't read, and the folders in which the user can't create a socket: what is wrong, and
    /// what to do.
    pub fn lacks(&self, config: &Config, listening: &[Listening]) -> Vec<(String, String)> {
        let shown = config::user_name(self.uid).unwrap_or(self.uid.to_string());
        let mut found = Vec::new();
        for (key, file) in config.secret_files() {
            let is_unreadable = |place: &Metadata| place.is_file() && !self.may(place, READ);
            if std::fs::metadata(&file).is_ok_and(|place| is_unreadable(&place)) {
                found.push((
                    format!("{key}: the user {shown} of the service can't read {}", file.display()),
                    format!("chgrp {shown} {0} && chmod g+r {0}", file.display()),
                ));
            }
        }
        for one in listening {
            let Address::Unix(path) = &one.address else { continue };
            // Only the collector creates folders; those of other sockets are missed elsewhere.
            let is_created = one.key == "collector.socket";
            let parent = || path.parent().filter(|folder| folder.is_dir()).map(Path::to_owned);
            let Some(folder) = (if is_created { existing_folder(path) } else { parent() }) else { continue };
            if std::fs::metadata(&folder).is_ok_and(|place| !self.may(&place, WRITE_AND_ENTER)) {
                let remedy = match one.key {
                    "collector.socket" => crate::serve::reporting::socket_permission_remedy(path),
                    _ => format!("Choose a folder that {shown} can write to, such as /run/sternpost."),
                };
                found.push((
                    format!(
                        "{}: the user {shown} of the service can't write to {}",
                        one.key,
                        folder.display()
                    ),
                    remedy,
                ));
            }
        }
        found
    }
}

/// The nearest folder above a path that exists: those below it are created in it.
fn existing_folder(path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_owned)
}

/// The groups of a user: of passwd(5), of group(5), and these further ones by name or number.
fn groups(uid: u32, passwd: &str, group: &str, further: &[String]) -> Vec<u32> {
    let uid = uid.to_string();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid.as_str()));
    let name = entry.as_ref().and_then(|fields| fields.first().copied()).unwrap_or_default();
    let own = entry.as_ref().and_then(|fields| fields.get(3)?.parse().ok());
    let listed = group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (title, id) = (fields.first()?, fields.get(2)?);
        let has_member = !name.is_empty() && fields.get(3)?.split(',').any(|member| member == name);
        let is_further = further.iter().any(|other| other == title || other == id);
        (has_member || is_further).then(|| id.parse().ok())?
    });
    own.into_iter().chain(listed).collect()
}

/// The values of `SupplementaryGroups=` in the unit and its drop-ins.
fn supplementary_groups(root: &Path) -> Vec<String> {
    UnitFile::read(root).list("SupplementaryGroups").into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nsternpost:x:990:991::/:/bin/false\n";
    const GROUP: &str = "root:x:0:\nsternpost:x:991:\nssl-cert:x:105:other,sternpost\npostfix:x:115:\n";

    #[test]
    fn the_groups_of_the_service_are_those_of_the_tables_and_of_its_drop_ins() {
        assert_eq!(groups(990, PASSWD, GROUP, &[]), [991, 105]);
        assert_eq!(groups(990, PASSWD, GROUP, &["postfix".to_owned()]), [991, 105, 115]);
        assert_eq!(groups(7, PASSWD, GROUP, &[]), [] as [u32; 0]);
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/systemd/system/sternpost.service.d");
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(supplementary_groups(root.path()), [] as [&str; 0]);
        std::fs::write(folder.join("reports.conf"), "[Service]\nSupplementaryGroups=postfix ssl-cert\n")
            .unwrap();
        assert_eq!(supplementary_groups(root.path()), ["postfix", "ssl-cert"]);
    }

    #[test]
    fn what_root_can_do_and_the_service_can_not_is_found() {
        if !geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("etc")).unwrap();
        std::fs::write(at("etc/passwd"), PASSWD).unwrap();
        std::fs::write(at("etc/group"), GROUP).unwrap();
        for folder in ["lib", "spool"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        std::fs::write(at("lib/s.db"), "").unwrap();
        chown(at("lib"), Some(990), Some(991)).unwrap();
        chown(at("lib/s.db"), Some(990), Some(991)).unwrap();
        chown(at("spool"), Some(0), Some(115)).unwrap();
        std::fs::set_permissions(at("spool"), Permissions::from_mode(0o2770)).unwrap();
        std::fs::write(at("admin.token"), "x").unwrap();
        std::fs::set_permissions(at("admin.token"), Permissions::from_mode(0o600)).unwrap();
        let text = "store = \"sqlite:lib/s.db\"\n[collector]\nsocket = \"spool/tlsrpt.sock\"\n[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"admin.token\"\n";
        let config = Config::parse(text, Some(at("s.toml"))).unwrap();
        let found = || {
            let user = ServiceUser::find(config.store.file().unwrap(), root.path()).unwrap();
            let all = user.lacks(&config, &config.listening());
            all.into_iter().map(|(what, remedy)| format!("{what}\n{remedy}")).collect::<Vec<_>>()
        };
        let all = found();
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(
            all[0].contains("admin.token_file") && all[1].contains("SupplementaryGroups=postfix"),
            "{all:?}"
        );
        chown(at("admin.token"), Some(0), Some(991)).unwrap();
        std::fs::set_permissions(at("admin.token"), Permissions::from_mode(0o640)).unwrap();
        let folder = at("etc/systemd/system/sternpost.service.d");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("reports.conf"), "[Service]\nSupplementaryGroups=postfix\n").unwrap();
        assert_eq!(found(), [] as [&str; 0]);
        chown(at("lib"), Some(0), Some(0)).unwrap();
        chown(at("lib/s.db"), Some(0), Some(0)).unwrap();
        assert_eq!(ServiceUser::find(config.store.file().unwrap(), root.path()), None);
    }
}
