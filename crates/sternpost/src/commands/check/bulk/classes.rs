//! The table of what is wrong with domains that have a record at `_mta-sts`, class by class, as measurements count it: Ashiq, Fiebig
//! and Chung, "Unraveling the Complexities of MTA-STS Deployment and Management in Securing Email" (ACM IMC 2025). A domain
//! counts once in each class that it belongs to.

use super::earlier::Counted;
use super::first_pass::{FirstPass, State};
use check::{Cause, Check, Severity};
use std::fmt::Write;

/// A row of the table.
pub struct Class {
    /// The name in JSON.
    pub id: &'static str,
    /// 0 for a class that makes a domain misconfigured, 1 for a part of the class above, 2 for a part of that.
    pub level: usize,
    /// What is wrong, in a few words.
    pub about: &'static str,
    has: fn(&Counted) -> bool,
}

/// The errors and warnings of a domain, with their causes.
fn serious(of: &Counted) -> impl Iterator<Item = (Check, Option<Cause>)> {
    let serious = of.findings.iter().filter(|(_, severity, _)| *severity != Severity::Info);
    serious.map(|(check, _, cause)| (*check, *cause))
}

fn any(of: &Counted, checks: &[Check]) -> bool {
    serious(of).any(|(check, _)| checks.contains(&check))
}

fn caused(of: &Counted, checks: &[Check], causes: &[Cause]) -> bool {
    serious(of)
        .any(|(check, cause)| checks.contains(&check) && cause.is_some_and(|cause| causes.contains(&cause)))
}

const RECORD: &[Check] = &[
    Check::StsTxtMultiple,
    Check::StsTxtSyntax,
    Check::StsTxtVersion,
    Check::StsTxtVersionCase,
    Check::StsTxtIdMissing,
    Check::StsTxtIdSyntax,
    Check::StsTxtQuotes,
];
const VERSION: &[Check] = &[Check::StsTxtVersion, Check::StsTxtVersionCase];
const OTHER_RECORD: &[Check] = &[Check::StsTxtMultiple, Check::StsTxtSyntax, Check::StsTxtQuotes];
const OTHER_CERTIFICATE: &[Check] = &[
    Check::HttpsCertExpired,
    Check::HttpsCertNotYet,
    Check::HttpsCertUntrusted,
    Check::HttpsCertChain,
    Check::HttpsCertSelf,
    Check::HttpsCertCnOnly,
    Check::HttpsCertUsage,
    Check::HttpsRevoked,
];
const TLS: &[Check] = &[Check::HttpsHandshake, Check::HttpsTlsOld];
const ADDRESS: &[Check] = &[Check::HostMissing, Check::HostPrivate];
const OTHER_HTTP: &[Check] = &[
    Check::HttpsRedirect,
    Check::HttpsType,
    Check::HttpsSize,
    Check::HttpsAuth,
    Check::HttpsBroken,
    Check::PolHtml,
];
const POLICY_MX: &[Check] = &[Check::PolMxSyntax, Check::PolNoMx];
const POLICY: &[Check] =
    &[Check::PolSyntax, Check::PolVersion, Check::PolMode, Check::PolMaxAge, Check::PolCase, Check::PolBom];
const MATCH: &[Check] = &[Check::MatchNone, Check::MatchMxUncovered, Check::MatchWildcardDepth];
const NO_TLS: &[Check] =
    &[Check::SmtpNoStarttls, Check::SmtpStripped, Check::SmtpStarttlsFails, Check::SmtpTlsOld];
const MX_CERTIFICATE: &[Check] = &[
    Check::SmtpCertExpired,
    Check::SmtpCertNotYet,
    Check::SmtpCertName,
    Check::SmtpCertUntrusted,
    Check::SmtpCertChain,
    Check::SmtpCertSelf,
    Check::SmtpCertCnOnly,
    Check::SmtpCertUsage,
];
const FORMER: &[Cause] = &[Cause::FormerHost, Cause::FormerProvider];
const KNOWN_LINES: &[Cause] = &[
    Cause::FormerHost,
    Cause::FormerProvider,
    Cause::PolicyHostInMx,
    Cause::NotAnMx,
    Cause::DidYouMean,
    Cause::OtherTld,
];

fn is_unknown_to_provider(of: &Counted) -> bool {
    serious(of).any(|(_, cause)| cause == Some(Cause::UnknownToProvider))
}

fn is_opt_out(of: &Counted) -> bool {
    serious(of).any(|(_, cause)| cause == Some(Cause::ProviderOptOut))
}

fn has_name_error(of: &Counted) -> bool {
    any(of, &[Check::HttpsCertName]) && !is_unknown_to_provider(of)
}

fn has_other_tls_error(of: &Counted) -> bool {
    any(of, OTHER_CERTIFICATE) && !is_unknown_to_provider(of)
}

fn has_handshake_error(of: &Counted) -> bool {
    any(of, TLS) && !is_unknown_to_provider(of)
}

fn has_status_error(of: &Counted) -> bool {
    any(of, &[Check::HttpsStatus]) && !is_unknown_to_provider(of) && !is_opt_out(of)
}

fn has_policy_error(of: &Counted) -> bool {
    any(of, POLICY) && !any(of, POLICY_MX) && !is_opt_out(of)
}

const fn class(level: usize, id: &'static str, about: &'static str, has: fn(&Counted) -> bool) -> Class {
    Class { id, level, about, has }
}

/// The rows, in the order of the table.
pub const CLASSES: &[Class] = &[
    class(0, "record", "the record is not valid", |of| any(of, RECORD)),
    class(1, "record-no-id", "no id", |of| any(of, &[Check::StsTxtIdMissing])),
    class(1, "record-id-form", "an id with other characters than letters and digits, or too long", |of| {
        any(of, &[Check::StsTxtIdSyntax])
    }),
    class(1, "record-version", "another version", |of| any(of, VERSION)),
    class(1, "record-policy-lines", "lines of the policy in the record", |of| {
        caused(of, OTHER_RECORD, &[Cause::PolicyLines])
    }),
    class(1, "record-other", "malformed in another way, or more than one", |of| {
        any(of, OTHER_RECORD) && !caused(of, OTHER_RECORD, &[Cause::PolicyLines])
    }),
    class(0, "policy-host", "the policy can't be fetched", |of| {
        any(of, ADDRESS)
            || any(of, &[Check::HostUnreachable])
            || any(of, &[Check::HttpsCertName])
            || any(of, OTHER_CERTIFICATE)
            || any(of, TLS)
            || has_status_error(of)
            || is_unknown_to_provider(of)
            || any(of, OTHER_HTTP)
    }),
    class(1, "host-no-address", "the policy host has no public address", |of| any(of, ADDRESS)),
    class(1, "host-unreachable", "no connection to the policy host", |of| any(of, &[Check::HostUnreachable])),
    class(1, "host-certificate-name", "a certificate for other names", has_name_error),
    class(2, "host-catch-all", "every name leads to one server, such as a parking page", |of| {
        has_name_error(of) && caused(of, &[Check::HttpsCertName], &[Cause::CatchAll])
    }),
    class(1, "host-unknown-to-provider", "the provider does not know the domain", is_unknown_to_provider),
    class(
        1,
        "host-certificate-other",
        "a certificate that is self-signed, expired or not trusted",
        has_other_tls_error,
    ),
    class(1, "host-handshake", "the TLS handshake fails for another reason", has_handshake_error),
    class(1, "host-status", "a status other than 200", has_status_error),
    class(1, "host-other", "a redirect, a web page or another response without a policy", |of| {
        any(of, OTHER_HTTP)
    }),
    class(0, "policy", "the policy is not valid", |of| {
        any(of, POLICY_MX) || any(of, POLICY) || is_opt_out(of)
    }),
    class(1, "policy-mx", "an mx line that is not a host name, or no mx line", |of| any(of, POLICY_MX)),
    class(1, "policy-opt-out", "an empty file of a provider", is_opt_out),
    class(1, "policy-other", "malformed in another way", has_policy_error),
    class(0, "mx-certificate", "an MX host has an invalid certificate", |of| any(of, MX_CERTIFICATE)),
    class(1, "mx-certificate-all", "all MX hosts have one", |of| of.mx.are_all_invalid()),
    class(0, "mx-no-tls", "an MX host does not offer TLS 1.2 or later", |of| any(of, NO_TLS)),
    class(0, "match", "an MX host matches no line of the policy", |of| any(of, MATCH)),
    class(1, "match-none", "no MX host matches", |of| any(of, &[Check::MatchNone])),
    class(1, "match-former", "a line names the former mail host", |of| caused(of, MATCH, FORMER)),
    class(1, "match-policy-host", "a line names the policy host", |of| {
        caused(of, MATCH, &[Cause::PolicyHostInMx])
    }),
    class(1, "match-not-an-mx", "a line names another host of the domain", |of| {
        caused(of, MATCH, &[Cause::NotAnMx])
    }),
    class(1, "match-typo", "a line differs by a few letters", |of| caused(of, MATCH, &[Cause::DidYouMean])),
    class(1, "match-other-end", "a line has another end of the name", |of| {
        caused(of, MATCH, &[Cause::OtherTld])
    }),
    class(1, "match-other", "for another reason", |of| any(of, MATCH) && !caused(of, MATCH, KNOWN_LINES)),
];

/// The counts of the table.
#[derive(Debug, Clone)]
pub struct ClassCounts {
    /// Domains with a record at `_mta-sts` that were checked.
    pub domains: usize,
    /// Those in one of the classes of level 0.
    pub misconfigured: usize,
    /// Those whose policy makes senders refuse all MX hosts.
    pub lost: usize,
    /// The domains of each row of [`CLASSES`].
    counts: Vec<usize>,
}

impl Default for ClassCounts {
    fn default() -> Self {
        Self { domains: 0, misconfigured: 0, lost: 0, counts: vec![0; CLASSES.len()] }
    }
}

impl ClassCounts {
    /// Counts a checked domain. One without a record at `_mta-sts`, or only with one of another protocol, does not count.
    pub fn add(&mut self, result: &Counted, found: Option<FirstPass>) {
        let is_missing = |(check, cause): (Check, Option<Cause>)| {
            check == Check::StsTxtMissing
                || check == Check::StsTxtVersion && cause == Some(Cause::OtherProtocol)
        };
        let findings = result.findings.iter().map(|(check, _, cause)| (*check, *cause));
        let has_none =
            found.is_some_and(|found| found.mta_sts != State::Record) || findings.into_iter().any(is_missing);
        if result.mode.is_none() || has_none {
            return;
        }
        self.domains += 1;
        self.lost += usize::from(result.is_lost);
        let mut is_wrong = false;
        for (class, count) in CLASSES.iter().zip(&mut self.counts) {
            if (class.has)(result) {
                *count += 1;
                is_wrong |= class.level == 0;
            }
        }
        self.misconfigured += usize::from(is_wrong);
    }

    /// The rows with their counts.
    pub fn rows(&self) -> impl Iterator<Item = (&'static Class, usize)> {
        CLASSES.iter().zip(self.counts.iter().copied())
    }

    /// The share of the domains with a record, in percent.
    pub fn percent(&self, count: usize) -> f64 {
        count as f64 * 100.0 / self.domains.max(1) as f64
    }

    /// The table as text; empty without domains.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if self.domains == 0 {
            return out;
        }
        let row = |count: usize| format!("  {count:>9}  {:>5.2} %  ", self.percent(count));
        let _ = writeln!(out, "\nMTA-STS: {} domains with a record", self.domains);
        let _ = writeln!(out, "{}misconfigured", row(self.misconfigured));
        for (class, count) in self.rows().filter(|(class, count)| *count > 0 || class.level == 0) {
            let _ = writeln!(out, "{}{}{}", row(count), "  ".repeat(class.level + 1), class.about);
        }
        let _ = writeln!(
            out,
            "{}certain to lose mail: senders that honor the policy refuse all MX hosts",
            row(self.lost)
        );
        out
    }

    /// The table for programs.
    pub fn json(&self) -> serde_json::Value {
        let classes = self.rows().map(|(class, count)| serde_json::json!({"id": class.id, "domains": count}));
        serde_json::json!({
            "domains": self.domains,
            "misconfigured": self.misconfigured,
            "lost": self.lost,
            "classes": classes.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_a_name_of_its_own_and_parts_follow_their_class() {
        let ids: std::collections::BTreeSet<&str> = CLASSES.iter().map(|class| class.id).collect();
        assert_eq!(ids.len(), CLASSES.len());
        assert!(CLASSES.windows(2).all(|pair| pair[1].level <= pair[0].level + 1));
    }

    #[test]
    fn a_domain_with_a_part_of_a_class_is_in_the_class() {
        for check in Check::ALL {
            for cause in std::iter::once(None).chain(Cause::ALL.iter().copied().map(Some)) {
                if cause.is_some_and(|cause| !cause.checks().contains(check)) {
                    continue;
                }
                let mut counts = ClassCounts::default();
                let findings = vec![(*check, Severity::Error, cause)];
                counts
                    .add(&Counted { mode: Some(formats::Mode::None), findings, ..Counted::default() }, None);
                let mut class = 0;
                for (row, count) in counts.rows() {
                    class = if row.level == 0 { count } else { class };
                    assert!(count <= class, "{check:?} {cause:?} {}", row.id);
                }
            }
        }
    }
}
