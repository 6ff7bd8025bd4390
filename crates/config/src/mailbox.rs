//! `[inbox.imap]` and `[[inbox.imap]]`: the mailboxes that reports are fetched from. The table is validated when the file
//! is read; [`mailboxes`] combines its members. Passwords and tokens stay in their files until the mailbox
//! is read: those who run other commands need not be able to read them.

use crate::failure::Failure;
use crate::read::Read;
use formats::DomainName;
use formats::tlsrpt_record::HttpsUrl;
use receiver::inbox::imap::{ImapMailbox, ImapTls, Login, TokenEndpoint, TokenSource};
use serde::Deserialize;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

/// A mailbox of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MailboxSpec {
    host: DomainName,
    #[serde(default)]
    port: Option<NonZeroU16>,
    #[serde(default)]
    tls: TlsSpec,
    user: String,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    oauth: Option<OauthSpec>,
    #[serde(default)]
    folder: Option<String>,
    #[serde(default)]
    folders: Vec<String>,
    #[serde(default)]
    move_to: Option<String>,
}

/// The values of the mailbox member `tls`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TlsSpec {
    #[default]
    Implicit,
    StartTls,
}

/// The table `[inbox.imap.oauth]`: where access tokens come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct OauthSpec {
    #[serde(default)]
    token_file: Option<PathBuf>,
    #[serde(default)]
    token_command: Option<Vec<String>>,
    #[serde(default)]
    token_url: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    client_secret_file: Option<PathBuf>,
    #[serde(default)]
    refresh_token_file: Option<PathBuf>,
    #[serde(default)]
    scope: Option<String>,
}

/// The mailboxes of the file. Relative paths start at `folder`.
pub(crate) fn mailboxes(read: &Read, folder: &Path) -> Result<Vec<ImapMailbox>, Failure> {
    // One mailbox is a table, several are a list of tables.
    let specs: Vec<MailboxSpec> = read.tables("inbox.imap");
    specs.into_iter().map(|spec| spec.mailbox(folder)).collect()
}

impl MailboxSpec {
    fn mailbox(self, folder: &Path) -> Result<ImapMailbox, Failure> {
        let tls = match self.tls {
            TlsSpec::Implicit => ImapTls::Implicit,
            TlsSpec::StartTls => ImapTls::StartTls,
        };
        let default_port = if tls == ImapTls::Implicit { 993 } else { 143 };
        let login = match (self.password_file, self.oauth) {
            (Some(file), None) => Login::Password(folder.join(file)),
            (None, Some(oauth)) => Login::Token(oauth.source(folder)?),
            _ => {
                return Err(Failure::usage(
                    format!("the mailbox of {} at {}", self.user, self.host),
                    "it requires either password_file or oauth",
                    "Set one of them:\n  [inbox.imap]\n  host = \"imap.example.org\"\n  user = \"tlsrpt@example.org\"\n  password_file = \"imap-password\"",
                ));
            }
        };
        let folders = match (self.folder, self.folders.is_empty()) {
            (Some(folder), true) => vec![folder],
            (None, false) => self.folders,
            (None, true) => vec!["INBOX".to_owned()],
            (Some(_), false) => {
                return Err(Failure::usage(
                    format!("the mailbox of {} at {}", self.user, self.host),
                    "it has both folder and folders",
                    "List all folders in folders, and remove folder.",
                ));
            }
        };
        Ok(ImapMailbox {
            host: self.host,
            port: self.port.map_or(default_port, NonZeroU16::get),
            tls,
            user: self.user,
            login,
            folders,
            move_to: self.move_to,
        })
    }
}

impl OauthSpec {
    fn source(self, folder: &Path) -> Result<TokenSource, Failure> {
        let has_command = self.token_command.as_ref().is_some_and(|words| !words.is_empty());
        match (self.token_file, self.token_command, self.token_url) {
            (Some(file), None, None) => Ok(TokenSource::File(folder.join(file))),
            (None, Some(words), None) if has_command => Ok(TokenSource::Command(words)),
            (None, None, Some(url)) => {
                let url = HttpsUrl::parse(&url)
                    .map_err(|why| wrong(&format!("token_url {url:?} is not valid: {why}")))?;
                let Some(client_id) = self.client_id else { return Err(wrong("client_id is missing")) };
                if self.client_secret_file.is_none() && self.refresh_token_file.is_none() {
                    return Err(wrong("refresh_token_file and client_secret_file are missing"));
                }
                Ok(TokenSource::Endpoint(TokenEndpoint {
                    url,
                    client_id,
                    client_secret_file: self.client_secret_file.map(|file| folder.join(file)),
                    refresh_token_file: self.refresh_token_file.map(|file| folder.join(file)),
                    scope: self.scope,
                }))
            }
            _ => Err(wrong("exactly one of token_file, token_command and token_url is required")),
        }
    }
}

fn wrong(why: &str) -> Failure {
    Failure::usage(
        "the OAuth settings of a mailbox are not valid",
        why,
        "docs/reports.md has complete examples for Microsoft 365 and Gmail.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn parsed(imap: &str) -> Result<Vec<ImapMailbox>, String> {
        let config = Config::parse(&format!("[inbox]\n{imap}"), Some("s.toml".into()));
        config.map(|config| config.inbox.unwrap().imap).map_err(|failure| failure.to_string())
    }

    #[test]
    fn one_table_is_one_mailbox_and_a_list_is_several() {
        let oauth = "oauth = { token_file = \"token\" }";
        let one = parsed(&format!("[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"\n{oauth}")).unwrap();
        assert_eq!((one.len(), one[0].port, one[0].tls), (1, 993, ImapTls::Implicit));
        assert_eq!(one[0].folders, ["INBOX"]);
        let table =
            |rest: &str| format!("[[inbox.imap]]\nhost = \"a.example\"\nuser = \"u\"\n{oauth}\n{rest}\n");
        let two = parsed(&format!(
            "{}{}",
            table("tls = \"starttls\""),
            table("folders = [\"INBOX\", \"Reports/*\"]\nport = 1993")
        ))
        .unwrap();
        assert_eq!((two.len(), two[0].port, two[0].tls), (2, 143, ImapTls::StartTls));
        assert_eq!((two[1].port, two[1].folders.len()), (1993, 2));
    }

    #[test]
    fn a_password_that_the_user_may_not_read_hinders_no_other_command() {
        let all =
            parsed("[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"\npassword_file = \"none\"").unwrap();
        assert!(all[0].login == Login::Password("none".into()));
    }

    #[test]
    fn the_sources_of_an_access_token_are_told_apart() {
        let source = |oauth: &str| {
            let table =
                format!("[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"\n[inbox.imap.oauth]\n{oauth}");
            parsed(&table).map(|mut all| all.remove(0).login)
        };
        let login = source("token_command = [\"/bin/token\", \"u\"]").unwrap();
        assert!(login == Login::Token(TokenSource::Command(vec!["/bin/token".into(), "u".into()])));
        let url = "token_url = \"https://login.example/token\"\n";
        let Login::Token(TokenSource::Endpoint(endpoint)) =
            source(&format!("{url}client_id = \"c\"\nrefresh_token_file = \"r\"")).unwrap()
        else {
            panic!()
        };
        assert_eq!((endpoint.refresh_token_file, endpoint.client_secret_file), (Some("r".into()), None));
        for (oauth, expected) in [
            ("", "exactly one of token_file"),
            ("token_file = \"t\"\ntoken_command = [\"c\"]", "exactly one of token_file"),
            ("token_command = []", "exactly one of token_file"),
            (url, "client_id is missing"),
            ("token_url = \"http://a.example/\"\nclient_id = \"c\"", "expected https://"),
            (
                "token_url = \"https://a.example/\"\nclient_id = \"c\"",
                "refresh_token_file and client_secret_file",
            ),
            ("tokenfile = \"t\"", "has no member \"tokenfile\""),
        ] {
            let Err(error) = source(oauth) else { panic!("{oauth}") };
            assert!(error.contains(expected), "{oauth}: {error}");
        }
    }

    #[test]
    fn an_incomplete_mailbox_is_an_error_that_says_what_is_missing() {
        for (imap, expected) in [
            ("[inbox.imap]\n", "has no \"host\", which is required"),
            ("[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"", "it requires either password_file or oauth"),
            (
                "[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"\npasword_file = \"p\"",
                "Did you mean password_file?",
            ),
            ("[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"\nport = 0", "nonzero"),
            (
                "[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"\ntls = \"no\"",
                "\"no\" is not a valid value of tls",
            ),
            (
                "[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"\noauth = { token_file = \"t\" }\nfolder = \"a\"\nfolders = [\"b\"]",
                "both folder and folders",
            ),
        ] {
            let Err(error) = parsed(imap) else { panic!("{imap}") };
            assert!(error.contains(expected), "{imap}: {error}");
        }
    }
}
