//! Parses file names of reports and subjects of report mails.
#![no_main]
use formats::report::{ReportFileName, ReportMail};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(name) = ReportFileName::parse(text) {
        assert_eq!(ReportFileName::parse(&name.to_string()), Some(name));
    }
    if let Some(mail) = ReportMail::parse_subject(text) {
        let _ = ReportMail::parse_subject(&mail.subject());
    }
});
