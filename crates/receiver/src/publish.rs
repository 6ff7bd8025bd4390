//! The DNS records of a domain: the change that each [`Step`] makes, its text for operators who edit the zone manually,
//! and the trait [`DnsPublisher`] for programs that change a zone (DNS UPDATE, provider APIs).

use crate::rollout::desired::{DesiredState, PolicyHostAt};
use crate::rollout::plan::Step;
use formats::{DomainName, StsRecord};
use net::BoxFuture;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::time::Duration;

/// Changes records in a zone.
pub trait DnsPublisher: Send + Sync {
    /// Reads the records that the change would replace.
    fn read<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Previous, PublishError>>;

    /// Replaces the records of this kind at this name, if they are still those that [`Self::read`] returned. If it fails, the
    /// change may have been made, completely or in part, unless the error is a conflict or says that it is unmade.
    fn put<'a>(
        &'a self,
        change: &'a Change,
        expected: &'a Previous,
    ) -> BoxFuture<'a, Result<(), PublishError>>;

    /// True if a change is made completely or not at all. Then records that are neither the old nor the new ones are those of
    /// others.
    fn is_whole(&self) -> bool {
        false
    }

    /// How long to wait until the zone's name servers show a change.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// The records to publish at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The owner name of the records, such as `_mta-sts.example.org`.
    pub name: DomainName,
    /// The records to publish; they replace those of the same kind.
    pub records: Records,
}

/// Our records at a name, as they were found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Previous {
    /// The records in zone-file form, sorted.
    pub lines: Vec<String>,
    /// The records that put them back; `None` if there are none, as for two TXT records of one version.
    pub records: Option<Records>,
}

impl Previous {
    /// True if these are the records that were found.
    pub fn is(&self, records: &Records) -> bool {
        use PolicyHostAt::Addresses;
        match (&self.records, records) {
            (Some(Records::Place(Addresses(there))), Records::Place(Addresses(desired))) => {
                there.len() == desired.len() && there.iter().all(|address| desired.contains(address))
            }
            (there, desired) => there.as_ref() == Some(desired),
        }
    }
}

/// The desired records of one kind at a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Records {
    /// One TXT record with a single string of at most 255 ASCII bytes (PUB-07).
    Txt(String),
    /// None: our TXT record at the name is removed.
    NoTxt,
    /// One text among the TXT records of the name; the others are kept.
    TxtValue {
        /// The text, of at most 255 ASCII bytes.
        value: String,
        /// True to publish the text, false to remove it.
        is_published: bool,
    },
    /// CNAME, or A and AAAA records, that point to a policy host. An empty list of addresses stands for no record.
    Place(PolicyHostAt),
}

/// TTL of published records, in seconds.
pub const TTL: u32 = 300;
/// TTL of the delegation's CNAME records, in seconds; they rarely change.
const ALIAS_TTL: u32 = 3600;

/// A record could not be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record {name}: {why}")]
pub struct PublishError {
    /// The record's owner name.
    pub name: DomainName,
    /// The reason, as operators see it.
    pub why: String,
    /// True if another program has changed the records since they were read. Then nothing was changed.
    pub is_conflict: bool,
    /// True if it is certain that nothing was changed, as after an answer that refuses the change.
    pub is_unmade: bool,
}

impl PublishError {
    /// An error that is not a conflict, after which the change may have been made in part.
    pub fn new(name: &DomainName, why: impl Into<String>) -> Self {
        Self { name: name.clone(), why: why.into(), is_conflict: false, is_unmade: false }
    }
}

impl Change {
    /// The change that a step makes in the domain's zone, or in the zone that the domain is delegated to. `None` for
    /// steps that change no record. Fails when a name or value is too long.
    pub fn of(desired: &DesiredState, step: &Step) -> Result<Option<Self>, PublishError> {
        let (label, records) = match step {
            // Only the operator knows the address.
            Step::PointPolicyHost(PolicyHostAt::Operator) => return Ok(None),
            Step::PointPolicyHost(place) => ("mta-sts", Records::Place(place.clone())),
            Step::AskForReports(record) => ("_smtp._tls", Records::Txt(record.to_string())),
            Step::Announce(id) => ("_mta-sts", Records::Txt(StsRecord::new(id.clone()).to_string())),
            Step::Withdraw => ("_mta-sts", Records::NoTxt),
            Step::Serve(_) | Step::TakeDown | Step::AddMx(_) | Step::RemoveMx(_) | Step::Delegate(_) => {
                return Ok(None);
            }
        };
        let fault = |why: String| PublishError::new(&desired.domain, why);
        let name = desired.record(label).map_err(|error| fault(error.to_string()))?;
        if let Records::Txt(value) = &records {
            check_value(&name, value)?;
        }
        Ok(Some(Self { name, records }))
    }

    /// The records in zone-file form.
    pub fn lines(&self) -> Vec<String> {
        let line = |kind: &str, data: String| format!("{}. {TTL} IN {kind} {data}", self.name);
        self.data().into_iter().map(|(kind, data)| line(kind, data)).collect()
    }

    /// Name, type and value of each record, as the web forms of DNS providers ask for them.
    pub fn panel(&self) -> String {
        let mut out = String::new();
        for (kind, data) in self.data() {
            let value = data.trim_matches('"').trim_end_matches('.');
            let _ = writeln!(out, "name   {}\ntype   {kind}\nvalue  {value}", self.name);
        }
        out
    }

    fn data(&self) -> Vec<(&'static str, String)> {
        match &self.records {
            Records::Txt(value) => vec![("TXT", format!("\"{value}\""))],
            Records::TxtValue { value, is_published: true } => vec![("TXT", format!("\"{value}\""))],
            Records::TxtValue { .. } | Records::NoTxt | Records::Place(PolicyHostAt::Operator) => Vec::new(),
            Records::Place(PolicyHostAt::Alias(target)) => vec![("CNAME", format!("{target}."))],
            Records::Place(PolicyHostAt::Addresses(all)) => {
                let kind = |address: &std::net::IpAddr| if address.is_ipv4() { "A" } else { "AAAA" };
                all.iter().map(|address| (kind(address), address.to_string())).collect()
            }
        }
    }
}

/// Examples of the record that points `mta-sts` to the operator's own web server or platform, of which one is needed.
pub fn own_host_lines(domain: &DomainName) -> Vec<String> {
    vec![
        format!("mta-sts.{domain}. {TTL} IN A ADDRESS-OF-YOUR-WEB-SERVER"),
        format!("mta-sts.{domain}. {TTL} IN CNAME NAME-OF-YOUR-PLATFORM.   (instead of A and AAAA)"),
    ]
}

/// The delegation's CNAME records in zone-file form, for the owner of the domain to publish.
pub fn alias_lines(aliases: &[(DomainName, DomainName)]) -> Vec<String> {
    aliases.iter().map(|(name, target)| format!("{name}. {ALIAS_TTL} IN CNAME {target}.")).collect()
}

/// Rejects values that do not fit into one string (PUB-07).
fn check_value(name: &DomainName, value: &str) -> Result<(), PublishError> {
    if value.is_ascii() && value.len() <= 255 {
        return Ok(());
    }
    let why =
        format!("the value has {} bytes; it must be one string of at most 255 ASCII bytes", value.len());
    Err(PublishError::new(name, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DomainSpec;
    use formats::PolicyId;

    #[test]
    fn pub_07_values_are_one_string_of_at_most_255_ascii_bytes() {
        let name = DomainName::parse("_mta-sts.example.org").unwrap();
        assert!(check_value(&name, &"x".repeat(255)).is_ok());
        assert!(check_value(&name, &"x".repeat(256)).is_err());
        assert!(check_value(&name, "v=STSv1; id=ü;").is_err());
    }

    #[test]
    fn records_are_shown_for_zone_files_and_for_panels() {
        let desired = DomainSpec::new(DomainName::parse("example.org").unwrap()).desired(None, None);
        let change = |step| Change::of(&desired, &step).unwrap().unwrap();
        let announce = change(Step::Announce(PolicyId::parse("20261125").unwrap()));
        assert_eq!(announce.lines(), ["_mta-sts.example.org. 300 IN TXT \"v=STSv1; id=20261125;\""]);
        assert_eq!(
            announce.panel(),
            "name   _mta-sts.example.org\ntype   TXT\nvalue  v=STSv1; id=20261125;\n"
        );
        let alias = PolicyHostAt::Alias(DomainName::parse("host.example.net").unwrap());
        assert_eq!(
            change(Step::PointPolicyHost(alias)).lines(),
            ["mta-sts.example.org. 300 IN CNAME host.example.net."]
        );
        let addresses =
            PolicyHostAt::Addresses(vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(
            change(Step::PointPolicyHost(addresses)).lines(),
            ["mta-sts.example.org. 300 IN A 192.0.2.1", "mta-sts.example.org. 300 IN AAAA 2001:db8::1"]
        );
        assert_eq!(Change::of(&desired, &Step::PointPolicyHost(PolicyHostAt::Operator)), Ok(None));
        assert_eq!(Change::of(&desired, &Step::TakeDown), Ok(None));
        assert!(change(Step::Withdraw).lines().is_empty());
    }
}
