//! Exim's main log, read for TLS reports (Exim specification, chapter "Log files"). Exim does not export its sessions, but
//! with `log_selector = +tls_cipher +tls_certificate_verified` its log says how TLS went in each delivery.
//!
//! [`EximLog::read`] takes one line after the other and returns the sessions among them as [`Posted`]. The log does not
//! say under which policy a message was sent, so the sessions are [`Observed`]; the collector completes them.
//!
//! A line of the log holds texts of strangers: recipient addresses, replies of mail servers, names in certificates. Exim
//! escapes control characters in them. This reader takes TLS facts only from places before such texts.

use crate::domain::DomainName;
use crate::limits::{EXIM_LINE_BYTES, FAILURE_REASON_CHARS};
use crate::posted::{Observed, ObservedTls, Posted, PostedSession};
use crate::result_type::ResultType;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use std::net::IpAddr;

/// Reads the lines of a log in their order.
#[derive(Debug, Clone)]
pub struct EximLog {
    /// The time zone of times without an offset.
    zone: TimeZone,
    /// The last session, to recognize lines about further recipients of it.
    last: Option<Session>,
    /// What an earlier line said about the connection of the next session.
    hint: Option<(String, Hint)>,
}

impl Default for EximLog {
    /// A reader for times in UTC.
    fn default() -> Self {
        Self::new(TimeZone::UTC)
    }
}

/// The identity of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    message: String,
    domain: DomainName,
    ip: Option<IpAddr>,
    at: Timestamp,
}

/// What a line without a recipient says about the session that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hint {
    /// DANE failed.
    Dane,
    /// TLS failed, and the message is sent without it.
    InTheClear,
}

/// Lines about one session have times within this span.
const SAME_SESSION: SignedDuration = SignedDuration::from_secs(2);

impl EximLog {
    /// A reader; `zone` is the time zone of times that are logged without an offset.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, last: None, hint: None }
    }

    /// Reads a line, without its end. Returns the session that it is about; `None` for other lines, for further
    /// recipients of a session, and for lines of more than [`EXIM_LINE_BYTES`].
    pub fn read(&mut self, line: &[u8]) -> Option<Posted> {
        if line.len() > EXIM_LINE_BYTES {
            return None;
        }
        let line = std::str::from_utf8(line).ok()?;
        let (at, rest) = self.time(line)?;
        let rest = without_process(rest);
        let (message, rest) = rest.split_once(' ')?;
        if !is_message_id(message) {
            return None;
        }
        let Some((flag, rest)) = rest.split_once(' ').filter(|(flag, _)| FLAGS.contains(flag)) else {
            self.note(message, rest);
            return None;
        };
        let (domain, rest) = recipient(rest)?;
        let hint = self.hint.take().filter(|(of, _)| of == message).map(|(_, hint)| hint);
        let found = match flag {
            "==" | "**" => failed(rest, hint),
            _ => delivered(rest, hint),
        };
        let Found { tls, mx, ip, reason } = found?;
        let session = Session { message: message.to_owned(), domain: domain.clone(), ip, at };
        if self.last.as_ref().is_some_and(|last| last.is_same(&session)) {
            return None;
        }
        self.last = Some(session);
        let observed = Observed { domain, tls, mx, ip, reason };
        Some(Posted { at: Some(at), count: 1, session: PostedSession::Observed(observed) })
    }

    /// The time at the beginning of a line, with or without milliseconds and offset.
    fn time<'l>(&self, line: &'l str) -> Option<(Timestamp, &'l str)> {
        let (date, rest) = line.split_once(' ')?;
        let (time, rest) = rest.split_once(' ')?;
        if date.len() != 10 || !(8..=15).contains(&time.len()) {
            return None;
        }
        let civil: DateTime = format!("{date}T{time}").parse().ok()?;
        let (zone, rest) = match rest.split_once(' ').map(|(word, rest)| (offset(word), rest)) {
            Some((Some(offset), rest)) => (offset.to_time_zone(), rest),
            _ => (self.zone.clone(), rest),
        };
        Some((zone.to_ambiguous_timestamp(civil).compatible().ok()?, rest))
    }

    /// Keeps what a line without a recipient says about the next session of the message.
    fn note(&mut self, message: &str, rest: &str) {
        let hint = if rest.starts_with("DANE attempt failed") {
            Hint::Dane
        } else if rest.starts_with("TLS session") && rest.contains("delivering unencrypted to ") {
            Hint::InTheClear
        } else {
            return;
        };
        self.hint = Some((message.to_owned(), hint));
    }
}

impl Session {
    /// True for a line about a further recipient of the same session.
    fn is_same(&self, other: &Self) -> bool {
        let same = (&self.message, &self.domain, self.ip) == (&other.message, &other.domain, other.ip);
        same && other.at.duration_since(self.at).abs() <= SAME_SESSION
    }
}

/// The marks of lines about recipients: delivered, further recipient, cutthrough delivery, deferred, failed.
const FLAGS: [&str; 5] = ["=>", "->", ">>", "==", "**"];

/// What a line says about a session.
struct Found {
    tls: ObservedTls,
    mx: Option<String>,
    ip: Option<IpAddr>,
    reason: Option<String>,
}

/// Parses an offset such as `+0100`.
fn offset(word: &str) -> Option<Offset> {
    let digits = word.strip_prefix(['+', '-']).filter(|digits| digits.len() == 4)?;
    let number: i32 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    let seconds = (number / 100 * 60 + number % 100) * 60;
    Offset::from_seconds(if word.starts_with('-') { -seconds } else { seconds }).ok()
}

/// Skips the process ID in brackets, which `log_selector = +pid` adds.
fn without_process(rest: &str) -> &str {
    let inside = rest.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match inside {
        Some((pid, rest)) if !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => rest,
    }
}

/// Message IDs are three words of letters and digits: 6-6-2 of them, from Exim 4.97 on 6-11-4.
fn is_message_id(word: &str) -> bool {
    let parts: Vec<usize> = word.split('-').map(str::len).collect();
    (parts == [6, 6, 2] || parts == [6, 11, 4])
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The domain of the recipient at the beginning of `rest`, and what follows the address. A quoted local part may contain
/// spaces.
fn recipient(rest: &str) -> Option<(DomainName, &str)> {
    let local_end = match rest.strip_prefix('"') {
        Some(quoted) => {
            let mut is_escaped = false;
            let end = quoted.bytes().position(|byte| {
                let ends = byte == b'"' && !is_escaped;
                is_escaped = byte == b'\\' && !is_escaped;
                ends
            })?;
            end + 2
        }
        None => 0,
    };
    let end = rest.get(local_end..)?.find(' ').map_or(rest.len(), |at| local_end + at);
    let (address, after) = rest.split_at(end);
    let (_, domain) = address.trim_end_matches(':').rsplit_once('@')?;
    Some((DomainName::parse(domain).ok()?, after))
}

/// The MX host and its address after ` H=`, and what follows. `None` without a host: the delivery was not remote.
fn mx_host(rest: &str) -> Option<(String, IpAddr, bool, &str)> {
    let (_, rest) = rest.split_once(" H=")?;
    let (name, rest) = rest.split_once(" [")?;
    let (ip, rest) = rest.split_once(']')?;
    // The port follows with `log_selector = +outgoing_port`, and the text of a failure follows a colon too. An asterisk
    // marks a connection that was used before.
    let is_digit = |c: char| c.is_ascii_digit();
    let port = rest.strip_prefix(':').filter(|port| port.starts_with(is_digit));
    let rest = port.map_or(rest, |port| port.trim_start_matches(is_digit));
    let (is_reused, rest) = rest.strip_prefix('*').map_or((false, rest), |rest| (true, rest));
    let name = DomainName::parse(name).ok()?;
    Some((name.to_string(), ip.parse().ok()?, is_reused, rest))
}

/// A delivery. Further messages on one connection belong to its first session.
fn delivered(rest: &str, hint: Option<Hint>) -> Option<Found> {
    let (mx, ip, is_reused, rest) = mx_host(rest)?;
    if is_reused {
        return None;
    }
    // Certificate name (DN) and reply (C) are texts of the other side, so nothing after them counts.
    let facts = || rest.split(' ').take_while(|word| !word.starts_with("DN=") && !word.starts_with("C="));
    let fact = |name: &str| facts().find_map(|word| word.strip_prefix(name));
    let is_plain = fact("X=").is_none();
    let (tls, reason) = match fact("CV=") {
        _ if is_plain && hint == Some(Hint::InTheClear) => (
            ObservedTls::Failed(ResultType::ValidationFailure),
            Some("the TLS handshake failed; sent without TLS"),
        ),
        _ if is_plain => (ObservedTls::None, None),
        Some("dane") => (ObservedTls::Dane, None),
        Some("yes") => (ObservedTls::Verified, None),
        Some("no") => (ObservedTls::Untrusted, None),
        _ => (ObservedTls::Unverified, None),
    };
    Some(Found { tls, mx: Some(mx), ip: Some(ip), reason: reason.map(str::to_owned) })
}

/// A recipient that was deferred or failed because of TLS; `None` for any other cause.
fn failed(rest: &str, hint: Option<Hint>) -> Option<Found> {
    if let Some((_, why)) = rest.split_once(": DANE error: ").filter(|(before, _)| !before.contains("]:")) {
        let result = match why.ends_with("not DNSSEC") {
            true => ResultType::DnssecInvalid,
            false => ResultType::TlsaInvalid,
        };
        return Some(Found { tls: ObservedTls::DaneFailed(result), mx: None, ip: None, reason: reason(why) });
    }
    let (mx, ip, _, rest) = mx_host(rest)?;
    let why = rest.strip_prefix(": ")?;
    let result = if let Some(why) = why.strip_prefix("TLS session: ") {
        handshake_result(why)
    } else if why.starts_with("a TLS session is required") {
        match why.contains("did not offer TLS") {
            true => ResultType::StarttlsNotSupported,
            false => ResultType::ValidationFailure,
        }
    } else {
        return None;
    };
    let tls = match hint {
        Some(Hint::Dane) => ObservedTls::DaneFailed(result),
        _ => ObservedTls::Failed(result),
    };
    Some(Found { tls, mx: Some(mx), ip: Some(ip), reason: reason(why) })
}

/// The result type for what GnuTLS or OpenSSL said about a handshake.
fn handshake_result(why: &str) -> ResultType {
    let why = why.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if says(&["expired"]) {
        ResultType::CertificateExpired
    } else if says(&["does not match", "hostname mismatch", "name mismatch"]) {
        ResultType::CertificateHostMismatch
    } else if says(&[
        "self-signed",
        "self signed",
        "unknown issuer",
        "signer_not_found",
        "unable to get local issuer",
    ]) {
        ResultType::CertificateNotTrusted
    } else {
        ResultType::ValidationFailure
    }
}

/// The words of the log, shortened.
fn reason(why: &str) -> Option<String> {
    let why: String = why.trim().chars().take(FAILURE_REASON_CHARS).collect();
    (!why.is_empty()).then_some(why)
}

#[cfg(test)]
mod tests;
