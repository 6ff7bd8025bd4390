//! The settings of the service's unit on this machine: the unit of the first folder that has one, and then its drop-ins in the
//! order of their names, of which a later setting replaces an earlier one (systemd.unit(5)).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folders with units and drop-ins, the most important first.
pub const UNIT_FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The unit of `sternpost serve`.
const SERVICE: &str = "sternpost.service";

/// The settings of the unit in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UnitFile(Vec<(String, String)>);

impl UnitFile {
    /// Reads the unit and its drop-ins below `root`. Without a unit there are no settings.
    pub fn read(root: &Path) -> Self {
        let folders = || UNIT_FOLDERS.iter().map(|folder| root.join(folder));
        let unit = folders().map(|folder| folder.join(SERVICE)).find(|file| file.is_file());
        // Of drop-ins with one name, the one in the most important folder counts.
        let mut drop_ins: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for folder in folders() {
            let entries =
                std::fs::read_dir(folder.join(format!("{SERVICE}.d"))).into_iter().flatten().flatten();
            for file in entries
                .map(|entry| entry.path())
                .filter(|file| file.extension().is_some_and(|ext| ext == "conf"))
            {
                drop_ins.entry(file.file_name().map(PathBuf::from).unwrap_or_default()).or_insert(file);
            }
        }
        let texts = unit.into_iter().chain(drop_ins.into_values());
        let texts = texts.filter_map(|file| std::fs::read_to_string(file).ok());
        let settings = texts.flat_map(|text| text.lines().filter_map(setting).collect::<Vec<_>>());
        Self(settings.collect())
    }

    /// The words of all assignments of a list; an empty one removes those before it.
    pub fn list(&self, key: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for value in self.values(key) {
            if value.is_empty() {
                words.clear();
            }
            words.extend(value.split_whitespace());
        }
        words
    }

    /// The last assignment of a setting.
    pub fn last(&self, key: &str) -> Option<&str> {
        self.values(key).last()
    }

    /// Whether a setting is on.
    pub fn is_on(&self, key: &str) -> bool {
        self.last(key).is_some_and(|value| ["yes", "true", "on", "1"].contains(&value))
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn setting(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once('=').filter(|_| !line.starts_with(['#', ';']))?;
    Some((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_unit_counts_and_drop_ins_come_after_it_in_the_order_of_their_names() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(UnitFile::read(root.path()), UnitFile::default());
        let write = |path: &str, text: &str| {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("usr/lib/systemd/system/sternpost.service", "[Service]\nNoNewPrivileges=no\n");
        write(
            "etc/systemd/system/sternpost.service",
            "# NoNewPrivileges=no\nNoNewPrivileges=yes\nReadWritePaths=-/a /b\nProtectSystem=strict\n",
        );
        write("usr/lib/systemd/system/sternpost.service.d/b.conf", "ReadWritePaths=/lost\n");
        write("etc/systemd/system/sternpost.service.d/b.conf", "ReadWritePaths=/c\nProtectSystem = full\n");
        write("run/systemd/system/sternpost.service.d/a.conf", "ReadWritePaths=\nProtectSystem=no\n");
        write("etc/systemd/system/sternpost.service.d/z.conf.off", "NoNewPrivileges=no\n");
        let unit = UnitFile::read(root.path());
        assert!(unit.is_on("NoNewPrivileges") && !unit.is_on("PrivateTmp"));
        assert_eq!(unit.list("ReadWritePaths"), ["/c"]);
        assert_eq!(unit.last("ProtectSystem"), Some("full"));
    }
}
