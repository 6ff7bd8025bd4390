//! Names below a DNAME record, which redirects them to the same names below its target (RFC 6672). The CNAME record that a
//! server makes of it has no signature (RFC 6672 §5.3.1), and the library takes it for bogus. [`super::servers`] validates
//! the DNAME record instead and computes the alias.

use super::proofs::has_expansion;
use super::records::{absolute, domain, seconds};
use super::{Answer, Data, Security};
use formats::DomainName;
use hickory_proto::dnssec::Proof;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use std::time::Duration;

/// The alias of `name` by the validated DNAME record of `ancestor`, as the answer to a query for its CNAME record; `None` if
/// the outcome of the DNAME query has no such record.
pub(super) fn alias(
    name: &DomainName,
    ancestor: &DomainName,
    outcome: &Result<Lookup, NetError>,
) -> Option<Answer> {
    let lookup = outcome.as_ref().ok()?;
    let owner = absolute(ancestor).ok()?;
    let is_own = |record: &&Record| {
        record.record_type() == RecordType::DNAME && record.proof == Proof::Secure && record.name == owner
    };
    let mut found = lookup.answers().iter().filter(is_own);
    // More than one is an error of the zone (RFC 6672 §2.4).
    let (Some(record), None) = (found.next(), found.next()) else { return None };
    if has_expansion(lookup.message()) {
        return None;
    }
    let target = redirected(name, ancestor, &domain(&target(&record.data)?)?)?;
    Some(Answer {
        records: vec![Data::Cname(target)],
        ttl: seconds(record.ttl).min(remaining(lookup)),
        security: Security::Secure,
        aliases: Vec::new(),
        is_split: false,
    })
}

fn remaining(lookup: &Lookup) -> Duration {
    lookup.valid_until().saturating_duration_since(std::time::Instant::now())
}

/// The library leaves the data of DNAME records as it is. The name in it is not compressed (RFC 6672 §2.5).
fn target(data: &RData) -> Option<Name> {
    let RData::Unknown { rdata, .. } = data else { return None };
    let mut decoder = BinDecoder::new(&rdata.anything);
    let name = Name::read(&mut decoder).ok()?;
    decoder.is_empty().then_some(name)
}

/// Replaces the suffix `ancestor` of a name; `None` if the name is not below it, or if the result is not a valid name.
fn redirected(name: &DomainName, ancestor: &DomainName, target: &DomainName) -> Option<DomainName> {
    let labels = name.as_str().strip_suffix(ancestor.as_str())?.strip_suffix('.')?;
    DomainName::from_ascii(&format!("{labels}.{target}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_below_a_dname_record_keeps_its_first_labels() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let redirected = |asked: &str, target: &str| {
            redirected(&name(asked), &name("example.com"), &name(target)).map(|name| name.to_string())
        };
        assert_eq!(redirected("mx.example.com", "example.org").as_deref(), Some("mx.example.org"));
        assert_eq!(
            redirected("_25._tcp.mx.example.com", "a.example.org").as_deref(),
            Some("_25._tcp.mx.a.example.org")
        );
        assert_eq!(redirected("example.com", "example.org"), None, "the owner itself");
        assert_eq!(redirected("badexample.com", "example.org"), None);
        let long = format!("{}example.org", "a.".repeat(119));
        assert_eq!(redirected("a.long.mx.example.com", &long), None, "too long");
    }
}
