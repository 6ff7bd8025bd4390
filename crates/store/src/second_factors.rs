//! Second factors of users: secrets for time-based one-time passwords (RFC 6238), and recovery codes. The secret has to be
//! stored as it is, since codes are computed from it: who reads the database file can compute codes, and still needs the
//! password, whose hash alone is stored. Recovery codes are stored only as digests, and each is accepted once.

use crate::query::{Value, insert, sql};
use crate::writing::Writing;
use crate::{Store, StoreError, Tenant};
use std::collections::BTreeSet;

/// The second factor of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondFactor {
    /// The secret, as the dashboard encodes it.
    pub secret: String,
    /// True once a code has shown that the user's device has the secret. Only then is it asked for.
    pub is_active: bool,
}

impl Store {
    /// Returns the second factor of a user, also while it is only proposed.
    pub async fn second_factor(
        &self,
        tenant: Tenant,
        name: &str,
    ) -> Result<Option<SecondFactor>, StoreError> {
        let row: Option<(String, i64)> =
            sql("SELECT secret, is_active FROM second_factor WHERE tenant = $1 AND name = $2")
                .bind(tenant.0)
                .bind(name)
                .fetch_optional(self)
                .await?;
        Ok(row.map(|(secret, is_active)| SecondFactor { secret, is_active: is_active != 0 }))
    }

    /// Returns the names of the users with an active second factor.
    pub async fn names_with_second_factor(&self, tenant: Tenant) -> Result<BTreeSet<String>, StoreError> {
        let rows: Vec<(String,)> = sql("SELECT name FROM second_factor WHERE tenant = $1 AND is_active = 1")
            .bind(tenant.0)
            .fetch_all(self)
            .await?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }

    /// Stores a secret that is not active yet, in place of an earlier proposal. False if a second factor is active.
    pub async fn propose_second_factor(
        &self,
        tenant: Tenant,
        name: &str,
        secret: &str,
    ) -> Result<bool, StoreError> {
        let done = sql("INSERT INTO second_factor (tenant, name, secret, is_active, last_step)
             VALUES ($1, $2, $3, 0, 0)
             ON CONFLICT (tenant, name) DO UPDATE SET secret = excluded.secret, last_step = 0
             WHERE second_factor.is_active = 0")
        .bind(tenant.0)
        .bind(name)
        .bind(secret)
        .execute(self)
        .await?;
        Ok(done > 0)
    }

    /// Activates a proposed secret after the code of time step `step`, and stores the digests of the recovery codes.
    /// False if this secret is not proposed.
    pub async fn activate_second_factor(
        &self,
        tenant: Tenant,
        name: &str,
        secret: &str,
        step: i64,
        recovery: &[String],
    ) -> Result<bool, StoreError> {
        let mut transaction = self.writing().await?;
        let done = sql("UPDATE second_factor SET is_active = 1, last_step = $1
             WHERE tenant = $2 AND name = $3 AND secret = $4 AND is_active = 0")
        .bind(step)
        .bind(tenant.0)
        .bind(name)
        .bind(secret)
        .execute(&mut transaction)
        .await?;
        if done == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        replace_recovery_codes(&mut transaction, tenant, name, recovery).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Records that the code of a time step is used. False if it, or that of a later step, was used before.
    pub async fn use_time_step(&self, tenant: Tenant, name: &str, step: i64) -> Result<bool, StoreError> {
        let done = sql("UPDATE second_factor SET last_step = $1
             WHERE tenant = $2 AND name = $3 AND is_active = 1 AND last_step < $1")
        .bind(step)
        .bind(tenant.0)
        .bind(name)
        .execute(self)
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
            .execute(self)
            .await?;
        Ok(done > 0)
    }

    /// Returns the number of recovery codes that were not used.
    pub async fn recovery_codes_left(&self, tenant: Tenant, name: &str) -> Result<u64, StoreError> {
        let (left,): (i64,) = sql("SELECT count(*) FROM recovery_code WHERE tenant = $1 AND name = $2")
            .bind(tenant.0)
            .bind(name)
            .fetch_one(self)
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
        let mut transaction = self.writing().await?;
        replace_recovery_codes(&mut transaction, tenant, name, digests).await?;
        transaction.commit().await
    }

    /// Deletes the second factor of a user and the recovery codes. False if there is none.
    pub async fn remove_second_factor(&self, tenant: Tenant, name: &str) -> Result<bool, StoreError> {
        let mut transaction = self.writing().await?;
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

    const T: Tenant = Tenant::FIRST;

    #[tokio::test]
    async fn a_proposed_secret_is_active_only_after_a_code_and_is_then_not_replaced() {
        let (_dir, store) = crate::scratch().await;
        let proposed = |secret: &str| SecondFactor { secret: secret.into(), is_active: false };
        assert!(store.propose_second_factor(T, "ann", "one").await.unwrap());
        assert!(store.propose_second_factor(T, "ann", "two").await.unwrap());
        assert_eq!(store.second_factor(T, "ann").await.unwrap(), Some(proposed("two")));
        assert!(!store.use_time_step(T, "ann", 7).await.unwrap(), "not active yet");
        let activate = async |secret: &str| {
            store.activate_second_factor(T, "ann", secret, 7, &["a".into(), "b".into()]).await.unwrap()
        };
        assert!(!activate("one").await && activate("two").await && !activate("two").await);
        let active = SecondFactor { is_active: true, ..proposed("two") };
        assert_eq!(store.second_factor(T, "ann").await.unwrap(), Some(active));
        assert!(!store.propose_second_factor(T, "ann", "three").await.unwrap());
        assert_eq!(store.names_with_second_factor(T).await.unwrap(), BTreeSet::from(["ann".to_owned()]));
    }

    #[tokio::test]
    async fn each_time_step_and_each_recovery_code_is_used_once() {
        let (_dir, store) = crate::scratch().await;
        store.propose_second_factor(T, "ann", "s").await.unwrap();
        let codes = ["a".to_owned(), "b".to_owned()];
        assert!(store.activate_second_factor(T, "ann", "s", 7, &codes).await.unwrap());
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
        store.propose_second_factor(T, "ann", "s").await.unwrap();
        assert!(store.activate_second_factor(T, "ann", "s", 7, &["a".to_owned()]).await.unwrap());
        store.remove_person(T, "ann").await.unwrap();
        assert_eq!(store.second_factor(T, "ann").await.unwrap(), None);
        assert!(!store.use_recovery_code(T, "ann", "a").await.unwrap());
    }
}
