//! The table of configuration keys, and the reference page that is made of it.

use std::fmt::Write;

/// One key.
pub struct Key {
    /// `section.name`.
    pub path: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// The default in TOML; empty when it is not set by default.
    pub default: &'static str,
    /// What holds when it is not set.
    pub unset: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// What may stand at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A list of `address:port`.
    Addresses,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file, relative to the configuration's folder.
    File,
    /// `true` or `false`.
    Bool,
    /// 1 to 65535.
    Port,
    /// A list of places to listen.
    Listeners,
    /// One `address:port` that only this machine reaches.
    Loopback,
    /// A whole number in this range.
    Number(i64, i64),
    /// Where things are kept.
    Store,
    /// The mode of a file, in octal.
    FileMode,
    /// A user and a group.
    Owner,
    /// The operator's table of answers.
    Overrides,
    /// Domains that are looked after.
    Domains,
    /// Name servers that take updates.
    Updates,
    /// Providers that run zones.
    Providers,
    /// Certificate authorities.
    Authorities,
    /// Certificates with their keys.
    CertificateFiles,
    /// A domain name.
    Name,
    /// Addresses without ports.
    ConcurrencyLimit,
    /// A URL that begins so.
    Url(&'static str),
    /// A word.
    Text,
    /// A list of mail addresses.
    MailAddresses,
    /// The path of a URL.
    UrlPath,
    /// One mail address.
    MailAddress,
    /// Domain names.
    Names,
    /// DKIM keys.
    DkimKeys,
    /// How report mail leaves.
    Deliver,
}

/// Where libtlsrpt writes to, with Postfix in its usual place, in a chroot or not.
pub const COLLECTOR_SOCKET: &str = "/var/spool/postfix/run/tlsrpt/tlsrpt.sock";

impl Kind {
    /// In words, for errors and the reference.
    pub fn expected(self) -> String {
        match self {
            Self::Addresses => "a list of \"address:port\"".to_owned(),
            Self::Choice(words) => {
                words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ")
            }
            Self::File => "a file name in quotes".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Port => "a port from 1 to 65535".to_owned(),
            Self::Listeners => "a list of \"address:port\", \"unix:/path\" or \"systemd\"".to_owned(),
            Self::Loopback => "an \"address:port\" that only this machine reaches, such as \"127.0.0.1:8462\"".to_owned(),
            Self::Number(least, most) => format!("a whole number from {least} to {most}"),
            Self::Store => "\"sqlite:FILE\"".to_owned(),
            Self::FileMode => "a file mode in octal, such as \"0660\"".to_owned(),
            Self::Owner => "\"user:group\", by name or number".to_owned(),
            Self::Domains => "tables, each with `name` and what differs from the defaults: `mode` (`enforce`, `testing` or `none`: where it is to end up; default `enforce`), `mx` (host names and `*.` patterns; default: as DNS shows them), `max_age` (a table of seconds, `testing` = 86400, `enforce` = 604800, and `before` = 31557600 for policies of before that can't be fetched any more), `host` (`self`: the role `[host]` serves the policy; `static`, the default: what `sternpost export` makes; `elsewhere`: it is only watched), `dns` (`manual`, the default, `rfc2136:NAME`, or the service and name of a `[[provider]]`, such as `cloudflare:NAME`), `rua` (where reports go: `mailto:` and `https:`), `delegated` (`true`: its owner makes its names aliases into the zone of `[delegation]`), `auto_promote` (`true`: it is enforced as soon as the evidence is there, without a word of yours), `repair` (`true` lets `[guard]` widen the policy at once when an MX host is not in it)".to_owned(),
            Self::Updates => "tables, each with `name`, `server` (\"address:port\"), `zone` where it is not the domain itself, `key_name`, `key_file` (the base64 secret alone, as tsig-keygen and keymgr print it) and `algorithm` (`hmac-sha256`, the default, `hmac-sha384` or `hmac-sha512`)".to_owned(),
            Self::Providers => "tables, each with `name`, `service` (`cloudflare`, `desec`, `digitalocean`, `hetzner` or `route53`), `key_file` (a token alone; for `route53` a file of credentials with `aws_access_key_id = …` and `aws_secret_access_key = …`), `zone` where it is not the domain itself, and `zone_id` where Route 53 has several zones of that name".to_owned(),
            Self::Authorities => "a list of tables, each with `directory` and, where they are needed, `contact`, `profile`, `ca_file`, `key_id`, `key_file` and `new_per_hour`, which mean what they do in `[host.acme]`".to_owned(),
            Self::CertificateFiles => "tables, each with `certificate` (the certificate with those that it was made with, as PEM) and `key` (its private key, as PEM)".to_owned(),
            Self::Name => "a host name in quotes".to_owned(),
            Self::ConcurrencyLimit => "a list of addresses, such as \"192.0.2.1\" and \"2001:db8::1\"".to_owned(),
            Self::Url(scheme) => format!("a URL that begins with {scheme}"),
            Self::Text => "a text in quotes".to_owned(),
            Self::MailAddresses => "a list of mail addresses, such as \"tlsrpt@example.org\"".to_owned(),
            Self::UrlPath => "the path of a URL, such as \"/reports\"".to_owned(),
            Self::MailAddress => "a mail address, such as \"tlsrpt@example.org\"".to_owned(),
            Self::Names => "a list of domain names, such as \"example.org\"".to_owned(),
            Self::DkimKeys => "a table, or a list of them, each with `selector`, `key_file` (PEM, RSA or Ed25519) and, where it is not that of `from`, `domain`: `{ selector = \"tlsrpt\", key_file = \"dkim.pem\" }`".to_owned(),
            Self::Deliver => "\"direct\", \"smarthost:HOST:PORT\", \"sendmail:/path/to/sendmail\" or \"folder:DIR\"".to_owned(),
            Self::Overrides => "tables, each with `domain` (`example.org`, `*.example.org` for all below it, or `*`) and one of `answer` (`none`, `may`, `encrypt`, `dane`, `dane-only`, `secure`, `secure match=NAME:NAME`), `policy_file` (a policy in place of the published one), `skip_mta_sts = true`, `skip_dane = true`; the last three can stand together".to_owned(),
        }
    }
}

/// The mail server that alerts leave by.
pub const ALERT_RELAY: &str = "smarthost:127.0.0.1:25";

/// Every key that exists so far, by section.
pub const KEYS: &[Key] = &[
    Key {
        path: "store",
        kind: Kind::Store,
        default: "\"sqlite:sternpost.db\"",
        unset: "",
        about: "Where policies, tallies and reports are kept.",
    },
    Key {
        path: "domain",
        kind: Kind::Domains,
        default: "[]",
        unset: "",
        about: "The domains whose incoming mail is looked after: `[[domain]]`, once for each. `sternpost init DOMAIN` writes one from what DNS shows.",
    },
    Key {
        path: "rfc2136",
        kind: Kind::Updates,
        default: "[]",
        unset: "",
        about: "Name servers that take updates (RFC 2136) signed with TSIG: `[[rfc2136]]`, once for each, named by `dns = \"rfc2136:NAME\"` of domains.",
    },
    Key {
        path: "provider",
        kind: Kind::Providers,
        default: "[]",
        unset: "",
        about: "Providers that run zones, whose interfaces change records: `[[provider]]`, once for each, named by `dns = \"SERVICE:NAME\"` of domains. Their interfaces are reached by HTTPS with the roots of the system.",
    },
    Key {
        path: "dns.servers",
        kind: Kind::Addresses,
        default: "[]",
        unset: "",
        about: "Resolvers to ask. An empty list means those of the system (/etc/resolv.conf).",
    },
    Key {
        path: "dns.dnssec",
        kind: Kind::Choice(&["validate", "trust-ad", "off"]),
        default: "\"validate\"",
        unset: "",
        about: "Who validates DNSSEC: Sternpost itself (`validate`), the resolvers, whose AD bit is then believed and the way to which has to be safe (`trust-ad`), or nobody (`off`: DANE never applies).",
    },
    Key {
        path: "dns.trust_anchor",
        kind: Kind::File,
        default: "",
        unset: "the internet's root",
        about: "DNSKEY records of the root in zone-file form, for worlds with a root of their own, such as the lab.",
    },
    Key {
        path: "trust.ca_file",
        kind: Kind::File,
        default: "",
        unset: "the system's roots",
        about: "PEM file with the root certificates that are trusted, and no others.",
    },
    Key {
        path: "trust.allow_private_addresses",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether policies are fetched from, and MX hosts looked at on, private, loopback and other special addresses. Only for labs and inner networks: with it, whoever controls a domain's DNS can make Sternpost connect to inner machines.",
    },
    Key {
        path: "lab.dns_port",
        kind: Kind::Port,
        default: "53",
        unset: "",
        about: "The port of the name servers of zones, which are asked to see what a zone shows now. Another than 53 makes sense only in a lab.",
    },
    Key {
        path: "lab.https_port",
        kind: Kind::Port,
        default: "443",
        unset: "",
        about: "The port of policy hosts. Another than 443 makes sense only in a lab.",
    },
    Key {
        path: "lab.smtp_port",
        kind: Kind::Port,
        default: "25",
        unset: "",
        about: "The port of MX hosts. Another than 25 makes sense only in a lab.",
    },
    Key {
        path: "answers.listen",
        kind: Kind::Listeners,
        default: "[\"127.0.0.1:8461\"]",
        unset: "",
        about: "Where Postfix asks (socketmap). The section `[answers]` switches the role on, also when it is empty. `systemd` takes the sockets that a socket unit hands over. The protocol has no authentication: on an address that others reach, keep them out by a firewall.",
    },
    Key {
        path: "answers.lines",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Where Exim and scripts ask: a line in, a line out (docs/exim.md).",
    },
    Key {
        path: "answers.http",
        kind: Kind::Loopback,
        default: "",
        unset: "off",
        about: "Where others ask by HTTP: `GET /v1/policy/DOMAIN` gives JSON (docs/answers.md).",
    },
    Key {
        path: "answers.control",
        kind: Kind::File,
        default: "",
        unset: "`sternpost.sock` beside the store",
        about: "The Unix socket through which `sternpost cache` and `sternpost query --cached` talk to the running program. Only its owner can open it.",
    },
    Key {
        path: "answers.socket_mode",
        kind: Kind::FileMode,
        default: "\"0666\"",
        unset: "",
        about: "The mode of Unix sockets that mail servers ask on. Who can open one can ask what policy a domain has, and nothing else.",
    },
    Key {
        path: "answers.socket_owner",
        kind: Kind::Owner,
        default: "",
        unset: "whoever runs the program",
        about: "The owner of those sockets.",
    },
    Key {
        path: "answers.tlsrpt",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "Whether answers carry the attributes of Postfix 3.10 for TLS reports also when the map's name does not end in `withTLSRPT`. Postfix 3.9 and older refuse such answers.",
    },
    Key {
        path: "answers.testing_level",
        kind: Kind::Choice(&["may", "encrypt", "dane"]),
        default: "",
        unset: "no restriction: the mail server's own level, or `may` where attributes need one",
        about: "The level for domains whose policy is in `testing`.",
    },
    Key {
        path: "answers.deadline",
        kind: Kind::Number(1, 90),
        default: "20",
        unset: "",
        about: "Seconds that a mail server waits for a look-up before it is told to come again. The look-up goes on meanwhile. Postfix itself gives up after 100.",
    },
    Key {
        path: "answers.recheck",
        kind: Kind::Number(1, 86_400),
        default: "60",
        unset: "",
        about: "Seconds between two looks at the same domain's records at least, however short their TTL.",
    },
    Key {
        path: "answers.cache_memory",
        kind: Kind::Number(1, 1_048_576),
        default: "64",
        unset: "",
        about: "MiB of memory for answers. What does not fit is looked up in the store again.",
    },
    Key {
        path: "answers.override",
        kind: Kind::Overrides,
        default: "[]",
        unset: "",
        about: "Domains that are answered another way than by what they publish. The nearest table counts: the domain itself, then its parents, then `*`.",
    },
    Key {
        path: "host.listen",
        kind: Kind::Listeners,
        default: "[\"127.0.0.1:443\"]",
        unset: "",
        about: "Where policies are served over HTTPS. The section `[host]` switches the role on. On the internet: `[\"[::]:443\", \"0.0.0.0:443\"]`.",
    },
    Key {
        path: "host.http",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Where plain HTTP is answered, for the challenges of a certificate authority (http-01) and a hint for people. On the internet: port 80. Without it, authorities are answered on `host.listen` (tls-alpn-01), which they reach on port 443 only.",
    },
    Key {
        path: "host.name",
        kind: Kind::Name,
        default: "",
        unset: "the plan leaves `mta-sts` alone",
        about: "The name of this policy host, to which `mta-sts.DOMAIN` is to be a CNAME.",
    },
    Key {
        path: "host.addresses",
        kind: Kind::ConcurrencyLimit,
        default: "[]",
        unset: "",
        about: "Its public addresses, to which `mta-sts.DOMAIN` is to point where there is no `host.name`.",
    },
    Key {
        path: "host.behind_proxy",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Where policies are served over plain HTTP to a web server of yours that has the certificates and passes the `Host` header on. Senders never fetch from here.",
    },
    Key {
        path: "host.proxy_header",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "`true` where a proxy in front of `host.listen` and `host.http` passes connections on as they are and says whom it speaks for by the PROXY protocol (version 1 or 2). Connections without that header are closed then.",
    },
    Key {
        path: "host.certificates",
        kind: Kind::CertificateFiles,
        default: "[]",
        unset: "",
        about: "Certificates of your own for policy hosts: `[[host.certificates]]`, once for each. They serve the hosts that they name, before those that were ordered, and are taken in again when the files change.",
    },
    Key {
        path: "host.key_file",
        kind: Kind::File,
        default: "",
        unset: "private keys stand in the store as they are",
        about: "File with 32 random bytes in base64 (`openssl rand -base64 32`), by which private keys are sealed in the store. Every node needs the same. Keys that are there already are sealed at the next start. Without the file, what is sealed is lost.",
    },
    Key {
        path: "host.acme.directory",
        kind: Kind::Url("https://"),
        default: "",
        unset: "no certificates are ordered",
        about: "The directory of a certificate authority (RFC 8555), from which certificates are had for domains that are known and whose policy host is here. Ordering means that you agree to its terms. Let's Encrypt: `https://acme-v02.api.letsencrypt.org/directory`.",
    },
    Key {
        path: "host.acme.contact",
        kind: Kind::Url("mailto:"),
        default: "",
        unset: "none is given",
        about: "Where the certificate authority can reach you.",
    },
    Key {
        path: "host.acme.profile",
        kind: Kind::Text,
        default: "",
        unset: "the authority's default",
        about: "A profile of certificates that the authority offers, such as `shortlived`.",
    },
    Key {
        path: "host.acme.ca_file",
        kind: Kind::File,
        default: "",
        unset: "the system's roots",
        about: "PEM file with the roots that the directory's own certificate is checked against, for authorities of your own.",
    },
    Key {
        path: "host.acme.key_id",
        kind: Kind::Text,
        default: "",
        unset: "accounts are bound to none of yours",
        about: "The key id of an account that you have at the authority already, to which the account made here is bound (external account binding, RFC 8555 §7.3.4).",
    },
    Key {
        path: "host.acme.key_file",
        kind: Kind::File,
        default: "",
        unset: "needed with `host.acme.key_id`",
        about: "File with that account's key, in base64url as authorities show it. It is read once, when the account is made.",
    },
    Key {
        path: "host.acme.new_per_hour",
        kind: Kind::Number(1, 100_000),
        default: "100",
        unset: "",
        about: "New certificates that the authority is asked for in an hour; renewals do not count. Let's Encrypt allows 300 in three hours and more on request. When it says that there were too many, it is left alone for 15 minutes.",
    },
    Key {
        path: "host.acme.then",
        kind: Kind::Authorities,
        default: "[]",
        unset: "",
        about: "Authorities that are asked when the one before gives no certificate, is away or has had too many orders.",
    },
    Key {
        path: "delegation.zone",
        kind: Kind::Name,
        default: "",
        unset: "domains can't be delegated",
        about: "A zone of your own, into which the owners of delegated domains make `_mta-sts`, `mta-sts` and `_smtp._tls` aliases. The records of DOMAIN stand there below DOMAIN's name.",
    },
    Key {
        path: "guard.every",
        kind: Kind::Number(1, 86_400),
        default: "300",
        unset: "",
        about: "Seconds between two looks at a domain. The section `[guard]` switches the watch over your domains on: MX hosts that the policy does not name, certificates that end within 14 days or don't verify, a policy host that does not answer, a record that is gone; and over the reports: failures that verified senders met, too many of them, and silence where reports used to come. It also carries out `auto_promote`. What is found is logged as an error, once, and when it is over.",
    },
    Key {
        path: "guard.failures_per_thousand",
        kind: Kind::Number(1, 1000),
        default: "10",
        unset: "",
        about: "The share of failed sessions in a week, by verified reports, from which on there is an alert, in thousandths.",
    },
    Key {
        path: "guard.apply",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "`true` lets the watch carry out the plan of each domain whose policy is served here and whose DNS is changed from here, as far as it goes without waiting. Enforcement still takes your word (`promote`) or `auto_promote`.",
    },
    Key {
        path: "guard.webhook",
        kind: Kind::Url("http"),
        default: "",
        unset: "alerts are not posted",
        about: "Where each alert is POSTed as JSON when it begins and when it ends (docs/receiving.md); again, with growing pauses, for a day, until it is taken.",
    },
    Key {
        path: "guard.mail",
        kind: Kind::MailAddresses,
        default: "[]",
        unset: "",
        about: "To whom alerts go by mail when they begin and when they end, one mail a minute at most, with all that is new in it.",
    },
    Key {
        path: "guard.mail_from",
        kind: Kind::MailAddress,
        default: "",
        unset: "needed where `guard.mail` is set",
        about: "In whose name alerts are mailed. It should exist: mail servers ask about it.",
    },
    Key {
        path: "guard.mail_deliver",
        kind: Kind::Deliver,
        default: "\"smarthost:127.0.0.1:25\"",
        unset: "",
        about: "How alerts leave: through a mail server (the one on this machine by default), the sendmail command, straight to the MX hosts of whom they go to, or into a folder.",
    },
    Key {
        path: "guard.mail_user",
        kind: Kind::Text,
        default: "",
        unset: "the relay is not told who we are",
        about: "The name by which the relay of `guard.mail_deliver` knows you (AUTH PLAIN or LOGIN). It is told only after STARTTLS, to a relay whose certificate proves its name.",
    },
    Key {
        path: "guard.mail_password_file",
        kind: Kind::File,
        default: "",
        unset: "needed with `guard.mail_user`",
        about: "File with the password alone.",
    },
    Key {
        path: "admin.listen",
        kind: Kind::Loopback,
        default: "\"127.0.0.1:8464\"",
        unset: "",
        about: "Where domains are added, changed and removed over HTTP (docs/admin.md). The section `[admin]` switches the role on.",
    },
    Key {
        path: "admin.token_file",
        kind: Kind::File,
        default: "",
        unset: "needed with `[admin]`",
        about: "File with the token, of 24 characters at least, that every request has to carry.",
    },
    Key {
        path: "gate.days_in_testing",
        kind: Kind::Number(0, 365),
        default: "14",
        unset: "",
        about: "Days that a policy has to be in testing before it may be enforced.",
    },
    Key {
        path: "gate.clean_days",
        kind: Kind::Number(1, 365),
        default: "7",
        unset: "",
        about: "Days with verified reports and without a failure, in a row, before it may be enforced.",
    },
    Key {
        path: "gate.failures_per_thousand",
        kind: Kind::Number(1, 1000),
        default: "5",
        unset: "",
        about: "The failure rate that the sessions of the clean days have to exclude with 95 % confidence, in thousandths.",
    },
    Key {
        path: "gate.quiet_days",
        kind: Kind::Number(1, 365),
        default: "28",
        unset: "",
        about: "Days in testing after which a domain with too few sessions for that may be enforced as well, when all our own looks at its MX hosts were good (`[guard]` makes them).",
    },
    Key {
        path: "inbox.addresses",
        kind: Kind::MailAddresses,
        default: "[]",
        unset: "",
        about: "The addresses for which report mail is taken, by SMTP and LMTP. Mail for all others is refused. The section `[inbox]` switches the role on.",
    },
    Key {
        path: "inbox.smtp",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Where mail servers hand report mail over by SMTP, as the MX of the addresses' domain. On the internet: `[\"[::]:25\", \"0.0.0.0:25\"]`.",
    },
    Key {
        path: "inbox.lmtp",
        kind: Kind::Listeners,
        default: "[]",
        unset: "",
        about: "Where a mail server of yours hands report mail over by LMTP. Postfix: `transport_maps` with `lmtp:unix:/run/sternpost/lmtp.sock` (docs/reports.md).",
    },
    Key {
        path: "inbox.name",
        kind: Kind::Name,
        default: "",
        unset: "the name of the machine",
        about: "How the inbox calls itself, which is the name in the MX record and in the certificate.",
    },
    Key {
        path: "inbox.certificate",
        kind: Kind::File,
        default: "",
        unset: "STARTTLS is not offered",
        about: "PEM file with the certificate for STARTTLS and those that it was made with. A change is taken in within a minute.",
    },
    Key {
        path: "inbox.key",
        kind: Kind::File,
        default: "",
        unset: "STARTTLS is not offered",
        about: "PEM file with the key of that certificate.",
    },
    Key {
        path: "inbox.messages_per_minute",
        kind: Kind::Number(1, 1_000_000),
        default: "600",
        unset: "",
        about: "Messages that one address (one /64 of IPv6) may hand over by SMTP in a minute; further ones are told to come again later (450). LMTP is not counted. Raise it where a relay of yours hands everything over by SMTP.",
    },
    Key {
        path: "inbox.http",
        kind: Kind::UrlPath,
        default: "",
        unset: "reports are not taken by HTTPS",
        about: "The path below which reports are taken by HTTPS POST, at the address of the dashboard. `sternpost reports address` shows the whole URL for `rua`, whose last part is a secret of this store.",
    },
    Key {
        path: "inbox.imap.host",
        kind: Kind::Name,
        default: "",
        unset: "no mailbox is read",
        about: "The IMAP server of a mailbox that reports come to. It has to speak TLS from the first byte, with a certificate for this name.",
    },
    Key { path: "inbox.imap.port", kind: Kind::Port, default: "993", unset: "", about: "Its port." },
    Key {
        path: "inbox.imap.user",
        kind: Kind::Text,
        default: "",
        unset: "needed with `host`",
        about: "Whose mailbox it is.",
    },
    Key {
        path: "inbox.imap.password_file",
        kind: Kind::File,
        default: "",
        unset: "needed with `host`",
        about: "A file with the password alone, readable by nobody but the user that Sternpost runs as.",
    },
    Key {
        path: "inbox.imap.folder",
        kind: Kind::Text,
        default: "\"INBOX\"",
        unset: "",
        about: "The folder that is watched.",
    },
    Key {
        path: "inbox.imap.move_to",
        kind: Kind::Text,
        default: "",
        unset: "they stay, marked as read",
        about: "The folder that reports are moved to once they are taken in. Mail that is no report stays as it is.",
    },
    Key {
        path: "collector.socket",
        kind: Kind::File,
        default: "\"/var/spool/postfix/run/tlsrpt/tlsrpt.sock\"",
        unset: "",
        about: "The Unix socket to which Postfix 3.10 and later (libtlsrpt) tells its sessions. The section `[collector]` switches the role on. In main.cf: `smtp_tlsrpt_enable = yes` and `smtp_tlsrpt_socket_name = run/tlsrpt/tlsrpt.sock`, which is below Postfix's queue folder. The last two folders of the path are made when they are missing.",
    },
    Key {
        path: "collector.socket_mode",
        kind: Kind::FileMode,
        default: "\"0666\"",
        unset: "",
        about: "The mode of that socket. Who can write to it can make up sessions; on a machine with users who are not trusted, set `socket_owner` and `\"0660\"`.",
    },
    Key {
        path: "collector.socket_owner",
        kind: Kind::Owner,
        default: "",
        unset: "whoever runs the program",
        about: "The owner of that socket; for Postfix, `\"sternpost:postfix\"` with the mode `\"0660\"`.",
    },
    Key {
        path: "collector.http",
        kind: Kind::Loopback,
        default: "",
        unset: "off",
        about: "Where other mail servers post their sessions: `POST /v1/sessions` (docs/tlsrpt-sending.md).",
    },
    Key {
        path: "reporter.from",
        kind: Kind::MailAddress,
        default: "",
        unset: "has to be set",
        about: "From whom reports come; receivers answer to it. Its domain is the submitter. The section `[reporter]` switches the sending of TLS reports on.",
    },
    Key {
        path: "reporter.organization",
        kind: Kind::Text,
        default: "",
        unset: "the domain of `from`",
        about: "The name that stands in reports.",
    },
    Key {
        path: "reporter.dkim",
        kind: Kind::DkimKeys,
        default: "",
        unset: "mail is not signed here, which takes a `deliver` other than `direct`",
        about: "What report mail is signed with. `sternpost reports key` makes a key that is missing, and prints the record to publish.",
    },
    Key {
        path: "reporter.deliver",
        kind: Kind::Deliver,
        default: "\"direct\"",
        unset: "",
        about: "How report mail leaves: straight to the MX hosts of the target, by a relay, by a command, or into a folder, where reports for HTTPS targets are put too.",
    },
    Key {
        path: "reporter.user",
        kind: Kind::Text,
        default: "",
        unset: "the relay is not told who we are",
        about: "The name by which the relay of `reporter.deliver` knows you (AUTH PLAIN or LOGIN). It is told only after STARTTLS, to a relay whose certificate proves its name.",
    },
    Key {
        path: "reporter.password_file",
        kind: Kind::File,
        default: "",
        unset: "needed with `reporter.user`",
        about: "File with the password alone.",
    },
    Key {
        path: "reporter.exclude",
        kind: Kind::Names,
        default: "[]",
        unset: "",
        about: "Domains that no reports are made about, and all below them.",
    },
    Key {
        path: "reporter.deny",
        kind: Kind::Names,
        default: "[]",
        unset: "",
        about: "Hosts of `rua` targets that nothing is sent to, and all below them.",
    },
    Key {
        path: "reporter.addresses",
        kind: Kind::Choice(&["full", "shortened", "omitted"]),
        default: "\"full\"",
        unset: "",
        about: "How reports tell the addresses of failed sessions: as they are, their network only (24 bits, 48 of IPv6), or not at all.",
    },
    Key {
        path: "reporter.look_at_tested_policies",
        kind: Kind::Bool,
        default: "true",
        unset: "",
        about: "Whether Sternpost shakes hands with the MX hosts of domains whose policy is in `testing` and that got mail, a few times a day, since mail servers call every handshake a success there (docs/tlsrpt-sending.md).",
    },
    Key {
        path: "reporter.https_unverified",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "True posts reports also to hosts whose certificate is not good.",
    },
    Key {
        path: "reporter.spread",
        kind: Kind::Number(0, 14_400),
        default: "14100",
        unset: "",
        about: "Over how many seconds after 00:05 UTC reports are spread (RFC 8460 asks for up to four hours).",
    },
    Key {
        path: "reporter.keep_tallies",
        kind: Kind::Number(2, 3650),
        default: "30",
        unset: "",
        about: "Days for which counted sessions are kept.",
    },
    Key {
        path: "reporter.keep_reports",
        kind: Kind::Number(2, 3650),
        default: "90",
        unset: "",
        about: "Days for which sent reports are kept.",
    },
    Key {
        path: "dashboard.listen",
        kind: Kind::Addresses,
        default: "[\"127.0.0.1:8460\"]",
        unset: "",
        about: "Where the pages for people are. The section `[dashboard]` switches them on. An address that others can reach takes `certificate` and `key`, or `behind_proxy`.",
    },
    Key {
        path: "dashboard.url",
        kind: Kind::Url("http"),
        default: "",
        unset: "http:// or https:// and the address that is listened on",
        about: "How people reach the pages, where that differs from `listen`.",
    },
    Key {
        path: "dashboard.certificate",
        kind: Kind::File,
        default: "",
        unset: "plain HTTP",
        about: "PEM file with the certificate for HTTPS and those that it was made with. A change is taken in within a minute.",
    },
    Key {
        path: "dashboard.key",
        kind: Kind::File,
        default: "",
        unset: "plain HTTP",
        about: "PEM file with the key of that certificate.",
    },
    Key {
        path: "dashboard.behind_proxy",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "True states that nobody reaches the address but through a proxy of yours that speaks HTTPS to people.",
    },
    Key {
        path: "dashboard.public_check",
        kind: Kind::Bool,
        default: "false",
        unset: "",
        about: "True lets everybody who reaches the dashboard's address check domains at `/check`, without signing in (docs/check.md). Each look connects to servers of others, so that few are made in a minute.",
    },
    Key {
        path: "metrics.listen",
        kind: Kind::Loopback,
        default: "",
        unset: "off",
        about: "Where `/metrics` (Prometheus), `/healthz`, `/readyz` and a status page are.",
    },
    Key {
        path: "log.format",
        kind: Kind::Choice(&["text", "json"]),
        default: "\"text\"",
        unset: "",
        about: "How `sternpost serve` logs, to stderr.",
    },
    Key {
        path: "log.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug"]),
        default: "\"info\"",
        unset: "",
        about: "From which level on. `info` has a line for each change of a policy, `debug` one for each look-up. The environment variable SPOST_LOG goes before it.",
    },
];

/// The reference page, `docs/configuration.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         One TOML file: `--config FILE`, else `./sternpost.toml`, else `/etc/sternpost/sternpost.toml`.\n\
         Every key has a default that works; without a file all of them are in force. An unknown key is an\n\
         error that names the nearest right one. `sternpost config check` reads the file and says whether it\n\
         is right, `sternpost config show` prints what is in force and where each value comes from.\n\n\
         This page is made by `sternpost config reference`, from the same table that the program reads by.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (head, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if head != section {
            let _ = write!(
                out,
                "\n## {}\n",
                if head.is_empty() { "Outside of sections".to_owned() } else { format!("[{head}]") }
            );
            section = head;
        }
        let default = if key.default.is_empty() {
            format!("not set: {}", key.unset)
        } else {
            format!("`{}`", key.default)
        };
        let _ = write!(
            out,
            "\n### `{name}`\n\n{}\n\n- Value: {}\n- Default: {default}\n",
            key.about,
            key.kind.expected()
        );
    }
    out
}
