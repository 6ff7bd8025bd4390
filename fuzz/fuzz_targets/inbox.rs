//! Extracts all reports from messages, and from files with several reports: MIME structure, transfer encodings,
//! decompression, JSON, and what claims to be a report. Beside a report, only what claims to be one is a problem; without
//! a report there is always a reason. The memory is small, so that its limit is reached too; one input alone is never
//! refused for now, and all memory that the result does not take is given back.
#![no_main]
use formats::limits::{INBOX_PARTS, INBOX_REPORTS};
use libfuzzer_sys::fuzz_target;
use net::memory_budget::MemoryBudget;
use receiver::inbox::{extract_file, extract_message};

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let total = if kind & 4 == 0 { 64 << 20 } else { 100_000 };
    let budget = MemoryBudget::new(total, total);
    let mut memory = budget.reservation();
    let found = match kind % 3 {
        0 => extract_message(bytes, false, &mut memory),
        1 => extract_message(bytes, true, &mut memory),
        _ => extract_file(bytes, "big.example!a.example!1!2.json.gz", &mut memory),
    };
    // One input alone can only be too large for good.
    let found = found.expect("others hold no memory");
    let is_empty = found.reports.is_empty() && found.dmarc.is_empty();
    assert!(budget.used() == memory.bytes() && budget.peak() <= total);
    assert!(!is_empty || memory.bytes() == 0);
    assert!(found.reports.len() + found.dmarc.len() <= INBOX_REPORTS);
    assert!(found.problems.len() <= INBOX_REPORTS + INBOX_PARTS);
    assert!(!is_empty || !found.problems.is_empty());
    let mut claims = found.problems.iter().map(|problem| problem.claims);
    match found.reports.is_empty() {
        true => assert!(found.claims || !claims.any(|claims| claims)),
        false => assert!(claims.all(|claims| claims)),
    }
    for problem in &found.problems {
        assert!(!problem.name.chars().any(char::is_control));
    }
});
