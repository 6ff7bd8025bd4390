//! Keys outside of the roles: the store, the domains and where their records are changed, DNS, trusted roots, lab
//! ports.

use super::{Key, Kind};

/// The keys, in the order of the reference.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "store",
        kind: Kind::Store,
        default: "\"sqlite:sternpost.db\"",
        unset: "",
        about: "The database with policies, session counts, reports and the dashboard's users: an SQLite file, which is \
            created if it does not exist, or a PostgreSQL database (docs/postgresql.md). A relative path starts at the \
            configuration file's directory.",
    },
    Key {
        path: "store_password_file",
        kind: Kind::File,
        default: "",
        unset: "no password",
        about: "A file that contains only the password of the PostgreSQL user. It is read for each new connection.",
    },
    Key {
        path: "store_migrate",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether `sternpost serve` and the commands migrate a PostgreSQL database to the schema of this release. \
            Otherwise `sternpost store migrate` does so. An SQLite file is always migrated.",
    },
    Key {
        path: "state_folder",
        kind: Kind::File,
        default: "",
        unset: "the folder of the SQLite file; with PostgreSQL /var/lib/sternpost",
        about: "The folder of the control socket and of the file with the link for the first sign-in.",
    },
    Key {
        path: "tenant",
        kind: Kind::Tenant,
        default: "",
        unset: "the tenant main, to which the domains of this file belong",
        about: "The tenant that the commands work on (docs/tenants.md), for example `sternpost domains` and `sternpost apply`. \
            `--tenant` takes precedence. `sternpost serve` serves all tenants, whatever this key says.",
    },
    Key {
        path: "domain",
        kind: Kind::Domains,
        default: "[]",
        unset: "",
        about: "A domain whose incoming mail Sternpost protects. Write one `[[domain]]` for each domain. \
            `sternpost init DOMAIN` writes one from the domain's current DNS records.",
    },
    Key {
        path: "defaults",
        kind: Kind::DomainDefaults,
        default: "{}",
        unset: "",
        about: "Settings for every `[[domain]]` that does not set them, such as `host = \"self\"` or `rua`. `sternpost domains add` and the \
            API begin with these members too. A domain that is in the store already is not changed.",
    },
    Key {
        path: "rfc2136",
        kind: Kind::Updates,
        default: "[]",
        unset: "",
        about: "A name server that accepts DNS UPDATE (RFC 2136), signed with TSIG. Write one `[[rfc2136]]` for \
            each server. A domain selects it with `dns = \"rfc2136:NAME\"`.",
    },
    Key {
        path: "provider",
        kind: Kind::Providers,
        default: "[]",
        unset: "",
        about: "A DNS provider whose API changes the records of a zone. Write one `[[provider]]` for each \
            account. A domain selects it with `dns = \"SERVICE:NAME\"`. The API is reached over HTTPS and \
            verified by the system's root certificates.",
    },
    Key {
        path: "dns.servers",
        kind: Kind::Addresses,
        default: "[]",
        unset: "",
        about: "The resolvers to query. An empty list means the system's resolvers (/etc/resolv.conf).",
    },
    Key {
        path: "dns.dnssec",
        kind: Kind::Choice(&["validate", "trust-ad", "off"]),
        default: "\"validate\"",
        unset: "",
        about: "How DNSSEC is validated. `validate`: Sternpost validates answers itself. `trust-ad`: Sternpost \
            trusts the resolvers' AD bit, so the path to the resolvers must be secure. `off`: no \
            validation, and DANE never applies.",
    },
    Key {
        path: "dns.trust_anchor",
        kind: Kind::File,
        default: "",
        unset: "the root zone's trust anchor",
        about: "DNSKEY records of the root zone, as a zone file, Knot's `keymgr . dnskey`, BIND's `bind.keys` or \
            Unbound's `root.key` has them. Set it only for networks with their own DNS root, such as the lab.",
    },
    Key {
        path: "trust.ca_file",
        kind: Kind::File,
        default: "",
        unset: "the system's root certificates",
        about: "PEM file with the root certificates to trust. It replaces the system's root certificates.",
    },
    Key {
        path: "trust.allow_private_addresses",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether Sternpost connects to policy hosts and MX hosts at private, loopback and other \
            special-purpose addresses. Set it to `true` only in labs and internal networks. Otherwise \
            anyone who controls a domain's DNS can make Sternpost connect to internal machines.",
    },
    Key {
        path: "lab.dns_port",
        kind: Kind::Port,
        default: "53",
        unset: "",
        about: "The port of authoritative name servers, which are queried for the current records of a zone. A \
            value other than 53 is useful only in a lab.",
    },
    Key {
        path: "lab.https_port",
        kind: Kind::Port,
        default: "443",
        unset: "",
        about: "The HTTPS port of policy hosts. A value other than 443 is useful only in a lab.",
    },
    Key {
        path: "lab.smtp_port",
        kind: Kind::Port,
        default: "25",
        unset: "",
        about: "The SMTP port of MX hosts. A value other than 25 is useful only in a lab.",
    },
];
