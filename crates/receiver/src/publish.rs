//! Where DNS records are put: what each step changes, how people are told to change it by hand, and one
//! small trait for whoever runs the zone.

use crate::rollout::desired::{DesiredState, PolicyHostAt};
use crate::rollout::plan::Step;
use formats::{DomainName, StsRecord};
use net::BoxFuture;
use std::fmt::Write;
use std::time::Duration;

/// Changes records in a zone.
pub trait DnsPublisher: Send + Sync {
    /// Makes this the only record of its kind at its name. Returns what stood there before, in
    /// zone-file form, so that it can be put back.
    fn put<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Vec<String>, PublishError>>;

    /// How long it may take until name servers show what was put.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// What is to stand at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub name: DomainName,
    /// What.
    pub records: Records,
}

/// Records of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// One TXT record, of one string of at most 255 ASCII bytes (PUB-07).
    Txt(String),
    /// No TXT record.
    NoTxt,
    /// The place of a policy host.
    Place(PolicyHostAt),
}

/// Seconds for which our records may be remembered.
pub const TTL: u32 = 300;
/// The same for aliases that stay.
const ALIAS_TTL: u32 = 3600;

/// Why a record could not be put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record {name}: {why}")]
pub struct PublishError {
    /// Where it was to stand.
    pub name: DomainName,
    /// What went wrong.
    pub why: String,
}

impl Change {
    /// What a step changes in the zone of a domain, or in the one that it is delegated to; nothing for steps
    /// that are about something else.
    pub fn of(wanted: &DesiredState, step: &Step) -> Result<Option<Self>, PublishError> {
        let (label, records) = match step {
            Step::PointPolicyHost(place) => ("mta-sts", Records::Place(place.clone())),
            Step::AskForReports(record) => ("_smtp._tls", Records::Txt(record.to_string())),
            Step::Announce(id) => ("_mta-sts", Records::Txt(StsRecord::new(id.clone()).to_string())),
            Step::Withdraw => ("_mta-sts", Records::NoTxt),
            Step::Serve(_) | Step::TakeDown | Step::AddMx(_) | Step::RemoveMx(_) | Step::Delegate(_) => {
                return Ok(None);
            }
        };
        let fault = |why: String| PublishError { name: wanted.domain.clone(), why };
        let name = wanted.record(label).map_err(|error| fault(error.to_string()))?;
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

    /// Kind and value of each record, as web panels of DNS providers ask for them.
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
            Records::NoTxt => Vec::new(),
            Records::Place(PolicyHostAt::Alias(target)) => vec![("CNAME", format!("{target}."))],
            Records::Place(PolicyHostAt::Addresses(all)) => {
                let kind = |address: &std::net::IpAddr| if address.is_ipv4() { "A" } else { "AAAA" };
                all.iter().map(|address| (kind(address), address.to_string())).collect()
            }
        }
    }
}

/// Aliases in zone-file form, as the owner of a delegated domain puts them into its zone.
pub fn alias_lines(aliases: &[(DomainName, DomainName)]) -> Vec<String> {
    aliases.iter().map(|(name, target)| format!("{name}. {ALIAS_TTL} IN CNAME {target}.")).collect()
}

/// Refuses values that do not fit into one string (PUB-07).
fn check_value(name: &DomainName, value: &str) -> Result<(), PublishError> {
    if value.is_ascii() && value.len() <= 255 {
        return Ok(());
    }
    let why = format!("{} bytes; one string of at most 255 ASCII bytes is published", value.len());
    Err(PublishError { name: name.clone(), why })
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
        let wanted = DomainSpec::new(DomainName::parse("example.org").unwrap()).wanted(None, None);
        let change = |step| Change::of(&wanted, &step).unwrap().unwrap();
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
        assert_eq!(Change::of(&wanted, &Step::TakeDown), Ok(None));
        assert!(change(Step::Withdraw).lines().is_empty());
    }
}
