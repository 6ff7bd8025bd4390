//! Parses `user:group` for the owner of a Unix socket. Names are looked up in the system's user and group databases.

use nix::unistd::{Group, User};

/// The user and group ID of `user:group`; each part is a name or a number.
///
/// # Errors
///
/// A description of the unknown user or group, or of the missing colon.
pub fn numbers(text: &str) -> Result<(u32, u32), String> {
    let (user, group) =
        text.split_once(':').ok_or_else(|| format!("{text:?} has no `:` between user and group"))?;
    let user_number = user.parse().ok().or_else(|| Some(User::from_name(user).ok()??.uid.as_raw()));
    let group_number = group.parse().ok().or_else(|| Some(Group::from_name(group).ok()??.gid.as_raw()));
    Ok((
        user_number.ok_or_else(|| format!("unknown user {user:?}"))?,
        group_number.ok_or_else(|| format!("unknown group {group:?}"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_accepted() {
        assert_eq!(numbers("root:0"), Ok((0, 0)));
        assert_eq!(numbers("12:root"), Ok((12, 0)));
        assert!(numbers("nobody-of-that-name:0").unwrap_err().contains("unknown user"));
        assert!(numbers("root").is_err());
    }
}
