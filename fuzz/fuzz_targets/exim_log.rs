//! Reads lines of Exim's log, and writes the sessions as the collector hands them over.
#![no_main]
use formats::exim_log::EximLog;
use formats::posted::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut log = EximLog::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(posted) = log.read(line) {
            assert_eq!(parse(posted.to_json().as_bytes()), Ok(vec![posted]));
        }
    }
});
