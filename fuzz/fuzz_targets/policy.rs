//! Policy files: what is taken prints as it is taken.
#![no_main]
use formats::{Mode, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(policy) = Policy::parse(bytes) else { return };
    assert!(policy.mode == Mode::None || !policy.mx.is_empty());
    assert!(policy.max_age <= formats::limits::MAX_AGE_SECONDS);
    let again = Policy::parse(policy.to_string().as_bytes());
    // Written out with CRLF and spaces, a file at the very limit may pass it.
    let Ok(again) = again else {
        return assert!(policy.to_string().len() > formats::limits::POLICY_LINE_BYTES);
    };
    assert_eq!((again.mode, again.max_age, again.mx), (policy.mode, policy.max_age, policy.mx));
});
