//! Converts between this crate's names and record data and those of the hickory library.

use super::{Caa, Data, DnsError, Exchange, Kind, Mx};
use formats::DomainName;
use formats::limits::{CAA_CHARACTERS, LABEL_BYTES};
use formats::tlsa::TlsaRecord;
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::time::Duration;

pub(super) fn absolute(name: &DomainName) -> Result<Name, DnsError> {
    Name::from_ascii(format!("{name}.")).map_err(|error| DnsError::Network(error.to_string()))
}

pub(super) fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(u64::from(ttl))
}

pub(super) fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Caa => RecordType::CAA,
        Kind::Cds => RecordType::CDS,
        Kind::Cname => RecordType::CNAME,
        Kind::Dnskey => RecordType::DNSKEY,
        Kind::Ds => RecordType::DS,
        Kind::Mx => RecordType::MX,
        Kind::Ns => RecordType::NS,
        Kind::Soa => RecordType::SOA,
        Kind::Tlsa => RecordType::TLSA,
        Kind::Txt => RecordType::TXT,
    }
}

pub(super) fn data(record: &Record) -> Option<Data> {
    Some(match &record.data {
        RData::A(ip) => Data::A(ip.0),
        RData::AAAA(ip) => Data::Aaaa(ip.0),
        RData::CNAME(name) => Data::Cname(domain(&name.0)?),
        RData::CAA(caa) => Data::Caa(Caa {
            tag: caa.tag.to_ascii_lowercase(),
            value: String::from_utf8_lossy(&caa.value).chars().take(CAA_CHARACTERS).collect(),
        }),
        RData::NS(name) => Data::Ns(domain(&name.0)?),
        RData::MX(mx) => Data::Mx(Mx { preference: mx.preference, exchange: exchange(&mx.exchange) }),
        RData::SOA(soa) => Data::Soa { serial: soa.serial, minimum: soa.minimum },
        RData::TLSA(tlsa) => Data::Tlsa(TlsaRecord {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone(),
        }),
        RData::TXT(txt) => Data::Txt(txt.txt_data.concat()),
        RData::DNSSEC(DNSSECRData::CDS(_) | DNSSECRData::DNSKEY(_) | DNSSECRData::DS(_)) => Data::Dnssec,
        _ => return None,
    })
}

pub(super) fn domain(name: &Name) -> Option<DomainName> {
    DomainName::from_ascii(&name.to_ascii()).ok()
}

fn exchange(name: &Name) -> Exchange {
    if name.is_root() {
        return Exchange::Null;
    }
    let text = name.to_ascii();
    DomainName::from_ascii(&text)
        .map_or_else(|_| Exchange::Invalid(text.chars().take(LABEL_BYTES * 4).collect()), Exchange::Host)
}

/// The records of an answer that belong to `name`: the CNAMEs that start there, and the records of type `kind` at the
/// end of the chain. All other records in the answer, such as unsigned records of another name, are ignored.
pub(super) fn belonging<'r>(records: &'r [Record], name: &Name, kind: RecordType) -> Vec<&'r Record> {
    let (mut owner, mut chain) = (name, Vec::new());
    while kind != RecordType::CNAME && chain.len() < records.len() {
        let is_next = |record: &&Record| record.record_type() == RecordType::CNAME && record.name == *owner;
        let Some(record) = records.iter().find(is_next) else { break };
        let RData::CNAME(target) = &record.data else { break };
        chain.push(record);
        owner = &target.0;
    }
    chain.extend(records.iter().filter(|record| record.record_type() == kind && record.name == *owner));
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_other_names_are_ignored() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let a = |owner: &str, last| {
            Record::from_rdata(name(owner), 60, RData::A(hickory_proto::rr::rdata::A::new(192, 0, 2, last)))
        };
        let alias = |owner: &str, target: &str| {
            let target = hickory_proto::rr::rdata::CNAME(name(target));
            Record::from_rdata(name(owner), 60, RData::CNAME(target))
        };
        let owners = |records: &[Record], asked: &str| -> Vec<String> {
            let found = belonging(records, &name(asked), RecordType::A);
            found.iter().map(|record| record.name.to_ascii()).collect()
        };
        let plain =
            [a("mx.test.", 1), a("evil.example.", 66), a("MX.test.", 2), alias("evil.example.", "mx.test.")];
        assert_eq!(owners(&plain, "mx.test."), ["mx.test.", "MX.test."]);
        let chained =
            [a("c.test.", 1), alias("b.test.", "c.test."), alias("a.test.", "b.test."), a("b.test.", 9)];
        assert_eq!(owners(&chained, "a.test."), ["a.test.", "b.test.", "c.test."]);
        let circle = [alias("a.test.", "b.test."), alias("b.test.", "a.test.")];
        assert!(owners(&circle, "a.test.").len() <= 2);
        let cname = belonging(&chained, &name("b.test."), RecordType::CNAME);
        assert_eq!(cname.len(), 1);
    }
}
