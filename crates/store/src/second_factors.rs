//! Second factors of users: secrets for time-based one-time passwords (RFC 6238), and recovery codes. The secret has to be
//! stored as it is, since codes are computed from it: who reads the database file can compute codes, and still needs the
//! password, whose hash alone is stored. Recovery codes are stored only as digests, and each is accepted once.

use crate::people::lock_person;
use crate::query::{Value, insert, sql};
use crate::writing::Writing;
use crate::{Store, StoreError, Tenant};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// A secret that a user wants to set up as the second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal<'p> {
    /// The secret, as the dashboard encodes it.
    pub secret: &'p str,
    /// The digest of the session that asked for it. No other session sees or activates it.
    pub session: &'p str,
}

impl Store {
    /// Returns the secret of the active second factor of a user, as the dashboard encodes it.
    pub async fn second_factor(&self, tenant: Tenant, name: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> =
            sql("SELECT secret FROM second_factor WHERE tenant = $1 AND name = $2 AND is_active = 1")
                .bind(tenant.0)
                .bind(name)
                .fetch_optional(&self.of_tenant(tenant))
                .await?;
        Ok(row.map(|(secret,)| secret))
    }

    /// Returns the secret that the session with this digest has proposed; `None` if the proposal is of another session, has
    /// ended, or is active already.
    pub async fn proposed_second_factor(
        &self,
        tenant: Tenant,
        name: &str,
        session: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sql("SELECT secret FROM second_factor
             WHERE tenant = $1 AND name = $2 AND is_active = 0 AND session = $3 AND expires_at > $4")
        .bind(tenant.0)
        .bind(name)
        .bind(session)
        .bind(now.as_second())
        .fetch_optional(&self.of_tenant(tenant))
        .await?;
        Ok(row.map(|(secret,)| secret))
    }

    /// Returns the names of the users with an active second factor.
    pub async fn names_with_second_factor(&self, tenant: Tenant) -> Result<BTreeSet<String>, StoreError> {
        let rows: Vec<(String,)> = sql("SELECT name FROM second_factor WHERE tenant = $1 AND is_active = 1")
            .bind(tenant.0)
            .fetch_all(&self.of_tenant(tenant))
            .await?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }

    /// Stores a secret that is not active yet, in place of an earlier proposal. Until `end`, its session can activate it. False if a second factor is active.
    pub async fn propose_second_factor(
        &self,
        tenant: Tenant,
        name: &str,
        proposal: Proposal<'_>,
        end: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sql("INSERT INTO second_factor (tenant, name, secret, is_active, last_step, session, expires_at)
             VALUES ($1, $2, $3, 0, 0, $4, $5)
             ON CONFLICT (tenant, name) DO UPDATE SET
               secret = excluded.secret, last_step = 0, session = excluded.session, expires_at = excluded.expires_at
             WHERE second_factor.is_active = 0")
        .bind(tenant.0)
        .bind(name)
        .bind(proposal.secret)
        .bind(proposal.session)
        .bind(end.as_second())
        .execute(&self.of_tenant(tenant))
        .await?;
        Ok(done > 0)
    }

    /// Activates a proposed secret after the code of time step `step`, stores the digests of the recovery codes, and ends
    /// all other sessions of the user, which began without a code. False if this session has not proposed this secret, or
    /// the proposal has ended.
    pub async fn activate_second_factor(
        &self,
        tenant: Tenant,
        name: &str,
        proposal: Proposal<'_>,
        now: Timestamp,
        step: i64,
        recovery: &[String],
    ) -> Result<bool, StoreError> {
        let mut transaction = self.of_tenant(tenant).writing().await?;
        lock_person(&mut transaction, tenant, name).await?;
        let done = sql("UPDATE second_factor SET is_active = 1, last_step = $1
             WHERE tenant = $2 AND name = $3 AND secret = $4 AND is_active = 0 AND session = $5 AND expires_at > $6")
        .bind(step)
        .bind(tenant.0)
        .bind(name)
        .bind(proposal.secret)
        .bind(proposal.session)
        .bind(now.as_second())
        .execute(&mut transaction)
        .await?;
        if done == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        replace_recovery_codes(&mut transaction, tenant, name, recovery).await?;
        sql("DELETE FROM sign_in WHERE tenant = $1 AND name = $2 AND digest <> $3")
            .bind(tenant.0)
            .bind(name)
            .bind(proposal.session)
            .execute(&mut transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Deletes a second factor that is only proposed. False if there is none, or it is active.
    pub async fn cancel_second_factor(&self, tenant: Tenant, name: &str) -> Result<bool, StoreError> {
        let done = sql("DELETE FROM second_factor WHERE tenant = $1 AND name = $2 AND is_active = 0")
            .bind(tenant.0)
            .bind(name)
            .execute(&self.of_tenant(tenant))
            .await?;
        Ok(done > 0)
    }

    /// Records that the code of a time step is used. False if it, or that of a later step, was used before.
    pub async fn use_time_step(&self, tenant: Tenant, name: &str, step: i64) -> Result<bool, StoreError> {
        let done = sql("UPDATE second_factor SET last_step = $1
             WHERE tenant = $2 AND name = $3 AND is_active = 1 AND last_step < $1")
        .bind(step)
        .bind(tenant.0)
        .bind(name)
        .execute(&self.of_tenant(tenant))
        .await?;
        Ok(done > 0)
    }

    /// Deletes a recovery code. False if it is unknown or was used before.
    pub async fn use_recovery_code(
        &self,
        tenant: Tenant,
        name: &str,
        digest: &str,
    ) -> Result<bool, StoreError> {
        let done = sql("DELETE FROM recovery_code WHERE tenant = $1 AND name = $2 AND digest = $3")
            .bind(tenant.0)
            .bind(name)
            .bind(digest)
            .execute(&self.of_tenant(tenant))
            .await?;
        Ok(done > 0)
    }

    /// Returns the number of recovery codes that were not used.
    pub async fn recovery_codes_left(&self, tenant: Tenant, name: &str) -> Result<u64, StoreError> {
        let (left,): (i64,) = sql("SELECT count(*) FROM recovery_code WHERE tenant = $1 AND name = $2")
            .bind(tenant.0)
            .bind(name)
            .fetch_one(&self.of_tenant(tenant))
            .await?;
        Ok(crate::count(left))
    }

    /// Replaces all recovery codes of a user by those with these digests.
    pub async fn put_recovery_codes(
        &self,
        tenant: Tenant,
        name: &str,
        digests: &[String],
    ) -> Result<(), StoreError> {
        let mut transaction = self.of_tenant(tenant).writing().await?;
        replace_recovery_codes(&mut transaction, tenant, name, digests).await?;
        transaction.commit().await
    }

    /// Deletes the second factor of a user, proposed or active, and the recovery codes. False if there is none.
    pub async fn remove_second_factor(&self, tenant: Tenant, name: &str) -> Result<bool, StoreError> {
        let mut transaction = self.of_tenant(tenant).writing().await?;
        lock_person(&mut transaction, tenant, name).await?;
        let done = sql("DELETE FROM second_factor WHERE tenant = $1 AND name = $2")
            .bind(tenant.0)
            .bind(name)
            .execute(&mut transaction)
            .await?;
        replace_recovery_codes(&mut transaction, tenant, name, &[]).await?;
        transaction.commit().await?;
        Ok(done > 0)
    }
}

async fn replace_recovery_codes(
    transaction: &mut Writing,
    tenant: Tenant,
    name: &str,
    digests: &[String],
) -> Result<(), StoreError> {
    sql("DELETE FROM recovery_code WHERE tenant = $1 AND name = $2")
        .bind(tenant.0)
        .bind(name)
        .execute(&mut *transaction)
        .await?;
    if !digests.is_empty() {
        let values = |digest| [Value::from(tenant.0), Value::from(name), Value::from(digest)];
        insert("INSERT INTO recovery_code (tenant, name, digest)", digests, "", values)
            .execute(transaction)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::tests::{at, session};

    const T: Tenant = Tenant::FIRST;

    fn by<'p>(session: &'p str, secret: &'p str) -> Proposal<'p> {
        Proposal { secret, session }
    }

    #[tokio::test]
    async fn a_proposed_secret_is_active_only_after_a_code_and_is_then_not_replaced() {
        let (_dir, store) = crate::scratch().await;
        let propose = async |secret: &str| {
            store.propose_second_factor(T, "ann", by("a", secret), at(10)).await.unwrap()
        };
        let proposed = async || store.proposed_second_factor(T, "ann", "a", at(9)).await.unwrap();
        assert!(propose("one").await && propose("two").await);
        assert_eq!(proposed().await.as_deref(), Some("two"));
        assert_eq!(store.second_factor(T, "ann").await.unwrap(), None);
        assert!(!store.use_time_step(T, "ann", 7).await.unwrap(), "not active yet");
        let codes = ["a".to_owned(), "b".to_owned()];
        let activate = async |secret: &str| {
            store.activate_second_factor(T, "ann", by("a", secret), at(9), 7, &codes).await.unwrap()
        };
        assert!(!activate("one").await && activate("two").await && !activate("two").await);
        assert_eq!(store.second_factor(T, "ann").await.unwrap().as_deref(), Some("two"));
        assert_eq!(proposed().await, None);
        assert!(!propose("three").await && !store.cancel_second_factor(T, "ann").await.unwrap());
        assert_eq!(store.names_with_second_factor(T).await.unwrap(), BTreeSet::from(["ann".to_owned()]));
    }

    #[tokio::test]
    async fn a_proposed_secret_belongs_to_one_session_and_ends() {
        let (_dir, store, _) = crate::people::tests::with_ann().await;
        for digest in ["a", "b"] {
            assert!(store.put_session(&session(digest, "ann")).await.unwrap());
        }
        store.propose_second_factor(T, "ann", by("a", "s"), at(10)).await.unwrap();
        for (of, now, is_there) in [("a", 9, true), ("b", 9, false), ("", 9, false), ("a", 10, false)] {
            let found = store.proposed_second_factor(T, "ann", of, at(now)).await.unwrap();
            assert_eq!(found.is_some(), is_there, "{of} {now}");
        }
        for (of, now) in [("b", 9), ("", 9), ("a", 10)] {
            assert!(
                !store.activate_second_factor(T, "ann", by(of, "s"), at(now), 7, &[]).await.unwrap(),
                "{of} {now}"
            );
        }
        assert!(store.activate_second_factor(T, "ann", by("a", "s"), at(9), 7, &[]).await.unwrap());
        let left = store.sessions_of(T, "ann", at(9)).await.unwrap();
        assert_eq!(
            left.iter().map(|one| one.digest.as_str()).collect::<Vec<_>>(),
            ["a"],
            "the others had no code"
        );
    }

    #[tokio::test]
    async fn each_time_step_and_each_recovery_code_is_used_once() {
        let (_dir, store) = crate::scratch().await;
        store.propose_second_factor(T, "ann", by("a", "s"), at(10)).await.unwrap();
        let codes = ["a".to_owned(), "b".to_owned()];
        assert!(store.activate_second_factor(T, "ann", by("a", "s"), at(9), 7, &codes).await.unwrap());
        let used = async |step| store.use_time_step(T, "ann", step).await.unwrap();
        assert_eq!([used(6).await, used(7).await, used(8).await, used(8).await], [false, false, true, false]);
        let used = async |code| store.use_recovery_code(T, "ann", code).await.unwrap();
        assert_eq!([used("x").await, used("a").await, used("a").await], [false, true, false]);
        assert_eq!(store.recovery_codes_left(T, "ann").await.unwrap(), 1);
        store.put_recovery_codes(T, "ann", &["c".to_owned(), "d".to_owned()]).await.unwrap();
        assert_eq!([used("b").await, used("c").await], [false, true]);
        assert!(store.remove_second_factor(T, "ann").await.unwrap());
        assert!(!store.remove_second_factor(T, "ann").await.unwrap());
        assert_eq!(store.recovery_codes_left(T, "ann").await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_removed_user_leaves_no_second_factor_to_the_next_one_of_the_name() {
        let (_dir, store, _) = crate::people::tests::with_ann().await;
        store.propose_second_factor(T, "ann", by("a", "s"), at(10)).await.unwrap();
        let codes = ["a".to_owned()];
        assert!(store.activate_second_factor(T, "ann", by("a", "s"), at(9), 7, &codes).await.unwrap());
        store.remove_person(T, "ann").await.unwrap();
        assert_eq!(store.second_factor(T, "ann").await.unwrap(), None);
        assert!(!store.use_recovery_code(T, "ann", "a").await.unwrap());
    }
}
