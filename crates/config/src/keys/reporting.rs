//! Keys of `[collector]` and `[reporter]`: session results from your mail servers, and TLS reports to other domains.

use super::{Key, Kind};

/// The keys, in the order of the reference.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "collector.socket",
        kind: Kind::DatagramSocket,
        default: "\"/var/spool/postfix/run/tlsrpt/tlsrpt.sock\"",
        unset: "",
        about: "The Unix socket on which Postfix 3.10 and later (libtlsrpt) reports its sessions. The section \
            `[collector]` enables the role. In main.cf, set `smtp_tlsrpt_enable = yes` and \
            `smtp_tlsrpt_socket_name = run/tlsrpt/tlsrpt.sock`; that path is relative to Postfix's queue \
            directory. The last two directories of the socket's path are created if they are missing. With \
            `systemd:NAME`, a socket unit (ListenDatagram=) creates it, with the owner and mode that the unit says.",
    },
    Key {
        path: "collector.socket_mode",
        kind: Kind::FileMode,
        default: "\"0666\"",
        unset: "",
        about: "The file mode of that socket. A process that can write to it can submit false sessions. On a \
            machine with untrusted users, set `socket_owner` and use `\"0660\"`.",
    },
    Key {
        path: "collector.socket_owner",
        kind: Kind::Owner,
        default: "",
        unset: "the user and group that Sternpost runs as",
        about: "The owner and group of that socket. For Postfix, use `\"sternpost:postfix\"` with the mode \
            `\"0660\"`. Under the packaged unit, use a socket unit with SocketUser= and SocketGroup= instead: the service may \
            not change owners.",
    },
    Key {
        path: "collector.http",
        kind: Kind::TcpAddress,
        default: "",
        unset: "disabled",
        about: "Listen address on which other mail servers, and collectors of other machines, submit their sessions \
            with `POST /v1/sessions` (docs/tlsrpt-sending.md). An address that other machines reach requires \
            `token_file`, and `certificate` or `behind_proxy`.",
    },
    Key {
        path: "collector.token_file",
        kind: Kind::File,
        default: "",
        unset: "requests need no token",
        about: "File that contains only a token of at least 24 characters. Requests to `http` must carry it, and \
            requests to `forward_to` do. It is read at the start.",
    },
    Key {
        path: "collector.certificate",
        kind: Kind::File,
        default: "",
        unset: "`http` does not use TLS",
        about: "PEM file with the certificate chain for `http`. A changed file is reloaded within a minute.",
    },
    Key {
        path: "collector.key",
        kind: Kind::File,
        default: "",
        unset: "`http` does not use TLS",
        about: "PEM file with the private key of `collector.certificate`.",
    },
    Key {
        path: "collector.behind_proxy",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether only your own HTTPS reverse proxy reaches `http`. Clients are then told apart by the last \
            address in `X-Forwarded-For`.",
    },
    Key {
        path: "collector.forward_to",
        kind: Kind::HttpsUrl,
        default: "",
        unset: "sessions are counted on this machine",
        about: "The collector of another machine, such as `https://reports.example.org:8464`, which counts the \
            sessions of this one and reports on them. Its certificate must be valid for that name. Sessions wait \
            in the store while it does not answer. Requires `token_file`; `[reporter]` must be absent.",
    },
    Key {
        path: "reporter.from",
        kind: Kind::MailAddress,
        default: "",
        unset: "must be set",
        about: "The sender of report mail: From address and envelope sender. Its domain is the report submitter, \
            and signs the mail. The section `[reporter]` enables the sending of TLS reports.",
    },
    Key {
        path: "reporter.contact",
        kind: Kind::MailAddress,
        default: "",
        unset: "`from`",
        about: "The contact address in reports (`contact-info`), for questions about them. It may be in another \
            domain than `from`, for example when `from` is not a monitored mailbox; the submitter \
            stays the domain of `from`.",
    },
    Key {
        path: "reporter.helo",
        kind: Kind::Helo,
        default: "",
        unset: "the machine's host name if it is fully qualified, or its full name in /etc/hosts; else the address of \
            each connection, as an address literal",
        about: "The name that Sternpost gives in EHLO when it delivers reports directly or to a relay, and when it \
            checks mail servers. Many mail servers refuse a client whose name has no dot, or does not resolve \
            to its address.",
    },
    Key {
        path: "reporter.organization",
        kind: Kind::Text,
        default: "",
        unset: "the domain of `from`",
        about: "The organization name in reports.",
    },
    Key {
        path: "reporter.dkim",
        kind: Kind::DkimKeys,
        default: "",
        unset: "Sternpost does not sign, which requires a `deliver` other than `direct`",
        about: "The DKIM keys that sign report mail. `sternpost reports key` creates a missing key and prints \
            the DNS record to publish.",
    },
    Key {
        path: "reporter.deliver",
        kind: Kind::Deliver,
        default: "\"direct\"",
        unset: "",
        about: "How report mail is sent: directly to the recipient's MX hosts, through a relay, by a command, \
            or into a directory. With a directory, reports for `https:` targets are written there too.",
    },
    Key {
        path: "reporter.user",
        kind: Kind::Text,
        default: "",
        unset: "no SMTP authentication",
        about: "SMTP AUTH user name for the relay in `reporter.deliver` (PLAIN or LOGIN). Credentials are sent \
            only after STARTTLS, and only to a relay whose certificate matches its name.",
    },
    Key {
        path: "reporter.password_file",
        kind: Kind::File,
        default: "",
        unset: "required with `reporter.user`",
        about: "File that contains only the SMTP AUTH password.",
    },
    Key {
        path: "reporter.exclude",
        kind: Kind::Names,
        default: "[]",
        unset: "",
        about: "Domains about which no reports are created. Their subdomains are excluded too.",
    },
    Key {
        path: "reporter.deny",
        kind: Kind::Names,
        default: "[]",
        unset: "",
        about: "Hosts of `rua` targets to which no report is sent. Their subdomains are denied too.",
    },
    Key {
        path: "reporter.targets",
        kind: Kind::Targets,
        default: "",
        unset: "reports go to the targets that each domain publishes",
        about: "Rules that replace, block or add report targets. For each target the first rule that matches \
            decides; the result of a rule is not matched again. `sternpost reports targets DOMAIN` shows the \
            targets of a domain and the rules behind them.",
    },
    Key {
        path: "reporter.addresses",
        kind: Kind::Choice(&["full", "shortened", "omitted"]),
        default: "\"full\"",
        unset: "",
        about: "How reports show the IP addresses of failed sessions. `full`: unchanged. `shortened`: only the \
            network (24 bits for IPv4, 48 bits for IPv6). `omitted`: not at all.",
    },
    Key {
        path: "reporter.look_at_tested_policies",
        kind: Kind::Bool,
        default: "true",
        unset: "",
        about: "Whether Sternpost probes the MX hosts of domains whose policy is in mode `testing`. Only \
            domains that received mail today are probed, a few times a day, by a TLS handshake without \
            mail. It is needed because mail servers count every handshake with such a domain as a success \
            (docs/tlsrpt-sending.md).",
    },
    Key {
        path: "reporter.https_unverified",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether reports are also posted to HTTPS hosts whose certificate can't be verified.",
    },
    Key {
        path: "reporter.spread",
        kind: Kind::Number(0, 14_400),
        default: "14100",
        unset: "",
        about: "The number of seconds after 00:05 UTC over which the sending of reports is spread. RFC 8460 \
            recommends a delay of up to four hours.",
    },
    Key {
        path: "reporter.keep_tallies",
        kind: Kind::Number(2, 3650),
        default: "30",
        unset: "",
        about: "Days for which session counts are kept.",
    },
    Key {
        path: "reporter.keep_reports",
        kind: Kind::Number(2, 3650),
        default: "90",
        unset: "",
        about: "Days for which sent reports are kept.",
    },
];
