//! The fields of a line about a recipient, in the order in which Exim writes them: the address with the addresses that it
//! comes from, sender (`F=<…>`), return path (`P=<…>`), router, transport, MX host, and facts about the session.
//!
//! Addresses are chosen by strangers. Exim writes a quoted local part with its quotes, except in the first address, where it
//! removes them; the quoted form then follows in `<…>`. A line that does not follow this order to its end is not read,
//! since its fields may come from such a local part.

use crate::domain::DomainName;
use crate::limits::FAILURE_REASON_CHARS;
use crate::posted::ObservedTls;
use crate::result_type::ResultType;
use std::net::IpAddr;

/// The words of a TLS library are not longer, in bytes.
const MOST_REASON_BYTES: usize = 1000;

/// The beginning of a line about a recipient.
pub(super) struct Recipient<'l> {
    /// The domain of the recipient.
    pub(super) domain: DomainName,
    /// The name of the transport; `None` if the message did not get so far.
    pub(super) transport: Option<&'l str>,
    /// The rest of the line, from the MX host on.
    pub(super) rest: &'l str,
}

/// The session that a line reports.
pub(super) struct Found {
    pub(super) tls: ObservedTls,
    pub(super) mx: Option<String>,
    pub(super) ip: Option<IpAddr>,
    pub(super) reason: Option<String>,
}

/// Reads the fields before the MX host.
pub(super) fn recipient(rest: &str) -> Option<Recipient<'_>> {
    let (domain, mut rest) = address(rest)?;
    if let Some(mut inside) = rest.strip_prefix(" (") {
        while let Some(next) = mailbox(inside)?.strip_prefix(", ") {
            inside = next;
        }
        rest = mailbox(inside)?.strip_prefix(')')?;
    }
    for begin in [" <", " F=<", " P=<"] {
        if let Some(inside) = rest.strip_prefix(begin) {
            rest = mailbox(inside)?.strip_prefix('>')?;
        }
    }
    let mut transport = None;
    for begin in [" Q=", " R=", " T=", " S="] {
        if let Some(inside) = rest.strip_prefix(begin) {
            let end = inside.find([' ', ':']).unwrap_or(inside.len());
            let (value, after) = inside.split_at(end);
            rest = after;
            if begin == " T=" {
                transport = Some(value);
            }
        }
    }
    Some(Recipient { domain, transport, rest })
}

/// The domain of the address at the beginning of `rest`, and what follows the address. A quoted local part may contain
/// spaces.
fn address(rest: &str) -> Option<(DomainName, &str)> {
    let local_end = match rest.strip_prefix('"') {
        Some(inside) => rest.len() - after_quote(inside)?.len(),
        None => 0,
    };
    let end = rest.get(local_end..)?.find(' ').map_or(rest.len(), |at| local_end + at);
    let (address, after) = rest.split_at(end);
    let (_, domain) =
        address.trim_end_matches(':').rsplit_once('@').filter(|(local, _)| !local.is_empty())?;
    Some((DomainName::parse(domain).ok()?, after))
}

/// What follows the mailbox at the beginning of `inside`. Its local part is quoted as a whole, or has no special characters.
fn mailbox(inside: &str) -> Option<&str> {
    let rest = match inside.strip_prefix('"') {
        Some(inside) => after_quote(inside).filter(|rest| rest.starts_with('@'))?,
        None => inside,
    };
    rest.get(rest.find([' ', '"', '(', ')', '<', '>', ',']).unwrap_or(rest.len())..)
}

/// What follows the quote that ends a quoted text.
fn after_quote(inside: &str) -> Option<&str> {
    let mut is_escaped = false;
    let at = inside.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })?;
    inside.get(at + 1..)
}

/// The MX host and its address after ` H=`, and what follows. `None` without a host: the delivery was not remote.
fn mx_host(rest: &str) -> Option<(String, IpAddr, bool, &str)> {
    let (name, rest) = rest.strip_prefix(" H=")?.split_once(' ')?;
    let name = DomainName::parse(name).ok()?;
    // With `log_selector = +dnssec`, a validated host has this mark.
    let rest = rest.strip_prefix("DS ").unwrap_or(rest);
    let (ip, rest) = rest.strip_prefix('[')?.split_once(']')?;
    // The port follows with `log_selector = +outgoing_port`, and the text of a failure follows a colon too. An asterisk
    // marks a connection that was used before.
    let is_digit = |c: char| c.is_ascii_digit();
    let port = rest.strip_prefix(':').filter(|port| port.starts_with(is_digit));
    let rest = port.map_or(rest, |port| port.trim_start_matches(is_digit));
    let (is_reused, rest) = rest.strip_prefix('*').map_or((false, rest), |rest| (true, rest));
    Some((name.to_string(), ip.parse().ok()?, is_reused, rest))
}

/// The next field, such as `X=…`, `C="…"` or `PRDR`: its name, its value and what follows.
fn field(rest: &str) -> Option<(&str, &str, &str)> {
    let rest = rest.strip_prefix(' ')?;
    let end = rest.find([' ', '=']).unwrap_or(rest.len());
    let (name, value) = rest.split_at(end);
    if !name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'*') {
        return None;
    }
    let Some(value) = value.strip_prefix('=') else { return Some((name, "", value)) };
    let (value, rest) = match value.strip_prefix('"') {
        Some(inside) => {
            let rest = after_quote(inside)?;
            (inside.strip_suffix(rest)?, rest)
        }
        None => {
            let (value, rest) = value.split_at(value.find(' ').unwrap_or(value.len()));
            (!value.contains(['"', '<'])).then_some((value, rest))?
        }
    };
    (rest.is_empty() || rest.starts_with(' ')).then_some((name, value, rest))
}

/// A delivery. Further messages on one connection belong to its first session.
pub(super) fn delivered(rest: &str) -> Option<Found> {
    let (mx, ip, is_reused, mut rest) = mx_host(rest)?;
    if is_reused {
        return None;
    }
    let (mut has_tls, mut verified, mut is_fact) = (false, None, true);
    while !rest.is_empty() {
        let (name, value, after) = field(rest)?;
        rest = after;
        match name {
            // Certificate name and reply are texts of the other side, so nothing after them counts.
            "DN" | "C" => is_fact = false,
            "X" if is_fact => has_tls = true,
            "CV" if is_fact => verified = Some(value),
            _ => {}
        }
    }
    let tls = match verified {
        _ if !has_tls => ObservedTls::None,
        Some("dane") => ObservedTls::Dane,
        Some("yes") => ObservedTls::Verified,
        Some("no") => ObservedTls::Untrusted,
        _ => ObservedTls::Unverified,
    };
    Some(Found { tls, mx: Some(mx), ip: Some(ip), reason: None })
}

/// A recipient that was deferred or failed because of TLS; `None` for any other cause.
pub(super) fn failed(rest: &str) -> Option<Found> {
    let rest = match rest.strip_prefix(" defer (") {
        Some(rest) => rest.split_once(')')?.1,
        None => rest,
    };
    // The words of a TLS library contain no address: where one follows, this text comes from a local part.
    let is_of_library = |why: &&str| !why.contains('@') && why.len() <= MOST_REASON_BYTES;
    if let Some(why) = rest.strip_prefix(": DANE error: ").filter(is_of_library) {
        let result = match why.ends_with("not DNSSEC") {
            true => ResultType::DnssecInvalid,
            false => ResultType::TlsaInvalid,
        };
        return Some(Found { tls: ObservedTls::DaneFailed(result), mx: None, ip: None, reason: reason(why) });
    }
    let (mx, ip, _, rest) = mx_host(rest)?;
    let why = rest.strip_prefix(": ").filter(is_of_library)?;
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
    let tls = ObservedTls::Failed(result);
    Some(Found { tls, mx: Some(mx), ip: Some(ip), reason: reason(why) })
}

/// The result type for a handshake error of GnuTLS or OpenSSL.
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
