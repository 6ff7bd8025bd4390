//! The listen addresses of all roles. [`Config::collisions`] finds those that can't be bound together, which `sternpost serve`
//! and `sternpost config check` report before anything is bound.

use crate::config::Config;
use crate::failure::Failure;
use sender::serve::listen::Address;

/// An address that a role listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The configuration key that names the address, such as `host.listen`.
    pub key: &'static str,
    /// The listen address: TCP, a Unix socket, or sockets of systemd.
    pub address: Address,
}

impl Config {
    /// Every address that `sternpost serve` listens on, with its key.
    pub fn listening(&self) -> Vec<Listening> {
        let mut all = Vec::new();
        let mut add = |key, addresses: &[Address]| {
            all.extend(addresses.iter().map(|address| Listening { key, address: address.clone() }));
        };
        if let Some(role) = &self.answers {
            add("answers.listen", &role.listen);
            add("answers.lines", &role.lines);
            add("answers.http", role.http.as_slice());
            add("answers.control", &[Address::Unix(self.control())]);
        }
        if let Some(role) = &self.host {
            add("host.listen", &role.listen);
            add("host.behind_proxy", &role.bare);
            add("host.http", &role.http);
        }
        if let Some(role) = &self.inbox {
            add("inbox.smtp", &role.smtp);
            add("inbox.lmtp", &role.lmtp);
        }
        if let Some(role) = &self.collector {
            add("collector.socket", std::slice::from_ref(&role.socket));
            add("collector.http", role.http.as_slice());
        }
        if let Some(role) = &self.dashboard {
            add("dashboard.listen", &role.listen);
        }
        if let Some(role) = &self.admin {
            add("admin.listen", std::slice::from_ref(&role.listen));
        }
        add("metrics.listen", self.metrics.as_slice());
        all
    }

    /// The pairs of listen addresses of which only one can be bound.
    pub fn collisions(&self) -> Vec<Failure> {
        let all = self.listening();
        let mut found = Vec::new();
        for (at, one) in all.iter().enumerate() {
            for other in all.iter().skip(at + 1).filter(|other| one.address.collides(&other.address)) {
                let what = match one.key == other.key {
                    true => format!("{} has {} and {}", one.key, one.address, other.address),
                    false => {
                        format!("{} is {} and {} is {}", one.key, one.address, other.key, other.address)
                    }
                };
                let why = match (&one.address, one.address == other.address) {
                    (Address::Systemd(None), _) => "each would take all sockets of systemd",
                    (Address::Systemd(Some(_)), _) => "only one of them can have a socket of systemd",
                    (_, true) => "both are the same address",
                    (_, false) => "one of them is every address of this machine, which includes the other",
                };
                let remedy = match &one.address {
                    Address::Systemd(_) => {
                        "Give each socket a name of its own in its socket unit (FileDescriptorName=), and write \"systemd:NAME\"."
                    }
                    _ => "Remove one of them, or give it another port.",
                };
                found.push(Failure::usage(what, why, remedy));
            }
        }
        found
    }

    /// The addresses `[::]:port` that accept IPv6 only, since another key has an IPv4 address with that port, and whose own key
    /// has none: clients with IPv4 alone can't use that service. Each with the address that takes the port of IPv4.
    pub fn without_ipv4(&self) -> Vec<(Listening, Listening)> {
        let all = self.listening();
        let taker = |one: &Listening| {
            let takes = |other: &&Listening| one.address.leaves_ipv4_to([&other.address]);
            let takers: Vec<&Listening> = all.iter().filter(takes).collect();
            match takers.iter().any(|other| other.key == one.key) {
                true => None,
                false => takers.first().map(|other| (one.clone(), (*other).clone())),
            }
        };
        all.iter().filter_map(taker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collisions(text: &str) -> Vec<String> {
        let config = Config::parse(text, Some("/etc/s.toml".into())).unwrap();
        config.collisions().iter().map(|failure| failure.parts().0.to_owned()).collect()
    }

    #[test]
    fn the_documented_pairs_of_addresses_do_not_collide() {
        let text = "[answers]\n[host]\nlisten = [\"[::]:443\", \"0.0.0.0:443\"]\nhttp = [\"[::]:80\", \"0.0.0.0:80\"]\n[inbox]\naddresses = [\"a@b.example\"]\nsmtp = [\"[::]:25\", \"0.0.0.0:25\"]\n[dashboard]\n[admin]\ntoken_file = \"t\"\n[collector]\n[metrics]\nlisten = \"127.0.0.1:8462\"\n";
        assert_eq!(collisions(text), [] as [&str; 0]);
    }

    #[test]
    fn two_roles_at_one_address_are_found_in_every_pair_of_roles() {
        let keys = [
            ("[answers]\nlisten = [", "]", "answers.listen"),
            ("[answers]\nhttp = ", "", "answers.http"),
            ("[host]\nlisten = [", "]", "host.listen"),
            ("[host]\nhttp = [", "]", "host.http"),
            ("[inbox]\naddresses = [\"a@b.example\"]\nsmtp = [", "]", "inbox.smtp"),
            ("[inbox]\naddresses = [\"a@b.example\"]\nlmtp = [", "]", "inbox.lmtp"),
            ("[collector]\nhttp = ", "", "collector.http"),
            ("[dashboard]\nlisten = [", "]", "dashboard.listen"),
            ("[admin]\ntoken_file = \"t\"\nlisten = ", "", "admin.listen"),
            ("[metrics]\nlisten = ", "", "metrics.listen"),
        ];
        let section = |text: &str| text.split(']').next().unwrap().to_owned();
        for (at, (head, tail, key)) in keys.iter().enumerate() {
            for (other_head, other_tail, other_key) in keys.iter().skip(at + 1) {
                if section(head) == section(other_head) {
                    continue;
                }
                let address = "\"127.0.0.1:7777\"";
                let text = format!("{head}{address}{tail}\n{other_head}{address}{other_tail}\n");
                let found = collisions(&text);
                assert!(
                    found.len() == 1 && found[0].contains(key) && found[0].contains(other_key),
                    "{text}: {found:?}"
                );
            }
        }
        let twice =
            "[host]\nlisten = [\"[::]:443\", \"[::1]:443\"]\nhttp = [\"0.0.0.0:80\", \"127.0.0.1:80\"]\n";
        assert_eq!(
            collisions(twice),
            ["host.listen has [::]:443 and [::1]:443", "host.http has 0.0.0.0:80 and 127.0.0.1:80"]
        );
    }

    #[test]
    fn sockets_of_systemd_are_shared_out_by_name() {
        let text = "[answers]\nlisten = [\"systemd\", \"127.0.0.1:1\"]\nhttp = \"systemd:json\"\n[host]\nlisten = [\"systemd:policy\"]\nhttp = [\"systemd:http\"]\n\
            [inbox]\naddresses = [\"a@b.example\"]\nsmtp = [\"systemd:smtp\"]\nlmtp = [\"systemd:lmtp\"]\n[dashboard]\nlisten = [\"systemd:dashboard\"]\nurl = \"https://d.example\"\n\
            [admin]\nlisten = \"systemd:admin\"\ntoken_file = \"t\"\n[collector]\nsocket = \"systemd:tlsrpt\"\nhttp = \"systemd:sessions\"\n[metrics]\nlisten = \"systemd:metrics\"\n";
        assert_eq!(collisions(text), [] as [&str; 0]);
        let listening = Config::parse(text, None).unwrap().listening();
        let named = listening.iter().filter(|one| matches!(one.address, Address::Systemd(_))).count();
        assert_eq!(named, 11);
        let error_of = |text: &str| Config::parse(text, None).unwrap().collisions()[0].to_string();
        let error = error_of("[answers]\nlisten = [\"systemd\"]\n[host]\nlisten = [\"systemd\"]\n");
        assert!(error.contains("each would take all") && error.contains("FileDescriptorName="), "{error}");
        let error = error_of("[answers]\nlisten = [\"systemd:a\"]\nlines = [\"systemd:a\"]\n");
        assert!(error.contains("answers.listen is systemd:a and answers.lines is systemd:a"), "{error}");
        let error = Config::parse("[dashboard]\nlisten = [\"systemd:web\"]\n", None).unwrap_err().to_string();
        assert!(error.contains("dashboard.url"), "{error}");
        for (text, what) in [
            ("[admin]\ntoken_file = \"t\"\nlisten = \"/a\"\n", "not a valid listen address"),
            ("[dashboard]\nlisten = [\"unix:/a\"]\n", "not a valid listen address"),
            ("[collector]\nsocket = \"systemd:\"\n", "not a valid socket"),
            ("[answers]\nlisten = [\"systemd:a:b\"]\n", "\"systemd:NAME\""),
        ] {
            let error = Config::parse(text, None).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn an_ipv6_listener_whose_port_of_ipv4_another_role_takes_is_found() {
        let found = |listen: &str, metrics: &str| {
            let text = format!("[host]\nlisten = [{listen}]\n[metrics]\nlisten = \"{metrics}\"\n");
            let found = Config::parse(&text, None).unwrap().without_ipv4();
            found.iter().map(|(one, by)| format!("{} {}", one.address, by.key)).collect::<Vec<_>>()
        };
        assert_eq!(found("\"[::]:443\"", "127.0.0.1:443"), ["[::]:443 metrics.listen"]);
        for (listen, metrics) in [
            ("\"[::]:443\"", "127.0.0.1:444"),
            ("\"[::]:443\", \"192.0.2.1:443\"", "127.0.0.1:443"),
            ("\"[::1]:443\"", "127.0.0.1:443"),
            ("\"systemd\"", "127.0.0.1:443"),
        ] {
            assert_eq!(found(listen, metrics), [] as [&str; 0], "{listen}");
        }
    }
}
