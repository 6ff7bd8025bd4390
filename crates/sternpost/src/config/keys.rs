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
}

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
        }
    }
}

/// Every key that exists so far, by section.
pub const KEYS: &[Key] = &[
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
            let _ = write!(out, "\n## [{head}]\n");
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
