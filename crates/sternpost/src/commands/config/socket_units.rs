//! The socket units of this machine that hand sockets to the service, and whether the configuration takes them. Outside of
//! the unit, `sternpost config check` has no other way to know what systemd will hand over.

use super::unit_file::UNIT_FOLDERS;
use config::Listening;
use sender::serve::listen::Address;
use std::collections::BTreeMap;
use std::path::Path;

/// The folders with links to the units that are enabled.
const ENABLED_FOLDERS: [&str; 2] = ["etc/systemd/system", "run/systemd/system"];

/// The service that takes the sockets.
const SERVICE: &str = "sternpost.service";

/// A key and a socket unit that do not fit together.
#[derive(Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// No unit hands over the sockets of an address.
    Missing { key: &'static str, address: Address },
    /// The unit that does so is not enabled.
    Disabled { key: &'static str, address: Address, unit: String },
    /// An enabled unit whose sockets no key takes.
    Unused { unit: String, name: String },
}

/// A socket unit of the service.
#[derive(Debug)]
struct SocketUnit {
    /// The name that its sockets have (FileDescriptorName=).
    name: String,
    is_enabled: bool,
}

/// What does not fit together of the listen addresses and the socket units below `root`.
pub fn mismatches(listening: &[Listening], root: &Path) -> Vec<Mismatch> {
    let units = units(root);
    let named: Vec<&str> = listening.iter().filter_map(|one| socket_name(&one.address)).collect();
    let takes_all = listening.iter().any(|one| one.address == Address::Systemd(None));
    let mut found = Vec::new();
    for one in listening {
        let Address::Systemd(name) = &one.address else { continue };
        let is_of = |unit: &SocketUnit| match name {
            Some(name) => unit.name == *name,
            None => !named.contains(&unit.name.as_str()),
        };
        let mut fit = units.iter().filter(|(_, unit)| is_of(unit)).peekable();
        let (key, address) = (one.key, one.address.clone());
        let first = fit.peek().map(|(unit, _)| (*unit).clone());
        match (first, fit.any(|(_, unit)| unit.is_enabled)) {
            (None, _) => found.push(Mismatch::Missing { key, address }),
            (Some(unit), false) => found.push(Mismatch::Disabled { key, address, unit }),
            (Some(_), true) => {}
        }
    }
    let is_unused = |unit: &SocketUnit| unit.is_enabled && !takes_all && !named.contains(&unit.name.as_str());
    let unused = units.into_iter().filter(|(_, unit)| is_unused(unit));
    found.extend(unused.map(|(file, unit)| Mismatch::Unused { unit: file, name: unit.name }));
    found
}

fn socket_name(address: &Address) -> Option<&str> {
    match address {
        Address::Systemd(name) => name.as_deref(),
        _ => None,
    }
}

/// The socket units of the service, by the name of their file.
fn units(root: &Path) -> BTreeMap<String, SocketUnit> {
    let mut found = BTreeMap::new();
    for folder in UNIT_FOLDERS.map(|folder| root.join(folder)) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if !file.ends_with(".socket") || found.contains_key(&file) {
                continue;
            }
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if let Some(name) = socket_of(&file, &text) {
                let is_enabled = is_enabled(root, &file);
                found.insert(file, SocketUnit { name, is_enabled });
            }
        }
    }
    found
}

/// The name of the sockets that a unit hands to the service; `None` if it belongs to another service.
fn socket_of(file: &str, text: &str) -> Option<String> {
    let value = |key: &str| {
        let mut set =
            text.lines().filter_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='));
        set.next_back().map(str::trim).filter(|value| !value.is_empty())
    };
    let is_ours = value("Service").map_or(file == "sternpost.socket", |service| service == SERVICE);
    // Without a name of their own, sockets have that of their unit.
    is_ours.then(|| value("FileDescriptorName").unwrap_or(file).to_owned())
}

/// True if a link in a folder such as `sockets.target.wants` names the unit.
fn is_enabled(root: &Path, file: &str) -> bool {
    let is_for_units = |name: &str| name.ends_with(".wants") || name.ends_with(".requires");
    ENABLED_FOLDERS.iter().any(|folder| {
        let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let mut links = entries.filter(|entry| is_for_units(&entry.file_name().to_string_lossy()));
        links.any(|entry| std::fs::symlink_metadata(entry.path().join(file)).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Config;

    fn root(units: &[(&str, &str, bool)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let (vendor, wants) = ("usr/lib/systemd/system", "etc/systemd/system/sockets.target.wants");
        for folder in [vendor, wants] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for (file, text, is_enabled) in units {
            std::fs::write(root.path().join(vendor).join(file), text).unwrap();
            if *is_enabled {
                let target = format!("/{vendor}/{file}");
                std::os::unix::fs::symlink(target, root.path().join(wants).join(file)).unwrap();
            }
        }
        root
    }

    fn found(text: &str, units: &[(&str, &str, bool)]) -> Vec<Mismatch> {
        let root = root(units);
        mismatches(&Config::parse(text, None).unwrap().listening(), root.path())
    }

    const ANSWERS: &str = include_str!("../../../../../packaging/sternpost-answers.socket");
    const POLICY: &str = include_str!("../../../../../packaging/sternpost-policy.socket");
    const BOTH: &str = "[answers]\nlisten = [\"systemd:answers\"]\n[host]\nlisten = [\"systemd:policy\"]\n";

    #[test]
    fn a_socket_that_no_unit_hands_over_and_one_that_no_key_takes_are_found() {
        let is_named = |mismatch: &Mismatch, file: &str| match mismatch {
            Mismatch::Disabled { unit, .. } | Mismatch::Unused { unit, .. } => unit == file,
            Mismatch::Missing { .. } => false,
        };
        let units = |policy: bool| {
            [("sternpost-answers.socket", ANSWERS, true), ("sternpost-policy.socket", POLICY, policy)]
        };
        assert_eq!(found(BOTH, &units(true)), []);
        let disabled = found(BOTH, &units(false));
        assert!(disabled.len() == 1 && is_named(&disabled[0], "sternpost-policy.socket"), "{disabled:?}");
        let missing = found(BOTH, &[("sternpost-answers.socket", ANSWERS, true)]);
        let address = Address::Systemd(Some("policy".into()));
        assert_eq!(missing, [Mismatch::Missing { key: "host.listen", address }]);
        let unused = found("[answers]\nlisten = [\"systemd:answers\"]\n", &units(true));
        assert!(unused.len() == 1 && is_named(&unused[0], "sternpost-policy.socket"), "{unused:?}");
        // Units that nobody has enabled, and those of others, are no problem.
        let other = "[Socket]\nListenStream=1\nFileDescriptorName=policy\nService=other.service\n";
        assert_eq!(
            found(
                "[guard]\n",
                &[("sternpost-answers.socket", ANSWERS, false), ("other.socket", other, true)]
            ),
            []
        );
        assert_eq!(
            found("[answers]\nlisten = [\"systemd\"]\n", &[("sternpost-answers.socket", ANSWERS, true)]),
            []
        );
        assert_eq!(found("[answers]\nlisten = [\"systemd\"]\n", &[]).len(), 1);
    }

    #[test]
    fn the_unit_of_the_operator_replaces_that_of_the_package() {
        let root = root(&[("sternpost-answers.socket", ANSWERS, true)]);
        let own = root.path().join("etc/systemd/system/sternpost-answers.socket");
        std::fs::write(own, ANSWERS.replace("FileDescriptorName=answers", "FileDescriptorName = mine"))
            .unwrap();
        let config = Config::parse("[answers]\nlisten = [\"systemd:mine\"]\n", None).unwrap();
        assert_eq!(mismatches(&config.listening(), root.path()), []);
        assert_eq!(socket_of("sternpost.socket", ""), Some("sternpost.socket".to_owned()));
    }

    #[test]
    fn every_packaged_socket_unit_has_a_name_and_belongs_to_the_service() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let file = entry.file_name().into_string().unwrap();
            if file.ends_with(".socket") {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let name = socket_of(&file, &text).unwrap();
                assert!(text.contains("Service=sternpost.service") && !name.ends_with(".socket"), "{file}");
                assert!(
                    text.contains(&format!("\"systemd:{name}\"")),
                    "{file} does not name the key that uses {name}"
                );
                assert!(text.contains(&format!("enable --now {file}")), "{file}");
                names.push(name);
            }
        }
        names.sort();
        assert_eq!(names, ["answers", "http", "policy", "smtp", "tlsrpt"]);
    }
}
