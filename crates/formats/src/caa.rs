//! The values of CAA `issue` records (RFC 8659 §4.2), and whether they allow a certificate authority to issue for an
//! account by a validation method (RFC 8657). The records come from DNS; their use is the preflight check, and the ACME
//! client before it orders.

use std::fmt;

/// The value of an `issue` record: the issuer's domain name and parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueValue {
    /// The issuer domain name in lower case; empty if no CA may issue.
    pub issuer: String,
    /// The parameters with their names in lower case, in order.
    pub parameters: Vec<(String, String)>,
}

/// Parameters of one record that are read; a record with more permits no CA.
const MAX_PARAMETERS: usize = 32;

/// Why a CAA record set keeps a CA from issuing a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaaRefusal {
    /// No record names the CA.
    Issuer,
    /// The records that name the CA are for these other accounts (RFC 8657 §3).
    Account(Vec<String>),
    /// The records that name the CA allow these other validation methods only (RFC 8657 §4).
    Method(Vec<String>),
}

impl IssueValue {
    /// Parses a value. A malformed one names no issuer and so allows nobody, as RFC 8659 §4.2 requires.
    pub fn parse(value: &str) -> Self {
        let mut parts = value.split(';').map(str::trim);
        let issuer = parts.next().unwrap_or_default().to_ascii_lowercase();
        let nobody = Self { issuer: String::new(), parameters: Vec::new() };
        let mut parameters = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else { return nobody };
            let (name, value) = (name.trim(), value.trim());
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let is_value = |byte: u8| byte.is_ascii_graphic();
            let is_valid = !name.is_empty() && name.bytes().all(is_name) && value.bytes().all(is_value);
            if !is_valid || parameters.len() >= MAX_PARAMETERS {
                return nobody;
            }
            parameters.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Self { issuer, parameters }
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.parameters.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The account to which the record binds (RFC 8657 §3). Two of them bind to none.
    fn account(&self) -> Option<&str> {
        self.all("accounturi").next()
    }

    fn allows_account(&self, account: &str) -> bool {
        match self.all("accounturi").count() {
            0 => true,
            1 => self.account() == Some(account),
            _ => false,
        }
    }

    fn methods(&self) -> impl Iterator<Item = &str> {
        self.all("validationmethods").flat_map(|list| list.split(','))
    }

    fn allows_method(&self, method: &str) -> bool {
        match self.all("validationmethods").count() {
            0 => true,
            1 => self.methods().any(|allowed| allowed == method),
            _ => false,
        }
    }
}

/// Judges the values of the `issue` records of the relevant record set. Without any, every CA may issue. `issuers` are the
/// names under which the CA is known in CAA records, `account` its ACME account URL and `methods` the validation methods
/// that could be used, such as `http-01`; `None` if that is not known, so that it is not judged.
///
/// # Errors
///
/// If the record set does not allow the CA to issue.
pub fn judge(
    values: &[&str],
    issuers: &[&str],
    account: Option<&str>,
    methods: Option<&[&str]>,
) -> Result<(), CaaRefusal> {
    if values.is_empty() {
        return Ok(());
    }
    let is_ours = |value: &IssueValue| issuers.iter().any(|issuer| value.issuer.eq_ignore_ascii_case(issuer));
    let ours: Vec<IssueValue> = values.iter().map(|value| IssueValue::parse(value)).filter(is_ours).collect();
    if ours.is_empty() {
        return Err(CaaRefusal::Issuer);
    }
    let of_account: Vec<&IssueValue> =
        ours.iter().filter(|value| account.is_none_or(|account| value.allows_account(account))).collect();
    if of_account.is_empty() {
        let named = ours.iter().filter_map(IssueValue::account).map(str::to_owned);
        return Err(CaaRefusal::Account(named.collect()));
    }
    let allows = |value: &&IssueValue| {
        methods.is_none_or(|methods| methods.iter().any(|method| value.allows_method(method)))
    };
    if !of_account.iter().any(allows) {
        let named = of_account.iter().flat_map(|value| value.methods()).map(str::to_owned);
        return Err(CaaRefusal::Method(named.collect()));
    }
    Ok(())
}

impl fmt::Display for CaaRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer => f.write_str("no CAA record names the CA"),
            Self::Account(accounts) => {
                write!(f, "the CAA records allow only the account {}", accounts.join(" or "))
            }
            Self::Method(methods) => {
                write!(f, "the CAA records allow only the validation method {}", methods.join(" or "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &[&str] = &["ca.example", "other-name.example"];
    const ACCOUNT: &str = "https://ca.example/acct/1";

    fn verdict(values: &[&str]) -> Result<(), CaaRefusal> {
        judge(values, CA, Some(ACCOUNT), Some(&["dns-01"]))
    }

    #[test]
    fn values_are_an_issuer_and_parameters() {
        let value = IssueValue::parse(
            " CA.example ; accounturi=https://ca.example/acct/1; ValidationMethods=dns-01 ;",
        );
        assert_eq!(value.issuer, "ca.example");
        assert_eq!(value.parameters.len(), 2);
        assert_eq!(value.parameters[1], ("validationmethods".to_owned(), "dns-01".to_owned()));
        for malformed in
            ["ca.example; accounturi", "ca.example; =x", "ca.example; a b=c", "ca.example; a=b c"]
        {
            assert_eq!(IssueValue::parse(malformed).issuer, "", "{malformed}");
        }
        let many = format!("ca.example{}", "; a=b".repeat(33));
        assert_eq!(IssueValue::parse(&many).issuer, "");
    }

    #[test]
    fn without_records_every_ca_may_issue_and_with_records_only_those_named() {
        assert_eq!(verdict(&[]), Ok(()));
        assert_eq!(verdict(&["ca.example"]), Ok(()));
        assert_eq!(verdict(&["third.example", "other-name.example"]), Ok(()));
        for nobody in [";", "", "third.example"] {
            assert_eq!(verdict(&[nobody]), Err(CaaRefusal::Issuer), "{nobody:?}");
        }
    }

    #[test]
    fn records_may_bind_the_account_and_the_validation_method() {
        let ours = format!("ca.example; accounturi={ACCOUNT}");
        assert_eq!(verdict(&[&ours]), Ok(()));
        let other = "ca.example; accounturi=https://ca.example/acct/2";
        let refusal = CaaRefusal::Account(vec!["https://ca.example/acct/2".to_owned()]);
        assert_eq!(verdict(&[other]), Err(refusal));
        assert_eq!(verdict(&[other, &ours]), Ok(()));
        assert_eq!(judge(&[other], CA, None, None), Ok(()), "the account is not known");
        let twice = format!("{ours}; accounturi={ACCOUNT}");
        assert!(matches!(verdict(&[&twice]), Err(CaaRefusal::Account(_))));
        let methods = format!("{ours}; validationmethods=http-01,tls-alpn-01");
        let allowed = vec!["http-01".to_owned(), "tls-alpn-01".to_owned()];
        assert_eq!(verdict(&[&methods]), Err(CaaRefusal::Method(allowed)));
        assert_eq!(judge(&[&methods], CA, Some(ACCOUNT), Some(&["http-01"])), Ok(()));
        // A method that is allowed for another account does not help.
        assert!(verdict(&["ca.example; accounturi=https://x/; validationmethods=dns-01", &methods]).is_err());
    }
}
