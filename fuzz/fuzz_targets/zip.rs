//! Extracts reports from zip files.
#![no_main]
use formats::report::zip_members;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    if let Ok(members) = zip_members(file) {
        let total: usize = members.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(total <= file.len().saturating_mul(formats::limits::REPORT_RATIO));
    }
});
