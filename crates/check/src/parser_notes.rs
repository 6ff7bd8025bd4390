//! Holds the notes of the parsers and the findings together: whatever a parser notes is told, or the reason why not is here. A
//! new kind of note does not compile until it has its row.

use crate::catalogue::Check;
use crate::causes::near_record::{RecordKind, lenient};
use crate::finding::Findings;
use formats::policy::PolicyNote;
use formats::sts_record::StsNote;
use formats::tlsrpt_record::{TlsrptNote, TlsrptRecord};
use formats::{DomainName, Policy, StsRecord};

/// The check that tells a note, or why none does.
type Told = Result<Check, &'static str>;

fn of_policy(note: &PolicyNote) -> Told {
    match note {
        PolicyNote::MaxAgeCapped(_) => Ok(Check::PolMaxAgeLong),
        PolicyNote::MxFinalDot(_) => Ok(Check::PolMxDot),
        PolicyNote::MxUpperCase(_) => Err("host names are the same in upper and lower case for all senders"),
        PolicyNote::MxUnmatchable(_) => {
            Err("POL-MX-UNUSED tells it where the line is compared with the MX hosts")
        }
        PolicyNote::Duplicate(_) => Ok(Check::PolDuplicate),
        PolicyNote::UnknownKey(_) => Ok(Check::PolUnknown),
        PolicyNote::BareLf => Ok(Check::PolLf),
        PolicyNote::TrailingBlankLines => Ok(Check::PolBlankEnd),
    }
}

fn of_sts(note: &StsNote) -> Told {
    match note {
        StsNote::SpaceBeforeDelimiter => Ok(Check::StsTxtDelim),
        StsNote::Repeated(_) => Ok(Check::StsTxtSyntax),
    }
}

fn of_tlsrpt(note: &TlsrptNote) -> Told {
    match note {
        TlsrptNote::UnknownScheme(_) | TlsrptNote::BadTarget { .. } => Ok(Check::RptRuaScheme),
        TlsrptNote::Repeated(_) => Ok(Check::RptTxtSyntax),
        TlsrptNote::TooManyTargets => Ok(Check::RptRuaMany),
        TlsrptNote::SpaceBeforeDelimiter => Ok(Check::RptTxtDelim),
    }
}

fn compare(what: &str, told: Told, findings: &Findings) {
    match told {
        Ok(check) => assert!(findings.has(check), "{what} is not told by {check}"),
        Err(why) => assert!(!why.is_empty()),
    }
}

#[test]
fn every_note_of_a_policy_file_is_told() {
    for lines in [
        "max_age: 9999999999\r\nmx: a.example\r\n",
        "max_age: 604800\r\nmx: a.example.\r\n",
        "max_age: 604800\r\nmx: A.example\r\n",
        "max_age: 604800\r\nmx: 192.0.2.1\r\n",
        "max_age: 604800\r\nmx: a.example\r\nmax_age: 1\r\n",
        "max_age: 604800\r\nmx: a.example\r\nother: 1\r\n",
        "max_age: 604800\nmx: a.example\n",
        "max_age: 604800\r\nmx: a.example\r\n\r\n",
    ] {
        let file = format!("version: STSv1\r\nmode: enforce\r\n{lines}");
        let policy = Policy::parse(file.as_bytes()).unwrap();
        let mut findings = Findings::default();
        crate::policy::notes(file.as_bytes(), &policy, &mut findings);
        assert!(!policy.notes.is_empty(), "{lines:?}");
        policy.notes.iter().for_each(|note| compare(&format!("{note:?}"), of_policy(note), &findings));
    }
}

#[test]
fn every_note_of_a_record_is_told() {
    for text in ["v=STSv1 ; id=1", "v=STSv1; id=1; id=2"] {
        let record = StsRecord::parse(text.as_bytes()).unwrap();
        let mut findings = Findings::default();
        crate::record::notes("_mta-sts.example.org", &record, &mut findings);
        assert!(!record.notes.is_empty(), "{text}");
        record.notes.iter().for_each(|note| compare(&format!("{note:?}"), of_sts(note), &findings));
    }
    let domain = DomainName::parse("example.org").unwrap();
    let many = (0..100).map(|number| format!("mailto:a{number}@x.example")).collect::<Vec<_>>().join(",");
    let many = format!("v=TLSRPTv1; rua={many}");
    for text in [
        "v=TLSRPTv1 ; rua=mailto:a@x.example",
        "v=TLSRPTv1; rua=mailto:a@x.example; rua=mailto:b@x.example",
        "v=TLSRPTv1; rua=mailto:a@x.example,ftp://x.example/",
        "v=TLSRPTv1; rua=ftp://x.example/",
        "v=TLSRPTv1; rua=mailto:a@x.example,mailto:",
        &many,
    ] {
        let record = TlsrptRecord::parse(text.as_bytes()).unwrap();
        let near = lenient(RecordKind::Tlsrpt, text.as_bytes(), &domain, "");
        let mut findings = Findings::default();
        crate::tlsrpt::notes("_smtp._tls.example.org", &record, near.as_ref(), &mut findings);
        assert!(!record.notes.is_empty(), "{text}");
        record.notes.iter().for_each(|note| compare(&format!("{note:?}"), of_tlsrpt(note), &findings));
    }
}
