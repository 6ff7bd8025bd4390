//! Every block of README.md and `docs/` works as it stands. A page is a story: its machine ([`machine`]) starts like a freshly
//! installed mail server, and its blocks are carried out in their order, as a reader would. Commands are run, and what a
//! `console` block shows is compared with what they print; configuration goes where it belongs, is validated by its own program
//! and put into service; records are published; files are parsed. What is done with a kind of block is a script of its name in
//! `tests/docs/kinds`: a block whose kind has none fails. A new block in any page needs no change here.
//!
//! On docs/install.md and docs/operate.md, nothing happens that the page does not say. On the other pages, a configuration is often
//! one of several choices, so that its keys and certificates are created and the service is restarted for each. On all pages,
//! systemd reads a changed unit or drop-in only by `daemon-reload`.
//!
//! docs/runbook.md is run by `tests/runbook.rs` and [`crate::runbook`]; here its blocks are only counted.

mod authority;
mod blocks;
mod internet;
mod links;
mod machine;

use crate::runbook::page::{commands, compare};
use crate::support::in_a_room_of_its_own;
use blocks::{Block, blocks, pages, tree};
use machine::Machine;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The page that has tests of its own.
const RUNBOOK: &str = "docs/runbook.md";
/// How many pages are run at once.
const ROOMS: usize = 3;

/// What became of the blocks of all pages.
#[derive(Default)]
struct Outcome {
    failures: Vec<String>,
    times: Vec<(Duration, String)>,
}

#[test]
fn every_block_of_the_documentation_works() {
    let wanted = std::env::var("PAGE").ok();
    let mut faults = Vec::new();
    let mut all: Vec<(String, Vec<Block>)> = Vec::new();
    for page in pages() {
        match blocks(&std::fs::read_to_string(tree().join(&page)).unwrap()) {
            Ok(found) => all.push((page, found)),
            Err(error) => faults.push(format!("{page}, {error}")),
        }
    }
    faults.extend(all.iter().flat_map(|(page, blocks)| marked_wrongly(page, blocks)));
    let summary = summary(&all);
    println!("{summary}");
    let target = tree().join("target");
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("docs.txt"), &summary).unwrap();
    let to_run = all.into_iter().filter(|(page, blocks)| {
        page != RUNBOOK
            && !blocks.is_empty()
            && wanted.as_ref().is_none_or(|wanted| page.ends_with(wanted.as_str()))
    });
    let outcome = run_all(to_run.collect());
    for (time, page) in &outcome.times {
        println!("{page}: {:.1} s", time.as_secs_f64());
    }
    faults.extend(outcome.failures);
    assert!(faults.is_empty(), "{} blocks do not work:\n\n{}", faults.len(), faults.join("\n\n"));
}

#[test]
fn a_block_that_does_not_work_is_found_whatever_its_kind() {
    in_a_room_of_its_own(|| {
        let page = std::fs::read_to_string(tree().join("crates/sternpost/tests/docs/faulty.md")).unwrap();
        let faulty = blocks(&page).unwrap();
        let failures = run_page("faulty.md", &faulty);
        let unfound: Vec<&Block> = faulty
            .iter()
            .filter(|block| {
                !failures.iter().any(|text| text.starts_with(&format!("faulty.md, line {}:", block.line)))
            })
            .collect();
        assert!(unfound.is_empty() && faulty.len() > 10, "{unfound:?}");
    });
    let marks = "```nonesuch\n```\n\n```\n```\n\n<!-- not run: no reason -->\n```sh\n```\n\n```sh\n```\n";
    assert_eq!(marked_wrongly("page", &blocks(marks).unwrap()).len(), 3);
}

/// The page with the examples of the help.
const HELP: &str = "crates/sternpost/tests/docs/help.md";

#[test]
fn every_example_of_the_help_works() {
    let page = blocks(&std::fs::read_to_string(tree().join(HELP)).unwrap()).unwrap();
    let lines =
        page.iter().flat_map(|block| block.text.lines()).filter(|line| line.starts_with("sternpost "));
    let on_page: BTreeSet<&str> = lines.collect();
    let shown = examples(&[]);
    let shown: BTreeSet<&str> = shown.iter().map(String::as_str).collect();
    assert!(shown.len() > 60, "{shown:?}");
    assert_eq!(shown.difference(&on_page).collect::<Vec<_>>(), Vec::<&&str>::new(), "not in {HELP}");
    assert_eq!(on_page.difference(&shown).collect::<Vec<_>>(), Vec::<&&str>::new(), "in no help");
    assert_eq!(marked_wrongly(HELP, &page), Vec::<String>::new());
    let left_out = page.iter().filter(|block| block.not_run.is_some()).count();
    assert!(left_out * 20 <= page.len(), "{left_out} of {} blocks are not run", page.len());
    println!("{} examples of the help in {} blocks, not run: {left_out}", shown.len(), page.len());
    in_a_room_of_its_own(move || {
        let failures = run_page(HELP, &page);
        assert!(failures.is_empty(), "{} blocks do not work:\n\n{}", failures.len(), failures.join("\n\n"));
    });
}

/// The examples in the help of a command and of its subcommands.
fn examples(command: &[String]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sternpost")).args(command).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut found: Vec<String> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|line| line.starts_with("sternpost ")))
        .map(str::to_owned)
        .collect();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in listed.take_while(|line| !line.is_empty()) {
        let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
        let Some(name) = name.and_then(|line| line.split(' ').next()).filter(|name| *name != "help") else {
            continue;
        };
        found.extend(examples(&[command, &[name.to_owned()]].concat()));
    }
    found
}

/// Blocks without a known kind, and marks without a reason; also whether more than one block in twenty is not run.
fn marked_wrongly(page: &str, blocks: &[Block]) -> Vec<String> {
    let kinds = tree().join("crates/sternpost/tests/docs/kinds");
    let is_known = |kind: &str| !kind.is_empty() && kinds.join(kind).is_file();
    let mut faults = Vec::new();
    for block in blocks {
        let place = format!("{page}, line {}", block.line);
        match &block.not_run {
            Some(reason) if reason.split_whitespace().count() < 3 => {
                faults.push(format!("{place}: {reason:?} is not a reason to skip a block"));
            }
            None if page != RUNBOOK && !is_known(&block.kind) => {
                faults.push(format!("{place}: a block of the unknown kind {:?}", block.kind));
            }
            _ => {}
        }
    }
    faults
}

fn summary(all: &[(String, Vec<Block>)]) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut left_out = Vec::new();
    let mut total = 0;
    for (page, block) in all.iter().flat_map(|(page, blocks)| blocks.iter().map(move |block| (page, block))) {
        total += 1;
        match &block.not_run {
            Some(reason) => left_out.push(format!("{page}, line {}: {reason}", block.line)),
            None => *kinds.entry(&block.kind).or_default() += 1,
        }
    }
    assert!(left_out.len() * 20 <= total, "{} of {total} blocks are not run: {left_out:?}", left_out.len());
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let mut text = format!(
        "{total} blocks on {} pages: {}; not run: {}\n",
        all.iter().filter(|(_, blocks)| !blocks.is_empty()).count(),
        kinds.join(", "),
        left_out.len()
    );
    for line in left_out {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// Runs the pages, some at a time, each in a room of its own.
fn run_all(pages: Vec<(String, Vec<Block>)>) -> Outcome {
    let mut pages = pages;
    // The longest first.
    pages.sort_by_key(|(_, blocks)| blocks.len());
    let waiting = Arc::new(Mutex::new(pages.into_iter().collect::<VecDeque<_>>()));
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let room = || {
        let (waiting, outcome) = (waiting.clone(), outcome.clone());
        std::thread::spawn(move || {
            loop {
                let next = waiting.lock().unwrap().pop_back();
                let Some((page, blocks)) = next else { return };
                let (begun, sink) = (Instant::now(), outcome.clone());
                let name = page.clone();
                let ran = std::panic::catch_unwind(move || {
                    in_a_room_of_its_own(move || {
                        let failures = run_page(&page, &blocks);
                        sink.lock().unwrap().failures.extend(failures);
                    });
                });
                let mut outcome = outcome.lock().unwrap();
                if ran.is_err() {
                    outcome.failures.push(format!("{name}: its machine failed"));
                }
                outcome.times.push((begun.elapsed(), name));
            }
        })
    };
    let rooms: Vec<_> = (0..ROOMS).map(|_| room()).collect();
    for room in rooms {
        room.join().unwrap();
    }
    Arc::try_unwrap(outcome).ok().unwrap().into_inner().unwrap()
}

fn run_page(page: &str, blocks: &[Block]) -> Vec<String> {
    let machine = Machine::start(page);
    let mut failures = Vec::new();
    for block in blocks.iter().filter(|block| block.not_run.is_none()) {
        if let Err(error) = run_block(&machine, block) {
            failures.push(format!("{page}, line {}:\n{error}", block.line));
        }
    }
    failures
}

fn run_block(machine: &Machine, block: &Block) -> Result<(), String> {
    let begun = Instant::now();
    if let Some(commands) = &block.before {
        let (code, printed) = machine.run("kinds/sh", commands, &[]);
        if code != 0 {
            return Err(format!("its world can't be prepared: {commands}\n{printed}"));
        }
    }
    let result = if block.kind == "console" {
        run_console(machine, block)
    } else {
        let (code, printed) = machine.run(&format!("kinds/{}", block.kind), &block.text, &block.words);
        match code == block.exit_code() {
            true => Ok(()),
            false => Err(format!("{}ended with {code}, not {}:\n{printed}", block.text, block.exit_code())),
        }
    };
    if begun.elapsed() > Duration::from_secs(5) {
        println!("line {}, {}: {:.1} s", block.line, block.kind, begun.elapsed().as_secs_f64());
    }
    result
}

/// Runs the commands of a block one by one, and compares what each prints with what is shown below it.
fn run_console(machine: &Machine, block: &Block) -> Result<(), String> {
    let shown = commands(&block.text);
    for (at, shown_command) in shown.iter().enumerate() {
        let command = &shown_command.command;
        let (code, printed) = machine.run("kinds/sh", command, &[]);
        compare(&shown_command.output, &printed).map_err(|both| format!("$ {command}\n{both}"))?;
        let expected = if at + 1 == shown.len() { block.exit_code() } else { 0 };
        if code != expected {
            return Err(format!("$ {command}\nended with {code}, not {expected}:\n{printed}"));
        }
    }
    Ok(())
}
