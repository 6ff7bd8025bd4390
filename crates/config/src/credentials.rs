//! `$CREDENTIALS_DIRECTORY` in paths: the folder with the files that systemd hands to the service (`LoadCredential=` in the
//! unit), such as a certificate that only root can read. The reader replaces it in every value that begins with it, in keys
//! and in members of tables. Commands that run outside of the unit find the same folder while the service runs.

use std::path::Path;
use toml::Value;

/// The prefix of a path in the credentials folder.
const PREFIX: &str = "$CREDENTIALS_DIRECTORY/";

/// The folder of the packaged unit, where systemd does not say which it is: for commands outside of the unit.
pub const UNIT_FOLDER: &str = "/run/credentials/sternpost.service";

/// Replaces the variable in a value, and in the members of tables and lists.
pub fn expanded(value: Value, folder: &Path) -> Value {
    match value {
        Value::String(text) => Value::String(match text.strip_prefix(PREFIX) {
            Some(rest) => folder.join(rest).display().to_string(),
            None => text,
        }),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| expanded(item, folder)).collect()),
        Value::Table(members) => {
            Value::Table(members.into_iter().map(|(name, value)| (name, expanded(value, folder))).collect())
        }
        other => other,
    }
}

/// Why a path can't be meant as it is written; `None` if it can.
pub fn misunderstanding(path: &str) -> Option<String> {
    let is_specifier = path.starts_with("%d/");
    let is_other_variable = path.starts_with('$') && !path.starts_with(PREFIX);
    let what = format!("{path:?} begins with a variable that is not replaced");
    (is_specifier || is_other_variable).then_some(what)
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use crate::environment::Environment;
    use std::path::Path;

    fn config(text: &str, variables: &[(&str, &str)]) -> Config {
        let environment = Environment::of(variables.iter().map(|(name, value)| (*name, *value)));
        Config::parse_with(text, Some("/etc/sternpost/s.toml".into()), &environment).unwrap()
    }

    #[test]
    fn credentials_of_the_unit_are_found_in_every_key_that_names_a_file() {
        let text = "[host]\nkey_file = \"$CREDENTIALS_DIRECTORY/host.key\"\n\
            [[host.certificates]]\ncertificate = \"$CREDENTIALS_DIRECTORY/cert.pem\"\nkey = \"$CREDENTIALS_DIRECTORY/key.pem\"\n\
            [admin]\ntoken_file = \"$CREDENTIALS_DIRECTORY/token\"\n\
            [[rfc2136]]\nname = \"n\"\nserver = \"192.0.2.1:53\"\nkey_name = \"k\"\nkey_file = \"$CREDENTIALS_DIRECTORY/tsig\"\n\
            [reporter]\nfrom = \"a@b.example\"\ndkim = { selector = \"s\", key_file = \"$CREDENTIALS_DIRECTORY/dkim\" }\n\
            [dashboard]\ncertificate = \"$CREDENTIALS_DIRECTORY/web.pem\"\nkey = \"relative.pem\"\n";
        for (variables, folder) in [
            (
                &[("CREDENTIALS_DIRECTORY", "/run/credentials/other.service")][..],
                "/run/credentials/other.service",
            ),
            (&[], "/run/credentials/sternpost.service"),
            (&[("CREDENTIALS_DIRECTORY", "")], "/run/credentials/sternpost.service"),
        ] {
            let config = config(text, variables);
            let in_folder = |file: &Path, name: &str| assert_eq!(file, Path::new(folder).join(name));
            let host = config.host.as_ref().unwrap();
            in_folder(host.key_file.as_deref().unwrap(), "host.key");
            in_folder(&host.certificates[0].certificate, "cert.pem");
            in_folder(&host.certificates[0].key, "key.pem");
            in_folder(config.admin.as_ref().unwrap().token_file.as_ref().unwrap(), "token");
            in_folder(&config.updates[0].key_file, "tsig");
            in_folder(&config.reporter.as_ref().unwrap().keys[0].key_file, "dkim");
            let web = config.dashboard.as_ref().unwrap().certificate.as_ref().unwrap();
            in_folder(&web.certificate, "web.pem");
            assert_eq!(web.key, Path::new("/etc/sternpost/relative.pem"));
        }
    }

    #[test]
    fn another_variable_in_a_path_is_an_error_and_a_dollar_elsewhere_is_none() {
        for path in ["$STATE_DIRECTORY/token", "%d/token", "$CREDENTIALS_DIRECTORY"] {
            let text = format!("[admin]\ntoken_file = \"{path}\"\n");
            let error = Config::parse(&text, None).unwrap_err().to_string();
            assert!(error.contains("not replaced") && error.contains("$CREDENTIALS_DIRECTORY/"), "{error}");
        }
        assert!(Config::parse("[admin]\ntoken_file = \"a$b\"\n", None).is_ok());
    }
}
