//! Keys of `[host]` and `[delegation]`: serving policies over HTTPS, and certificates for policy hosts.

use super::{Key, Kind};

/// The keys, in the order of the reference.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "host.listen",
        kind: Kind::Listeners,
        default: "[\"127.0.0.1:443\"]",
        unset: "",
        about: "Listen addresses for policies over HTTPS. The section `[host]` enables the role. On the \
            internet, use `[\"[::]:443\", \"0.0.0.0:443\"]`.",
    },
    Key {
        path: "host.http",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Listen addresses for plain HTTP, which answers ACME http-01 challenges and shows visitors a \
            hint. On the internet, use port 80. Without it, challenges are answered on `host.listen` \
            (tls-alpn-01), which a CA reaches on port 443 only.",
    },
    Key {
        path: "host.name",
        kind: Kind::Name,
        default: "",
        unset: "the plan does not change `mta-sts`",
        about: "The name of this policy host. `mta-sts.DOMAIN` becomes a CNAME for it.",
    },
    Key {
        path: "host.addresses",
        kind: Kind::IpAddresses,
        default: "[]",
        unset: "",
        about: "The public IP addresses of this policy host. `mta-sts.DOMAIN` gets A and AAAA records for them \
            when `host.name` is not set.",
    },
    Key {
        path: "host.behind_proxy",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Listen addresses for policies over plain HTTP, for a reverse proxy that terminates TLS and \
            forwards the `Host` header. Senders never fetch from these addresses.",
    },
    Key {
        path: "host.proxy_header",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether connections to `host.listen` and `host.http` begin with a PROXY protocol header \
            (version 1 or 2). Set it to `true` when a TCP proxy in front of them sends that header. \
            Connections without the header are then closed.",
    },
    Key {
        path: "host.certificates",
        kind: Kind::CertificateFiles,
        default: "[]",
        unset: "",
        about: "Existing certificates for policy hosts. Write one `[[host.certificates]]` for each. A \
            certificate serves every host that it names and takes precedence over one obtained by ACME. The \
            files are reloaded when they change.",
    },
    Key {
        path: "host.key_file",
        kind: Kind::File,
        default: "",
        unset: "private keys are stored unencrypted",
        about: "File with 32 random bytes in base64 (`openssl rand -base64 32`), which encrypt private keys in \
            the store. Every node needs the same file. Keys already in the store are encrypted at the next \
            start. Encrypted keys are lost if this file is lost.",
    },
    Key {
        path: "host.acme.directory",
        kind: Kind::Url("https://"),
        default: "",
        unset: "no certificates are ordered",
        about: "The ACME directory URL of a certificate authority (RFC 8555). Certificates are ordered for the \
            policy hosts of configured domains that are served here. Setting it means that you agree to the \
            CA's terms of service. Let's Encrypt: `https://acme-v02.api.letsencrypt.org/directory`.",
    },
    Key {
        path: "host.acme.contact",
        kind: Kind::Url("mailto:"),
        default: "",
        unset: "no contact is sent",
        about: "The contact address of the ACME account, as a `mailto:` URL. The CA sends notices to it.",
    },
    Key {
        path: "host.acme.profile",
        kind: Kind::Text,
        default: "",
        unset: "the CA's default profile",
        about: "A certificate profile that the CA offers, such as `shortlived` (6 days) or `tlsserver` (45 days) at Let's \
            Encrypt.",
    },
    Key {
        path: "host.acme.ca_file",
        kind: Kind::File,
        default: "",
        unset: "the system's root certificates",
        about: "PEM file with the root certificates that verify the ACME server's own certificate. Set it for a \
            private CA.",
    },
    Key {
        path: "host.acme.key_id",
        kind: Kind::Text,
        default: "",
        unset: "no external account binding",
        about: "The key identifier for external account binding (RFC 8555 §7.3.4). The CA shows it for an \
            account that you already have there.",
    },
    Key {
        path: "host.acme.key_file",
        kind: Kind::File,
        default: "",
        unset: "required with `host.acme.key_id`",
        about: "File with the key for external account binding, in base64url as the CA shows it. It is read \
            once, when the ACME account is created.",
    },
    Key {
        path: "host.acme.new_per_hour",
        kind: Kind::Number(1, 100_000),
        default: "100",
        unset: "",
        about: "The maximum number of new certificates ordered per hour. Renewals do not count; at most 20 times \
            as many are ordered per hour. Let's Encrypt \
            allows 300 in three hours, and more on request. After a rate-limit error, no order is sent to \
            this CA for 15 minutes.",
    },
    Key {
        path: "host.acme.challenge",
        kind: Kind::Choice(&["http-01", "tls-alpn-01", "dns-01", "dns-persist-01"]),
        default: "",
        unset: "`http-01` with `host.http`, else `tls-alpn-01`",
        about: "How the CAs validate policy hosts. `dns-01` and `dns-persist-01` need no open port, and the \
            certificate can be ordered before the name points here. Their records are published in the way that \
            `dns` in `[[domain]]` says. A domain may choose another one with `challenge`.",
    },
    Key {
        path: "host.acme.issuer",
        kind: Kind::Text,
        default: "",
        unset: "known for large CAs",
        about: "The CA's name in CAA records (RFC 8659), such as `letsencrypt.org`. Before an order, Sternpost \
            checks that the CAA records allow the CA, the account and the challenge (RFC 8657). `dns-persist-01` \
            needs it.",
    },
    Key {
        path: "host.acme.then",
        kind: Kind::Authorities,
        default: "[]",
        unset: "",
        about: "Fallback CAs, in order. The next one is used when the one before it refuses, is unreachable or \
            is rate limited.",
    },
    Key {
        path: "delegation.zone",
        kind: Kind::Name,
        default: "",
        unset: "domains can't be delegated",
        about: "Your own zone for delegated domains. The owner of a delegated domain creates CNAME records from \
            `_mta-sts`, `mta-sts` and `_smtp._tls` into this zone. It holds DOMAIN's records below DOMAIN's \
            full name, such as `_mta-sts.DOMAIN.ZONE`.",
    },
];
