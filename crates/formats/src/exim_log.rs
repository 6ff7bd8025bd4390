//! Exim's main log, read for TLS reports (Exim specification, chapter "Log files"). Exim does not export its sessions, but
//! with `log_selector = +tls_cipher +tls_certificate_verified` its log says how TLS went in each delivery.
//!
//! [`EximLog::read`] takes one line after the other and returns the sessions among them as [`Posted`]. The log does not
//! say under which policy a message was sent, so the sessions are [`Observed`]; the collector completes them.
//!
//! A line of the log holds texts of strangers: recipient and sender addresses, replies of mail servers, names in
//! certificates. `line` therefore takes the fields in the order in which Exim writes them. Lines of concurrent deliveries
//! are interleaved, so `messages` remembers the last sessions of each message.

mod line;
mod messages;

use crate::limits::EXIM_LINE_BYTES;
use crate::posted::{Observed, ObservedTls, Posted, PostedSession};
use crate::result_type::ResultType;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use line::Found;
use messages::{Hint, Messages, Session};

/// Reads the lines of a log in their order.
#[derive(Debug, Clone)]
pub struct EximLog {
    /// The time zone of times without an offset.
    zone: TimeZone,
    /// The transports whose deliveries are sessions.
    transports: Transports,
    /// What earlier lines of the log reported about messages.
    messages: Messages,
}

/// The transports of Exim whose deliveries are sessions with MX hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transports {
    /// The only transports that are taken. If empty, all are taken, except those whose names begin with `local` or
    /// contain `lmtp` or `smarthost`.
    pub taken: Vec<String>,
    /// Transports that are not taken.
    pub skipped: Vec<String>,
}

impl Transports {
    /// True if deliveries of a transport are sessions with MX hosts.
    fn takes(&self, transport: Option<&str>) -> bool {
        let Some(name) = transport else { return self.taken.is_empty() };
        let is_in = |names: &[String]| names.iter().any(|one| one == name);
        if is_in(&self.skipped) {
            return false;
        }
        let lower = name.to_ascii_lowercase();
        let is_internal = lower.starts_with("local") || lower.contains("lmtp") || lower.contains("smarthost");
        is_in(&self.taken) || self.taken.is_empty() && !is_internal
    }
}

impl Default for EximLog {
    /// A reader for times in UTC.
    fn default() -> Self {
        Self::new(TimeZone::UTC)
    }
}

impl EximLog {
    /// A reader; `zone` is the time zone of times that are logged without an offset.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, transports: Transports::default(), messages: Messages::default() }
    }

    /// Reads the deliveries of these transports only.
    pub fn with_transports(self, transports: Transports) -> Self {
        Self { transports, ..self }
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
        let recipient = line::recipient(rest)?;
        if !self.transports.takes(recipient.transport) {
            return None;
        }
        let found = match flag {
            "==" | "**" => line::failed(recipient.rest),
            _ => line::delivered(recipient.rest),
        };
        let Found { tls, mx, ip, reason } = found?;
        let domain = recipient.domain;
        if !self.messages.is_new(message, Session { domain: domain.clone(), ip, at }) {
            return None;
        }
        let (tls, reason) = match (self.messages.take_hint(message, ip), tls) {
            (Some(Hint::InTheClear), ObservedTls::None) => (
                ObservedTls::Failed(ResultType::ValidationFailure),
                Some("the TLS handshake failed; sent without TLS".to_owned()),
            ),
            (Some(Hint::Dane), ObservedTls::Failed(result)) => (ObservedTls::DaneFailed(result), reason),
            (_, tls) => (tls, reason),
        };
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
        if rest == "Completed" || rest.starts_with("Completed ") {
            return self.messages.forget(message);
        }
        let hint = if rest.starts_with("DANE attempt failed") {
            Hint::Dane
        } else if rest.starts_with("TLS session") && rest.contains("delivering unencrypted to ") {
            Hint::InTheClear
        } else {
            return;
        };
        let ip = rest.split_once(" [").and_then(|(_, rest)| rest.split_once(']')?.0.parse().ok());
        self.messages.note(message, ip, hint);
    }
}

/// The marks of lines about recipients: delivered, further recipient, cutthrough delivery, deferred, failed.
const FLAGS: [&str; 5] = ["=>", "->", ">>", "==", "**"];

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

#[cfg(test)]
mod tests;
