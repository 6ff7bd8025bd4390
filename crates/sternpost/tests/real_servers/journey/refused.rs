//! `sternpost apply` for a domain whose policy host gets no certificate: it says why, and what to set.

use super::Journey;
use crate::support::in_a_room_of_its_own;

#[test]
fn apply_says_why_the_policy_host_has_no_certificate() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut on = Journey::begin(place.path());
        on.configure("");
        // The CA is private, and nothing says so.
        on.want("ca_file = \"pebble/root.pem\", ", "");
        on.serve();
        let applied = on.ends("apply --patience 20", 1);
        for part in ["It has no certificate: ", "unknown root", "ca_file = \"ca.pem\"", "resumes here"] {
            assert!(applied.contains(part), "{part}: {applied}");
        }
    });
}
