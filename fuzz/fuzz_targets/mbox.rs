//! Splits mailboxes in mbox format.
#![no_main]
use formats::mbox::{Found, Splitter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    for found in Splitter::all(file, 100) {
        assert!(!matches!(found, Found::Mail(mail) if mail.len() > 100));
    }
});
