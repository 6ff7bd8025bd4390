//! Tenants by command: what belongs to one, and that a tenant proves a domain before anything is published for it.

use super::*;
use lab::dns::Rr;

/// The record that a command prints: its name, and its text.
fn record(printed: &str) -> (String, String) {
    let line = printed
        .lines()
        .find(|line| line.trim().starts_with("_sternpost."))
        .unwrap_or_else(|| panic!("{printed}"));
    let (name, text) = line.trim().split_once(" IN TXT ").unwrap();
    (name.to_owned(), text.trim_matches('"').to_owned())
}

#[test]
fn a_domain_is_served_for_the_tenant_that_proves_it_and_a_typed_name_blocks_nobody() {
    let cases = [domain("example.org"), domain("shop.example")];
    let scene = Scene::with(&cases, "mailto:new@example.org", "");
    let run = |words: &str| scene.run(&words.split(' ').collect::<Vec<_>>());
    let fine = |words: &str| {
        let (code, printed) = run(words);
        assert_eq!(code, 0, "{words}: {printed}");
        printed
    };
    let (code, printed) = run("domains list --tenant acme");
    assert!(code == 2 && printed.contains("sternpost tenants add acme"), "{printed}");
    for name in ["acme", "rival"] {
        fine(&format!("tenants add {name}"));
        let added = fine(&format!("domains add --tenant {name} shop.example"));
        assert!(added.contains(&format!("sternpost apply --tenant {name} shop.example")), "{added}");
        assert!(record(&added).1.starts_with("sternpost-domain="), "{added}");
    }
    // The first to type the name has nothing, and nothing is published for it.
    let (code, printed) = run("apply --tenant rival shop.example");
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("the tenant has not proved yet that it owns the domain"), "{printed}");
    let shown = record(&fine("plan --tenant acme shop.example"));
    assert_eq!(record(&fine("status --tenant acme shop.example")), shown);
    assert_ne!(record(&printed), shown, "each tenant has a word of its own");
    scene._lab.names.set(&shown.0, vec![Rr::Txt(vec![shown.1.clone()])]).unwrap();
    let (_, planned) = run("plan --tenant acme shop.example");
    assert!(!planned.contains("IN TXT \"sternpost-domain="), "{planned}");
    let (_, planned) = run("plan --tenant rival shop.example");
    assert!(planned.contains("another tenant of this installation owns the domain"), "{planned}");
    let (code, printed) = run("apply --tenant rival shop.example");
    assert!(code == 1 && printed.contains("another tenant"), "{printed}");
    let (code, printed) = run("domains add shop.example");
    assert!(code != 0 && printed.contains("another tenant"), "{printed}");
    // What is in the configuration file belongs to the first tenant.
    fine("domains add --tenant rival example.org");
    let (_, planned) = run("plan --tenant rival example.org");
    assert!(planned.contains("another tenant of this installation owns the domain"), "{planned}");
    assert!(!fine("domains list").contains("shop.example"));
    let of_variable = scene.command(&["domains", "list"]).env("STERNPOST_TENANT", "acme").output().unwrap();
    let (code, printed) = said(&of_variable);
    assert!(code == 0 && printed.contains("shop.example") && !printed.contains("example.org "), "{printed}");
    let (code, printed) = run("nodes --tenant acme");
    assert!(code == 2 && printed.contains("Leave the option out"), "{printed}");
    // A user of a tenant has a link of the tenant, and is none of another one.
    let config = scene.dir.path().join("sternpost.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[dashboard]\nurl = \"https://dash.example\"\n")).unwrap();
    let link = fine("dashboard invite --tenant acme ada --role operator");
    assert!(link.starts_with("https://dash.example/t/acme/welcome/"), "{link}");
    assert!(fine("dashboard users --tenant acme").contains("ada"));
    assert!(!fine("dashboard users").contains("ada"));
    let listed = fine("tenants list --json");
    assert!(
        listed.contains(r#""owns":["shop.example"]"#) && listed.contains(r#""name":"rival""#),
        "{listed}"
    );
    let shown = fine("tenants show acme");
    assert!(shown.contains("owns shop.example") && shown.contains("invitation"), "{shown}");
    let exported = fine("tenants export acme");
    assert!(
        exported.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{exported}"
    );
    assert!(
        exported.contains(r#""table":"domain""#) && !exported.contains(r#""table":"invitation""#),
        "{exported}"
    );
    // No command about a domain shows or changes that of another tenant.
    fine("domains add --tenant acme only.example");
    let rows = || fine("tenants export acme").lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let before = rows();
    for words in [
        "domains show only.example",
        "domains set only.example --mode none",
        "domains remove --although-bound only.example",
        "plan only.example",
        "apply only.example",
        "status only.example",
        "promote only.example",
        "hold only.example --reason crossing",
        "excuse only.example certificate-expired mx.only.example --reason crossing",
        "omit only.example ns.only.example --reason crossing",
        "undo only.example --reason crossing",
        "export --for nginx policies --domain only.example",
    ] {
        for tenant in ["rival", "main"] {
            let (code, printed) = run(&format!("{words} --tenant {tenant}"));
            assert!(
                code != 0 && !printed.contains("sternpost-domain="),
                "{words} --tenant {tenant}: {printed}"
            );
        }
    }
    assert_eq!(rows(), before);
    // A tenant with something is removed only with all of it, and its domain is free then.
    let (code, printed) = run("tenants remove acme");
    assert!(code == 1 && printed.contains("sternpost tenants remove --erase acme"), "{printed}");
    let (code, printed) = run("tenants remove --erase main");
    assert!(code == 2 && printed.contains("main can't be removed"), "{printed}");
    let erased = fine("tenants remove --erase --although-bound acme");
    assert!(erased.contains("the served policy and the certificate of shop.example"), "{erased}");
    assert!(!fine("tenants list").contains("acme"));
    let (_, planned) = run("plan --tenant rival shop.example");
    let free = record(&planned);
    scene._lab.names.set(&free.0, vec![Rr::Txt(vec![free.1.clone()])]).unwrap();
    run("plan --tenant rival shop.example");
    assert!(fine("tenants list").contains("owns shop.example"));
}
