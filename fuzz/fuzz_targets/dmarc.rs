//! Reads the XML of DMARC reports.
#![no_main]
use formats::dmarc::{DmarcReport, is_dmarc_text};
use formats::limits::{DMARC_ELEMENTS, DMARC_MESSAGES, DMARC_ROWS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = is_dmarc_text(input);
    let mut elements = DMARC_ELEMENTS;
    if let Ok(report) = DmarcReport::read(input, &mut elements) {
        assert!(report.range.start <= report.range.end);
        // Without a source there is one row for each result.
        assert!(report.rows.len() <= DMARC_ROWS + 5 * 3 * 3);
        let keys = |one: usize| {
            let row = &report.rows[one];
            (row.source, row.disposition, row.dkim, row.spf)
        };
        assert!((1..report.rows.len()).all(|at| keys(at - 1) < keys(at)));
        assert!(report.rows.iter().all(|row| row.messages > 0));
        let read = (DMARC_ELEMENTS - elements) as u64;
        assert!(report.messages() <= DMARC_MESSAGES.saturating_mul(read));
        assert!(report.uncounted <= read);
    }
});
