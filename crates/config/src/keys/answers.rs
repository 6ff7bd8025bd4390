//! Keys of `[answers]`: TLS policies for outgoing mail, as mail servers query them.

use super::{Key, Kind};

/// The values of `testing_level`.
pub(crate) const TESTING_LEVELS: &[&str] = &["may", "encrypt", "dane", "secure"];
/// The values of `default_level`.
pub(crate) const DEFAULT_LEVELS: &[&str] =
    &["none", "may", "encrypt", "dane", "dane-only", "fingerprint", "verify", "secure"];

/// The keys, in the order of the reference.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "answers.listen",
        kind: Kind::Listeners,
        default: "[\"127.0.0.1:8461\"]",
        unset: "",
        about: "Socketmap listen addresses for Postfix. The section `[answers]` enables the role, even when it \
            is empty. The protocol has no authentication: restrict any address that other hosts can reach with a \
            firewall.",
    },
    Key {
        path: "answers.lines",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Listen addresses of the line protocol for Exim and scripts: one line per query, one line per \
            answer (docs/exim.md).",
    },
    Key {
        path: "answers.http",
        kind: Kind::Loopback,
        default: "",
        unset: "disabled",
        about: "Listen address for queries over HTTP. `GET /v1/policy/DOMAIN` returns JSON (docs/answers.md).",
    },
    Key {
        path: "answers.control",
        kind: Kind::File,
        default: "",
        unset: "`sternpost.sock` in the store's directory",
        about: "The Unix socket through which `sternpost cache` and `sternpost query --cached` reach the \
            running server. Only the socket's owner can open it.",
    },
    Key {
        path: "answers.socket_mode",
        kind: Kind::FileMode,
        default: "\"0666\"",
        unset: "",
        about: "The file mode of the Unix sockets in `listen` and `lines`. A process that can open a socket can \
            query policies, and can do nothing else.",
    },
    Key {
        path: "answers.socket_owner",
        kind: Kind::Owner,
        default: "",
        unset: "the user and group that Sternpost runs as",
        about: "The owner and group of the Unix sockets in `listen` and `lines`. Under the packaged unit, use a socket unit \
            with SocketUser= and SocketGroup= instead: the service may not change owners.",
    },
    Key {
        path: "answers.tlsrpt",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether every answer carries the TLS reporting attributes of Postfix 3.10. Without it, only \
            maps whose name ends in `withTLSRPT` get them. Postfix 3.9 and older reject answers with these \
            attributes.",
    },
    Key {
        path: "answers.testing_level",
        kind: Kind::Choice(TESTING_LEVELS),
        default: "",
        unset: "no restriction: the mail server's own level applies, or `may` where attributes require a level",
        about: "The TLS level for domains whose policy is in mode `testing`. `secure` enforces such policies as if their \
            mode were `enforce`: mail that would fail is deferred, although the domain asks for reports only.",
    },
    Key {
        path: "answers.default_level",
        kind: Kind::Choice(DEFAULT_LEVELS),
        default: "\"may\"",
        unset: "",
        about: "The TLS level that the mail server uses without an answer: `smtp_tls_security_level` of Postfix. Above \
            `may`, domains whose policy is in mode `testing` or can't be fetched are answered `NOTFOUND`, so that no \
            answer is weaker than the mail server alone. An explicit `testing_level` above `may` still applies.",
    },
    Key {
        path: "answers.deadline",
        kind: Kind::Number(1, 90),
        default: "20",
        unset: "",
        about: "Seconds that a mail server waits for a lookup before it gets a temporary error. The lookup \
            continues in the background, so that a retry finds its result. Postfix itself gives up after \
            100 seconds.",
    },
    Key {
        path: "answers.recheck",
        kind: Kind::Number(1, 86_400),
        default: "60",
        unset: "",
        about: "The minimum number of seconds between two lookups of one domain's records, even when their TTL \
            is shorter.",
    },
    Key {
        path: "answers.unused_days",
        kind: Kind::Number(0, 3650),
        default: "90",
        unset: "",
        about: "Days without mail to a domain after which its policy is no longer refreshed daily. The policy stays \
            in force to its end, and is refreshed again as soon as a mail server asks for the domain. `0` \
            refreshes every policy.",
    },
    Key {
        path: "answers.cache_memory",
        kind: Kind::Number(1, 1_048_576),
        default: "64",
        unset: "",
        about: "MiB of memory for cached answers. Evicted answers are read from the store again.",
    },
    Key {
        path: "answers.override",
        kind: Kind::Overrides,
        default: "[]",
        unset: "",
        about: "Domains whose answer differs from what they publish. Write one `[[answers.override]]` for each. \
            The most specific table applies: the domain itself, then its parent domains, then `*`.",
    },
    Key {
        path: "answers.maps",
        kind: Kind::Maps,
        default: "{}",
        unset: "",
        about: "Settings for requests with the socketmap name NAME, as `[answers.maps.NAME]`: with \
            `socketmap:inet:127.0.0.1:8461:NAME`, Postfix gets the answers of this table. NAME is also selected by \
            `NAMEwithTLSRPT`. Any other map name uses the settings of `[answers]`. All maps share the cached policies. \
            The line protocol always uses the settings of `[answers]`; over HTTP, `?map=NAME` selects a table.",
    },
];
