//! Parses `mx` patterns. A parsed pattern prints unchanged. The second line of the input is a host to match.
#![no_main]
use formats::{DomainName, MxPattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (pattern, host) = text.split_once('\n').unwrap_or((text, "mx.example.org"));
    let Ok(pattern) = MxPattern::parse(pattern) else { return };
    assert_eq!(MxPattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern));
    if let Ok(host) = DomainName::parse(host)
        && pattern.matches(&host)
    {
        assert!(host.is_within(pattern.name()));
        assert!(pattern.covers(&MxPattern::Exact(host)));
    }
});
