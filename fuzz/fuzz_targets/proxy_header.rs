//! Parses PROXY protocol headers.
#![no_main]
use formats::proxy_header::{Header, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut there = 0;
    while let Header::Unfinished(more) = header(bytes.get(..there).unwrap_or_default()) {
        assert!(more > 0);
        there += more;
        if there > bytes.len() {
            return;
        }
    }
});
