//! Results of the public checks of the dashboard. Each has a link that people share, and the results of a domain are its
//! history: checks in a row that found the same are one result, from the first to the last, under the same link.
//!
//! Everybody may start a check, so all is bounded by [`PublicLimits`]: pages, results, and the results of a domain. A result
//! whose page was deleted stays in the history.

use crate::query::sql;
use crate::writing::Writing;
use crate::{Store, StoreError, damaged, time};
use formats::DomainName;
use jiff::Timestamp;

/// The result of a check, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPublicResult<'r> {
    /// The random part of the link, unless the check before found the same.
    pub word: &'r str,
    /// The checked domain.
    pub domain: &'r DomainName,
    /// When the check ended.
    pub at: Timestamp,
    /// How the domain is protected, as one word.
    pub protection: &'r str,
    /// The result in one sentence.
    pub verdict: &'r str,
    /// The identifiers of the checks with errors and warnings, separated by spaces.
    pub checks: &'r str,
    /// The page, compressed.
    pub page: &'r [u8],
}

/// The result of one or more checks in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicResult {
    /// The random part of the link.
    pub word: String,
    /// When the first of the checks ended.
    pub since: Timestamp,
    /// When the last of the checks ended.
    pub until: Timestamp,
    /// How the domain is protected, as one word.
    pub protection: String,
    /// The result in one sentence, as the last of the checks stated it.
    pub verdict: String,
    /// The identifiers of the checks with errors and warnings, separated by spaces.
    pub checks: String,
    /// Whether the page of the result is still stored.
    pub has_page: bool,
}

/// The page behind a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicPage {
    /// The page as it was stored.
    Stored(Vec<u8>),
    /// The page was deleted; the history of the domain has the result.
    Deleted(DomainName),
}

/// The most that is kept, each newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicLimits {
    /// Pages.
    pub pages: u32,
    /// Results.
    pub results: u32,
    /// Results of one domain.
    pub of_domain: u32,
}

/// The page of a result whose page was deleted.
const NO_PAGE: &[u8] = &[];

/// Number, link and result of the last check of a domain.
type Last = (i64, String, String, String);

impl Store {
    /// Stores the result of a check and returns the word of its link: that of the check before if both found the same.
    pub async fn put_public_result(
        &self,
        result: &NewPublicResult<'_>,
        limits: PublicLimits,
    ) -> Result<String, StoreError> {
        let mut transaction = self.writing().await?;
        let word = self.put_result(&mut transaction, result).await?;
        self.drop_older_results(&mut transaction, result.domain, limits).await?;
        transaction.commit().await?;
        Ok(word)
    }

    async fn put_result(
        &self,
        transaction: &mut Writing,
        result: &NewPublicResult<'_>,
    ) -> Result<String, StoreError> {
        let last: Option<Last> = sql("SELECT number, word, protection, checks FROM public_result
             WHERE tenant = $1 AND domain = $2 ORDER BY until DESC, number DESC LIMIT 1")
        .bind(self.tenant)
        .bind(result.domain.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some((number, word, protection, checks)) = last
            && protection == result.protection
            && checks == result.checks
        {
            sql("UPDATE public_result SET until = $1, verdict = $2, page = $3 WHERE number = $4")
                .bind(result.at.as_second())
                .bind(result.verdict)
                .bind(result.page)
                .bind(number)
                .execute(transaction)
                .await?;
            return Ok(word);
        }
        sql("INSERT INTO public_result (tenant, word, domain, since, until, protection, verdict, checks, page)
             VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8)")
        .bind(self.tenant)
        .bind(result.word)
        .bind(result.domain.as_str())
        .bind(result.at.as_second())
        .bind(result.protection)
        .bind(result.verdict)
        .bind(result.checks)
        .bind(result.page)
        .execute(transaction)
        .await?;
        Ok(result.word.to_owned())
    }

    /// Deletes what is beyond the limits. Each first statement finds the newest row that is too many.
    async fn drop_older_results(
        &self,
        transaction: &mut Writing,
        domain: &DomainName,
        limits: PublicLimits,
    ) -> Result<(), StoreError> {
        let beyond: Option<(i64, i64)> = sql("SELECT until, number FROM public_result
             WHERE tenant = $1 AND domain = $2 ORDER BY until DESC, number DESC LIMIT 1 OFFSET $3")
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(limits.of_domain)
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some((until, number)) = beyond {
            sql("DELETE FROM public_result
                 WHERE tenant = $1 AND domain = $2 AND (until < $3 OR (until = $3 AND number <= $4))")
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(until)
            .bind(number)
            .execute(&mut *transaction)
            .await?;
        }
        let beyond: Option<(i64, i64)> = sql("SELECT until, number FROM public_result
             WHERE tenant = $1 AND length(page) > 0 ORDER BY until DESC, number DESC LIMIT 1 OFFSET $2")
        .bind(self.tenant)
        .bind(limits.pages)
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some((until, number)) = beyond {
            sql("UPDATE public_result SET page = $1 WHERE tenant = $2 AND length(page) > 0
                 AND (until < $3 OR (until = $3 AND number <= $4))")
            .bind(NO_PAGE)
            .bind(self.tenant)
            .bind(until)
            .bind(number)
            .execute(&mut *transaction)
            .await?;
        }
        let beyond: Option<(i64, i64)> = sql("SELECT until, number FROM public_result
             WHERE tenant = $1 ORDER BY until DESC, number DESC LIMIT 1 OFFSET $2")
        .bind(self.tenant)
        .bind(limits.results)
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some((until, number)) = beyond {
            sql("DELETE FROM public_result
                 WHERE tenant = $1 AND (until < $2 OR (until = $2 AND number <= $3))")
            .bind(self.tenant)
            .bind(until)
            .bind(number)
            .execute(transaction)
            .await?;
        }
        Ok(())
    }

    /// Returns the page behind a link. `None` if the link never existed, or its result was deleted.
    pub async fn public_page(&self, word: &str) -> Result<Option<PublicPage>, StoreError> {
        let row: Option<(String, Vec<u8>)> =
            sql("SELECT domain, page FROM public_result WHERE tenant = $1 AND word = $2")
                .bind(self.tenant)
                .bind(word)
                .fetch_optional(self)
                .await?;
        match row {
            None => Ok(None),
            Some((_, page)) if !page.is_empty() => Ok(Some(PublicPage::Stored(page))),
            // A page of an earlier release, whose domain is not known.
            Some((domain, _)) if domain.is_empty() => Ok(None),
            Some((domain, _)) => match DomainName::parse(&domain) {
                Ok(domain) => Ok(Some(PublicPage::Deleted(domain))),
                Err(error) => Err(damaged("public_result")(error.to_string())),
            },
        }
    }

    /// Returns the results of a domain, the last first.
    pub async fn public_results(&self, domain: &DomainName) -> Result<Vec<PublicResult>, StoreError> {
        type Columns = (String, i64, i64, String, String, String, i64);
        let rows: Vec<Columns> = sql("SELECT word, since, until, protection, verdict, checks,
               CASE WHEN length(page) > 0 THEN 1 ELSE 0 END
             FROM public_result WHERE tenant = $1 AND domain = $2 ORDER BY until DESC, number DESC")
        .bind(self.tenant)
        .bind(domain.as_str())
        .fetch_all(self)
        .await?;
        let read = |(word, since, until, protection, verdict, checks, has_page): Columns| {
            let (since, until) = (time("public_result", since)?, time("public_result", until)?);
            Ok(PublicResult { word, since, until, protection, verdict, checks, has_page: has_page != 0 })
        };
        rows.into_iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PublicLimits = PublicLimits { pages: 2, results: 4, of_domain: 3 };

    fn name(domain: &str) -> DomainName {
        DomainName::parse(domain).unwrap()
    }

    async fn put(store: &Store, word: &str, domain: &str, second: i64, checks: &str) -> String {
        let result = NewPublicResult {
            word,
            domain: &name(domain),
            at: Timestamp::from_second(second).unwrap(),
            protection: "errors",
            verdict: &format!("verdict at {second}"),
            checks,
            page: word.as_bytes(),
        };
        store.put_public_result(&result, LIMITS).await.unwrap()
    }

    #[tokio::test]
    async fn equal_results_in_a_row_are_one_with_the_first_link() {
        let (_dir, store) = crate::scratch().await;
        assert_eq!(put(&store, "one", "a.example", 10, "MX-NONE").await, "one");
        assert_eq!(put(&store, "two", "a.example", 20, "MX-NONE").await, "one");
        assert_eq!(put(&store, "three", "a.example", 30, "").await, "three");
        assert_eq!(put(&store, "four", "a.example", 40, "MX-NONE").await, "four");
        let results = store.public_results(&name("a.example")).await.unwrap();
        let seconds: Vec<_> = results
            .iter()
            .map(|result| (result.word.as_str(), result.since.as_second(), result.until.as_second()))
            .collect();
        assert_eq!(seconds, [("four", 40, 40), ("three", 30, 30), ("one", 10, 20)]);
        assert_eq!(results[2].verdict, "verdict at 20");
        assert_eq!(store.public_results(&name("b.example")).await.unwrap(), []);
    }

    #[tokio::test]
    async fn the_newest_pages_and_results_are_kept() {
        let (_dir, store) = crate::scratch().await;
        put(&store, "one", "a.example", 10, "").await;
        put(&store, "two", "b.example", 10, "").await;
        put(&store, "three", "c.example", 10, "").await;
        // All within one second: the order of the numbers decides.
        assert_eq!(store.public_page("one").await.unwrap(), Some(PublicPage::Deleted(name("a.example"))));
        assert_eq!(store.public_page("two").await.unwrap(), Some(PublicPage::Stored(b"two".to_vec())));
        assert!(!store.public_results(&name("a.example")).await.unwrap()[0].has_page);
        for (number, word) in ["four", "five", "six", "seven"].into_iter().enumerate() {
            put(&store, word, "d.example", 20, &number.to_string()).await;
        }
        assert_eq!(store.public_page("one").await.unwrap(), None);
        assert_eq!(store.public_page("four").await.unwrap(), None, "of one domain, three are kept");
        assert_eq!(store.public_results(&name("d.example")).await.unwrap().len(), 3);
        assert_eq!(store.public_results(&name("c.example")).await.unwrap().len(), 1);
    }
}
