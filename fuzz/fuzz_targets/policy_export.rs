//! Parses a line of a file of exported policies. What is accepted is written to a line that gives the same policy.
#![no_main]
use formats::policy_export::ExportedPolicy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = ExportedPolicy::parse(bytes) {
        assert_eq!(ExportedPolicy::parse(policy.to_line().as_bytes()), Ok(policy));
    }
});
