//! docs/runbook.md as it stands: each of its blocks is run in the lab, in the order of the page, and what the program prints
//! is what the page shows. Blocks about Postfix are run by `real_servers/runbook.rs`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "runbook/desk.rs"]
mod desk;
#[path = "runbook/page.rs"]
mod page;
mod patience;

use desk::Desk;
use lab::behavior::Behavior;
use lab::case::{Case, Mx};
use lab::dns::{Rr, Signing};
use lab::pki::Cert;
use lab::policy_host::HttpBehavior;
use page::domain;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use store::hosting::StoredCertificate;

const OURS: &str = "[[domain]]\nname = \"example.org\"\n[guard]\nevery = 1\n";

/// A policy file.
fn policy(mode: &str, mx: &[&str]) -> String {
    let mx: String = mx.iter().map(|mx| format!("mx: {mx}\r\n")).collect();
    format!("version: STSv1\r\nmode: {mode}\r\n{mx}max_age: 604800\r\n")
}

/// example.org, enforced, with a second MX host whose certificate has expired.
fn with_expired_mx() -> Case {
    let mut ours = domain("example.org");
    let second = Mx { label: "mx2", preference: 20, cert: Cert::Expired, ..ours.setup.mx[0].clone() };
    ours.setup.mx.push(second);
    ours.setup.answers = HttpBehavior::Policy(policy("enforce", &["mx1.example.org", "mx2.example.org"]));
    ours
}

#[test]
fn a_domain_that_is_enforced_by_mistake() {
    let mut desk = Desk::new(1, &[with_expired_mx()]);
    desk.configure(OURS);
    // The first look takes what is there into the state.
    desk.first_look();
    desk.serve();
    desk.logged();
    for _ in ["check", "status", "hold and plan", "apply", "status", "query"] {
        desk.run();
    }
    desk.replace_mx_host("mx2", Behavior::Good, Cert::Good);
    for _ in ["check", "promote", "apply"] {
        desk.run();
    }
    desk.done();
}

#[test]
fn a_policy_host_whose_key_is_leaked_or_lost() {
    let mut desk = Desk::new(2, &[domain("example.org")]);
    let address = desk.lab.fresh_address();
    desk.lab.names.set("mta-sts.example.org.", vec![Rr::A(address)]).unwrap();
    let lines = format!(
        "[[domain]]\nname = \"example.org\"\nhost = \"self\"\n[host]\nlisten = [\"{address}:{}\"]\n",
        desk.lab.https_port
    );
    let files = desk.coming("toml");
    desk.configure(&format!("{lines}{files}"));
    desk.identity("old", Cert::Revoked);
    assert_eq!(
        desk.shell("cp old/fullchain.pem mta-sts.example.org.pem; touch mta-sts.example.org.key; chmod 600 mta-sts.example.org.key").0,
        0
    );
    desk.run();

    assert_eq!(desk.shell("cp old/privkey.pem mta-sts.example.org.key").0, 0);
    desk.serve();
    let (code, applied) = desk.shell("sternpost apply example.org");
    assert!(code == 0 && applied.contains("in testing"), "{applied}");
    let (code, applied) =
        desk.shell("sternpost promote --force --reason test example.org && sternpost apply");
    assert!(code == 0, "{applied}");
    let (code, found) = desk.shell("sternpost check example.org");
    assert!(code == 1 && found.contains("HTTPS-REVOKED"), "{found}");

    // As if Sternpost had ordered it.
    let ordered = StoredCertificate {
        chain: "CHAIN".into(),
        next_at: jiff::Timestamp::MAX,
        ..StoredCertificate::to_order(
            formats::DomainName::parse("mta-sts.example.org").unwrap(),
            jiff::Timestamp::now(),
        )
    };
    desk.put_certificate(&ordered);
    desk.run();
    assert!(desk.certificate(&ordered.host).next_at <= jiff::Timestamp::now());
    desk.put_certificate(&StoredCertificate { chain: String::new(), ..ordered });
    desk.block("toml");
    desk.run();
    let (code, applied) = desk.shell("sternpost apply --new-certificate");
    assert!(code == 0 && !applied.contains("within seconds"), "{applied}");
    desk.identity("new", Cert::Good);
    desk.run();
    desk.logged();
    desk.run();
    desk.done();
}

#[test]
fn a_ca_that_revokes_or_does_not_issue() {
    let mut ours = domain("example.org");
    ours.setup.host_cert = Cert::Revoked;
    let mut desk = Desk::new(3, &[ours]);
    // A CA that is down.
    desk.configure(
        "[[domain]]\nname = \"example.org\"\nhost = \"self\"\n[host]\nlisten = [\"unix:policies.sock\"]\nacme = { directory = \"https://127.0.0.1:1/directory\" }\n",
    );
    desk.serve();
    // Nobody serves the policy, so that it is put up here, where no certificate is.
    desk.lab.sites.block("mta-sts.example.org", true);
    let (code, applied) = desk.shell("sternpost apply --patience 0 example.org");
    assert!(code == 1 && applied.contains("serve the policy"), "{applied}");
    desk.logged();
    desk.stop();
    desk.lab.sites.block("mta-sts.example.org", false);
    desk.configure("");
    desk.run();
    desk.serve_policy_with(&policy("enforce", &["mx1.example.org"]), Cert::Expired);
    desk.run();

    let second = desk.block("toml");
    std::fs::write(desk.path("eab.key"), "c2VjcmV0\n").unwrap();
    std::fs::set_permissions(desk.path("eab.key"), Permissions::from_mode(0o600)).unwrap();
    let second = second.replace("[host.acme]", "[host]\nlisten = [\"unix:policies.sock\"]\n[host.acme]");
    desk.configure(&format!("[[domain]]\nname = \"example.org\"\nhost = \"self\"\n{second}"));
    desk.caa();
    desk.serve();
    desk.run();
    desk.done();
}

#[test]
fn a_zone_that_somebody_else_has_changed() {
    let mut desk = Desk::new(4, &[domain("example.org")]);
    desk.configure(OURS);
    desk.first_look();
    desk.serve();
    let mx = |host: &str| vec![Rr::Mx(10, format!("{host}."))];
    let record = |id: &str| vec![Rr::Txt(vec![format!("v=STSv1; id={id};")])];
    desk.lab.names.set("example.org.", mx("mx.attacker.test")).unwrap();
    desk.lab.names.set("_mta-sts.example.org.", record("666")).unwrap();
    desk.serve_policy("version: STSv1\r\nmode: none\r\nmax_age: 31557600\r\n");
    desk.logged();
    desk.run();
    desk.lab.names.set("example.org.", mx("mx1.example.org")).unwrap();
    desk.lab.names.set("_mta-sts.example.org.", record("20260101000000")).unwrap();
    desk.serve_policy(&policy("enforce", &["mx1.example.org"]));
    desk.run();
    desk.run();
    desk.logged();
    desk.done();
}

/// The lab for mail to others: partner.example with an expired certificate, broken.example with bogus signatures.
fn partners(section: u32) -> Desk {
    let mut partner = domain("partner.example");
    partner.setup.mx[0].cert = Cert::Expired;
    let mut broken = domain("broken.example");
    broken.setup.signing = Signing::Bogus;
    let desk = Desk::new(section, &[partner, broken]);
    desk.configure(ANSWERS);
    desk
}

const ANSWERS: &str = "[answers]\nlisten = [\"unix:answers.sock\"]\n";

#[test]
fn mail_that_is_queued() {
    let mut desk = partners(5);
    desk.serve();
    desk.run();
    desk.run();
    // The partner moves to another MX host, and corrects the policy later.
    let address = desk.start_mail_host("mx9.partner.example", Behavior::Good, Cert::Good);
    desk.lab.names.set("mx9.partner.example.", vec![Rr::A(address)]).unwrap();
    desk.lab.names.set("partner.example.", vec![Rr::Mx(10, "mx9.partner.example.".into())]).unwrap();
    desk.run();
    desk.run();
    desk.serve_policy_of("partner.example", &policy("enforce", &["mx9.partner.example"]), Cert::Good);
    let record = vec![Rr::Txt(vec!["v=STSv1; id=20261127120000;".to_owned()])];
    desk.lab.names.set("_mta-sts.partner.example.", record).unwrap();
    desk.run();
    desk.stop();
    desk.run();
    // Without the lab's trust anchor nothing validates, as behind a resolver that removes signatures.
    let own = std::fs::read_to_string(desk.path("sternpost.toml")).unwrap();
    std::fs::write(desk.path("sternpost.toml"), own.replace("trust_anchor = \"root.key\"\n", "")).unwrap();
    desk.run();
    std::fs::write(desk.path("sternpost.toml"), own).unwrap();
    desk.run();
    desk.serve();
    for file in ["sternpost.db", "sternpost.db-wal", "sternpost.db-shm"] {
        let _ = std::fs::remove_file(desk.path(file));
    }
    desk.shell("sternpost cache refresh partner.example");
    desk.logged();
    desk.done();
}

#[test]
fn a_partner_whose_policy_is_broken() {
    let mut desk = partners(6);
    desk.serve();
    let encrypt = desk.block("toml");
    desk.configure(&format!("{ANSWERS}{encrypt}"));
    desk.run();
    desk.logged();
    desk.run();
    let corrected = desk.block("text partner.example.txt");
    std::fs::write(desk.path("partner.example.txt"), corrected).unwrap();
    let pinned = desk.block("toml");
    desk.configure(&format!("{ANSWERS}{pinned}"));
    desk.run();
    desk.reloaded(2);
    desk.run();
    desk.replace_mx_host_of("partner.example", "mx1", Behavior::Good, Cert::Good);
    desk.run();
    desk.configure(ANSWERS);
    desk.run();
    desk.reloaded(3);
    desk.run();
    desk.done();
}
