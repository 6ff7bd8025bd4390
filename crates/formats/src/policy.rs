//! The policy file, `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` (RFC 8461 §3.2). The sending side and the check
//! parse fetched files with [`Policy::parse`]; the receiving side writes files with `Display` of [`Policy`].

use crate::domain::{DomainError, DomainName};
use crate::fields::is_field_name;
use crate::limits::{MAX_AGE_SECONDS, POLICY_BYTES, POLICY_LINE_BYTES};
use crate::mx_pattern::{MxPattern, MxPatternError};
use std::fmt;

/// What a sender does when a session fails validation against the policy (RFC 8461 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The sender does not deliver to the host.
    Enforce,
    /// The sender delivers and reports the failure.
    Testing,
    /// The sender treats the domain as if it had no policy.
    None,
}

impl Mode {
    /// Returns the mode's name in a policy file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }

    /// Parses a mode's name in a policy file, which is case-sensitive.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Testing, Self::None].into_iter().find(|mode| mode.as_str() == text)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A valid MTA-STS policy (RFC 8461 §3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What a sender does when validation fails.
    pub mode: Mode,
    /// How long a sender caches the policy, in seconds; at most [`MAX_AGE_SECONDS`] (POL-17).
    pub max_age: u32,
    /// The patterns of the domain's MX hosts. Empty only if the mode is `none`, or if all `mx` values are in
    /// [`Self::unmatchable`].
    pub mx: Vec<MxPattern>,
    /// The `mx` values that no MX host can match, such as an IPv4 address: the grammar allows them, since a `Domain` of
    /// RFC 5321 §4.1.2 may consist of digits. An enforced policy with such values only is in force for every MX host,
    /// and covers none.
    pub unmatchable: Vec<String>,
    /// Oddities that do not make the file invalid.
    pub notes: Vec<PolicyNote>,
}

/// An oddity of a valid policy file, for `check`, which has a finding for each kind or a reason for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyNote {
    /// `max_age` has this value, and is reduced to [`MAX_AGE_SECONDS`].
    MaxAgeCapped(u64),
    /// The `mx` value on this line has a final dot, which the grammar does not allow. Some senders discard the policy.
    MxFinalDot(usize),
    /// The `mx` value on this line has upper-case letters, which are equal to lower-case ones in host names.
    MxUpperCase(usize),
    /// The `mx` value on this line ends in a number, as an IPv4 address does, and matches no MX host.
    MxUnmatchable(usize),
    /// The key on this line occurred before; the first value is used.
    Duplicate(usize),
    /// The key on this line is unknown, and is ignored.
    UnknownKey(usize),
    /// At least one line ends in LF without CR.
    BareLf,
    /// The last field is followed by empty lines.
    TrailingBlankLines,
}

/// A syntax error in a policy file. Lines and columns are counted from 1; columns are bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {fault}")]
pub struct PolicyError {
    /// The line number; if a key is missing, the number after the last line.
    pub line: usize,
    /// The byte position in the line.
    pub column: usize,
    /// What is wrong at this position.
    pub fault: PolicyFault,
}

/// The kinds of errors in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFault {
    /// The file is longer than [`POLICY_BYTES`].
    #[error("the file has over {POLICY_BYTES} bytes")]
    TooLarge,
    /// The file begins with a UTF-8 byte-order mark.
    #[error("the file begins with a UTF-8 byte-order mark; save it without one")]
    ByteOrderMark,
    /// A line is longer than [`POLICY_LINE_BYTES`].
    #[error("the line has over {POLICY_LINE_BYTES} bytes")]
    LineTooLong,
    /// The file contains a control character other than tabs and line ends.
    #[error("control character 0x{0:02x}")]
    Control(u8),
    /// The file is not valid UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A line is not of the form `key: value`.
    #[error("no `:` in the line; expected `key: value`")]
    NoColon,
    /// The file looks like an HTML page.
    #[error("the file is a web page, not a policy file")]
    Html,
    /// A key does not match the grammar.
    #[error(
        "the key {0:?} must have 1 to 32 letters, digits, `_`, `-` or `.`, and begin with a letter or digit"
    )]
    BadKey(String),
    /// A key has no value.
    #[error("the key {0:?} has no value")]
    EmptyValue(String),
    /// The version is not `STSv1`.
    #[error("the version is {0:?}; expected STSv1")]
    Version(String),
    /// The mode is unknown or not in lower case.
    #[error("the mode is {0:?}; expected enforce, testing or none, in lower case")]
    Mode(String),
    /// `max_age` is not a number of 1 to 10 digits.
    #[error("max_age is {0:?}; expected seconds in 1 to 10 digits")]
    MaxAge(String),
    /// An `mx` value is not a valid pattern.
    #[error("mx {0:?}: {1}")]
    Mx(String, MxPatternError),
    /// A required key is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
}

impl Policy {
    /// Parses the body of a policy file.
    ///
    /// Empty lines at the end are accepted with a note, since editors and web forms leave them. Elsewhere a line
    /// without `:` makes the policy invalid (POL-23).
    pub fn parse(body: &[u8]) -> Result<Self, PolicyError> {
        if body.len() > POLICY_BYTES {
            return Err(PolicyError { line: 1, column: 1, fault: PolicyFault::TooLarge });
        }
        if body.starts_with(b"\xef\xbb\xbf") {
            return Err(PolicyError { line: 1, column: 1, fault: PolicyFault::ByteOrderMark });
        }
        let trimmed = body.trim_ascii_end();
        let after = body.get(trimmed.len()..).unwrap_or_default();
        let text = std::str::from_utf8(trimmed).map_err(|error| {
            let (line, column) = place(trimmed, error.valid_up_to());
            PolicyError { line, column, fault: PolicyFault::NotUtf8 }
        })?;
        let mut draft = Draft { has_controls: has_controls(trimmed), ..Draft::default() };
        let (mut line_number, mut bare, mut rest) = (0, false, Some(text));
        while let Some(text) = rest {
            let (line, next) = match memchr::memchr(b'\n', text.as_bytes()) {
                Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
                None => (text, None),
            };
            line_number += 1;
            draft.take_line(line, line_number)?;
            bare |= next.is_some() && !line.ends_with('\r');
            rest = next;
        }
        draft.note_ends(bare, after);
        draft.finish(line_number + 1)
    }

    /// True if an `mx` pattern of the policy matches `host`, the name in an MX record.
    pub fn covers(&self, host: &DomainName) -> bool {
        self.mx.iter().any(|pattern| pattern.matches(host))
    }

    /// Creates a policy without notes. `max_age` is in seconds and reduced to [`MAX_AGE_SECONDS`]. Returns `None` if
    /// `mx` is empty and the mode is not `none`.
    pub fn new(mode: Mode, max_age: u32, mx: Vec<MxPattern>) -> Option<Self> {
        let complete = mode == Mode::None || !mx.is_empty();
        let max_age = max_age.min(MAX_AGE_SECONDS);
        complete.then(|| Self { mode, max_age, mx, unmatchable: Vec::new(), notes: Vec::new() })
    }
}

/// Returns the lines of a policy file as reports and mail servers expect them: trimmed, without line ends and empty
/// lines (RPT-06, SMK-07).
pub fn lines(body: &str) -> impl Iterator<Item = &str> {
    body.split('\n').map(|line| line.trim_matches([' ', '\t', '\r'])).filter(|line| !line.is_empty())
}

#[derive(Default)]
struct Draft {
    version: bool,
    mode: Option<Mode>,
    max_age: Option<u32>,
    mx: Vec<MxPattern>,
    unmatchable: Vec<String>,
    notes: Vec<PolicyNote>,
    /// The file contains a control character other than tabs and line ends.
    has_controls: bool,
}

/// Tests all bytes without leaving the loop early, so that the compiler can vectorize it.
fn has_controls(body: &[u8]) -> bool {
    let is_odd =
        |byte: u8| (byte < 0x20) & (byte != b'\t') & (byte != b'\n') & (byte != b'\r') | (byte == 0x7f);
    body.iter().fold(false, |found, byte| found | is_odd(*byte))
}

/// Returns the line and column of a byte, both counted from 1.
fn place(body: &[u8], at: usize) -> (usize, usize) {
    let before = body.get(..at).unwrap_or(body);
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    (before.iter().filter(|byte| **byte == b'\n').count() + 1, at - line_start + 1)
}

impl Draft {
    fn take_line(&mut self, raw: &str, line: usize) -> Result<(), PolicyError> {
        let fail = |column, fault| Err(PolicyError { line, column, fault });
        let text = raw.strip_suffix('\r').unwrap_or(raw);
        if text.len() > POLICY_LINE_BYTES {
            return fail(POLICY_LINE_BYTES + 1, PolicyFault::LineTooLong);
        }
        if self.has_controls || memchr::memchr(b'\r', text.as_bytes()).is_some() {
            let control =
                text.bytes().enumerate().find(|(_, byte)| byte.is_ascii_control() && *byte != b'\t');
            if let Some((at, byte)) = control {
                return fail(at + 1, PolicyFault::Control(byte));
            }
        }
        let Some((key, rest)) = text.split_once(':').filter(|(key, _)| is_field_name(key)) else {
            return fail(1, not_a_field(text));
        };
        let is_white = |c: char| c == ' ' || c == '\t';
        let value = rest.trim_start_matches(is_white);
        let column = text.len() - value.len() + 1;
        let value = value.trim_end_matches(is_white);
        if value.is_empty() {
            return fail(column, PolicyFault::EmptyValue(key.to_owned()));
        }
        self.take_field(key, value, line).or_else(|fault| fail(column, fault))
    }

    fn take_field(&mut self, key: &str, value: &str, line: usize) -> Result<(), PolicyFault> {
        match key {
            "version" if self.version => self.notes.push(PolicyNote::Duplicate(line)),
            "version" if value == "STSv1" => self.version = true,
            "version" => return Err(PolicyFault::Version(clip(value))),
            "mode" if self.mode.is_some() => self.notes.push(PolicyNote::Duplicate(line)),
            "mode" => self.mode = Some(Mode::parse(value).ok_or_else(|| PolicyFault::Mode(clip(value)))?),
            "max_age" if self.max_age.is_some() => self.notes.push(PolicyNote::Duplicate(line)),
            "max_age" => self.max_age = Some(self.take_max_age(value)?),
            "mx" => self.take_mx(value, line)?,
            _ => self.notes.push(PolicyNote::UnknownKey(line)),
        }
        Ok(())
    }

    fn take_max_age(&mut self, value: &str) -> Result<u32, PolicyFault> {
        let bad = || PolicyFault::MaxAge(clip(value));
        if value.len() > 10 || !value.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let seconds: u64 = value.parse().map_err(|_| bad())?;
        if seconds > u64::from(MAX_AGE_SECONDS) {
            self.notes.push(PolicyNote::MaxAgeCapped(seconds));
        }
        Ok(u32::try_from(seconds).unwrap_or(u32::MAX).min(MAX_AGE_SECONDS))
    }

    fn take_mx(&mut self, value: &str, line: usize) -> Result<(), PolicyFault> {
        let pattern = match MxPattern::parse(value) {
            Ok(pattern) => pattern,
            // Labels of digits fit the grammar; the `:` of an IPv6 address does not.
            Err(MxPatternError::Domain(DomainError::Address(_))) if !value.contains(':') => {
                self.notes.push(PolicyNote::MxUnmatchable(line));
                self.unmatchable.push(value.to_owned());
                return Ok(());
            }
            Err(error) => return Err(PolicyFault::Mx(clip(value), error)),
        };
        if value.ends_with('.') {
            self.notes.push(PolicyNote::MxFinalDot(line));
        }
        if value.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.notes.push(PolicyNote::MxUpperCase(line));
        }
        self.mx.push(pattern);
        Ok(())
    }

    /// Adds the notes about line ends. `after` is the white space at the end of the file, which is not part of any
    /// line.
    fn note_ends(&mut self, bare: bool, after: &[u8]) {
        let ends = after.split_inclusive(|byte| *byte == b'\n').filter(|end| end.ends_with(b"\n"));
        if bare || ends.clone().any(|end| !end.ends_with(b"\r\n")) {
            self.notes.push(PolicyNote::BareLf);
        }
        if ends.count() > 1 {
            self.notes.push(PolicyNote::TrailingBlankLines);
        }
    }

    fn finish(self, line: usize) -> Result<Policy, PolicyError> {
        let missing = |key| PolicyError { line, column: 1, fault: PolicyFault::Missing(key) };
        if !self.version {
            return Err(missing("version"));
        }
        let mode = self.mode.ok_or_else(|| missing("mode"))?;
        let max_age = self.max_age.ok_or_else(|| missing("max_age"))?;
        if self.mx.is_empty() && self.unmatchable.is_empty() && mode != Mode::None {
            return Err(missing("mx"));
        }
        Ok(Policy { mode, max_age, mx: self.mx, unmatchable: self.unmatchable, notes: self.notes })
    }
}

/// Returns the fault of a line that is not of the form `key: value`.
fn not_a_field(line: &str) -> PolicyFault {
    match line.split_once(':') {
        _ if line.trim_start().starts_with('<') => PolicyFault::Html,
        Some((key, _)) => PolicyFault::BadKey(clip(key)),
        None => PolicyFault::NoColon,
    }
}

fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}

impl fmt::Display for Policy {
    /// Writes the policy file, with CRLF line ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version: STSv1\r\nmode: {}\r\n", self.mode)?;
        for pattern in &self.mx {
            write!(f, "mx: {pattern}\r\n")?;
        }
        for value in &self.unmatchable {
            write!(f, "mx: {value}\r\n")?;
        }
        write!(f, "max_age: {}\r\n", self.max_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Policy, PolicyError> {
        Policy::parse(text.as_bytes())
    }

    fn fault(text: &str) -> PolicyFault {
        parse(text).unwrap_err().fault
    }

    const GOOD: &str =
        "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmx: *.example.net\r\nmax_age: 604800\r\n";

    #[test]
    fn pol_15_lines_end_in_crlf_or_lf_and_values_may_have_white_space_after_them() {
        let good = parse(GOOD).unwrap();
        assert!(good.notes.is_empty());
        let lf = parse(&GOOD.replace("\r\n", "\n")).unwrap();
        assert_eq!(lf.notes, [PolicyNote::BareLf]);
        let open = parse(GOOD.trim_end()).unwrap();
        assert_eq!(open, good);
        let spaced = parse(&GOOD.replace("\r\n", " \t\r\n")).unwrap();
        assert_eq!(spaced, good);
        assert_eq!(
            parse("version: STSv1\nmode: none\nmax_age: 1\n\n\n").unwrap().notes,
            [PolicyNote::BareLf, PolicyNote::TrailingBlankLines]
        );
        assert!(matches!(fault("version: STSv1\rmode: none\rmax_age: 1\r"), PolicyFault::Control(b'\r')));
    }

    #[test]
    fn pol_16_version_mode_and_max_age_are_required_and_exact() {
        assert_eq!(fault(""), PolicyFault::NoColon);
        assert_eq!(fault("mode: none\nmax_age: 1"), PolicyFault::Missing("version"));
        assert_eq!(fault("version: STSv1\nmax_age: 1"), PolicyFault::Missing("mode"));
        assert_eq!(fault("version: STSv1\nmode: none"), PolicyFault::Missing("max_age"));
        for version in ["STSv0", "STSv10", "STSv2", "stsv1", "STSv1;"] {
            assert_eq!(
                fault(&format!("version: {version}\nmode: none\nmax_age: 1")),
                PolicyFault::Version(version.into())
            );
        }
        for mode in ["Enforce", "bad", "report", "none,"] {
            assert_eq!(
                fault(&format!("version: STSv1\nmode: {mode}\nmax_age: 1")),
                PolicyFault::Mode(mode.into())
            );
        }
        for age in ["a", "-1", "+1", "1.5", "01234567890", "1 2", "0x10"] {
            assert_eq!(
                fault(&format!("version: STSv1\nmode: none\nmax_age: {age}")),
                PolicyFault::MaxAge(age.into())
            );
        }
        assert_eq!(parse("version: STSv1\nmode: none\nmax_age: 0").unwrap().max_age, 0);
        assert_eq!(parse("max_age: 0000000009\nmode: none\nversion: STSv1").unwrap().max_age, 9);
        assert!(matches!(fault("Version: STSv1\nmode: none\nmax_age: 1"), PolicyFault::Missing("version")));
    }

    #[test]
    fn pol_17_max_age_is_capped_at_a_year() {
        let policy = parse("version: STSv1\nmode: none\nmax_age: 9999999999").unwrap();
        assert_eq!(policy.max_age, 31_557_600);
        assert!(policy.notes.contains(&PolicyNote::MaxAgeCapped(9_999_999_999)));
        let most = parse("version: STSv1\r\nmode: none\r\nmax_age: 31557600").unwrap();
        assert_eq!((most.max_age, most.notes), (31_557_600, vec![]));
    }

    #[test]
    fn pol_18_an_mx_is_needed_unless_the_mode_is_none() {
        assert_eq!(fault("version: STSv1\nmode: enforce\nmax_age: 1"), PolicyFault::Missing("mx"));
        assert_eq!(fault("version: STSv1\nmode: testing\nmax_age: 1"), PolicyFault::Missing("mx"));
        assert!(parse("version: STSv1\nmode: none\nmax_age: 1").is_ok());
        assert_eq!(
            fault("version: STSv1\nmode: enforce\nmax_age: 1\nmx:"),
            PolicyFault::EmptyValue("mx".into())
        );
    }

    #[test]
    fn pol_20_unknown_keys_are_ignored_and_the_first_of_duplicates_counts() {
        let policy = parse("version: STSv1\nmode: testing\nmode: bogus\nmax_age: 5\nmax_age: x\nversion: 9\nmx: a.example\nmx: b.example\nfoo: b a r\u{e9}\n").unwrap();
        assert_eq!((policy.mode, policy.max_age, policy.mx.len()), (Mode::Testing, 5, 2));
        assert_eq!(
            policy.notes,
            [
                PolicyNote::Duplicate(3),
                PolicyNote::Duplicate(5),
                PolicyNote::Duplicate(6),
                PolicyNote::UnknownKey(9),
                PolicyNote::BareLf
            ]
        );
        for bad in
            ["ext:", "a12345678901234567890123456789012:1", "_bad:test", " mode: none", "mode : none", ": x"]
        {
            assert!(parse(&format!("version:STSv1\nmode:none\nmax_age:0\n{bad}")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pol_21_a_final_dot_and_upper_case_in_mx_are_normalised_and_noted() {
        let policy =
            parse("version: STSv1\r\nmode: enforce\r\nmx: MX.Example.ORG.\r\nmx: b.example\r\nmax_age: 1")
                .unwrap();
        assert_eq!(policy.mx[0].to_string(), "mx.example.org");
        assert_eq!(policy.notes, [PolicyNote::MxFinalDot(3), PolicyNote::MxUpperCase(3)]);
    }

    #[test]
    fn pol_22_any_white_space_or_none_after_the_colon() {
        let policy = parse("version:STSv1\r\nmode:\tenforce\r\nmx:  \t\t *.example.com\nmax_age:1").unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, 1));
        assert_eq!(policy.mx[0].to_string(), "*.example.com");
    }

    #[test]
    fn pol_23_marks_nuls_stray_and_long_lines_are_invalid_with_line_and_column() {
        let at = |body: &[u8]| {
            let error = Policy::parse(body).unwrap_err();
            (error.line, error.column, error.fault)
        };
        assert_eq!(at(b"\xef\xbb\xbfversion: STSv1"), (1, 1, PolicyFault::ByteOrderMark));
        assert_eq!(at(b"version: STSv1\nmode: n\0ne"), (2, 8, PolicyFault::Control(0)));
        assert_eq!(at(b"version: STSv1\nmode none"), (2, 1, PolicyFault::NoColon));
        assert_eq!(at(b"version: STSv1\n\nmode: none\nmax_age: 1"), (2, 1, PolicyFault::NoColon));
        assert_eq!(at(b"version: STSv1\nmode: none\nx: \xff"), (3, 4, PolicyFault::NotUtf8));
        assert_eq!(at(b"<!DOCTYPE html>"), (1, 1, PolicyFault::Html));
        let long = format!("version: STSv1\nmode: none\nmax_age: 1\nx: {}", "a".repeat(998));
        assert_eq!(at(long.as_bytes()), (4, 1001, PolicyFault::LineTooLong));
        assert!(Policy::parse(&long.as_bytes()[..long.len() - 1]).is_ok());
        assert_eq!(
            at(b"version: STSv1\nmode: enforce\nmx: mx.example:25"),
            (3, 5, PolicyFault::Mx("mx.example:25".into(), MxPatternError::Port))
        );
        let full =
            [b"version: STSv1\nmode: none\nmax_age: 1\n".as_slice(), &b"x: y\n".repeat(20_000)].concat();
        assert_eq!(Policy::parse(&full[..POLICY_BYTES + 1]).unwrap_err().fault, PolicyFault::TooLarge);
    }

    #[test]
    fn pol_19_an_mx_in_unicode_is_invalid() {
        assert!(matches!(
            fault("version: STSv1\nmode: none\nmax_age: 1\nmx: m\u{f8}x.example"),
            PolicyFault::Mx(_, MxPatternError::ULabel)
        ));
    }

    #[test]
    fn pol_19_an_ipv4_address_is_a_pattern_that_never_matches() {
        let policy =
            parse("version: STSv1\r\nmode: enforce\r\nmx: mx.example\r\nmx: 192.0.2.56\r\nmax_age: 1")
                .unwrap();
        assert_eq!(
            (policy.mx.len(), policy.notes.as_slice()),
            (1, [PolicyNote::MxUnmatchable(4)].as_slice())
        );
        assert_eq!(policy.unmatchable, ["192.0.2.56"]);
        let again = parse(&policy.to_string()).unwrap();
        assert_eq!((&again.mx, &again.unmatchable), (&policy.mx, &policy.unmatchable));
        for digits in ["192.0.2.56", "256.0.0.1", "*.2.56", "mx.25", "25", "192.0.2.56."] {
            let policy =
                parse(&format!("version: STSv1\r\nmode: enforce\r\nmx: {digits}\r\nmax_age: 1")).unwrap();
            assert!(policy.mx.is_empty() && policy.unmatchable == [digits], "{policy:?}");
            assert!(!policy.covers(&DomainName::parse("mx.example").unwrap()));
        }
        for bad in [
            "[192.0.2.56]",
            "[IPv6:2001:db8::1]",
            "2001:db8::1",
            "*",
            "192.0.2.56:25",
            "m\u{f8}x.example",
            "1..2",
        ] {
            let fault = fault(&format!(
                "version: STSv1\r\nmode: enforce\r\nmx: a.example\r\nmx: {bad}\r\nmax_age: 1"
            ));
            assert!(matches!(fault, PolicyFault::Mx(..)), "{bad}: {fault:?}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_policy_parses_to_itself(mode in 0..3usize, max_age in 0..MAX_AGE_SECONDS, mx in proptest::collection::vec("(\\*\\.)?[a-z0-9]{1,8}(\\.[a-z]{1,8}){1,3}", 1..20)) {
            let mode = [Mode::Enforce, Mode::Testing, Mode::None][mode];
            let mx = mx.iter().map(|text| MxPattern::parse(text).unwrap()).collect();
            let policy = Policy::new(mode, max_age, mx).unwrap();
            prop_assert_eq!(parse(&policy.to_string()), Ok(policy));
        }

        #[test]
        fn any_bytes_are_rejected_or_normalized(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut text = GOOD.as_bytes().to_vec();
            text.extend(bytes);
            if let Ok(policy) = Policy::parse(&text) {
                let again = parse(&policy.to_string()).unwrap();
                prop_assert_eq!((again.mode, again.max_age, again.mx), (policy.mode, policy.max_age, policy.mx));
                prop_assert_eq!(again.unmatchable, policy.unmatchable);
            }
        }
    }
}
