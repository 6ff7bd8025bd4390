//! `sternpost check --from … --summary` over populations of the lab whose faults are known: the table has to show them class by class.
//! `cargo bench -p sternpost --bench survey` does the same with as many domains as the study had.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use lab::survey::{Fault, PAPER, PAPER_DOMAINS, Share};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

mod survey {
    pub mod expected;
}
use survey::expected::expected;

/// Serves a population, and returns the summary as JSON, and as text.
fn summary(domains: usize, faults: &[Share], seed: u64) -> (Value, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (lab, population) = runtime.block_on(async {
        let lab = Lab::start(Ports::free(), SystemClock.now()).await.unwrap();
        let population = lab.populate(domains, faults, seed).await.unwrap();
        (lab, population)
    });
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
    write("ca.pem", &lab.pki.root_pem());
    write("root.key", &lab.names.trust_anchor().unwrap());
    write("history", &population.history);
    write("list", &population.domains.iter().map(|(domain, _)| format!("{domain}\n")).collect::<String>());
    let address = lab.names.address;
    write(
        "sternpost.toml",
        &format!(
            "[dns]\nservers = [\"{address}\"]\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"ca.pem\"\n\
             allow_private_addresses = true\n[lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n",
            address.port(),
            lab.https_port,
            lab.smtp_port
        ),
    );
    let words = ["--from", "list", "--history", "history", "--resume", "out", "--summary", "--json"];
    let counts = check(place.path(), &words);
    // The lines have what the table needs.
    assert_eq!(check(place.path(), &["merge", "out", "--summary", "--json"]), counts);
    let text = check(place.path(), &["merge", "out", "--summary"]);
    (serde_json::from_str(&counts).unwrap(), text)
}

fn check(place: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    let output = command.current_dir(place).arg("check").args(words).output().unwrap();
    assert!(output.status.code().is_some_and(|code| code < 2), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Compares the table with what the population has.
fn compare(counts: &Value, domains: usize, faults: &[Share]) {
    let table = &counts["mta_sts"];
    let classes = table["classes"].as_array().unwrap();
    let found: BTreeMap<&str, u64> =
        classes.iter().map(|row| (row["id"].as_str().unwrap(), row["domains"].as_u64().unwrap())).collect();
    let (rows, misconfigured, lost) = expected(faults);
    let differing: Vec<String> = found
        .iter()
        .filter(|(id, count)| rows.get(**id).copied().unwrap_or(0) != **count)
        .map(|(id, count)| format!("{id}: {count}, not {}", rows.get(*id).copied().unwrap_or(0)))
        .collect();
    assert!(differing.is_empty(), "{differing:#?}\n{counts}");
    assert!(rows.keys().all(|id| found.contains_key(*id)));
    let whole = |name: &str| table[name].as_u64().unwrap();
    assert_eq!(
        (whole("domains"), whole("misconfigured"), whole("lost")),
        (domains as u64, misconfigured, lost)
    );
}

#[test]
fn the_table_of_the_study_is_found_in_its_shares() {
    let domains = 1000;
    let scaled = |number: usize| (number * domains + PAPER_DOMAINS / 2) / PAPER_DOMAINS;
    let faults: Vec<Share> = PAPER
        .iter()
        .map(|share| Share {
            domains: scaled(share.domains).max(1),
            in_enforce: scaled(share.in_enforce),
            ..*share
        })
        .collect();
    let (counts, text) = summary(domains, &faults, 1);
    compare(&counts, domains, &faults);
    assert!(text.contains("MTA-STS: 1000 domains with a record"), "{text}");
    assert!(text.contains("every name leads to one server, such as a parking page"), "{text}");
}

#[test]
fn a_table_of_other_shares_is_found_too() {
    let all = PAPER.iter().map(|share| share.fault).chain([Fault::MatchOtherEnd]);
    let faults: Vec<Share> = all
        .zip((3..).step_by(2))
        .map(|(fault, domains)| Share { fault, domains, in_enforce: domains / 3 })
        .collect();
    let (counts, _) = summary(640, &faults, 2);
    compare(&counts, 640, &faults);
}
