//! The attacks that a proxy can carry out: on which names, when, and what happens to the response.

use super::{RecordType, ResponseCode};
use crate::dns::Rr;
use crate::random::hash;
use std::time::Duration;

/// The names that an attack is aimed at. They are in lower case, with the final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every name.
    Any,
    /// This name only.
    Name(String),
    /// This name and all names below it.
    Below(String),
}

/// How often an attack takes place among the queries or connections that it is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Each time.
    Always,
    /// This number of times, then never again.
    Times(u32),
    /// With this probability in percent. It depends only on the seed, the name, the type and how often they came up, so
    /// that a seed repeats its choices although queries are concurrent.
    Chance {
        /// The probability, in percent.
        percent: u8,
        /// The seed of the choices.
        seed: u64,
    },
}

/// An attack on DNS responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsAttack {
    /// The names whose queries are attacked.
    pub on: Target,
    /// The record type whose queries are attacked; `None` for all.
    pub kind: Option<RecordType>,
    /// How often the attack takes place.
    pub when: When,
    /// What the attacker does with the response.
    pub how: DnsChange,
}

/// What the attacker does with a DNS response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsChange {
    /// The client gets no response.
    Drop,
    /// The client gets the response later.
    Delay(Duration),
    /// The response code is replaced; all records stay.
    Code(ResponseCode),
    /// A negative response replaces the genuine one.
    Negative {
        /// `NXDomain`, or `NoError` for "no such record".
        code: ResponseCode,
        /// The records in the authority section.
        authority: Authority,
        /// The TTL of these records, in seconds.
        ttl: u32,
    },
    /// The answer section holds these records instead.
    Forge {
        /// The records; their owner is the name of the question.
        records: Vec<Rr>,
        /// The TTL of the records, in seconds.
        ttl: u32,
        /// Whether the genuine signatures stay beside the forged records.
        keeps_signatures: bool,
    },
    /// DNSSEC records are removed from all sections.
    Strip {
        /// Remove RRSIG records.
        signatures: bool,
        /// Remove NSEC and NSEC3 records.
        proofs: bool,
        /// Remove DS and DNSKEY records.
        keys: bool,
    },
    /// All records get this TTL, in seconds.
    Ttl(u32),
    /// The AD bit is set or cleared.
    AuthenticData(bool),
    /// An unsigned NSEC3 record of this zone with the opt-out flag is added to the authority section. A genuine one beside
    /// records from a wildcard makes them insecure (RFC 5155 §9.2).
    OptOut(String),
    /// The oldest genuine response to the same question that the proxy has seen, possibly of a former state of the zone.
    Replay,
    /// A genuine and possibly signed response to another question.
    Borrow {
        /// The name of the other question, with the final dot.
        name: String,
        /// The type of the other question.
        kind: RecordType,
        /// What is taken from it.
        proof: Proof,
    },
}

/// What a negative response has in its authority section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// What the genuine response has there.
    Genuine,
    /// No records.
    Empty,
    /// An unsigned SOA record of this zone.
    Soa(String),
    /// An unsigned NS record of this zone, as in a referral.
    Ns(String),
}

/// What [`DnsChange::Borrow`] takes from the other response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// All sections and the response code.
    Whole,
    /// The authority section and the DNSSEC records of the answer section, as the proof of a negative response with this
    /// code.
    Absence(ResponseCode),
    /// The authority section, beside the genuine answer section.
    Authority,
    /// The answer section with the name of this question as owner, which a signature of a wildcard allows (RFC 4035
    /// §5.3.4). The proof that the name does not exist itself is replaced by an unsigned SOA record of this zone.
    Wildcard(String),
}

/// An attack on connections to policy hosts. The target is the host of the SNI, with a final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsAttack {
    /// The policy hosts whose connections are attacked.
    pub on: Target,
    /// How often the attack takes place.
    pub when: When,
    /// What the attacker does with the connection.
    pub how: HttpsChange,
}

/// What the attacker does with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpsChange {
    /// The connection is reset after the ClientHello.
    Reset,
    /// The connection is closed after the ClientHello.
    Close,
    /// The connection is closed after this number of bytes from the policy host.
    Cut(usize),
    /// The ClientHello reaches the policy host later.
    Delay(Duration),
    /// One bit of the byte at this place of the policy host's data is flipped.
    Flip(usize),
    /// The attacker answers with this policy file and a certificate for the right name from an unknown CA.
    UntrustedCertificate(String),
    /// The attacker answers with this policy file and a certificate from the trusted CA for a name of its own.
    CertificateOfOther(String),
}

/// What both kinds of attack have in common.
pub trait Rule {
    /// The names or hosts that are attacked.
    fn target(&self) -> &Target;
    /// How often the attack takes place.
    fn when(&self) -> When;
    /// True if the attack is aimed at this record type; connections have none.
    fn is_for(&self, kind: Option<RecordType>) -> bool;
}

impl Rule for DnsAttack {
    fn target(&self) -> &Target {
        &self.on
    }

    fn when(&self) -> When {
        self.when
    }

    fn is_for(&self, kind: Option<RecordType>) -> bool {
        self.kind.is_none() || self.kind == kind
    }
}

impl Rule for HttpsAttack {
    fn target(&self) -> &Target {
        &self.on
    }

    fn when(&self) -> When {
        self.when
    }

    fn is_for(&self, _: Option<RecordType>) -> bool {
        true
    }
}

impl Target {
    /// True if the attack is aimed at this name in lower case, with the final dot.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(target) => name == target,
            Self::Below(target) => {
                target == "."
                    || name == target
                    || name.strip_suffix(target.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
        }
    }
}

/// The attacks that are in force, with how often each name came up.
pub(super) struct Attacks<R> {
    rules: Vec<(R, u32)>,
    counts: std::collections::HashMap<(String, Option<RecordType>), u64>,
}

impl<R: Rule + Clone> Attacks<R> {
    pub(super) fn new(rules: Vec<R>) -> Self {
        Self { rules: rules.into_iter().map(|rule| (rule, 0)).collect(), counts: Default::default() }
    }

    /// The first attack that takes place on this name and type.
    pub(super) fn next(&mut self, name: &str, kind: Option<RecordType>) -> Option<R> {
        if self.rules.is_empty() {
            return None;
        }
        let count = self.counts.entry((name.to_owned(), kind)).or_default();
        *count += 1;
        let count = *count;
        for (index, (rule, done)) in self.rules.iter_mut().enumerate() {
            if !rule.target().covers(name) || !rule.is_for(kind) {
                continue;
            }
            let takes_place = match rule.when() {
                When::Always => true,
                When::Times(times) => *done < times,
                When::Chance { percent, seed } => {
                    let of_rule = seed.wrapping_add(index as u64);
                    let text = format!("{name} {}", kind.map_or(0, u16::from));
                    hash(of_rule, &text, count) % 100 < u64::from(percent)
                }
            };
            if takes_place {
                *done += 1;
                return Some(rule.clone());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop_of(on: Target, kind: Option<RecordType>, when: When) -> DnsAttack {
        DnsAttack { on, kind, when, how: DnsChange::Drop }
    }

    #[test]
    fn targets_cover_whole_labels() {
        for (target, name, expected) in [
            (Target::Any, "a.test.", true),
            (Target::Name("a.test.".into()), "a.test.", true),
            (Target::Name("a.test.".into()), "b.a.test.", false),
            (Target::Below("a.test.".into()), "b.a.test.", true),
            (Target::Below("a.test.".into()), "a.test.", true),
            (Target::Below("a.test.".into()), "ba.test.", false),
            (Target::Below(".".into()), "test.", true),
        ] {
            assert_eq!(target.covers(name), expected, "{target:?} {name}");
        }
    }

    #[test]
    fn an_attack_ends_after_its_number_of_times() {
        let target = Target::Name("a.test.".into());
        let mut attacks = Attacks::new(vec![drop_of(target, Some(RecordType::MX), When::Times(2))]);
        let mut next = |name, kind| attacks.next(name, Some(kind)).is_some();
        assert!(!next("a.test.", RecordType::TXT) && !next("b.test.", RecordType::MX));
        let mx = [(); 3].map(|()| next("a.test.", RecordType::MX));
        assert_eq!(mx, [true, true, false]);
    }

    #[test]
    fn chance_depends_on_the_name_and_not_on_the_order() {
        let when = When::Chance { percent: 50, seed: 3 };
        let names = ["a.test.", "b.test.", "c.test.", "d.test."];
        let taken = |order: &[usize]| {
            let mut attacks = Attacks::new(vec![drop_of(Target::Any, None, when)]);
            let mut taken: Vec<(usize, bool)> = order
                .iter()
                .map(|at| (*at, attacks.next(names[*at], Some(RecordType::A)).is_some()))
                .collect();
            taken.sort_unstable();
            taken
        };
        assert_eq!(taken(&[0, 1, 2, 3]), taken(&[3, 1, 0, 2]));
    }
}
