//! `packaging/compose.yaml`: what it names exists, in itself, in the image, and in the configuration that it contains. The trials of
//! the packages run both programs as it configures them (`packaging/trials/image.py`).

use super::{packaging, said};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use toml::Table;

/// Keys of the Compose specification that the file may have; another one is a spelling mistake, which Compose refuses.
const SERVICE_KEYS: [&str; 16] = [
    "build",
    "cap_drop",
    "command",
    "configs",
    "depends_on",
    "environment",
    "image",
    "networks",
    "ports",
    "read_only",
    "restart",
    "secrets",
    "security_opt",
    "tmpfs",
    "user",
    "volumes",
];

/// Runs Python in the folder of the packaging, and reads the JSON that it prints.
fn python(code: &str) -> Value {
    let mut command = Command::new("/usr/bin/python3");
    let output = command.current_dir(packaging()).args(["-c", code]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn compose() -> Value {
    python("import json, sys, yaml; json.dump(yaml.safe_load(open('compose.yaml')), sys.stdout)")
}

/// The image as `image.py` makes it: its name, its configuration, and its folders with mode and owner.
fn image() -> Value {
    let version = env!("CARGO_PKG_VERSION");
    python(&format!(
        "import json, sys, tempfile; sys.dont_write_bytecode = True; sys.path.insert(0, '.'); import image\n\
         with tempfile.NamedTemporaryFile() as file:\n\
         \x20   files = dict(image.image(file.name, file.name, '{version}', 'abc', 0))\n\
         index = json.loads(files['index.json'])\n\
         name = index['manifests'][0]['annotations']['org.opencontainers.image.ref.name']\n\
         settings = image.config('{version}', 'abc', 0, 'x')['config']\n\
         json.dump({{'name': name, 'settings': settings, 'folders': image.FOLDERS}}, sys.stdout)"
    ))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().map(|all| all.iter().map(|one| one.as_str().unwrap()).collect()).unwrap_or_default()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(|all| all.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// The names in a list of texts, or of tables with a member `source`, or the keys of a table.
fn named(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Array(all) => all.iter().map(|one| one["source"].as_str().or(one.as_str()).unwrap()).collect(),
        other => keys(other),
    }
}

/// The text of a configuration of the file.
fn content<'a>(compose: &'a Value, name: &str) -> &'a str {
    compose["configs"][name]["content"].as_str().unwrap()
}

#[test]
fn everything_that_the_compose_file_refers_to_is_in_it() {
    let compose = compose();
    let top: BTreeSet<&str> = ["configs", "name", "networks", "services", "volumes"].into();
    assert_eq!(keys(&compose), top);
    let services = keys(&compose["services"]);
    for name in &services {
        let service = &compose["services"][*name];
        let unknown: Vec<&str> = keys(service).difference(&SERVICE_KEYS.into()).copied().collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        assert!(service.get("image").is_some() != service.get("build").is_some(), "{name}: image or build");
        for (part, all) in [
            ("depends_on", services.clone()),
            ("networks", keys(&compose["networks"])),
            ("configs", keys(&compose["configs"])),
        ] {
            let used = named(&service[part]);
            assert!(used.is_subset(&all), "{name}: {part} {used:?}");
        }
    }
    let used: BTreeSet<&str> =
        services.iter().flat_map(|name| named(&compose["services"][*name]["configs"])).collect();
    assert_eq!(used, keys(&compose["configs"]), "a configuration that no service has");
}

#[test]
fn the_compose_file_fits_the_image() {
    let (compose, image) = (compose(), image());
    let service = &compose["services"]["sternpost"];
    assert_eq!(service["image"], image["name"]);
    let settings = &image["settings"];
    let user = settings["User"].as_str().unwrap();
    assert!(
        service.get("user").is_none_or(|user| *user == settings["User"]),
        "another user than the image's"
    );
    assert!(
        !user.starts_with("0:") && service["read_only"] == true && texts(&service["cap_drop"]) == ["ALL"]
    );
    assert_eq!(texts(&service["security_opt"]), ["no-new-privileges:true"]);
    let owner = |path: &str| {
        let is_it = |folder: &&Value| folder[0].as_str() == path.strip_prefix('/');
        image["folders"].as_array().unwrap().iter().find(is_it).map(|folder| folder[2].to_string())
    };
    // The volumes: each is a folder of the image that its user may write to, as it says itself.
    let mut mounted = BTreeSet::new();
    for volume in texts(&service["volumes"]) {
        let (name, target) = volume.split_once(':').unwrap();
        assert!(keys(&compose["volumes"]).contains(name), "{volume}");
        assert_eq!(owner(target).as_deref(), user.split(':').next(), "{volume}");
        mounted.insert(target);
    }
    assert_eq!(mounted, keys(&settings["Volumes"]));
    for tmpfs in texts(&service["tmpfs"]) {
        assert!(owner(tmpfs.split(':').next().unwrap()).is_some(), "{tmpfs}");
    }
    // The configuration is where the image's command looks for it, and its store in the volume.
    let target = service["configs"][0]["target"].as_str().unwrap();
    assert_eq!(texts(&settings["Cmd"]), ["--config", target, "serve"]);
    let config: Table = content(&compose, "sternpost").parse().unwrap();
    let store = config["store"].as_str().unwrap().strip_prefix("sqlite:").unwrap();
    assert!(mounted.contains(Path::new(store).parent().unwrap().to_str().unwrap()), "{store}");
    // The files that the image's variables name.
    let variables = texts(&settings["Env"]);
    let roots = variables.iter().find_map(|one| one.strip_prefix("SSL_CERT_FILE=")).unwrap();
    assert!(owner(Path::new(roots).parent().unwrap().to_str().unwrap()).is_some(), "{roots}");
}

#[test]
fn the_ports_and_addresses_of_the_compose_file_are_those_of_its_configurations() {
    let compose = compose();
    let (service, resolver) = (&compose["services"]["sternpost"], &compose["services"]["resolver"]);
    let config: Table = content(&compose, "sternpost").parse().unwrap();
    let listened = config["answers"]["listen"].as_array().unwrap();
    let listened: BTreeSet<&str> =
        listened.iter().map(|one| one.as_str().unwrap().rsplit(':').next().unwrap()).collect();
    let mut published = BTreeSet::new();
    for port in texts(&service["ports"]) {
        let (place, inside) = port.rsplit_once(':').unwrap();
        assert!(place.starts_with("127.0.0.1:"), "{port} is open to other machines");
        published.insert(inside);
    }
    assert_eq!(published, listened);
    assert!(resolver.get("ports").is_none(), "the resolver is open to other machines");
    let address = resolver["networks"]["inside"]["ipv4_address"].as_str().unwrap();
    let server = config["dns"]["servers"][0].as_str().unwrap();
    assert_eq!(server, format!("{address}:53"));
    let subnet = compose["networks"]["inside"]["ipam"]["config"][0]["subnet"].as_str().unwrap();
    let (network, bits) = subnet.rsplit_once(".0/").unwrap();
    assert!(bits == "24" && address.starts_with(&format!("{network}.")), "{address} is not in {subnet}");
    let unbound = content(&compose, "unbound");
    assert!(unbound.contains(&format!("access-control: {subnet} allow")), "{unbound}");
    // Unbound knows each of these lines; its trust anchor comes from the package that the file installs.
    let build = resolver["build"]["dockerfile_inline"].as_str().unwrap();
    let anchor = unbound.split("trust-anchor-file: \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(anchor == "/usr/share/dns/root.key" && build.contains("dns-root-data"), "{anchor}: {build}");
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("unbound.conf");
    std::fs::write(
        place.path().join("root.key"),
        ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n",
    )
    .unwrap();
    std::fs::write(&file, unbound.replace(anchor, place.path().join("root.key").to_str().unwrap())).unwrap();
    let checked = Command::new("unbound-checkconf").arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", said(&checked));
}

/// An environment as Compose writes it: a table, or a list of `NAME=VALUE`.
fn environment(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Object(all) => all.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        other => texts(other)
            .into_iter()
            .map(|one| one.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}

/// Runs `config check` on the configuration of the compose file with variables of its environment.
fn check(variables: &[(String, String)]) -> (bool, String) {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("sternpost.toml");
    let store = format!("sqlite:{}/s.db", place.path().display());
    let text = content(&compose(), "sternpost").replace("sqlite:/var/lib/sternpost/sternpost.db", &store);
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    // The check also asks the resolver, which is another one on each machine.
    command.env("STERNPOST_DNS_SERVERS", "127.0.0.1:1").envs(variables.iter().cloned());
    let output = command.arg("--config").arg(file).args(["config", "check"]).output().unwrap();
    (output.status.success(), said(&output))
}

#[test]
fn sternpost_knows_each_variable_of_the_compose_file() {
    let variables = environment(&compose()["services"]["sternpost"]["environment"]);
    let (is_right, told) = check(&variables);
    let unknown = variables.iter().find(|(name, _)| told.contains(name));
    assert!(is_right && unknown.is_none(), "{unknown:?}: {told}");
    // One that does not exist is found.
    let (_, told) = check(&[("STERNPOST_ANSWERS_LISTN".to_owned(), "x".to_owned())]);
    assert!(told.contains("STERNPOST_ANSWERS_LISTN"), "{told}");
}
