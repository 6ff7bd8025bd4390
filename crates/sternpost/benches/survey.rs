//! `sternpost check --from` over a population with the faults of Ashiq et al. (IMC 2025) in their shares: the table of `--summary` has to
//! show them class by class. Lab and program are separate processes on the same two processors.
//!
//! `cargo bench -p sternpost --bench survey [-- DOMAINS]`; 68,030 by default, as in the study.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/survey/expected.rs"]
mod expected;
#[allow(dead_code, reason = "each benchmark needs some of it")]
mod process;

use lab::survey::{PAPER, PAPER_DOMAINS, Share};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use process::{Process, cpu};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let Some(words) = process::words(&["lab"]) else { return };
    match words.first().map(String::as_str) {
        Some("lab") => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(serve(Path::new(&words[1]), words[2].parse().unwrap()));
        }
        count => measure(count.map_or(PAPER_DOMAINS, |count| count.parse().unwrap())),
    }
}

fn faults(domains: usize) -> Vec<Share> {
    let scaled = |number: usize| number * domains / PAPER_DOMAINS;
    let one = |share: &Share| Share {
        domains: scaled(share.domains),
        in_enforce: scaled(share.in_enforce),
        ..*share
    };
    PAPER.iter().map(one).collect()
}

async fn serve(place: &Path, domains: usize) {
    let lab = Lab::start(Ports::free(), SystemClock.now()).await.unwrap();
    let population = lab.populate(domains, &faults(domains), 1).await.unwrap();
    let write = |name: &str, text: &str| std::fs::write(place.join(name), text).unwrap();
    write("ca.pem", &lab.pki.root_pem());
    write("root.key", &lab.names.trust_anchor().unwrap());
    write("history", &population.history);
    write("list", &population.domains.iter().map(|(domain, _)| format!("{domain}\n")).collect::<String>());
    let address = lab.names.address;
    let config = format!(
        "[dns]\nservers = [\"{address}\"]\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
         [lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n",
        address.port(),
        lab.https_port,
        lab.smtp_port
    );
    write("sternpost.toml", &config);
    println!("up");
    std::io::stdout().flush().unwrap();
    std::future::pending().await
}

fn measure(domains: usize) {
    let place = tempfile::tempdir().unwrap();
    let lab = Process::again(&["lab", place.path().to_str().unwrap(), &domains.to_string()]);
    let words = ["check", "--from", "list", "--history", "history", "--resume", "out", "--summary", "--json"];
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sternpost"))
        .current_dir(place.path())
        .args(words)
        .args(["--report", "report"])
        .stdout(std::fs::File::create(place.path().join("summary")).unwrap())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    let (mut used, mut most) = (0.0, 0);
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) {
            most = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            used = cpu(&id);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begun.elapsed().as_secs_f64();
    drop(lab);
    let summary = std::fs::read_to_string(place.path().join("summary")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let table = &summary["mta_sts"];
    let (rows, misconfigured, lost) = expected::expected(&faults(domains));
    println!(
        "{domains} domains in {:.0} s ({:.0}/s), {:.2} ms of CPU time each, {} MiB at most\n",
        took,
        domains as f64 / took,
        used * 1e3 / domains as f64,
        most >> 10
    );
    println!("| class | served | found |\n| --- | ---: | ---: |");
    let mut is_right = true;
    let mut row = |id: &str, served: u64, found: u64| {
        is_right &= served == found;
        println!("| {id} | {served} | {found} |");
    };
    row("misconfigured", misconfigured, table["misconfigured"].as_u64().unwrap());
    row("lost", lost, table["lost"].as_u64().unwrap());
    for class in table["classes"].as_array().unwrap() {
        let (id, found) = (class["id"].as_str().unwrap(), class["domains"].as_u64().unwrap());
        let served = rows.get(id).copied().unwrap_or(0);
        if served > 0 || found > 0 {
            row(id, served, found);
        }
    }
    assert!(is_right, "the table differs");
}
