//! Parses socketmap requests and replies, truncated at any position.
#![no_main]
use formats::socketmap::{Reply, encode_request, request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((asked, used))) = request(bytes) {
        assert!(used <= bytes.len());
        let again = encode_request(asked.map, asked.key);
        assert_eq!(again.as_slice(), &bytes[..used]);
    }
    if let Ok(Some((reply, used))) = Reply::decode(bytes) {
        assert!(used <= bytes.len());
        let _ = reply.encode();
    }
});
