//! Parses policy files. A parsed policy, when written, parses to the same policy.
#![no_main]
use formats::{Mode, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(policy) = Policy::parse(bytes) else { return };
    assert!(policy.mode == Mode::None || !policy.mx.is_empty());
    assert!(policy.max_age <= formats::limits::MAX_AGE_SECONDS);
    let again = Policy::parse(policy.to_string().as_bytes());
    // CRLF and spaces may make a file at the limit exceed it when written.
    let Ok(again) = again else {
        return assert!(policy.to_string().len() > formats::limits::POLICY_LINE_BYTES);
    };
    assert_eq!((again.mode, again.max_age, again.mx), (policy.mode, policy.max_age, policy.mx));
});
