//! Parses domain names. A parsed name prints unchanged, and its Unicode form parses to the same name.
#![no_main]
use formats::DomainName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(name) = DomainName::parse(text) else { return };
    assert_eq!(DomainName::parse(name.as_str()).as_ref(), Ok(&name));
    assert!(name.as_str().len() <= formats::limits::DOMAIN_BYTES);
    if let Ok(again) = DomainName::parse(&name.to_unicode()) {
        assert_eq!(again, name);
    }
});
