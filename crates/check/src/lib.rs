//! The preflight: looks at a mail domain from outside, as senders do, and says what it found, what
//! follows, and what to do.
//!
//! [`catalogue`] is the table of checks. `look` goes out and comes back with what was seen; each topic
//! module judges a part of that, and speaks in [`Finding`]s. Nothing is changed anywhere, and no mail is
//! sent.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod catalogue;
mod certificate;
mod companions;
mod dane;
mod domain;
mod finding;
mod look;
mod matching;
mod mx;
mod policy;
mod policy_host;
mod record;
pub mod render;
mod rollout;
mod seen;
pub mod senders;
mod servers;
mod sessions;
mod tls;
mod tlsrpt;
mod told;

pub use catalogue::{Check, Part, Severity};
pub use finding::{Examination, Finding};
pub use seen::{Known, Previous};
pub use sessions::Sessions;

use finding::Findings;
use formats::{DomainName, Mode};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::{Dns, DnsError, EachServer};
use net::https::Visits;
use seen::Seen;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Looks at domains by these means.
pub struct Checker {
    /// Records, validated.
    pub dns: Arc<dyn Dns>,
    /// Records that need no validation: policy hosts prove themselves by their certificate, and the rest is not
    /// what delivery hangs on.
    pub unvalidated: Arc<dyn Dns>,
    /// Each name server of a zone; `None` leaves them out.
    pub servers: Option<Arc<dyn EachServer>>,
    /// Policy hosts.
    pub visits: Arc<dyn Visits>,
    /// MX hosts.
    pub mail: Sessions,
    /// Which certificates are about to end.
    pub clock: Arc<dyn Clock>,
    /// How much is looked at.
    pub options: Options,
}

/// How much is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How deep.
    pub depth: Depth,
    /// Which addresses.
    pub families: Families,
    /// True leaves MX hosts alone, where port 25 is blocked.
    pub skip_port_25: bool,
    /// True where private and loopback addresses may be reached: a lab.
    pub allow_special: bool,
    /// False where [`Checker::dns`] validates nothing: signatures and DANE are then left out.
    pub sees_signatures: bool,
    /// A policy host that takes longer is slow.
    pub slow: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            depth: Depth::Full,
            families: Families::Both,
            skip_port_25: false,
            allow_special: false,
            sees_signatures: true,
            slow: Duration::from_secs(5),
        }
    }
}

/// How deep a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// Everything: further connections for versions, ciphers, names; each name server.
    #[default]
    Full,
    /// One connection to each address, one answer to each question.
    Quick,
}

/// Which families of addresses are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Families {
    /// Both.
    #[default]
    Both,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Families {
    fn takes(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}

/// Is told what was seen, while more is looked at.
pub trait Progress: Sync {
    /// This part is looked at, such as `mx1.example.org (192.0.2.1)`, and there was this, told to who asks. It comes from
    /// outside and is neither judged nor bounded yet.
    fn seen(&self, part: &str, answer: &dyn Fn() -> String);
}

/// Nobody watches.
impl Progress for () {
    fn seen(&self, _: &str, _: &dyn Fn() -> String) {}
}

impl Checker {
    /// Everything that can be said about `domain` now.
    pub async fn examine(&self, domain: &DomainName) -> Examination {
        self.examine_with(domain, &Known::default(), &()).await
    }

    /// The same, with what is known from before, and with someone watching.
    pub fn examine_with<'a>(
        &'a self,
        domain: &'a DomainName,
        known: &'a Known,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Examination> {
        Box::pin(async move {
            let seen = self.look(domain, progress).await;
            judge(&seen, known)
        })
    }
}

fn judge(seen: &Seen, known: &Known) -> Examination {
    let mut findings = Findings::default();
    if !domain::check(seen, &mut findings) {
        return findings.conclude(&seen.domain, Mode::None);
    }
    for (part, is_known) in [
        (Part::Deep, seen.is_deep),
        (Part::History, known.previous.is_some()),
        (Part::Inbox, known.last_report.is_some()),
    ] {
        if is_known {
            findings.looked_at(&[part]);
        }
    }
    record::check(seen, known, &mut findings);
    servers::check(seen, &mut findings);
    policy_host::check(seen, &mut findings);
    policy::check(seen, &mut findings);
    matching::check(seen, &mut findings);
    mx::check(seen, &mut findings);
    tls::check(seen, &mut findings);
    dane::check(seen, &mut findings);
    tlsrpt::check(seen, known, &mut findings);
    rollout::check(seen, known, &mut findings);
    senders::check(seen, &mut findings);
    companions::check(seen, &mut findings);
    let published = seen.policy.id.clone().zip(seen.policy.file.clone());
    Examination { published, ..findings.conclude(&seen.domain, seen.mode()) }
}

/// A look-up that failed for another reason than absence.
pub(crate) fn dns_trouble(findings: &mut Findings, what: &str, error: &DnsError) {
    let check = if *error == DnsError::Bogus { Check::DnssecBogus } else { Check::DnsServfail };
    let why = match check {
        Check::DnssecBogus => {
            "Validating resolvers answer with an error: to their users the record is not \
             there, and mail waits. The DS at the parent and the zone's keys and \
             signatures do not fit."
        }
        _ => {
            "Senders can't tell whether the record is there, and new senders get no \
             policy. Look at the zone's name servers."
        }
    };
    findings.add(check, format!("{what}: {error}"), why, []);
}
