//! What applying a plan tells the operator to do for a step that Sternpost does not carry out.

use formats::DomainName;
use receiver::domain::{DomainSpec, HostedBy};
use receiver::publish::{Change, alias_lines, own_host_lines};
use receiver::rollout::desired::{DesiredState, PolicyHostAt};
use receiver::rollout::plan::Step;

/// What the operator has to do for a step, indented. `challenge` is the alias for challenges in DNS, if the domain is delegated.
pub(super) fn instruction(
    spec: &DomainSpec,
    desired: &DesiredState,
    challenge: &[(DomainName, DomainName)],
    step: &Step,
) -> String {
    let indent = |text: &str| text.lines().map(|line| format!("      {line}\n")).collect::<String>();
    if let Ok(Some(change)) = Change::of(desired, step) {
        let lines = change.lines();
        if lines.is_empty() {
            return format!("    Remove the TXT record {} that begins with v=STSv1.", change.name);
        }
        return format!(
            "    Publish this in the zone of {}:\n{}    or in a DNS provider's web form:\n{}",
            spec.name,
            indent(&lines.join("\n")),
            indent(&change.panel())
        );
    }
    match step {
        Step::PointPolicyHost(PolicyHostAt::Operator) => format!(
            "    Publish one of these in the zone of {}, with the address of the server that will serve the policy:\n{}",
            spec.name,
            indent(&own_host_lines(&spec.name).join("\n"))
        ),
        Step::Serve(policy) => {
            let how = match spec.host {
                HostedBy::Static => {
                    format!(" `sternpost export --for PLATFORM DIR --domain {}` writes the files.", spec.name)
                }
                _ => String::new(),
            };
            format!(
                "    Serve this at https://mta-sts.{}/.well-known/mta-sts.txt:\n{}   {how}",
                spec.name,
                indent(&policy.to_string())
            )
        }
        Step::Delegate(aliases) => format!(
            "    The owner of {} publishes this in its zone, once:\n{}",
            spec.name,
            indent(&alias_lines(&[aliases, challenge].concat()).join("\n"))
        ),
        Step::TakeDown => "    Remove the policy file and the name mta-sts from DNS.".to_owned(),
        _ => "    Do this yourself: Sternpost never changes MX records.".to_owned(),
    }
}
