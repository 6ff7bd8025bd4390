//! What a lab domain is made of, and the verdict that the RFCs call for.

use crate::behavior::Behavior;
use crate::dns::{Rr, Signing, Tampering};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
use formats::ResultType;
use formats::result_type::PolicyType;

/// One lab domain, `NAME.test`: good, or broken in one way.
#[derive(Debug, Clone)]
pub struct Case {
    /// The label below `test.`.
    pub name: &'static str,
    /// Which part it is about.
    pub topic: Topic,
    /// What is good or broken, in one line.
    pub about: &'static str,
    /// How it is built.
    pub setup: Setup,
    /// What the sender knows beforehand, and what the attacker then does.
    pub attack: Attack,
    /// What a conforming sender does.
    pub verdict: Verdict,
}

/// The part of the protocols that a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// The `_mta-sts` record.
    Record,
    /// The policy host: DNS, TLS, HTTP.
    PolicyHost,
    /// The policy file.
    Policy,
    /// MX hosts against the policy.
    Mx,
    /// DANE.
    Dane,
    /// An attacker on the path.
    Attack,
    /// What a preflight notices, and senders hardly.
    Preflight,
}

/// How a lab domain is built.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How its zone is signed.
    pub signing: Signing,
    /// The TXT records at `_mta-sts`, each with its strings.
    pub sts_records: Vec<Vec<String>>,
    /// True puts the record at a delegated name, by CNAME.
    pub record_by_cname: bool,
    /// What is wrong with asking for the record.
    pub record_trouble: Option<Tampering>,
    /// Where the policy host's name leads.
    pub host_address: HostAddress,
    /// How the policy host answers.
    pub answers: HttpBehavior,
    /// What it presents.
    pub host_cert: Cert,
    /// The MX hosts; empty with [`NoMx`] saying why.
    pub mx: Vec<Mx>,
    /// What stands in place of MX records when there are none.
    pub no_mx: NoMx,
    /// The TXT records at `_smtp._tls`, each with its strings.
    pub tlsrpt_records: Vec<Vec<String>>,
    /// Further records, by labels below the domain; no label is the domain itself.
    pub extra: Vec<(String, Vec<Rr>)>,
    /// How long its records live, in seconds.
    pub ttl: u32,
    /// A second name server, and what it says.
    pub second_server: Option<SecondServer>,
}

/// A name server beside the lab's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecondServer {
    /// Nothing answers there.
    Lame,
    /// It has another `_mta-sts` record.
    Says(String),
}

/// Where a policy host's name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// To the lab's policy hosts.
    Direct,
    /// There by CNAME.
    Cname,
    /// Nowhere: there is no such name.
    Missing,
    /// To an address where nothing listens.
    Refused,
    /// To an inner network.
    Private,
    /// To the lab's policy hosts, and by IPv6 to nothing.
    Ipv6Broken,
    /// To the lab's policy hosts, and to an address where nothing listens.
    Partial,
    /// By CNAME to a well-known web host.
    Pages,
}

/// A domain without MX records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMx {
    /// It has an address: the implicit MX.
    Implicit,
    /// It has the null MX.
    Null,
}

/// One MX host, `LABEL.NAME.test`.
#[derive(Debug, Clone)]
pub struct Mx {
    /// The label, or two with a dot.
    pub label: &'static str,
    /// Its preference.
    pub preference: u16,
    /// How it behaves; `None` is an address where nothing listens.
    pub behavior: Option<Behavior>,
    /// What it presents.
    pub cert: Cert,
    /// Its TLSA records.
    pub tlsa: Vec<TlsaSetup>,
    /// What is wrong with asking for its TLSA records.
    pub tlsa_trouble: Option<Tampering>,
    /// True makes its name a CNAME.
    pub alias: bool,
    /// Another machine behind the same name.
    pub twin: Option<(Behavior, Cert)>,
    /// Further records at its name.
    pub more: Vec<Rr>,
    /// True leaves out the address of its own.
    pub unaddressed: bool,
}

/// A TLSA record made from what the MX presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsaSetup {
    /// Usage.
    pub usage: u8,
    /// Selector.
    pub selector: u8,
    /// Matching type.
    pub matching: u8,
    /// False spoils the data.
    pub right: bool,
}

/// What the sender knows and the attacker does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attack {
    /// True lets the sender look the policy up once before the attack.
    pub policy_cached: bool,
    /// STARTTLS is stripped on every MX.
    pub strip: bool,
    /// The record is answered with "nothing".
    pub suppress_record: bool,
    /// Connections to the policy host are cut.
    pub block_host: bool,
    /// The MX records are forged.
    pub forge_mx: bool,
}

/// What a conforming sender does with a message for the domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// Whether it goes out, and how protected.
    pub delivery: Delivery,
    /// The policy type of the report entry.
    #[serde(rename = "policy-type")]
    pub policy_type: PolicyType,
    /// The failures of the report entry, in the order in which they are met.
    pub results: Vec<ResultType>,
}

/// Whether a message goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Through TLS with the host verified.
    Verified,
    /// Through TLS with whoever answered.
    Encrypted,
    /// In the clear.
    Clear,
    /// Not now.
    Deferred,
    /// Never: the domain takes no mail.
    Refused,
}

impl Case {
    /// The domain.
    pub fn domain(&self) -> String {
        // A dot makes it a name outside `test.`
        if self.name.contains('.') { self.name.to_owned() } else { format!("{}.test", self.name) }
    }
}
