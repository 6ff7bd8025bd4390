//! All limits on external input and on the work that it causes. Sizes are in bytes, times are [`Duration`]s. The doc
//! comments are also the text of `docs/limits.md`, which [`reference()`] generates and a test compares.

use std::time::Duration;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $value:expr;)*) => {
        $($(#[doc = $doc])+ pub const $name: $kind = $value;)*

        /// Returns the name, the value and the description of every limit.
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

impl Shown for u64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Duration {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

/// Returns the text of the reference page, `docs/limits.md`.
pub fn reference() -> String {
    let head = "# Limits\n\n\
        All external input is bounded. Sizes are in bytes. Each limit is checked where the data arrives.\n\
        Exceeding a limit is an error that names it, unless the table says otherwise.\n\n\
        `sternpost config limits` generates this page from `crates/formats/src/limits.rs`.\n\n\
        | limit | value | what it bounds |\n| --- | ---: | --- |\n";
    let rows = table().into_iter().map(|(name, value, about)| format!("| `{name}` | {value} | {about} |\n"));
    rows.fold(head.to_owned(), |page, row| page + &row)
}

limits! {
    /// A domain name as A-labels, without the final dot (RFC 1035 §2.3.4).
    DOMAIN_BYTES: usize = 253;
    /// One label of a domain name.
    LABEL_BYTES: usize = 63;
    /// A TXT record, with its strings joined.
    TXT_BYTES: usize = 4096;
    /// TXT records of one DNS answer that are examined; further ones are ignored.
    TXT_RECORDS: usize = 64;
    /// The `id` of an `_mta-sts` record (RFC 8461 §3.1).
    POLICY_ID_BYTES: usize = 32;
    /// The name of an unknown field or key (RFC 8461 §3.1, §3.2).
    FIELD_NAME_BYTES: usize = 32;
    /// The body of a policy file (RFC 8461 §3.3).
    POLICY_BYTES: usize = 65_536;
    /// One line of a policy file.
    POLICY_LINE_BYTES: usize = 1000;
    /// One line of a file of exported policies; a policy of `POLICY_BYTES` fits.
    EXPORT_LINE_BYTES: usize = 262_144;
    /// Lines of a file of exported policies. The import stops there with an error.
    IMPORT_LINES: usize = 5_000_000;
    /// How far in the future the fetch of an imported policy may be, because of the clocks of two machines; it then counts
    /// as fetched now. A later one is refused.
    IMPORT_CLOCK_DIFFERENCE: Duration = Duration::from_secs(300);
    /// The maximum `max_age` in seconds; larger values are reduced to it (RFC 8461 §3.2).
    MAX_AGE_SECONDS: u32 = 31_557_600;
    /// Report targets in one `_smtp._tls` record; further ones are ignored with a note.
    RUA_TARGETS: usize = 16;
    /// A TLS report as received, compressed or not.
    REPORT_PACKED_BYTES: usize = 10_485_760;
    /// A TLS report after decompression; also all reports in one message or file together.
    REPORT_BYTES: usize = 104_857_600;
    /// The ratio of a report's decompressed size to its received size.
    REPORT_RATIO: usize = 1000;
    /// The nesting depth of JSON in a report or datagram.
    JSON_DEPTH: usize = 16;
    /// JSON values in a report; also in all reports of one message or file together.
    JSON_NODES: usize = 1_500_000;
    /// Failure details in one report.
    REPORT_DETAILS: usize = 100_000;
    /// Policies in one report.
    REPORT_POLICIES: usize = 10_000;
    /// A number of sessions in a received report; higher ones are reduced to it. No sender has that many in a day.
    REPORT_SESSIONS: u64 = 1 << 40;
    /// Daily sums that one report can change. Failures in a report of more domains and days count on the newest days.
    REPORT_DAY_SUMS: usize = 2048;
    /// Days after its period within which a report has to arrive to be evidence for or against enforcement, unless the
    /// operator vouches for it. A later one is stored and shown.
    REPORT_EVIDENCE_DAYS: u32 = 30;
    /// Days for which a former MX host still connects reports about it with the domain.
    MX_HISTORY_DAYS: u32 = 90;
    /// Warnings kept for one report; the last one states that there are more.
    REPORT_WARNINGS: usize = 200;
    /// A text value in a report; longer ones are truncated with a warning.
    REPORT_TEXT_BYTES: usize = 4096;
    /// Records of one TLSA answer that are used; further ones are ignored.
    TLSA_RECORDS: usize = 64;
    /// The data of one TLSA record.
    TLSA_DATA_BYTES: usize = 16_384;
    /// A socketmap request (socketmap_table(5)).
    SOCKETMAP_REQUEST_BYTES: usize = 100_000;
    /// A socketmap reply, as Postfix accepts it. A longer one is sent without the attributes `policy_string`, then also
    /// without `mx_host_pattern`. If the MX patterns of the level alone exceed it, the reply is a temporary failure.
    SOCKETMAP_REPLY_BYTES: usize = 100_000;
    /// A reason that the mail server writes to its log; longer ones are truncated.
    REASON_BYTES: usize = 400;
    /// A session datagram of libtlsrpt.
    DATAGRAM_BYTES: usize = 65_000;
    /// Distinct sessions held in memory until they are stored; further ones are dropped and counted.
    COLLECTED_BYTES: usize = 67_108_864;
    /// The sessions in one POST request, or in one chunk of a file.
    POSTED_BYTES: usize = 8_388_608;
    /// Delivering one report to one target by HTTPS POST, from DNS look-up to response.
    POST_TIME: Duration = Duration::from_secs(120);
    /// Delivering one report to one target by mail, over all of its MX hosts.
    REPORT_MAIL_TIME: Duration = Duration::from_secs(600);
    /// How long the delivery of a report is retried (RFC 8460 §5.5).
    REPORT_LIFE: Duration = Duration::from_secs(86_400);
    /// Concurrent report deliveries to one host.
    REPORTS_PER_HOST: usize = 4;
    /// Reports held in memory that wait for one host; further ones wait in the store.
    REPORTS_WAITING: usize = 1000;
    /// Concurrent report deliveries in total.
    REPORTS_AT_ONCE: usize = 64;
    /// Distinct failures under one policy that are counted separately per day; further ones are summed by result type.
    TALLY_FAILURES: usize = 1000;
    /// Fetching a policy, including DNS, connection, TLS and body (RFC 8461 §3.3).
    POLICY_FETCH_TIME: Duration = Duration::from_secs(60);
    /// How long senders may still fetch a policy after its replacement, e.g. from a proxy's cache (RFC 8461 §8.2).
    POLICY_SLACK: Duration = Duration::from_secs(120);
    /// One TCP connection attempt to one address.
    CONNECT_TIME: Duration = Duration::from_secs(10);
    /// The delay before a connection attempt to the next address starts in parallel (RFC 8305 §5).
    HAPPY_EYEBALLS_DELAY: Duration = Duration::from_millis(250);
    /// Addresses of one host that are tried, with IPv6 and IPv4 in turn (RFC 8305 §4); further ones are ignored.
    HOST_ADDRESSES: usize = 8;
    /// Lines of evidence in one finding of a check.
    EVIDENCE_LINES: usize = 50;
    /// Characters in one line of evidence.
    EVIDENCE_CHARACTERS: usize = 1000;
    /// A certificate revocation list (CRL).
    CRL_BYTES: usize = 8 << 20;
    /// Fetching a certificate revocation list.
    CRL_TIME: Duration = Duration::from_secs(10);
    /// Cached zones that are proven to be unsigned.
    UNSIGNED_ZONES: usize = 100_000;
    /// MX hosts of one domain that are used; further ones are ignored.
    MX_HOSTS: usize = 32;
    /// Name servers of one zone that are queried, and their addresses.
    NAME_SERVERS: usize = 16;
    /// CNAMEs followed in sequence when name servers are queried individually.
    ALIASES: usize = 8;
    /// One DNS query, including retries.
    DNS_TIME: Duration = Duration::from_secs(10);
    /// One change of records through a DNS provider's API.
    PROVIDER_TIME: Duration = Duration::from_secs(120);
    /// One HTTPS request to a DNS provider, including its response.
    PROVIDER_REQUEST_TIME: Duration = Duration::from_secs(30);
    /// The body of one response of a DNS provider.
    PROVIDER_ANSWER_BYTES: usize = 4_194_304;
    /// Pages of one list at a DNS provider.
    PROVIDER_PAGES: u32 = 50;
    /// Retries of a request that a DNS provider rejects temporarily (HTTP 429, 503).
    PROVIDER_RETRIES: u32 = 3;
    /// The pause before such a retry; a longer `Retry-After` is reduced to it.
    PROVIDER_RETRY_PAUSE: Duration = Duration::from_secs(60);
    /// The nesting depth of elements in an XML document of a DNS provider.
    XML_DEPTH: usize = 16;
    /// Elements in an XML document of a DNS provider.
    XML_ELEMENTS: usize = 100_000;
    /// A PROXY protocol header.
    PROXY_HEADER_BYTES: usize = 536;
    /// The headers of an HTTP response.
    HTTP_HEADER_BYTES: usize = 16_384;
    /// One line of an SMTP reply.
    SMTP_LINE_BYTES: usize = 2048;
    /// One SMTP command to the report inbox, with the parameters of SIZE and 8BITMIME (RFC 5321 §4.5.3.1.4, RFC 1870,
    /// RFC 6152). A longer one is answered with 500, and the connection is closed.
    SMTP_COMMAND_BYTES: usize = 555;
    /// Lines in one SMTP reply.
    SMTP_REPLY_LINES: usize = 100;
    /// One SMTP reply, or one TLS handshake.
    SMTP_REPLY_TIME: Duration = Duration::from_secs(30);
    /// A message to the report inbox.
    INBOX_MESSAGE_BYTES: usize = 15_728_640;
    /// Reports in one message, or in one file by HTTPS POST. The first ones are stored, and the whole message is
    /// quarantined.
    INBOX_REPORTS: usize = 100;
    /// Parts of one message that are searched for reports. The reports found so far are stored; the whole message is
    /// quarantined if it claims to be a TLS report.
    INBOX_PARTS: usize = 100;
    /// Levels of messages within messages that are searched for reports. If a deeper one claims to be a TLS report, the
    /// whole message is quarantined.
    INBOX_DEPTH: usize = 4;
    /// Messages, report files and their buffers that are being received, over all connections. A message that would
    /// exceed it is refused temporarily (452 by SMTP and LMTP, 503 by HTTPS).
    INBOX_BUFFER_BYTES: usize = 134_217_728;
    /// A message that is still accepted when three quarters of `INBOX_BUFFER_BYTES` are in use; larger ones are refused
    /// temporarily then, so that they can't keep out ordinary reports.
    INBOX_SMALL_BYTES: usize = 262_144;
    /// Decompressed and parsed reports that are not stored yet, over all ways of arrival. A message that would exceed it
    /// is refused temporarily (451, 503); an import waits instead.
    INBOX_UNPACKED_BYTES: usize = 536_870_912;
    /// One line of a message to the report inbox. A message with a longer line is refused (554).
    INBOX_LINE_BYTES: usize = 1_048_576;
    /// One line of a response of an IMAP server, without literals; a search that finds a million messages fits.
    IMAP_LINE_BYTES: usize = 8_388_608;
    /// One response of an IMAP server; a message of `INBOX_MESSAGE_BYTES` fits.
    IMAP_RESPONSE_BYTES: usize = 16_777_216;
    /// All responses of an IMAP server to one command.
    IMAP_REPLY_BYTES: usize = 33_554_432;
    /// Messages that a search by ranges (RFC 4731) returns; further ones are found by the next search.
    IMAP_SEARCH_RESULTS: usize = 1_000_000;
    /// The nesting depth of lists in a response of an IMAP server.
    IMAP_DEPTH: usize = 8;
    /// One read or write on an IMAP connection, a TLS handshake, or a request for an access token.
    IMAP_TIME: Duration = Duration::from_secs(60);
    /// Folders of one mailbox; further ones are ignored with a warning.
    IMAP_FOLDERS: usize = 100;
    /// The answer of an OAuth server, an access token in a file, or the output of a command that prints one.
    ACCESS_TOKEN_BYTES: usize = 65_536;
    /// Files in one imported zip file. The first ones are imported, and the zip file counts as unreadable.
    ZIP_MEMBERS: usize = 10_000;
    /// The nesting depth of imported folders.
    IMPORT_DEPTH: usize = 16;
    /// Concurrent connections to the report inbox; further ones wait until they are accepted.
    INBOX_CONNECTIONS: usize = 512;
    /// Messages over one connection to the report inbox.
    INBOX_MESSAGES: usize = 1000;
    /// Receiving one message in the report inbox, from `DATA` to its end, or one report by HTTPS POST.
    INBOX_MESSAGE_TIME: Duration = Duration::from_secs(600);
    /// One session of the report inbox.
    INBOX_SESSION_TIME: Duration = Duration::from_secs(3600);
    /// Public checks per minute in total, if public checks are enabled.
    PUBLIC_CHECKS: u32 = 20;
    /// Public checks per minute from one IPv4 address or one IPv6 /64.
    PUBLIC_CHECKS_PER_ADDRESS: u32 = 5;
    /// Concurrent public checks.
    PUBLIC_CHECKS_AT_ONCE: usize = 4;
    /// Results of public checks that are kept for sharing; older ones are deleted.
    PUBLIC_RESULTS: u32 = 500;
    /// The body of a submitted form.
    FORM_BYTES: usize = 16_384;
    /// The pause after a failed fetch of a policy with the same `id` (RFC 8461 §3.3).
    FETCH_BACK_OFF: Duration = Duration::from_secs(300);
    /// The longest time between refreshes of a cached policy (RFC 8461 §3.3).
    POLICY_REFRESH: Duration = Duration::from_secs(86_400);
    /// The shortest time between look-ups of an `_mta-sts` record, even if its TTL is shorter, unless configured.
    RECORD_RECHECK: Duration = Duration::from_secs(60);
    /// The longest time that "no policy" is cached, even if the TTL is longer.
    NOTHING_RECHECK: Duration = Duration::from_secs(3600);
    /// How long a temporary failure is cached.
    FAILURE_RECHECK: Duration = Duration::from_secs(30);
    /// Concurrent look-ups of domains for mail; further ones wait.
    LOOKUPS: usize = 256;
    /// Concurrent look-ups of domains in the background; further ones are postponed.
    BACKGROUND_LOOKUPS: usize = 16;
    /// Concurrent fetches from one address, since many domains share a policy host.
    FETCHES_PER_ADDRESS: usize = 8;
    /// Concurrent connections to one socket for mail servers; further ones wait until they are accepted.
    ANSWER_CONNECTIONS: usize = 4096;
    /// Concurrent connections from one IPv4 address or one IPv6 /64 to a public socket; further ones are closed.
    PUBLIC_CONNECTIONS_PER_ADDRESS: usize = 256;
    /// Reading the rest of a request after its start, or writing a reply.
    SOCKETMAP_TIME: Duration = Duration::from_secs(30);
    /// A request line of a look-up protocol.
    LINE_BYTES: usize = 1024;
}

#[cfg(test)]
mod tests {
    #[test]
    fn docs_limits_md_is_up_to_date() {
        let written = include_str!("../../../docs/limits.md");
        assert_eq!(written, super::reference(), "run: sternpost config limits > docs/limits.md");
    }
}
