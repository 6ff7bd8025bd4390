//! The wire format of the queries of a [`super::Batch`] (RFC 1035 §4.1, RFC 6891). Queries are written without the library,
//! since they differ in name and type alone, and a response is compared with its query before anything is parsed. Only
//! responses with records are parsed, by the library.

use crate::dns::records::{belonging, data, record_type};
use crate::dns::{Data, Kind};
use formats::DomainName;
use hickory_proto::op::Message;

/// Bytes of a DNS header.
const HEADER: usize = 12;

/// The largest response over UDP that is asked for, in bytes: larger ones may be fragmented (RFC 9715).
const UDP_BYTES: u16 = 1232;

/// The most bytes of a name on the wire (RFC 1035 §3.1).
const NAME_BYTES: usize = 255;

/// Writes a query for `prefix.name`, with ID 0; an empty prefix is `name` itself. Returns false, and leaves no valid query, if
/// the name is too long.
pub(super) fn write(packet: &mut Vec<u8>, prefix: &str, name: &DomainName, kind: Kind) -> bool {
    packet.clear();
    // Recursion desired; one question and one additional record.
    packet.extend([0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    let prefix = prefix.split('.').filter(|label| !label.is_empty());
    for label in prefix.chain(name.labels()) {
        let Ok(length) = u8::try_from(label.len()) else { return false };
        packet.push(length);
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    let fits = packet.len() - HEADER <= NAME_BYTES;
    packet.extend(u16::from(record_type(kind)).to_be_bytes());
    packet.extend([0, 1]);
    // The OPT record: the root, its type, the size of responses, no flags and no options.
    packet.extend([0, 0, 41]);
    packet.extend(UDP_BYTES.to_be_bytes());
    packet.extend([0; 6]);
    fits
}

/// Bytes of the OPT record at the end of each query.
const OPT: usize = 11;

/// Sets the ID of a query.
pub(super) fn set_id(packet: &mut [u8], id: u16) {
    if let Some(place) = packet.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// The ID of a message.
pub(super) fn id(message: &[u8]) -> Option<u16> {
    message.get(..2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
}

/// What the header of a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The response code (RFC 1035 §4.1.1), without the bits of EDNS.
    pub code: u8,
    /// True if the response was cut to fit into a datagram.
    pub is_truncated: bool,
    /// True if the answer section has records.
    pub has_answers: bool,
    /// True if the server offers recursion (RA).
    pub offers_recursion: bool,
    /// True if the server is authoritative for the first name of the answer (AA).
    pub is_authoritative: bool,
}

impl Head {
    /// False for NOERROR and NXDOMAIN of a server without recursion that does not know whether there is a record: a referral, or
    /// an alias that leads elsewhere. `has_records` is true if the response has the records that were asked for.
    pub fn is_answer(self, has_records: bool) -> bool {
        let is_final = self.code == super::NXDOMAIN || !self.has_answers;
        ![super::NOERROR, super::NXDOMAIN].contains(&self.code)
            || has_records
            || self.offers_recursion
            || self.is_authoritative && is_final
    }
}

/// The head of a response to this query. `None` for any other message: one for another question may be a late or a forged
/// one.
pub(super) fn head(query: &[u8], message: &[u8]) -> Option<Head> {
    let question = query.get(HEADER..query.len().checked_sub(OPT)?)?;
    let flags = u16::from_be_bytes(message.get(2..4)?.try_into().ok()?);
    let is_response = flags & 0x8000 != 0 && flags & 0x7800 == 0;
    let has_question = message.get(4..6)? == [0, 1]
        && message.get(HEADER..HEADER + question.len())?.eq_ignore_ascii_case(question);
    (id(query) == id(message) && is_response && has_question).then_some(Head {
        code: flags.to_be_bytes()[1] & 0x0f,
        is_truncated: flags & 0x0200 != 0,
        has_answers: message.get(6..8)? != [0, 0],
        offers_recursion: flags & 0x0080 != 0,
        is_authoritative: flags & 0x0400 != 0,
    })
}

/// The records of a response that belong to its question, through CNAMEs. `None` if the response is malformed.
pub(super) fn records(message: &[u8], kind: Kind) -> Option<Vec<Data>> {
    let parsed = Message::from_vec(message).ok()?;
    let kind = record_type(kind);
    let name = parsed.queries.first()?.name();
    let own = belonging(&parsed.answers, name, kind);
    Some(own.into_iter().filter(|record| record.record_type() == kind).filter_map(data).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::RecordType;

    fn query(prefix: &str, name: &str, kind: Kind) -> Vec<u8> {
        let mut packet = Vec::new();
        assert!(write(&mut packet, prefix, &DomainName::parse(name).unwrap(), kind));
        packet
    }

    #[test]
    fn a_query_is_what_the_library_reads_and_writes() {
        let packet = query("_smtp._tls", "example.org", Kind::Txt);
        let message = Message::from_vec(&packet).unwrap();
        assert_eq!(message.queries.len(), 1);
        assert_eq!(message.queries[0].name().to_ascii(), "_smtp._tls.example.org.");
        assert_eq!(message.queries[0].query_type(), RecordType::TXT);
        assert!(message.metadata.recursion_desired);
        assert_eq!(message.edns.as_ref().unwrap().max_payload(), UDP_BYTES);
        assert_eq!(message.to_vec().unwrap(), packet);
        let plain = Message::from_vec(&query("", "example.org", Kind::Mx)).unwrap();
        assert_eq!(plain.queries[0].name().to_ascii(), "example.org.");
    }

    #[test]
    fn a_name_that_is_too_long_with_its_prefix_is_not_asked_for() {
        let label = "a".repeat(60);
        let name = format!("{label}.{label}.{label}.{label}");
        let name = DomainName::parse(&name).unwrap();
        assert!(write(&mut Vec::new(), "_25._tcp", &DomainName::parse("example.org").unwrap(), Kind::Tlsa));
        assert!(!write(&mut Vec::new(), "_smtp._tls", &name, Kind::Txt));
        assert!(write(&mut Vec::new(), "", &name, Kind::Mx));
    }

    #[test]
    fn only_a_response_with_the_id_and_the_question_of_the_query_is_its_response() {
        let mut query = query("_mta-sts", "example.org", Kind::Txt);
        set_id(&mut query, 0x1234);
        let mut good = query.clone();
        good[2] |= 0x80;
        good[3] = 0x83;
        let expected = Head {
            code: 3,
            is_truncated: false,
            has_answers: false,
            offers_recursion: true,
            is_authoritative: false,
        };
        assert_eq!(head(&query, &good), Some(expected));
        let upper = good.to_ascii_uppercase();
        assert_eq!(head(&query, &upper), Some(expected), "names are the same in upper case");
        for (at, to) in [(1, 0x35), (2, 0x01), (2, 0xa9), (5, 0), (13, b'x'), (query.len() - OPT - 3, 15)] {
            let mut other = good.clone();
            other[at] = to;
            assert_eq!(head(&query, &other), None, "{at}");
        }
        for length in 0..good.len() - OPT {
            assert_eq!(head(&query, &good[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_server_without_recursion_knows_only_its_own_names() {
        let head = |code, offers_recursion, is_authoritative, has_answers| Head {
            code,
            is_truncated: false,
            has_answers,
            offers_recursion,
            is_authoritative,
        };
        for (head, has_records, is_answer) in [
            (head(0, true, false, false), false, true),
            (head(3, true, false, false), false, true),
            (head(0, true, false, true), false, true),
            // A referral, an upward referral, and an alias into another zone.
            (head(0, false, false, false), false, false),
            (head(3, false, false, false), false, false),
            (head(0, false, true, true), false, false),
            // Its own names, and those in its cache.
            (head(0, false, true, false), false, true),
            (head(3, false, true, false), false, true),
            (head(3, false, true, true), false, true),
            (head(0, false, false, true), true, true),
            // A failure is told by its code.
            (head(5, false, false, false), false, true),
        ] {
            assert_eq!(head.is_answer(has_records), is_answer, "{head:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_fault(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            let query = query("_mta-sts", "example.org", Kind::Txt);
            let _ = head(&query, &bytes);
            let _ = head(&bytes, &query);
            let _ = records(&bytes, Kind::Txt);
        }
    }
}
