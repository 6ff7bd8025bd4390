//! What was seen of a domain from outside, place by place: each name server of its zones, and each address of its policy host.
//! A sender may meet any of them, so a change counts as visible only when all of them show it (PUB-09). A place that shows
//! nothing counts as one that does not show the change, until it answers, is no longer listed in DNS, or the operator leaves
//! it out ([`super::decisions::Omission`]).
//!
//! [`Collector`] records what name servers show while [`super::observe()`] queries them, and [`record_policy_copies`] compares the
//! policy files of all addresses.

use super::observed::{NoMailHosts, ObservedState};
use super::state::PublishedPolicy;
use formats::{DomainName, Policy};
use net::BoxFuture;
use net::dns::{Answer, Dns, DnsError, Kind, QueriedServer, ServerFault, server_in_words};
use net::https::AddressFetch;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// All places of a domain, with what each showed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outside {
    /// The name servers, once for each question.
    pub servers: Vec<ServerView>,
    /// The addresses of the policy host.
    pub addresses: Vec<AddressView>,
    /// Why the domain has no MX host; `None` if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmailed: Option<NoMailHosts>,
}

/// What a name server showed for one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// The host name of the name server.
    pub server: DomainName,
    /// The server's address; `None` if its name has none.
    pub address: Option<IpAddr>,
    /// The name that was looked up.
    pub name: DomainName,
    /// The record type that was looked up.
    pub kind: String,
    /// The records, in words; `None` if the server showed nothing that counts.
    pub shows: Option<String>,
    /// Why the server showed nothing that counts, in words; `None` if [`Self::shows`] is set.
    pub fault: Option<String>,
    /// The fault's name ([`ServerFault::as_str`]).
    pub fault_kind: Option<String>,
    /// True if changes are not visible while the server has this fault. False if the operator has left the server out, or if
    /// this machine has no route to the address and the server showed the records at another one.
    pub counts: bool,
}

/// What an address of the policy host served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressView {
    /// The address that the policy was fetched from.
    pub address: IpAddr,
    /// The policy, in words; `None` if no valid policy could be fetched.
    pub shows: Option<String>,
    /// Why no valid policy could be fetched; `None` if [`Self::shows`] is set.
    pub fault: Option<String>,
    /// True if changes are not visible while this address has the fault, as for [`ServerView::counts`].
    pub counts: bool,
}

impl ServerView {
    /// The server's name and address, in words.
    pub fn place(&self) -> String {
        server_in_words(&self.server, self.address)
    }
}

impl Outside {
    /// True if no name server has a fault that counts for this name.
    pub fn is_settled(&self, name: &DomainName) -> bool {
        self.missing(name).next().is_none()
    }

    /// The name servers whose fault counts for this name.
    pub fn missing<'a>(&'a self, name: &'a DomainName) -> impl Iterator<Item = &'a ServerView> {
        self.servers.iter().filter(move |view| view.counts && view.fault.is_some() && view.name == *name)
    }

    /// True if each address that counts served a valid policy.
    pub fn is_fetched_everywhere(&self) -> bool {
        self.addresses.iter().all(|view| !view.counts || view.fault.is_none())
    }

    /// The faults in words, one line for each place.
    pub fn faults(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let servers =
            self.servers.iter().filter_map(|view| Some((view.place(), view.fault.as_ref()?, view.counts)));
        let addresses = self
            .addresses
            .iter()
            .filter_map(|view| Some((view.address.to_string(), view.fault.as_ref()?, view.counts)));
        let all = servers.map(|one| ("name server", one)).chain(addresses.map(|one| ("policy host at", one)));
        for (what, (place, fault, counts)) in all {
            let note = if counts { "" } else { " (left out)" };
            let line = format!("{what} {place}: {fault}{note}");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }

    /// What each place showed, in words, one line for each.
    pub fn lines(&self) -> Vec<String> {
        let mut places: Vec<(String, Vec<String>)> = Vec::new();
        let mut add = |place: String, text: String| match places.iter_mut().find(|(known, _)| *known == place)
        {
            Some((_, texts)) if texts.contains(&text) => {}
            Some((_, texts)) => texts.push(text),
            None => places.push((place, vec![text])),
        };
        for view in &self.servers {
            let text = match (&view.shows, &view.fault) {
                (Some(shows), _) => format!("{} {}: {shows}", view.name, view.kind),
                (None, fault) => fault.clone().unwrap_or_default(),
            };
            add(format!("name server {}", view.place()), text);
        }
        for view in &self.addresses {
            let text = view.shows.clone().or(view.fault.clone()).unwrap_or_default();
            add(format!("policy host at {}", view.address), text);
        }
        let line = |(place, texts): (String, Vec<String>)| format!("{place}: {}", texts.join("; "));
        places.into_iter().map(line).collect()
    }
}

/// Passes queries on, and records what each name server showed.
pub struct Collector<'a> {
    dns: &'a dyn Dns,
    seen: Mutex<Vec<(DomainName, Kind, Vec<QueriedServer>)>>,
}

impl<'a> Collector<'a> {
    /// Collects what the name servers show that `dns` queries.
    pub fn over(dns: &'a dyn Dns) -> Self {
        Self { dns, seen: Mutex::default() }
    }

    /// What was collected. `omitted` has the names and addresses that the operator has left out.
    pub fn into_views(self, omitted: &[String]) -> Vec<ServerView> {
        let seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut views: Vec<ServerView> = seen
            .iter()
            .flat_map(|(name, kind, servers)| {
                servers.iter().map(move |one| view(name, *kind, one, servers, omitted))
            })
            .collect();
        views.sort_by(|one, other| {
            let key =
                |view: &ServerView| (view.server.clone(), view.address, view.name.clone(), view.kind.clone());
            key(one).cmp(&key(other))
        });
        views.dedup();
        views
    }
}

fn view(
    name: &DomainName,
    kind: Kind,
    one: &QueriedServer,
    all: &[QueriedServer],
    omitted: &[String],
) -> ServerView {
    let shown_elsewhere = || {
        all.iter().any(|other| {
            other.name == one.name && other.queried_name == one.queried_name && other.shows.is_ok()
        })
    };
    let fault = one.shows.as_ref().err();
    let is_unreachable_here = fault == Some(&ServerFault::NoRoute) && shown_elsewhere();
    let counts = !is_omitted(omitted, Some(&one.name), one.address) && !is_unreachable_here;
    ServerView {
        server: one.name.clone(),
        address: one.address,
        name: name.clone(),
        kind: kind_in_words(kind).to_owned(),
        shows: one.shows.as_ref().ok().cloned(),
        fault: fault.map(ToString::to_string),
        fault_kind: fault.map(|fault| fault.as_str().to_owned()),
        counts,
    }
}

/// Whether the operator has left out a place, by name or by address.
fn is_omitted(omitted: &[String], name: Option<&DomainName>, address: Option<IpAddr>) -> bool {
    let address = address.map(|address| address.to_string());
    omitted
        .iter()
        .any(|place| name.is_some_and(|name| name.as_str() == place) || address.as_ref() == Some(place))
}

fn kind_in_words(kind: Kind) -> &'static str {
    match kind {
        Kind::A => "A",
        Kind::Aaaa => "AAAA",
        Kind::Cname => "CNAME",
        Kind::Caa => "CAA",
        Kind::Cds => "CDS",
        Kind::Dnskey => "DNSKEY",
        Kind::Ds => "DS",
        Kind::Mx => "MX",
        Kind::Ns => "NS",
        Kind::Soa => "SOA",
        Kind::Tlsa => "TLSA",
        Kind::Txt => "TXT",
    }
}

impl Dns for Collector<'_> {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            let survey = self.dns.survey(name, kind).await;
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((name.clone(), kind, survey.servers));
            survey.answer
        })
    }
}

/// A policy in one line.
pub fn summary(policy: &Policy) -> String {
    let mx: Vec<String> = policy.mx.iter().map(ToString::to_string).collect();
    format!("mode {}, max_age {}, mx {}", policy.mode, policy.max_age, mx.join(" "))
}

/// Adds to an observation what each address of the policy host serves, and the certificate that ends first. The policy counts as served only if all addresses that
/// count serve the same one, and a sender's own fetch got it too. `unvisited` are addresses beyond the limit. `has_route` is
/// [`net::address::has_route`], except in tests.
pub fn record_policy_copies(
    seen: &mut ObservedState,
    fetched: Vec<AddressFetch>,
    unvisited: &[IpAddr],
    omitted: &[String],
    has_route: fn(IpAddr) -> bool,
) {
    if fetched.is_empty() {
        return;
    }
    let read: Vec<(IpAddr, Result<Policy, String>)> = fetched
        .into_iter()
        .map(|AddressFetch { address, fetched, certificate }| {
            let first = [seen.certificate.take(), certificate].into_iter().flatten();
            seen.certificate = first.min_by_key(|certificate| certificate.not_after);
            let policy = fetched.map_err(|error| error.to_string()).and_then(|fetched| {
                Policy::parse(&fetched.body).map_err(|error| format!("the policy file is invalid: {error}"))
            });
            (address, policy)
        })
        .collect();
    let is_any = read.iter().any(|(_, policy)| policy.is_ok());
    for (address, policy) in &read {
        let is_unseen = policy.is_err() && is_any && !has_route(*address);
        seen.outside.addresses.push(AddressView {
            address: *address,
            shows: policy.as_ref().ok().map(summary),
            fault: policy.as_ref().err().cloned().map(|why| match is_unseen {
                true => "this machine has no route to it".to_owned(),
                false => why,
            }),
            counts: !is_unseen && !is_omitted(omitted, None, Some(*address)),
        });
    }
    seen.outside.addresses.extend(unvisited.iter().map(|address| AddressView {
        address: *address,
        shows: None,
        fault: Some("it was not visited, since the policy host has too many addresses".to_owned()),
        counts: !is_omitted(omitted, None, Some(*address)),
    }));
    for policy in read.into_iter().filter_map(|(_, policy)| policy.ok()) {
        if !seen.copies.iter().any(|known| PublishedPolicy::from(known).is(&policy)) {
            seen.copies.push(policy);
        }
    }
    judge_copies(seen);
}

fn judge_copies(seen: &mut ObservedState) {
    let Some(served) = &seen.served else { return };
    let is_same = seen.copies.iter().all(|copy| PublishedPolicy::from(copy).is(served));
    if is_same && seen.outside.is_fetched_everywhere() {
        return;
    }
    let views =
        seen.outside.addresses.iter().filter(|view| view.counts && (!is_same || view.fault.is_some()));
    let texts: Vec<String> = views
        .map(|view| match (&view.shows, &view.fault) {
            (Some(shows), _) => format!("{} serves {shows}", view.address),
            (None, fault) => format!("{}: {}", view.address, fault.as_deref().unwrap_or_default()),
        })
        .collect();
    seen.unserved = Some(match is_same {
        true => format!("not all addresses of the policy host serve the policy: {}", texts.join("; ")),
        false => format!("the addresses of the policy host serve different policies: {}", texts.join("; ")),
    });
    seen.served = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::{Mode, MxPattern};
    use net::https::{FetchError, Fetched};

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn policy(mode: Mode) -> Policy {
        Policy::new(mode, 600, vec![MxPattern::parse("mx.example").unwrap()]).unwrap()
    }

    fn copy(address: &str, of: Result<Mode, FetchError>) -> AddressFetch {
        let address = address.parse().unwrap();
        let fetched = of.map(|mode| Fetched {
            body: policy(mode).to_string().into_bytes(),
            address,
            media_type: "text/plain".to_owned(),
            tls_version: String::new(),
        });
        AddressFetch { address, fetched, certificate: None }
    }

    fn seen(copies: Vec<AddressFetch>, omitted: &[String]) -> ObservedState {
        let mut seen = ObservedState { served: Some(policy(Mode::Enforce)), ..ObservedState::default() };
        record_policy_copies(&mut seen, copies, &[], omitted, |address| address.is_ipv4());
        seen
    }

    const ENFORCE: Result<Mode, FetchError> = Ok(Mode::Enforce);

    #[test]
    fn a_policy_is_served_only_if_every_address_serves_it() {
        let both = seen(vec![copy("127.0.0.1", ENFORCE), copy("127.0.0.2", ENFORCE)], &[]);
        assert!(both.served.is_some() && both.copies.len() == 1);
        let stale = seen(vec![copy("127.0.0.1", ENFORCE), copy("127.0.0.2", Ok(Mode::Testing))], &[]);
        assert_eq!((stale.served.is_some(), stale.copies.len()), (false, 2));
        let why = stale.unserved.unwrap();
        assert!(
            why.contains("127.0.0.2 serves mode testing") && why.contains("127.0.0.1 serves mode enforce"),
            "{why}"
        );
        let down = vec![copy("127.0.0.1", ENFORCE), copy("127.0.0.2", Err(FetchError::Status(404)))];
        let half = seen(down.clone(), &[]);
        assert!(half.served.is_none() && !half.outside.is_fetched_everywhere());
        assert!(half.unserved.unwrap().contains("127.0.0.2: the policy host returned HTTP status 404"));
        let left_out = seen(down, &["127.0.0.2".to_owned()]);
        assert!(left_out.served.is_some() && left_out.outside.is_fetched_everywhere());
        assert!(left_out.outside.faults()[0].ends_with("(left out)"));
        // A stale copy is one that senders get, whatever the operator says.
        let stale = vec![copy("127.0.0.1", ENFORCE), copy("127.0.0.2", Ok(Mode::Testing))];
        assert!(seen(stale, &["127.0.0.2".to_owned()]).served.is_none());
    }

    #[test]
    fn addresses_beyond_the_limit_and_without_a_route_are_told() {
        let mut many = ObservedState { served: Some(policy(Mode::Enforce)), ..ObservedState::default() };
        let beyond = "192.0.2.9".parse().unwrap();
        record_policy_copies(&mut many, vec![copy("127.0.0.1", ENFORCE)], &[beyond], &[], |_| true);
        assert!(many.served.is_none(), "an address was not visited");
        // This machine has no IPv6.
        let unroutable = copy("2001:db8::1", Err(FetchError::Time));
        let known = seen(vec![copy("127.0.0.1", ENFORCE), unroutable.clone()], &[]);
        assert!(known.served.is_some());
        assert!(known.outside.faults()[0].contains("no route"), "{:?}", known.outside);
        let alone = seen(vec![unroutable], &[]);
        assert!(alone.served.is_none(), "nothing was seen at all");
    }

    struct Two([Result<String, ServerFault>; 2]);

    impl Dns for Two {
        fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
            Box::pin(async move { self.survey(name, kind).await.answer })
        }

        fn survey<'a>(&'a self, asked: &'a DomainName, _: Kind) -> BoxFuture<'a, net::dns::Survey> {
            let servers =
                self.0.iter().zip(["192.0.2.1", "2001:db8::1"]).map(|(shows, address)| QueriedServer {
                    name: name("ns.example"),
                    address: Some(address.parse().unwrap()),
                    queried_name: asked.clone(),
                    shows: shows.clone(),
                });
            let survey = net::dns::Survey { answer: Err(DnsError::Timeout), servers: servers.collect() };
            Box::pin(std::future::ready(survey))
        }
    }

    async fn views(servers: [Result<String, ServerFault>; 2], omitted: &[&str]) -> Outside {
        let dns = Two(servers);
        let collector = Collector::over(&dns);
        let _ = collector.lookup(&name("_mta-sts.example"), Kind::Txt).await;
        let omitted: Vec<String> = omitted.iter().map(|place| (*place).to_owned()).collect();
        Outside { servers: collector.into_views(&omitted), ..Outside::default() }
    }

    #[tokio::test]
    async fn a_dead_server_counts_until_it_is_left_out_and_an_unroutable_address_does_not() {
        let fine = || Ok("\"1\"".to_owned());
        let record = name("_mta-sts.example");
        for (servers, omitted, expected) in [
            ([fine(), fine()], &[][..], true),
            ([fine(), Err(ServerFault::Silent)], &[], false),
            ([fine(), Err(ServerFault::Silent)], &["ns.example"], true),
            ([fine(), Err(ServerFault::Silent)], &["2001:db8::1"], true),
            ([fine(), Err(ServerFault::Silent)], &["192.0.2.1", "ns2.example"], false),
            ([fine(), Err(ServerFault::NoRoute)], &[], true),
            ([Err(ServerFault::NoRoute), Err(ServerFault::NoRoute)], &[], false),
            ([Err(ServerFault::NotAuthoritative), Err(ServerFault::NoRoute)], &[], false),
        ] {
            let seen = views(servers.clone(), omitted).await;
            assert_eq!(seen.is_settled(&record), expected, "{servers:?} {omitted:?}");
            assert!(seen.is_settled(&name("_smtp._tls.example")));
            let has_fault = servers.iter().any(Result::is_err);
            assert_eq!(seen.faults().is_empty(), !has_fault);
            assert_eq!(seen.lines().len(), 2);
        }
    }
}
