//! Erases a tenant: what is served for its domains, and every row that belongs to it. It goes in small transactions, and can be
//! repeated after an interruption: the tenant itself is removed last (`tenants`).

use crate::database::copy::tenant_tables;
use crate::query::{built, sql};
use crate::writing::Counter;
use crate::{Store, StoreError, Tenant};

/// Tables with many or large rows, which are deleted in batches.
const LARGE: [&str; 4] = ["report", "quarantine", "dmarc_report", "journal"];
/// Rows that one transaction deletes of a large table.
const BATCH: i64 = 500;

impl Store {
    /// Marks the tenant of this handle as leaving: from then on nothing is done for it. False if there is no such tenant; the
    /// first one can't leave.
    pub async fn begin_erasure(&self) -> Result<bool, StoreError> {
        let mark = sql("UPDATE tenant SET is_leaving = 1 WHERE number = $1");
        Ok(mark.bind(self.tenant).execute(self).await? > 0)
    }

    /// Deletes all rows of the tenant of this handle, and what is served for the domains that it owns. Does nothing for the first
    /// tenant.
    pub async fn erase_rows(&self) -> Result<(), StoreError> {
        if self.tenant == Tenant::FIRST {
            return Ok(());
        }
        for domain in self.owned_domains().await? {
            self.erase_served(&domain).await?;
        }
        for table in LARGE {
            let text = format!(
                "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE tenant = $1 ORDER BY id LIMIT $2)"
            );
            while built(text.clone()).bind(self.tenant).bind(BATCH).execute(self).await? > 0 {}
        }
        for table in tenant_tables(self).await? {
            built(format!("DELETE FROM {table} WHERE tenant = $1")).bind(self.tenant).execute(self).await?;
        }
        Ok(())
    }

    /// Ends the service of a domain's policy, and deletes its certificate with the key.
    async fn erase_served(&self, domain: &str) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        let version = transaction.increase(Counter::Hosted, 1).await?;
        let end = sql("UPDATE hosted SET policy = '', version = $2 WHERE domain = $1");
        end.bind(domain).bind(version).execute(&mut transaction).await?;
        let host = format!("mta-sts.{domain}");
        sql("DELETE FROM certificate WHERE host = $1").bind(host).execute(&mut transaction).await?;
        sql("DELETE FROM domain_owner WHERE domain = $1 AND tenant = $2")
            .bind(domain)
            .bind(self.tenant)
            .execute(&mut transaction)
            .await?;
        transaction.commit().await
    }
}
