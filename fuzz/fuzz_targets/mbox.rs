//! Splits mailboxes in mbox format.
#![no_main]
use formats::mbox::{Found, Splitter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    for found in Splitter::all(file, 100) {
        let (Found::Mail(mail) | Found::TooLong(mail)) = found;
        assert!(mail.len() <= 100);
    }
});
