//! Keys of `[dashboard]`, `[metrics]` and `[log]`: what operators and monitoring systems see.

use super::{Key, Kind};

/// The keys, in the order of the reference.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "dashboard.listen",
        kind: Kind::TcpListeners,
        default: "[\"127.0.0.1:8460\"]",
        unset: "",
        about: "Listen addresses of the dashboard. The section `[dashboard]` enables the role. An address that \
            other hosts can reach requires `certificate` and `key`, or `behind_proxy`.",
    },
    Key {
        path: "dashboard.url",
        kind: Kind::Url("http"),
        default: "",
        unset: "`http://` or `https://` with the first listen address",
        about: "The base URL under which browsers reach the dashboard. Set it when it differs from `listen`; it is required if \
            `listen` has only sockets of systemd. It may have a path, such as `https://tools.example.org/sternpost`, if a \
            reverse proxy serves the dashboard below it (docs/reports.md).",
    },
    Key {
        path: "dashboard.certificate",
        kind: Kind::File,
        default: "",
        unset: "plain HTTP",
        about: "PEM file with the certificate chain for HTTPS. A changed file is reloaded within a minute.",
    },
    Key {
        path: "dashboard.key",
        kind: Kind::File,
        default: "",
        unset: "plain HTTP",
        about: "PEM file with the private key of `dashboard.certificate`.",
    },
    Key {
        path: "dashboard.behind_proxy",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether the dashboard is reachable only through your own reverse proxy, which serves HTTPS to \
            browsers. With `true`, the client address is read from `X-Forwarded-For`.",
    },
    Key {
        path: "dashboard.public_check",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether anyone who reaches the dashboard's address can check domains at `/check` without \
            signing in (docs/check.md). The number of checks per minute is limited, since each one connects \
            to servers of third parties.",
    },
    Key {
        path: "dashboard.oidc.issuer",
        kind: Kind::HttpsUrl,
        default: "",
        unset: "users sign in with passwords only",
        about: "The OpenID Connect provider whose users may sign in to the dashboard (docs/sign-in.md): its issuer identifier, \
            below which `/.well-known/openid-configuration` is. Users with passwords stay.",
    },
    Key {
        path: "dashboard.oidc.client_id",
        kind: Kind::Text,
        default: "",
        unset: "required with `issuer`",
        about: "The client identifier that the provider has given to this dashboard.",
    },
    Key {
        path: "dashboard.oidc.client_secret_file",
        kind: Kind::File,
        default: "",
        unset: "a public client, with PKCE only",
        about: "File that contains only the client secret. It is read at each sign-in.",
    },
    Key {
        path: "dashboard.oidc.name",
        kind: Kind::Text,
        default: "\"single sign-on\"",
        unset: "",
        about: "The provider's name on the sign-in page, after \"Sign in with\".",
    },
    Key {
        path: "dashboard.oidc.operator_groups",
        kind: Kind::Texts,
        default: "[]",
        unset: "",
        about: "The groups whose members may make changes. This list or `reader_groups` is required.",
    },
    Key {
        path: "dashboard.oidc.reader_groups",
        kind: Kind::Texts,
        default: "[]",
        unset: "",
        about: "The groups whose members may view all pages. Users in none of the groups can't sign in.",
    },
    Key {
        path: "dashboard.oidc.groups_claim",
        kind: Kind::Text,
        default: "\"groups\"",
        unset: "",
        about: "The claim of the ID token, or of the provider's UserInfo response, that lists the user's groups.",
    },
    Key {
        path: "dashboard.oidc.name_claim",
        kind: Kind::Text,
        default: "\"preferred_username\"",
        unset: "",
        about: "The claim that the dashboard's user name is taken from.",
    },
    Key {
        path: "dashboard.oidc.scopes",
        kind: Kind::Text,
        default: "\"openid profile\"",
        unset: "",
        about: "The scopes that are requested, separated by spaces. Some providers include groups only with a scope such as \
            `groups`.",
    },
    Key {
        path: "metrics.listen",
        kind: Kind::Loopback,
        default: "",
        unset: "disabled",
        about: "Listen address for `/metrics` (Prometheus), `/healthz`, `/readyz` and a status page (docs/monitoring.md).",
    },
    Key {
        path: "metrics.domains",
        kind: Kind::Names,
        default: "[]",
        unset: "",
        about: "The domains with series of their own in the metrics of received reports (docs/reports.md), at most a \
            thousand. An empty list means all of your domains if there are at most a thousand, else none; the totals \
            always cover all.",
    },
    Key {
        path: "log.format",
        kind: Kind::Choice(&["text", "json"]),
        default: "\"text\"",
        unset: "",
        about: "The format of `sternpost serve`'s log on stderr.",
    },
    Key {
        path: "log.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug"]),
        default: "\"info\"",
        unset: "",
        about: "The lowest log level that is written. `info` logs every policy change, `debug` also every \
            lookup. The environment variable SPOST_LOG takes precedence.",
    },
];
