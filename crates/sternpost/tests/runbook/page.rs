//! The blocks of docs/runbook.md, and whether a program printed what a block shows. Times, addresses and IDs differ from
//! run to run, so they are masked on both sides. In a block, `…` stands for any text, and on a line of its own for any
//! lines.

use lab::case::Case;
use lab::policy_host::HttpBehavior;
use std::path::Path;

/// A domain like good-enforce.test of the lab, under the name that the page uses.
pub fn domain(name: &'static str) -> Case {
    let like = lab::cases::all().into_iter().find(|case| case.name == "good-enforce").unwrap();
    let mut case = Case { name, ..like };
    let renamed = |text: &str| text.replace("good-enforce.test", name);
    if let HttpBehavior::Policy(policy) = &mut case.setup.answers {
        *policy = renamed(policy);
    }
    for text in case.setup.tlsrpt_records.iter_mut().flatten() {
        *text = renamed(text);
    }
    case
}

/// A fenced block of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The words after the fence: the language, then the test's own.
    pub mark: String,
    /// The lines between the fences.
    pub text: String,
}

/// A command of a `console` block with the output that the page shows.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    pub command: String,
    pub output: Vec<String>,
}

/// The blocks below the heading that begins with `## NUMBER.`, in order.
pub fn section(number: u32) -> Vec<Block> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook.md");
    let page = std::fs::read_to_string(page).unwrap();
    let begin = page.find(&format!("\n## {number}. ")).unwrap_or_else(|| panic!("no section {number}"));
    let rest = &page[begin + 1..];
    let text = rest.find("\n## ").map_or(rest, |end| &rest[..end]);
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(mark), false) => blocks.push(Block { mark: mark.to_owned(), text: String::new() }),
            (Some(_), true) => {}
            (None, true) => {
                blocks.last_mut().unwrap().text += line;
                blocks.last_mut().unwrap().text.push('\n');
                continue;
            }
            (None, false) => continue,
        }
        open = !open;
    }
    assert!(!open, "section {number} ends inside a block");
    blocks
}

impl Block {
    /// The commands of a `console` block.
    pub fn commands(&self) -> Vec<Shown> {
        commands(&self.text)
    }
}

/// The commands of a `console` block: lines that begin with `$ `, each with the lines below it.
pub fn commands(block: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => all.push(Shown { command: command.to_owned(), output: Vec::new() }),
            (None, Some(last)) => last.output.push(line.to_owned()),
            (None, None) => panic!("a block begins without a command: {block}"),
        }
    }
    all
}

/// What `sternpost apply` asks its operator to publish.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// A record, as a line of a zone file.
    Record(String),
    /// A policy file, and the policy host if it was named.
    Policy { host: Option<String>, text: String },
}

/// The records and policy files in these lines, in order.
pub fn asked_for(lines: &str) -> Vec<Asked> {
    let (mut asked, mut policy, mut host) = (Vec::new(), String::new(), None);
    for line in lines.lines().map(str::trim) {
        if [" IN TXT ", " IN CNAME ", " IN A "].iter().any(|kind| line.contains(kind)) {
            asked.push(Asked::Record(line.to_owned()));
        }
        if let Some((before, _)) = line.split_once("/.well-known/mta-sts.txt")
            && let Some((_, name)) = before.rsplit_once("https://")
        {
            host = Some(name.to_owned());
        }
        if ["version: ", "mode: ", "mx: ", "max_age: "].iter().any(|key| line.starts_with(key)) {
            policy += &format!("{line}\r\n");
        }
        if line.starts_with("max_age: ") {
            asked.push(Asked::Policy { host: host.clone(), text: std::mem::take(&mut policy) });
        }
    }
    asked
}

/// Whether a program printed what the page shows; the error is both, masked.
pub fn compare(shown: &[String], printed: &str) -> Result<(), String> {
    let shown: Vec<String> = shown.iter().map(|line| masked(line)).collect();
    // How long a step takes to become visible differs from run to run.
    let is_waiting = |line: &&str| {
        let begins = |head: &&str| line.trim_start().starts_with(*head);
        ["not yet", "waiting until ", "You can leave with Ctrl-C"].iter().any(begins)
    };
    let printed: Vec<String> = printed.lines().filter(|line| !is_waiting(line)).map(masked).collect();
    match matches(&shown, &printed) {
        true => Ok(()),
        false => Err(format!("the page shows\n{}\nprinted was\n{}", shown.join("\n"), printed.join("\n"))),
    }
}

fn matches(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((any, rest)) if any.trim() == "…" => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        Some((line, rest)) => {
            printed.first().is_some_and(|first| fits(line, first)) && matches(rest, &printed[1..])
        }
    }
}

/// Whether a line has the parts that `…` separates, in order, from beginning to end.
pub fn fits(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    match last {
        None => rest.is_empty(),
        Some(part) => part.is_empty() || rest.is_empty() || printed.ends_with(part),
    }
}

/// A line without what differs from run to run.
pub fn masked(line: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in line.trim_end().chars() {
        if c.is_ascii_alphanumeric() || ".-:+".contains(c) {
            word.push(c);
            continue;
        }
        out += mask(&std::mem::take(&mut word)).as_str();
        out.push(c);
    }
    out + &mask(&word)
}

fn mask(word: &str) -> String {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let trimmed = word.trim_end_matches(['.', ':']);
    let tail = &word[trimmed.len()..];
    let time = trimmed.len() >= 20 && trimmed.as_bytes()[4] == b'-' && trimmed.contains('T');
    let address = |text: &str| text.split('.').count() == 4 && text.split('.').all(digits);
    let is_address =
        address(trimmed) || trimmed.rsplit_once(':').is_some_and(|(ip, port)| address(ip) && digits(port));
    let is_day = trimmed.len() == 10
        && trimmed.split('-').map(str::len).eq([4, 2, 2])
        && digits(&trimmed.replace('-', ""));
    match trimmed {
        _ if time => format!("TIME{tail}"),
        _ if is_day => format!("DAY{tail}"),
        _ if is_address => format!("ADDRESS{tail}"),
        id if id.len() == 14 && id.starts_with("20") && digits(id) => format!("ID{tail}"),
        _ => word.to_owned(),
    }
}

#[test]
fn what_differs_from_run_to_run_is_masked_and_nothing_else() {
    let line =
        "at 2026-11-25T00:27:45Z, id=20260101000000; 192.0.2.1:25 has 604800 s, 2026-11-25: 2026-11-2.";
    assert_eq!(masked(line), "at TIME, id=ID; ADDRESS has 604800 s, DAY: 2026-11-2.");
    assert!(fits("a … b", "a x b") && fits("a", "a") && fits("…b", "xb"));
    assert!(!fits("a", "ab") && !fits("a … b", "a x c") && !fits("… b", "a b c"));
    let shown = ["one", "…", "four"].map(str::to_owned);
    assert_eq!(compare(&shown, "one\ntwo\nthree\nfour\n"), Ok(()));
    assert_eq!(compare(&shown, "one\nfour\n"), Ok(()));
    assert!(compare(&shown, "one\nfour\nfive\n").is_err() && compare(&shown, "two\nfour\n").is_err());
}
