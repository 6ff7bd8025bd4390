//! Keys and values of Postfix's TLS policy table (postconf(5), `smtp_tls_policy_maps`; TLSRPT_README for the
//! attributes of Postfix 3.10 and later). A [`LookupKey`] comes from a socketmap request, and the sending side's
//! [`Answer`] becomes the socketmap reply.

use crate::domain::{DomainError, DomainName};
use crate::limits::SOCKETMAP_REPLY_BYTES;
use crate::mx_pattern::{MxPattern, MxPatternError};
use crate::result_type::ResultType;
use crate::socketmap::Reply;
use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;

/// The domain that is always answered, without any lookup, so that an operator can test a mail server's map. Names below
/// `invalid` never exist (RFC 6761 §6.4), so no mail is ever delivered to it.
pub const TEST_DOMAIN: &str = "sternpost.invalid";

/// A next hop, as Postfix looks it up (SMK-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupKey {
    /// A domain. Postfix delivers to its MX hosts.
    Domain {
        /// The policy domain.
        name: DomainName,
        /// The port after the name; `None` if there is none.
        port: Option<u16>,
    },
    /// A host in brackets. Postfix delivers to it without an MX lookup.
    Host {
        /// The host's name, which is also the policy domain (VAL-13).
        name: DomainName,
        /// The port after the bracket; `None` if there is none.
        port: Option<u16>,
    },
    /// `.parent`, by which Postfix looks up a policy for all subdomains. MTA-STS does not have such policies (VAL-12).
    Parent(DomainName),
    /// An IP address, for which there is no policy (VAL-14).
    Literal(IpAddr),
}

/// Why a key is not a valid next hop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The closing bracket is missing.
    #[error("`[` without `]`")]
    Bracket,
    /// The text after the name is not a valid port.
    #[error("{0:?} is not a port")]
    Port(String),
    /// The text is neither a domain name nor an IP address.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl LookupKey {
    /// Parses `domain`, `domain:port`, `[host]`, `[host]:port`, `[address]` or `.parent`.
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

/// Parses a port number or the name of a mail service, as a next hop in Postfix may have it.
fn port(text: &str) -> Result<u16, KeyError> {
    /// The names of IANA's registry and, in `smtps`, of /etc/services. Upper case is accepted.
    const SERVICES: &[(&str, u16)] =
        &[("smtp", 25), ("smtps", 465), ("submissions", 465), ("submission", 587)];
    match SERVICES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((_, port)) => Ok(*port),
        None => text.parse().map_err(|_| KeyError::Port(clip(text))),
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

/// The result of a TLS policy lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Use this security level; the attributes are for TLS reporting.
    Level(Level, Option<Tlsrpt>),
    /// No restriction, but sessions are reported under a policy. A mail server with TLSRPT support gets this level,
    /// since attributes require a level. Without TLSRPT support it gets "not found" (SMK-12).
    Reported(Level, Tlsrpt),
    /// There is no policy. The mail server uses its configured default.
    NotFound,
    /// Delivery must be deferred. The mail server logs the reason.
    Temp(String),
}

/// The TLS security levels of Postfix that policies require.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// Opportunistic TLS; certificates are not verified.
    May,
    /// Mandatory TLS without certificate verification.
    Encrypt,
    /// Opportunistic DANE: DANE for hosts with usable TLSA records, else opportunistic TLS or, if all records are
    /// unusable, mandatory TLS.
    Dane,
    /// Mandatory DANE: hosts without usable TLSA records get no mail.
    DaneOnly,
    /// Mandatory TLS with a verified certificate that matches one of these patterns. If empty, Postfix matches its
    /// default names, which are the next hop's domain.
    Secure(Vec<MxPattern>),
}

/// The attributes under which Postfix 3.10 and later reports a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlsrpt {
    /// The policy domain.
    pub policy_domain: DomainName,
    /// The policy that was found.
    pub found: TlsrptPolicy,
}

/// The result of the search for an MTA-STS policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsrptPolicy {
    /// A policy was found.
    Sts {
        /// The lines of the policy file (RPT-06).
        policy_string: Vec<String>,
        /// The `mx` patterns of the policy.
        mx: Vec<MxPattern>,
        /// Why the last refresh of the policy failed; `None` if it did not fail.
        failure: Option<ResultType>,
    },
    /// No policy was found.
    NoPolicyFound,
}

impl Answer {
    /// The answer for [`TEST_DOMAIN`]. It is the strictest level, so it is never weaker than a mail server's default, and it
    /// has the form of an enforced policy. No certificate authority issues a certificate for the name.
    pub fn for_test_domain() -> Self {
        let name = MxPattern::parse(TEST_DOMAIN).into_iter().collect();
        Self::Level(Level::Secure(name), None)
    }

    /// Converts the answer to a socketmap reply. Attributes are included only if `tlsrpt` is true, since Postfix 3.9
    /// and earlier reject them (SMK-09).
    ///
    /// No reply is longer than [`SOCKETMAP_REPLY_BYTES`]. The level and its `match` patterns are always complete: if
    /// they alone are too long, the reply is a temporary failure.
    pub fn reply(&self, tlsrpt: bool) -> Reply {
        let (level, report) = match self {
            Self::NotFound => return Reply::NotFound,
            Self::Reported(..) if !tlsrpt => return Reply::NotFound,
            Self::Temp(reason) => return Reply::Temp(reason.clone()),
            Self::Reported(level, report) => (level, Some(report)),
            Self::Level(level, report) => (level, report.as_ref().filter(|_| tlsrpt)),
        };
        let text = level.attributes();
        if text.len() > MAX_VALUE_BYTES {
            return Reply::Temp(format!(
                "the MX patterns take {} bytes, but a reply may have {SOCKETMAP_REPLY_BYTES}",
                text.len()
            ));
        }
        Reply::Ok(match report {
            Some(report) => report.append_to(text),
            None => text,
        })
    }
}

/// The bytes of a reply that remain for its value, after the status `OK` and a space.
const MAX_VALUE_BYTES: usize = SOCKETMAP_REPLY_BYTES - 3;

/// The distinct patterns, in their order.
fn distinct(patterns: &[MxPattern]) -> impl Iterator<Item = &MxPattern> {
    let mut seen = HashSet::with_capacity(patterns.len());
    patterns.iter().filter(move |pattern| seen.insert(*pattern))
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
                let names: Vec<String> = distinct(mx).map(postfix_match).collect();
                format!("secure match={} servername=hostname", names.join(":"))
            }
        }
    }
}

/// Returns a pattern in the syntax of Postfix's `match`, where `.example.com` is a wildcard. It also matches several
/// labels; Postfix 3.10.5 and later restrict that with the `mx_host_pattern` attributes (SMK-06).
fn postfix_match(pattern: &MxPattern) -> String {
    match pattern {
        MxPattern::Exact(name) => name.to_string(),
        MxPattern::Wildcard(name) => format!(".{name}"),
    }
}

/// Parses a name of Postfix's `match=` attribute as a pattern: the reverse of the conversion in replies.
pub fn pattern_of_match(name: &str) -> Result<MxPattern, MxPatternError> {
    match name.strip_prefix('.') {
        Some(parent) => MxPattern::parse(&format!("*.{parent}")),
        None => MxPattern::parse(name),
    }
}

impl Tlsrpt {
    /// Appends the attributes to `level`, a level with its own attributes. If the result is longer than
    /// [`MAX_VALUE_BYTES`], all `policy_string` attributes are omitted; if that is not enough, all `mx_host_pattern`
    /// attributes too, and at last the report as a whole.
    fn append_to(&self, level: String) -> String {
        for extent in [Extent::All, Extent::WithoutStrings, Extent::WithoutPatterns] {
            let mut text = level.clone();
            self.write(&mut text, extent);
            if text.len() <= MAX_VALUE_BYTES {
                return text;
            }
        }
        level
    }

    fn write(&self, text: &mut String, extent: Extent) {
        match &self.found {
            TlsrptPolicy::NoPolicyFound => {
                let _ = write!(text, " policy_type=no-policy-found policy_domain={}", self.policy_domain);
            }
            TlsrptPolicy::Sts { policy_string, mx, failure } => {
                let _ = write!(text, " policy_type=sts policy_domain={}", self.policy_domain);
                if extent == Extent::All {
                    for line in policy_string.iter().filter(|line| is_harmless(line)) {
                        let _ = write!(text, " {{ policy_string = {line} }}");
                    }
                }
                if extent != Extent::WithoutPatterns {
                    for pattern in distinct(mx) {
                        let _ = write!(text, " mx_host_pattern={pattern}");
                    }
                }
                if let Some(failure) = failure.as_ref().filter(|kind| is_sts_failure(kind)) {
                    let _ = write!(text, " policy_failure={failure}");
                }
            }
        }
    }
}

/// Which attributes for TLS reporting a reply contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    WithoutStrings,
    WithoutPatterns,
}

/// True if a policy line can neither end its `{ … }` early nor start a new attribute (SMK-10). Other lines are
/// omitted; no line that a policy requires contains such characters.
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
    use crate::policy::Policy;
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
        for (service, port) in [
            ("smtp", 25),
            ("SMTP", 25),
            ("smtps", 465),
            ("submissions", 465),
            ("Submissions", 465),
            ("submission", 587),
            ("SUBMISSION", 587),
        ] {
            let port = Some(port);
            assert_eq!(parse(&format!("example.org:{service}")), domain("example.org", port), "{service}");
            assert_eq!(parse(&format!("[a.example]:{service}")), host("a.example", port), "{service}");
        }
        assert_eq!(parse("[mx.example.org]"), host("mx.example.org", None));
        assert_eq!(parse("[mx.example.org]:2525"), host("mx.example.org", Some(2525)));
        assert_eq!(parse(".example.org"), LookupKey::Parent(name("example.org")));
        for literal in ["[192.0.2.1]", "192.0.2.1", "[192.0.2.1]:25"] {
            assert_eq!(parse(literal), LookupKey::Literal("192.0.2.1".parse().unwrap()));
        }
        for literal in ["[IPv6:2001:db8::1]", "[2001:db8::1]", "2001:db8::1"] {
            assert_eq!(parse(literal), LookupKey::Literal("2001:db8::1".parse().unwrap()));
        }
        for bad in [
            "",
            "[",
            "[mx.example.org",
            "[a]b",
            "a:b",
            "a b",
            "..",
            "user@example.org",
            "[]",
            "a:imap",
            "[a]:lmtp",
        ] {
            assert!(LookupKey::parse(bad).is_err(), "{bad:?}");
        }
    }

    /// Both replies to an answer by an enforced policy with this text.
    fn enforced(body: &str) -> (Policy, [Reply; 2]) {
        let (policy, report) = reported(body);
        let answer = Answer::Level(Level::Secure(policy.mx.clone()), Some(report));
        let replies = [false, true].map(|tlsrpt| answer.reply(tlsrpt));
        (policy, replies)
    }

    fn reported(body: &str) -> (Policy, Tlsrpt) {
        let policy = Policy::parse(body.as_bytes()).unwrap();
        let policy_string = crate::policy::lines(body).map(str::to_owned).collect();
        let found = TlsrptPolicy::Sts { policy_string, mx: policy.mx.clone(), failure: None };
        (policy, Tlsrpt { policy_domain: name("example.com"), found })
    }

    fn file(lines: impl Iterator<Item = String>) -> String {
        let mut body = "version: STSv1\nmode: enforce\nmax_age: 86400\nmx: mx.example.com\n".to_owned();
        for line in lines {
            if body.len() + line.len() >= crate::limits::POLICY_BYTES {
                break;
            }
            body.push_str(&line);
            body.push('\n');
        }
        body
    }

    fn has(reply: &Reply, attribute: &str) -> bool {
        matches!(reply, Reply::Ok(text) if text.contains(attribute))
    }

    #[test]
    fn equal_patterns_are_named_once() {
        let (_, [_, full]) = enforced(&file((0..3).map(|_| "mx: *.example.net".to_owned())));
        let Reply::Ok(text) = full else { panic!("{full:?}") };
        assert!(text.starts_with("secure match=mx.example.com:.example.net servername"), "{text}");
        assert_eq!(text.matches("mx_host_pattern=*.example.net").count(), 1);
        assert_eq!(text.matches("policy_string = mx: *.example.net").count(), 3);
    }

    #[test]
    fn a_long_reply_omits_policy_strings_then_host_patterns_and_never_match_patterns() {
        let mx = |count: usize| file((0..count).map(|n| format!("mx: mx{n:04}.some-host.example")));
        for (count, strings, patterns) in [(10, true, true), (1400, false, true), (2200, false, false)] {
            let (policy, [plain, full]) = enforced(&mx(count));
            assert_eq!(policy.mx.len(), count + 1);
            assert!(plain.encode().len() < full.encode().len() && has(&full, " policy_type=sts "));
            assert_eq!(has(&full, "policy_string"), strings, "{count}");
            assert_eq!(has(&full, "mx_host_pattern"), patterns, "{count}");
        }
        let patterns =
            (0..6000).map(|n| MxPattern::parse(&format!("mx{n}.some-host.example")).unwrap()).collect();
        let Reply::Temp(why) = Answer::Level(Level::Secure(patterns), None).reply(false) else { panic!() };
        assert!(why.starts_with("the MX patterns take 1"), "{why}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_reply_exceeds_the_limit_and_each_has_all_match_patterns(
            kinds in proptest::collection::vec((0..5usize, 1..40usize), 1..30),
            fill in any::<bool>(),
        ) {
            let line = |n: usize, (kind, length): (usize, usize)| match kind {
                0 => format!("mx: {}{n}.example", "m".repeat(length)),
                1 => format!("mx: *.{}.example", "w".repeat(length)),
                2 => format!("mx: m{n}.a"),
                3 => format!("k{n}: {}", "v".repeat(length)),
                _ => "mx: 192.0.2.1".to_owned(),
            };
            let count = if fill { 70_000 } else { kinds.len() };
            let body = file(kinds.iter().copied().cycle().take(count).enumerate().map(|(n, kind)| line(n, kind)));
            let (policy, report) = reported(&body);
            for level in [Level::May, Level::Encrypt] {
                let (status, text) = Answer::Reported(level.clone(), report.clone()).reply(true).parts();
                let begin = format!("{} policy_type=sts policy_domain=example.com", level.attributes());
                prop_assert!(status == "OK" && text.starts_with(&begin));
                prop_assert!(status.len() + 1 + text.len() <= SOCKETMAP_REPLY_BYTES);
            }
            let (_, replies) = enforced(&body);
            for reply in replies {
                let (status, text) = reply.parts();
                prop_assert_eq!(status, "OK");
                prop_assert!(status.len() + 1 + text.len() <= SOCKETMAP_REPLY_BYTES);
                let names = text.strip_prefix("secure match=").and_then(|rest| rest.split(' ').next()).unwrap();
                let named: Vec<_> = names.split(':').map(|name| pattern_of_match(name).unwrap()).collect();
                let expected: Vec<_> = distinct(&policy.mx).cloned().collect();
                prop_assert_eq!(named, expected);
            }
        }
    }

    proptest! {
        #[test]
        fn any_key_is_rejected_or_accepted(key in "\\PC{0,60}") {
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
