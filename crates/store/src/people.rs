//! The users of the dashboard, their invitations, and secrets of the program. The token of an invitation is stored only
//! as its digest, so that reading the database file is not enough to use it. A name has at most one invitation.

use crate::query::{built, sql};
use crate::writing::Writing;
use crate::{Store, StoreError, Tenant, time};
use jiff::Timestamp;

/// A user of the dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user name, unique within the tenant.
    pub name: String,
    /// The name of the user's role, as the dashboard defines it.
    pub role: String,
    /// The password's Argon2id hash, in PHC string format.
    pub password: String,
}

/// An invitation that was not used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The tenant that the user belongs to.
    pub tenant: Tenant,
    /// The name of the user that the link creates, or gives a new password.
    pub name: String,
    /// The name of the role that the link grants.
    pub role: String,
    /// When the link expires.
    pub expires_at: Timestamp,
}

/// What [`Store::remove_person`] deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// True if there was such a user.
    pub person: bool,
    /// True if there was an invitation for the name, used or not by its end.
    pub invitation: bool,
}

impl Store {
    /// Returns all users, in the order of their names.
    pub async fn people(&self, tenant: Tenant) -> Result<Vec<Person>, StoreError> {
        let rows: Vec<(String, String, String)> =
            sql("SELECT name, role, password FROM person WHERE tenant = $1 ORDER BY name")
                .bind(tenant.0)
                .fetch_all(&self.of_tenant(tenant))
                .await?;
        Ok(rows.into_iter().map(|(name, role, password)| Person { name, role, password }).collect())
    }

    /// Returns the user of this name.
    pub async fn person(&self, tenant: Tenant, name: &str) -> Result<Option<Person>, StoreError> {
        let row: Option<(String, String, String)> =
            sql("SELECT name, role, password FROM person WHERE tenant = $1 AND name = $2")
                .bind(tenant.0)
                .bind(name)
                .fetch_optional(&self.of_tenant(tenant))
                .await?;
        Ok(row.map(|(name, role, password)| Person { name, role, password }))
    }

    /// Deletes a user with everything that lets them in: sessions, an unused invitation, and the second factor.
    pub async fn remove_person(&self, tenant: Tenant, name: &str) -> Result<Removed, StoreError> {
        let mut transaction = self.of_tenant(tenant).writing().await?;
        let person = delete_of(&mut transaction, "person", tenant, name).await?;
        let invitation = delete_of(&mut transaction, "invitation", tenant, name).await?;
        for table in ["sign_in", "second_factor", "recovery_code"] {
            delete_of(&mut transaction, table, tenant, name).await?;
        }
        transaction.commit().await?;
        Ok(Removed { person, invitation })
    }

    /// Replaces a password and ends all sessions but the one with the digest `kept`, if it is still `old`.
    /// False if another request has changed it, or if there is no such user.
    pub async fn change_password(
        &self,
        tenant: Tenant,
        name: &str,
        old: &str,
        new: &str,
        kept: &str,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.of_tenant(tenant).writing().await?;
        let done = sql("UPDATE person SET password = $1 WHERE tenant = $2 AND name = $3 AND password = $4")
            .bind(new)
            .bind(tenant.0)
            .bind(name)
            .bind(old)
            .execute(&mut transaction)
            .await?;
        if done == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        sql("DELETE FROM sign_in WHERE tenant = $1 AND name = $2 AND digest <> $3")
            .bind(tenant.0)
            .bind(name)
            .bind(kept)
            .execute(&mut transaction)
            .await?;
        delete_of(&mut transaction, "invitation", tenant, name).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Stores an invitation under the digest of its token, in place of an earlier one for the same name, and deletes
    /// the expired ones.
    pub async fn put_invitation(
        &self,
        digest: &str,
        invitation: &Invitation,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.of_tenant(invitation.tenant).writing().await?;
        sql("DELETE FROM invitation WHERE tenant = $1 AND expires_at <= $2")
            .bind(invitation.tenant)
            .bind(now.as_second())
            .execute(&mut transaction)
            .await?;
        sql("INSERT INTO invitation (digest, tenant, name, role, expires_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (tenant, name) DO UPDATE
             SET digest = excluded.digest, role = excluded.role, expires_at = excluded.expires_at")
        .bind(digest)
        .bind(invitation.tenant.0)
        .bind(&invitation.name)
        .bind(&invitation.role)
        .bind(invitation.expires_at.as_second())
        .execute(&mut transaction)
        .await?;
        transaction.commit().await
    }

    /// Returns the invitation with this digest. `None` if it is unknown, replaced, used or expired.
    pub async fn invitation(&self, digest: &str, now: Timestamp) -> Result<Option<Invitation>, StoreError> {
        let row: Option<(i64, String, String, i64)> = sql(
            "SELECT tenant, name, role, expires_at FROM invitation WHERE digest = $1 AND expires_at > $2",
        )
        .bind(digest)
        .bind(now.as_second())
        .fetch_optional(&self.across())
        .await?;
        row.map(invitation).transpose()
    }

    /// Returns the invitations that can still be used, in the order of their names.
    pub async fn invitations(&self, tenant: Tenant, now: Timestamp) -> Result<Vec<Invitation>, StoreError> {
        let rows: Vec<(i64, String, String, i64)> =
            sql("SELECT tenant, name, role, expires_at FROM invitation
             WHERE tenant = $1 AND expires_at > $2 ORDER BY name")
            .bind(tenant.0)
            .bind(now.as_second())
            .fetch_all(&self.of_tenant(tenant))
            .await?;
        rows.into_iter().map(invitation).collect()
    }

    /// Deletes the invitation of a name. False if there is none.
    pub async fn end_invitation(&self, tenant: Tenant, name: &str) -> Result<bool, StoreError> {
        let mut transaction = self.of_tenant(tenant).writing().await?;
        let done = delete_of(&mut transaction, "invitation", tenant, name).await?;
        transaction.commit().await?;
        Ok(done)
    }

    /// Accepts an invitation: deletes it, adds or replaces the user, and ends all earlier sessions of that name. The
    /// second factor stays. False if the invitation is unknown, replaced, used, expired, or for another name or role.
    pub async fn accept(
        &self,
        digest: &str,
        tenant: Tenant,
        person: &Person,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.of_tenant(tenant).writing().await?;
        let done = sql("DELETE FROM invitation
             WHERE digest = $1 AND tenant = $2 AND name = $3 AND role = $4 AND expires_at > $5")
        .bind(digest)
        .bind(tenant.0)
        .bind(&person.name)
        .bind(&person.role)
        .bind(now.as_second())
        .execute(&mut transaction)
        .await?;
        if done == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        sql("INSERT INTO person (tenant, name, role, password) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tenant, name) DO UPDATE SET role = excluded.role, password = excluded.password")
        .bind(tenant.0)
        .bind(&person.name)
        .bind(&person.role)
        .bind(&person.password)
        .execute(&mut transaction)
        .await?;
        delete_of(&mut transaction, "sign_in", tenant, &person.name).await?;
        transaction.commit().await?;
        Ok(true)
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
}

fn invitation((tenant, name, role, end): (i64, String, String, i64)) -> Result<Invitation, StoreError> {
    Ok(Invitation { tenant: Tenant(tenant), name, role, expires_at: time("invitation", end)? })
}

/// Deletes the rows of a user. True if there were any.
async fn delete_of(
    transaction: &mut Writing,
    table: &'static str,
    tenant: Tenant,
    name: &str,
) -> Result<bool, StoreError> {
    let text = match table {
        "person" => "DELETE FROM person WHERE tenant = $1 AND name = $2",
        "invitation" => "DELETE FROM invitation WHERE tenant = $1 AND name = $2",
        "second_factor" => "DELETE FROM second_factor WHERE tenant = $1 AND name = $2",
        "recovery_code" => "DELETE FROM recovery_code WHERE tenant = $1 AND name = $2",
        _ => "DELETE FROM sign_in WHERE tenant = $1 AND name = $2",
    };
    Ok(sql(text).bind(tenant.0).bind(name).execute(transaction).await? > 0)
}

/// The password hash of a user, who is not changed until the end of the transaction; `None` without such a user. What begins
/// a session and what ends all of them lock the user first, so that none begins between.
pub(crate) async fn lock_person(
    transaction: &mut Writing,
    tenant: Tenant,
    name: &str,
) -> Result<Option<String>, StoreError> {
    let ending = transaction.for_update();
    let found: Option<(String,)> =
        built(format!("SELECT password FROM person WHERE tenant = $1 AND name = $2{ending}"))
            .bind(tenant.0)
            .bind(name)
            .fetch_optional(transaction)
            .await?;
    Ok(found.map(|(password,)| password))
}

#[cfg(test)]
pub(crate) mod tests;
