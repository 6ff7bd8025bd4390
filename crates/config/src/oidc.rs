//! `[dashboard.oidc]`: the OpenID Connect provider whose users may sign in to the dashboard, and which of their groups have
//! which role.

use crate::failure::Failure;
use crate::read::Read;
use std::path::{Path, PathBuf};

/// `[dashboard.oidc]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// The issuer identifier, exactly as the provider writes it in tokens.
    pub issuer: String,
    /// The client identifier.
    pub client_id: String,
    /// The file with the client secret; `None` for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// The provider's name on the sign-in page.
    pub name: String,
    /// The groups whose members are operators.
    pub operator_groups: Vec<String>,
    /// The groups whose members are readers.
    pub reader_groups: Vec<String>,
    /// The claim that lists the user's groups.
    pub groups_claim: String,
    /// The claim that the user name is taken from.
    pub name_claim: String,
    /// The scopes to request; `openid` is one of them.
    pub scopes: Vec<String>,
}

/// Reads the section; `None` without an issuer.
pub fn oidc(read: &Read, folder: &Path) -> Result<Option<OidcConfig>, Failure> {
    let text = |key: &str| read.text(&format!("dashboard.oidc.{key}")).map(str::to_owned);
    let list =
        |key: &str| read.list(&format!("dashboard.oidc.{key}")).into_iter().map(str::to_owned).collect();
    let (operator_groups, reader_groups): (Vec<String>, Vec<String>) =
        (list("operator_groups"), list("reader_groups"));
    let (issuer, client_id) = match (text("issuer"), text("client_id")) {
        (Some(issuer), Some(client_id)) => (issuer, client_id),
        (None, None) if !is_set(read) => return Ok(None),
        (issuer, _) => {
            let missing = if issuer.is_none() { "issuer" } else { "client_id" };
            return Err(Failure::usage(
                format!("[dashboard.oidc] has no {missing}"),
                "without it, nobody can sign in by the provider",
                "Register the dashboard at the provider, and set both:\n  [dashboard.oidc]\n  issuer = \"https://id.example.org\"\n  client_id = \"sternpost\"",
            ));
        }
    };
    if operator_groups.is_empty() && reader_groups.is_empty() {
        return Err(Failure::usage(
            "[dashboard.oidc] lists no groups",
            "a user of the provider gets a role by a group, so that nobody could sign in",
            "Name the groups of your operators, of your readers, or both:\n  operator_groups = [\"mail-admins\"]\n  reader_groups = [\"support\"]",
        ));
    }
    let mut scopes: Vec<String> = text("scopes")
        .unwrap_or_else(|| "openid profile".to_owned())
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    Ok(Some(OidcConfig {
        issuer,
        client_id,
        client_secret_file: read.text("dashboard.oidc.client_secret_file").map(|file| folder.join(file)),
        name: text("name").unwrap_or_else(|| "single sign-on".to_owned()),
        operator_groups,
        reader_groups,
        groups_claim: text("groups_claim").unwrap_or_else(|| "groups".to_owned()),
        name_claim: text("name_claim").unwrap_or_else(|| "preferred_username".to_owned()),
        scopes,
    }))
}

/// Whether a key is set that has a meaning only together with `issuer`.
fn is_set(read: &Read) -> bool {
    let has = |key: &str| read.value(&format!("dashboard.oidc.{key}")).is_some();
    let lists = |key: &str| !read.list(&format!("dashboard.oidc.{key}")).is_empty();
    has("client_secret_file") || lists("operator_groups") || lists("reader_groups")
}

#[cfg(test)]
mod tests {
    use crate::Config;

    fn parsed(section: &str) -> Result<Config, String> {
        Config::parse(&format!("[dashboard]\n[dashboard.oidc]\n{section}"), None)
            .map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn a_provider_needs_issuer_client_and_groups() {
        let whole =
            "issuer = \"https://id.example/realms/a\"\nclient_id = \"s\"\noperator_groups = [\"ops\"]\n";
        let oidc = parsed(whole).unwrap().dashboard.unwrap().oidc.unwrap();
        assert_eq!(oidc.issuer, "https://id.example/realms/a");
        assert_eq!((oidc.operator_groups, oidc.reader_groups), (vec!["ops".to_owned()], vec![]));
        assert_eq!(oidc.scopes, ["openid", "profile"]);
        for (line, why) in [
            ("issuer = \"https://id.example/realms/a\"\n", "has no issuer"),
            ("client_id = \"s\"\n", "has no client_id"),
            ("operator_groups = [\"ops\"]\n", "lists no groups"),
        ] {
            let error = parsed(&whole.replace(line, "")).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let error = parsed(&whole.replace("https://", "http://")).unwrap_err();
        assert!(error.contains("https://"), "{error}");
        let error = parsed(&whole.replace("[\"ops\"]", "[\"\"]")).unwrap_err();
        assert!(error.contains("empty string"), "{error}");
        assert!(Config::parse("[dashboard]\n", None).unwrap().dashboard.unwrap().oidc.is_none());
    }

    #[test]
    fn the_scope_openid_is_always_requested() {
        let section = "issuer = \"https://id.example\"\nclient_id = \"s\"\nreader_groups = [\"r\"]\nscopes = \"groups email\"\n";
        let oidc = parsed(section).unwrap().dashboard.unwrap().oidc.unwrap();
        assert_eq!(oidc.scopes, ["openid", "groups", "email"]);
    }
}
