//! The tokens of the HTTP API. The digest of a token is stored instead of the token, so that reading the database is not enough to
//! use it. A token belongs to one tenant, and its name is unique there. The API defines the scopes.

use crate::query::sql;
use crate::{Store, StoreError, Tenant, time};
use jiff::{SignedDuration, Timestamp};

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// The tenant whose data the token gives access to.
    pub tenant: Tenant,
    /// The name, unique within the tenant.
    pub name: String,
    /// The names of its scopes, separated by spaces.
    pub scopes: String,
    /// When the token was created.
    pub created_at: Timestamp,
    /// When the token expires; `None` if it does not.
    pub expires_at: Option<Timestamp>,
    /// When a request last carried the token, to within [`USE_INTERVAL`]; `None` before the first one.
    pub last_used: Option<Timestamp>,
}

/// A token to store.
#[derive(Debug, Clone, Copy)]
pub struct NewApiToken<'t> {
    /// The SHA-256 digest of the token in hexadecimal.
    pub digest: &'t str,
    /// The name, unique within the tenant.
    pub name: &'t str,
    /// The names of its scopes, separated by spaces.
    pub scopes: &'t str,
    /// The current time.
    pub created_at: Timestamp,
    /// When the token expires; `None` if it does not.
    pub expires_at: Option<Timestamp>,
}

/// What became of a new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddedToken {
    /// It is stored.
    Stored,
    /// The tenant has a token of this name.
    NameTaken,
    /// The tenant has as many tokens as it may have.
    TooMany,
}

/// The least time between two writes of [`ApiToken::last_used`].
pub const USE_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// Tenant, name, scopes, creation, expiry and last use.
type Row = (i64, String, String, i64, Option<i64>, Option<i64>);

const SELECT: &str = "SELECT tenant, name, scopes, created_at, expires_at, last_used FROM api_token";

impl Store {
    /// Stores a token, unless the tenant has one of this name or `most` tokens.
    pub async fn add_api_token(&self, new: &NewApiToken<'_>, most: u32) -> Result<AddedToken, StoreError> {
        let mut transaction = self.writing().await?;
        let count = sql("SELECT count(*) FROM api_token WHERE tenant = $1").bind(self.tenant);
        let (count,): (i64,) = count.fetch_one(&mut transaction).await?;
        if count >= i64::from(most) {
            transaction.rollback().await?;
            return Ok(AddedToken::TooMany);
        }
        let added = sql("INSERT INTO api_token (digest, tenant, name, scopes, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, name) DO NOTHING")
        .bind(new.digest)
        .bind(self.tenant)
        .bind(new.name)
        .bind(new.scopes)
        .bind(new.created_at.as_second())
        .bind(new.expires_at.map(Timestamp::as_second))
        .execute(&mut transaction)
        .await?;
        transaction.commit().await?;
        Ok(if added > 0 { AddedToken::Stored } else { AddedToken::NameTaken })
    }

    /// Returns all tokens, also those that have expired, in the order of their names.
    pub async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        let rows: Vec<Row> = crate::query::built(format!("{SELECT} WHERE tenant = $1 ORDER BY name"))
            .bind(self.tenant)
            .fetch_all(self)
            .await?;
        rows.into_iter().map(token).collect()
    }

    /// Deletes a token. False if there is none of this name.
    pub async fn revoke_api_token(&self, name: &str) -> Result<bool, StoreError> {
        let done = sql("DELETE FROM api_token WHERE tenant = $1 AND name = $2")
            .bind(self.tenant)
            .bind(name)
            .execute(self)
            .await?;
        Ok(done > 0)
    }

    /// Returns the token with this digest, of whatever tenant. `None` if it is unknown, revoked or expired.
    pub async fn api_token_of(&self, digest: &str, now: Timestamp) -> Result<Option<ApiToken>, StoreError> {
        let row: Option<Row> = crate::query::built(format!(
            "{SELECT} WHERE digest = $1 AND (expires_at IS NULL OR expires_at > $2)"
        ))
        .bind(digest)
        .bind(now.as_second())
        .fetch_optional(&self.across())
        .await?;
        row.map(token).transpose()
    }

    /// Records that a request carried the token with this digest, unless that was recorded within [`USE_INTERVAL`].
    pub async fn api_token_used(&self, digest: &str, now: Timestamp) -> Result<(), StoreError> {
        let before = now.saturating_sub(USE_INTERVAL).unwrap_or(now);
        // A later time is of a clock that was ahead.
        sql("UPDATE api_token SET last_used = $1
             WHERE digest = $2 AND (last_used IS NULL OR last_used <= $3 OR last_used > $1)")
        .bind(now.as_second())
        .bind(digest)
        .bind(before.as_second())
        .execute(&self.across())
        .await?;
        Ok(())
    }
}

fn token((tenant, name, scopes, created, expires, used): Row) -> Result<ApiToken, StoreError> {
    let at = |second| time("API token", second);
    Ok(ApiToken {
        tenant: Tenant(tenant),
        name,
        scopes,
        created_at: at(created)?,
        expires_at: expires.map(at).transpose()?,
        last_used: used.map(at).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn new<'t>(digest: &'t str, name: &'t str) -> NewApiToken<'t> {
        NewApiToken { digest, name, scopes: "read", created_at: at(10), expires_at: Some(at(500)) }
    }

    #[tokio::test]
    async fn a_token_is_found_by_its_digest_until_it_expires_or_is_revoked() {
        let (_dir, store) = crate::scratch().await;
        let other = store.of_tenant(Tenant::numbered(2));
        assert_eq!(other.add_api_token(&new("d1", "panel"), 9).await.unwrap(), AddedToken::Stored);
        assert_eq!(store.add_api_token(&new("d2", "panel"), 9).await.unwrap(), AddedToken::Stored);
        assert_eq!(store.add_api_token(&new("d3", "panel"), 9).await.unwrap(), AddedToken::NameTaken);
        assert_eq!(store.add_api_token(&new("d3", "second"), 1).await.unwrap(), AddedToken::TooMany);
        let found = store.api_token_of("d1", at(499)).await.unwrap().unwrap();
        assert_eq!((found.tenant, found.name.as_str(), found.last_used), (other.tenant(), "panel", None));
        assert_eq!(store.api_token_of("d1", at(500)).await.unwrap(), None, "expired");
        assert_eq!(store.api_token_of("d3", at(20)).await.unwrap(), None, "unknown");
        assert_eq!(store.api_tokens().await.unwrap().len(), 1);
        assert!(store.revoke_api_token("panel").await.unwrap());
        assert!(!store.revoke_api_token("panel").await.unwrap());
        assert_eq!(store.api_token_of("d2", at(20)).await.unwrap(), None, "revoked");
        assert!(store.api_token_of("d1", at(20)).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_last_use_is_written_once_a_minute() {
        let (_dir, store) = crate::scratch().await;
        store.add_api_token(&new("d", "panel"), 9).await.unwrap();
        for (now, expected) in [(100, 100), (159, 100), (160, 160), (90, 90)] {
            store.api_token_used("d", at(now)).await.unwrap();
            let found = store.api_tokens().await.unwrap();
            assert_eq!(found[0].last_used, Some(at(expected)), "{now}");
        }
    }
}
