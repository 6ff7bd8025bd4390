//! Options of a check: its depth, the address families that it uses, and what it leaves out.

use std::net::IpAddr;
use std::time::Duration;

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
    /// False where [`crate::Checker::dns`] validates nothing: signatures and DANE are then left out.
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
    pub(crate) fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::Both => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}
