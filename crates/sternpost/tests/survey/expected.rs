//! The rows of `--summary` that a population of the lab has to show.

use lab::survey::{Fault, Share};
use std::collections::BTreeMap;

/// The domains in each row, the misconfigured ones, and those that lose mail.
pub fn expected(faults: &[Share]) -> (BTreeMap<&'static str, u64>, u64, u64) {
    let (mut rows, mut misconfigured, mut lost) = (BTreeMap::new(), 0, 0);
    for Share { fault, domains, in_enforce } in faults {
        let (own, loses): (&[&str], bool) = match fault {
            Fault::RecordNoId => (&["record", "record-no-id"], false),
            Fault::RecordIdForm => (&["record", "record-id-form"], false),
            Fault::RecordVersion => (&["record", "record-version"], false),
            Fault::RecordPolicyLines => (&["record", "record-policy-lines"], false),
            Fault::HostNoAddress => (&["policy-host", "host-no-address"], false),
            Fault::HostClosed => (&["policy-host", "host-unreachable"], false),
            Fault::HostParked => (&["policy-host", "host-certificate-name", "host-catch-all"], false),
            Fault::HostCertificateName => (&["policy-host", "host-certificate-name"], false),
            Fault::HostCertificateOther => (&["policy-host", "host-certificate-other"], false),
            Fault::HostUnknownToProvider => (&["policy-host", "host-unknown-to-provider"], false),
            Fault::HostStatus => (&["policy-host", "host-status"], false),
            Fault::PolicyMx => (&["policy", "policy-mx"], false),
            Fault::PolicySyntax => (&["policy", "policy-other"], false),
            Fault::PolicyOptOut => (&["policy", "policy-opt-out"], false),
            Fault::MxCertificateSome => (&["mx-certificate"], false),
            Fault::MxCertificateAll => (&["mx-certificate", "mx-certificate-all"], true),
            Fault::MatchFormer => (&["match", "match-none", "match-former"], true),
            Fault::MatchOther | Fault::MatchOwnHost => (&["match", "match-none", "match-other"], true),
            Fault::MatchPolicyHost => (&["match", "match-none", "match-policy-host"], true),
            Fault::MatchTypo => (&["match", "match-none", "match-typo"], true),
            Fault::MatchOtherEnd => (&["match", "match-none", "match-other-end"], true),
        };
        for id in own {
            *rows.entry(*id).or_default() += *domains as u64;
        }
        misconfigured += *domains as u64;
        lost += if loses { *in_enforce as u64 } else { 0 };
    }
    (rows, misconfigured, lost)
}
