//! The check against servers that others wrote: Knot and Unbound for names, nginx for policies, Postfix for mail. Each
//! of its most important findings is made by a configuration that people have, so that our lab is not judge of itself.

use crate::names::{Names, zone};
use crate::postfix::{Postfix, Release};
use crate::support::{daemon, in_a_room_of_its_own, shell, until};
use lab::dns::Signing;
use lab::pki::{Cert, Pki};
use net::clock::{Clock, SystemClock};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

/// A domain and what the check has to find there.
struct Domain {
    name: &'static str,
    finds: &'static str,
    signing: Signing,
    /// Lines of the zone that are others than usual: what, by what.
    zone: Vec<(&'static str, String)>,
    cert: Cert,
    policy: &'static str,
    /// What nginx does in place of serving the file.
    serves: &'static str,
}

const POLICY: &str = "version: STSv1\nmode: enforce\nmx: *.mail.test\nmax_age: 604800\n";
const MX: &str = "@ MX 10 good.mail.test.\n";
const RECORD: &str = "_mta-sts TXT \"v=STSv1; id=20260101000000;\"\n";
const HOST: &str = "mta-sts A 127.0.0.10\n";
const REPORTS: &str = "_smtp._tls TXT \"v=TLSRPTv1; rua=mailto:r@good.test\"\n";

fn domain(name: &'static str, finds: &'static str) -> Domain {
    let (signing, cert) = (Signing::Unsigned, Cert::Good);
    Domain { name, finds, signing, zone: Vec::new(), cert, policy: POLICY, serves: "" }
}

impl Domain {
    fn zone(mut self, from: &'static str, to: &str) -> Self {
        self.zone.push((from, to.to_owned()));
        self
    }

    fn mx(self, host: &str) -> Self {
        self.zone(MX, &format!("@ MX 10 {host}.mail.test.\n"))
    }

    fn signed(self, signing: Signing) -> Self {
        Self { signing, ..self }
    }

    fn cert(self, cert: Cert) -> Self {
        Self { cert, ..self }
    }

    fn policy(self, policy: &'static str) -> Self {
        Self { policy, ..self }
    }

    fn serves(self, serves: &'static str) -> Self {
        Self { serves, ..self }
    }
}

/// Those that people meet. `digest` is of the key of the good MX host.
fn domains(digest: &str) -> Vec<Domain> {
    let tlsa = |digest: &str| format!("@ MX 10 mx1\nmx1 A 127.0.0.21\n_25._tcp.mx1 TLSA 3 1 1 {digest}\n");
    let wrong = "0".repeat(64);
    vec![
        domain("good", ""),
        domain("norecord", "STS-TXT-MISSING").zone(RECORD, ""),
        domain("two", "STS-TXT-MULTIPLE")
            .zone(RECORD, "_mta-sts TXT \"v=STSv1; id=1;\"\n_mta-sts TXT \"v=STSv1; id=2;\"\n"),
        domain("noid", "STS-TXT-ID-MISSING").zone(RECORD, "_mta-sts TXT \"v=STSv1;\"\n"),
        domain("nohost", "HOST-MISSING").zone(HOST, ""),
        domain("refused", "HOST-UNREACHABLE").zone(HOST, "mta-sts A 127.0.0.11\n"),
        domain("webexpired", "HTTPS-CERT-EXPIRED").cert(Cert::Expired),
        domain("webname", "HTTPS-CERT-NAME").cert(Cert::WrongName),
        domain("webself", "HTTPS-CERT-SELF").cert(Cert::SelfSigned),
        domain("webstranger", "HTTPS-CERT-UNTRUSTED").cert(Cert::Untrusted),
        domain("redirect", "HTTPS-REDIRECT").serves("return 301 https://www.redirect.test/;"),
        domain("notfound", "HTTPS-STATUS").serves("return 404;"),
        domain("webtype", "HTTPS-TYPE").serves("default_type text/html; alias POLICY;"),
        domain("password", "HTTPS-AUTH").serves("return 401;"),
        domain("noversion", "POL-VERSION").policy("mode: enforce\nmx: *.mail.test\nmax_age: 604800\n"),
        domain("webpage", "POL-HTML").policy("<!DOCTYPE html><html><body>Parked</body></html>\n"),
        domain("nomode", "POL-MODE").policy("version: STSv1\nmx: *.mail.test\nmax_age: 604800\n"),
        domain("uncovered", "MATCH-NONE")
            .policy("version: STSv1\nmode: enforce\nmx: mx.other.test\nmax_age: 604800\n"),
        domain("clear", "SMTP-NO-STARTTLS").mx("clear"),
        domain("mxexpired", "SMTP-CERT-EXPIRED").mx("expired"),
        domain("mxname", "SMTP-CERT-NAME").mx("name"),
        domain("mxself", "SMTP-CERT-SELF").mx("self"),
        domain("mxstranger", "SMTP-CERT-UNTRUSTED").mx("stranger"),
        domain("down", "SMTP-UNREACHABLE").mx("down"),
        domain("nomx", "MX-UNRESOLVED").mx("nowhere"),
        domain("danewrong", "DANE-MISMATCH").signed(Signing::Signed).zone(MX, &tlsa(&wrong)),
        domain("danegood", "DANE-PROTECTS").signed(Signing::Signed).zone(MX, &tlsa(digest)),
        domain("bogus", "DNSSEC-BOGUS").signed(Signing::Bogus),
        domain("norpt", "RPT-TXT-MISSING").zone(REPORTS, ""),
        domain("tworpt", "RPT-TXT-MULTIPLE")
            .zone(REPORTS, &format!("{REPORTS}{REPORTS}").replacen("r@good", "s@good", 1)),
    ]
}

/// MX hosts: the last byte of their address, and what they present.
const MAIL: &[(&str, u8, Option<Cert>)] = &[
    ("good", 21, Some(Cert::Good)),
    ("expired", 22, Some(Cert::Expired)),
    ("name", 23, Some(Cert::WrongName)),
    ("self", 24, Some(Cert::SelfSigned)),
    ("stranger", 25, Some(Cert::Untrusted)),
    ("clear", 26, None),
];

fn names(place: &Path, all: &[Domain]) -> Names {
    let root = zone(".", Signing::Signed, "test. NS ns.test.\nns.test. A 127.0.1.1\n");
    let mut test = "ns A 127.0.1.1\nmail NS ns.test.\n".to_owned();
    let mut mail = "down A 127.0.0.29\n".to_owned();
    for (name, last, _) in MAIL {
        let _ = writeln!(mail, "{name} A 127.0.0.{last}");
    }
    let mut zones = Vec::new();
    for one in all {
        let _ = writeln!(test, "{} NS ns.test.", one.name);
        let mut text = [MX, RECORD, HOST, REPORTS].concat();
        for (from, to) in &one.zone {
            text = text.replace(from, to);
        }
        zones.push(zone(&format!("{}.test.", one.name), one.signing, &text));
    }
    let mut first =
        vec![root, zone("test.", Signing::Signed, &test), zone("mail.test.", Signing::Unsigned, &mail)];
    first.extend(zones);
    Names::start(&place.join("names"), [127, 0, 1, 1].into(), &first)
}

fn put(pki: &Pki, place: &Path, host: &str, cert: Cert) -> String {
    let identity = pki.issue(host, cert).unwrap();
    let path = place.join(format!("{host}.pem"));
    std::fs::write(&path, identity.key_pem() + &identity.chain_pem()).unwrap();
    path.display().to_string()
}

fn nginx(pki: &Pki, place: &Path, all: &[Domain]) -> crate::support::Running {
    let at = place.display();
    let mut text = format!(
        "daemon off; user root; pid {at}/nginx.pid; error_log {at}/error.log;\nevents {{}}\nhttp {{ access_log off; server_names_hash_bucket_size 128;\n"
    );
    for one in all {
        let host = format!("mta-sts.{}.test", one.name);
        let pem = put(pki, place, &host, one.cert);
        let policy = place.join(format!("{}.txt", one.name));
        std::fs::write(&policy, one.policy).unwrap();
        let serves =
            if one.serves.is_empty() { "default_type text/plain; alias POLICY;" } else { one.serves };
        let serves = serves.replace("POLICY", &policy.display().to_string());
        let _ = writeln!(
            text,
            "server {{ listen 127.0.0.10:443 ssl; server_name {host}; ssl_certificate {pem}; ssl_certificate_key {pem};\n types {{ }} location = /.well-known/mta-sts.txt {{ {serves} }} }}"
        );
    }
    std::fs::write(place.join("nginx.conf"), text + "}\n").unwrap();
    daemon(&format!("nginx -c {at}/nginx.conf"), &place.join("nginx.log"))
}

fn postfix(pki: &Pki, place: &Path) -> Postfix {
    let own = place.join("mail");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(place.join("ca.pem"), own.join("ca.pem")).unwrap();
    let (mut services, mut addresses) = (String::new(), Vec::new());
    for (name, last, cert) in MAIL {
        let at = format!("127.0.0.{last}");
        // Postfix looks for it among the addresses of interfaces.
        shell(&format!("ip addr add {at}/32 dev lo"));
        let _ = write!(services, "{at}:25 inet n - n - - smtpd -o myhostname={name}.mail.test");
        let _ = match cert {
            Some(cert) => {
                let pem = put(pki, &own, &format!("{name}.mail.test"), *cert);
                writeln!(services, " -o smtpd_tls_security_level=may -o smtpd_tls_chain_files={pem}")
            }
            None => writeln!(services, " -o smtpd_tls_security_level=none"),
        };
        addresses.push(at);
    }
    let lines = format!(
        "inet_interfaces = {}\nsmtpd_peername_lookup = no\nsmtpd_relay_restrictions = reject\n",
        addresses.join(", ")
    );
    Postfix::start_with(Release::V3_7, &own, &lines, &services)
}

fn found(report: &Value, severity: Option<&str>) -> BTreeSet<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let wanted = findings.filter(|one| severity.is_none_or(|severity| one["severity"] == severity));
    wanted.map(|one| one["check"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_check_finds_on_servers_of_others_what_it_finds_in_the_lab() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        shell(&format!("chmod 755 {}", place.display()));
        let pki = Pki::new(SystemClock.now()).unwrap();
        std::fs::write(place.join("ca.pem"), pki.root_pem()).unwrap();
        let postfix = postfix(&pki, place);
        let digest = shell(&format!(
            "openssl x509 -in {}/mail/good.mail.test.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -d' ' -f1",
            place.display()
        ));
        let all = domains(digest.trim());
        let _names = names(place, &all);
        let _nginx = nginx(&pki, place, &all);
        until("nginx and Postfix serve", || {
            let listening = shell("ss -Hltn");
            listening.contains("127.0.0.10:443") && listening.contains("127.0.0.26:25")
        });
        let config = "[dns]\nservers = [\"127.0.0.1:53\"]\ntrust_anchor = \"names/root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n";
        std::fs::write(place.join("sternpost.toml"), config).unwrap();
        let list: String = all.iter().map(|one| format!(" {}.test", one.name)).collect();
        let said = shell(&format!(
            "cd {} && sternpost --config sternpost.toml check --json{list} 2>check.err || [ $? = 1 ] || {{ cat check.err; exit 1; }}",
            place.display()
        ));
        let reports: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(reports.len(), all.len(), "{said}");
        let mut wrong = Vec::new();
        for (one, report) in all.iter().zip(&reports) {
            let seen = found(report, None);
            if one.finds.is_empty() {
                let errors = found(report, Some("error"));
                if !errors.is_empty() {
                    wrong.push(format!("{} is in order, and {errors:?} is found", one.name));
                }
            } else if !seen.contains(one.finds) {
                wrong.push(format!("{}: {} is not found, but {seen:?}", one.name, one.finds));
            }
        }
        // What is found at one domain is not found at the one where nothing is wrong.
        let good = found(&reports[0], None);
        for one in all.iter().filter(|one| !one.finds.is_empty() && good.contains(one.finds)) {
            wrong.push(format!("{} is found where nothing is wrong", one.finds));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        drop(postfix);
    });
}
