//! The cookie of a browser that signed in before. It names the account only by its signature, gives no access, and lasts
//! for a year: its browser has a count of failed sign-ins of its own (`sign_in_limits`), so that a stranger who fails at the
//! same account or behind the same address does not keep it out.
//!
//! The signature covers what the browser signed in with: the password and the second factor of the account. A change of
//! either ends all earlier cookies, so that a removed user, an old password, or a sign-in from before the second factor
//! earns no count.

use crate::sign_in_limits::BrowserId;
use crate::signer::Signer;
use jiff::{SignedDuration, Timestamp};
use store::Tenant;

/// The name of the cookie, after the prefix that `auth` adds.
pub const COOKIE_NAME: &str = "sternpost-browser";
/// How long the cookie is valid. Each sign-in begins anew.
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// The purpose that the signature is bound to.
const PURPOSE: &str = "browser";
/// The maximum length of the random part of a cookie.
const MAX_RANDOM_BYTES: usize = 64;

/// An account, with its current password hash and second factor.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'c> {
    pub tenant: Tenant,
    pub name: &'c str,
    /// The hash of the password.
    pub password: &'c str,
    /// The secret of the active second factor.
    pub second_factor: Option<&'c str>,
}

impl Credentials<'_> {
    fn is_signed(&self, signer: &Signer, random: &str, at: &str, signature: &str) -> bool {
        let tenant = self.tenant.to_string();
        signer.is_signed(PURPOSE, &self.parts(&tenant, random, at), signature)
    }

    fn parts<'p>(&'p self, tenant: &'p str, random: &'p str, at: &'p str) -> [&'p str; 6] {
        [tenant, self.name, self.password, self.second_factor.unwrap_or_default(), random, at]
    }
}

/// The value of a new cookie, for a browser that has just signed in.
pub fn value(signer: &Signer, account: &Credentials<'_>, random: &str, now: Timestamp) -> String {
    let (tenant, at) = (account.tenant.to_string(), now.as_second().to_string());
    let signature = signer.sign(PURPOSE, &account.parts(&tenant, random, &at));
    format!("{random}.{at}.{signature}")
}

/// The browser of this cookie. `None` if the cookie is not valid, too old, of another account, or of a password or second
/// factor that the account no longer has.
pub fn browser(signer: &Signer, account: &Credentials<'_>, value: &str, now: Timestamp) -> Option<BrowserId> {
    let (random, rest) = value.split_once('.')?;
    let (at, signature) = rest.split_once('.')?;
    let made = Timestamp::from_second(at.parse().ok()?).ok()?;
    let is_current = made.checked_add(LIFETIME).is_ok_and(|end| now < end);
    let is_signed = random.len() <= MAX_RANDOM_BYTES && account.is_signed(signer, random, at, signature);
    (is_current && is_signed).then(|| BrowserId::new(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Credentials<'_> =
        Credentials { tenant: Tenant::FIRST, name: "ann", password: "p", second_factor: None };

    #[test]
    fn a_cookie_is_valid_for_its_account_and_for_a_year() {
        let signer = Signer::new("key");
        let now: Timestamp = "2026-11-27T00:00:00Z".parse().unwrap();
        let value = value(&signer, &ANN, "r", now);
        let read = |account: Credentials<'_>, value: &str, now| browser(&signer, &account, value, now);
        assert_eq!(read(ANN, &value, now), Some(BrowserId::new("r")));
        assert_eq!(read(Credentials { name: "bob", ..ANN }, &value, now), None);
        let last = now + LIFETIME - SignedDuration::from_secs(1);
        assert!(read(ANN, &value, last).is_some() && read(ANN, &value, now + LIFETIME).is_none());
        let later =
            value.replacen(&now.as_second().to_string(), &(now + LIFETIME).as_second().to_string(), 1);
        for forged in
            ["", "r", "r.1", "r.1.x", "..", &later, &value.replacen('r', "s", 1), &format!("{value}x")]
        {
            assert_eq!(read(ANN, forged, now), None, "{forged}");
        }
        assert_eq!(browser(&Signer::new("other"), &ANN, &value, now), None);
    }

    #[test]
    fn a_cookie_ends_with_the_password_and_the_second_factor() {
        let signer = Signer::new("key");
        let now = Timestamp::UNIX_EPOCH;
        let accounts = [
            ANN,
            Credentials { password: "q", ..ANN },
            Credentials { second_factor: Some("s"), ..ANN },
            Credentials { second_factor: Some("t"), ..ANN },
        ];
        for (number, made_for) in accounts.iter().enumerate() {
            let value = value(&signer, made_for, "r", now);
            for (other, account) in accounts.iter().enumerate() {
                assert_eq!(browser(&signer, account, &value, now).is_some(), number == other);
            }
        }
    }
}
