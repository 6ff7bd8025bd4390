//! Counters of this process about sign-ins, tokens and posted reports, for the metrics of the running server; and the log
//! line about a wrong token, which has the same form as that about a failed sign-in (docs/monitoring.md).

use net::metrics::{self, Counters, Registry};
use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;

/// The counters of the dashboard, of reports by POST, and of interfaces for programs.
pub struct WebCounts {
    /// Attempts to sign in to the dashboard, by outcome.
    pub(crate) sign_ins: Counters,
    /// Reports by POST, by HTTP status.
    pub(crate) posts: Counters,
    /// Refused tokens, by interface.
    tokens: Counters,
}

impl WebCounts {
    /// The counters of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<WebCounts> = OnceLock::new();
        SHARED.get_or_init(|| Self {
            sign_ins: Counters::new(&metrics::SIGN_INS),
            posts: Counters::new(&metrics::INBOX_POSTS),
            tokens: Counters::new(&metrics::TOKEN_REFUSALS),
        })
    }

    /// Registers the metrics of the dashboard.
    pub fn register_dashboard(&self, registry: &mut Registry) {
        self.sign_ins.register(registry);
    }

    /// Registers the metrics of reports by POST.
    pub fn register_posts(&self, registry: &mut Registry) {
        self.posts.register(registry);
    }

    /// Registers the metrics of interfaces for programs.
    pub fn register_interfaces(&self, registry: &mut Registry) {
        self.tokens.register(registry);
    }
}

/// Counts and logs that the token of a request to an interface was missing or wrong.
pub fn refused_token(interface: &'static str, from: Option<IpAddr>) {
    WebCounts::shared().tokens.inc(&[interface]);
    tracing::warn!(name = %SafeName(interface), address = %Address(from), "sign-in failed");
}

/// Maximum number of characters of a name in the log.
const NAME_CHARACTERS: usize = 40;

/// A name that a stranger chose, in a form that is one word of the log: letters and digits of ASCII and `._-@+`; any other
/// character is shown as `?`. A name can therefore not forge the address after it.
pub struct SafeName<'a>(pub &'a str);

impl fmt::Display for SafeName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_safe = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
        let name: String =
            self.0.chars().take(NAME_CHARACTERS).map(|c| if is_safe(c) { c } else { '?' }).collect();
        f.write_str(if name.is_empty() { "-" } else { &name })
    }
}

/// The address of a client; `-` for a Unix socket.
pub struct Address(pub Option<IpAddr>);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "{}", address.to_canonical()),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_of_the_log_and_can_not_forge_an_address() {
        let shown = |name: &str| SafeName(name).to_string();
        assert_eq!(shown("ann.b-c_d@x"), "ann.b-c_d@x");
        assert_eq!(shown("x address=192.0.2.1\nWARN sign-in"), "x?address?192.0.2.1?WARN?sign-in");
        assert_eq!(shown("\u{1b}[2J\u{202e}größe"), "??2J?gr??e");
        assert_eq!((shown(""), shown(&"a".repeat(99)).len()), ("-".to_owned(), 40));
    }

    #[test]
    fn an_address_has_the_form_that_a_firewall_needs() {
        let shown = |text: &str| Address(text.parse().ok()).to_string();
        assert_eq!(
            (shown("::ffff:192.0.2.7"), shown("2001:db8::7")),
            ("192.0.2.7".into(), "2001:db8::7".into())
        );
        assert_eq!(shown("unix"), "-");
    }
}
