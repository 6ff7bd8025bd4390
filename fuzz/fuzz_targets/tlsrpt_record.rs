//! Parses `_smtp._tls` records. A parsed record, when written, parses to the same record.
#![no_main]
use formats::tlsrpt_record::TlsrptRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = TlsrptRecord::select(bytes.split(|byte| *byte == b'\n'));
    let Ok(record) = TlsrptRecord::parse(bytes) else { return };
    if record.rua.is_empty() {
        return;
    }
    let again = TlsrptRecord::parse(record.to_string().as_bytes()).expect("what is printed is valid");
    assert_eq!((again.rua, again.extensions), (record.rua, record.extensions));
});
