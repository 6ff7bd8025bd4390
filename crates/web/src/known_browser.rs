//! The cookie of a browser that signed in before. It names the account only by its signature, gives no access, and lasts
//! for a year: its browser has a count of failed sign-ins of its own (`sign_in_limits`), so that a stranger who fails at the
//! same account or behind the same address does not keep it out.

use crate::sign_in_limits::BrowserId;
use crate::signer::Signer;
use jiff::{SignedDuration, Timestamp};
use store::Tenant;

/// The cookie's name.
pub const COOKIE_NAME: &str = "sternpost-browser";
/// How long the cookie is valid. Each sign-in begins anew.
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// What the signature is for.
const PURPOSE: &str = "browser";
/// The maximum length of the random part of a cookie.
const MAX_RANDOM_BYTES: usize = 64;

/// The value of a new cookie, for a browser that has just signed in.
pub fn value(signer: &Signer, tenant: Tenant, name: &str, random: &str, now: Timestamp) -> String {
    let at = now.as_second().to_string();
    let signature = signer.sign(PURPOSE, &[&tenant.to_string(), name, random, &at]);
    format!("{random}.{at}.{signature}")
}

/// The browser of this cookie. `None` if the cookie is not valid, too old, or of another account.
pub fn browser(
    signer: &Signer,
    tenant: Tenant,
    name: &str,
    value: &str,
    now: Timestamp,
) -> Option<BrowserId> {
    let (random, rest) = value.split_once('.')?;
    let (at, signature) = rest.split_once('.')?;
    let made = Timestamp::from_second(at.parse().ok()?).ok()?;
    let is_current = made.checked_add(LIFETIME).is_ok_and(|end| now < end);
    let is_signed = random.len() <= MAX_RANDOM_BYTES
        && signer.is_signed(PURPOSE, &[&tenant.to_string(), name, random, at], signature);
    (is_current && is_signed).then(|| BrowserId::new(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_valid_for_its_account_and_for_a_year() {
        let signer = Signer::new("key");
        let now: Timestamp = "2026-11-27T00:00:00Z".parse().unwrap();
        let value = value(&signer, Tenant::FIRST, "ann", "r", now);
        let read = |name: &str, value: &str, now| browser(&signer, Tenant::FIRST, name, value, now);
        assert_eq!(read("ann", &value, now), Some(BrowserId::new("r")));
        assert_eq!(read("bob", &value, now), None);
        let last = now + LIFETIME - SignedDuration::from_secs(1);
        assert!(read("ann", &value, last).is_some() && read("ann", &value, now + LIFETIME).is_none());
        let later =
            value.replacen(&now.as_second().to_string(), &(now + LIFETIME).as_second().to_string(), 1);
        for forged in
            ["", "r", "r.1", "r.1.x", "..", &later, &value.replacen('r', "s", 1), &format!("{value}x")]
        {
            assert_eq!(read("ann", forged, now), None, "{forged}");
        }
        assert_eq!(browser(&Signer::new("other"), Tenant::FIRST, "ann", &value, now), None);
    }
}
