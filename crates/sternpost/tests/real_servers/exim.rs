//! Exim, configured by the very lines of docs/exim.md, delivers into the lab: 4.96 here, the newest by [`crate::newest`].

use crate::faults;
use crate::ground::{Ground, block};
use crate::postfix::unpacked;
use crate::support::{in_a_room_of_its_own, mount_over, shell};
use std::path::Path;

/// The domain, whether mail arrives, and a part of what the log says.
const CASES: &[(&str, bool, &str)] = &[
    ("good-enforce", true, "CV=yes"),
    ("good-testing", true, "X=TLS"),
    ("no-mta-sts", true, "X=TLS"),
    ("plain-no-starttls", true, "=>"),
    ("mx-expired", false, "certificate"),
    ("mx-wrong-name", false, "certificate"),
    ("mx-not-listed", false, "matches no mx line"),
    ("mx-no-starttls", false, "TLS"),
    ("dane-ee", true, "CV=dane"),
    ("dane-mismatch", false, "=="),
    ("dane-beats-sts", true, "CV=dane"),
    ("dane-bogus", false, "=="),
];

/// The same for the domains of [`faults`].
const FAULTS: &[(&str, bool, &str)] = &[
    // Exim wants secure MX records for DANE.
    ("hosted-testing", true, "X=TLS"),
    ("hosted-enforce", true, "CV=yes"),
    // Exim has no DANE where the addresses are not secure, also where the MX name is a secure alias (docs/exim.md). The
    // message stays in the queue.
    ("alias-right", false, "needs the secure alias of an unsigned host"),
    ("many-patterns", true, "CV=yes"),
    ("eight-aaaa", false, "certificate"),
    ("address-line", false, "certificate"),
];

pub fn configure(place: &Path, root: &Path) {
    let log = block("tlsrpt-sending.md", "exim log");
    let macros = block("exim.md", "exim macros").replace("/run/sternpost", "/var/spool/exim4");
    let transport = block("exim.md", "exim transport")
        .replace("/etc/ssl/certs/ca-certificates.crt", "/var/spool/exim4/ca.pem");
    // The lab lives on loopback, which Exim would take for itself.
    let transport = transport.replace("driver = smtp\n", "driver = smtp\n  allow_localhost\n");
    let router = block("exim.md", "exim router").replace("  no_more\n", "  self = send\n  no_more\n");
    let acl = block("exim.md", "exim acl");
    let text = format!(
        "{macros}primary_hostname = sender.test\ndomainlist local_domains =\n{log}\
         disable_ipv6\nhost_lookup =\nnever_users =\ndns_dnssec_ok = 1\nlog_file_path = /var/spool/exim4/log-%s\n\
         begin acl\n{acl}begin routers\n{router}begin transports\n{transport}begin retry\n* * F,2h,15m\n"
    );
    for folder in ["etc", "spool"] {
        std::fs::create_dir_all(place.join(folder)).unwrap();
    }
    std::fs::write(place.join("etc/exim4.conf"), text).unwrap();
    std::fs::copy(place.join("ca.pem"), place.join("spool/ca.pem")).unwrap();
    std::fs::write(place.join("resolv.conf"), "nameserver 127.0.0.1\noptions trust-ad\n").unwrap();
    mount_over(&place.join("resolv.conf"), &root.join("etc/resolv.conf"));
    mount_over(&place.join("etc"), &root.join("etc/exim4"));
    mount_over(&place.join("spool"), &root.join("var/spool/exim4"));
    shell(&format!("chroot {} chown Debian-exim /var/spool/exim4", root.display()));
}

#[test]
fn exim_delivers_as_the_policies_say() {
    delivers_as_the_policies_say("exim");
}

/// Runs the unpacked Exim of that name through all cases.
pub fn delivers_as_the_policies_say(name: &'static str) {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let root = unpacked(name);
        let names: Vec<&str> = CASES.iter().map(|(name, ..)| *name).collect();
        let mut ground = Ground::with_more(443, place.path(), &names, "good-testing", faults::add);
        configure(place.path(), &root);
        ground.serve(&format!("lines = [\"unix:{}/spool/lines.sock\"]", place.path().display()));
        let mut wrong = Vec::new();
        for (name, arrives, says) in CASES.iter().chain(FAULTS) {
            let to = format!("b@{name}.test");
            let send = format!("printf \"Subject: hello\\n\\nhello\\n\" | exim4 -odf -f a@sender.test {to}");
            let said = shell(&format!("chroot {} bash -c '{send}' 2>&1 || true", root.display()));
            let log = std::fs::read_to_string(place.path().join("spool/log-main")).unwrap_or_default();
            let about: Vec<&str> =
                log.lines().filter(|line| line.contains(&format!("{name}.test"))).collect();
            let arrived =
                ground.lab.mail_traffic.take_received().iter().any(|mail| mail.incoming.to.contains(&to));
            if arrived != *arrives || !about.iter().any(|line| line.contains(says)) {
                wrong.push(format!(
                    "{name}: arrived {arrived}, expected {arrives} and {says:?}\n{said}\n{}",
                    about.join("\n")
                ));
            }
        }
        assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n\n"), ground.log());
    });
}
