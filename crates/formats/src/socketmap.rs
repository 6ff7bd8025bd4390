//! The socketmap protocol, which Postfix uses to query a table (socketmap_table(5)). Requests are netstrings of `MAP
//! SP KEY`, replies are netstrings of `STATUS SP data`. The sending side serves it; `tls_policy` interprets the keys.

use crate::limits::{REASON_BYTES, SOCKETMAP_REQUEST_BYTES};

/// A request, borrowed from the connection's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The name of the map that is queried.
    pub map: &'a str,
    /// The key to look up, which may be empty or contain spaces.
    pub key: &'a str,
}

/// A protocol error. The connection must be closed, since the start of the next request is unknown (SMK-03).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocketmapError {
    /// The length is not a decimal number, has a leading zero, or is not followed by a colon.
    #[error("a netstring must begin with its length in decimal and a colon")]
    Length,
    /// The request is longer than [`SOCKETMAP_REQUEST_BYTES`].
    #[error("the request has {0} bytes; at most {SOCKETMAP_REQUEST_BYTES} are accepted")]
    TooLong(usize),
    /// The data is not followed by a comma.
    #[error("the netstring does not end in a comma")]
    Comma,
    /// The request is not `MAP SP KEY` in UTF-8.
    #[error("the request is not a map name, a space and a key in UTF-8")]
    Shape,
}

/// Parses the next request in `buffer`, and returns it with its length in bytes. `None` if the request is incomplete.
pub fn request(buffer: &[u8]) -> Result<Option<(Request<'_>, usize)>, SocketmapError> {
    let Some((data, taken)) = netstring(buffer)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(data).map_err(|_| SocketmapError::Shape)?;
    let (map, key) = text.split_once(' ').ok_or(SocketmapError::Shape)?;
    Ok(Some((Request { map, key }, taken)))
}

fn netstring(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, SocketmapError> {
    const MAX_DIGITS: usize = 6;
    let digits = buffer.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > MAX_DIGITS {
        return Err(SocketmapError::TooLong(usize::MAX));
    }
    match buffer.get(digits) {
        None => return Ok(None),
        Some(b':') if digits > 0 => {}
        Some(_) => return Err(SocketmapError::Length),
    }
    let head = buffer.get(..digits).unwrap_or_default();
    if head.first() == Some(&b'0') && digits > 1 {
        return Err(SocketmapError::Length);
    }
    let length = head.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    if length > SOCKETMAP_REQUEST_BYTES {
        return Err(SocketmapError::TooLong(length));
    }
    let begin = digits + 1;
    match (buffer.get(begin..begin + length), buffer.get(begin + length)) {
        (Some(data), Some(b',')) => Ok(Some((data, begin + length + 1))),
        (Some(_), Some(_)) => Err(SocketmapError::Comma),
        _ => Ok(None),
    }
}

/// A reply to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The key was found; this is its value.
    Ok(String),
    /// The key is not in the table.
    NotFound,
    /// The lookup failed temporarily. Postfix logs the reason.
    Temp(String),
    /// The lookup timed out. Postfix logs the reason.
    Timeout(String),
    /// The lookup failed permanently. Postfix logs the reason.
    Perm(String),
}

impl Reply {
    /// Encodes the reply as a netstring. Control characters become spaces, and long reasons are truncated (SMK-10).
    pub fn encode(&self) -> Vec<u8> {
        let (status, text) = self.parts();
        let mut out = Vec::with_capacity(text.len() + 20);
        frame(&mut out, status, text.len(), |out| out.extend_from_slice(text.as_bytes()));
        out
    }

    /// Returns status and text as [`Self::encode`] sends them.
    pub fn parts(&self) -> (&'static str, String) {
        match self {
            Self::Ok(data) => ("OK", strip_controls(data, usize::MAX)),
            Self::NotFound => ("NOTFOUND", String::new()),
            Self::Temp(reason) => ("TEMP", strip_controls(reason, REASON_BYTES)),
            Self::Timeout(reason) => ("TIMEOUT", strip_controls(reason, REASON_BYTES)),
            Self::Perm(reason) => ("PERM", strip_controls(reason, REASON_BYTES)),
        }
    }

    /// Parses the next reply in `buffer`, and returns it with its length in bytes. For clients and tests.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Self, usize)>, SocketmapError> {
        let Some((data, taken)) = netstring(buffer)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(data).map_err(|_| SocketmapError::Shape)?;
        let (status, rest) = text.split_once(' ').ok_or(SocketmapError::Shape)?;
        let rest = rest.to_owned();
        let reply = match status {
            "OK" => Self::Ok(rest),
            "NOTFOUND" => Self::NotFound,
            "TEMP" => Self::Temp(rest),
            "TIMEOUT" => Self::Timeout(rest),
            "PERM" => Self::Perm(rest),
            _ => return Err(SocketmapError::Shape),
        };
        Ok(Some((reply, taken)))
    }
}

/// Appends a reply to `out` as a netstring. `write` appends its text, which must be `length` bytes long and without
/// control characters.
pub fn frame(out: &mut Vec<u8>, status: &str, length: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let mut digits = [0; 20];
    let (mut rest, mut used) = (status.len() + 1 + length, 0);
    for digit in digits.iter_mut().rev() {
        // One decimal digit always fits.
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        (rest, used) = (rest / 10, used + 1);
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
    out.push(b':');
    out.extend_from_slice(status.as_bytes());
    out.push(b' ');
    write(out);
    out.push(b',');
}

/// Encodes a request as a netstring, for clients and tests.
pub fn encode_request(map: &str, key: &str) -> Vec<u8> {
    format!("{}:{map} {key},", map.len() + 1 + key.len()).into_bytes()
}

fn strip_controls(text: &str, most: usize) -> String {
    let mut kept = String::with_capacity(text.len().min(most));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if kept.len() + c.len_utf8() > most {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn smk_01_a_request_is_a_netstring_of_map_and_key() {
        let (asked, taken) = request(b"17:QUERY example.org,rest").unwrap().unwrap();
        assert_eq!((asked.map, asked.key, taken), ("QUERY", "example.org", 21));
        assert_eq!(request(b"6:QUERY ,").unwrap().unwrap().0.key, "");
        assert_eq!(request(b"0:,"), Err(SocketmapError::Shape));
        assert_eq!(request(b"5:QUERY,"), Err(SocketmapError::Shape));
        for part in [&b""[..], b"1", b"17", b"17:", b"17:QUERY example.org"] {
            assert_eq!(request(part), Ok(None));
        }
    }

    #[test]
    fn smk_02_replies_have_their_status_word_and_a_space() {
        let text = |reply: Reply| String::from_utf8(reply.encode()).unwrap();
        assert_eq!(text(Reply::Ok("secure".into())), "9:OK secure,");
        assert_eq!(text(Reply::NotFound), "9:NOTFOUND ,");
        assert_eq!(text(Reply::Temp("why".into())), "8:TEMP why,");
        assert_eq!(text(Reply::Timeout("why".into())), "11:TIMEOUT why,");
        assert_eq!(text(Reply::Perm("why\r\n".into())), "10:PERM why  ,");
        assert_eq!(Reply::Temp("x".repeat(5000)).encode().len(), REASON_BYTES + 5 + 5);
    }

    #[test]
    fn smk_03_bad_framing_is_an_error_that_closes_the_connection() {
        for bad in [&b"x:"[..], b":", b"-1:", b"01:a,", b"1;a,", b" 1:a,", b"\xff"] {
            assert_eq!(request(bad), Err(SocketmapError::Length), "{bad:?}");
        }
        assert_eq!(request(b"100001:"), Err(SocketmapError::TooLong(100_001)));
        assert!(matches!(request(b"99999999999999999999999"), Err(SocketmapError::TooLong(_))));
        assert_eq!(request(b"100000:"), Ok(None));
        assert_eq!(request(b"3:a b;"), Err(SocketmapError::Comma));
        assert_eq!(request(b"3:a \xff,"), Err(SocketmapError::Shape));
    }

    #[test]
    fn smk_04_requests_that_follow_each_other_are_taken_one_by_one() {
        let mut buffer =
            [encode_request("a", "1"), encode_request("b", "2"), encode_request("c", "3")].concat();
        let mut seen = Vec::new();
        while let Some((asked, taken)) = request(&buffer).unwrap() {
            seen.push(format!("{}{}", asked.map, asked.key));
            buffer.drain(..taken);
        }
        assert_eq!((seen.join(" "), buffer.len()), ("a1 b2 c3".into(), 0));
    }

    proptest! {
        #[test]
        fn encoded_requests_and_replies_are_parsed_unchanged(map in "[a-zA-Z]{1,10}", key in "[ -~]{0,100}", data in "[ -~]{0,200}") {
            let sent = encode_request(&map, &key);
            prop_assert_eq!(request(&sent), Ok(Some((Request { map: &map, key: &key }, sent.len()))));
            let reply = Reply::Ok(data).encode();
            let (back, taken) = Reply::decode(&reply).unwrap().unwrap();
            prop_assert_eq!((back.encode(), taken), (reply.clone(), reply.len()));
        }

        #[test]
        fn any_bytes_are_accepted_rejected_or_incomplete(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((_, taken))) = request(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
            let _ = Reply::decode(&bytes);
        }
    }
}
