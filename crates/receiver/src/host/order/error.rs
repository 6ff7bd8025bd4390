//! Why an order failed, and whether the failure counts against the CA's rate limits.

use super::super::authority::AccountError;
use super::super::ca_http::NoAnswer;
use super::super::vault::VaultError;
use super::refusal;
use formats::DomainName;
use instant_acme::{Error, Problem};
use store::StoreError;

/// Why an order failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    /// The CA could not validate the host, as was seen before it was asked.
    #[error("{0}")]
    NotHere(String),
    /// The CAA records do not allow the CA to issue.
    #[error("{0}")]
    Caa(String),
    /// The record of a DNS challenge can't be published, or is not shown by the name servers.
    #[error("{0}")]
    Record(String),
    #[error("no CA accepts orders at the moment")]
    OverBudget,
    /// The CA took longer than this many seconds to accept an order.
    #[error("the CA did not answer within {0} seconds")]
    Slow(u64),
    /// The order took longer than this many seconds.
    #[error("the order did not end within {0} seconds")]
    Time(u64),
    #[error(transparent)]
    Acme(#[from] Error),
    #[error(transparent)]
    Account(AccountError),
    /// Each CA that was asked, with the reason.
    #[error("no CA has issued the certificate")]
    Refused(Vec<(String, OrderError)>),
    #[error("the certificate's key: {0}")]
    Vault(#[from] VaultError),
    /// The CA could not validate the host; `None` if it gives no reason.
    #[error("the CA could not validate the host")]
    Invalid(Option<Problem>),
    #[error("the CA's response can't be used: {0}")]
    Chain(String),
    /// The code that runs the order panicked. The log has the place.
    #[error("the order failed because of an internal error; see the log")]
    Panicked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OrderError {
    /// True when the failure does not count against the host's rate limits: the CA was not asked, could not be
    /// reached, reported a rate limit, or wanted another nonce.
    pub fn costs_nothing(&self) -> bool {
        match self {
            Self::NotHere(_) | Self::OverBudget | Self::Caa(_) | Self::Slow(_) => true,
            Self::Acme(Error::Api(_)) | Self::Account(AccountError::Acme(Error::Api(_))) => {
                self.is(BAD_NONCE) || self.is(RATE_LIMITED)
            }
            Self::Acme(_) | Self::Account(_) => true,
            Self::Refused(each) => each.iter().all(|(_, error)| error.costs_nothing()),
            // The order at the CA stays open, and the zone was changed.
            Self::Record(_) | Self::Time(_) => false,
            Self::Invalid(_) | Self::Chain(_) | Self::Panicked | Self::Store(_) | Self::Vault(_) => false,
        }
    }

    /// True when another CA would fail as well.
    pub fn is_about_the_host(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::NotHere(_) | Self::Record(_) | Self::Store(_))
    }

    /// True when the CA takes no orders for a while: it reported a rate limit, or gave no answer in time.
    pub fn is_a_reason_to_pause(&self) -> bool {
        match self {
            Self::Slow(_) => true,
            Self::Acme(Error::Other(error)) | Self::Account(AccountError::Acme(Error::Other(error))) => {
                error.is::<NoAnswer>()
            }
            _ => self.is(RATE_LIMITED),
        }
    }

    /// Whether the CA reported this problem type.
    pub fn is(&self, kind: &str) -> bool {
        self.problem().is_some_and(|problem| problem.r#type.as_deref() == Some(kind))
    }

    /// The problem document with which the CA refused a request.
    fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Acme(Error::Api(problem)) | Self::Account(AccountError::Acme(Error::Api(problem))) => {
                Some(problem)
            }
            _ => None,
        }
    }

    /// The failure of an order for `host` in words: what failed, what follows, and what to do.
    pub fn in_words(&self, host: &DomainName) -> String {
        match self {
            Self::Refused(each) => {
                let each = each.iter().map(|(ca, error)| format!("{ca}: {}", error.in_words(host)));
                each.collect::<Vec<_>>().join("; ")
            }
            Self::Invalid(problem) => {
                let why = problem.as_ref().map(|problem| refusal::in_words(problem, host));
                format!("{self}: {}", why.as_deref().unwrap_or("no reason given by the CA"))
            }
            _ => match self.problem() {
                Some(problem) => refusal::in_words(problem, host),
                None => with_causes(self),
            },
        }
    }
}

impl From<AccountError> for OrderError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Store(error) => Self::Store(error),
            other => Self::Account(other),
        }
    }
}

/// The problem type for an account that the CA does not know (RFC 8555 §6.7).
pub(super) const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
/// The problem type for too many orders (RFC 8555 §6.7).
pub(super) const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";

/// An error with what caused it, which the libraries leave out of their messages, and the key to set where one helps. Without a
/// connection to the CA, no certificate is ordered or renewed.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    let advice = [
        (
            "UnknownIssuer",
            "the server of the CA has a certificate of an unknown root. Nothing is ordered from it before that root is trusted; \
             save it and name the file beside directory:\n  ca_file = \"ca.pem\"",
        ),
        (
            "Expired",
            "the certificate of the CA's server has expired, or the clock of this machine is wrong. Nothing is ordered from it \
             before that is put right",
        ),
        (
            "NotValidForName",
            "directory names another host than the certificate of the CA's server. Set it to the URL that the CA documents",
        ),
    ];
    let found = advice.iter().find(|(word, _)| text.contains(word));
    found.map_or(text.clone(), |(_, advice)| format!("{advice} ({text})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as libraries make them: a message that hides its cause.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    fn chain(messages: &[&'static str]) -> Link {
        let mut all = messages.iter().rev();
        let last = Link(all.next().unwrap(), None);
        all.fold(last, |cause, message| Link(message, Some(Box::new(cause))))
    }

    #[test]
    fn an_error_of_a_ca_is_told_with_its_cause_and_the_key_to_set() {
        let told = |messages: &[&'static str]| with_causes(&chain(messages));
        let unknown_root = told(&["HTTP request failure", "client error (Connect)", "UnknownIssuer"]);
        assert!(unknown_root.starts_with("the server of the CA has a certificate of an unknown root. "));
        assert!(unknown_root.contains("\n  ca_file = \"ca.pem\""), "{unknown_root}");
        assert!(unknown_root.ends_with("(HTTP request failure: client error (Connect): UnknownIssuer)"));
        for (cause, advice) in [
            ("invalid peer certificate: Expired", "clock of this machine"),
            ("invalid peer certificate: NotValidForName", "directory names another host"),
        ] {
            assert!(told(&["request failed", cause]).contains(advice), "{cause}");
        }
        // A cause that is in the message already is not repeated, and one that is not known gets no advice.
        assert_eq!(told(&["can't connect: refused", "refused"]), "can't connect: refused");
    }

    fn silent() -> OrderError {
        OrderError::Acme(Error::Other(Box::new(NoAnswer)))
    }

    #[test]
    fn a_ca_that_hangs_is_paused_and_the_next_one_is_asked() {
        for error in [
            silent(),
            OrderError::Slow(60),
            OrderError::Account(AccountError::Acme(Error::Other(Box::new(NoAnswer)))),
        ] {
            assert!(error.is_a_reason_to_pause() && !error.is_about_the_host(), "{error}");
            assert!(error.costs_nothing());
        }
        for error in [OrderError::Time(600), OrderError::Panicked, OrderError::Chain("x".into())] {
            assert!(!error.is_a_reason_to_pause() && !error.is_about_the_host(), "{error}");
            assert!(!error.costs_nothing());
        }
        assert!(OrderError::Invalid(None).is_about_the_host());
    }

    #[test]
    fn a_refusal_is_told_with_the_ca_wherever_it_is_nested() {
        let problem = serde_json::json!({ "type": RATE_LIMITED, "detail": "too many" });
        let problem = || serde_json::from_value::<Problem>(problem.clone()).unwrap();
        let host = DomainName::parse("mta-sts.example.org").unwrap();
        let account = OrderError::Account(AccountError::Acme(Error::Api(problem())));
        let all = [("https://a/dir", OrderError::Acme(Error::Api(problem()))), ("https://b/dir", account)];
        let refused = OrderError::Refused(all.map(|(ca, error)| (ca.to_owned(), error)).into());
        let told = refused.in_words(&host);
        assert_eq!(told.matches("new_per_hour").count(), 2, "{told}");
        assert!(told.starts_with("https://a/dir: ") && told.contains("; https://b/dir: "), "{told}");
        let invalid = OrderError::Invalid(Some(problem())).in_words(&host);
        assert!(invalid.starts_with("the CA could not validate the host: ") && invalid.contains("too many"));
        assert!(OrderError::Invalid(None).in_words(&host).ends_with(": no reason given by the CA"));
    }
}
