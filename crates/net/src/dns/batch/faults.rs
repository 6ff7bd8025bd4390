//! What is wrong with the resolvers of a [`super::Batch`], from the counts of their responses.

/// What is wrong with a resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolverFault {
    /// No socket can be connected to it, and why. The other resolvers are used.
    Unreachable(String),
    /// So many of its responses are without recursion: it is an authoritative server, or does not serve this machine.
    NoRecursion(u64),
    /// It refused so many queries, and answered none.
    Refuses(u64),
    /// It was asked so many queries, and responded to none.
    Silent(u64),
}

/// What a resolver did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ServerCounts {
    pub sent: u64,
    /// Responses that say whether there are records.
    pub answered: u64,
    pub refused: u64,
    pub without_recursion: u64,
    pub other_failures: u64,
}

impl ServerCounts {
    pub fn fault(self) -> Option<ResolverFault> {
        match self {
            Self { without_recursion: 1.., .. } => Some(ResolverFault::NoRecursion(self.without_recursion)),
            Self { answered: 0, refused: 1.., .. } => Some(ResolverFault::Refuses(self.refused)),
            Self { answered: 0, other_failures: 0, sent: 1.., .. } => Some(ResolverFault::Silent(self.sent)),
            _ => None,
        }
    }
}
