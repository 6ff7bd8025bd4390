//! Attacks from a seed. [`Planner`] knows the names that matter and draws from every kind of attack, most of them aimed
//! at one name and type, since an attack on everything only defers all mail.

use super::attack::{Authority, DnsAttack, DnsChange, HttpsAttack, HttpsChange, Proof, Target, When};
use super::{RecordType, ResponseCode};
use crate::dns::Rr;
use crate::random::Random;
use formats::tlsa::TlsaRecord;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The names and zones that the attacker knows, in lower case with the final dot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Names that the client asks about.
    pub names: Vec<String>,
    /// Zones, signed and unsigned, whose SOA and NS records the attacker may put into responses.
    pub zones: Vec<String>,
    /// The host name of the attacker's mail server.
    pub mail_server: String,
}

/// Chooses attacks at random; a seed repeats its choices.
#[derive(Debug, Clone)]
pub struct Planner {
    random: Random,
    surroundings: Surroundings,
}

/// The types that are asked about policies and DANE, and for proofs.
const KINDS: [RecordType; 10] = [
    RecordType::TXT,
    RecordType::MX,
    RecordType::A,
    RecordType::AAAA,
    RecordType::TLSA,
    RecordType::DS,
    RecordType::DNSKEY,
    RecordType::SOA,
    RecordType::NS,
    RecordType::CNAME,
];
const CODES: [ResponseCode; 6] = [
    ResponseCode::NoError,
    ResponseCode::NXDomain,
    ResponseCode::ServFail,
    ResponseCode::Refused,
    ResponseCode::FormErr,
    ResponseCode::NotImp,
];
/// TTLs in seconds, from none to a week.
const TTLS: [u32; 7] = [0, 1, 60, 300, 3600, 86_400, 604_800];

impl Planner {
    /// A planner with this seed.
    pub fn new(seed: u64, surroundings: Surroundings) -> Self {
        Self { random: Random::new(seed), surroundings }
    }

    /// The generator, for the other choices of a test.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// One to four attacks on DNS.
    pub fn dns(&mut self) -> Vec<DnsAttack> {
        let number = 1 + self.random.below(4);
        (0..number).map(|_| self.dns_attack()).collect()
    }

    fn dns_attack(&mut self) -> DnsAttack {
        let name = self.name();
        let on = match self.random.below(10) {
            0 => Target::Any,
            1 | 2 => Target::Below(self.zone()),
            3 => Target::Below(name),
            _ => Target::Name(name),
        };
        let kind = self.kind_for(&on);
        let when = match self.random.below(6) {
            0 => When::Times(1),
            1 => When::Times(2),
            2 => When::Chance { percent: 50, seed: self.random.value() },
            _ => When::Always,
        };
        DnsAttack { on, kind, when, how: self.dns_change(kind) }
    }

    /// Mostly the type that the name is asked for.
    fn kind_for(&mut self, on: &Target) -> Option<RecordType> {
        let name = match on {
            Target::Name(name) | Target::Below(name) => name.as_str(),
            Target::Any => "",
        };
        let usual = match name {
            name if name.starts_with("_mta-sts.") => RecordType::TXT,
            name if name.contains("._tcp.") => RecordType::TLSA,
            name if name.starts_with("mx") || name.starts_with("mta-sts.") => RecordType::A,
            _ => RecordType::MX,
        };
        match self.random.below(10) {
            0..=3 => Some(usual),
            4..=6 => None,
            _ => self.random.pick(&KINDS).copied(),
        }
    }

    fn dns_change(&mut self, kind: Option<RecordType>) -> DnsChange {
        let ttl = self.ttl();
        match self.random.below(26) {
            // A dropped response costs the test a time-out.
            0 => DnsChange::Drop,
            1 => DnsChange::Delay(Duration::from_millis(self.random.below(10) as u64)),
            2 | 3 => DnsChange::Code(self.code()),
            4..=9 => DnsChange::Negative { code: self.absence(), authority: self.authority(), ttl },
            10..=13 => {
                DnsChange::Forge { records: self.forged(kind), ttl, keeps_signatures: self.random.chance(30) }
            }
            14 | 15 => DnsChange::Strip {
                signatures: self.random.chance(60),
                proofs: self.random.chance(50),
                keys: self.random.chance(50),
            },
            16 => DnsChange::Ttl(ttl),
            17 => DnsChange::AuthenticData(self.random.chance(70)),
            18 | 19 => DnsChange::Replay,
            20 | 21 => DnsChange::OptOut(self.zone()),
            _ => self.borrow(kind),
        }
    }

    fn borrow(&mut self, asked: Option<RecordType>) -> DnsChange {
        let proof = self.proof();
        let name = if self.random.chance(60) { self.name() } else { self.zone() };
        let any = self.random.pick(&KINDS).copied().unwrap_or(RecordType::DS);
        // Records of a wildcard have to be of the type that is asked for.
        let kind = match (&proof, asked) {
            (Proof::Wildcard(_), Some(asked)) => asked,
            _ => any,
        };
        DnsChange::Borrow { name, kind, proof }
    }

    fn proof(&mut self) -> Proof {
        match self.random.below(8) {
            0 | 1 => Proof::Whole,
            2 => Proof::Authority,
            3 | 4 => Proof::Wildcard(self.zone()),
            _ => Proof::Absence(self.absence()),
        }
    }

    fn absence(&mut self) -> ResponseCode {
        if self.random.chance(50) { ResponseCode::NXDomain } else { ResponseCode::NoError }
    }

    fn authority(&mut self) -> Authority {
        match self.random.below(8) {
            0 => Authority::Genuine,
            1 => Authority::Empty,
            2 => Authority::Ns(self.zone()),
            3 => Authority::Soa(self.name()),
            _ => Authority::Soa(self.zone()),
        }
    }

    /// Records of the type asked for, or a CNAME or an address in their place.
    fn forged(&mut self, kind: Option<RecordType>) -> Vec<Rr> {
        let attacker = self.surroundings.mail_server.clone();
        let kind = match self.random.below(8) {
            0 => Some(RecordType::CNAME),
            _ => kind.or_else(|| self.random.pick(&KINDS).copied()),
        };
        match kind {
            Some(RecordType::MX) => match self.random.below(3) {
                0 => vec![Rr::Mx(0, ".".into())],
                1 => vec![Rr::Mx(0, attacker), Rr::Mx(10, self.name())],
                _ => vec![Rr::Mx(0, attacker)],
            },
            Some(RecordType::TXT) => match self.random.below(3) {
                0 => vec![Rr::Txt(vec![format!("v=STSv1; id=forged{};", self.random.below(1000))])],
                1 => vec![Rr::Txt(vec!["v=STSv1; id=a;".into()]), Rr::Txt(vec!["v=STSv1; id=b;".into()])],
                _ => vec![Rr::Txt(vec!["nothing".into()])],
            },
            Some(RecordType::TLSA) => {
                let usage = if self.random.chance(50) { 3 } else { 1 };
                vec![Rr::Tlsa(TlsaRecord { usage, selector: 1, matching: 1, data: vec![7; 32] })]
            }
            Some(RecordType::AAAA) => vec![Rr::Aaaa(std::net::Ipv6Addr::LOCALHOST)],
            Some(RecordType::NS) => vec![Rr::Ns(attacker)],
            Some(RecordType::CNAME) => {
                let target = if self.random.chance(50) { attacker } else { self.name() };
                vec![Rr::Cname(target)]
            }
            // Nothing listens at this address.
            _ => vec![Rr::A(Ipv4Addr::new(127, 0, 0, 66))],
        }
    }

    /// No attack, or one or two, on connections to policy hosts.
    pub fn https(&mut self) -> Vec<HttpsAttack> {
        let number = self.random.below(3);
        (0..number).map(|_| self.https_attack()).collect()
    }

    fn https_attack(&mut self) -> HttpsAttack {
        let when = match self.random.below(4) {
            0 => When::Times(1),
            1 => When::Chance { percent: 50, seed: self.random.value() },
            _ => When::Always,
        };
        let weaker = "version: STSv1\nmode: none\nmax_age: 31557600\n".to_owned();
        let how = match self.random.below(8) {
            0 => HttpsChange::Reset,
            1 => HttpsChange::Close,
            2 => HttpsChange::Cut(self.random.below(3000)),
            3 => HttpsChange::Delay(Duration::from_millis(self.random.below(10) as u64)),
            4 => HttpsChange::Flip(self.random.below(2500)),
            5 | 6 => HttpsChange::UntrustedCertificate(weaker),
            _ => HttpsChange::CertificateOfOther(weaker),
        };
        HttpsAttack { on: Target::Any, when, how }
    }

    fn name(&mut self) -> String {
        self.random.pick(&self.surroundings.names).cloned().unwrap_or_else(|| ".".to_owned())
    }

    fn zone(&mut self) -> String {
        self.random.pick(&self.surroundings.zones).cloned().unwrap_or_else(|| ".".to_owned())
    }

    fn ttl(&mut self) -> u32 {
        self.random.pick(&TTLS).copied().unwrap_or_default()
    }

    fn code(&mut self) -> ResponseCode {
        self.random.pick(&CODES).copied().unwrap_or(ResponseCode::ServFail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_attacks_and_every_kind_comes_up() {
        let surroundings = Surroundings {
            names: vec!["a.test.".into(), "_25._tcp.mx1.a.test.".into()],
            zones: vec!["test.".into()],
            mail_server: "mx.attacker.test.".into(),
        };
        let plan = |seed| {
            let mut planner = Planner::new(seed, surroundings.clone());
            (planner.dns(), planner.https())
        };
        assert_eq!(plan(5), plan(5));
        let text: String = (0..300).map(|seed| format!("{:?}", plan(seed))).collect();
        for kind in [
            "Drop",
            "Delay",
            "Code(",
            "Negative",
            "Forge",
            "Strip",
            "Ttl(",
            "AuthenticData",
            "OptOut(",
            "Replay",
            "Borrow",
            "Reset",
            "Close",
            "Cut(",
            "Flip(",
            "UntrustedCertificate",
            "CertificateOfOther",
        ] {
            assert!(text.contains(kind), "{kind}");
        }
    }
}
