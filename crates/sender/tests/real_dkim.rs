//! Verifies report mail with another DKIM implementation (dkimpy, Debian's python3-dkim).

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use formats::DomainName;
use formats::report::PolicyReport;
use formats::result_type::PolicyType;
use formats::tlsrpt_record::MailAddress;
use std::process::Command;
use sternpost_sender::report::{DkimKey, PreparedReport, Reporter, build, compose};
use store::tallies::DomainTally;

const VERIFY: &str = "
import sys, dkim
message, name, record = open(sys.argv[1], 'rb').read(), sys.argv[2], sys.argv[3]
def dns(asked, timeout=5):
    asked = asked.decode() if isinstance(asked, bytes) else asked
    return record.encode() if asked.rstrip('.') == name else None
try:
    print(dkim.DKIM(message, tlsrpt='strict').verify(dnsfunc=dns))
except dkim.ValidationError as error:
    print(error)
";

fn verified(message: &[u8], name: &str, record: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mail");
    std::fs::write(&path, message).unwrap();
    let run = Command::new("/usr/bin/python3")
        .args(["-c", VERIFY])
        .arg(&path)
        .args([name, record])
        .output()
        .unwrap();
    let result = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    result.trim() == "True"
}

#[test]
fn rpt_16_another_implementation_verifies_the_signature_and_notices_a_change() {
    let domain = DomainName::parse("sender.example").unwrap();
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let keys = [
        DkimKey::from_pem(domain.clone(), "r", &rsa.serialize_pem()).unwrap(),
        DkimKey::generate(domain.clone(), "e").unwrap(),
    ];
    let reporter = Reporter {
        organization: "Sender".into(),
        from: MailAddress::parse("t@sender.example").unwrap(),
        contact: MailAddress::parse("t@sender.example").unwrap(),
        addresses: Default::default(),
    };
    let now = "2026-11-24T13:00:00Z".parse().unwrap();
    let about = DomainName::parse("example.org").unwrap();
    let entry = PolicyReport {
        policy_type: PolicyType::NoPolicyFound,
        policy_string: vec![],
        policy_domain: Some(about.clone()),
        mx_host: vec![],
        successful: 1,
        failed: 0,
        details: vec![],
    };
    let tally = DomainTally { domain: about.clone(), entries: vec![entry] };
    let prepared = PreparedReport::new(&about, &build(now, tally, &[], &reporter, "k3x9").unwrap()).unwrap();
    for key in keys {
        let to = MailAddress::parse("r@example.org").unwrap();
        let mail = compose(&prepared, &reporter, &to, std::slice::from_ref(&key), now).unwrap();
        let (name, record) = key.record().unwrap();
        assert!(verified(&mail.message, &name, &record), "{key:?}");
        let changed =
            String::from_utf8(mail.message).unwrap().replace("aggregate TLS report", "aggregate tls report");
        assert!(!verified(changed.as_bytes(), &name, &record), "{key:?}");
    }
}
