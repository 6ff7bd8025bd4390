//! The results of a report by policy, as text for a terminal. Received reports, sent reports and previews use it.

use crate::terminal::marks;
use formats::counted::{count, counted};
use formats::report::PolicyReport;
use std::fmt::Write;

/// Replaces the control characters in text from outside, so that it is safe to print on a terminal.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Formats the results of each policy: sessions, policy text, and up to 100 failure details.
pub fn policies_in_words(policies: &[PolicyReport]) -> String {
    let mut out = String::new();
    for policy in policies {
        let domain = policy.policy_domain.as_ref().map_or("an unnamed domain", |name| name.as_str());
        let _ = writeln!(
            out,
            "\n{} under {}: {} succeeded, {} failed",
            domain,
            policy.policy_type,
            counted(policy.successful, "session"),
            count(policy.failed)
        );
        policy.policy_string.iter().take(100).for_each(|line| {
            let _ = writeln!(out, "    {}", shown(line));
        });
        for detail in policy.details.iter().take(100) {
            let host = detail.receiving_mx_hostname.as_deref().unwrap_or("an unnamed host");
            let address = detail.receiving_ip.map(|ip| format!(" ({ip})")).unwrap_or_default();
            let _ = writeln!(
                out,
                "  {} {} {} at {}{address}",
                marks().error,
                counted(detail.failed_session_count, "time"),
                shown(&detail.result_type.to_string()),
                shown(host)
            );
            for more in [&detail.additional_information, &detail.failure_reason_code].into_iter().flatten() {
                let _ = writeln!(out, "      {}", shown(more));
            }
        }
        if policy.details.len() > 100 {
            let _ = writeln!(out, "  … and {} more details (--json has all)", policy.details.len() - 100);
        }
    }
    out
}
