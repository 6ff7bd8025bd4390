//! Invitations: one-time links to set a password, for new users and for those who forgot theirs. `sternpost dashboard
//! invite` and the settings page create them, `welcome` accepts them. A name has at most one, so that a new link ends
//! the earlier one.

use crate::auth::{digest, random_token};
use crate::tenant_path;
use crate::visitor::Role;
use config::failure::Failure;
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use operations::store_failure;
use store::Store;
use store::people::Invitation;
use store::tenants::TenantInfo;

/// The lifetime of an invitation.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// The maximum length of a user name, in characters.
pub const MAX_NAME_CHARS: usize = 40;

/// A new invitation, with its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInvitation {
    /// The invitation as it is stored.
    pub invitation: Invitation,
    /// The role that the link grants.
    pub role: Role,
    /// The present role of the user; `None` for a new user.
    pub present_role: Option<Role>,
    /// The path of the link below `dashboard.url`.
    pub path: String,
}

impl NewInvitation {
    /// What the link grants, in one sentence with the words of `named` for roles.
    pub fn grants(&self, named: fn(Role) -> &'static str) -> String {
        let (name, role) = (&self.invitation.name, named(self.role));
        match self.present_role {
            None => format!("The link creates the user {name} with the role {role}."),
            Some(present) if present == self.role => {
                format!("The link sets a new password for {name}, whose role stays {role}.")
            }
            Some(present) => format!(
                "The link sets a new password for {name}, and changes the role from {} to {role}.",
                named(present)
            ),
        }
    }

    /// When the link expires, and that an earlier link has ended, in two sentences.
    pub fn validity(&self) -> String {
        format!(
            "It is valid until {} UTC, and can be used once. An earlier link for {} is no longer valid.",
            crate::text::minute(&self.invitation.expires_at),
            self.invitation.name
        )
    }
}

/// Why a user can't have this name; `None` if it is valid.
pub fn problem_with_name(name: &str) -> Option<&'static str> {
    let is_valid = (1..=MAX_NAME_CHARS).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    (!is_valid).then_some("a user name has 1 to 40 letters, digits, dots, underscores or hyphens")
}

/// Creates an invitation, which ends an earlier one for the same name. Without a role, an existing user keeps theirs.
///
/// # Errors
///
/// If the user name is not valid, no role is given for a new user although there are users already, or the store or the
/// random number generator fails.
pub async fn invite(
    store: &Store,
    of: &TenantInfo,
    now: Timestamp,
    name: &str,
    role: Option<Role>,
) -> Result<NewInvitation, Failure> {
    if let Some(why) = problem_with_name(name) {
        return Err(Failure::usage(
            format!("{name:?} is not a valid user name"),
            why,
            "Choose another name.",
        ));
    }
    let fail = |error| store_failure(&error);
    let tenant = of.tenant;
    let present_role =
        store.person(tenant, name).await.map_err(fail)?.map(|person| Role::parse(&person.role));
    let role = match role.or(present_role) {
        Some(role) => role,
        None if store.people(tenant).await.map_err(fail)?.is_empty() => Role::Operator,
        None => {
            return Err(Failure::usage(
                format!("no invitation for {name} is created"),
                "there is no such user yet, and no role is given",
                format!(
                    "Give the role of the new user:\n  sternpost dashboard invite {name} --role reader\n  sternpost dashboard invite {name} --role operator"
                ),
            ));
        }
    };
    let token = random_token()?;
    let invitation = Invitation {
        tenant,
        name: name.to_owned(),
        role: role.as_str().to_owned(),
        expires_at: later(now, LIFETIME),
    };
    store.put_invitation(&digest(&token), &invitation, now).await.map_err(fail)?;
    Ok(NewInvitation {
        invitation,
        role,
        present_role,
        path: format!("{}/welcome/{token}", tenant_path::prefix(of)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tenant;
    use store::people::Person;

    async fn place() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db"), Tenant::FIRST).await.unwrap();
        (folder, store)
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    async fn created(store: &Store, name: &str, role: Option<Role>) -> Result<NewInvitation, Failure> {
        invite(store, &TenantInfo::main(), NOW, name, role).await
    }

    /// The role that a user has after using the link.
    async fn role_after(store: &Store, new: &NewInvitation) -> String {
        let token = new.path.strip_prefix("/welcome/").unwrap();
        let found = store.invitation(&digest(token), NOW).await.unwrap().unwrap();
        let person = Person { name: found.name, role: found.role, password: "p".to_owned() };
        assert!(store.accept(&digest(token), Tenant::FIRST, &person, NOW).await.unwrap());
        store.person(Tenant::FIRST, &person.name).await.unwrap().unwrap().role
    }

    #[tokio::test]
    async fn a_link_for_a_forgotten_password_keeps_the_role() {
        let (_folder, store) = place().await;
        let first = created(&store, "ada", None).await.unwrap();
        assert_eq!((role_after(&store, &first).await.as_str(), first.present_role), ("operator", None));
        let bob = created(&store, "bob", Some(Role::Reader)).await.unwrap();
        assert_eq!(bob.grants(Role::as_str), "The link creates the user bob with the role reader.");
        assert_eq!(role_after(&store, &bob).await, "reader");
        let forgotten = created(&store, "bob", None).await.unwrap();
        assert_eq!(
            forgotten.grants(Role::as_str),
            "The link sets a new password for bob, whose role stays reader."
        );
        assert!(forgotten.validity().starts_with("It is valid until 2 Jan 1970, 00:00 UTC,"));
        assert_eq!(role_after(&store, &forgotten).await, "reader");
        let raised = created(&store, "bob", Some(Role::Operator)).await.unwrap();
        assert!(
            raised.grants(Role::as_str).ends_with("changes the role from reader to operator."),
            "{}",
            raised.grants(Role::as_str)
        );
        assert_eq!(role_after(&store, &raised).await, "operator");
    }

    #[tokio::test]
    async fn a_new_user_needs_a_role_unless_they_are_the_first() {
        let (_folder, store) = place().await;
        let first = created(&store, "ada", None).await.unwrap();
        role_after(&store, &first).await;
        let refused = created(&store, "zoe", None).await.unwrap_err();
        assert!(refused.to_string().contains("--role reader"), "{refused}");
        assert_eq!(store.invitations(Tenant::FIRST, NOW).await.unwrap(), []);
        for name in ["", "a b", "a\nb", "a=b", &"x".repeat(41)] {
            assert!(created(&store, name, Some(Role::Reader)).await.is_err(), "{name:?}");
        }
    }
}
