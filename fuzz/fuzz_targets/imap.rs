//! Cuts the bytes of an IMAP connection into responses and parses each. The pieces in which they arrive change nothing,
//! and what a response keeps is within the limits.
#![no_main]
use formats::imap::{FrameReader, Response, State, decode_mailbox, encode_mailbox, quote_mailbox};
use formats::limits::{
    IMAP_CAPABILITIES, IMAP_CODE_BYTES, IMAP_NAME_BYTES, IMAP_NAMESPACES, IMAP_TEXT_BYTES, IMAP_UID_RANGES,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let all = responses(bytes, 7);
    assert_eq!(all, responses(bytes, bytes.len().max(1)));
    all.iter().flatten().for_each(|response| check(response, bytes.len()));
});

/// Checks the limits of one response, and what is done with it.
fn check(response: &Response, received: usize) {
    match response {
        Response::Continuation(text) => assert!(text.len() <= IMAP_TEXT_BYTES),
        Response::State(state) | Response::Done { state, .. } => check_state(state),
        Response::Capabilities(listed) => assert!(listed.len() <= IMAP_CAPABILITIES),
        Response::Search(found) => {
            assert!(found.range_count() <= IMAP_UID_RANGES && !found.contains(0));
            let first: Vec<u32> = found.iter().take(1000).collect();
            assert!(first.is_sorted() && first.iter().all(|uid| found.contains(*uid)));
            assert!(found.without(found).is_empty() && found.intersection(found).len() == found.len());
        }
        Response::Namespaces(prefixes) => {
            assert!(prefixes.len() <= IMAP_NAMESPACES);
            prefixes.iter().for_each(|prefix| check_name(prefix));
        }
        Response::Mailbox { name, .. } => check_name(name),
        Response::Fetch(fetched) => {
            assert!(fetched.body.as_ref().is_none_or(|body| body.len() <= received));
        }
        Response::Exists(_) | Response::Other => {}
    }
}

fn check_state(state: &State) {
    assert!(state.code.len() <= IMAP_CODE_BYTES && state.text.len() <= IMAP_TEXT_BYTES);
}

/// A name can be sent back, and is shown as it was meant.
fn check_name(name: &str) {
    assert!(
        name.len() <= IMAP_NAME_BYTES && quote_mailbox(name).is_some_and(|quoted| !quoted.contains('\n'))
    );
    let decoded = decode_mailbox(name);
    assert_eq!(decode_mailbox(&encode_mailbox(&decoded)), decoded);
}

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
