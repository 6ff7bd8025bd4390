//! Extracts reports from zip files.
#![no_main]
use formats::limits::{REPORT_RATIO, ZIP_MEMBERS};
use formats::report::zip_members;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    if let Ok(contents) = zip_members(file) {
        let members = contents.members.iter().filter_map(|member| member.text.as_ref().ok());
        let total: usize = members.map(|text| text.bytes().len()).sum();
        assert!(total <= file.len().saturating_mul(REPORT_RATIO));
        assert!(contents.members.len() <= ZIP_MEMBERS);
    }
});
