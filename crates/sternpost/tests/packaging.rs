//! What a release consists of, without building it: file lists, versions, the example configuration, the image's script.
//! `./test packages` builds the packages and tries them.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::Table;

/// The version of this release.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where packaging/build puts what it makes; the sources of other files are relative to the crate.
const STAGE: &str = "../../target/packages/stage/";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The assets of both packages: source and the folder or file that it becomes, without the leading slash.
fn assets(of: &str) -> Vec<(String, String)> {
    let manifest: Table = read("crates/sternpost/Cargo.toml").parse().unwrap();
    let listed = manifest["package"]["metadata"][of]["assets"].as_array().unwrap().clone();
    let text = |value: &toml::Value| value.as_str().unwrap().trim_start_matches('/').to_owned();
    let asset = |asset: toml::Value| match &asset {
        toml::Value::Array(fields) => (text(&fields[0]), text(&fields[1])),
        _ => (text(&asset["source"]), text(&asset["dest"])),
    };
    listed.into_iter().map(asset).collect()
}

/// The files that a source names; its file name may be `*.` with an extension.
fn files(source: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let Some(extension) = source.rsplit_once("/*.").map(|(_, extension)| extension) else {
        return Some(path).filter(|path| path.is_file()).into_iter().collect();
    };
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

#[test]
fn the_packages_list_files_that_exist_and_every_unit() {
    let is_unit = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("service" | "socket" | "sysusers" | "tmpfiles"))
    };
    let packaging = std::fs::read_dir(repository().join("packaging")).unwrap();
    let units: BTreeSet<_> = packaging
        .map(|entry| entry.unwrap().path())
        .filter(is_unit)
        .map(|path| path.canonicalize().unwrap())
        .collect();
    assert!(units.len() > 3, "{units:?}");
    for package in ["deb", "generate-rpm"] {
        let mut packed = BTreeSet::new();
        for (source, _) in assets(package).iter().filter(|(source, _)| !source.starts_with(STAGE)) {
            let found = files(source);
            assert!(!found.is_empty(), "{package}: there is no {source}");
            packed.extend(found.into_iter().map(|path| path.canonicalize().unwrap()));
        }
        let missing: Vec<_> = units.difference(&packed).collect();
        assert!(missing.is_empty(), "{package} does not have {missing:?}");
    }
}

#[test]
fn both_packages_put_the_same_files_to_the_same_places() {
    // Each distribution decides where documents, licenses and completions of zsh are.
    let own = |dest: &str| {
        ["usr/share/doc/", "usr/share/licenses/", "usr/share/lintian/", "usr/share/zsh/"]
            .iter()
            .any(|begin| dest.starts_with(begin))
    };
    let places = |package| -> BTreeMap<String, String> {
        let place = |(source, dest): (String, String)| {
            let name = source.rsplit('/').next().unwrap_or_default().to_owned();
            let dest = if dest.ends_with('/') { format!("{dest}{name}") } else { dest };
            (source, dest)
        };
        assets(package).into_iter().map(place).filter(|(_, dest)| !own(dest)).collect()
    };
    assert_eq!(places("deb"), places("generate-rpm"));
}

#[test]
fn the_version_is_the_same_everywhere() {
    let changelog = read("packaging/debian/changelog");
    assert!(
        changelog.starts_with(&format!("sternpost ({VERSION}-")),
        "{}",
        changelog.lines().next().unwrap()
    );
    let compose = read("packaging/compose.yaml");
    assert!(compose.contains(&format!("image: localhost/sternpost:{VERSION}\n")));
}

/// Runs `sternpost config check` on a configuration whose store is moved to a temporary folder.
fn check_config(text: &str) {
    let place = tempfile::tempdir().unwrap();
    assert!(text.contains("sqlite:/var/lib/sternpost/"), "{text}");
    let text = text.replace("/var/lib/sternpost", place.path().to_str().unwrap());
    let file = place.path().join("sternpost.toml");
    std::fs::write(&file, &text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    // The check also asks the resolver, which is another one on each machine.
    command.env("STERNPOST_DNS_SERVERS", "127.0.0.1:1");
    let output = command.arg("--config").arg(file).args(["config", "check"]).output().unwrap();
    assert!(
        output.status.success(),
        "{text}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_example_configuration_answers_on_loopback_and_does_nothing_else() {
    let text = read("packaging/sternpost.toml");
    let set: Table = text.parse().unwrap();
    assert_eq!(set.keys().collect::<Vec<_>>(), ["answers", "store"]);
    assert_eq!(set["answers"], toml::Value::Table("listen = [\"127.0.0.1:8461\"]".parse().unwrap()));
    check_config(&text);
}

#[test]
fn the_compose_file_configures_the_resolver_that_it_starts() {
    let compose = read("packaging/compose.yaml");
    let begin = "  sternpost:\n    content: |\n";
    let block = compose.split_once(begin).unwrap().1.lines().take_while(|line| line.starts_with("      "));
    let config: String = block.map(|line| format!("{}\n", line.trim_start())).collect();
    check_config(&config);
    let set: Table = config.parse().unwrap();
    let server = set["dns"]["servers"][0].as_str().unwrap();
    let address = server.strip_suffix(":53").unwrap();
    assert!(compose.contains(&format!("ipv4_address: {address}\n")), "{server}");
    let published: Vec<_> = compose.lines().filter(|line| line.contains("ports:")).collect();
    assert_eq!(published, [r#"    ports: ["127.0.0.1:8461:8461"]"#]);
}

/// The members of an uncompressed tar file: name and content.
fn members(tar: &[u8]) -> Vec<(String, &[u8])> {
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.iter().copied().take_while(|byte| *byte != 0).collect()).unwrap()
    };
    let mut found = Vec::new();
    let mut rest = tar;
    while rest[0] != 0 {
        let size = usize::from_str_radix(text(&rest[124..136]).trim(), 8).unwrap();
        found.push((text(&rest[..100]), &rest[512..512 + size]));
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    found
}

#[test]
fn the_image_is_named_by_its_content_which_is_the_same_from_any_folder() {
    let image = |program: &str| {
        let place = tempfile::tempdir().unwrap();
        let [files, out] = ["files", "out.tar"].map(|name| place.path().join(name));
        std::fs::create_dir(&files).unwrap();
        std::fs::write(files.join("program"), program).unwrap();
        std::fs::write(files.join("roots.pem"), "roots").unwrap();
        let mut command = Command::new("python3");
        command
            .arg(repository().join("packaging/image.py"))
            .args([files.join("program"), files.join("roots.pem")]);
        let output =
            command.args([VERSION, "abc"]).arg(&out).env("SOURCE_DATE_EPOCH", "1790000000").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(out).unwrap()
    };
    let (one, again, other) = (image("program"), image("program"), image("other program"));
    assert!(one == again && one != other);
    let members = members(&one);
    let blobs: Vec<_> = members.iter().filter(|(name, _)| name.starts_with("blobs/")).collect();
    assert_eq!(blobs.len(), 3, "configuration, layer, manifest");
    for (name, content) in &blobs {
        let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(*name, format!("blobs/sha256/{digest}"));
    }
    let config: serde_json::Value = serde_json::from_slice(blobs[0].1).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    let variables = config["config"]["Env"].as_array().unwrap();
    let temporary = variables.iter().filter_map(|one| one.as_str()?.strip_prefix("SQLITE_TMPDIR="));
    assert!(temporary.eq(config["config"]["Volumes"].as_object().unwrap().keys()), "{variables:?}");
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], VERSION);
    assert_eq!(config["created"], "2026-09-21T14:13:20Z");
}
