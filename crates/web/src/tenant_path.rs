//! The tenant in paths: `/t/NAME/reports` is a page of the tenant NAME, and `/reports` and `/t/main/reports` are one of the first
//! tenant. Routes, templates and redirects do not name the tenant: `base_path` takes the prefix off each request and adds it to
//! each response, so that a page's links stay in its tenant.

use store::Tenant;
use store::tenants::TenantInfo;

/// What the prefix begins with.
const MARKER: &str = "/t/";

/// The prefix of links to a tenant, for links that are not part of a page; empty for the first tenant.
pub fn prefix(tenant: &TenantInfo) -> String {
    match tenant.tenant {
        Tenant::FIRST => String::new(),
        _ => format!("{MARKER}{}", tenant.name),
    }
}

/// The name in a path, and the prefix with it; `None` for a path without a prefix.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let name = path.strip_prefix(MARKER)?.split('/').next()?;
    Some((name, path.get(..MARKER.len() + name.len())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_tenant_or_none() {
        for (path, expected) in [
            ("/reports", None),
            ("/t/main/reports", Some(("main", "/t/main"))),
            ("/t/main", Some(("main", "/t/main"))),
            ("/t/second/", Some(("second", "/t/second"))),
            ("/t/", Some(("", "/t/"))),
            ("/reports/t/second", None),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
        assert_eq!(prefix(&TenantInfo::main()), "");
    }
}
