//! The files that hold secrets: keys, passwords and tokens that the configuration names, and the store. Other users of the
//! machine must not be able to read them; [`Config::exposed_secrets`] finds those that they can.

use crate::config::Config;
use crate::keys::KEYS;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use toml::Value;

/// A file with a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The configuration key or table member that names the file.
    pub key: String,
    /// The path of the file.
    pub file: PathBuf,
    /// The file's permission bits, 0 to 0o777.
    pub mode: u32,
}

/// Permission bits of users that are neither the owner nor in the group.
const OTHERS: u32 = 0o007;

impl Config {
    /// Every file with a secret that the configuration names, and the store, each with the key that names it.
    pub fn secret_files(&self) -> Vec<(String, PathBuf)> {
        let mut named = Vec::new();
        for key in KEYS {
            if let Some(value) = self.read.value(key.path) {
                collect(key.path, value, &mut named);
            }
        }
        let folder =
            self.file.as_deref().and_then(std::path::Path::parent).map(PathBuf::from).unwrap_or_default();
        let mut files: Vec<(String, PathBuf)> =
            named.into_iter().map(|(key, file)| (key, folder.join(file))).collect();
        files.extend(self.store.file().map(|file| ("store".to_owned(), file.to_owned())));
        files
    }

    /// Every existing file with a secret whose permissions let all users of the machine read or change it.
    pub fn exposed_secrets(&self) -> Vec<Secret> {
        let exposed = self.secret_files().into_iter().filter_map(|(key, file)| {
            let mode = std::fs::metadata(&file).ok()?.permissions().mode() & 0o777;
            (mode & OTHERS != 0).then_some(Secret { key, file, mode })
        });
        exposed.collect()
    }
}

/// True for keys and members whose value is the path of a file with a secret: all that end in `_file`, apart from
/// certificates and policies, and `key` beside `certificate`.
fn is_secret(name: &str) -> bool {
    name == "key" || name.ends_with("_file") && !["ca_file", "policy_file"].contains(&name)
}

/// Collects the paths of secrets in a value, with the keys that name them.
fn collect(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
    let name = path.rsplit('.').next().unwrap_or(path);
    match value {
        Value::String(file) if is_secret(name) => found.push((path.to_owned(), file.clone())),
        Value::Table(members) => {
            for (member, value) in members {
                collect(&format!("{path}.{member}"), value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(path, item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use std::fs::Permissions;

    #[test]
    fn a_secret_that_all_users_can_read_or_change_is_found_wherever_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            "admin.token",
            "vault.key",
            "eab.key",
            "eab2.key",
            "tsig.key",
            "cloudflare.key",
            "dkim.pem",
            "smtp.pw",
            "alert.pw",
            "policy.pem",
            "inbox.pem",
            "web.pem",
            "store.db",
            "imap.token",
        ];
        for file in files {
            std::fs::write(dir.path().join(file), "secret\n").unwrap();
        }
        std::fs::write(dir.path().join("cert.pem"), "public\n").unwrap();
        let text = "store = \"sqlite:store.db\"\n[admin]\ntoken_file = \"admin.token\"\n\
            [host]\nkey_file = \"vault.key\"\n[host.acme]\ndirectory = \"https://ca.example/\"\nkey_id = \"k\"\nkey_file = \"eab.key\"\n\
            [[host.acme.then]]\ndirectory = \"https://ca.example/2\"\nkey_id = \"k\"\nkey_file = \"eab2.key\"\n\
            [[host.certificates]]\ncertificate = \"cert.pem\"\nkey = \"policy.pem\"\n\
            [[rfc2136]]\nname = \"n\"\nserver = \"192.0.2.1:53\"\nkey_name = \"k\"\nkey_file = \"tsig.key\"\n\
            [[provider]]\nname = \"n\"\nservice = \"cloudflare\"\nkey_file = \"cloudflare.key\"\n\
            [reporter]\nfrom = \"a@b.example\"\ndkim = { selector = \"s\", key_file = \"dkim.pem\" }\ndeliver = \"smarthost:mail.example:587\"\nuser = \"u\"\npassword_file = \"smtp.pw\"\n\
            [guard]\nmail = [\"a@b.example\"]\nmail_from = \"a@b.example\"\nmail_deliver = \"smarthost:mail.example:587\"\nmail_user = \"u\"\nmail_password_file = \"alert.pw\"\n\
            [inbox]\ncertificate = \"cert.pem\"\nkey = \"inbox.pem\"\n[dashboard]\ncertificate = \"cert.pem\"\nkey = \"web.pem\"\n";
        #[cfg(feature = "imap")]
        let text = format!(
            "{text}[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"\noauth = {{ token_file = \"imap.token\" }}\n"
        );
        let parsed = || Config::parse(&text, Some(dir.path().join("s.toml"))).unwrap();
        let set = |mode: u32| {
            for file in files {
                std::fs::set_permissions(dir.path().join(file), Permissions::from_mode(mode)).unwrap();
            }
        };
        let expected = if cfg!(feature = "imap") { files.len() } else { files.len() - 1 };
        for (mode, count) in [(0o600, 0), (0o640, 0), (0o644, expected), (0o602, expected), (0o604, expected)]
        {
            set(mode);
            let found = parsed().exposed_secrets();
            assert_eq!(found.len(), count, "{mode:o}: {found:?}");
        }
        let token = &parsed().exposed_secrets()[..];
        assert!(token.iter().any(|secret| secret.key == "admin.token_file" && secret.mode == 0o604));
    }

    /// A new key for a file has to be placed in one of the two lists.
    #[test]
    fn every_key_for_a_file_is_a_secret_or_known_to_be_none() {
        let public = [
            "dns.trust_anchor",
            "trust.ca_file",
            "host.acme.ca_file",
            "dashboard.certificate",
            "inbox.certificate",
            "admin.certificate",
            "collector.certificate",
            "answers.control",
            "state_folder",
        ];
        for key in KEYS.iter().filter(|key| key.kind == Kind::File) {
            let name = key.path.rsplit('.').next().unwrap();
            assert_ne!(is_secret(name), public.contains(&key.path), "{}", key.path);
        }
    }
}
