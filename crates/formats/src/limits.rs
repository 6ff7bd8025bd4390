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

impl Shown for u64 {
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
    /// Characters of the value of a CAA record that are read.
    CAA_CHARACTERS: usize = 1024;
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
    /// One line of a list of domains (`check --from`). A longer one is not a domain, and the list goes on.
    LIST_LINE_BYTES: usize = 65_536;
    /// One line of a file with results of `check --from`. A longer one is left out with a message.
    RESULT_LINE_BYTES: usize = 16_777_216;
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
    /// Causes of failures of one domain that are stored of one report, those with the most sessions. The sessions of all others
    /// are stored as one number: they are failures that can't be excused.
    REPORT_CAUSES: usize = 256;
    /// Results about one domain, and causes of failures, that are read of one sender to decide whether the domain may
    /// enforce. Those with failures come first, then the newest.
    SENDER_RESULTS: usize = 20_000;
    /// Causes of failures of one domain that are shown of one sender and raise alerts, those with the most sessions.
    SENDER_CAUSES: usize = 20;
    /// Daily sums that one report can change. Failures in a report of more domains and days count on the newest days.
    REPORT_DAY_SUMS: usize = 2048;
    /// Daily sums about domains that are not ours, of which `inbox.keep_received` limits the age. Those of the oldest days are
    /// deleted first, every minute. With the names of the domains they use 150 MiB at most.
    OTHER_DOMAIN_SUMS: usize = 200_000;
    /// Daily sums by submitter. Those of the oldest days are deleted first. With the names they use 400 MiB at most.
    SUBMITTER_SUMS: usize = 500_000;
    /// Days after which the daily sums of our domains and of submitters are deleted: ten years.
    SUM_DAYS: u32 = 3660;
    /// Reports whose text has been deleted and that are still recognized if they arrive again, until twice
    /// `inbox.keep_received`. The oldest ones of the source with most are forgotten first. They use 700 MiB at most.
    EXPIRED_REPORTS: usize = 200_000;
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
    /// Sessions that wait on this machine for the machine that counts them; further ones are dropped and counted.
    SPOOL_BYTES: usize = 268_435_456;
    /// The sessions in one batch that is handed over to another machine.
    BATCH_BYTES: usize = 1_048_576;
    /// The identifier of a batch of sessions.
    BATCH_ID_BYTES: usize = 100;
    /// Handing one batch over to another machine, from DNS lookup to response.
    HANDOVER_TIME: Duration = Duration::from_secs(60);
    /// Receiving one request with sessions, after its head.
    POSTED_TIME: Duration = Duration::from_secs(60);
    /// Requests with sessions from one client in a minute, where the collector requires a token; further ones get status
    /// 429.
    POSTS_PER_MINUTE: u32 = 600;
    /// A line of Exim's log; longer ones are ignored.
    EXIM_LINE_BYTES: usize = 65_536;
    /// Messages in Exim's log whose last sessions are remembered; further recipients of an older one count as new sessions.
    EXIM_MESSAGES: usize = 10_000;
    /// The words of a mail server about a failure, in characters; the rest is cut.
    FAILURE_REASON_CHARS: usize = 200;
    /// Delivering one report to one target by HTTPS POST, from DNS lookup to response.
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
    /// One request to an ACME CA, with its response; then the next CA is asked, and this one not for 15 minutes.
    CA_REQUEST_TIME: Duration = Duration::from_secs(30);
    /// The response of an ACME CA; with a longer one the order fails, and the next CA is asked.
    CA_RESPONSE_BYTES: usize = 1 << 20;
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
    /// Name servers of one zone that are queried; further ones are named as not queried.
    NAME_SERVERS: usize = 16;
    /// Addresses of all name servers of one zone that are queried; further ones are named as not queried.
    NAME_SERVER_ADDRESSES: usize = 32;
    /// An answer of a name server that counts in a rollout; one that arrives later, within the time of a DNS query, is
    /// named as late.
    NAME_SERVER_TIME: Duration = Duration::from_secs(5);
    /// Addresses of one policy host whose policy files are compared; further ones are named as not visited.
    POLICY_HOST_ADDRESSES: usize = 32;
    /// CNAMEs followed in sequence, name by name, in a signed zone or when name servers are queried individually.
    ALIASES: usize = 11;
    /// Queries for one name and type, with those for its CNAMEs and for unsigned zones above them.
    LOOKUP_QUERIES: usize = 64;
    /// Labels of a name whose SOA record is queried to find an unsigned zone; those of its ancestors count for a longer name.
    WALK_LABELS: usize = 16;
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
    /// One request to an OpenID Connect provider, including its response.
    IDENTITY_REQUEST_TIME: Duration = Duration::from_secs(10);
    /// The body of one response of an OpenID Connect provider.
    IDENTITY_ANSWER_BYTES: usize = 1_048_576;
    /// The nesting depth of elements in an XML document of a DNS provider or in a DMARC report.
    XML_DEPTH: usize = 16;
    /// Elements in an XML document of a DNS provider.
    XML_ELEMENTS: usize = 100_000;
    /// Elements in a DMARC report; also in all DMARC reports of one message or file together. About 100,000 records fit.
    DMARC_ELEMENTS: usize = 3_000_000;
    /// Counts of one DMARC report that are kept, each for one source address, alignment and disposition. The messages of
    /// further ones are counted without their source address.
    DMARC_ROWS: usize = 10_000;
    /// Messages in one record of a DMARC report; a larger count is reduced to it.
    DMARC_MESSAGES: u64 = 1_000_000_000_000;
    /// Counts of DMARC reports in the store whose sender is verified; beyond it the oldest of the largest sources are
    /// deleted. A report counts as one more.
    DMARC_STORED_ROWS: u32 = 2_000_000;
    /// Counts of DMARC reports in the store whose sender is not verified; beyond it the oldest of the largest sources are
    /// deleted.
    DMARC_UNVERIFIED_ROWS: u32 = 200_000;
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
    /// Levels of multiparts within multiparts that are searched for reports. If a deeper part may be a TLS report, the whole
    /// message is quarantined.
    INBOX_MULTIPARTS: usize = 20;
    /// Levels of compression and archives within each other that are unpacked, such as a gzip file in a zip file. A TLS report
    /// within more of them is quarantined.
    INBOX_PACKINGS: usize = 4;
    /// Messages and their buffers that are being received by SMTP, over all connections. A message that would exceed it is
    /// refused temporarily (452).
    INBOX_BUFFER_BYTES: usize = 134_217_728;
    /// Messages and their buffers that are being received by LMTP, over all connections. A message that would exceed it is
    /// refused temporarily (452).
    INBOX_LMTP_BUFFER_BYTES: usize = 67_108_864;
    /// Report files and their buffers that are being received by HTTPS POST, over all requests. A report that would exceed
    /// it is refused temporarily (503).
    INBOX_POST_BUFFER_BYTES: usize = 67_108_864;
    /// Messages and their buffers that are being received by SMTP from one IPv4 address or one IPv6 /64. A message that would
    /// exceed it is refused temporarily (452).
    INBOX_BUFFER_BYTES_PER_CLIENT: usize = 33_554_432;
    /// Report files and their buffers that are being received by HTTPS POST from one IPv4 address or one IPv6 /64. A report
    /// that would exceed it is refused temporarily (503).
    INBOX_POST_BUFFER_BYTES_PER_CLIENT: usize = 16_777_216;
    /// A message or report file that is still accepted when three quarters of these buffers are in use; larger ones are
    /// refused temporarily then, so that they can't keep out ordinary reports.
    INBOX_SMALL_BYTES: usize = 262_144;
    /// Decompressed and parsed reports that are not stored yet, over all ways of arrival. A message that would exceed it
    /// is refused temporarily (451, 503); an import and a mailbox wait for `INBOX_WAIT_TIME`. A report that needs more
    /// memory than this by itself can't be read.
    INBOX_UNPACKED_BYTES: usize = 536_870_912;
    /// Memory that reading one message or file may take in total to count as small. Larger ones wait for each other, use
    /// three quarters of `INBOX_UNPACKED_BYTES` at most, and do not hold up small ones.
    INBOX_SMALL_UNPACKED_BYTES: usize = 4_194_304;
    /// Small messages and files that are read at the same time for one IPv4 address or one IPv6 /64; further ones wait.
    INBOX_SMALL_PER_CLIENT: usize = 8;
    /// Large messages and files that are read or wait for one IPv4 address or one IPv6 /64; further ones are refused
    /// temporarily (451, 503).
    INBOX_LARGE_PER_CLIENT: usize = 2;
    /// How long an import or a mailbox waits for memory to read a message. Then the import reports it as unreadable, and
    /// the mailbox goes on to the next message and tries again later.
    INBOX_WAIT_TIME: Duration = Duration::from_secs(60);
    /// Items in the quarantine. Beyond it, the source that has most loses its oldest ones. One source may have a quarter.
    /// A source that uses a sixty-fourth or less loses nothing; if all are that small, the newest loses.
    QUARANTINE_ITEMS: usize = 10_000;
    /// Stored reports that are not evidence. Beyond it, the source that has most loses its oldest ones.
    /// A source that uses a sixty-fourth or less loses nothing; if all are that small, the newest loses.
    UNVERIFIED_REPORTS: usize = 200_000;
    /// One line of a message to the report inbox. A message with a longer line is refused (554).
    INBOX_LINE_BYTES: usize = 1_048_576;
    /// One line of a response of an IMAP server, without literals; a search that finds a million messages fits.
    IMAP_LINE_BYTES: usize = 8_388_608;
    /// One response of an IMAP server; a message of `INBOX_MESSAGE_BYTES` fits.
    IMAP_RESPONSE_BYTES: usize = 16_777_216;
    /// All responses of an IMAP server to one command.
    IMAP_REPLY_BYTES: usize = 33_554_432;
    /// All responses of an IMAP server to one command before the sign-in, and its greeting.
    IMAP_SIGN_IN_BYTES: usize = 65_536;
    /// One command before the sign-in to an IMAP server, from its beginning to the end of the answer.
    IMAP_SIGN_IN_TIME: Duration = Duration::from_secs(120);
    /// One command to an IMAP server after the sign-in, from its beginning to the end of the answer. The connection is
    /// closed then, even if the server still sends.
    IMAP_COMMAND_TIME: Duration = Duration::from_secs(600);
    /// Challenges of an IMAP server during one AUTHENTICATE.
    IMAP_CHALLENGES: usize = 4;
    /// Separate ranges in a set of UIDs. A search that finds more returns the lowest ones; the next one goes on above.
    IMAP_UID_RANGES: usize = 100_000;
    /// Messages of one folder that are read before the other folders have their turn.
    IMAP_ROUND_MESSAGES: usize = 1000;
    /// Messages of one folder that could not be read and are remembered for a retry; further ones are read again after the
    /// next start only.
    IMAP_POSTPONED: usize = 10_000;
    /// Values in a response of an IMAP server, such as the items of a message. A response with more is ignored.
    IMAP_VALUES: usize = 20_000;
    /// The name of a folder or namespace that an IMAP server sends, encoded. A longer one is ignored.
    IMAP_NAME_BYTES: usize = 1000;
    /// Folders of one LIST response that are used; further ones are ignored.
    IMAP_LISTED: usize = 1000;
    /// Prefixes of a NAMESPACE response; further ones are ignored.
    IMAP_NAMESPACES: usize = 100;
    /// Capabilities of an IMAP server; further ones are ignored.
    IMAP_CAPABILITIES: usize = 500;
    /// One capability of an IMAP server. A longer one is ignored.
    IMAP_CAPABILITY_BYTES: usize = 100;
    /// The response code in a status of an IMAP server; the rest is ignored.
    IMAP_CODE_BYTES: usize = 65_536;
    /// The human-readable text of a status of an IMAP server; the rest is ignored.
    IMAP_TEXT_BYTES: usize = 4096;
    /// The nesting depth of lists in a response of an IMAP server.
    IMAP_DEPTH: usize = 8;
    /// One read or write on an IMAP connection, a TLS handshake, or a request for an access token.
    IMAP_TIME: Duration = Duration::from_secs(60);
    /// Folders of one mailbox that are read; further ones are ignored with a warning.
    IMAP_FOLDERS: usize = 100;
    /// The answer of an OAuth server, an access token or a password of a mailbox in a file, or the output of a command that prints one.
    ACCESS_TOKEN_BYTES: usize = 65_536;
    /// Files in one imported zip file. The first ones are imported, and the zip file counts as unreadable.
    ZIP_MEMBERS: usize = 10_000;
    /// The nesting depth of imported folders.
    IMPORT_DEPTH: usize = 16;
    /// Concurrent SMTP connections to the report inbox; further ones are closed with 421. One network, an IPv4 /24 or an IPv6
    /// /48, has an eighth, but at least twice what one address has.
    INBOX_CONNECTIONS: usize = 512;
    /// Concurrent SMTP connections to the report inbox from one IPv4 address or one IPv6 /64, unless configured
    /// (`inbox.connections_per_client`); further ones are closed with 421.
    INBOX_CONNECTIONS_PER_CLIENT: usize = 32;
    /// Concurrent LMTP connections to the report inbox; further ones are closed with 421.
    INBOX_LMTP_CONNECTIONS: usize = 128;
    /// Commands of one session of the report inbox without a message that is stored. It then ends with 421.
    INBOX_COMMANDS: usize = 200;
    /// Refused commands of one session of the report inbox without a message that is stored. At the next one, the session
    /// ends with 421.
    INBOX_BAD_COMMANDS: usize = 10;
    /// One session of the report inbox without a message that is stored. It then ends with 421.
    INBOX_IDLE_TIME: Duration = Duration::from_secs(300);
    /// Messages over one connection to the report inbox.
    INBOX_MESSAGES: usize = 1000;
    /// Receiving one message in the report inbox, from `DATA` to its end.
    INBOX_MESSAGE_TIME: Duration = Duration::from_secs(600);
    /// Receiving one report by HTTPS POST. The request is then answered with 408.
    INBOX_POST_TIME: Duration = Duration::from_secs(120);
    /// A pause within the body of a report by HTTPS POST. The request is then answered with 408.
    INBOX_POST_PAUSE: Duration = Duration::from_secs(15);
    /// Concurrent reports by HTTPS POST; further ones are answered with 503. One network, an IPv4 /24 or an IPv6 /48, has
    /// twice what one address has.
    INBOX_POSTS: usize = 32;
    /// Concurrent reports by HTTPS POST from one IPv4 address or one IPv6 /64; further ones are answered with 429.
    INBOX_POSTS_PER_CLIENT: usize = 4;
    /// One session of the report inbox.
    INBOX_SESSION_TIME: Duration = Duration::from_secs(3600);
    /// Public checks per minute in total, if public checks are enabled.
    PUBLIC_CHECKS: u32 = 20;
    /// Public checks per minute from one IPv4 address or one IPv6 /64.
    PUBLIC_CHECKS_PER_ADDRESS: u32 = 5;
    /// Public checks per minute from one network, an IPv4 /24 or an IPv6 /48.
    PUBLIC_CHECKS_PER_NETWORK: u32 = 10;
    /// Concurrent public checks.
    PUBLIC_CHECKS_AT_ONCE: usize = 4;
    /// Public checks that run or wait for one network, an IPv4 /24 or an IPv6 /48, or for all badges; a further one gets
    /// status 429.
    PUBLIC_CHECKS_OF_NETWORK: usize = 2;
    /// Public checks that run or wait; a further one gets status 429.
    PUBLIC_CHECKS_STARTED: usize = 100;
    /// One public check, with its time in the queue. It then has no result.
    PUBLIC_CHECK_TIME: Duration = Duration::from_secs(300);
    /// Answers that the page of a running public check shows; further ones are left out until the check is done.
    PUBLIC_CHECK_ANSWERS: usize = 100;
    /// Checks per minute that requests for badges start, because the last check of the domain is a day old.
    BADGE_CHECKS: u32 = 5;
    /// Pages with results of public checks; those that were checked last are kept.
    PUBLIC_PAGES: u32 = 10_000;
    /// Results of public checks without their pages, for the history of domains; those that were checked last are kept.
    PUBLIC_RESULTS: u32 = 100_000;
    /// Results of public checks of one domain; those that were checked last are kept.
    PUBLIC_RESULTS_OF_DOMAIN: u32 = 100;
    /// Tokens of the HTTP API of one tenant, also expired ones.
    API_TOKENS: u32 = 1000;
    /// Lines of one bulk request of the HTTP API. Further ones are not read, and the answer says so.
    API_BULK_LINES: usize = 100_000;
    /// The body of one bulk request of the HTTP API. The rest is not read, and the answer says so.
    API_BULK_BYTES: usize = 67_108_864;
    /// Plans that the HTTP API computes or carries out at once; a further request gets status 429.
    API_WORK: usize = 32;
    /// Plans that the HTTP API computes or carries out at once for one tenant; a further request gets status 429.
    API_WORK_OF_TENANT: usize = 8;
    /// Operations that the HTTP API remembers after their end; the earliest is forgotten for a further one.
    API_OPERATIONS: usize = 1000;
    /// Checks of domains that the HTTP API runs at once; a further request gets status 429.
    API_CHECKS: usize = 4;
    /// Checks of domains that the HTTP API runs at once for one tenant; a further request gets status 429.
    API_CHECKS_OF_TENANT: usize = 2;
    /// One check of a domain by the HTTP API. It then has no result.
    API_CHECK_TIME: Duration = Duration::from_secs(240);
    /// The body of a submitted form. A larger one is answered with 413.
    FORM_BYTES: usize = 16_384;
    /// Receiving the body of a submitted form. The request is then answered with 408, and the connection is closed.
    FORM_TIME: Duration = Duration::from_secs(30);
    /// Submitted forms that are being received; further ones are answered with 503. One network, an IPv4 /24 or an IPv6
    /// /48, has an eighth.
    FORMS: usize = 2048;
    /// Submitted forms that are being received from one IPv4 address or one IPv6 /64; further ones are answered with 429.
    FORMS_PER_CLIENT: usize = 16;
    /// The pause after a failed fetch of a policy with the same `id` (RFC 8461 §3.3).
    FETCH_BACK_OFF: Duration = Duration::from_secs(300);
    /// The longest time between refreshes of a cached policy (RFC 8461 §3.3).
    POLICY_REFRESH: Duration = Duration::from_secs(86_400);
    /// The shortest time between lookups of an `_mta-sts` record, even if its TTL is shorter, unless configured.
    RECORD_RECHECK: Duration = Duration::from_secs(60);
    /// The longest time that "no policy" is cached, even if the TTL is longer.
    NOTHING_RECHECK: Duration = Duration::from_secs(3600);
    /// How long a temporary failure is cached.
    FAILURE_RECHECK: Duration = Duration::from_secs(30);
    /// Concurrent lookups of domains for mail; further ones wait. A lookup without a waiting request frees its slot.
    LOOKUPS: usize = 256;
    /// Concurrent lookups of domains that began for mail and that no request waits for any more; further ones are ended.
    ABANDONED_LOOKUPS: usize = 256;
    /// Lookups of domains that run or wait; beyond it, a request is answered by the policy in the store, or gets a temporary failure at once.
    LOOKUPS_IN_FLIGHT: usize = 4096;
    /// Concurrent lookups of domains in the background; further ones are postponed.
    BACKGROUND_LOOKUPS: usize = 16;
    /// Concurrent fetches from one address, since many domains share a policy host.
    FETCHES_PER_ADDRESS: usize = 8;
    /// Concurrent connections to one socket for mail servers; further ones wait until they are accepted.
    ANSWER_CONNECTIONS: usize = 4096;
    /// Concurrent connections from one IPv4 address or one IPv6 /64 to a socket that strangers may reach; further ones are
    /// closed. One network, an IPv4 /24 or an IPv6 /48, has an eighth of `ANSWER_CONNECTIONS`. Both do not apply to the
    /// connections of a reverse proxy.
    PUBLIC_CONNECTIONS_PER_ADDRESS: usize = 256;
    /// One HTTP request, from its head to the end of its response. The connection is closed then, also if one side only
    /// waits. It does not apply to Unix sockets for the operator's own programs.
    HTTP_EXCHANGE_TIME: Duration = Duration::from_secs(300);
    /// An HTTP/2 connection to the policy host without a new request. It is closed then, at the latest after twice the
    /// time.
    HTTP_IDLE_TIME: Duration = Duration::from_secs(30);
    /// Reading the rest of a request after its start, or writing a reply.
    SOCKETMAP_TIME: Duration = Duration::from_secs(30);
    /// A request line of a lookup protocol.
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
