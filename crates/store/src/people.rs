//! The users of the dashboard, invitations, sessions, and secrets of the program. Tokens of invitations and sessions
//! are stored only as digests, so that reading the database file is not enough to sign in.

use crate::query::sql;
use crate::{Store, StoreError, TENANT};
use jiff::Timestamp;

/// A user of the dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user name, unique in the store.
    pub name: String,
    /// The name of the user's role, as the dashboard defines it.
    pub role: String,
    /// The password's Argon2id hash, in PHC string format.
    pub password: String,
}

impl Store {
    /// Returns all users, in the order of their names.
    pub async fn people(&self) -> Result<Vec<Person>, StoreError> {
        let rows: Vec<(String, String, String)> =
            sql("SELECT name, role, password FROM person WHERE tenant = $1 ORDER BY name")
                .bind(TENANT)
                .fetch_all(self)
                .await?;
        Ok(rows.into_iter().map(|(name, role, password)| Person { name, role, password }).collect())
    }

    /// Returns the user of this name.
    pub async fn person(&self, name: &str) -> Result<Option<Person>, StoreError> {
        let row: Option<(String, String, String)> =
            sql("SELECT name, role, password FROM person WHERE tenant = $1 AND name = $2")
                .bind(TENANT)
                .bind(name)
                .fetch_optional(self)
                .await?;
        Ok(row.map(|(name, role, password)| Person { name, role, password }))
    }

    /// Deletes a user and all of the user's sessions. False if there is no such user.
    pub async fn remove_person(&self, name: &str) -> Result<bool, StoreError> {
        let mut transaction = self.writing().await?;
        let done = sql("DELETE FROM person WHERE tenant = $1 AND name = $2")
            .bind(TENANT)
            .bind(name)
            .execute(&mut transaction)
            .await?;
        sql("DELETE FROM sign_in WHERE tenant = $1 AND name = $2")
            .bind(TENANT)
            .bind(name)
            .execute(&mut transaction)
            .await?;
        transaction.commit().await?;
        Ok(done > 0)
    }

    /// Stores an invitation under the digest of its token, and deletes the expired ones.
    pub async fn put_invitation(
        &self,
        digest: &str,
        name: &str,
        role: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        sql("DELETE FROM invitation WHERE expires_at <= $1")
            .bind(now.as_second())
            .execute(&mut transaction)
            .await?;
        sql("INSERT INTO invitation (digest, tenant, name, role, expires_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(digest)
            .bind(TENANT)
            .bind(name)
            .bind(role)
            .bind(expires_at.as_second())
            .execute(&mut transaction)
            .await?;
        transaction.commit().await
    }

    /// Returns the user name and role of an invitation. `None` if it is unknown, used or expired.
    pub async fn invitation(
        &self,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<(String, String)>, StoreError> {
        sql("SELECT name, role FROM invitation WHERE digest = $1 AND expires_at > $2")
            .bind(digest)
            .bind(now.as_second())
            .fetch_optional(self)
            .await
    }

    /// Accepts an invitation: deletes it, adds or replaces the user, and ends all earlier sessions of that name.
    /// False if the invitation is unknown, used, expired, or for a different name.
    pub async fn accept(&self, digest: &str, person: &Person, now: Timestamp) -> Result<bool, StoreError> {
        let mut transaction = self.writing().await?;
        let done = sql("DELETE FROM invitation WHERE digest = $1 AND name = $2 AND expires_at > $3")
            .bind(digest)
            .bind(&person.name)
            .bind(now.as_second())
            .execute(&mut transaction)
            .await?;
        if done == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        sql("INSERT INTO person (tenant, name, role, password) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, name) DO UPDATE SET role = excluded.role, password = excluded.password")
        .bind(TENANT)
        .bind(&person.name)
        .bind(&person.role)
        .bind(&person.password)
        .execute(&mut transaction)
        .await?;
        sql("DELETE FROM sign_in WHERE tenant = $1 AND name = $2")
            .bind(TENANT)
            .bind(&person.name)
            .execute(&mut transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Stores a session under the digest of its token, and deletes the expired ones.
    pub async fn put_session(
        &self,
        digest: &str,
        name: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        sql("DELETE FROM sign_in WHERE expires_at <= $1")
            .bind(now.as_second())
            .execute(&mut transaction)
            .await?;
        sql("INSERT INTO sign_in (digest, tenant, name, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(digest)
            .bind(TENANT)
            .bind(name)
            .bind(expires_at.as_second())
            .execute(&mut transaction)
            .await?;
        transaction.commit().await
    }

    /// Returns the user of a session. `None` if the session is unknown or expired, or the user was deleted.
    pub async fn session_user(&self, digest: &str, now: Timestamp) -> Result<Option<Person>, StoreError> {
        let row: Option<(String, String, String)> = sql("SELECT person.name, person.role, person.password
             FROM sign_in JOIN person ON person.name = sign_in.name AND person.tenant = sign_in.tenant
             WHERE sign_in.digest = $1 AND sign_in.expires_at > $2")
        .bind(digest)
        .bind(now.as_second())
        .fetch_optional(self)
        .await?;
        Ok(row.map(|(name, role, password)| Person { name, role, password }))
    }

    /// Returns the secret of this name. If there is none, stores `else_keep` and returns it.
    pub async fn secret(&self, name: &str, else_keep: &str) -> Result<String, StoreError> {
        sql("INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(else_keep)
            .execute(self)
            .await?;
        let (value,): (String,) =
            sql("SELECT value FROM secret WHERE name = $1").bind(name).fetch_one(self).await?;
        Ok(value)
    }

    /// Returns the secret of this name, or `None` if there is none.
    pub async fn known_secret(&self, name: &str) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> =
            sql("SELECT value FROM secret WHERE name = $1").bind(name).fetch_optional(self).await?;
        Ok(row.map(|(value,)| value))
    }

    /// Ends a session.
    pub async fn sign_out(&self, digest: &str) -> Result<(), StoreError> {
        sql("DELETE FROM sign_in WHERE digest = $1").bind(digest).execute(self).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn an_invitation_can_be_used_once_and_expires() {
        let (_dir, store) = crate::scratch().await;
        let ann = Person { name: "ann".into(), role: "operator".into(), password: "p".into() };
        store.put_invitation("d1", "ann", "operator", at(0), at(100)).await.unwrap();
        assert_eq!(store.invitation("d1", at(100)).await.unwrap(), None);
        assert!(!store.accept("d1", &ann, at(100)).await.unwrap());
        assert!(!store.accept("d1", &Person { name: "bob".into(), ..ann.clone() }, at(1)).await.unwrap());
        assert!(store.accept("d1", &ann, at(1)).await.unwrap());
        assert!(!store.accept("d1", &ann, at(1)).await.unwrap());
        assert_eq!(store.people().await.unwrap(), std::slice::from_ref(&ann));
    }

    #[tokio::test]
    async fn sessions_end_by_expiry_sign_out_and_deletion_of_the_user() {
        let (_dir, store) = crate::scratch().await;
        let ann = Person { name: "ann".into(), role: "operator".into(), password: "p".into() };
        store.put_invitation("d1", "ann", "operator", at(0), at(100)).await.unwrap();
        assert!(store.accept("d1", &ann, at(0)).await.unwrap());
        for digest in ["a", "b", "c"] {
            store.put_session(digest, "ann", at(0), at(100)).await.unwrap();
        }
        assert_eq!(store.session_user("a", at(99)).await.unwrap(), Some(ann.clone()));
        assert_eq!(store.session_user("a", at(100)).await.unwrap(), None);
        store.sign_out("b").await.unwrap();
        assert_eq!(store.session_user("b", at(1)).await.unwrap(), None);
        assert!(store.remove_person("ann").await.unwrap() && !store.remove_person("ann").await.unwrap());
        assert_eq!(store.session_user("c", at(1)).await.unwrap(), None);
    }
}
