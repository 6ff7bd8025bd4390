//! Cuts the bytes of an IMAP connection into responses and parses each. The pieces in which they arrive change nothing.
#![no_main]
use formats::imap::{FrameReader, Response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(responses(bytes, 7), responses(bytes, bytes.len().max(1)));
});

fn responses(bytes: &[u8], piece: usize) -> Option<Vec<Response>> {
    let mut reader = FrameReader::default();
    let mut all = Vec::new();
    for mut rest in bytes.chunks(piece) {
        while !rest.is_empty() {
            let (taken, frame) = reader.take(rest).ok()?;
            all.extend(frame.map(|frame| Response::parse(&frame)));
            rest = &rest[taken..];
        }
    }
    Some(all)
}
