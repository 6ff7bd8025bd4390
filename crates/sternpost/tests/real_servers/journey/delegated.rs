//! A customer delegates by aliases, the fourth of which is for the challenges of the CA: the certificate is ordered by dns-01, with
//! no port open and without a change of the customer's zone.

use super::Journey;
use crate::support::{in_a_room_of_its_own, shell};

#[test]
fn the_fourth_alias_of_a_customer_lets_dns_01_order_without_an_open_port() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut on = Journey::begin(place.path());
        on.configure("[delegation]\nzone = \"ours.test\"\n");
        // The domain is kept in the store instead.
        let config = std::fs::read_to_string(place.path().join("sternpost.toml")).unwrap();
        std::fs::write(place.path().join("sternpost.toml"), config.split("# Proposed by").next().unwrap())
            .unwrap();
        on.want("http = [\"127.0.0.50:80\"]\n", "");
        on.want("profile = \"default\"", "profile = \"default\", challenge = \"dns-01\"");
        on.serve();
        let added = on.sternpost(
            "domains add harbour.test --delegated --dns rfc2136:knot --rua mailto:reports@ours.test",
        );
        let aliases: Vec<&str> =
            added.lines().map(str::trim).filter(|line| line.contains(" IN CNAME ")).collect();
        let fourth = "_acme-challenge.mta-sts.harbour.test. ";
        assert!(aliases.len() == 4 && aliases.iter().any(|alias| alias.starts_with(fourth)), "{added}");

        // The customer overlooks the fourth.
        let paste = |lines: &[&str]| {
            let words: Vec<String> =
                lines.iter().map(|line| format!("update add {}", line.replace(" IN ", " "))).collect();
            on.mx(&words.join("\\n"));
        };
        on.mx("update delete _mta-sts.harbour.test. TXT");
        let applied = on.ends("apply --patience 0", 1);
        assert!(
            applied.contains("publishes this in its zone, once") && applied.contains(fourth),
            "{applied}"
        );
        let (overlooked, others): (Vec<&str>, Vec<&str>) =
            aliases.iter().partition(|alias| alias.starts_with(fourth));
        paste(&others);
        let applied = on.ends("apply --patience 120", 3);
        assert!(applied.contains("its owner has to publish") && applied.contains(fourth.trim()), "{applied}");
        paste(&overlooked);
        let serial = || shell("dig @127.0.1.1 +short harbour.test SOA");
        let before = serial();
        // The next attempt is due after some minutes.
        on.wait(5);

        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("in testing"), "{applied}");
        let seen = on.foreigner("delegated");
        assert!(seen.contains("mode: testing") && seen.contains("rua=mailto:reports@ours.test"), "{seen}");
        assert!(on.log().contains("certificate issued"), "{}", on.log());
        assert_eq!(serial(), before, "the customer's zone was changed");
        let left = shell("dig @127.0.1.1 +short _acme-challenge.mta-sts.harbour.test.ours.test TXT");
        assert_eq!(left, "", "a challenge record is left");
    });
}
