//! Parses the first bytes of a TLS server's response and of a ClientHello.
#![no_main]
use formats::hello::{Answer, claimed_version, server_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = claimed_version(bytes);
    let whole = server_answer(bytes);
    // A prefix is incomplete or gives the same result as the whole.
    let part = server_answer(bytes.get(..bytes.len() / 2).unwrap_or_default());
    assert!(part == Answer::Unfinished || part == whole);
});
