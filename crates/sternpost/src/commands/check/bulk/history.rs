//! The former MX hosts of the domains of a list (`--history FILE`), by which a policy is recognized that still names them. Each
//! line has a domain, an MX host and the day when it was last seen, such as `example.org,mx.old.example,2026-05-31`; or it is a
//! result of an earlier `check --from`.

use super::lines::read_results;
use super::list::digest;
use check::{Known, SeenHost};
use config::failure::Failure;
use formats::DomainName;
use formats::limits::MX_HOSTS;
use jiff::Timestamp;
use std::collections::HashMap;
use std::path::Path;

/// The MX hosts of each domain, by its digest.
pub struct History(HashMap<u64, Vec<SeenHost>>);

/// A result of an earlier run.
#[derive(serde::Deserialize)]
struct EarlierResult {
    domain: String,
    #[serde(default)]
    mx_hosts: Vec<Host>,
}

#[derive(serde::Deserialize)]
struct Host {
    host: String,
}

impl History {
    /// Reads a file. Hosts without a day count as seen when the file was written.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let written = std::fs::metadata(path).and_then(|known| known.modified()).ok();
        let written =
            written.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut all: HashMap<u64, Vec<SeenHost>> = HashMap::new();
        let remedy = "Give lines such as example.org,mx.old.example,2026-05-31, or the results of an earlier run, with --history.";
        read_results(path, ("a domain with an MX host", remedy), |line| {
            let Some((domain, hosts)) = entry(line, written) else { return Ok(false) };
            let known = all.entry(digest(domain.as_str())).or_default();
            for seen in hosts {
                if let Some(other) = known.iter_mut().find(|other| other.host == seen.host) {
                    other.seen_at = other.seen_at.max(seen.seen_at);
                } else if known.len() < MX_HOSTS {
                    known.push(seen);
                }
            }
            Ok(true)
        })?;
        for hosts in all.values_mut() {
            hosts.sort_by_key(|seen| std::cmp::Reverse(seen.seen_at));
        }
        Ok(Self(all))
    }

    /// What is known of a domain.
    pub fn of(&self, domain: &DomainName) -> Known {
        let hosts = self.0.get(&digest(domain.as_str())).cloned().unwrap_or_default();
        Known { hosts, ..Known::default() }
    }
}

/// The domain and the hosts of a line. `None` if it has no domain.
fn entry(line: &[u8], written: Timestamp) -> Option<(DomainName, Vec<SeenHost>)> {
    let seen = |host: &str, seen_at| DomainName::parse(host).ok().map(|host| SeenHost { host, seen_at });
    if line.starts_with(b"{") {
        let line: EarlierResult = serde_json::from_slice(line).ok()?;
        let hosts = line.mx_hosts.iter().filter_map(|host| seen(&host.host, written));
        return Some((DomainName::parse(&line.domain).ok()?, hosts.collect()));
    }
    let text = String::from_utf8_lossy(line);
    let mut columns = text.split([',', ';', '\t']).map(|column| column.trim().trim_matches('"'));
    let domain = DomainName::parse(columns.next()?).ok()?;
    let host = columns.next()?;
    let day = columns.next().filter(|day| !day.is_empty());
    let seen_at = day.map_or(Some(written), at)?;
    Some((domain, vec![seen(host, seen_at)?]))
}

/// The beginning of a day, or a time.
fn at(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().or_else(|_| format!("{text}T00:00:00Z").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_hosts_are_read_from_tables_and_from_results() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let lines = "domain,host,day\nA.example,mx1.old.example,2026-05-31\na.example;mx2.old.example;2026-06-30T12:00:00Z\n\
                     a.example,mx1.old.example,2026-01-01\nb.example\tmx.b.example\n\
                     {\"domain\":\"c.example\",\"mx_hosts\":[{\"host\":\"mx.c.example\",\"certificate\":\"valid\"}],\"findings\":[]}\n\
                     d.example,not a host,2026-01-01\ne.example,mx.e.example,yesterday\n";
        std::fs::write(&path, lines).unwrap();
        let history = History::read(&path).unwrap();
        let of = |domain: &str| -> Vec<String> {
            let known = history.of(&DomainName::parse(domain).unwrap());
            known.hosts.iter().map(|seen| format!("{} {}", seen.host, seen.seen_at)).collect()
        };
        assert_eq!(
            of("a.example"),
            ["mx2.old.example 2026-06-30T12:00:00Z", "mx1.old.example 2026-05-31T00:00:00Z"]
        );
        assert!(of("b.example")[0].starts_with("mx.b.example ") && of("c.example").len() == 1);
        assert!(of("d.example").is_empty() && of("e.example").is_empty());
        std::fs::write(&path, "example.org\n").unwrap();
        assert!(History::read(&path).err().unwrap().to_string().contains("a domain with an MX host"));
    }
}
