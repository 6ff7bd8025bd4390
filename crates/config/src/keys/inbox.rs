//! Keys of `[inbox]`: how TLS reports about your domains arrive.

use super::{Key, Kind};

/// The keys, in the order of the reference.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "inbox.addresses",
        kind: Kind::MailAddresses,
        default: "[]",
        unset: "",
        about: "The addresses that accept report mail over SMTP and LMTP. Mail to any other address is \
            rejected. The section `[inbox]` enables the role.",
    },
    Key {
        path: "inbox.smtp",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Listen addresses for report mail over SMTP, as the MX host of the addresses' domain. On the \
            internet, use `[\"[::]:25\", \"0.0.0.0:25\"]`.",
    },
    Key {
        path: "inbox.lmtp",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Listen addresses for report mail over LMTP from your own mail server. In Postfix, use \
            `transport_maps` with `lmtp:unix:/run/sternpost/lmtp.sock` (docs/reports.md).",
    },
    Key {
        path: "inbox.name",
        kind: Kind::Name,
        default: "",
        unset: "the name of the machine",
        about: "The host name that the inbox announces in SMTP and LMTP. It should be the name in the MX record \
            and in the certificate.",
    },
    Key {
        path: "inbox.certificate",
        kind: Kind::File,
        default: "",
        unset: "STARTTLS is not offered",
        about: "PEM file with the certificate chain for STARTTLS. A changed file is reloaded within a minute.",
    },
    Key {
        path: "inbox.key",
        kind: Kind::File,
        default: "",
        unset: "STARTTLS is not offered",
        about: "PEM file with the private key of `inbox.certificate`.",
    },
    Key {
        path: "inbox.messages_per_minute",
        kind: Kind::Number(1, 1_000_000),
        default: "600",
        unset: "",
        about: "The maximum number of messages that one client (an IPv4 address or an IPv6 /64) may send by \
            SMTP per minute, and of reports that it may send by HTTPS POST. Further ones get a temporary error \
            (450, 429). LMTP is not limited. Raise the limit if one of your relays forwards all report mail by \
            SMTP. Behind a reverse proxy, `dashboard.behind_proxy` tells the clients apart.",
    },
    Key {
        path: "inbox.connections_per_client",
        kind: Kind::Number(1, 512),
        default: "32",
        unset: "",
        about: "The maximum number of SMTP connections that one client (an IPv4 address or an IPv6 /64) may have at once. \
            Further ones get a temporary error (421). 512 connections of all clients are the most, so a higher value lets \
            one client keep out the others. Raise it if one of your relays forwards all report mail by SMTP.",
    },
    Key {
        path: "inbox.keep_received",
        kind: Kind::Number(30, 36_500),
        default: "400",
        unset: "",
        about: "Days after which the text and the details of a received report are deleted. Its numbers stay in the sums \
            by day, those about domains of others until that many days after the day. A DMARC report is deleted. It must cover the days that `[gate]` looks back, and 30 more.",
    },
    Key {
        path: "inbox.received_size",
        kind: Kind::Number(64, 1_048_576),
        default: "4096",
        unset: "",
        about: "The disk space in MiB for reports that are evidence. When it is used up, the text and the details of the \
            oldest reports are deleted, of the signer that uses most. Their numbers stay.",
    },
    Key {
        path: "inbox.keep_unverified",
        kind: Kind::Number(1, 36_500),
        default: "90",
        unset: "",
        about: "Days after which a report that is not evidence (`unverified` or `failed`) is deleted with its numbers; \
            also a DMARC report whose sender is not verified.",
    },
    Key {
        path: "inbox.unverified_size",
        kind: Kind::Number(16, 1_048_576),
        default: "128",
        unset: "",
        about: "The disk space in MiB for reports that are not evidence. When it is used up, the client network \
            that uses most loses its oldest reports.",
    },
    Key {
        path: "inbox.keep_quarantined",
        kind: Kind::Number(1, 36_500),
        default: "30",
        unset: "",
        about: "Days after which unreadable input is deleted from the quarantine.",
    },
    Key {
        path: "inbox.quarantine_size",
        kind: Kind::Number(64, 1_048_576),
        default: "256",
        unset: "",
        about: "The disk space in MiB for the quarantine, which also holds at most 10,000 items. One client network may \
            use a quarter. When the space is used up, the source that uses most loses its oldest items.",
    },
    Key {
        path: "inbox.http",
        kind: Kind::UrlPath,
        default: "",
        unset: "reports are not accepted over HTTPS",
        about: "The path below which reports are accepted by HTTPS POST, at the dashboard's address. `sternpost \
            reports address` prints the full URL for `rua`, which ends in a secret of this store.",
    },
    Key {
        path: "inbox.imap",
        kind: Kind::Mailboxes,
        default: "",
        unset: "no mailbox is read",
        about: "Mailboxes from which reports are fetched by IMAP (docs/reports.md). One mailbox is a table \
            `[inbox.imap]`; several are tables `[[inbox.imap]]`. Mail that is not a TLS report is left unread in its \
            folder.",
    },
    Key {
        path: "inbox.dmarc",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether DMARC aggregate reports are imported too, for domains that use one address for both. Only their \
            counts are stored (docs/reports.md). With `false`, they are other mail.",
    },
    Key {
        path: "inbox.webhook",
        kind: Kind::Url("http"),
        default: "",
        unset: "received reports are not posted",
        about: "URL that receives a JSON POST about new TLS reports (docs/reports.md). All reports of \
            `webhook_every` seconds are in one POST, so that a flood of reports is not a flood of requests.",
    },
    Key {
        path: "inbox.webhook_reports",
        kind: Kind::Choice(&["all", "failures"]),
        default: "\"all\"",
        unset: "",
        about: "Which reports are posted to `inbox.webhook`: all new ones, or only those with failed sessions.",
    },
    Key {
        path: "inbox.webhook_every",
        kind: Kind::Number(1, 86_400),
        default: "60",
        unset: "",
        about: "The least number of seconds between two POSTs to `inbox.webhook`. A failed POST is retried for a day, at \
            growing intervals.",
    },
    Key {
        path: "inbox.webhook_secret_file",
        kind: Kind::File,
        default: "",
        unset: "POSTs are not signed",
        about: "File with the secret that signs the POSTs to `inbox.webhook`, by the convention of Standard Webhooks \
            (docs/receiving.md): `whsec_` and 24 to 64 bytes in base64.",
    },
    Key {
        path: "inbox.webhook_private",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether `inbox.webhook` may be at a private, loopback or other special-purpose address. \
            `trust.allow_private_addresses` allows that too.",
    },
];
