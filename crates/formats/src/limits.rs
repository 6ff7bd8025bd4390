//! Every bound on what comes from outside, in one place. `docs/limits.md` is held against this
//! file by a test. Sizes are bytes, times are [`Duration`]s.

use std::time::Duration;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $value:expr;)*) => {
        $($(#[doc = $doc])+ pub const $name: $kind = $value;)*

        /// Name, value and meaning of every limit.
        pub fn table() -> Vec<(&'static str, String, &'static str)> {
            vec![$((stringify!($name), $name.shown(), concat!($($doc),+).trim()),)*]
        }
    };
}

trait Shown {
    fn shown(&self) -> String;
}

impl Shown for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for u32 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Duration {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

/// The reference page, `docs/limits.md`.
pub fn reference() -> String {
    let head = "# Limits\n\n\
        Everything that comes from outside is bounded. Sizes are bytes; a limit is applied where the data\n\
        comes in, and passing it is an error that names it, never a silent cut, unless it says so here.\n\n\
        This page is made by `sternpost config limits`, from `crates/formats/src/limits.rs`.\n\n\
        | limit | value | what it bounds |\n| --- | ---: | --- |\n";
    let rows = table().into_iter().map(|(name, value, about)| format!("| `{name}` | {value} | {about} |\n"));
    rows.fold(head.to_owned(), |page, row| page + &row)
}

limits! {
    /// A domain name in A-labels, without the final dot (RFC 1035 §2.3.4).
    DOMAIN_BYTES: usize = 253;
    /// One label of a domain name.
    LABEL_BYTES: usize = 63;
    /// A TXT record after its strings are joined.
    TXT_BYTES: usize = 4096;
    /// TXT records looked at in one answer.
    TXT_RECORDS: usize = 64;
    /// The `id` of an `_mta-sts` record (RFC 8461 §3.1).
    POLICY_ID_BYTES: usize = 32;
    /// The name of an unknown field or key (RFC 8461 §3.1, §3.2).
    FIELD_NAME_BYTES: usize = 32;
    /// The body of a policy file; one byte more is an error (RFC 8461 §3.3).
    POLICY_BYTES: usize = 65_536;
    /// One line of a policy file.
    POLICY_LINE_BYTES: usize = 1000;
    /// The longest `max_age`, in seconds (RFC 8461 §3.2).
    MAX_AGE_SECONDS: u32 = 31_557_600;
    /// Report targets in one `_smtp._tls` record; the rest is left out with a note.
    RUA_TARGETS: usize = 16;
    /// A TLS report as it arrives, packed or not.
    REPORT_PACKED_BYTES: usize = 10_485_760;
    /// A TLS report after unpacking.
    REPORT_BYTES: usize = 104_857_600;
    /// How many times larger a report may get by unpacking.
    REPORT_RATIO: usize = 1000;
    /// Nesting of JSON in a report or datagram.
    JSON_DEPTH: usize = 16;
    /// Failure details in one report.
    REPORT_DETAILS: usize = 100_000;
    /// Policies in one report.
    REPORT_POLICIES: usize = 10_000;
    /// Warnings kept for one report; further ones are only counted.
    REPORT_WARNINGS: usize = 200;
    /// A text value taken from a report.
    REPORT_TEXT_BYTES: usize = 4096;
    /// Records of one TLSA answer that are looked at.
    TLSA_RECORDS: usize = 64;
    /// The data of one TLSA record.
    TLSA_DATA_BYTES: usize = 16_384;
    /// A socketmap request (socketmap_table(5)).
    SOCKETMAP_REQUEST_BYTES: usize = 100_000;
    /// A reason that is shown in a mail log.
    REASON_BYTES: usize = 400;
    /// A session datagram of libtlsrpt.
    DATAGRAM_BYTES: usize = 65_000;
    /// Sessions that differ, held in memory until the store takes them; further ones are dropped and counted.
    COLLECTED_BYTES: usize = 67_108_864;
    /// Sessions in one post, and in one piece of a file.
    POSTED_BYTES: usize = 8_388_608;
    /// Posting one report over HTTPS, everything included.
    POST_TIME: Duration = Duration::from_secs(120);
    /// Bringing one report to one target by mail, all of its MX hosts included.
    REPORT_MAIL_TIME: Duration = Duration::from_secs(600);
    /// How long a report is tried to be delivered (RFC 8460 §5.5).
    REPORT_LIFE: Duration = Duration::from_secs(86_400);
    /// Reports on their way to one host at once.
    REPORTS_PER_HOST: usize = 4;
    /// Reports that wait for one host in memory; further ones wait in the store.
    REPORTS_WAITING: usize = 1000;
    /// Reports on their way at once.
    REPORTS_AT_ONCE: usize = 64;
    /// Kinds of failures under one policy that are told apart in a day; further ones are summed up by their result.
    TALLY_FAILURES: usize = 1000;
    /// The whole of fetching a policy: DNS, connect, TLS, body (RFC 8461 §3.3).
    POLICY_FETCH_TIME: Duration = Duration::from_secs(60);
    /// How long a replaced policy can still reach a sender: a fetch, and a proxy's copy (RFC 8461 §8.2).
    POLICY_SLACK: Duration = Duration::from_secs(120);
    /// One TCP connection attempt of a policy fetch.
    CONNECT_TIME: Duration = Duration::from_secs(10);
    /// Head start of one address family over the other (RFC 8305 §5).
    HAPPY_EYEBALLS_DELAY: Duration = Duration::from_millis(250);
    /// Addresses of one host that are tried.
    HOST_ADDRESSES: usize = 8;
    /// Lines of evidence that a finding of a preflight keeps.
    EVIDENCE_LINES: usize = 50;
    /// Characters of such a line.
    EVIDENCE_CHARACTERS: usize = 1000;
    /// A list of revoked certificates.
    CRL_BYTES: usize = 8 << 20;
    /// For such a list.
    CRL_TIME: Duration = Duration::from_secs(10);
    /// Zones that are remembered as proven to be unsigned.
    UNSIGNED_ZONES: usize = 100_000;
    /// MX hosts of one domain that are looked at.
    MX_HOSTS: usize = 32;
    /// Name servers of one zone that are asked, and addresses of them.
    NAME_SERVERS: usize = 16;
    /// CNAMEs followed in a row when name servers are asked one by one.
    ALIASES: usize = 8;
    /// One DNS question, retries included.
    DNS_TIME: Duration = Duration::from_secs(10);
    /// One change of records through a DNS provider's interface.
    PROVIDER_TIME: Duration = Duration::from_secs(120);
    /// One HTTPS request to a DNS provider, its answer included.
    PROVIDER_REQUEST_TIME: Duration = Duration::from_secs(30);
    /// The body of one answer of a DNS provider.
    PROVIDER_ANSWER_BYTES: usize = 4_194_304;
    /// Pages of one list at a DNS provider; a longer list is an error.
    PROVIDER_PAGES: u32 = 50;
    /// How often a request is repeated that a DNS provider puts off (HTTP 429, 503).
    PROVIDER_RETRIES: u32 = 3;
    /// The longest pause before such a repetition, whatever `Retry-After` asks for.
    PROVIDER_RETRY_PAUSE: Duration = Duration::from_secs(60);
    /// Nesting of elements in an XML document of a DNS provider.
    XML_DEPTH: usize = 16;
    /// Elements in such a document.
    XML_ELEMENTS: usize = 100_000;
    /// What a proxy says of whom it speaks for, in front of a connection.
    PROXY_HEADER_BYTES: usize = 536;
    /// Headers of an HTTP answer.
    HTTP_HEADER_BYTES: usize = 16_384;
    /// One line of an SMTP reply.
    SMTP_LINE_BYTES: usize = 2048;
    /// Lines of one SMTP reply.
    SMTP_REPLY_LINES: usize = 100;
    /// Waiting for one SMTP reply or a TLS handshake.
    SMTP_REPLY_TIME: Duration = Duration::from_secs(30);
    /// A message that the report inbox takes.
    INBOX_MESSAGE_BYTES: usize = 15_728_640;
    /// Reports in one zip file that is imported.
    ZIP_MEMBERS: usize = 10_000;
    /// Folders within folders that are imported.
    IMPORT_DEPTH: usize = 16;
    /// Connections to the report inbox at once; further ones wait to be taken.
    INBOX_CONNECTIONS: usize = 512;
    /// Messages over one connection to the report inbox.
    INBOX_MESSAGES: usize = 1000;
    /// One message to the report inbox, from `DATA` to its end.
    INBOX_MESSAGE_TIME: Duration = Duration::from_secs(600);
    /// One session of the report inbox.
    INBOX_SESSION_TIME: Duration = Duration::from_secs(3600);
    /// Domains that everybody together may have checked in a minute, where that is switched on.
    PUBLIC_CHECKS: u32 = 20;
    /// Of those, by one address (one /64 of IPv6).
    PUBLIC_CHECKS_PER_ADDRESS: u32 = 5;
    /// Of those, at once.
    PUBLIC_CHECKS_AT_ONCE: usize = 4;
    /// Outcomes that can be passed on; older ones are forgotten.
    PUBLIC_RESULTS: u32 = 500;
    /// A form that a page sends.
    FORM_BYTES: usize = 16_384;
    /// No new fetch after a failed one for the same `id` (RFC 8461 §3.3).
    FETCH_BACK_OFF: Duration = Duration::from_secs(300);
    /// A cached policy is looked at again at least this often (RFC 8461 §3.3).
    POLICY_REFRESH: Duration = Duration::from_secs(86_400);
    /// An `_mta-sts` record is not looked at again sooner, however short its TTL, unless configured.
    RECORD_RECHECK: Duration = Duration::from_secs(60);
    /// "No policy" is looked at again at least this often, however long its TTL.
    NOTHING_RECHECK: Duration = Duration::from_secs(3600);
    /// A temporary failure is answered from memory for so long.
    FAILURE_RECHECK: Duration = Duration::from_secs(30);
    /// Domains that are looked up at once because mail asks for them; further ones wait.
    LOOKUPS: usize = 256;
    /// Domains that are looked up at once in the background; further ones are left for later.
    BACKGROUND_LOOKUPS: usize = 16;
    /// Fetches from one address at once, since many domains share a policy host.
    FETCHES_PER_ADDRESS: usize = 8;
    /// Connections to one answering socket; further ones wait to be taken.
    ANSWER_CONNECTIONS: usize = 4096;
    /// Of these, connections of one address (of one /64 of IPv6) to a socket that is made for everybody; further ones are
    /// closed.
    PUBLIC_CONNECTIONS_PER_ADDRESS: usize = 256;
    /// The rest of a request that has begun, and the taking of a reply.
    SOCKETMAP_TIME: Duration = Duration::from_secs(30);
    /// A line that asks for a policy.
    LINE_BYTES: usize = 1024;
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_is_what_the_documentation_shows() {
        let written = include_str!("../../../docs/limits.md");
        assert_eq!(written, super::reference(), "run: sternpost config limits > docs/limits.md");
    }
}
