//! Keys of `[guard]`, `[admin]` and `[gate]`: monitoring, the API for control panels, and the conditions for
//! enforcement.

use super::{Key, Kind};

/// The keys, in the order of the reference.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "guard.every",
        kind: Kind::Number(1, 86_400),
        default: "300",
        unset: "",
        about: "Seconds between two checks of a domain. The section `[guard]` enables the monitoring of your \
            domains. It alerts on MX hosts that the policy does not name, MX hosts that fail TLS \
            authentication, and certificates of which less than a third of the life or less than 14 days are \
            left. It alerts on an unreachable policy host and on missing DNS records. From reports, it alerts on \
            failures seen by verified senders, on a high failure rate and on a drop to zero reports. Each alert \
            is logged as an error when it begins, and again when it ends. The role also carries out \
            `auto_promote`. It needs outgoing port 25, which most clouds block until asked: where no MX host of a \
            domain is reached by three checks in a row, the alert `mx-unreached` is raised.",
    },
    Key {
        path: "guard.at_once",
        kind: Kind::Number(1, 1000),
        default: "16",
        unset: "",
        about: "How many domains are checked at once. Domains whose last check was slow get a quarter as many \
            places of their own, so that they hold up no other domain.",
    },
    Key {
        path: "guard.deadline",
        kind: Kind::Number(10, 3600),
        default: "180",
        unset: "",
        about: "Seconds after which a check of a domain ends without a verdict. Its alerts then stay as they are; \
            after three such checks in a row, the alert `check-failed` is raised. One host or address gets a third \
            of this time.",
    },
    Key {
        path: "guard.failures_per_thousand",
        kind: Kind::Number(1, 1000),
        default: "10",
        unset: "",
        about: "The failure rate that raises an alert, in failed sessions per thousand. It is computed from the \
            verified reports of one week.",
    },
    Key {
        path: "guard.apply",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether the guard carries out the plans of domains by itself. This covers domains whose policy \
            is served here and whose DNS is changed from here. It runs each plan up to the first step that \
            has to wait. Enforcement still requires `sternpost promote` or `auto_promote`.",
    },
    Key {
        path: "guard.webhook",
        kind: Kind::Url("http"),
        default: "",
        unset: "alerts are not posted",
        about: "URL that receives each alert as a JSON POST when it begins and when it ends \
            (docs/receiving.md). A failed POST is retried for a day, at growing intervals.",
    },
    Key {
        path: "guard.webhook_format",
        kind: Kind::Choice(&["json", "text", "teams", "ntfy"]),
        default: "\"json\"",
        unset: "",
        about: "What `guard.webhook` takes. `json`: each alert with all of its fields, for programs. `text`: a message that Slack, \
            Mattermost, Google Chat and Matrix (by Hookshot) show. `teams`: a card for the workflows of Microsoft Teams. \
            `ntfy`: a message for a topic of ntfy.",
    },
    Key {
        path: "guard.webhook_secret_file",
        kind: Kind::File,
        default: "",
        unset: "POSTs are not signed",
        about: "File with the secret that signs the POSTs to `guard.webhook`, by the convention of Standard Webhooks \
            (docs/receiving.md): `whsec_` and 24 to 64 bytes in base64.",
    },
    Key {
        path: "guard.weekly",
        kind: Kind::WeekTime,
        default: "",
        unset: "no summary is sent",
        about: "When a weekly summary is sent to the recipients in `guard.mail`: the sessions of each domain, its \
            failures by cause, and the next step. If the machine was off at that time, it is sent afterwards. `sternpost \
            summary` prints it.",
    },
    Key {
        path: "guard.mail",
        kind: Kind::MailAddresses,
        default: "[]",
        unset: "",
        about: "Recipients of alert mail. Mail is sent when alerts begin and when they end. At most one message \
            a minute is sent; it contains all new alerts.",
    },
    Key {
        path: "guard.mail_from",
        kind: Kind::MailAddress,
        default: "",
        unset: "required with `guard.mail`",
        about: "Envelope and From address of alert mail. It must be deliverable, since many mail servers verify \
            it.",
    },
    Key {
        path: "guard.mail_deliver",
        kind: Kind::Deliver,
        default: "\"smarthost:127.0.0.1:25\"",
        unset: "",
        about: "How alert mail is sent: through a relay, by the sendmail command, directly to the recipients' \
            MX hosts, or into a directory. The default relay is the mail server on this machine.",
    },
    Key {
        path: "guard.mail_user",
        kind: Kind::Text,
        default: "",
        unset: "no SMTP authentication",
        about: "SMTP AUTH user name for the relay in `guard.mail_deliver` (PLAIN or LOGIN). Credentials are \
            sent only after STARTTLS, and only to a relay whose certificate matches its name.",
    },
    Key {
        path: "guard.mail_password_file",
        kind: Kind::File,
        default: "",
        unset: "required with `guard.mail_user`",
        about: "File that contains only the SMTP AUTH password.",
    },
    Key {
        path: "admin.listen",
        kind: Kind::Listener,
        default: "\"127.0.0.1:8464\"",
        unset: "",
        about: "Listen address of the HTTP API for control panels (docs/api.md). Other hosts may reach it only with \
            `admin.certificate`. The section `[admin]` enables the role.",
    },
    Key {
        path: "admin.token_file",
        kind: Kind::File,
        default: "",
        unset: "only the tokens of `sternpost tokens add`",
        about: "File with a bearer token that may do everything, at least 24 characters long. Every request must carry \
            a token: this one, or one of `sternpost tokens add`.",
    },
    Key {
        path: "admin.certificate",
        kind: Kind::File,
        default: "",
        unset: "plain HTTP",
        about: "PEM file with the certificate chain of the API. It is reloaded when it changes.",
    },
    Key {
        path: "admin.key",
        kind: Kind::File,
        default: "",
        unset: "plain HTTP",
        about: "PEM file with the private key of `admin.certificate`.",
    },
    Key {
        path: "gate.days_in_testing",
        kind: Kind::Number(0, 365),
        default: "14",
        unset: "",
        about: "The minimum number of days that a policy stays in mode `testing` before it may be enforced.",
    },
    Key {
        path: "gate.clean_days",
        kind: Kind::Number(1, 365),
        default: "7",
        unset: "",
        about: "The number of consecutive days with verified reports and without failures that enforcement \
            requires.",
    },
    Key {
        path: "gate.failures_per_thousand",
        kind: Kind::Number(1, 1000),
        default: "5",
        unset: "",
        about: "The highest acceptable failure rate, in failed sessions per thousand. The 95 % upper confidence \
            bound, computed from the sessions of the clean days, must not exceed it.",
    },
    Key {
        path: "gate.quiet_days",
        kind: Kind::Number(1, 365),
        default: "28",
        unset: "",
        about: "The number of days in mode `testing` after which a domain with too few sessions for that bound \
            may be enforced. All of `[guard]`'s probes of its MX hosts must have succeeded.",
    },
    Key {
        path: "gate.senders",
        kind: Kind::Number(1, 100),
        default: "3",
        unset: "",
        about: "The number of senders whose reports enforcement requires, each with a registrable domain of its own. \
            Anybody with a domain can send signed reports, so none of them counts for more than half of the \
            sessions. Fewer are sufficient if `[guard]`'s probes of every MX host passed on the clean days; \
            `auto_promote` always requires these probes.",
    },
    Key {
        path: "gate.delay_days",
        kind: Kind::Number(1, 365),
        default: "14",
        unset: "",
        about: "The number of days after which you are asked to decide, if only fewer than `gate.senders` senders \
            report failures and the evidence would be sufficient without their reports. The guard then raises an \
            alert that names them.",
    },
];
