//! An answer made ready: the bytes that go out, and how long they are good for.

use super::decide::Source;
use super::packed::{pack, unpack};
use super::route::DaneHosts;
use formats::MxPattern;
use formats::socketmap::{self, Reply};
use formats::tls_policy::{Answer, pattern_of_match};
use std::sync::atomic::{AtomicBool, Ordering};

/// Seconds of the clock that never steps ([`net::clock::Clock::elapsed`]).
pub type ElapsedSeconds = u32;

/// What kind of answer it is to those who can report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// A level.
    Ok,
    /// None.
    NotFound,
    /// Delivery has to wait.
    Temporary,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ok, Self::NotFound, Self::Temporary];

    /// The word in a socketmap reply.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::NotFound => "NOTFOUND",
            Self::Temporary => "TEMP",
        }
    }

    /// The word in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not-found",
            Self::Temporary => "temporary",
        }
    }

    fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Level(..) | Answer::Reported(..) => Self::Ok,
            Answer::NotFound => Self::NotFound,
            Answer::Temp(_) => Self::Temporary,
        }
    }
}

/// A ready-made answer. One text serves both kinds of asker: what is said to those who can't report
/// is the beginning of what is said to those who can, or nothing.
#[derive(Debug)]
pub struct Entry {
    /// The text in the form of [`super::packed`].
    packed: Box<[u8]>,
    /// How much of it, and of the text, those hear who can't report; none when they hear nothing.
    plain: Option<(u32, u32)>,
    length: u32,
    /// What kind it is.
    pub status: Status,
    /// What decided it.
    pub source: Source,
    /// The hosts as DANE saw them.
    pub dane: DaneHosts,
    /// From here on it is looked up again in the background.
    pub recheck: ElapsedSeconds,
    /// From here on it is not used any more.
    pub until: ElapsedSeconds,
    rechecking: AtomicBool,
}

impl Entry {
    /// Makes an answer ready.
    pub fn new(
        answer: &Answer,
        source: Source,
        dane: DaneHosts,
        recheck: ElapsedSeconds,
        until: ElapsedSeconds,
    ) -> Self {
        let (_, text) = answer.reply(true).parts();
        let mut packed = Vec::new();
        let plain = match answer.reply(false) {
            Reply::NotFound => None,
            plain => {
                let plain = plain.parts().1;
                pack(&plain, &mut packed);
                Some((short(packed.len()), short(plain.len())))
            }
        };
        let said = plain.map_or(0, |(_, length)| length as usize);
        pack(text.get(said..).unwrap_or_default(), &mut packed);
        Self {
            packed: packed.into_boxed_slice(),
            plain,
            length: short(text.len()),
            status: Status::of(answer),
            source,
            dane,
            recheck,
            until,
            rechecking: AtomicBool::new(false),
        }
    }

    /// Appends the reply to a socketmap request.
    pub fn write_socketmap(&self, tlsrpt: bool, out: &mut Vec<u8>) {
        let (packed, length) = self.part(tlsrpt);
        socketmap::frame(out, self.word(tlsrpt), length as usize, |out| unpack(packed, out));
    }

    fn part(&self, tlsrpt: bool) -> (&[u8], u32) {
        match self.plain {
            _ if tlsrpt => (&self.packed, self.length),
            Some((packed, length)) => (self.packed.get(..packed as usize).unwrap_or_default(), length),
            None => (&[], 0),
        }
    }

    /// The status as it stands in the reply.
    pub fn word(&self, tlsrpt: bool) -> &'static str {
        match self.plain {
            None if !tlsrpt => Status::NotFound.word(),
            _ => self.status.word(),
        }
    }

    /// The reply as text: the level with its attributes, or the reason.
    pub fn text(&self, tlsrpt: bool) -> String {
        let (packed, length) = self.part(tlsrpt);
        let mut text = Vec::with_capacity(length as usize);
        unpack(packed, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The level of Postfix that it asks for, when it is one.
    pub fn level(&self) -> Option<String> {
        let text = self.text(true);
        text.split(' ').next().map(str::to_owned).filter(|_| self.status == Status::Ok)
    }

    /// The names that a verified certificate may be for, as MX patterns.
    pub fn patterns(&self) -> Vec<MxPattern> {
        let text = self.text(true);
        let names =
            text.strip_prefix("secure match=").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        names.split(':').filter_map(|name| pattern_of_match(name).ok()).collect()
    }

    /// Bytes that it takes in memory under this key, with what the map needs.
    pub fn weight(&self, key: &str) -> u64 {
        const MAP: usize = 192;
        (size_of::<Self>() + self.packed.len() + key.len() + MAP) as u64
    }

    /// True for one caller: who gets it looks the answer up again.
    pub fn claim_recheck(&self) -> bool {
        !self.rechecking.swap(true, Ordering::Relaxed)
    }

    /// Gives a claim back, when the look-up can't be made now.
    pub fn release_recheck(&self) {
        self.rechecking.store(false, Ordering::Relaxed);
    }

    /// The same answer with other times.
    pub fn again(&self, recheck: ElapsedSeconds, until: ElapsedSeconds) -> Self {
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

/// Policies have at most 64 KiB, so no answer comes near.
fn short(length: usize) -> u32 {
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
        let waits = entry(&Answer::Temp("secure match=a".into()));
        assert_eq!(waits.level(), None);
        assert!(entry(&Answer::NotFound).patterns().is_empty());
    }

    #[test]
    fn an_entry_says_what_the_answer_says_to_both_kinds_of_asker() {
        let domain = DomainName::parse("example.org").unwrap();
        let mx = vec![MxPattern::parse("*.example.org").unwrap()];
        let lines = vec!["version: STSv1".to_owned(), "mode: testing".to_owned()];
        let found = TlsrptPolicy::Sts { policy_string: lines, mx: mx.clone(), failure: None };
        let report = Tlsrpt { policy_domain: domain, found };
        for answer in [
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
