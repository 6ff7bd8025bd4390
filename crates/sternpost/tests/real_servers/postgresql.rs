//! The store in PostgreSQL, as Debian has it: a failover to a standby while the program runs, a database that hangs, TLS and
//! passwords, a host name with a dead address, and PgBouncer in transaction mode.

use crate::ground::Ground;
use crate::support::{Running, daemon, in_a_room_of_its_own, mount_over, shell, until};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SETTINGS: &str = "listen = [\"127.0.0.1:8461\"]\nhttp = \"127.0.0.1:8466\"\ncontrol = \"sternpost.sock\"\nrecheck = 1\n[metrics]\nlisten = \"127.0.0.1:8463\"\n[dashboard]\nlisten = [\"127.0.0.1:8467\"]\n";
/// How long Postfix waits for the answer of a socketmap.
const POSTFIX_WAITS: Duration = Duration::from_secs(100);
/// PostgreSQL refuses to run as root.
const UNPRIVILEGED: &str = "setpriv --reuid=nobody --regid=nogroup --clear-groups ";

/// A PostgreSQL server of the test's own.
pub struct Server {
    folder: PathBuf,
    port: u16,
    running: Option<Running>,
}

/// The folder of PostgreSQL's programs, which Debian keeps out of PATH.
fn programs() -> String {
    shell("find /usr/lib/postgresql/*/bin -name initdb -printf '%h\\n' | sort -V | tail -1").trim().to_owned()
}

impl Server {
    /// A new server with a user and a database of the name `sternpost`, at 127.0.0.1.
    pub fn new(place: &Path, port: u16) -> Self {
        let folder = owned(place, &format!("server{port}"));
        let (programs, data) = (programs(), folder.join("data"));
        shell(&format!(
            "cd / && {UNPRIVILEGED}{programs}/initdb -D {} -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N",
            data.display()
        ));
        let mut server = Self { folder, port, running: None };
        server.start("");
        server.sql("postgres", "CREATE ROLE sternpost LOGIN");
        server.sql("postgres", "CREATE DATABASE sternpost OWNER sternpost");
        server
    }

    /// A standby that follows this server.
    pub fn standby(&self, place: &Path, port: u16) -> Self {
        let folder = owned(place, &format!("server{port}"));
        shell(&format!(
            "cd / && {UNPRIVILEGED}{}/pg_basebackup -h 127.0.0.1 -p {} -U postgres -D {}/data -R -c fast -X stream",
            programs(),
            self.port,
            folder.display()
        ));
        let mut server = Self { folder, port, running: None };
        server.start("");
        server
    }

    fn start(&mut self, more: &str) {
        let line = format!(
            "{UNPRIVILEGED}{}/postgres -D {folder}/data -k {folder} -c listen_addresses=* -c port={} -c fsync=off \
             -c timezone=Asia/Kathmandu{more}",
            programs(),
            self.port,
            folder = self.folder.display()
        );
        self.running = Some(daemon(&line, &self.folder.join("log")));
        let ready = format!("{}/pg_isready -q -h {} -p {}", programs(), self.folder.display(), self.port);
        until("PostgreSQL is ready", || shell(&format!("{ready} && echo yes || true")).contains("yes"));
    }

    /// Ends the server as a crash of its machine does.
    pub fn kill(&mut self) {
        let pid = self.running.as_ref().unwrap().0.id();
        let children = shell(&format!("pgrep -P {pid} | tr '\\n' ' '"));
        shell(&format!("kill -9 {pid} {children} || true"));
        self.running = None;
    }

    fn signal(&self, signal: &str) {
        let pid = self.running.as_ref().unwrap().0.id();
        shell(&format!("kill -{signal} {pid} $(pgrep -P {pid})"));
    }

    pub fn promote(&self) {
        shell(&format!(
            "cd / && {UNPRIVILEGED}{}/pg_ctl promote -w -D {}/data",
            programs(),
            self.folder.display()
        ));
    }

    /// The rows that a statement returns.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let folder = self.folder.display();
        shell(&format!("psql -X -h {folder} -p {} -U postgres -At -c \"{statement}\" {database}", self.port))
    }

    fn policies(&self) -> String {
        self.sql("sternpost", "SELECT domain FROM policy ORDER BY domain")
    }
}

/// A folder of the user of the server.
fn owned(place: &Path, name: &str) -> PathBuf {
    let folder = place.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    shell(&format!("chown nobody {}", folder.display()));
    folder
}

fn ready(role: &str) -> bool {
    shell(&format!(
        "curl -s -o /dev/null -w '%{{http_code}}' 'http://127.0.0.1:8463/readyz?role={role}' || true"
    )) == "200"
}

/// The answer for a domain, and how long it took.
fn secure(ground: &Ground, name: &str) -> Duration {
    let begun = Instant::now();
    let said = ground.operator(&format!("query --cached {name}.test"));
    let took = begun.elapsed();
    assert!(said.contains(&format!("secure match=mx1.{name}.test")), "{said}\n{}", ground.log());
    assert!(took < POSTFIX_WAITS, "no mail server waits for {took:?}");
    took
}

#[test]
fn policies_are_answered_during_a_failover_and_written_after_it() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let names = ["good-enforce", "txt-split", "host-cname", "policy-lf"];
        // Its record has a short TTL, so that it is looked up again soon.
        let mut ground = Ground::new(place.path(), &names, "txt-split");
        let mut primary = Server::new(place.path(), 5501);
        let standby = primary.standby(place.path(), 5502);
        let first = "store = \"postgres://sternpost@127.0.0.1:5501,127.0.0.1:5502/sternpost\"\nstate_folder = \".\"\n";
        ground.configure(first, &format!("[answers]\n{SETTINGS}"));
        // Nothing is created without the command.
        let refused = shell(&format!(
            "sternpost --config {}/sternpost.toml serve 2>&1 || echo code $?",
            place.path().display()
        ));
        assert!(refused.contains("sternpost store migrate") && refused.contains("code 2"), "{refused}");
        assert!(ground.operator("store migrate").contains("Created the tables"));
        assert!(ground.operator("store status").contains("up to date"));
        ground.run();
        secure(&ground, "good-enforce");
        until("both roles are ready", || ready("answers") && ready("dashboard"));
        until("the standby follows", || standby.policies().contains("good-enforce.test"));

        primary.kill();
        let known = secure(&ground, "good-enforce");
        let unknown = secure(&ground, "txt-split");
        until("the outage is noticed", || !ready("dashboard"));
        assert!(ready("answers"), "{}", ground.log());

        let begun = Instant::now();
        standby.promote();
        until("the store works again", || ready("dashboard"));
        println!(
            "ready {:?} after the promotion; during the outage a known domain took {known:?}, a new one {unknown:?}",
            begun.elapsed()
        );
        secure(&ground, "host-cname");
        until("a new policy is stored", || standby.policies().contains("host-cname.test"));
        // What could not be stored during the outage is stored when it is looked up again.
        until("the policy of the outage is stored", || {
            // As a mail server asks, since `query` looks at the cache only.
            shell("curl -s --fail http://127.0.0.1:8466/v1/policy/txt-split.test || true");
            standby.policies().contains("txt-split.test")
        });
        // The old primary comes back as a server that accepts writes, and is not used while the new one works.
        assert!(!ground.log().contains("panicked"), "{}", ground.log());
        ground.stop();
    });
}

#[test]
fn a_database_that_accepts_and_hangs_delays_no_answer_for_long() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let names = ["good-enforce", "txt-split", "host-cname"];
        let mut ground = Ground::new(place.path(), &names, "good-enforce");
        let server = Server::new(place.path(), 5501);
        let first = "store = \"postgres://sternpost@127.0.0.1:5501/sternpost\"\nstore_migrate = true\nstate_folder = \".\"\n";
        ground.serve_with(SETTINGS, first);
        secure(&ground, "good-enforce");
        server.signal("STOP");
        let (known, new) = (secure(&ground, "good-enforce"), secure(&ground, "txt-split"));
        println!("while the database hangs, a known domain took {known:?}, a new one {new:?}");
        server.signal("CONT");
        until("the store works again", || ready("dashboard"));
        secure(&ground, "host-cname");
        until("a new policy is stored", || server.policies().contains("host-cname.test"));
        // Read-only, as after a failover that the name of the host did not follow.
        server.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
        server.sql("postgres", "SELECT pg_reload_conf()");
        until("it is said that the database is read-only", || ground.log().contains("read-only"));
        secure(&ground, "good-enforce");
        ground.stop();
    });
}

/// A certification authority and a certificate for `db.example`.
fn certificates(folder: &Path) {
    let folder = folder.display();
    shell(&format!(
        "cd {folder} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=ca -keyout ca.key -out ca.pem 2>&1 \
         && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=db -keyout server.key -out server.csr 2>&1 \
         && printf 'subjectAltName=DNS:db.example' >san \
         && openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile san -out server.crt 2>&1 \
         && chown nobody server.key server.crt && chmod 600 server.key"
    ));
}

#[test]
fn a_server_is_reached_by_verified_tls_with_a_password_behind_a_dead_address_and_through_a_pooler() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        shell(&format!("chmod 755 {}", place.path().display()));
        let mut server = Server::new(place.path(), 5501);
        certificates(&server.folder);
        let password = "p@:/%?#' \\\"ü";
        std::fs::write(place.path().join("password"), format!("{password}\n")).unwrap();
        server.sql(
            "postgres",
            "SET password_encryption = 'scram-sha-256'; ALTER ROLE sternpost PASSWORD 'p@:/%?#'' \\\\\\\"ü'",
        );
        let rules = "local all postgres trust\nhostssl all sternpost all scram-sha-256\nhost all postgres all trust\n";
        std::fs::write(server.folder.join("data/pg_hba.conf"), rules).unwrap();
        server.kill();
        let (key, certificate) = (server.folder.join("server.key"), server.folder.join("server.crt"));
        server.start(&format!(
            " -c ssl=on -c ssl_key_file={} -c ssl_cert_file={}",
            key.display(),
            certificate.display()
        ));
        // A network in which one address of the name does not answer.
        shell(
            "ip tuntap add dev dead0 mode tun && ip address add 198.51.100.1/24 dev dead0 && ip link set dead0 up",
        );
        let hosts = place.path().join("hosts");
        std::fs::write(&hosts, "198.51.100.9 db.example\n127.0.0.1 db.example other.example\n").unwrap();
        mount_over(&hosts, Path::new("/etc/hosts"));
        let config = place.path().join("sternpost.toml");
        let run = |url: &str, command: &str| {
            let password = place.path().join("password");
            std::fs::write(
                &config,
                format!(
                    "store = \"{url}\"\nstore_password_file = \"{}\"\nstate_folder = \".\"\n",
                    password.display()
                ),
            )
            .unwrap();
            let said = shell(&format!("sternpost --config {} {command} 2>&1 || true", config.display()));
            assert!(!said.contains("p@"), "{said}");
            said
        };
        let ca = server.folder.join("ca.pem");
        let url = |host: &str, more: &str| format!("postgres://sternpost@{host}:5501/sternpost?{more}");
        let trusted = format!("sslrootcert={}", ca.display());
        // It would give up after 4 seconds if it waited for the dead address.
        let said = run(&url("db.example", &trusted), "store migrate");
        assert!(said.contains("Created the tables"), "{said}");
        for (url, expected) in [
            // Another name, an untrusted certificate, no TLS where the server requires it.
            (url("other.example", &trusted), "TLS with the server fails"),
            (url("db.example", ""), "TLS with the server fails"),
            (url("db.example", "sslmode=disable"), "no pg_hba.conf entry"),
        ] {
            let said = run(&url, "store status");
            assert!(said.contains(expected), "{url}: {said}");
        }
        std::fs::write(place.path().join("password"), "wrong\n").unwrap();
        let said = run(&url("db.example", &trusted), "store status");
        assert!(said.contains("password authentication failed"), "{said}");
        let said = run("postgres://sternpost:p@db.example/sternpost", "store status");
        assert!(said.contains("contains a password") && said.contains("store_password_file"), "{said}");

        // PgBouncer in transaction mode refuses parameters that it does not know.
        let pooler = owned(place.path(), "pooler");
        std::fs::write(pooler.join("users"), "\"sternpost\" \"\"\n\"postgres\" \"\"\n").unwrap();
        std::fs::write(
            pooler.join("ini"),
            format!(
                "[databases]\npooled = host={} port=5501 user=postgres dbname=sternpost\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 6432\n\
                 unix_socket_dir =\nauth_type = trust\nauth_file = {}/users\npool_mode = transaction\ndefault_pool_size = 2\n",
                server.folder.display(),
                pooler.display()
            ),
        )
        .unwrap();
        let _pooler =
            daemon(&format!("{UNPRIVILEGED}pgbouncer {}/ini", pooler.display()), &pooler.join("log"));
        until("PgBouncer listens", || shell("ss -ltn").contains("127.0.0.1:6432"));
        let pooled = "postgres://sternpost@127.0.0.1:6432/pooled?statement-cache-capacity=0";
        let said = run(pooled, "store status");
        assert!(said.contains("up to date"), "{said}");
        let said = run(pooled, "domains add example.test");
        assert!(run(pooled, "domains list").contains("example.test"), "{said}");
        // The commands for files say what does the same.
        for (command, tool) in
            [("backup x", "pg_dump"), ("restore x", "pg_restore"), ("store compact", "autovacuum")]
        {
            let said = run(pooled, command);
            assert!(said.contains(tool), "{said}");
        }
    });
}

/// A report of `policies` entries with so many successes each; `failed` is JSON.
fn report(id: &str, day: &str, policies: usize, successful: u64, failed: &str) -> String {
    let policy = format!(
        r#"{{"policy":{{"policy-type":"sts","policy-string":["version: STSv1"],"policy-domain":"good-enforce.test","mx-host":["mx1.good-enforce.test"]}},
            "summary":{{"total-successful-session-count":{successful},"total-failure-session-count":{failed}}}}}"#
    );
    format!(
        r#"{{"organization-name":"Big","date-range":{{"start-datetime":"{day}T00:00:00Z","end-datetime":"{day}T23:59:59Z"}},
            "contact-info":"t@big.example","report-id":"{id}","policies":[{}]}}"#,
        vec![policy; policies].join(",")
    )
}

/// Signs in to the dashboard, and opens the pages that have sums of reports, and the page of one report.
fn pages_are_shown(place: &Path, report: &serde_json::Value) {
    let at = place.display();
    shell(&format!(
        "curl -s --fail -c {at}/cookies -o /dev/null --data 'password=correct-horse-battery&again=correct-horse-battery' $(cat {at}/dashboard-link)"
    ));
    for page in ["", "domains/good-enforce.test", "reports", "senders", &format!("reports/{report}")] {
        let shown =
            shell(&format!("curl -s -b {at}/cookies -w '%{{http_code}}' http://127.0.0.1:8467/{page}"));
        assert!(shown.ends_with("200"), "{page}: {shown}");
    }
}

#[test]
fn hostile_reports_are_imported_listed_shown_and_dropped_as_in_sqlite() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut ground = Ground::new(place.path(), &["good-enforce"], "good-enforce");
        let server = Server::new(place.path(), 5501);
        ground.configure(
            "store = \"postgres://sternpost@127.0.0.1:5501/sternpost\"\nstore_migrate = true\nstate_folder = \".\"\n",
            "[dashboard]\nlisten = [\"127.0.0.1:8467\"]\n[[domain]]\nname = \"good-enforce.test\"\n",
        );
        ground.run();
        let json = |command: &str| -> serde_json::Value {
            let said = ground.operator(command);
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{command}: {error}: {said}"))
        };
        let import = |name: &str, text: &str| {
            let file = place.path().join(name);
            std::fs::write(&file, text).unwrap();
            let told = json(&format!("reports import --trusted --json {}", file.display()));
            assert_eq!(told["new"], 1, "{told}");
        };
        // N1: the sum of a report overflows, and so does that of a day with another one.
        import("n1.json", &report("n1", "2026-11-20", 1024, 1 << 53, "0"));
        import("n1b.json", &report("n1b", "2026-11-20", 1023, 1 << 53, "0"));
        // N3: failures that can't be read.
        for (number, failed) in ["\"1,234\"", "null", "[5]", "true", "-5", "\"n/a\""].iter().enumerate() {
            import(
                &format!("n3-{number}.json"),
                &report(&format!("n3-{number}"), "2026-11-21", 1, 600, failed),
            );
        }
        import("good.json", &report("good", "2026-11-22", 1, 7, "0"));
        let ids = || {
            let told = json("reports list --json");
            let reports = told["reports"].as_array().unwrap().clone();
            let id = |report: &serde_json::Value| {
                (report["report_id"].as_str().unwrap().to_owned(), report["id"].clone())
            };
            reports.iter().map(id).collect::<std::collections::BTreeMap<_, _>>()
        };
        let all = ids();
        assert_eq!(all.len(), 9);
        let shown = json(&format!("reports show {} --json", all["n3-0"]));
        assert!(shown["policies"][0]["failed"].as_u64().unwrap() > 0, "{shown}");
        assert!(!shown["oddities"].as_array().unwrap().is_empty(), "{shown}");
        let status = json("status --json");
        let gate = &status["domains"][0]["gate"];
        assert!(gate["state"] == "not-yet" && !gate["reasons"].as_array().unwrap().is_empty(), "{status}");
        pages_are_shown(place.path(), &all["n1"]);
        for id in ["n1", "n1b", "n3-3"] {
            ground.operator(&format!("reports drop --yes {}", all[id]));
        }
        assert_eq!(ids().len(), 6);
        let days = server.sql("sternpost", "SELECT day, successful, failed FROM domain_day ORDER BY day");
        assert_eq!(days.lines().count(), 2, "{days}");
        ground.stop();
        let log = std::fs::read_to_string(server.folder.join("log")).unwrap();
        assert!(!log.contains("out of range") && !log.contains("ERROR"), "{log}");
    });
}
