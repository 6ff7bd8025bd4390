//! Extracts all reports from messages, and from files with several reports. Beside a report, only what claims to be one is a
//! problem; without a report there is always a reason.
#![no_main]
use formats::limits::{INBOX_PARTS, INBOX_REPORTS, INBOX_UNPACKED_BYTES};
use libfuzzer_sys::fuzz_target;
use net::memory_budget::MemoryBudget;
use receiver::inbox::{extract_file, extract_message};

fuzz_target!(|input: &[u8]| {
    let budget = MemoryBudget::new(INBOX_UNPACKED_BYTES, INBOX_UNPACKED_BYTES);
    let Some((kind, bytes)) = input.split_first() else { return };
    let mut memory = budget.reservation();
    let found = match kind % 3 {
        0 => extract_message(bytes, false, &mut memory),
        1 => extract_message(bytes, true, &mut memory),
        _ => extract_file(bytes, "big.example!a.example!1!2.json.gz", &mut memory),
    };
    // One input always fits into an unused budget.
    let found = found.expect("there is memory");
    assert!(found.reports.len() + found.dmarc.len() <= INBOX_REPORTS);
    assert!(found.problems.len() <= INBOX_REPORTS + INBOX_PARTS);
    let is_empty = found.reports.is_empty() && found.dmarc.is_empty();
    assert!(!is_empty || !found.problems.is_empty());
    if !found.reports.is_empty() {
        assert!(found.problems.iter().all(|problem| problem.claims));
    }
    for problem in &found.problems {
        assert!(!problem.name.chars().any(char::is_control));
    }
});
