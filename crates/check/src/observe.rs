//! Observation of a domain: all network access of a check. It queries DNS, fetches the policy and probes the
//! MX hosts concurrently, within the limits of [`Sessions`], and collects the results in [`ObservedDomain`].

use crate::causes::near_record::RecordKind;
use crate::observed::{
    Companions, ExtraProbes, IdleTlsa, NameServers, ObservedDomain, ObservedMxHost, ObservedPolicy,
    ObservedPolicyHost, ObservedReportTarget, ObservedSession, WithoutDs, is_meant_as,
};
use crate::options::{Depth, Options};
use crate::progress::{Progress, mx_summary, policy_host_summary, session_summary, txt_summary};
use crate::sessions::Sessions;
use formats::hello::{OLD_CIPHERS, Version, WEAK_CIPHERS};
use formats::limits::MX_HOSTS;
use formats::tlsa::tlsa_name;
use formats::tlsrpt_record::{Rua, TlsrptRecord};
use formats::{DomainName, Policy, StsRecord};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use net::clock::Clock;
use net::dane::{self, Dane, SMTP_PORT};
use net::dns::{
    Answer, Caa, Data, Dns, DnsError, Exchange, HostAddresses, Kind, PerServerLookup, Security,
    host_addresses,
};
use net::https::{Call, Revocation, Visit, Visits};
use net::smtp::{Target, TlsDemand};
use std::net::IpAddr;
use std::sync::Arc;

/// Maximum number of MX hosts of one domain that are probed concurrently.
const CONCURRENT_HOSTS: usize = 8;

/// Maximum number of name servers whose addresses are looked up.
const NAME_SERVERS: usize = 16;

/// The `User-Agent` of the request that imitates a browser.
const BROWSER_USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// The name `label` below the domain, or the domain itself, which has no such record, if the name is too long.
fn below(domain: &DomainName, label: &str) -> DomainName {
    domain.below(label).unwrap_or_else(|_| domain.clone())
}

/// Checks domains with the given clients. [`Checker::examine`] is the entry point.
pub struct Checker {
    /// Resolver for records that need DNSSEC validation: MX, addresses, TLSA and `_mta-sts`.
    pub dns: Arc<dyn Dns>,
    /// Resolver for records that need no validation: the policy host is authenticated by its certificate, and
    /// the other records do not affect delivery.
    pub unvalidated: Arc<dyn Dns>,
    /// Queries each name server of a zone; `None` skips those checks.
    pub servers: Option<Arc<dyn PerServerLookup>>,
    /// Connects to policy hosts and https: report targets.
    pub visits: Arc<dyn Visits>,
    /// Connects to MX hosts.
    pub mail: Sessions,
    /// The current time, for expiry and timestamps.
    pub clock: Arc<dyn Clock>,
    /// Depth, address families and skipped probes.
    pub options: Options,
}

impl Checker {
    pub(crate) async fn observe(&self, domain: &DomainName, progress: &dyn Progress) -> ObservedDomain {
        let record_name = below(domain, "_mta-sts");
        let tlsrpt_name = below(domain, "_smtp._tls");
        let mail = async {
            let mx = self.dns.lookup(domain, Kind::Mx).await;
            progress.seen("MX", &|| mx_summary(&mx));
            let (hosts, without_ds) =
                tokio::join!(self.hosts(domain, &mx, progress), self.without_ds(domain, &mx));
            (mx, hosts, without_ds)
        };
        let record = async {
            let record = self.dns.lookup(&record_name, Kind::Txt).await;
            progress.seen("_mta-sts", &|| txt_summary(&record));
            let more = self.around_record(domain, &record_name, &record).await;
            (record, more)
        };
        let tlsrpt = async {
            let tlsrpt = self.unvalidated.lookup(&tlsrpt_name, Kind::Txt).await;
            let rua = self.targets(&tlsrpt).await;
            let strays = match is_missing(&tlsrpt, RecordKind::Tlsrpt, domain) {
                true => self.strays(domain, &["_tls._smtp", "_smtp-tls", "_tlsrpt"], "v=tlsrptv1").await,
                false => Vec::new(),
            };
            progress.seen("_smtp._tls", &|| txt_summary(&tlsrpt));
            (tlsrpt, strays, rua)
        };
        let ((mx, hosts, without_ds), (record, around), host, (tlsrpt, tlsrpt_strays, rua), companions) =
            tokio::join!(mail, record, self.policy_host(domain, progress), tlsrpt, self.companions(domain));
        let policy = policy(&record, &host);
        ObservedDomain {
            domain: domain.clone(),
            now: self.clock.now(),
            sees_signatures: self.options.sees_signatures,
            mx,
            hosts,
            without_ds,
            skipped_port_25: self.options.skip_port_25,
            is_lab: self.options.allow_special,
            is_deep: self.is_deep(),
            slow: self.options.slow,
            record,
            servers: around.servers,
            name_servers: around.name_servers,
            is_wildcard: around.is_wildcard,
            strays: around.strays,
            host,
            policy,
            tlsrpt,
            tlsrpt_strays,
            rua,
            companions,
        }
    }

    /// Whether the zone of an unsigned answer has keys, and its parent no DS record. A name that is not a zone has no
    /// keys.
    async fn without_ds(&self, domain: &DomainName, mx: &Result<Answer, DnsError>) -> Option<WithoutDs> {
        let security = match mx {
            Ok(answer) => answer.security,
            Err(error) => error.nothing()?.security,
        };
        if !self.is_deep() || security == Security::Secure {
            return None;
        }
        let look_up = |kind| self.unvalidated.lookup(domain, kind);
        look_up(Kind::Dnskey).await.ok().filter(|keys| keys.aliases.is_empty())?;
        match look_up(Kind::Ds).await {
            Err(DnsError::NoSuchRecord(_)) => {}
            _ => return None,
        }
        Some(WithoutDs { has_cds: look_up(Kind::Cds).await.is_ok() })
    }

    fn is_deep(&self) -> bool {
        self.options.depth == Depth::Full
    }

    fn is_selected(&self, address: &IpAddr) -> bool {
        self.options.families.includes(*address)
    }

    async fn around_record(
        &self,
        domain: &DomainName,
        name: &DomainName,
        record: &Result<Answer, DnsError>,
    ) -> AroundRecord {
        let servers = async {
            match &self.servers {
                Some(each) if self.is_deep() => Some(each.each(name, Kind::Txt).await),
                _ => None,
            }
        };
        let wildcard = async {
            if !self.is_deep() || record.is_err() {
                return false;
            }
            let made_up = below(domain, "_sternpost-looks-for-a-wildcard");
            let answer = self.unvalidated.lookup(&made_up, Kind::Txt).await;
            answer.is_ok_and(|answer| texts_like(&answer, "v=stsv1").next().is_some())
        };
        let strays = async {
            match is_missing(record, RecordKind::Sts, domain) {
                true => {
                    self.strays(domain, &["mta-sts", "", "_mta_sts", "_mta-sts.mta-sts"], "v=stsv1").await
                }
                false => Vec::new(),
            }
        };
        let (servers, is_wildcard, strays, name_servers) =
            tokio::join!(servers, wildcard, strays, self.name_servers(domain));
        AroundRecord { servers, name_servers, is_wildcard, strays }
    }

    /// Counts the domain's name servers. A domain that is not a zone of its own has none.
    async fn name_servers(&self, domain: &DomainName) -> Option<NameServers> {
        if !self.is_deep() {
            return None;
        }
        let answer = self.unvalidated.lookup(domain, Kind::Ns).await.ok()?;
        let hosts = answer
            .records
            .iter()
            .filter_map(|data| if let Data::Ns(name) = data { Some(name) } else { None });
        let addresses = hosts.take(NAME_SERVERS).map(|host| host_addresses(self.unvalidated.as_ref(), host));
        let found = join_all(addresses).await;
        let has_ipv6 = |found: &HostAddresses| found.addresses.iter().any(IpAddr::is_ipv6);
        let with_ipv6 = found.iter().filter(|found| found.as_ref().is_ok_and(has_ipv6)).count();
        Some(NameServers { all: found.len(), with_ipv6 })
    }

    /// Records that begin with `version`, in any case, at the given labels.
    async fn strays(&self, domain: &DomainName, labels: &[&str], version: &str) -> Vec<(DomainName, String)> {
        let probes = labels.iter().map(|label| async move {
            let name = if label.is_empty() { domain.clone() } else { below(domain, label) };
            let answer = self.unvalidated.lookup(&name, Kind::Txt).await.ok()?;
            let text = texts_like(&answer, version).next()?;
            Some((name, text))
        });
        join_all(probes).await.into_iter().flatten().collect()
    }

    async fn hosts(
        &self,
        domain: &DomainName,
        mx: &Result<Answer, DnsError>,
        progress: &dyn Progress,
    ) -> Vec<ObservedMxHost> {
        let (named, security) = match mx {
            Ok(answer) => (exchanges(answer), answer.security),
            Err(DnsError::NoSuchRecord(nothing)) => (vec![(domain.clone(), 0)], nothing.security),
            Err(_) => return Vec::new(),
        };
        let probes = named.into_iter().map(|host| self.host(domain, host, security, progress));
        stream::iter(probes).buffered(CONCURRENT_HOSTS).collect().await
    }

    async fn host(
        &self,
        domain: &DomainName,
        (name, preference): (DomainName, u16),
        security: Security,
        progress: &dyn Progress,
    ) -> ObservedMxHost {
        let dns = self.dns.as_ref();
        let found = host_addresses(dns, &name).await;
        let mut seen = ObservedMxHost {
            name,
            preference,
            addresses: found,
            dane: Dane::Absent,
            idle_tlsa: None,
            sessions: Vec::new(),
        };
        let Ok(addresses) = &seen.addresses else { return seen };
        seen.dane = dane::look_up(dns, security, (&seen.name, SMTP_PORT), addresses).await.dane;
        if self.is_deep() && seen.dane == Dane::Absent {
            let host = dane::look_up_host(dns, (&seen.name, SMTP_PORT), addresses).await.dane;
            seen.idle_tlsa = match host {
                Dane::Applies { .. } => Some(IdleTlsa::UnsignedMx),
                _ if self.has_tlsa(&seen.name).await => Some(IdleTlsa::UnsignedZone),
                _ => None,
            };
        }
        if !self.options.skip_port_25 {
            seen.sessions = self.sessions(domain, &seen.name, addresses, &seen.dane, progress).await;
        }
        seen
    }

    async fn has_tlsa(&self, host: &DomainName) -> bool {
        match tlsa_name(host, SMTP_PORT) {
            Ok(name) => self.dns.lookup(&name, Kind::Tlsa).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn sessions(
        &self,
        domain: &DomainName,
        host: &DomainName,
        addresses: &HostAddresses,
        dane: &Dane,
        progress: &dyn Progress,
    ) -> Vec<ObservedSession> {
        let demand = match dane {
            Dane::Applies { rule, base, .. } => {
                TlsDemand::Dane { rule: rule.clone(), base: base.clone(), next_hop: domain.clone() }
            }
            Dane::Absent | Dane::Unknown(_) => TlsDemand::Encrypt,
        };
        let demand = &demand;
        let selected = addresses.addresses.iter().copied().filter(|address| self.is_selected(address));
        let probes = selected.map(|address| async move {
            let target = Target { host: host.clone(), address };
            let outcome = self.mail.session(&target, demand).await;
            let has_tls = match &outcome {
                Ok(report) => report.tls.is_some(),
                Err(failure) => failure.report.tls.is_some(),
            };
            let deep = match self.is_deep() && has_tls {
                true => Some(self.deep(&target).await),
                false => None,
            };
            progress.seen(&format!("{host} ({address})"), &|| session_summary(&outcome));
            ObservedSession { address, outcome, deep }
        });
        join_all(probes).await
    }

    async fn deep(&self, target: &Target) -> ExtraProbes {
        let mail = &self.mail;
        let (without_sni, tls10, tls11, weak, accepts_injection, large_hello) = tokio::join!(
            mail.without_sni(target),
            mail.agrees(target, Version::Tls10, OLD_CIPHERS),
            mail.agrees(target, Version::Tls11, OLD_CIPHERS),
            mail.agrees(target, Version::Tls12, WEAK_CIPHERS),
            mail.accepts_injection(target),
            mail.large_hello(target),
        );
        let legacy = [tls10.map(|_| Version::Tls10), tls11.map(|_| Version::Tls11)];
        ExtraProbes {
            without_sni,
            legacy: legacy.into_iter().flatten().collect(),
            weak,
            accepts_injection,
            large_hello,
        }
    }

    async fn policy_host(&self, domain: &DomainName, progress: &dyn Progress) -> ObservedPolicyHost {
        let name = below(domain, "mta-sts");
        let mut seen = ObservedPolicyHost {
            addresses: host_addresses(self.unvalidated.as_ref(), &name).await,
            name,
            is_catch_all: false,
            visits: Vec::new(),
            without_sni: None,
            as_browser: None,
            revocation: None,
            caa: Vec::new(),
        };
        let found = match &seen.addresses {
            Ok(found) => found,
            Err(error) => {
                progress.seen(seen.name.as_str(), &|| error.to_string());
                return seen;
            }
        };
        let reachable =
            |address: &&IpAddr| self.options.allow_special || net::address::special(**address).is_none();
        let selected: Vec<IpAddr> = found
            .addresses
            .iter()
            .filter(|address| self.is_selected(address))
            .filter(reachable)
            .copied()
            .collect();
        let call = |address| Call::policy(&seen.name, address);
        seen.visits = join_all(selected.iter().map(|address| self.visit(call(*address)))).await;
        progress.seen(seen.name.as_str(), &|| policy_host_summary(&seen));
        if !seen.fetched().is_ok_and(|fetched| Policy::parse(&fetched.body).is_ok()) {
            seen.is_catch_all = self.is_catch_all(domain, &seen).await;
        }
        let good = seen.visits.iter().find(|visit| visit.judged().is_ok());
        if let Some(good) = good.filter(|_| self.is_deep()) {
            let (without_sni, as_browser, caa, revocation) = tokio::join!(
                self.visit(Call { with_sni: false, ..call(good.address) }),
                self.visit(Call { agent: Some(BROWSER_USER_AGENT), ..call(good.address) }),
                self.caa(&seen.name),
                self.revocation(&seen.name, good),
            );
            (seen.without_sni, seen.as_browser, seen.caa) = (Some(without_sni), Some(as_browser), caa);
            seen.revocation = revocation;
        }
        seen
    }

    /// Whether a random name below the domain leads to the addresses of the policy host.
    async fn is_catch_all(&self, domain: &DomainName, host: &ObservedPolicyHost) -> bool {
        let Ok(own) = &host.addresses else { return false };
        let made_up = below(domain, "sternpost-looks-for-a-wildcard");
        match host_addresses(self.unvalidated.as_ref(), &made_up).await {
            Ok(other) => other.addresses.iter().any(|address| own.addresses.contains(address)),
            Err(_) => false,
        }
    }

    async fn visit(&self, call: Call) -> Visit {
        self.visits.visit(&call).await
    }

    async fn revocation(&self, host: &DomainName, visit: &Visit) -> Option<Revocation> {
        Some(self.visits.revocation(host, visit.tls.as_ref()?).await)
    }

    /// The relevant CAA record set: that of the closest name, from `name` upward, that has any (RFC 8659 §3).
    async fn caa(&self, name: &DomainName) -> Vec<Caa> {
        let mut at = Some(name.clone());
        while let Some(name) = at {
            if let Ok(answer) = self.unvalidated.lookup(&name, Kind::Caa).await {
                let records = answer.records.into_iter();
                return records
                    .filter_map(|data| if let Data::Caa(caa) = data { Some(caa) } else { None })
                    .collect();
            }
            at = name.parent();
        }
        Vec::new()
    }

    async fn targets(&self, tlsrpt: &Result<Answer, DnsError>) -> Vec<ObservedReportTarget> {
        let Ok(answer) = tlsrpt else { return Vec::new() };
        let Ok(record) = TlsrptRecord::select(answer.texts()) else { return Vec::new() };
        let probes = record.rua.into_iter().map(|target| async {
            let (mut mail, mut visit) = (None, None);
            match &target {
                Rua::Mailto(address) => mail = Some(self.accepts_mail(address.domain()).await),
                Rua::Https(url) if self.is_deep() => visit = Some(self.accepts_https(url).await),
                Rua::Https(_) => {}
            }
            ObservedReportTarget { target, mail, visit }
        });
        join_all(probes).await
    }

    async fn accepts_mail(&self, domain: &DomainName) -> Result<Vec<DomainName>, String> {
        match self.unvalidated.lookup(domain, Kind::Mx).await {
            Ok(answer) => match answer.mx_hosts().collect::<Vec<_>>() {
                hosts if hosts.is_empty() => Err("it has a null MX".to_owned()),
                hosts => Ok(hosts),
            },
            Err(DnsError::NoSuchRecord(_)) => match host_addresses(self.unvalidated.as_ref(), domain).await {
                Ok(_) => Ok(vec![domain.clone()]),
                Err(error) if error.is_absence() => Err("it has neither MX nor address records".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        }
    }

    async fn accepts_https(&self, url: &formats::tlsrpt_record::HttpsUrl) -> Result<Visit, DnsError> {
        let found = host_addresses(self.unvalidated.as_ref(), url.host()).await?;
        let address =
            found.addresses.iter().find(|address| self.is_selected(address)).or(found.addresses.first());
        let address = *address.ok_or(DnsError::Timeout)?;
        let mut call = Call::policy(url.host(), address);
        // In the lab, port 443 stands for the port of the lab's web server.
        call.port = (!self.options.allow_special || url.port() != 443).then_some(url.port());
        call.path = url.path().to_owned();
        call.method = net::https::Method::OPTIONS;
        Ok(self.visit(call).await)
    }

    async fn companions(&self, domain: &DomainName) -> Companions {
        let has = |name: DomainName, version: &'static str| async move {
            match self.unvalidated.lookup(&name, Kind::Txt).await {
                Ok(answer) => Some(texts_like(&answer, version).next().is_some()),
                Err(error) if error.is_absence() => Some(false),
                Err(_) => None,
            }
        };
        let (has_dmarc, has_spf, has_bimi) = tokio::join!(
            has(below(domain, "_dmarc"), "v=dmarc1"),
            has(domain.clone(), "v=spf1"),
            has(below(domain, "default._bimi"), "v=bimi1"),
        );
        Companions { has_dmarc, has_spf, has_bimi: has_bimi == Some(true) }
    }
}

struct AroundRecord {
    name_servers: Option<NameServers>,
    servers: Option<Result<Vec<net::dns::ServerAnswer>, DnsError>>,
    is_wildcard: bool,
    strays: Vec<(DomainName, String)>,
}

fn policy(record: &Result<Answer, DnsError>, host: &ObservedPolicyHost) -> ObservedPolicy {
    let id = record
        .as_ref()
        .ok()
        .and_then(|answer| StsRecord::select(answer.texts()).ok())
        .map(|record| record.id);
    let file = host.fetched().ok().map(|fetched| fetched.body);
    let valid = file.as_deref().and_then(|file| Policy::parse(file).ok());
    ObservedPolicy { id, file, valid }
}

fn exchanges(answer: &Answer) -> Vec<(DomainName, u16)> {
    let hosts = answer.mx().into_iter().filter_map(|mx| match mx.exchange {
        Exchange::Host(host) => Some((host, mx.preference)),
        Exchange::Null | Exchange::Invalid(_) => None,
    });
    hosts.take(MX_HOSTS).collect()
}

/// True when DNS confirms that no record was meant as one of this kind.
fn is_missing(answer: &Result<Answer, DnsError>, kind: RecordKind, domain: &DomainName) -> bool {
    match answer {
        Ok(answer) => !answer.texts().any(|text| is_meant_as(kind, text, domain)),
        Err(error) => error.is_absence(),
    }
}

/// TXT records that begin with `version`, ignoring case, spaces and leading quotes.
fn texts_like(answer: &Answer, version: &str) -> impl Iterator<Item = String> {
    let alike = |text: &[u8]| {
        let text: String = String::from_utf8_lossy(text).chars().take(300).collect();
        let bare = text.trim_start_matches(['"', '\\', ' ', '\'']).to_ascii_lowercase().replace(' ', "");
        bare.starts_with(version).then_some(text)
    };
    answer.texts().filter_map(alike).collect::<Vec<_>>().into_iter()
}
