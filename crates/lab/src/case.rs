//! The description of a lab domain: its setup, the attack on it, and the verdict that the RFCs require.

use crate::behavior::Behavior;
use crate::dns::{Rr, Signing, Tampering};
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
use formats::ResultType;
use formats::result_type::PolicyType;

/// One lab domain, `NAME.test`, which is correct or has one fault.
#[derive(Debug, Clone)]
pub struct Case {
    /// The label below `test.`; a name with a dot is a domain of its own.
    pub name: &'static str,
    /// The topic that the domain belongs to.
    pub topic: Topic,
    /// What is correct or broken, in a few words; `sternpost lab list` shows it.
    pub about: &'static str,
    /// The DNS records and servers of the domain.
    pub setup: Setup,
    /// What the sender has cached, and what the attacker does when switched on.
    pub attack: Attack,
    /// What a conforming sender has to do.
    pub verdict: Verdict,
}

/// The part of the protocols that a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// The `_mta-sts` record.
    Record,
    /// The policy host: DNS, TLS and HTTP.
    PolicyHost,
    /// The policy file.
    Policy,
    /// The MX hosts and whether they match the policy.
    Mx,
    /// DANE TLSA records.
    Dane,
    /// An attacker on the path.
    Attack,
    /// Faults that the check reports but that rarely affect senders.
    Preflight,
}

/// The DNS records and servers of a lab domain.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The DNSSEC state of the zone.
    pub signing: Signing,
    /// The TXT records at `_mta-sts`, each as a list of character strings.
    pub sts_records: Vec<Vec<String>>,
    /// Makes `_mta-sts` a CNAME to the name with the record.
    pub record_by_cname: bool,
    /// How queries for the record fail; `None` answers them normally.
    pub record_trouble: Option<Tampering>,
    /// The addresses of the policy host.
    pub host_address: HostAddress,
    /// The HTTPS behavior of the policy host.
    pub answers: HttpBehavior,
    /// The certificate of the policy host.
    pub host_cert: Cert,
    /// The MX hosts; if empty, `no_mx` applies.
    pub mx: Vec<Mx>,
    /// What the domain has when `mx` is empty.
    pub no_mx: NoMx,
    /// The TXT records at `_smtp._tls`, each as a list of character strings.
    pub tlsrpt_records: Vec<Vec<String>>,
    /// Additional records, by labels below the domain; an empty label is the domain itself.
    pub extra: Vec<(String, Vec<Rr>)>,
    /// Zones of their own below the domain: the label and the DNSSEC state.
    pub zones: Vec<(&'static str, Signing)>,
    /// The TTL of all records, in seconds.
    pub ttl: u32,
    /// A second name server of the zone; `None` for only the lab's own.
    pub second_server: Option<SecondServer>,
}

/// A second name server of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecondServer {
    /// Nothing listens at its address.
    Lame,
    /// The server returns this `_mta-sts` record instead.
    Says(String),
}

/// What the policy host's name resolves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// The lab's HTTPS server.
    Direct,
    /// The lab's HTTPS server, through a CNAME.
    Cname,
    /// Nothing: the name does not exist.
    Missing,
    /// An address where nothing listens.
    Refused,
    /// A private address (10.1.2.3).
    Private,
    /// The lab's HTTPS server by IPv4, and an IPv6 address where nothing listens.
    Ipv6Broken,
    /// The lab's HTTPS server, and a second address where nothing listens.
    Partial,
    /// The lab's HTTPS server, through a CNAME to a name of GitHub Pages.
    Pages,
    /// The lab's HTTPS server, through a CNAME to a name of a provider of policy hosts.
    Provider,
    /// The lab's HTTPS server, as all names below the domain, by a wildcard record.
    CatchAll,
}

/// What a domain without MX hosts has instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMx {
    /// An address record, which makes the domain its own implicit MX.
    Implicit,
    /// A null MX (RFC 7505).
    Null,
}

/// One MX host, named `LABEL.NAME.test`, or `LABEL` below the domain of a provider.
#[derive(Debug, Clone)]
pub struct Mx {
    /// The label below the domain, or two labels separated by a dot.
    pub label: &'static str,
    /// The preference in the MX record.
    pub preference: u16,
    /// The SMTP behavior; `None` if nothing listens at the address.
    pub behavior: Option<Behavior>,
    /// The certificate that the host presents.
    pub cert: Cert,
    /// The TLSA records of port 25.
    pub tlsa: Vec<TlsaSetup>,
    /// How queries for the TLSA records fail; `None` answers them normally.
    pub tlsa_trouble: Option<Tampering>,
    /// Makes the host's name a CNAME to `real` below the domain.
    pub alias: bool,
    /// A second server at another address of the same name.
    pub twin: Option<(Behavior, Cert)>,
    /// Additional records at the host's name.
    pub more: Vec<Rr>,
    /// Omits the host's own address record.
    pub unaddressed: bool,
    /// The domain of a mail provider below which the host's name is; `None` if it is below the case's own.
    pub provider: Option<&'static str>,
}

/// A TLSA record computed from the certificate chain of the MX host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsaSetup {
    /// The certificate usage, 0 to 3.
    pub usage: u8,
    /// The selector: 0 for the certificate, 1 for the public key.
    pub selector: u8,
    /// The matching type: 0 for full data, 1 for SHA-256, 2 for SHA-512.
    pub matching: u8,
    /// False corrupts the data, so that the record does not match.
    pub right: bool,
    /// Usage, selector and matching type in the record, where they are not those that the data was computed with.
    pub claims: Option<(u8, u8, u8)>,
}

/// What the sender has cached and what the attacker does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attack {
    /// The sender fetches the policy once before the attack.
    pub policy_cached: bool,
    /// STARTTLS is stripped at every MX host.
    pub strip: bool,
    /// Queries for the `_mta-sts` record get an empty response.
    pub suppress_record: bool,
    /// Connections to the policy host are closed.
    pub block_host: bool,
    /// The MX records are replaced by one for the attacker's host.
    pub forge_mx: bool,
}

/// What a conforming sender does with a message for the domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// Whether the message is delivered, and over which kind of connection.
    pub delivery: Delivery,
    /// The policy type in the TLSRPT report (RFC 8460 §4.4).
    #[serde(rename = "policy-type")]
    pub policy_type: PolicyType,
    /// The failures in the TLSRPT report, in the order of the attempts.
    pub results: Vec<ResultType>,
}

/// The outcome of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Delivered over TLS to a verified host.
    Verified,
    /// Delivered over TLS without verification.
    Encrypted,
    /// Delivered in cleartext.
    Clear,
    /// Not delivered; the sender retries later.
    Deferred,
    /// Not delivered and not retried: the domain has a null MX.
    Refused,
}

impl Mx {
    /// The host's full name, without the final dot. `domain` is that of its case.
    pub fn host(&self, domain: &str) -> String {
        format!("{}.{}", self.label, self.provider.unwrap_or(domain))
    }
}

impl Case {
    /// The full domain name, without the final dot.
    pub fn domain(&self) -> String {
        // A name with a dot is a full domain name.
        if self.name.contains('.') { self.name.to_owned() } else { format!("{}.test", self.name) }
    }
}
