//! The tenant in paths: `/t/NAME/reports` is a page of the tenant NAME, and `/reports` is one of the first tenant, which is the
//! only one so far. Routes, templates and redirects do not name the tenant: `base_path` takes the prefix off each request and
//! adds it to each response, so that a page's links stay in its tenant. A further tenant needs an entry in [`TENANTS`] alone.

use store::Tenant;

/// What the prefix begins with.
const MARKER: &str = "/t/";

/// The tenants by their names in paths.
const TENANTS: &[(&str, Tenant)] = &[
    ("main", Tenant::FIRST),
    // Shows what a further tenant needs.
    #[cfg(test)]
    ("second", Tenant::numbered(2)),
];

/// The prefix of links to a tenant, for links that are not part of a page; empty for the first tenant.
pub fn prefix(tenant: Tenant) -> String {
    let found = TENANTS.iter().find(|(_, one)| *one == tenant && tenant != Tenant::FIRST);
    found.map_or_else(String::new, |(name, _)| format!("{MARKER}{name}"))
}

/// The tenant of a path and the prefix that names it. An unknown name is no prefix, so that its path is not found.
pub fn split(path: &str) -> (Tenant, &str) {
    let name = path.strip_prefix(MARKER).and_then(|rest| rest.split('/').next());
    let known = name.and_then(|name| TENANTS.iter().find(|(one, _)| *one == name));
    let found = known.and_then(|(name, tenant)| Some((*tenant, path.get(..MARKER.len() + name.len())?)));
    found.unwrap_or((Tenant::FIRST, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_tenant_or_is_of_the_first() {
        let second = Tenant::numbered(2);
        for (path, expected) in [
            ("/reports", (Tenant::FIRST, "")),
            ("/t/main/reports", (Tenant::FIRST, "/t/main")),
            ("/t/main", (Tenant::FIRST, "/t/main")),
            ("/t/second/", (second, "/t/second")),
            ("/t/mains/reports", (Tenant::FIRST, "")),
            ("/t/", (Tenant::FIRST, "")),
            ("/reports/t/second", (Tenant::FIRST, "")),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
        assert_eq!((prefix(Tenant::FIRST).as_str(), split(&prefix(second)).0), ("", second));
    }
}
