//! Users and groups, by name or number.

use nix::unistd::{Group, User};

/// The numbers of `user:group`.
pub fn numbers(text: &str) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').ok_or_else(|| format!("{text:?} has no `:`"))?;
    let user_number = user.parse().ok().or_else(|| Some(User::from_name(user).ok()??.uid.as_raw()));
    let group_number = group.parse().ok().or_else(|| Some(Group::from_name(group).ok()??.gid.as_raw()));
    Ok((
        user_number.ok_or_else(|| format!("there is no user {user:?} on this machine"))?,
        group_number.ok_or_else(|| format!("there is no group {group:?} on this machine"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_taken() {
        assert_eq!(numbers("root:0"), Ok((0, 0)));
        assert_eq!(numbers("12:root"), Ok((12, 0)));
        assert!(numbers("nobody-of-that-name:0").unwrap_err().contains("no user"));
        assert!(numbers("root").is_err());
    }
}
