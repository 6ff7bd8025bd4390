//! Parses `_mta-sts` records. A parsed record, when written, parses to the same record.
#![no_main]
use formats::StsRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = StsRecord::select(bytes.split(|byte| *byte == b'\n'));
    let Ok(record) = StsRecord::parse(bytes) else { return };
    let again = StsRecord::parse(record.to_string().as_bytes()).expect("what is printed is valid");
    assert_eq!((again.id, again.extensions), (record.id, record.extensions));
});
