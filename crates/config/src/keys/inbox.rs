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
            SMTP per minute. Further messages get a temporary error (450). LMTP is not limited. Raise the \
            limit if one of your relays forwards all report mail by SMTP.",
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
        path: "inbox.imap.host",
        kind: Kind::Name,
        default: "",
        unset: "no mailbox is read",
        about: "The IMAP server of a mailbox that receives reports. It must support implicit TLS, with a \
            certificate for this name.",
    },
    Key {
        path: "inbox.imap.port",
        kind: Kind::Port,
        default: "993",
        unset: "",
        about: "The port of the IMAP server.",
    },
    Key {
        path: "inbox.imap.user",
        kind: Kind::Text,
        default: "",
        unset: "required with `inbox.imap.host`",
        about: "The user name for the IMAP server.",
    },
    Key {
        path: "inbox.imap.password_file",
        kind: Kind::File,
        default: "",
        unset: "required with `inbox.imap.host`",
        about: "File that contains only the IMAP password. It should be readable only by the user that \
            Sternpost runs as.",
    },
    Key {
        path: "inbox.imap.folder",
        kind: Kind::Text,
        default: "\"INBOX\"",
        unset: "",
        about: "The mailbox folder that is watched for reports.",
    },
    Key {
        path: "inbox.imap.move_to",
        kind: Kind::Text,
        default: "",
        unset: "imported reports stay in the folder, marked as read",
        about: "The folder that reports are moved to after import. Mail without a report is left unchanged.",
    },
];
