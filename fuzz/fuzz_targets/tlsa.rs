//! Parses TLSA records in wire and presentation format, and determines the rule for a record set.
#![no_main]
use formats::tlsa::{TlsaRecord, rule};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let records: Vec<_> =
        bytes.split(|byte| *byte == b'\n').filter_map(|rdata| TlsaRecord::from_rdata(rdata).ok()).collect();
    for record in &records {
        assert_eq!(
            TlsaRecord::parse(&record.to_string()).ok().as_ref(),
            Some(record).filter(|record| !record.data.is_empty())
        );
    }
    let _ = rule(&records);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = TlsaRecord::parse(text);
    }
});
