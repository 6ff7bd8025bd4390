//! Registered domains by the Public Suffix List: `example.co.uk` for `mail.example.co.uk`. Two names with the same registered
//! domain belong to one organization, which is what the DKIM alignment of TLS reports needs (RFC 8460 §3).
//!
//! The list is compiled in, from the crate `psl`. This crate is its only user, because every crate that calls `psl`
//! compiles the whole list again.

/// The registered domain of `name`: its public suffix and one label more. `None` for a public suffix itself.
pub fn registered_domain(name: &str) -> Option<&str> {
    psl::domain_str(name)
}

/// The domain that somebody had to register to use `name`. Unlike [`registered_domain`], names below a private suffix such
/// as `duckdns.org` or `github.io` belong to the owner of the suffix: everybody gets as many of them as they like. A name
/// that is no part of a registered domain is returned unchanged.
pub fn independent_domain(name: &str) -> &str {
    let is_private = |name: &str| {
        psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.typ() == Some(psl::Type::Private))
    };
    if !is_private(name) {
        return registered_domain(name).unwrap_or(name);
    }
    let mut rest = name;
    while let Some((_, parent)) = rest.split_once('.') {
        let is_suffix = psl::suffix(parent.as_bytes()).is_some_and(|suffix| suffix == parent);
        if is_suffix && !is_private(parent) {
            return rest;
        }
        rest = parent;
    }
    name
}

/// True for a name below which anyone can register a domain, such as `co.uk`.
pub fn is_public_suffix(name: &str) -> bool {
    psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known() && suffix == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_domain_is_one_label_below_a_public_suffix() {
        assert_eq!(registered_domain("mail.example.co.uk"), Some("example.co.uk"));
        assert_eq!(registered_domain("example.co.uk"), Some("example.co.uk"));
        assert_eq!(registered_domain("co.uk"), None);
        assert_eq!(registered_domain("a.b.victim.github.io"), Some("victim.github.io"));
        for (name, domain) in [
            ("mail.example.co.uk", "example.co.uk"),
            ("big.example", "big.example"),
            ("mail.big.example", "big.example"),
            ("a.victim.github.io", "github.io"),
            ("one.duckdns.org", "duckdns.org"),
            ("duckdns.org", "duckdns.org"),
            ("x.s3.amazonaws.com", "amazonaws.com"),
            ("co.uk", "co.uk"),
            ("unknown", "unknown"),
            ("", ""),
        ] {
            assert_eq!(independent_domain(name), domain, "{name}");
        }
        assert!(is_public_suffix("co.uk") && is_public_suffix("github.io"));
        assert!(!is_public_suffix("example.co.uk") && !is_public_suffix("localhost"));
    }
}
