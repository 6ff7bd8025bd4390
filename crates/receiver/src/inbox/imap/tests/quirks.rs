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
    /// SELECT returns no UIDVALIDITY.
    pub no_validity: bool,
    /// The greeting, after which the connection is closed.
    pub greeting: Option<&'static str>,
    /// What is sent before the answers to all commands by UID.
    pub noise: &'static str,
    /// Answers in place of the usual ones.
    pub answers: &'static [Scripted],
}

/// An answer word by word.
#[derive(Clone, Copy)]
pub struct Scripted {
    /// A part of the command that is answered so.
    pub to: &'static str,
    /// The answer; `{tag}` stands for the tag, and `{close}` at the end closes the connection.
    pub text: &'static str,
    /// How often the command is answered so.
    pub times: usize,
}

/// Answers a command so each time.
pub const fn always(to: &'static str, text: &'static str) -> Scripted {
    Scripted { to, text, times: usize::MAX }
}

/// A text that lives as long as the quirks that it is part of.
pub fn kept(text: String) -> &'static str {
    text.leak()
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
