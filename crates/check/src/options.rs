//! Options of a check: its depth, the address families that it uses, and the probes that it skips.

use std::net::IpAddr;
use std::time::Duration;

/// Options of a check. The command line sets them from its flags.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether to make additional probes beside one connection per address.
    pub depth: Depth,
    /// The address families to connect to.
    pub families: Families,
    /// Makes no connections to MX hosts, for networks that block port 25.
    pub skip_port_25: bool,
    /// Allows connections to private and loopback addresses, as in the lab.
    pub allow_special: bool,
    /// False when [`crate::Checker::dns`] can't validate DNSSEC; checks of DNSSEC and DANE are then skipped.
    pub sees_signatures: bool,
    /// The time for fetching the policy file above which `HTTPS-SLOW` is reported; 5 seconds by default.
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

/// The depth of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// All probes, including TLS versions, ciphers, SNI and every name server of the zone.
    #[default]
    Full,
    /// One connection to each address and one query for each record.
    Quick,
}

/// The address families that a check connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Families {
    pub(crate) fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}
