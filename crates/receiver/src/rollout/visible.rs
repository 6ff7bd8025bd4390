//! Decides whether a step is visible from outside: every name server and every address of the policy host shows its result.

use super::desired::{DesiredState, PolicyHostAt};
use super::observed::ObservedState;
use super::outside::summary;
use super::plan::Step;
use super::state::PublishedPolicy;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Mode, Policy};

/// Checks whether a step is visible; the error says what was observed instead, and what is expected.
pub(super) fn check_visible(desired: &DesiredState, step: &Step, seen: &ObservedState) -> Result<(), String> {
    check_value(desired, step, seen)?;
    let names: Vec<DomainName> = match step {
        Step::PointPolicyHost(_) => desired.domain.below("mta-sts").into_iter().collect(),
        Step::AskForReports(_) => desired.domain.below("_smtp._tls").into_iter().collect(),
        Step::Announce(_) | Step::Withdraw => desired.domain.below("_mta-sts").into_iter().collect(),
        Step::Delegate(aliases) => aliases.iter().map(|(name, _)| name.clone()).collect(),
        Step::AddMx(_) | Step::RemoveMx(_) => vec![desired.domain.clone()],
        // The addresses of the policy host are part of the value.
        Step::Serve(_) | Step::TakeDown => Vec::new(),
    };
    match names.iter().find_map(|name| seen.outside.missing(name).next()) {
        None => Ok(()),
        Some(view) => Err(format!(
            "the name server {} does not show {}: {}. Mend it, take it out of the zone and its delegation, or leave it out with `sternpost omit {} {}`",
            view.place(),
            view.name,
            view.fault.as_deref().unwrap_or_default(),
            desired.domain,
            view.server
        )),
    }
}

/// The fault of a policy host that Sternpost serves, if the fault ends without any action.
fn passing(desired: &DesiredState, seen: &ObservedState) -> Option<String> {
    let is_own = matches!(desired.policy_host, Some(PolicyHostAt::Alias(_) | PolicyHostAt::Addresses(_)));
    let error = seen.fetch_error.as_ref().filter(|_| is_own)?;
    if error.is_access_denied() {
        return Some(
            "the policy host has no certificate yet. `sternpost serve` orders it from the CA as soon as the name points to this server, usually within minutes; see its log if the order fails"
                .to_owned(),
        );
    }
    (error.is_unresolved() && seen.points_to(desired.policy_host.as_ref()?)).then(|| {
        "the name servers show the policy host's address, and the resolver has the earlier answer without it in its cache until its TTL is over. Nothing has to be changed".to_owned()
    })
}

/// Checks whether the servers that answer show the result of a step.
fn check_value(desired: &DesiredState, step: &Step, seen: &ObservedState) -> Result<(), String> {
    let served = |expected: &Policy| match (&seen.served, &seen.unserved) {
        (Some(policy), _) => {
            format!("a sender fetches {}; {} is expected", summary(policy), summary(expected))
        }
        (None, why) => {
            if let Some(passing) = passing(desired, seen) {
                return passing;
            }
            let omit = seen.outside.addresses.iter().any(|view| view.counts && view.fault.is_some());
            let hint = if omit {
                ". Mend it, take the address out of DNS, or leave it out with `sternpost omit`"
            } else {
                ""
            };
            format!("{}{hint}", why.as_deref().unwrap_or("no policy can be fetched"))
        }
    };
    // A record that exists is never called absent.
    let missing = |label: &str| match seen.unread(label) {
        Some(record) => record.to_string(),
        None => format!("there is no {label} record"),
    };
    let mx = || {
        let hosts: Vec<&str> = seen.mx.iter().map(DomainName::as_str).collect();
        format!("the MX hosts are {}", if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") })
    };
    let (is_visible, instead): (bool, String) = match step {
        Step::PointPolicyHost(place) => {
            let (names, addresses) = &seen.policy_host;
            let shown =
                names.iter().map(ToString::to_string).chain(addresses.iter().map(ToString::to_string));
            let shown = shown.collect::<Vec<_>>().join(", ");
            let shown = if shown.is_empty() { "nothing" } else { &shown };
            let expected = match place {
                PolicyHostAt::Alias(name) => name.to_string(),
                PolicyHostAt::Addresses(all) => {
                    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                }
                PolicyHostAt::Operator => "an address".to_owned(),
            };
            let instead = match &seen.policy_host_differs {
                Some(why) => format!("mta-sts points to {shown}, and {why}"),
                None => format!("mta-sts points to {shown}; {expected} is expected"),
            };
            (seen.points_to(place), instead)
        }
        Step::Serve(policy) => {
            let is_it = |served: &Policy| PublishedPolicy::from(served).is(policy);
            (seen.served.as_ref().is_some_and(is_it), served(policy))
        }
        Step::AskForReports(record) => {
            let list = |rua: &[Rua]| rua.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let instead = match seen.rua.is_empty() {
                true => missing("_smtp._tls"),
                false => {
                    format!("_smtp._tls has {}; {} is expected", list(&seen.rua), list(&record.rua))
                }
            };
            (seen.rua == record.rua, instead)
        }
        Step::Announce(id) => {
            let instead = match &seen.record {
                Some(other) => format!("_mta-sts has id {other}; {id} is expected"),
                None => missing("_mta-sts"),
            };
            (seen.record.as_ref() == Some(id), instead)
        }
        Step::Delegate(aliases) => {
            let missing: Vec<&str> = aliases
                .iter()
                .filter(|alias| !seen.aliases.contains(alias))
                .map(|(name, _)| name.as_str())
                .collect();
            let of_missing = |(name, _): &&(DomainName, String)| missing.contains(&name.as_str());
            let differ: Vec<String> = seen
                .differing_aliases
                .iter()
                .filter(of_missing)
                .map(|(name, why)| format!("; {name}: {why}"))
                .collect();
            let names = missing.join(", ");
            (missing.is_empty(), format!("{names} is not the expected CNAME{}", differ.concat()))
        }
        Step::AddMx(hosts) => (hosts.iter().all(|host| seen.mx.contains(host)), mx()),
        Step::RemoveMx(hosts) => (!hosts.iter().any(|host| seen.mx.contains(host)), mx()),
        Step::Withdraw => {
            // Records for other purposes stay.
            let unread = seen.unread("_mta-sts").filter(|record| record.is_meant);
            let is_gone = seen.record.is_none() && unread.is_none();
            let still = unread.map(ToString::to_string);
            (is_gone, still.unwrap_or("the record still exists".to_owned()))
        }
        Step::TakeDown => {
            let gone = seen.policies().all(|policy| policy.mode != Mode::None);
            (gone, "the file can still be fetched".to_owned())
        }
    };
    if is_visible { Ok(()) } else { Err(instead) }
}

#[cfg(test)]
mod tests {
    use super::super::observed::UnreadRecord;
    use super::super::outside::{AddressView, Outside};
    use super::*;
    use crate::domain::{DomainSpec, HostedBy};
    use formats::PolicyId;
    use formats::tlsrpt_record::TlsrptRecord;

    fn instead(step: &Step, seen: &ObservedState) -> String {
        let spec = DomainSpec::new(DomainName::parse("example.org").unwrap());
        check_visible(&spec.desired(None, None), step, seen).unwrap_err()
    }

    #[test]
    fn a_certificate_that_is_being_ordered_and_a_cached_absence_are_waited_for_and_not_mended() {
        use net::https::FetchError;
        let spec = DomainSpec {
            host: HostedBy::Sternpost,
            ..DomainSpec::new(DomainName::parse("example.org").unwrap())
        };
        let address: std::net::IpAddr = "192.0.2.1".parse().unwrap();
        let own = spec.desired(Some(PolicyHostAt::Addresses(vec![address])), None);
        let elsewhere = DesiredState { policy_host: Some(PolicyHostAt::Operator), ..own.clone() };
        let policy =
            Policy::new(Mode::Testing, 600, vec![formats::MxPattern::parse("mx.example.org").unwrap()]);
        let serve = Step::Serve(policy.unwrap());
        let seen = |error: FetchError| {
            let view = AddressView { address, shows: None, fault: Some(error.to_string()), counts: true };
            ObservedState {
                policy_host: (Vec::new(), vec![address]),
                unserved: Some(error.to_string()),
                fetch_error: Some(error),
                outside: Outside { addresses: vec![view], ..Outside::default() },
                ..ObservedState::default()
            }
        };
        let denied = seen(FetchError::Tls("received fatal alert: AccessDenied".to_owned()));
        let absence = net::dns::Absence { security: net::dns::Security::Insecure, ttl: None };
        let cached = seen(FetchError::Dns(net::dns::DnsError::NoSuchName(absence)));
        for (seen, expected) in [(&denied, "has no certificate yet"), (&cached, "in its cache")] {
            let text = check_visible(&own, &serve, seen).unwrap_err();
            assert!(text.contains(expected) && !text.contains("Mend"), "{text}");
            let text = check_visible(&elsewhere, &serve, seen).unwrap_err();
            assert!(text.contains("Mend it"), "{text}");
        }
        let down = check_visible(&own, &serve, &seen(FetchError::Status(500))).unwrap_err();
        assert!(down.contains("Mend it"), "{down}");
    }

    #[test]
    fn what_is_there_is_told_beside_what_is_expected_and_no_record_is_called_absent_that_exists() {
        let id = |text: &str| PolicyId::parse(text).unwrap();
        let announce = Step::Announce(id("20261127030406"));
        let mut seen = ObservedState::default();
        assert_eq!(instead(&announce, &seen), "there is no _mta-sts record");
        seen.record = Some(id("20261127030500"));
        assert_eq!(instead(&announce, &seen), "_mta-sts has id 20261127030500; 20261127030406 is expected");
        seen.record = None;
        seen.unread.push(UnreadRecord {
            label: "_mta-sts",
            text: "v=STSv1, id=20261127030406".to_owned(),
            why: "`;` is expected after v=STSv1".to_owned(),
            is_meant: true,
        });
        let unread = "_mta-sts has a record that can't be read: `v=STSv1, id=20261127030406`: `;` is expected after v=STSv1";
        assert_eq!(instead(&announce, &seen), unread);
        assert_eq!(instead(&Step::Withdraw, &seen), unread);
        let rua = |text: &str| Rua::parse(text).unwrap().unwrap();
        let ask = Step::AskForReports(TlsrptRecord::new(vec![rua("mailto:b@example.org")]));
        assert_eq!(instead(&ask, &seen), "there is no _smtp._tls record");
        seen.rua = vec![rua("mailto:a@example.org")];
        assert_eq!(
            instead(&ask, &seen),
            "_smtp._tls has mailto:a@example.org; mailto:b@example.org is expected"
        );
        assert_eq!(
            instead(&Step::PointPolicyHost(PolicyHostAt::Operator), &seen),
            "mta-sts points to nothing; an address is expected"
        );
    }
}
