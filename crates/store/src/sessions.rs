//! Sessions of signed-in users. A session's token is stored only as its digest, so that reading the database file is not
//! enough to use it. Where a session began is stored for its user, who may end it.

use crate::people::{Person, lock_person};
use crate::query::{built, sql};
use crate::writing::Writing;
use crate::{Store, StoreError, Tenant, time};
use jiff::Timestamp;

/// A session to store.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'s> {
    /// The digest of the session's token.
    pub digest: &'s str,
    /// The tenant of the user.
    pub tenant: Tenant,
    /// The user name.
    pub name: &'s str,
    /// The hash of the password that was verified.
    pub password: &'s str,
    /// The secret of the second factor whose code was verified; `None` if no code was asked for.
    pub second_factor: Option<&'s str>,
    /// When the user signed in.
    pub begun_at: Timestamp,
    /// When the session ends.
    pub expires_at: Timestamp,
    /// The address that the user signed in from; empty if it is not known.
    pub address: &'s str,
    /// The text of the `User-Agent` header at the sign-in; may be empty.
    pub browser: &'s str,
}

/// A stored session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The digest of the session's token.
    pub digest: String,
    /// When the user signed in; the epoch if an earlier version stored the session.
    pub begun_at: Timestamp,
    /// When the session ends.
    pub expires_at: Timestamp,
    /// The address that the user signed in from; empty if it is not known.
    pub address: String,
    /// The text of the `User-Agent` header at the sign-in; may be empty.
    pub browser: String,
}

/// The maximum number of sessions of one user; a further one ends the oldest.
const MAX_SESSIONS: i64 = 50;

impl Store {
    /// Stores a session, and deletes the expired ones and the oldest of the same user beyond the maximum. False if what was
    /// verified no longer lets the user in: the user was removed, or has another password or second factor by now.
    pub async fn put_session(&self, new: &NewSession<'_>) -> Result<bool, StoreError> {
        let mut transaction = self.of_tenant(new.tenant).writing().await?;
        if !is_still_verified(&mut transaction, new).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        sql("DELETE FROM sign_in WHERE tenant = $1 AND expires_at <= $2")
            .bind(new.tenant)
            .bind(new.begun_at.as_second())
            .execute(&mut transaction)
            .await?;
        sql("DELETE FROM sign_in WHERE tenant = $1 AND name = $2 AND digest NOT IN
               (SELECT digest FROM sign_in WHERE tenant = $1 AND name = $2
                ORDER BY begun_at DESC, expires_at DESC, digest LIMIT $3)")
        .bind(new.tenant.0)
        .bind(new.name)
        .bind(MAX_SESSIONS - 1)
        .execute(&mut transaction)
        .await?;
        sql("INSERT INTO sign_in (digest, tenant, name, begun_at, expires_at, address, browser)
             VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(new.digest)
        .bind(new.tenant.0)
        .bind(new.name)
        .bind(new.begun_at.as_second())
        .bind(new.expires_at.as_second())
        .bind(new.address)
        .bind(new.browser)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Returns the one of these sessions that began last, with its digest and user; as [`Self::session_user`] for each. At most
    /// some hundred.
    pub async fn session_of(
        &self,
        digests: &[&str],
        now: Timestamp,
    ) -> Result<Option<(String, Tenant, Person)>, StoreError> {
        if digests.is_empty() {
            return Ok(None);
        }
        let places: Vec<String> = (0..digests.len()).map(|number| format!("${}", number + 2)).collect();
        let mut query = built(format!(
            "SELECT sign_in.digest, person.tenant, person.name, person.role, person.password
             FROM sign_in JOIN person ON person.name = sign_in.name AND person.tenant = sign_in.tenant
             WHERE sign_in.expires_at > $1 AND sign_in.digest IN ({})
             ORDER BY sign_in.begun_at DESC, sign_in.digest LIMIT 1",
            places.join(", ")
        ))
        .bind(now.as_second());
        for digest in digests {
            query = query.bind(*digest);
        }
        let row: Option<(String, i64, String, String, String)> = query.fetch_optional(&self.across()).await?;
        Ok(row.map(|(digest, tenant, name, role, password)| {
            (digest, Tenant(tenant), Person { name, role, password })
        }))
    }

    /// Returns the user of a session. `None` if the session is unknown or expired, or the user was deleted.
    pub async fn session_user(
        &self,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<(Tenant, Person)>, StoreError> {
        let row: Option<(i64, String, String, String)> =
            sql("SELECT person.tenant, person.name, person.role, person.password
             FROM sign_in JOIN person ON person.name = sign_in.name AND person.tenant = sign_in.tenant
             WHERE sign_in.digest = $1 AND sign_in.expires_at > $2")
            .bind(digest)
            .bind(now.as_second())
            .fetch_optional(&self.across())
            .await?;
        Ok(row.map(|(tenant, name, role, password)| (Tenant(tenant), Person { name, role, password })))
    }

    /// Returns the sessions of a user, the newest first.
    pub async fn sessions_of(
        &self,
        tenant: Tenant,
        name: &str,
        now: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let rows: Vec<(String, i64, i64, String, String)> =
            sql("SELECT digest, begun_at, expires_at, address, browser FROM sign_in
             WHERE tenant = $1 AND name = $2 AND expires_at > $3 ORDER BY begun_at DESC, digest LIMIT $4")
            .bind(tenant.0)
            .bind(name)
            .bind(now.as_second())
            .bind(MAX_SESSIONS)
            .fetch_all(&self.of_tenant(tenant))
            .await?;
        let session = |(digest, begun_at, expires_at, address, browser)| {
            let (begun_at, expires_at) = (time("sign_in", begun_at)?, time("sign_in", expires_at)?);
            Ok(Session { digest, begun_at, expires_at, address, browser })
        };
        rows.into_iter().map(session).collect()
    }

    /// Ends the session whose token has this digest.
    pub async fn sign_out(&self, digest: &str) -> Result<(), StoreError> {
        sql("DELETE FROM sign_in WHERE digest = $1").bind(digest).execute(&self.across()).await?;
        Ok(())
    }

    /// Ends all sessions of a user but the one with the digest `kept`. Returns how many they were.
    pub async fn end_other_sessions(
        &self,
        tenant: Tenant,
        name: &str,
        kept: &str,
    ) -> Result<u64, StoreError> {
        sql("DELETE FROM sign_in WHERE tenant = $1 AND name = $2 AND digest <> $3")
            .bind(tenant.0)
            .bind(name)
            .bind(kept)
            .execute(&self.of_tenant(tenant))
            .await
    }
}

/// True if the user has the verified password, and the second factor that was verified or none. Until the end of the
/// transaction, neither is changed.
async fn is_still_verified(transaction: &mut Writing, new: &NewSession<'_>) -> Result<bool, StoreError> {
    let password = lock_person(transaction, new.tenant, new.name).await?;
    let active: Option<(String,)> =
        sql("SELECT secret FROM second_factor WHERE tenant = $1 AND name = $2 AND is_active = 1")
            .bind(new.tenant.0)
            .bind(new.name)
            .fetch_optional(&mut *transaction)
            .await?;
    let active = active.as_ref().map(|(secret,)| secret.as_str());
    Ok(password.as_deref() == Some(new.password) && active == new.second_factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::tests::{at, session, with_ann};
    use crate::second_factors::Proposal;

    #[tokio::test]
    async fn no_session_begins_from_a_password_or_a_second_factor_that_is_no_longer_the_users() {
        let (_dir, store, ann) = with_ann().await;
        let tenant = Tenant::FIRST;
        let begins = async |digest: &str, password: &str, second_factor: Option<&str>| {
            let new = NewSession { password, second_factor, ..session(digest, "ann") };
            let is_stored = store.put_session(&new).await.unwrap();
            assert_eq!(store.session_user(digest, at(1)).await.unwrap().is_some(), is_stored);
            is_stored
        };
        assert!(begins("a", "p", None).await && !begins("b", "wrong", None).await);
        assert!(store.change_password(tenant, "ann", "p", "q", "a").await.unwrap());
        assert!(!begins("c", "p", None).await && begins("d", "q", None).await);
        // A link that sets a new password.
        let invitation = crate::people::tests::invite("ann", "operator", 100);
        store.put_invitation("d2", &invitation, at(0)).await.unwrap();
        let again = Person { password: "r".into(), ..ann };
        assert!(store.accept("d2", tenant, &again, at(0)).await.unwrap());
        assert!(!begins("e", "q", None).await && begins("f", "r", None).await);
        // A second factor that was set up meanwhile, and one that was removed.
        let proposal = Proposal { secret: "s", session: "f" };
        store.propose_second_factor(tenant, "ann", proposal, at(100)).await.unwrap();
        assert!(begins("g", "r", None).await, "it is only proposed");
        assert!(store.activate_second_factor(tenant, "ann", proposal, at(1), 7, &[]).await.unwrap());
        assert!(!begins("h", "r", None).await && begins("i", "r", Some("s")).await);
        store.remove_second_factor(tenant, "ann").await.unwrap();
        assert!(!begins("j", "r", Some("s")).await);
        store.remove_person(tenant, "ann").await.unwrap();
        assert!(!begins("k", "r", None).await);
    }

    #[tokio::test]
    async fn sessions_end_by_expiry_sign_out_and_deletion_of_the_user() {
        let (_dir, store, ann) = with_ann().await;
        for digest in ["a", "b", "c"] {
            store.put_session(&session(digest, "ann")).await.unwrap();
        }
        let found = store.session_user("a", at(99)).await.unwrap();
        assert_eq!(found, Some((Tenant::FIRST, ann)));
        assert_eq!(store.session_user("a", at(100)).await.unwrap(), None);
        store.sign_out("b").await.unwrap();
        assert_eq!(store.session_user("b", at(1)).await.unwrap(), None);
        store.remove_person(Tenant::FIRST, "ann").await.unwrap();
        assert_eq!(store.session_user("c", at(1)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_user_lists_the_sessions_and_ends_all_others() {
        let (_dir, store, _) = with_ann().await;
        for (second, digest) in ["a", "b", "c"].into_iter().enumerate() {
            let begun_at = at(i64::try_from(second).unwrap());
            store.put_session(&NewSession { begun_at, ..session(digest, "ann") }).await.unwrap();
        }
        let bob = Person { name: "bob".into(), role: "reader".into(), password: "p".into() };
        store.put_invitation("d2", &crate::people::tests::invite("bob", "reader", 100), at(0)).await.unwrap();
        assert!(store.accept("d2", Tenant::FIRST, &bob, at(0)).await.unwrap());
        assert!(store.put_session(&session("of bob", "bob")).await.unwrap());
        let listed = store.sessions_of(Tenant::FIRST, "ann", at(5)).await.unwrap();
        assert_eq!(listed.iter().map(|one| one.digest.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
        assert_eq!((listed[0].address.as_str(), listed[0].browser.as_str()), ("192.0.2.1", "Lynx"));
        assert_eq!((listed[0].begun_at, listed[0].expires_at), (at(2), at(100)));
        assert_eq!(store.sessions_of(Tenant::FIRST, "ann", at(100)).await.unwrap(), []);
        assert_eq!(store.end_other_sessions(Tenant::FIRST, "ann", "b").await.unwrap(), 2);
        let left = store.sessions_of(Tenant::FIRST, "ann", at(5)).await.unwrap();
        assert_eq!(left.iter().map(|one| one.digest.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(store.sessions_of(Tenant::FIRST, "bob", at(5)).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_user_has_a_bounded_number_of_sessions_and_the_oldest_ends() {
        let (_dir, store, _) = with_ann().await;
        for second in 0..MAX_SESSIONS + 2 {
            let digest = format!("s{second}");
            store.put_session(&NewSession { begun_at: at(second), ..session(&digest, "ann") }).await.unwrap();
        }
        for (digest, stays) in [("s0", false), ("s1", false), ("s2", true), ("s51", true)] {
            assert_eq!(store.session_user(digest, at(60)).await.unwrap().is_some(), stays, "{digest}");
        }
    }
}
