//! An answer made ready: the bytes that go out, and how long they are good for.

use super::decide::Source;
use super::route::DaneHosts;
use formats::MxPattern;
use formats::socketmap::{self, Reply};
use formats::tls_policy::Answer;
use std::sync::atomic::{AtomicBool, Ordering};

/// Seconds of the clock that never steps ([`net::clock::Clock::elapsed`]).
pub type Second = u32;

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
    text: Box<[u8]>,
    plain: Plain,
    /// What kind it is.
    pub status: Status,
    /// What decided it.
    pub source: Source,
    /// The hosts as DANE saw them.
    pub dane: DaneHosts,
    /// From here on it is looked up again in the background.
    pub recheck: Second,
    /// From here on it is not used any more.
    pub until: Second,
    rechecking: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum Plain {
    Nothing,
    Prefix(u32),
}

impl Entry {
    /// Makes an answer ready.
    pub fn new(answer: &Answer, source: Source, dane: DaneHosts, recheck: Second, until: Second) -> Self {
        let (_, text) = answer.reply(true).parts();
        let plain = match answer.reply(false) {
            Reply::NotFound => Plain::Nothing,
            plain => Plain::Prefix(u32::try_from(plain.parts().1.len()).unwrap_or(u32::MAX)),
        };
        let text = text.into_bytes().into_boxed_slice();
        Self {
            text,
            status: Status::of(answer),
            plain,
            source,
            dane,
            recheck,
            until,
            rechecking: AtomicBool::new(false),
        }
    }

    /// Appends the reply to a socketmap request.
    pub fn write_socketmap(&self, tlsrpt: bool, out: &mut Vec<u8>) {
        let (status, text) = self.parts(tlsrpt);
        socketmap::frame(out, status, text);
    }

    /// Status and text of the reply.
    pub fn parts(&self, tlsrpt: bool) -> (&'static str, &[u8]) {
        match self.plain {
            _ if tlsrpt => (self.status.word(), &self.text),
            Plain::Nothing => (Status::NotFound.word(), &[]),
            Plain::Prefix(length) => {
                (self.status.word(), self.text.get(..length as usize).unwrap_or(&self.text))
            }
        }
    }

    /// The reply as text: the level with its attributes, or the reason.
    pub fn text(&self, tlsrpt: bool) -> String {
        String::from_utf8_lossy(self.parts(tlsrpt).1).into_owned()
    }

    /// The level of Postfix that it asks for, when it is one.
    pub fn level(&self) -> Option<&str> {
        let word = self.text.split(|byte| *byte == b' ').next()?;
        std::str::from_utf8(word).ok().filter(|_| self.status == Status::Ok)
    }

    /// The names that a verified certificate may be for, as MX patterns.
    pub fn patterns(&self) -> Vec<MxPattern> {
        let text = std::str::from_utf8(&self.text).unwrap_or_default();
        let names =
            text.strip_prefix("secure match=").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        let pattern = |name: &str| match name.strip_prefix('.') {
            Some(parent) => MxPattern::parse(&format!("*.{parent}")).ok(),
            None => MxPattern::parse(name).ok(),
        };
        names.split(':').filter_map(pattern).collect()
    }

    /// Bytes that it takes in memory under this key, with what the map needs.
    pub fn weight(&self, key: &str) -> u64 {
        const MAP: usize = 96;
        (size_of::<Self>() + self.text.len() + key.len() + MAP) as u64
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
    pub fn again(&self, recheck: Second, until: Second) -> Self {
        Self {
            text: self.text.clone(),
            plain: self.plain,
            status: self.status,
            source: self.source,
            dane: self.dane,
            recheck,
            until,
            rechecking: AtomicBool::new(false),
        }
    }
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
        assert_eq!((entry(&secure).level(), entry(&secure).patterns()), (Some("secure"), mx));
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
            let entry = Entry::new(&answer, Source::Nothing, DaneHosts::default(), 0, 0);
            for tlsrpt in [false, true] {
                let mut out = Vec::new();
                entry.write_socketmap(tlsrpt, &mut out);
                assert_eq!(out, answer.reply(tlsrpt).encode(), "{answer:?}");
            }
        }
    }
}
