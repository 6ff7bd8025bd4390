//! The units in `packaging/`: systemd's own verdict on them, and the program as they start it: as a user without
//! capabilities, with named sockets at low ports, credentials, and messages to the service manager. Needs root, and the
//! programs of systemd, which need not run.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "units/compose.rs"]
mod compose;
mod patience;

use formats::socketmap::encode_request;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use patience::{PATIENCE, until_some_or};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

/// The user that the service runs as in these tests; it need not exist.
const USER: u32 = 64_321;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

fn unit(name: &str) -> String {
    std::fs::read_to_string(packaging().join(name)).unwrap()
}

/// All units, with the program that was built in the place of the packaged one.
fn units(with_ports: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(packaging()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".service") || name.ends_with(".socket") {
            let text = unit(&name);
            let text = text.replace(
                "ExecStart=/usr/bin/sternpost",
                concat!("ExecStart=", env!("CARGO_BIN_EXE_sternpost")),
            );
            std::fs::write(dir.path().join(name), text).unwrap();
        }
    }
    if with_ports {
        let drop_ins = dir.path().join("sternpost.service.d");
        std::fs::create_dir(&drop_ins).unwrap();
        for name in ["ports.conf", "credentials.conf"] {
            std::fs::write(drop_ins.join(name), unit(&format!("drop-ins/{name}"))).unwrap();
        }
    }
    dir
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    for with_ports in [false, true] {
        let dir = units(with_ports);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| !file.is_dir());
        assert!(files.len() >= 6, "{files:?}");
        let verified =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&files).output().unwrap();
        assert!(verified.status.success() && said(&verified).is_empty(), "{}", said(&verified));
    }
}

/// The exposure that systemd computes, in tenths: 1.3 with socket units, 1.5 with the capability for low ports.
#[test]
fn the_service_is_hardened() {
    for (with_ports, threshold) in [(false, 13), (true, 15)] {
        let dir = units(with_ports);
        let judged = Command::new("systemd-analyze")
            .args(["security", "--offline=true", &format!("--threshold={threshold}")])
            .arg(dir.path().join("sternpost.service"))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let shown = said(&judged);
        assert!(judged.status.success() && shown.contains("Overall exposure level"), "{shown}");
        // The verdict is about the unit and the drop-in.
        assert_eq!(shown.contains("\u{2717} AmbientCapabilities="), with_ports, "{shown}");
    }
}

#[test]
fn the_user_and_the_folders_are_created() {
    let root = tempfile::tempdir().unwrap();
    for (program, file, folder) in [
        ("systemd-sysusers", "sternpost.sysusers", "usr/lib/sysusers.d"),
        ("systemd-tmpfiles", "sternpost.tmpfiles", "usr/lib/tmpfiles.d"),
    ] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join(folder).join("sternpost.conf"), unit(file)).unwrap();
        let root_option = format!("--root={}", root.path().display());
        let mut command = Command::new(program);
        if program == "systemd-tmpfiles" {
            command.arg("--create");
        }
        let output = command.args([&root_option, "sternpost.conf"]).output().unwrap();
        assert!(output.status.success(), "{program}: {}", said(&output));
    }
    let users = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let user: Vec<&str> =
        users.lines().find(|line| line.starts_with("sternpost:")).unwrap().split(':').collect();
    let (uid, gid): (u32, u32) = (user[2].parse().unwrap(), user[3].parse().unwrap());
    for (path, owner, group, mode) in
        [("etc/sternpost", 0, gid, 0o750), ("var/lib/sternpost", uid, gid, 0o700)]
    {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::metadata(root.path().join(path)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (owner, group, mode), "{path}");
    }
}

/// A folder that the user can enter, with the program, a folder for the store, and the socket of a service manager.
struct Place {
    dir: tempfile::TempDir,
    manager: UnixDatagram,
}

/// A started program, which ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    fn new(configuration: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = |name: &str| dir.path().join(name);
        // The folder of the build may be closed to others.
        std::fs::copy(env!("CARGO_BIN_EXE_sternpost"), path("sternpost")).unwrap();
        std::fs::create_dir(path("state")).unwrap();
        std::fs::set_permissions(path("state"), std::fs::Permissions::from_mode(0o700)).unwrap();
        chown(path("state"), Some(USER), Some(USER)).unwrap();
        let text = format!("store = \"sqlite:{}\"\n{configuration}", path("state/sternpost.db").display());
        std::fs::write(path("sternpost.toml"), text).unwrap();
        let manager = UnixDatagram::bind(path("manager")).unwrap();
        std::fs::set_permissions(path("manager"), std::fs::Permissions::from_mode(0o666)).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { dir, manager }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The command that runs the program as the service's user, without a capability.
    fn as_service(&self, command: &mut Command, words: &[&str]) {
        let user = format!("--reuid={USER}");
        let group = format!("--regid={USER}");
        command
            .args(["setpriv", &user, &group, "--clear-groups", "--inh-caps=-all", "--ambient-caps=-all"])
            .args(["--bounding-set=-all", "--no-new-privs"])
            .arg(self.path("sternpost"))
            .arg("--config")
            .arg(self.path("sternpost.toml"))
            .args(words);
    }

    /// Starts the service as systemd would, with sockets: the name and the address of each. `options` say what kind they are.
    fn activate(&self, options: &[&str], sockets: &[(&str, &str)]) -> Running {
        let mut command = Command::new("systemd-socket-activate");
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        command.args(options).arg(format!("--fdname={}", names.join(":")));
        for (_, address) in sockets {
            command.args(["--listen", *address]);
        }
        command.arg(format!("-ENOTIFY_SOCKET={}", self.path("manager").display()));
        command.arg(format!("-ECREDENTIALS_DIRECTORY={}", self.path("credentials").display()));
        command.arg("-EWATCHDOG_USEC=1000000");
        self.as_service(&mut command, &["serve"]);
        let log = std::fs::File::create(self.path("log")).unwrap();
        Running(command.current_dir("/").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }

    /// A connection, as soon as the address is listened at. The first one starts the service.
    fn connect(&self, address: &str) -> TcpStream {
        let stream = until_some_or(
            || format!("nothing listens at {address}\n{}", self.log()),
            || TcpStream::connect(address).ok(),
        );
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Waits for a message to the service manager.
    fn told(&self, expected: &str) {
        let mut buffer = [0; 512];
        loop {
            let length = self
                .manager
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{expected}: {error}\n{}", self.log()));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line == expected) {
                return;
            }
            assert!(text.starts_with("WATCHDOG=1"), "{text} instead of {expected}");
        }
    }

    /// Runs a command as root.
    fn as_root(&self, words: &[&str]) -> (bool, String) {
        let mut command = Command::new(self.path("sternpost"));
        let output = command.arg("--config").arg(self.path("sternpost.toml")).args(words).output().unwrap();
        (output.status.success(), said(&output))
    }

    /// Runs a command as the service's user.
    fn as_user(&self, words: &[&str]) -> (bool, String) {
        let mut command = Command::new("env");
        self.as_service(&mut command, words);
        let output = command.current_dir("/").output().unwrap();
        (output.status.success(), said(&output))
    }
}

/// Runs a test in a network of its own, in which all ports are free.
fn in_a_network_of_its_own(test: impl FnOnce() + Send + 'static) {
    let tested = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        test();
    });
    if let Err(panic) = tested.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What a client reads after it has written something, until this is in it or the connection ends.
fn exchange(mut stream: TcpStream, sent: &[u8], expected: &str) -> String {
    stream.write_all(sent).unwrap();
    let (mut answer, mut buffer) = (String::new(), [0; 4096]);
    while !answer.contains(expected) {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            length => answer += &String::from_utf8_lossy(&buffer[..length]),
        }
    }
    answer
}

const ALL_ROLES: &str = "[dns]\nservers = [\"127.0.0.1:9\"]\n[answers]\nlisten = [\"systemd:answers\"]\ndeadline = 1\n\
    [host]\nlisten = [\"systemd:policy\"]\nhttp = [\"systemd:http\"]\n\
    [inbox]\naddresses = [\"tlsrpt@example.org\"]\nname = \"mail.example.org\"\nsmtp = [\"systemd:smtp\"]\n\
    [metrics]\nlisten = \"systemd:metrics\"\n\
    [admin]\nlisten = \"systemd:admin\"\ntoken_file = \"$CREDENTIALS_DIRECTORY/admin.token\"\n\
    [dashboard]\nlisten = [\"systemd:dashboard\"]\nurl = \"http://localhost:8460\"\n";

#[test]
fn every_role_is_served_at_its_socket_by_a_user_without_capabilities_and_the_manager_is_told() {
    in_a_network_of_its_own(|| {
        let place = Place::new(ALL_ROLES);
        std::fs::create_dir(place.path("credentials")).unwrap();
        let token = "0123456789abcdef0123456789abcdef";
        std::fs::write(place.path("credentials/admin.token"), token).unwrap();
        chown(place.path("credentials/admin.token"), Some(USER), Some(USER)).unwrap();
        let running = place.activate(
            &[],
            &[
                ("policy", "443"),
                ("http", "80"),
                ("smtp", "25"),
                ("answers", "127.0.0.1:8461"),
                ("metrics", "127.0.0.1:8462"),
                ("admin", "127.0.0.1:8464"),
                ("dashboard", "127.0.0.1:8460"),
                ("spare", "127.0.0.1:9999"),
            ],
        );
        let first = place.connect("127.0.0.1:443");
        place.told("READY=1");
        drop(first);

        let by_name = std::thread::scope(|scope| {
            let ask = |address: &'static str, sent: Vec<u8>, expected: &'static str| {
                let stream = place.connect(address);
                let answer = scope.spawn(move || exchange(stream, &sent, expected));
                (answer, expected)
            };
            let get = |path: &str| {
                format!(
                    "GET {path} HTTP/1.1\r\nHost: localhost:8460\r\nAuthorization: Bearer {token}\r\n\r\n"
                )
                .into_bytes()
            };
            [
                ask("127.0.0.1:8461", encode_request("postfix", "example.org"), "TEMP "),
                ask("[::1]:80", get("/"), "HTTP/1.1 "),
                ask("127.0.0.1:25", Vec::new(), "220 mail.example.org"),
                ask("127.0.0.1:8462", get("/healthz"), "HTTP/1.1 200"),
                ask("127.0.0.1:8464", get("/v1/domains"), "\"domains\""),
                ask("127.0.0.1:8460", get("/"), "HTTP/1.1 "),
            ]
            .map(|(answer, expected)| (answer.join().unwrap(), expected))
        });
        for (answer, expected) in &by_name {
            assert!(answer.contains(expected), "{expected}: {answer}\n{}", place.log());
        }
        assert!(by_name[4].0.contains("HTTP/1.1 200"), "{}", by_name[4].0);
        assert!(place.log().contains("no key takes this socket of systemd"), "{}", place.log());

        place.told("WATCHDOG=1");
        let process = Pid::from_raw(i32::try_from(running.0.id()).unwrap());
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        assert!(status.contains(&format!("Uid:\t{USER}\t{USER}")), "{status}");
        assert!(status.contains("CapEff:\t0000000000000000\nCapBnd:\t0000000000000000"), "{status}");
        // A reload takes the same sockets again.
        kill(process, Signal::SIGHUP).unwrap();
        place.told("RELOADING=1");
        place.told("READY=1");
        assert!(exchange(place.connect("127.0.0.1:25"), b"", "220 ").contains("220 "));
        kill(process, Signal::SIGTERM).unwrap();
        place.told("STOPPING=1");
    });
}

#[test]
fn sessions_are_received_at_a_datagram_socket_of_systemd() {
    let place = Place::new("[collector]\nsocket = \"systemd:tlsrpt\"\n");
    let path = place.path("tlsrpt.sock");
    let running = place.activate(&["--datagram"], &[("tlsrpt", path.to_str().unwrap())]);
    let client = UnixDatagram::unbound().unwrap();
    until_some_or(|| place.log(), || client.connect(&path).ok());
    client.send(b"not a session").unwrap();
    place.told("READY=1");
    assert!(place.log().contains("systemd:tlsrpt"), "{}", place.log());
    let process = Pid::from_raw(i32::try_from(running.0.id()).unwrap());
    kill(process, Signal::SIGTERM).unwrap();
    place.told("STOPPING=1");
    // The socket belongs to systemd: it stays.
    assert!(path.exists());
}

#[test]
fn what_is_wrong_with_the_sockets_is_said_at_the_start() {
    in_a_network_of_its_own(|| {
        for (configuration, address, expected) in [
            (
                "[host]\nlisten = [\"systemd:policy\"]\n",
                "127.0.0.1:443",
                "systemd handed over no socket with the name \"policy\", but \"other\"",
            ),
            (
                "[inbox]\n[metrics]\nlisten = \"systemd:other\"\n",
                "0.0.0.0:443",
                "is reachable from other hosts: the protocol has no authentication",
            ),
            (
                "[dashboard]\nlisten = [\"systemd:other\"]\nurl = \"http://x\"\n",
                "0.0.0.0:443",
                "passwords would cross",
            ),
        ] {
            let place = Place::new(configuration);
            let mut running = place.activate(&[], &[("other", address)]);
            let _first = place.connect("127.0.0.1:443");
            assert_eq!(running.0.wait().unwrap().code(), Some(2), "{}", place.log());
            let log = place.log();
            assert!(log.contains(expected) && log.contains("FileDescriptorName="), "{log}");
        }
    });
}

#[test]
fn files_that_root_leaves_can_be_opened_by_the_service() {
    let place = Place::new(
        "[reporter]\nfrom = \"tlsrpt@example.org\"\ndkim = { selector = \"s\", key_file = \"dkim.pem\" }\n",
    );
    // /etc/sternpost: the group of the service reads it.
    chown(place.dir.path(), Some(0), Some(USER)).unwrap();
    let ran = |(is_fine, said): (bool, String)| assert!(is_fine, "{said}");
    ran(place.as_root(&["domains", "add", "example.org"]));
    ran(place.as_user(&["domains", "add", "example.net"]));
    ran(place.as_root(&["reports", "key"]));
    ran(place.as_user(&["reports", "key"]));
    let backup = place.path("backup.db");
    let backup = backup.to_str().unwrap();
    ran(place.as_root(&["backup", backup]));
    let (is_fine, text) = place.as_root(&["backup", backup]);
    assert!(!is_fine && text.contains("exists already"), "{text}");
    ran(place.as_root(&["domains", "remove", "example.org"]));
    ran(place.as_root(&["restore", backup]));
    let (is_fine, listed) = place.as_user(&["domains", "list"]);
    assert!(is_fine && listed.contains("example.org") && listed.contains("example.net"), "{listed}");
    // Another user is told whom the store belongs to, and how to get one that root has copied.
    chown(place.path("state/sternpost.db"), Some(0), Some(0)).unwrap();
    let (is_fine, text) = place.as_user(&["domains", "list"]);
    assert!(!is_fine && text.contains("chown --reference="), "{text}");
    chown(place.path("state"), Some(1), Some(1)).unwrap();
    let (is_fine, text) = place.as_user(&["domains", "list"]);
    assert!(!is_fine && text.contains("runuser -u daemon -- sternpost"), "{text}");
}

/// As an older program finds a store after the package was downgraded.
#[test]
fn a_store_of_a_newer_release_is_refused_with_what_to_do_and_stays_as_it_is() {
    let place = Place::new("[guard]\n");
    let ran = |(is_fine, said): (bool, String)| assert!(is_fine, "{said}");
    ran(place.as_root(&["domains", "add", "example.org"]));
    let store = place.path("state/sternpost.db");
    let later = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.execute(\"INSERT INTO _sqlx_migrations \
        (version, description, success, checksum, execution_time) VALUES (9999, 'later', 1, x'00', 0)\")\ndb.commit()\n";
    let changed = Command::new("python3").args(["-c", later]).arg(&store).output().unwrap();
    assert!(changed.status.success(), "{}", said(&changed));
    let before = std::fs::read(&store).unwrap();
    for words in [&["serve"][..], &["status"], &["domains", "list"]] {
        let (is_fine, text) = place.as_root(words);
        assert!(
            !is_fine && text.contains("newer release") && text.contains("sternpost restore FILE"),
            "{text}"
        );
        assert!(text.contains("schema is number 9999"), "{text}");
    }
    assert_eq!(std::fs::read(&store).unwrap(), before);
    // The older program can still save it for the newer one.
    ran(place.as_root(&["backup", place.path("saved.db").to_str().unwrap()]));
}

#[test]
fn the_manual_pages_are_complete_and_free_of_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sternpost")).args(words).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let pages = dir.path().join("pages");
    run(&["man", pages.to_str().unwrap()]);
    // `man` looks for a page in the folder of its section only.
    let in_section = |section: &str| {
        let entries = std::fs::read_dir(pages.join(section)).unwrap();
        entries
            .map(|entry| format!("{section}/{}", entry.unwrap().file_name().into_string().unwrap()))
            .collect::<Vec<_>>()
    };
    let mut names = [in_section("man1"), in_section("man5")].concat();
    names.sort();
    for expected in [
        "man1/sternpost.1",
        "man1/sternpost-serve.1",
        "man1/sternpost-config-show.1",
        "man5/sternpost.toml.5",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
    }
    for name in &names {
        let formatted = Command::new("groff")
            .args(["-Kutf8", "-man", "-Tutf8", "-ww", "-z"])
            .arg(pages.join(name))
            .output()
            .unwrap();
        assert!(formatted.status.success() && said(&formatted).is_empty(), "{name}: {}", said(&formatted));
    }
    let program = std::fs::read_to_string(pages.join("man1/sternpost.1")).unwrap();
    for name in names.iter().filter(|name| name.ends_with(".1") && name.matches('-').count() == 1) {
        // The program's page lists each command with its page.
        let command = name.trim_start_matches("man1/").trim_end_matches(".1").replace('-', "\\-");
        assert!(program.contains(&command), "{name}");
    }
    let command = std::fs::read_to_string(pages.join("man1/sternpost-backup.1")).unwrap();
    assert!(command.contains(env!("CARGO_PKG_VERSION")) && command.contains(".SH EXAMPLES\n"), "{command}");
    let keys = std::fs::read_to_string(pages.join("man5/sternpost.toml.5")).unwrap();
    assert!(keys.contains("STERNPOST_ANSWERS_LISTEN") && keys.contains("[host]"));

    for shell in ["bash", "zsh", "fish"] {
        let text = run(&["completions", shell]);
        assert!(text.contains("sternpost") && text.contains("backup"), "{shell}");
        if shell == "bash" {
            let file = dir.path().join("completions");
            std::fs::write(&file, text).unwrap();
            let ask = "source \"$0\"; COMP_WORDS=(sternpost conf); COMP_CWORD=1; _sternpost sternpost conf sternpost; echo \"${COMPREPLY[@]}\"";
            let output = Command::new("bash").args(["-c", ask]).arg(&file).output().unwrap();
            assert_eq!(said(&output).trim(), "config");
        }
    }
}

#[test]
fn settings_of_the_environment_reach_the_program_and_their_origin_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.toml");
    std::fs::write(&file, "[answers]\ndeadline = 7\n").unwrap();
    let run = |variables: &[(&str, &str)], words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
        command.current_dir(dir.path()).envs(variables.iter().copied()).args(words);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), said(&output))
    };
    let named = ("STERNPOST_CONFIG", file.to_str().unwrap());
    let (code, shown) = run(
        &[named, ("STERNPOST_ANSWERS_DEADLINE", "9"), ("STERNPOST_METRICS_LISTEN", "127.0.0.1:9")],
        &["config", "show"],
    );
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("deadline = 9  # environment variable STERNPOST_ANSWERS_DEADLINE"), "{shown}");
    assert!(shown.contains("listen = \"127.0.0.1:9\"  # environment"), "{shown}");
    let (_, shown) = run(&[named], &["config", "show"]);
    assert!(shown.contains("deadline = 7") && shown.contains("own.toml, line 2"), "{shown}");
    let (code, shown) = run(&[("STERNPOST_LOG_LEVLE", "debug")], &["config", "check"]);
    assert!(code == 0 && shown.contains("did you mean STERNPOST_LOG_LEVEL?"), "{shown}");
    let (code, shown) = run(&[("STERNPOST_LOG_LEVEL", "loud")], &["config", "check"]);
    assert!(code == 2 && shown.contains("the environment variable STERNPOST_LOG_LEVEL"), "{shown}");
}
