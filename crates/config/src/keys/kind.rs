//! The kinds of values that a configuration key takes, and how each is described in errors and in the reference.

use crate::environment::Form;

/// The kind of value that a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A list of `address:port`.
    Addresses,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file path. A relative path starts at the configuration file's directory.
    File,
    /// `true` or `false`.
    Bool,
    /// A port from 1 to 65535.
    Port,
    /// A list of listen addresses: `address:port`, `unix:/path`, `systemd:NAME` or `systemd`.
    Listeners,
    /// A list of listen addresses without Unix sockets.
    TcpListeners,
    /// One loopback `address:port`, which other hosts can't reach, or `systemd:NAME`.
    Loopback,
    /// The path of a Unix datagram socket, or `systemd:NAME`.
    DatagramSocket,
    /// A whole number from the first to the second, inclusive.
    Number(i64, i64),
    /// The database, as `sqlite:FILE` or the URL of a PostgreSQL database.
    Store,
    /// A file mode in octal, at most 0777.
    FileMode,
    /// `user:group`, each by name or number.
    Owner,
    /// The tables `[[answers.override]]`.
    Overrides,
    /// The tables `[answers.maps.NAME]`.
    Maps,
    /// The tables `[[domain]]`.
    Domains,
    /// The table `[defaults]`.
    DomainDefaults,
    /// The tables `[[rfc2136]]`: name servers that accept DNS UPDATE.
    Updates,
    /// The tables `[[provider]]`: DNS providers with an API.
    Providers,
    /// A list of tables, each with a certificate authority.
    Authorities,
    /// Tables, each with a certificate file and its key file.
    CertificateFiles,
    /// A table `[inbox.imap]`, or the tables `[[inbox.imap]]`.
    Mailboxes,
    /// One host name.
    Name,
    /// The name for EHLO: a fully qualified host name or an address literal.
    Helo,
    /// A list of IP addresses without ports.
    IpAddresses,
    /// A URL that begins with this text.
    Url(&'static str),
    /// A string that is not empty.
    Text,
    /// The name of a tenant.
    Tenant,
    /// A list of mail addresses.
    MailAddresses,
    /// The path of a URL, beginning with `/`.
    UrlPath,
    /// One mail address.
    MailAddress,
    /// A list of domain names.
    Names,
    /// A table with a DKIM key, or a list of such tables.
    DkimKeys,
    /// A delivery method for mail.
    Deliver,
    /// The tables `[[reporter.targets]]`: rules for report targets.
    Targets,
    /// One `address:port` to listen at, or `systemd:NAME`.
    TcpAddress,
    /// An `https:` URL whose host is a name.
    HttpsUrl,
    /// A day of the week and a time of day, in UTC.
    WeekTime,
}

impl Kind {
    /// True for tables that are written with two brackets. A DKIM key and a mailbox may also be a single table.
    pub(crate) fn is_list_of_tables(self) -> bool {
        matches!(
            self,
            Self::Domains
                | Self::Updates
                | Self::Providers
                | Self::Authorities
                | Self::CertificateFiles
                | Self::Overrides
        )
    }

    /// How a value is written in an environment variable.
    pub(crate) fn form(self) -> Form {
        match self {
            Self::Bool | Self::Port | Self::Number(..) => Form::Word,
            Self::Addresses
            | Self::Listeners
            | Self::TcpListeners
            | Self::IpAddresses
            | Self::MailAddresses
            | Self::Names => Form::List,
            Self::Overrides
            | Self::Maps
            | Self::Domains
            | Self::DomainDefaults
            | Self::Updates
            | Self::Providers
            | Self::Authorities
            | Self::CertificateFiles
            | Self::Mailboxes
            | Self::DkimKeys
            | Self::Targets => Form::Toml,
            Self::Choice(_)
            | Self::File
            | Self::DatagramSocket
            | Self::Loopback
            | Self::Store
            | Self::FileMode
            | Self::Owner
            | Self::Name
            | Self::Helo
            | Self::Url(_)
            | Self::Text
            | Self::Tenant
            | Self::UrlPath
            | Self::MailAddress
            | Self::Deliver
            | Self::TcpAddress
            | Self::HttpsUrl
            | Self::WeekTime => Form::Text,
        }
    }

    /// The accepted values in words, as errors and the reference show them. The words fit after "KEY takes".
    pub fn expected(self) -> String {
        match self {
            Self::Addresses => "a list of \"address:port\"",
            Self::Choice(words) => return quoted(words).join(" or "),
            Self::File => "a file path, relative to the configuration file's directory",
            Self::DatagramSocket => {
                "a file path, relative to the configuration file's directory, or \"systemd:NAME\""
            }
            Self::Bool => "true or false",
            Self::Port => "a port from 1 to 65535",
            Self::Listeners => "a list of \"address:port\", \"unix:/path\", \"systemd:NAME\" or \"systemd\"",
            Self::TcpListeners => "a list of \"address:port\" or \"systemd:NAME\"",
            Self::Loopback => "a loopback \"address:port\", such as \"127.0.0.1:8462\", or \"systemd:NAME\"",
            Self::Number(least, most) => return format!("a whole number from {least} to {most}"),
            Self::Store => "\"sqlite:FILE\" or \"postgres://USER@HOST/DATABASE\"",
            Self::FileMode => "a file mode in octal, such as \"0660\"",
            Self::Owner => "\"user:group\", by name or number",
            Self::Domains => DOMAIN_MEMBERS,
            Self::DomainDefaults => "a table with any members of `[[domain]]` apart from `name`",

            Self::Updates => UPDATE_MEMBERS,
            Self::Providers => PROVIDER_MEMBERS,
            Self::Authorities => AUTHORITY_MEMBERS,
            Self::CertificateFiles => CERTIFICATE_MEMBERS,
            Self::Mailboxes => MAILBOX_MEMBERS,
            Self::Tenant => "the name of a tenant, such as \"acme\"",
            Self::Name => "a host name, such as \"mail.example.org\"",
            Self::Helo => "a fully qualified host name, such as \"mail.example.org\", or an address literal, such as \"[192.0.2.1]\"",
            Self::Targets => TARGET_MEMBERS,
            Self::TcpAddress => {
                "an \"address:port\", such as \"127.0.0.1:8464\" or \"[::]:8464\", or \"systemd:NAME\""
            }
            Self::HttpsUrl => "a URL that begins with https:// and a host name",
            Self::IpAddresses => "a list of IP addresses, such as \"192.0.2.1\" and \"2001:db8::1\"",
            Self::Url(scheme) => return format!("a URL that begins with {scheme}"),
            Self::Text => "a string that is not empty",
            Self::MailAddresses => "a list of mail addresses, such as \"tlsrpt@example.org\"",
            Self::UrlPath => "the path of a URL, such as \"/reports\"",
            Self::MailAddress => "a mail address, such as \"tlsrpt@example.org\"",
            Self::Names => "a list of domain names, such as \"example.org\"",
            Self::DkimKeys => DKIM_MEMBERS,
            Self::Deliver => {
                "\"direct\", \"smarthost:HOST:PORT\", \"sendmail:/path/to/sendmail\" or \"folder:DIR\""
            }
            Self::WeekTime => "a day of the week and a time in UTC, such as \"mon 08:00\"",
            Self::Overrides => OVERRIDE_MEMBERS,
            Self::Maps => MAP_MEMBERS,
        }
        .to_owned()
    }
}

fn quoted(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("{word:?}")).collect()
}

/// The members of `[[domain]]`, as a Markdown list nested in the reference's list.
const DOMAIN_MEMBERS: &str = "tables with these members; only `name` is required:
  - `name`: the domain.
  - `mode`: the desired mode: `enforce` (the default), `testing` or `none`.
  - `mx`: the MX hosts of the policy, as host names and `*.` patterns. Default: the MX hosts in DNS.
  - `max_age`: a table with the policy's `max_age` in seconds, by state.
    `testing` (default 86400) applies in testing and while the policy is retired.
    `enforce` (default 604800) applies when the policy is enforced.
    `before` (default 31557600) is assumed for an earlier policy that can't be fetched any more.
  - `host`: who serves the policy.
    `self`: the role `[host]`.
    `static` (the default): a web server with the files from `sternpost export`.
    `elsewhere`: another party; Sternpost only monitors it.
  - `dns`: who changes the DNS records: `manual` (the default), `rfc2136:NAME`, or the service and name of a
    `[[provider]]`, such as `cloudflare:NAME`.
  - `rua`: a list of `mailto:` and `https:` URIs that receive TLS reports.
  - `challenge`: how the CA validates the policy host, as in `host.acme.challenge`.
  - `delegated`: `true` if the domain's owner points its names at the zone of `[delegation]` by CNAME records.
  - `auto_promote`: `true` enforces the policy as soon as the evidence is sufficient, without your approval.
  - `repair`: `true` lets `[guard]` add a missing MX host to the policy at once.
  - `tags`: a list of words, such as customers or teams, by which the dashboard filters domains.";

/// The members of `[[rfc2136]]`.
const UPDATE_MEMBERS: &str = "tables with these members:
  - `name`: the name by which domains refer to this server.
  - `server`: the server's \"address:port\".
  - `zone`: the zone to update. Default: the domain itself.
  - `key_name`: the name of the TSIG key.
  - `key_file`: a file that contains only the base64 secret, as tsig-keygen and keymgr print it.
  - `algorithm`: `hmac-sha256` (the default), `hmac-sha384` or `hmac-sha512`.";

/// The members of `[[provider]]`.
const PROVIDER_MEMBERS: &str = "tables with these members:
  - `name`: the name by which domains refer to this account.
  - `service`: `cloudflare`, `desec`, `digitalocean`, `hetzner` or `route53`.
  - `key_file`: a file that contains only the API token. For `route53`, a credentials file with
    `aws_access_key_id = …` and `aws_secret_access_key = …`.
  - `zone`: the zone to change. Default: the domain itself.
  - `zone_id`: the zone's identifier, required if Route 53 has several zones of that name.";

/// The members of `[[host.acme.then]]`.
const AUTHORITY_MEMBERS: &str = "a list of tables with the members `directory`, `contact`, `profile`, `ca_file`, \
    `key_id`, `key_file`, `new_per_hour` and `issuer`; only `directory` is required. They mean the same as in `[host.acme]`";

/// The members of `[[host.certificates]]`.
const CERTIFICATE_MEMBERS: &str = "tables with these members:
  - `certificate`: PEM file with the certificate chain.
  - `key`: PEM file with its private key.";

/// The members of `[inbox.imap]`.
const MAILBOX_MEMBERS: &str = "a table or tables with these members; `host`, `user`, and one of `password_file` and `oauth` are
  required:
  - `host`: the IMAP server. Its certificate must be valid for this name.
  - `tls`: `implicit` (the default) uses TLS from the start, `starttls` begins it with STARTTLS. Without TLS, neither
    password nor token is sent.
  - `port`: the port. Default: 993, or 143 with `starttls`.
  - `user`: the user name.
  - `password_file`: a file that contains only the password. Only the user that Sternpost runs as should be able to
    read it.
  - `oauth`: a table that says where access tokens come from, for servers that take no password:
    `token_file` is a file that another program keeps up to date. `token_command` is a list with a program and its
    arguments that prints a token. `token_url` is the token endpoint of an OAuth server, with `client_id`,
    `client_secret_file`, `refresh_token_file` and `scope`; without `refresh_token_file`, client credentials are used.
    Other users of the machine must not be able to read these files.
  - `folder`: the folder to read. Default: `INBOX`.
  - `folders`: a list of folders, instead of `folder`. `*` stands for any characters, `%` for those of one level:
    `Reports/*` is all folders below `Reports`.
  - `move_to`: the folder that reports are moved to after import. Default: they stay, marked as read. It is created
    if it does not exist, in the user's namespace: `TLS reports` may become `INBOX.TLS reports`.";

/// The members of a table in `reporter.dkim`.
const DKIM_MEMBERS: &str =
    "a table, such as `{ selector = \"tlsrpt\", key_file = \"dkim.pem\" }`, or a list of tables:
  - `selector`: the DKIM selector.
  - `key_file`: PEM file with the private key, RSA or Ed25519.
  - `domain`: the signing domain. Default: the domain of `reporter.from`.";

/// The members of `[[reporter.targets]]`.
const TARGET_MEMBERS: &str = "tables with `domain` or `target`, or both, and with `send_to` or `copy_to`, or both:
  - `domain`: reports about this domain and its subdomains; `*` is every domain.
  - `target`: targets at this host and its subdomains, or exactly this `mailto:` or `https:` URI.
  - `send_to`: a list of `mailto:` and `https:` URIs. With `target`, they replace that target; without it, they replace
    all targets of the domain, and reports are sent even if the domain publishes no `_smtp._tls` record. The empty list
    blocks.
  - `copy_to`: a list of URIs that get a copy of each report that is sent.";

/// The members of `[[answers.override]]`.
const OVERRIDE_MEMBERS: &str = "tables with `domain` and at least one other member:
  - `domain`: `example.org`, `*.example.org` for all its subdomains, or `*` for every domain.
  - `answer`: a fixed answer: `none`, `may`, `encrypt`, `dane`, `dane-only`, `secure` or
    `secure match=NAME:NAME`. It excludes the other members.
  - `policy_file`: a policy file that replaces the published policy.
  - `skip_mta_sts`: `true` ignores MTA-STS for the domain.
  - `skip_dane`: `true` ignores DANE for the domain.";

/// The members of `[answers.maps.NAME]`.
const MAP_MEMBERS: &str =
    "tables, named with up to 64 letters, digits, `-`, `_` and `.`, with these members. Unset members \
    have the value of `[answers]`:
  - `tlsrpt`, `testing_level`, `default_level`: as in `[answers]`.
  - `override`: as in `[answers]`. If a map has overrides, those of `[answers]` do not apply to it.";
