//! One row of the yardstick: the domain, the phases, and what conforms.

use super::tls_report::Day;
use crate::Case as World;
use crate::dns::Rr;
use crate::pki::Cert;
use crate::policy_host::HttpBehavior;
pub use formats::requirement::Level;

/// The longest time in seconds that a run waits for; a longer one needs a moved clock.
pub const LONGEST_WAIT: u32 = 120;

/// The part of the protocols that a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// The `_mta-sts` record (RFC 8461 §3.1).
    Discovery,
    /// The policy host and the HTTPS request (RFC 8461 §3.3).
    Fetch,
    /// The syntax of the policy file (RFC 8461 §3.2).
    Policy,
    /// MX names against the policy's patterns (RFC 8461 §4.1).
    Matching,
    /// STARTTLS and certificates of MX hosts (RFC 8461 §4.2, §5).
    Enforcement,
    /// The modes `testing` and `none`, and domains without a policy (RFC 8461 §5).
    Modes,
    /// Several messages over time (RFC 8461 §3.1, §5.1).
    Caching,
    /// TLSA records, with and without a policy (RFC 7672).
    Dane,
    /// TLS reports that the mail server sends (RFC 8460).
    Reports,
}

impl Group {
    /// All groups, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Discovery,
        Self::Fetch,
        Self::Policy,
        Self::Matching,
        Self::Enforcement,
        Self::Modes,
        Self::Caching,
        Self::Dane,
        Self::Reports,
    ];

    /// The heading in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovery => "Discovery: the _mta-sts record",
            Self::Fetch => "Fetching the policy",
            Self::Policy => "The policy file",
            Self::Matching => "Matching MX names",
            Self::Enforcement => "Enforcement",
            Self::Modes => "Modes testing and none, and no policy",
            Self::Caching => "Caching over time",
            Self::Dane => "DANE",
            Self::Reports => "TLS reports",
        }
    }
}

/// The fate of a message as seen from outside, when the mail server has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Delivered over TLS.
    Tls,
    /// Delivered in cleartext.
    Clear,
    /// Not delivered, and no bounce was seen.
    Waits,
    /// Returned to its sender.
    Bounced,
}

impl Fate {
    /// The words in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "delivered over TLS",
            Self::Clear => "delivered in cleartext",
            Self::Waits => "not delivered",
            Self::Bounced => "bounced",
        }
    }
}

/// One row of the yardstick.
#[derive(Debug, Clone)]
pub struct Case {
    /// The name of the row. It is stable, so that reports of different times can be compared.
    pub id: &'static str,
    /// The part of the protocols.
    pub group: Group,
    /// How strongly the rule binds.
    pub level: Level,
    /// The RFC and section.
    pub source: &'static str,
    /// What the domain publishes, in a few words.
    pub about: &'static str,
    /// The domain as it is in the first phase.
    pub world: World,
    /// Further web sites below the domain: the label and the policy file that they serve.
    pub sites: Vec<(&'static str, String)>,
    /// The hosts below the domain that IPv6 concerns: the label, and what is at the IPv6 address. The only label beside
    /// `mta-sts` is `mx1` of one case, since loopback has one IPv6 address.
    pub ipv6: Vec<(&'static str, Ipv6)>,
    /// The messages, in order. Each phase begins when the mail server has settled after the one before.
    pub phases: Vec<Phase>,
    /// The TLS reports that the mail server has to send, day by day. The messages of the first day are the first phases, and so on.
    pub days: Vec<Day>,
    /// Whether a sender without MTA-STS and DANE conforms too. Such a case does not count in the score.
    pub without: Without,
}

/// What is at the IPv6 address of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6 {
    /// The host, which has no IPv4 address.
    Only,
    /// Nothing. The host has an IPv4 address as well.
    Dead,
}

/// What a sender does that knows neither MTA-STS nor DANE and uses STARTTLS where it is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Without {
    /// It conforms as well, so that the case tells nothing about a sender that passes.
    Conforms,
    /// It falls short: the case discriminates.
    FallsShort,
    /// It may do either, such as a sender that waits where TLS fails instead of using cleartext at once. The case does not
    /// count in the score.
    Either,
}

/// One message, and what happens before it is sent.
#[derive(Debug, Clone)]
pub struct Phase {
    /// The changes to the domain and its servers.
    pub changes: Vec<Change>,
    /// The label of the recipient's domain below the domain of the case; empty for that domain itself.
    pub below: &'static str,
    /// The fates that conform.
    pub conforms: Vec<Fate>,
    /// The fates that are stricter than the RFC asks for, and harm nobody but the sender's own users.
    pub beyond: Vec<Fate>,
    /// What else has to hold for the phase.
    pub checks: Vec<Check>,
}

/// A change between two phases. Names are labels below the case's domain.
#[derive(Debug, Clone)]
pub enum Change {
    /// The `_mta-sts` record gets this text.
    Record(String),
    /// The `_mta-sts` record is removed.
    NoRecord,
    /// Queries for the `_mta-sts` record get SERVFAIL.
    RecordFails,
    /// Queries for the `_mta-sts` record get no response.
    RecordTimesOut,
    /// The records at a label, for their types; an empty label is the domain itself.
    Records(&'static str, Vec<Rr>),
    /// The policy host answers like this, with a certificate of this kind.
    Policy(HttpBehavior, Cert),
    /// Connections to the policy host are closed.
    HostGone,
    /// The policy host's name is removed from DNS.
    HostNameGone,
    /// STARTTLS is stripped at an MX host with this label.
    Strip(&'static str),
    /// A mail server with a self-signed certificate is started, and the domain's MX record names it.
    ForgedMx,
    /// So many seconds pass for the mail server.
    Pass(u32),
    /// The mail server is restarted.
    Restart,
}

/// A condition on what was seen in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The `_mta-sts` TXT record of the domain was queried.
    RecordAsked,
    /// The policy file was requested.
    Fetched,
    /// The policy file was not requested.
    NotFetched,
    /// Each request to the policy host is a GET of the well-known path, with the host's name as SNI and in `Host`.
    RightRequest,
    /// No site with this label was requested.
    NoRequestTo(&'static str),
    /// The message was delivered to the MX host with this label.
    DeliveredTo(&'static str),
    /// The MX hosts with these labels were first connected to in this order; more may follow.
    Order(&'static [&'static str]),
    /// Each ClientHello at an MX host had its name as SNI. RFC 8461 §4.2 demands that of senders that use MTA-STS: a sender
    /// that asked for neither the record nor the policy is not judged by it.
    MxSni,
    /// TLSA records of the MX host with this label were queried.
    TlsaAsked(&'static str),
    /// No TLSA records were queried.
    NoTlsaAsked,
    /// No recipient was given away in cleartext. No RFC forbids MAIL before the connection is given up.
    NothingInClear,
}

impl Check {
    /// The condition as a sentence, for reports.
    pub fn sentence(self) -> String {
        match self {
            Self::RecordAsked => "the _mta-sts TXT record is queried".into(),
            Self::Fetched => "the policy file is requested".into(),
            Self::NotFetched => "the policy file is not requested".into(),
            Self::RightRequest => {
                "the policy is requested by GET of /.well-known/mta-sts.txt, with the policy host's name as SNI and Host".into()
            }
            Self::NoRequestTo(label) => format!("the host {label} is not requested"),
            Self::DeliveredTo(label) => format!("the message is delivered to {label}"),
            Self::Order(labels) => format!("MX hosts are tried in the order {}", labels.join(", ")),
            Self::MxSni => "SNI is the name of the MX host, if the sender uses MTA-STS".into(),
            Self::TlsaAsked(label) => format!("the TLSA records of {label} are queried"),
            Self::NoTlsaAsked => "no TLSA records are queried".into(),
            Self::NothingInClear => "no recipient is sent in cleartext".into(),
        }
    }
}

impl Phase {
    /// A phase with one message to the domain that may have these fates.
    pub fn of(conforms: &[Fate]) -> Self {
        Self { changes: vec![], below: "", conforms: conforms.to_vec(), beyond: vec![], checks: vec![] }
    }

    pub(crate) fn after(mut self, changes: Vec<Change>) -> Self {
        self.changes = changes;
        self
    }

    pub(crate) fn beyond(mut self, fates: &[Fate]) -> Self {
        self.beyond = fates.to_vec();
        self
    }

    pub(crate) fn checks(mut self, checks: &[Check]) -> Self {
        self.checks = checks.to_vec();
        self
    }

    pub(crate) fn below(mut self, label: &'static str) -> Self {
        self.below = label;
        self
    }

    /// The expectation as a sentence, for reports.
    pub fn sentence(&self) -> String {
        let fates: Vec<&str> = self.conforms.iter().map(|fate| fate.as_str()).collect();
        let mut text = fates.join(" or ");
        for check in &self.checks {
            text += "; ";
            text += &check.sentence();
        }
        text
    }
}

impl Case {
    /// The domain, without the final dot.
    pub fn domain(&self) -> String {
        self.world.domain()
    }

    /// Whether the mail server has to be restarted in the case, or its clock moved, so that no other case can run beside it.
    pub fn runs_alone(&self) -> bool {
        let alone = |change: &Change| match change {
            Change::Restart => true,
            Change::Pass(seconds) => *seconds > LONGEST_WAIT,
            _ => false,
        };
        self.phases.iter().flat_map(|phase| &phase.changes).any(alone)
    }

    /// The fates of all phases as a sentence, for reports.
    pub fn sentence(&self) -> String {
        if !self.days.is_empty() {
            return self.days.iter().map(Day::sentence).collect::<Vec<_>>().join("  then ");
        }
        let all: Vec<String> = self.phases.iter().map(Phase::sentence).collect();
        match all.as_slice() {
            [one] => one.clone(),
            many => many
                .iter()
                .enumerate()
                .map(|(at, text)| format!("{}. {text}", at + 1))
                .collect::<Vec<_>>()
                .join("  "),
        }
    }
}
