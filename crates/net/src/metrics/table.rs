//! The table of metrics. See [`super`].

use super::{Label, Metric, MetricType, Values};

/// Declares the rows, and [`TABLE`] with all of them. A label is `name = [values]` or `name = "what bounds the values"`.
macro_rules! table {
    (@values [$($value:literal),+]) => { Values::Listed(&[$($value),+]) };
    (@values $about:literal) => { Values::Bounded($about) };
    ($($part:literal { $($(#[doc = $help:literal])+ $row:ident: $kind:ident $family:literal $([$($label:ident = $values:tt),+])?;)+ })+) => {
        $($($(#[doc = $help])+ pub static $row: Metric = Metric {
            part: $part,
            family: $family,
            metric_type: MetricType::$kind,
            help: trimmed(concat!($($help),+)),
            labels: &[$($(Label { name: stringify!($label), values: table!(@values $values) }),+)?],
        };)+)+

        /// All rows, in the order of `docs/metrics.md`.
        pub static TABLE: &[&Metric] = &[$($(&$row,)+)+];
    };
}

/// The text of a doc comment as a help text: without the space at its beginning and without the period.
const fn trimmed(text: &'static str) -> &'static str {
    let bytes = text.as_bytes().trim_ascii();
    match bytes.split_last() {
        Some((b'.', rest)) => utf8(rest),
        _ => utf8(bytes),
    }
}

/// The text of bytes that were cut from a text at ASCII characters.
const fn utf8(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}

table! {
    "Program" {
        /// Always 1; the label has the version of the program.
        BUILD_INFO: Gauge "sternpost_build_info" [version = "the running version"];
        /// Start time of the process, as a Unix time.
        PROCESS_START: Gauge "process_start_time_seconds";
        /// Processor time of the process, in user and system mode.
        PROCESS_CPU: Counter "process_cpu_seconds";
        /// Memory of the process that is in RAM.
        PROCESS_MEMORY: Gauge "process_resident_memory_bytes";
        /// Open file descriptors of the process.
        PROCESS_FDS: Gauge "process_open_fds";
        /// Highest allowed number of open file descriptors.
        PROCESS_MAX_FDS: Gauge "process_max_fds";
        /// 1 while the role is ready, 0 while it is not (see `/readyz`).
        ROLE_READY: Gauge "sternpost_role_ready" [role = "an enabled role: the name of its section of the configuration"];
        /// How often a background task has ended unexpectedly.
        TASK_ENDED: Counter "sternpost_task_ended" [task = "a background task of the program"];
        /// 1 while the resolver answers and its answers pass DNSSEC validation as before, 0 otherwise.
        RESOLVER_UP: Gauge "sternpost_resolver_up";
        /// 1 while the store can be read and written, 0 while it fails.
        STORE_UP: Gauge "sternpost_store_up";
        /// Size of the files of an SQLite store.
        STORE_BYTES: Gauge "sternpost_store_bytes" [file = ["database", "log"]];
        /// Servers that share the store and have not stopped in an orderly way, by whether they were heard of within a minute.
        NODES: Gauge "sternpost_nodes" [state = ["running", "silent"]];
        /// 1 for a background task that this server runs for all that share the store, 0 while another one does.
        TASK_LEADER: Gauge "sternpost_task_leader" [task = "a background task that runs once for all servers, with the mailbox if it is `imap`"];
        /// 1 if the last loading of the configuration succeeded, 0 if it failed.
        CONFIG_LOADED: Gauge "sternpost_config_last_reload_successful";
    }
    "Policy answers (`[answers]`)" {
        /// Answers by result and by source.
        ANSWERS: Counter "sternpost_answers" [
            result = ["ok", "not-found", "temporary"],
            source = ["dane", "mta-sts", "override", "nothing", "failure", "test"]
        ];
        /// Answers from the cache.
        CACHE_HITS: Counter "sternpost_cache_hits";
        /// Answers that needed a lookup.
        CACHE_MISSES: Counter "sternpost_cache_misses";
        /// Seconds from request to reply, from the cache; one request in 64 is measured.
        CACHE_HIT_SECONDS: Histogram "sternpost_cache_hit_seconds";
        /// Seconds from request to reply, with a lookup.
        CACHE_MISS_SECONDS: Histogram "sternpost_cache_miss_seconds";
        /// Answers in the cache.
        CACHE_ENTRIES: Gauge "sternpost_cache_entries";
        /// Bytes of the answers in the cache.
        CACHE_BYTES: Gauge "sternpost_cache_bytes";
        /// Lookups answered by an MTA-STS policy although MX hosts have TLSA records behind unsigned MX records.
        DANE_SET_ASIDE: Counter "sternpost_dane_set_aside";
        /// Lookups in flight.
        LOOKUPS_RUNNING: Gauge "sternpost_lookups_running";
        /// Open connections of mail servers.
        CONNECTIONS: Gauge "sternpost_connections";
        /// Policy fetches by outcome; the failures are result types of RFC 8460 §4.3.
        FETCHES: Counter "sternpost_fetches" [
            outcome = ["ok", "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"]
        ];
        /// Live policies in the store by mode.
        POLICIES: Gauge "sternpost_policies" [mode = ["enforce", "testing", "none"]];
        /// Seconds by which the refresh of the most overdue policy is late.
        REFRESH_OVERDUE: Gauge "sternpost_refresh_overdue_seconds";
    }
    "Session results (`[collector]`)" {
        /// TLS sessions received from mail servers.
        SESSIONS_RECEIVED: Counter "sternpost_sessions_received";
        /// TLS sessions counted for reports.
        SESSIONS_STORED: Counter "sternpost_sessions_stored";
        /// TLS sessions refused: too long, malformed or of an unknown version.
        SESSIONS_REFUSED: Counter "sternpost_sessions_refused";
        /// TLS sessions that came after the reports of their day were built.
        SESSIONS_LATE: Counter "sternpost_sessions_late";
        /// TLS sessions dropped because the store failed for too long.
        SESSIONS_DROPPED: Counter "sternpost_sessions_dropped";
        /// Failed writes of TLS sessions to the store.
        SESSIONS_STORE_FAILURES: Counter "sternpost_sessions_store_failures";
        /// Requests at `collector.http` by HTTP status.
        SESSION_REQUESTS: Counter "sternpost_session_requests" [
            code = ["200", "400", "401", "408", "413", "415", "429", "503"]
        ];
        /// TLS sessions that another collector has accepted (`collector.forward_to`).
        SESSIONS_FORWARDED: Counter "sternpost_sessions_forwarded";
        /// TLS sessions that the other collector refused for a day.
        SESSIONS_LOST: Counter "sternpost_sessions_lost";
        /// Refusals of TLS sessions, which are then kept and retried.
        FORWARD_REFUSALS: Counter "sternpost_forward_refusals";
        /// Failed attempts to forward TLS sessions.
        FORWARD_FAILURES: Counter "sternpost_forward_failures";
        /// TLS sessions that wait for the other collector.
        SESSIONS_SPOOLED: Gauge "sternpost_sessions_spooled";
    }
    "Sent reports (`[reporter]`)" {
        /// TLS reports built.
        REPORTS_BUILT: Counter "sternpost_reports_built";
        /// TLS reports that a target accepted.
        REPORTS_SENT: Counter "sternpost_reports_sent";
        /// TLS reports about domains that request none.
        REPORTS_UNWANTED: Counter "sternpost_reports_unwanted";
        /// TLS reports given up: no target accepted them.
        REPORTS_GIVEN_UP: Counter "sternpost_reports_given_up";
        /// Failed attempts to deliver a TLS report to a target.
        REPORT_FAILURES: Counter "sternpost_report_failures";
        /// TLS reports in the store by state.
        OUTGOING_REPORTS: Gauge "sternpost_outgoing_reports" [state = ["waiting", "sent", "unwanted", "given-up"]];
        /// Unix time of the last round of building and sending that failed in nothing but deliveries.
        REPORTER_LAST_ROUND: Gauge "sternpost_reporter_last_round_timestamp_seconds";
        /// TLS handshakes with MX hosts of others under policies in testing, which the reports state, by outcome; one that was
        /// not reached says nothing about TLS.
        TESTING_PROBES: Counter "sternpost_testing_probes" [outcome = ["passed", "failed", "unreached"]];
        /// Domains with a policy in testing whose MX hosts could not be probed in time.
        TESTING_LATE_DOMAINS: Counter "sternpost_testing_late_domains";
        /// Unix time of the end of the last round of such handshakes; 0 before the first one.
        TESTING_LAST_ROUND: Gauge "sternpost_testing_last_round_timestamp_seconds";
    }
    "Policy host (`[host]`)" {
        /// Requests to the policy host by HTTP status.
        POLICY_HOST_REQUESTS: Counter "sternpost_policy_host_requests" [code = ["200", "404", "405"]];
        /// TLS handshakes with the policy host by outcome; `unknown-host` and `no-certificate` are refused.
        POLICY_HOST_HANDSHAKES: Counter "sternpost_policy_host_handshakes" [
            outcome = ["ok", "challenge", "unknown-host", "no-certificate", "failed"]
        ];
        /// Open connections to the policy host.
        POLICY_HOST_CONNECTIONS: Gauge "sternpost_policy_host_connections";
        /// Policy files that are served.
        HOSTED_POLICIES: Gauge "sternpost_hosted_policies";
        /// Certificate orders by outcome; a postponed order waits for the budget of the CA.
        CERTIFICATE_ORDERS: Counter "sternpost_certificate_orders" [outcome = ["issued", "failed", "postponed"]];
        /// Certificates of policy hosts in the store by state; `failing` ones were never issued, `retrying` ones are valid.
        CERTIFICATES: Gauge "sternpost_certificates" [state = ["missing", "failing", "valid", "retrying", "expired"]];
        /// End of the validity of a certificate that this program uses, as a Unix time.
        CERTIFICATE_EXPIRY: Gauge "sternpost_certificate_expiry_timestamp_seconds" [
            role = "the role that uses it",
            name = "its first DNS name; the thousand certificates in the store that end first, and all in files"
        ];
        /// Changes of DNS records that this program made, by way and outcome.
        DNS_CHANGES: Counter "sternpost_dns_changes" [way = ["update", "provider"], outcome = ["ok", "failed"]];
    }
    "Guard and alerts (`[guard]`)" {
        /// Active alerts.
        ALERTS: Gauge "sternpost_alerts" [kind = "a kind of alert (docs/receiving.md)"];
        /// Active alerts by domain, for at most a thousand domains.
        DOMAIN_ALERTS: Gauge "sternpost_domain_alerts" [
            domain = "one of a thousand own domains",
            kind = "a kind of alert"
        ];
        /// Checks of domains.
        GUARD_LOOKS: Counter "sternpost_guard_looks";
        /// Checks of domains that failed.
        GUARD_FAILED_LOOKS: Counter "sternpost_guard_failed_looks";
        /// Checks of domains that did not end by their deadline; they also count as failed.
        GUARD_LATE_LOOKS: Counter "sternpost_guard_late_looks";
        /// Time between two checks of a domain: the configured interval, and how late the most overdue domain is.
        GUARD_CYCLE: Gauge "sternpost_guard_cycle_seconds";
        /// Checks of domains that run now.
        GUARD_RUNNING_LOOKS: Gauge "sternpost_guard_running_looks";
        /// Unix time of the end of the last check of a domain.
        GUARD_LAST_LOOK: Gauge "sternpost_guard_last_look_timestamp_seconds";
        /// Notices of alerts and weekly summaries by channel and outcome; `failed` ones are retried.
        NOTICES: Counter "sternpost_notices" [
            channel = ["webhook", "mail", "weekly"],
            outcome = ["delivered", "failed"]
        ];
        /// Notices that could not be delivered within a day.
        NOTICES_DROPPED: Counter "sternpost_notices_dropped";
    }
    "Received reports (`[inbox]`)" {
        /// TLS reports received by this process, without duplicates.
        RECEIVED_REPORTS: Counter "sternpost_received_reports" [
            way = ["smtp", "lmtp", "https", "import", "imap"],
            trust = ["failed", "unverified", "trusted", "verified"]
        ];
        /// DMARC reports received by this process, without duplicates.
        RECEIVED_DMARC_REPORTS: Counter "sternpost_received_dmarc_reports";
        /// Sessions in received reports about all own domains, over the days of the last 30 days.
        RECEIVED_SESSIONS: Gauge "sternpost_received_sessions" [result = ["successful", "failed", "unverified"]];
        /// Sessions in received reports by own domain, over the days of the last 30 days.
        RECEIVED_DOMAIN_SESSIONS: Gauge "sternpost_received_domain_sessions" [
            domain = "an own domain: those in `metrics.domains`, or all if there are at most a thousand",
            result = "`successful`, `failed` or `unverified`"
        ];
        /// Sessions in received reports by submitter, over the days of the last 30 days.
        RECEIVED_SUBMITTER_SESSIONS: Gauge "sternpost_received_submitter_sessions" [
            submitter = "the fifty largest submitters, and `other`",
            evidence = "`verified` or `unverified`",
            result = "`successful` or `failed`"
        ];
        /// Seconds since the newest report about an own domain arrived.
        RECEIVED_LAST_REPORT_AGE: Gauge "sternpost_received_last_report_age_seconds" [
            domain = "an own domain, as above",
            evidence = "`verified` or `unverified`"
        ];
        /// Open connections of the inbox.
        INBOX_CONNECTIONS: Gauge "sternpost_inbox_connections" [protocol = ["smtp", "lmtp"]];
        /// Connections that the inbox refused, because of all connections or of those of the client.
        INBOX_REFUSED_CONNECTIONS: Counter "sternpost_inbox_refused_connections" [
            protocol = ["smtp", "lmtp"],
            reason = ["total", "client"]
        ];
        /// Messages to the inbox by outcome; `deferred` ones are sent again, `rate-limited` ones were refused before their text.
        INBOX_MESSAGES: Counter "sternpost_inbox_messages" [
            protocol = ["smtp", "lmtp"],
            outcome = ["accepted", "deferred", "refused", "rate-limited"]
        ];
        /// Messages to postmaster that were accepted and not stored.
        INBOX_POSTMASTER: Counter "sternpost_inbox_postmaster_messages";
        /// HTTPS POST requests with reports, by HTTP status.
        INBOX_POSTS: Counter "sternpost_inbox_posts" [
            code = ["200", "201", "202", "400", "404", "408", "413", "429", "503"]
        ];
        /// Unix time at which the folders of an IMAP mailbox were last searched; 0 before the first time.
        MAILBOX_LAST_SEARCH: Gauge "sternpost_inbox_mailbox_last_search_timestamp_seconds" [
            mailbox = "a mailbox of the configuration, as `user@host`"
        ];
        /// Failed connections to an IMAP mailbox.
        MAILBOX_FAILURES: Counter "sternpost_inbox_mailbox_failures" [
            mailbox = "a mailbox of the configuration, as `user@host`"
        ];
        /// Messages in mailboxes that are not TLS reports and were left alone by this process.
        INBOX_LEFT_ALONE: Counter "sternpost_inbox_left_alone" [kind = ["dmarc", "other"]];
        /// Messages and posted files that this process quarantined.
        INBOX_QUARANTINED: Counter "sternpost_inbox_quarantined";
        /// Items in the quarantine.
        QUARANTINE_ITEMS: Gauge "sternpost_inbox_quarantine_items";
        /// Size of the quarantine.
        QUARANTINE_BYTES: Gauge "sternpost_inbox_quarantine_bytes";
        /// Items that the quota of the quarantine removed.
        QUARANTINE_EVICTED: Counter "sternpost_inbox_quarantine_evicted";
        /// Items that were deleted from the quarantine because of their age.
        QUARANTINE_EXPIRED: Counter "sternpost_inbox_quarantine_expired";
        /// Stored reports that are not evidence.
        UNVERIFIED_REPORTS: Gauge "sternpost_inbox_unverified_reports";
        /// Approximate size of reports that are not evidence.
        UNVERIFIED_BYTES: Gauge "sternpost_inbox_unverified_bytes";
        /// Reports that the limits of unverified reports removed.
        UNVERIFIED_EVICTED: Counter "sternpost_inbox_unverified_evicted";
        /// Reports whose details were deleted because of their age.
        EXPIRED_REPORTS: Counter "sternpost_inbox_expired_reports";
        /// Posts to `inbox.webhook` by outcome; `failed` ones are retried, `dropped` ones were older than a day.
        REPORT_WEBHOOK_POSTS: Counter "sternpost_report_webhook_posts" [outcome = ["delivered", "failed", "dropped"]];
    }
    "Dashboard and interfaces (`[dashboard]`, `[admin]`)" {
        /// Attempts to sign in to the dashboard by outcome; `throttled` ones were refused before the password was checked.
        SIGN_INS: Counter "sternpost_dashboard_sign_ins" [outcome = ["succeeded", "failed", "throttled"]];
        /// Requests to an interface for programs whose token was missing or wrong.
        TOKEN_REFUSALS: Counter "sternpost_token_refusals" [interface = ["admin", "collector"]];
    }
}
