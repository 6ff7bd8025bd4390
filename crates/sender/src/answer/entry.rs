//! Cached answers: the text of a reply in packed form, with its status, source and lifetime.
//!
//! `lookup` makes an [`Entry`] from each decision, the cache stores it, and the protocols in
//! [`crate::serve`] write it out.

use super::decide::Source;
use super::packed::{pack, unpack};
use super::route::DaneHosts;
use formats::MxPattern;
use formats::socketmap::{self, Reply};
use formats::tls_policy::{Answer, pattern_of_match};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Seconds on the monotonic clock ([`net::clock::Clock::elapsed`]).
pub type ElapsedSeconds = u32;

/// The kind of an answer, as a client that supports TLSRPT attributes receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The answer is a TLS security level.
    Ok,
    /// No policy applies.
    NotFound,
    /// The policy is unknown for now, so delivery is deferred.
    Temporary,
}

impl Status {
    /// Every status, in the order of the variants.
    pub const ALL: [Self; 3] = [Self::Ok, Self::NotFound, Self::Temporary];

    /// The status word of a socketmap reply.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::NotFound => "NOTFOUND",
            Self::Temporary => "TEMP",
        }
    }

    /// The value of the `result` label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not-found",
            Self::Temporary => "temporary",
        }
    }

    fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Ok(_) => Self::Ok,
            Reply::NotFound => Self::NotFound,
            Reply::Temp(_) | Reply::Timeout(_) | Reply::Perm(_) => Self::Temporary,
        }
    }
}

/// A cached answer. One text serves both kinds of client: the reply without TLSRPT attributes is a prefix of the
/// reply with them, or is `NOTFOUND`.
#[derive(Debug)]
pub struct Entry {
    /// The full text, packed by [`super::packed`].
    packed: Box<[u8]>,
    /// The length of the prefix without TLSRPT attributes: in packed bytes and in bytes of text. `None` when that
    /// reply is `NOTFOUND`.
    plain: Option<(u32, u32)>,
    /// The length of the full text, in bytes.
    length: u32,
    /// The kind of the answer with TLSRPT attributes.
    pub status: Status,
    /// The protocol or rule that the answer comes from.
    pub source: Source,
    /// The MX hosts by DANE state.
    pub dane: DaneHosts,
    /// From this time on, a request starts a lookup in the background.
    pub recheck: ElapsedSeconds,
    /// The time of expiry.
    pub until: ElapsedSeconds,
    rechecking: AtomicBool,
}

impl Entry {
    /// Packs an answer. `recheck` and `until` are times, not durations.
    pub fn new(
        answer: &Answer,
        source: Source,
        dane: DaneHosts,
        recheck: ElapsedSeconds,
        until: ElapsedSeconds,
    ) -> Self {
        let reply = answer.reply(true);
        let (_, text) = reply.parts();
        let mut packed = Vec::new();
        let plain = match answer.reply(false) {
            Reply::NotFound => None,
            plain => {
                let plain = plain.parts().1;
                pack(&plain, &mut packed);
                Some((to_u32(packed.len()), to_u32(plain.len())))
            }
        };
        let plain_length = plain.map_or(0, |(_, length)| length as usize);
        pack(text.get(plain_length..).unwrap_or_default(), &mut packed);
        Self {
            packed: packed.into_boxed_slice(),
            plain,
            length: to_u32(text.len()),
            status: Status::of(&reply),
            source,
            dane,
            recheck,
            until,
            rechecking: AtomicBool::new(false),
        }
    }

    /// Appends the socketmap reply to `out`; with the TLSRPT attributes if `tlsrpt` is true.
    pub fn write_socketmap(&self, tlsrpt: bool, out: &mut Vec<u8>) {
        let (packed, length) = self.part(tlsrpt);
        socketmap::frame(out, self.reply_status(tlsrpt), length as usize, |out| unpack(packed, out));
    }

    fn part(&self, tlsrpt: bool) -> (&[u8], u32) {
        match self.plain {
            _ if tlsrpt => (&self.packed, self.length),
            Some((packed, length)) => (self.packed.get(..packed as usize).unwrap_or_default(), length),
            None => (&[], 0),
        }
    }

    /// The status word of the reply, as in a socketmap reply.
    pub fn reply_status(&self, tlsrpt: bool) -> &'static str {
        match self.plain {
            None if !tlsrpt => Status::NotFound.as_str(),
            _ => self.status.as_str(),
        }
    }

    /// The text of the reply: the level with its attributes, or the reason for a deferral.
    pub fn text(&self, tlsrpt: bool) -> String {
        let (packed, length) = self.part(tlsrpt);
        let mut text = Vec::with_capacity(length as usize);
        unpack(packed, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The TLS security level of Postfix; `None` unless the status is [`Status::Ok`].
    pub fn level(&self) -> Option<String> {
        let text = self.text(true);
        text.split(' ').next().map(str::to_owned).filter(|_| self.status == Status::Ok)
    }

    /// The names that a certificate may carry at level `secure`, as MX patterns; empty at other levels.
    pub fn patterns(&self) -> Vec<MxPattern> {
        let text = self.text(true);
        let names =
            text.strip_prefix("secure match=").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        names.split(':').filter_map(|name| pattern_of_match(name).ok()).collect()
    }

    /// The bytes of memory that the entry takes under this key, with the overhead of the map.
    pub fn weight(&self, key: &str) -> u64 {
        /// The approximate overhead of the map for each entry, in bytes.
        const MAP_OVERHEAD_BYTES: usize = 192;
        (size_of::<Self>() + self.packed.len() + key.len() + MAP_OVERHEAD_BYTES) as u64
    }

    /// Claims the recheck of this entry. Returns `None` while another caller holds the claim.
    pub fn claim_recheck(self: &Arc<Self>) -> Option<RecheckClaim> {
        let is_claimed = self.rechecking.swap(true, Ordering::Relaxed);
        (!is_claimed).then(|| RecheckClaim(self.clone()))
    }

    /// Returns a copy of the answer with another recheck and expiry time.
    pub fn with_times(&self, recheck: ElapsedSeconds, until: ElapsedSeconds) -> Self {
        Self {
            packed: self.packed.clone(),
            plain: self.plain,
            length: self.length,
            status: self.status,
            source: self.source,
            dane: self.dane,
            recheck,
            until,
            rechecking: AtomicBool::new(false),
        }
    }
}

/// The claim of the recheck of an entry, which the lookup holds. Dropping it releases the entry: a lookup may end without
/// an outcome that replaces the entry, because it became outdated or panicked.
#[derive(Debug)]
pub struct RecheckClaim(Arc<Entry>);

impl Drop for RecheckClaim {
    fn drop(&mut self) {
        self.0.rechecking.store(false, Ordering::Relaxed);
    }
}

/// Converts a length. An answer has at most [`formats::limits::SOCKETMAP_REPLY_BYTES`], far below the limit.
fn to_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;
    use formats::tls_policy::{Level, Tlsrpt, TlsrptPolicy};

    #[test]
    fn level_and_patterns_are_read_back() {
        let mx = ["mx.example.org", "*.example.net"].map(|mx| MxPattern::parse(mx).unwrap()).to_vec();
        let secure = Answer::Level(Level::Secure(mx.clone()), None);
        let entry = |answer: &Answer| Entry::new(answer, Source::MtaSts, DaneHosts::default(), 0, 0);
        assert_eq!((entry(&secure).level(), entry(&secure).patterns()), (Some("secure".into()), mx));
        let deferred = entry(&Answer::Temp("secure match=a".into()));
        assert_eq!(deferred.level(), None);
        assert!(entry(&Answer::NotFound).patterns().is_empty());
    }

    #[test]
    fn an_entry_gives_the_reply_of_its_answer_with_and_without_tlsrpt() {
        let domain = DomainName::parse("example.org").unwrap();
        let mx = vec![MxPattern::parse("*.example.org").unwrap()];
        let lines = vec!["version: STSv1".to_owned(), "mode: testing".to_owned()];
        let found = TlsrptPolicy::Sts { policy_string: lines, mx: mx.clone(), failure: None };
        let report = Tlsrpt { policy_domain: domain, found };
        let too_long = (0..9000).map(|n| MxPattern::parse(&format!("mx{n}.example.org")).unwrap()).collect();
        for answer in [
            Answer::Level(Level::Secure(too_long), Some(report.clone())),
            Answer::NotFound,
            Answer::Temp("because".into()),
            Answer::Level(Level::DaneOnly, None),
            Answer::Level(Level::Secure(mx), Some(report.clone())),
            Answer::Reported(Level::May, report),
        ] {
            let entry = Entry::new(&answer, Source::NoPolicy, DaneHosts::default(), 0, 0);
            for tlsrpt in [false, true] {
                let mut out = Vec::new();
                entry.write_socketmap(tlsrpt, &mut out);
                assert_eq!(out, answer.reply(tlsrpt).encode(), "{answer:?}");
            }
        }
    }
}
