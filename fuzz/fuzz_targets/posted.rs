//! Parses sessions that mail servers report in JSON.
#![no_main]
use formats::posted::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse(bytes);
});
