//! Parses `user:group` for the owner of a Unix socket. Names are looked up in /etc/passwd and /etc/group. The system's
//! functions for that (`getpwnam`, `getgrnam`) are not used: in a static program they would load modules of another C library.

/// The user and group ID of `user:group`; each part is a name or a number.
///
/// # Errors
///
/// A description of the unknown user or group, or of the missing colon.
pub fn numbers(text: &str) -> Result<(u32, u32), String> {
    let (user, group) =
        text.split_once(':').ok_or_else(|| format!("{text:?} has no `:` between user and group"))?;
    Ok((number("user", user, "/etc/passwd")?, number("group", group, "/etc/group")?))
}

fn number(kind: &str, name: &str, file: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let table = std::fs::read(file).map_err(|error| format!("{file} can't be read: {error}"))?;
    find(&String::from_utf8_lossy(&table), name)
        .ok_or_else(|| format!("unknown {kind} {name:?}: it is not in {file} (a number is accepted too)"))
}

/// The name of a user; `None` if /etc/passwd has none.
pub fn user_name(id: u32) -> Option<String> {
    name_of(&String::from_utf8_lossy(&std::fs::read("/etc/passwd").ok()?), id)
}

fn name_of(table: &str, id: u32) -> Option<String> {
    let id = id.to_string();
    table.lines().find(|line| line.split(':').nth(2) == Some(&id))?.split(':').next().map(str::to_owned)
}

/// The ID of a name in a table whose lines begin with `name:password:ID` (passwd(5), group(5)).
fn find(table: &str, name: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_named = fields.next() == Some(name);
        fields.nth(1).filter(|_| is_named)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_accepted() {
        assert_eq!(numbers("root:0"), Ok((0, 0)));
        assert_eq!(numbers("12:root"), Ok((12, 0)));
        assert!(numbers("nobody-of-that-name:0").unwrap_err().contains("unknown user"));
        assert!(numbers("0:nobody-of-that-name").unwrap_err().contains("unknown group"));
        assert!(numbers("root").is_err());
    }

    #[test]
    fn a_table_gives_the_number_of_exactly_this_name() {
        let table = "postfix2:x:1:1\n# postfix:x:2:\npostfix:x:112:115::/var/spool/postfix:/bin/false\nbad:x\nodd:x:-1:\n+\n";
        assert_eq!(find(table, "postfix"), Some(112));
        assert_eq!(find(table, "postfix2"), Some(1));
        assert_eq!(name_of(table, 112).as_deref(), Some("postfix"));
        assert_eq!((name_of(table, 11), user_name(0).as_deref()), (None, Some("root")));
        for name in ["bad", "odd", "", "post", "+"] {
            assert_eq!(find(table, name), None, "{name}");
        }
    }
}
