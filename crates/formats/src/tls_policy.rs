//! What Postfix asks a TLS policy table and how it is answered (postconf(5),
//! `smtp_tls_policy_maps`; TLSRPT_README for the attributes of Postfix 3.10 and later).

use crate::domain::{DomainError, DomainName};
use crate::mx_pattern::{MxPattern, MxPatternError};
use crate::result_type::ResultType;
use crate::socketmap::Reply;
use std::fmt::Write;
use std::net::IpAddr;

/// A next hop as Postfix looks it up (SMK-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupKey {
    /// A mail domain, whose MX hosts are used.
    Domain {
        /// The policy domain.
        name: DomainName,
        /// A port stated after the name.
        port: Option<u16>,
    },
    /// A host in brackets, which is used without MX look-up.
    Host {
        /// The host, which is its own policy domain (VAL-13).
        name: DomainName,
        /// A port stated after the bracket.
        port: Option<u16>,
    },
    /// `.parent`: Postfix looks for a policy that covers all subdomains. MTA-STS has none (VAL-12).
    Parent(DomainName),
    /// An address in brackets: there is no policy for it (VAL-14).
    Literal(IpAddr),
}

/// Why a key is no next hop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A bracket without its partner.
    #[error("`[` without `]`")]
    Bracket,
    /// What follows the name is no port.
    #[error("{0:?} is not a port")]
    Port(String),
    /// Not a name or address.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl LookupKey {
    /// Takes `domain`, `domain:port`, `[host]`, `[host]:port`, `[address]`, `.parent`.
    pub fn parse(key: &str) -> Result<Self, KeyError> {
        if let Some(rest) = key.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or(KeyError::Bracket)?;
            let port = after.strip_prefix(':').map(port).transpose()?;
            if port.is_none() && !after.is_empty() {
                return Err(KeyError::Port(clip(after)));
            }
            return match address(inside) {
                Some(ip) => Ok(Self::Literal(ip)),
                None => Ok(Self::Host { name: DomainName::parse(inside)?, port }),
            };
        }
        if let Some(ip) = address(key) {
            return Ok(Self::Literal(ip));
        }
        if let Some(parent) = key.strip_prefix('.') {
            return Ok(Self::Parent(DomainName::parse(parent)?));
        }
        match key.rsplit_once(':') {
            Some((name, after)) => {
                Ok(Self::Domain { name: DomainName::parse(name)?, port: Some(port(after)?) })
            }
            None => Ok(Self::Domain { name: DomainName::parse(key)?, port: None }),
        }
    }
}

fn port(text: &str) -> Result<u16, KeyError> {
    match text {
        "smtp" => Ok(25),
        "submission" => Ok(587),
        _ => text.parse().map_err(|_| KeyError::Port(clip(text))),
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => text.get(5..)?,
        _ => text,
    };
    bare.parse().ok()
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The answer to a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This level, and what to report under.
    Level(Level, Option<Tlsrpt>),
    /// No restriction. Who can report hears this level, since attributes need one, and what to
    /// report under; who can't does as it is configured (SMK-12).
    Reported(Level, Tlsrpt),
    /// No policy: the mail server does as it is configured.
    NotFound,
    /// Delivery has to wait; the reason shows in the mail log.
    Temp(String),
}

/// A TLS security level of Postfix, as far as policies ask for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// TLS when it is offered.
    May,
    /// TLS always, whoever answers.
    Encrypt,
    /// DANE, falling back to TLS or none where there are no TLSA records.
    Dane,
    /// DANE or no delivery.
    DaneOnly,
    /// A verified certificate for one of these names; without any, for the next hop's domain.
    Secure(Vec<MxPattern>),
}

/// The attributes under which Postfix 3.10 and later reports a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlsrpt {
    /// The policy domain.
    pub policy_domain: DomainName,
    /// What was found of a policy.
    pub found: TlsrptPolicy,
}

/// What was found of an STS policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsrptPolicy {
    /// This policy, its lines as they stand in the file.
    Sts {
        /// The lines (RPT-06).
        policy_string: Vec<String>,
        /// The `mx` patterns.
        mx: Vec<MxPattern>,
        /// Why the policy could not be renewed, if so.
        failure: Option<ResultType>,
    },
    /// None was found.
    NoPolicyFound,
}

impl Answer {
    /// The answer as a socketmap reply. Attributes are left out unless `tlsrpt`: Postfix 3.9 and
    /// older refuse them (SMK-09).
    pub fn reply(&self, tlsrpt: bool) -> Reply {
        match self {
            Self::NotFound => Reply::NotFound,
            Self::Reported(..) if !tlsrpt => Reply::NotFound,
            Self::Reported(level, report) => {
                let mut text = level.attributes();
                report.write(&mut text);
                Reply::Ok(text)
            }
            Self::Temp(reason) => Reply::Temp(reason.clone()),
            Self::Level(level, report) => {
                let mut text = level.attributes();
                if let Some(report) = report.as_ref().filter(|_| tlsrpt) {
                    report.write(&mut text);
                }
                Reply::Ok(text)
            }
        }
    }
}

impl Level {
    fn attributes(&self) -> String {
        match self {
            Self::May => "may".to_owned(),
            Self::Encrypt => "encrypt".to_owned(),
            Self::Dane => "dane".to_owned(),
            Self::DaneOnly => "dane-only".to_owned(),
            Self::Secure(mx) if mx.is_empty() => "secure".to_owned(),
            Self::Secure(mx) => {
                let names: Vec<String> = mx.iter().map(postfix_match).collect();
                format!("secure match={} servername=hostname", names.join(":"))
            }
        }
    }
}

/// `.example.com` is Postfix's word for a wildcard. It matches several labels; Postfix 3.10.5 and
/// later narrow that by the `mx_host_pattern` attributes (SMK-06).
fn postfix_match(pattern: &MxPattern) -> String {
    match pattern {
        MxPattern::Exact(name) => name.to_string(),
        MxPattern::Wildcard(name) => format!(".{name}"),
    }
}

/// The pattern that a name of `match=` stands for, the way back.
pub fn pattern_of_match(name: &str) -> Result<MxPattern, MxPatternError> {
    match name.strip_prefix('.') {
        Some(parent) => MxPattern::parse(&format!("*.{parent}")),
        None => MxPattern::parse(name),
    }
}

impl Tlsrpt {
    fn write(&self, text: &mut String) {
        match &self.found {
            TlsrptPolicy::NoPolicyFound => {
                let _ = write!(text, " policy_type=no-policy-found policy_domain={}", self.policy_domain);
            }
            TlsrptPolicy::Sts { policy_string, mx, failure } => {
                let _ = write!(text, " policy_type=sts policy_domain={}", self.policy_domain);
                for line in policy_string.iter().filter(|line| is_harmless(line)) {
                    let _ = write!(text, " {{ policy_string = {line} }}");
                }
                for pattern in mx {
                    let _ = write!(text, " mx_host_pattern={pattern}");
                }
                if let Some(failure) = failure.as_ref().filter(|kind| is_sts_failure(kind)) {
                    let _ = write!(text, " policy_failure={failure}");
                }
            }
        }
    }
}

/// A policy line that can't end its `{ … }` early nor begin another attribute (SMK-10). Others
/// are left out: no line that a policy needs has such characters.
fn is_harmless(line: &str) -> bool {
    !line.is_empty() && !line.contains(['{', '}']) && !line.chars().any(char::is_control)
}

fn is_sts_failure(kind: &ResultType) -> bool {
    matches!(
        kind,
        ResultType::StsPolicyFetchError | ResultType::StsPolicyInvalid | ResultType::StsWebpkiInvalid
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn patterns() -> Vec<MxPattern> {
        ["mx1.example.com", "*.example.net"].iter().map(|p| MxPattern::parse(p).unwrap()).collect()
    }

    fn sts(lines: &[&str], failure: Option<ResultType>) -> Option<Tlsrpt> {
        let policy_string = lines.iter().map(|line| (*line).to_owned()).collect();
        Some(Tlsrpt {
            policy_domain: name("example.com"),
            found: TlsrptPolicy::Sts { policy_string, mx: patterns(), failure },
        })
    }

    fn text(answer: &Answer, tlsrpt: bool) -> String {
        match answer.reply(tlsrpt) {
            Reply::Ok(text) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn smk_05_enforce_is_secure_with_the_patterns_and_the_host_name_as_server_name() {
        let answer = Answer::Level(Level::Secure(patterns()), None);
        assert_eq!(text(&answer, false), "secure match=mx1.example.com:.example.net servername=hostname");
    }

    #[test]
    fn smk_06_wildcards_go_along_as_patterns_for_newer_postfix() {
        let answer = Answer::Level(Level::Secure(patterns()), sts(&[], None));
        assert!(text(&answer, true).contains("mx_host_pattern=*.example.net"));
    }

    #[test]
    fn smk_07_tlsrpt_attributes_carry_each_line_and_pattern() {
        let answer =
            Answer::Level(Level::Secure(patterns()), sts(&["version: STSv1", "mode: enforce"], None));
        assert_eq!(
            text(&answer, true),
            "secure match=mx1.example.com:.example.net servername=hostname policy_type=sts policy_domain=example.com { policy_string = version: STSv1 } { policy_string = mode: enforce } mx_host_pattern=mx1.example.com mx_host_pattern=*.example.net"
        );
    }

    #[test]
    fn smk_08_policy_failures_go_with_sts_answers_only() {
        let failed = Answer::Level(Level::May, sts(&[], Some(ResultType::StsWebpkiInvalid)));
        assert!(text(&failed, true).ends_with(" policy_failure=sts-webpki-invalid"));
        let other = Answer::Level(Level::May, sts(&[], Some(ResultType::TlsaInvalid)));
        assert!(!text(&other, true).contains("policy_failure"));
        let none = Answer::Level(
            Level::May,
            Some(Tlsrpt { policy_domain: name("example.com"), found: TlsrptPolicy::NoPolicyFound }),
        );
        assert_eq!(text(&none, true), "may policy_type=no-policy-found policy_domain=example.com");
    }

    #[test]
    fn smk_12_testing_is_no_restriction_and_reported_where_that_can_be_said() {
        let Some(report) = sts(&["version: STSv1"], None) else { panic!("a report") };
        let answer = Answer::Reported(Level::May, report);
        assert_eq!(answer.reply(false), Reply::NotFound);
        assert!(text(&answer, true).starts_with("may policy_type=sts policy_domain=example.com {"));
    }

    #[test]
    fn smk_09_attributes_are_sent_only_when_asked_for() {
        let answer = Answer::Level(Level::May, sts(&["version: STSv1"], None));
        assert_eq!(text(&answer, false), "may");
        assert!(text(&answer, true).starts_with("may policy_type=sts"));
    }

    #[test]
    fn smk_10_policy_text_can_not_break_out_of_the_answer() {
        let answer =
            Answer::Level(Level::May, sts(&["x: } match=evil.example", "y: {", "z: a\nb", "ok: 1"], None));
        let text = text(&answer, true);
        assert!(!text.contains("evil") && !text.contains("y:") && !text.contains('\n'));
        assert!(text.contains("{ policy_string = ok: 1 }"));
    }

    #[test]
    fn smk_11_keys_of_every_form() {
        let parse = |key: &str| LookupKey::parse(key).unwrap();
        let domain = |text: &str, port| LookupKey::Domain { name: name(text), port };
        let host = |text: &str, port| LookupKey::Host { name: name(text), port };
        assert_eq!(parse("Example.ORG."), domain("example.org", None));
        assert_eq!(parse("example.org:587"), domain("example.org", Some(587)));
        assert_eq!(parse("example.org:smtp"), domain("example.org", Some(25)));
        assert_eq!(parse("[mx.example.org]"), host("mx.example.org", None));
        assert_eq!(parse("[mx.example.org]:2525"), host("mx.example.org", Some(2525)));
        assert_eq!(parse(".example.org"), LookupKey::Parent(name("example.org")));
        for literal in ["[192.0.2.1]", "192.0.2.1", "[192.0.2.1]:25"] {
            assert_eq!(parse(literal), LookupKey::Literal("192.0.2.1".parse().unwrap()));
        }
        for literal in ["[IPv6:2001:db8::1]", "[2001:db8::1]", "2001:db8::1"] {
            assert_eq!(parse(literal), LookupKey::Literal("2001:db8::1".parse().unwrap()));
        }
        for bad in ["", "[", "[mx.example.org", "[a]b", "a:b", "a b", "..", "user@example.org", "[]"] {
            assert!(LookupKey::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_key_is_refused_or_taken(key in "\\PC{0,60}") {
            let _ = LookupKey::parse(&key);
        }

        #[test]
        fn no_policy_line_adds_an_attribute(line in "\\PC{0,60}") {
            let answer = Answer::Level(Level::May, sts(&[&line], None));
            let text = text(&answer, true);
            let inside = text.split("{ policy_string = ").nth(1);
            if let Some(inside) = inside {
                prop_assert_eq!(inside.matches('}').count(), 1);
            }
        }
    }
}
