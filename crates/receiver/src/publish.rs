//! Where DNS records are put. One small trait, whoever runs the zone.

use formats::DomainName;
use net::BoxFuture;

/// Puts TXT records into a zone.
pub trait DnsPublisher: Send + Sync {
    /// Makes `value` the only TXT record at `name`. One string of at most 255 ASCII bytes (PUB-07).
    fn put_txt<'a>(&'a self, name: &'a DomainName, value: &'a str)
    -> BoxFuture<'a, Result<(), PublishError>>;
}

/// Why a record could not be put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record {name}: {why}")]
pub struct PublishError {
    /// Where it was to stand.
    pub name: DomainName,
    /// What went wrong.
    pub why: String,
}

/// Refuses values that do not fit into one string (PUB-07).
pub fn check_value(name: &DomainName, value: &str) -> Result<(), PublishError> {
    if value.is_ascii() && value.len() <= 255 {
        return Ok(());
    }
    let why = format!("{} bytes; one string of at most 255 ASCII bytes is published", value.len());
    Err(PublishError { name: name.clone(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pub_07_values_are_one_string_of_at_most_255_ascii_bytes() {
        let name = DomainName::parse("_mta-sts.example.org").unwrap();
        assert!(check_value(&name, &"x".repeat(255)).is_ok());
        assert!(check_value(&name, &"x".repeat(256)).is_err());
        assert!(check_value(&name, "v=STSv1; id=ü;").is_err());
    }
}
