//! Parses session datagrams of libtlsrpt.
#![no_main]
use formats::datagram::Session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Session::parse(bytes);
});
