//! What a report says under each policy, for a terminal; of reports that came in, of ours, and of previews alike.

use crate::terminal::marks;
use formats::report::PolicyReport;
use std::fmt::Write;

/// What others wrote, fit for a terminal: no control characters.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The outcome under each policy.
pub fn policies_in_words(policies: &[PolicyReport]) -> String {
    let mut out = String::new();
    for policy in policies {
        let domain = policy.policy_domain.as_ref().map_or("an unnamed domain", |name| name.as_str());
        let _ = writeln!(
            out,
            "\n{} under {}: {} sessions worked, {} failed",
            domain, policy.policy_type, policy.successful, policy.failed
        );
        policy.policy_string.iter().take(100).for_each(|line| {
            let _ = writeln!(out, "    {}", shown(line));
        });
        for detail in policy.details.iter().take(100) {
            let host = detail.receiving_mx_hostname.as_deref().unwrap_or("an unnamed host");
            let address = detail.receiving_ip.map(|ip| format!(" ({ip})")).unwrap_or_default();
            let _ = writeln!(
                out,
                "  {} {} times {} at {}{address}",
                marks().error,
                detail.failed_session_count,
                shown(&detail.result_type.to_string()),
                shown(host)
            );
            for more in [&detail.additional_information, &detail.failure_reason_code].into_iter().flatten() {
                let _ = writeln!(out, "      {}", shown(more));
            }
        }
        if policy.details.len() > 100 {
            let _ = writeln!(out, "  … and {} details more (--json has all)", policy.details.len() - 100);
        }
    }
    out
}
