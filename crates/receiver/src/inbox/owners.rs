//! Files received reports with the tenant that owns the domain that they are about. A domain that no tenant has proved belongs to
//! the tenant of the inbox, as all domains of an installation with one tenant do. A report about domains of several tenants is
//! taken apart: each gets the results of its own domains.

use formats::report::pack;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use store::dmarc::{DmarcQuota, NewDmarcReport};
use store::reports::{KeepOutcome, NewReport, Quota};
use store::{Store, StoreError, Tenant};

/// Stores reports, each with its owner, and keeps the unverified ones of each owner within the quota. The outcomes are in the order
/// of the reports; of a report that was taken apart, the outcome is the one of the first part that is not a duplicate.
///
/// # Errors
///
/// If the store fails. Reports of some owners may be stored then; storing them again finds duplicates.
pub async fn keep_reports(
    store: &Store,
    reports: &[NewReport],
    unverified: Option<&Quota>,
) -> Result<Vec<KeepOutcome>, StoreError> {
    if reports.is_empty() {
        return Ok(Vec::new());
    }
    let domains: BTreeSet<&str> = reports.iter().flat_map(domains_of).collect();
    let owners = Owners::of(store, domains).await?;
    if owners.known.is_empty() {
        let kept = store.keep_reports(reports).await?;
        keep_to_quota(store, reports.iter(), unverified).await;
        return Ok(kept);
    }
    let mut by_owner: BTreeMap<Tenant, Vec<(usize, Cow<'_, NewReport>)>> = BTreeMap::new();
    for (place, report) in reports.iter().enumerate() {
        for (owner, part) in owners.parts(report) {
            by_owner.entry(owner).or_default().push((place, part));
        }
    }
    let mut outcomes: Vec<Option<KeepOutcome>> = vec![None; reports.len()];
    for (owner, parts) in by_owner {
        let store = store.of_tenant(owner);
        let (places, parts): (Vec<usize>, Vec<NewReport>) =
            parts.into_iter().map(|(place, part)| (place, part.into_owned())).unzip();
        let kept = store.keep_reports(&parts).await?;
        for (place, kept) in places.into_iter().zip(kept) {
            if let Some(outcome) = outcomes.get_mut(place) {
                let is_settled = outcome.is_some_and(|one| one != KeepOutcome::Duplicate);
                *outcome = if is_settled { *outcome } else { Some(kept) };
            }
        }
        keep_to_quota(&store, parts.iter(), unverified).await;
    }
    Ok(outcomes.into_iter().map(|one| one.unwrap_or(KeepOutcome::Duplicate)).collect())
}

/// Stores DMARC reports, each with its owner. The outcomes are in the order of the reports.
///
/// # Errors
///
/// As for [`keep_reports`].
pub async fn keep_dmarc_reports(
    store: &Store,
    reports: &[NewDmarcReport],
    quota: DmarcQuota,
) -> Result<Vec<KeepOutcome>, StoreError> {
    if reports.is_empty() {
        return Ok(Vec::new());
    }
    let domains = reports.iter().map(|new| new.report.domain.as_str()).collect();
    let owners = Owners::of(store, domains).await?;
    if owners.known.is_empty() {
        return store.keep_dmarc_reports(reports, quota).await;
    }
    let mut outcomes = Vec::with_capacity(reports.len());
    for new in reports {
        let owner = owners.owner(new.report.domain.as_str());
        let kept = store.of_tenant(owner).keep_dmarc_reports(std::slice::from_ref(new), quota).await?;
        outcomes.extend(kept);
    }
    Ok(outcomes)
}

/// The owners of the domains of some reports.
struct Owners {
    /// The tenant of what nobody has proved.
    default: Tenant,
    known: BTreeMap<String, Tenant>,
}

impl Owners {
    async fn of(store: &Store, domains: BTreeSet<&str>) -> Result<Self, StoreError> {
        let known = match store.tenant() {
            Tenant::FIRST => {
                let domains: Vec<&str> = domains.into_iter().collect();
                store.domain_owners(&domains).await?
            }
            // The operator has named the tenant.
            _ => BTreeMap::new(),
        };
        Ok(Self { default: store.tenant(), known })
    }

    fn owner(&self, domain: &str) -> Tenant {
        self.known.get(domain).copied().unwrap_or(self.default)
    }

    /// The parts of a report, each with its owner. DANE results are about an MX host, so the mail's domain decides if it is
    /// stated and has an owner.
    fn parts<'r>(&self, new: &'r NewReport) -> Vec<(Tenant, Cow<'r, NewReport>)> {
        let about = new.about.as_ref().and_then(|about| self.known.get(about.as_str()));
        if let Some(owner) = about {
            return vec![(*owner, Cow::Borrowed(new))];
        }
        let owner = |domain: &Option<formats::DomainName>| {
            domain.as_ref().map_or(self.default, |domain| self.owner(domain.as_str()))
        };
        let policies = || new.report.policies.iter();
        let owners: BTreeSet<Tenant> = policies().map(|one| owner(&one.policy_domain)).collect();
        match owners.len() {
            0 => vec![(self.default, Cow::Borrowed(new))],
            1 => owners.into_iter().map(|one| (one, Cow::Borrowed(new))).collect(),
            _ => owners
                .into_iter()
                .map(|one| (one, Cow::Owned(part(new, |domain| owner(domain) == one))))
                .collect(),
        }
    }
}

/// The report with these policies alone.
fn part(new: &NewReport, is_wanted: impl Fn(&Option<formats::DomainName>) -> bool) -> NewReport {
    let mut part = new.clone();
    part.report.policies.retain(|policy| is_wanted(&policy.policy_domain));
    // The text of the whole report is about others as well. One that can't be written anew has no text.
    let text = part.report.to_json().ok().and_then(|json| pack(&json).ok());
    part.packed = text.unwrap_or_default();
    part
}

fn domains_of(new: &NewReport) -> impl Iterator<Item = &str> {
    let policies = new.report.policies.iter().filter_map(|policy| policy.policy_domain.as_ref());
    policies.chain(&new.about).map(|domain| domain.as_str())
}

/// Removes the oldest unverified reports of the owner if there are too many. They are stored all the same if this fails.
async fn keep_to_quota<'r>(
    store: &Store,
    mut new: impl Iterator<Item = &'r NewReport>,
    quota: Option<&Quota>,
) {
    let Some(quota) = quota else { return };
    if new.any(|new| !new.trust.counts())
        && let Err(error) = store.keep_unverified_within(quota).await
    {
        tracing::error!(%error, "old unverified reports can't be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;
    use formats::report::Report;
    use jiff::Timestamp;
    use store::reports::{Arrival, Search, Trust};

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn report(id: &str, domains: &[&str], about: Option<&str>) -> NewReport {
        let policy = |domain: &&str| {
            format!(
                r#"{{"policy":{{"policy-type":"sts","policy-domain":"{domain}"}},"summary":{{"total-successful-session-count":5,"total-failure-session-count":0}}}}"#
            )
        };
        let policies = domains.iter().map(policy).collect::<Vec<_>>().join(",");
        let json = format!(
            r#"{{"organization-name":"O","date-range":{{"start-datetime":"2024-10-04T00:00:00Z","end-datetime":"2024-10-04T23:59:59Z"}},"contact-info":"a@b.example","report-id":"{id}","policies":[{policies}]}}"#
        );
        NewReport {
            submitter: "big.example".into(),
            signer: None,
            trust: Trust::Unverified,
            about: about.map(name),
            arrival: Arrival::Smtp,
            received_at: Timestamp::from_second(1_728_100_000).unwrap(),
            source: String::new(),
            report: Report::read(json.as_bytes()).unwrap().report,
            warnings: 0,
            packed: pack(json.as_bytes()).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_report_is_filed_with_the_owner_of_its_domains_and_taken_apart_if_there_are_several() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db"), Tenant::FIRST).await.unwrap();
        let (first, second) = (Tenant::numbered(1), Tenant::numbered(2));
        let now = Timestamp::UNIX_EPOCH;
        store.of_tenant(first).own_domain(&name("a.example"), now).await.unwrap();
        store.of_tenant(second).own_domain(&name("b.example"), now).await.unwrap();
        let all = [
            report("of-first", &["a.example"], None),
            report("of-nobody", &["c.example"], None),
            report("of-all", &["a.example", "b.example", "c.example"], None),
            report("dane", &["mx.c.example"], Some("b.example")),
        ];
        let quota = Quota { bytes: 1 << 20, items: 100 };
        let kept = keep_reports(&store, &all, Some(&quota)).await.unwrap();
        assert_eq!(kept, [KeepOutcome::New; 4]);
        assert_eq!(keep_reports(&store, &all, None).await.unwrap(), [KeepOutcome::Duplicate; 4]);
        let listed = async |tenant: Tenant| {
            let search = Search { most: 9, ..Search::default() };
            let mut found: Vec<(String, String)> = Vec::new();
            let of_tenant = store.of_tenant(tenant);
            for one in of_tenant.reports(&search).await.unwrap() {
                let whole = of_tenant.report(one.id).await.unwrap().unwrap();
                let (text, _) = formats::report::unpack(&whole.packed).unwrap();
                found.push((one.report_id, String::from_utf8(text).unwrap()));
            }
            found.sort();
            found
        };
        let ids = |found: &[(String, String)]| found.iter().map(|one| one.0.clone()).collect::<Vec<_>>();
        let (of_first, of_second, of_main) =
            (listed(first).await, listed(second).await, listed(Tenant::FIRST).await);
        assert_eq!(ids(&of_first), ["of-all", "of-first"]);
        assert_eq!(ids(&of_second), ["dane", "of-all"]);
        assert_eq!(ids(&of_main), ["of-all", "of-nobody"]);
        for (found, others) in
            [(&of_first, ["b.example", "c.example"]), (&of_main, ["a.example", "b.example"])]
        {
            for (id, text) in found {
                assert!(others.iter().all(|other| !text.contains(&format!("\"{other}\""))), "{id}: {text}");
            }
        }
    }
}
