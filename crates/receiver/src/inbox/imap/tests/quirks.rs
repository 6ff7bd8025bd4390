//! The quirks of servers in the field, as the scripted server plays them.

/// How the server differs from an ordinary one.
#[derive(Clone, Copy, Default)]
pub struct Quirks {
    /// `MOVE` is not announced, and refused.
    pub no_move: bool,
    /// `MOVE` is announced, and refused.
    pub move_is_refused: bool,
    /// `UIDPLUS` is not announced, and UID EXPUNGE refused.
    pub no_uidplus: bool,
    /// Keywords are refused, and PERMANENTFLAGS has no `\*`.
    pub no_keywords: bool,
    /// Keywords are refused, although PERMANENTFLAGS has `\*`.
    pub keywords_are_refused: bool,
    /// FETCH returns no RFC822.SIZE.
    pub no_sizes: bool,
    /// IDLE is not announced.
    pub no_idle: bool,
    /// IDLE is announced, and refused without a text.
    pub idle_is_refused: bool,
    /// Folders other than INBOX have this prefix.
    pub prefix: Option<&'static str>,
    /// What happens when the body of this message is fetched.
    pub trouble: Option<(u32, Trouble)>,
    /// The text with which COPY and MOVE are refused.
    pub is_full: Option<&'static str>,
    /// Further capabilities before sign-in.
    pub offers: &'static str,
    /// Whether the connection begins without TLS, and what happens then.
    pub clear: Option<Clear>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Refused,
    Garbled,
    Empty,
    Disconnects,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clear {
    Upgrades,
    Refuses,
    IsPreAuth,
    /// Sends a response ahead of the TLS handshake, as an attacker would.
    Injects,
}
