//! What `sternpost export` makes, taken in by the real nginx, Caddy and Apache as its page says, and
//! looked at by Sternpost's own fetch and by curl.

use crate::ground::Ground;
use crate::patience::until_some_or;
use crate::support::{daemon, in_a_room_of_its_own, mount_over, shell};
use lab::pki::Cert;
use std::path::Path;

const DOMAINS: [&str; 2] = ["good-enforce.test", "good-testing.test"];

/// The lab's names, with both policy hosts moved to one web server, and the export for it.
fn exported(place: &Path, platform: &str) -> Ground {
    let ground = Ground::with_policy_hosts_at(8443, place, &["good-enforce", "good-testing"], "good-enforce");
    std::fs::write(place.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    mount_over(&place.join("resolv.conf"), Path::new("/etc/resolv.conf"));
    for domain in DOMAINS {
        let host = format!("mta-sts.{domain}");
        let address = ground.address(&host);
        ground.names.change(
            &format!("{domain}."),
            &format!("{host}. 300 IN A {address}"),
            &format!("{host}. 1 IN A 127.0.0.80"),
        );
        let identity = ground.lab.pki.issue(&host, Cert::Good).unwrap();
        let live = place.join("live").join(&host);
        std::fs::create_dir_all(&live).unwrap();
        std::fs::write(live.join("fullchain.pem"), identity.chain_pem()).unwrap();
        std::fs::write(live.join("privkey.pem"), identity.key_pem()).unwrap();
    }
    let domains = DOMAINS.map(|domain| format!("[[domain]]\nname = \"{domain}\"\nmode = \"enforce\"\n"));
    ground.configure("", &domains.concat());
    ground.operator(&format!("export --for {platform} {}/www", place.display()));
    ground
}

/// Both clients find each policy, and nothing else.
fn look(ground: &Ground, place: &Path) {
    let curl = |words: &str| shell(&format!("curl -s --cacert {}/ca.pem {words}", place.display()));
    for domain in DOMAINS {
        let url = format!("https://mta-sts.{domain}/.well-known/mta-sts.txt");
        let ask = || curl(&format!("-S {url} || true"));
        until_some_or(
            || format!("no policy: {}\n{}", ask(), logs(place)),
            || ask().contains("STSv1").then_some(()),
        );
        let file = std::fs::read_to_string(place.join("www").join(domain).join("mta-sts.txt")).unwrap();
        assert_eq!(curl(&url), file);
        let head = curl(&format!("-I {url}")).to_ascii_lowercase();
        assert!(
            head.contains("content-type: text/plain; charset=utf-8")
                && head.contains("cache-control: max-age=60"),
            "{head}"
        );
        assert!(head.lines().next().unwrap().contains(" 200"), "{head}");
        let status = |words: &str| curl(&format!("-o /dev/null -w '%{{http_code}}' {words}"));
        assert_eq!(status(&format!("https://mta-sts.{domain}/")), "404");
        assert_eq!(status(&format!("{url}/")), "404");
        assert!(["403", "405", "404"].contains(&status(&format!("-X DELETE {url}")).as_str()));
        let plan = ground.operator(&format!("plan --json {domain}"));
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        let first = &plan["plans"][0]["stages"][0]["do"];
        assert_ne!(first, "serve", "the fetch of our own does not find what was exported: {plan}");
    }
}

/// What the web server has to say.
fn logs(place: &Path) -> String {
    let read = |name| std::fs::read_to_string(place.join(name)).unwrap_or_default();
    ["nginx.log", "apache.log", "caddy.log", "error.log"].map(read).concat()
}

/// Puts the test's certificates where the export says that they are.
fn certificates(place: &Path) {
    shell("mkdir -p /etc/letsencrypt && mount -t tmpfs none /etc/letsencrypt");
    shell(&format!("cp -r {}/live /etc/letsencrypt/", place.display()));
}

#[test]
fn nginx_serves_what_was_exported_for_it() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let ground = exported(place.path(), "nginx");
        certificates(place.path());
        let dir = place.path().display();
        let main = format!(
            "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log;\nevents {{}}\nhttp {{ access_log off; include /etc/nginx/mime.types; include {dir}/www/nginx.conf; }}\n"
        );
        std::fs::write(place.path().join("main.conf"), main).unwrap();
        let _nginx = daemon(&format!("nginx -c {dir}/main.conf"), &place.path().join("nginx.log"));
        look(&ground, place.path());
    });
}

#[test]
fn apache_serves_what_was_exported_for_it() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let ground = exported(place.path(), "apache");
        certificates(place.path());
        let dir = place.path().display();
        let modules = ["mpm_event", "authz_core", "alias", "ssl", "headers", "mime", "socache_shmcb"];
        let modules = modules
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .concat();
        let main = format!(
            "{modules}TypesConfig /etc/mime.types\nServerName localhost\nListen 443\nPidFile {dir}/apache.pid\nDefaultRuntimeDir {dir}\nErrorLog {dir}/error.log\nUser www-data\nGroup www-data\nInclude {dir}/www/apache.conf\n"
        );
        std::fs::write(place.path().join("main.conf"), main).unwrap();
        let _apache = daemon(&format!("apache2 -X -f {dir}/main.conf"), &place.path().join("apache.log"));
        look(&ground, place.path());
    });
}

#[test]
fn caddy_serves_what_was_exported_for_it() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let ground = exported(place.path(), "caddy");
        certificates(place.path());
        let dir = place.path().display();
        // The certificates come from files here, since Caddy's own would come from the internet.
        let load = DOMAINS.map(|domain| {
            let live = format!("/etc/letsencrypt/live/mta-sts.{domain}");
            (
                format!("mta-sts.{domain} {{\n"),
                format!("mta-sts.{domain} {{\n\ttls {live}/fullchain.pem {live}/privkey.pem\n"),
            )
        });
        let path = place.path().join("www/Caddyfile");
        let text = load.iter().fold(std::fs::read_to_string(&path).unwrap(), |text, (from, to)| {
            assert!(text.contains(from.as_str()), "{text}");
            text.replace(from, to)
        });
        std::fs::write(&path, format!("{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}"))
            .unwrap();
        let _caddy = daemon(
            &format!("env HOME={dir} caddy run --config {dir}/www/Caddyfile --adapter caddyfile"),
            &place.path().join("caddy.log"),
        );
        look(&ground, place.path());
    });
}
