//! Parses XML documents of a DNS provider.
#![no_main]
use formats::xml::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(root) = parse(text) {
        let mut written = String::new();
        root.write(&mut written);
        assert_eq!(parse(&written), Ok(root));
    }
});
