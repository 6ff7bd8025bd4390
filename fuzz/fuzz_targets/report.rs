//! Parses reports, compressed or not. A report that can be written strictly can be read again.
#![no_main]
use formats::report::{Report, unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((json, _)) = unpack(bytes) else { return };
    let Ok(read) = Report::read(&json) else { return };
    assert!(read.warnings.len() <= formats::limits::REPORT_WARNINGS);
    let Ok(written) = read.report.to_json() else { return };
    Report::read(&written).expect("what is written can be read");
});
