//! Checks that JSON rows stored by earlier versions can be read and are written back unchanged, after types were
//! renamed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sternpost_receiver::domain::DomainSpec;
use sternpost_receiver::rollout::RolloutState;
use sternpost_receiver::rollout::decisions::Decisions;
use sternpost_receiver::rollout::guard::Alert;

/// A row of the table `rollout` with every member.
const ROLLOUT: &str = r#"{"mode":{"mode":"enforce","since":"2026-10-01T00:00:00Z"},
"promises":[{"mode":"testing","max_age":86400,"mx":["mx1.a.example"],"until":"2026-10-01T00:00:00Z"},
{"mode":"enforce","max_age":604800,"mx":["mx1.a.example","*.b.example"],"until":null},
{"mode":"enforce","max_age":31557600,"mx":["mx1.a.example"],"until":null,"assumed":true}],
"announce_due":true,"offered":"20261001000001","last_id":"20261001000000","approved":"2026-09-30T12:00:00Z",
"mx":["mx1.a.example"],"mx_ttl":300,"gone":[{"host":"old.a.example","until":"2026-10-01T01:00:00Z"}],
"unused":[{"pattern":"*.b.example","since":"2026-10-01T00:00:00Z"}]}"#;

/// A row of the table `decision`.
const DECISIONS: &str = r#"{"held":{"reason":"migration","who":"ann","at":"2026-10-01T00:00:00Z"},
"excused":[{"cause":{"result":"certificate-expired","host":"mx1.a.example"},"reason":"renewed","who":"bob","at":"2026-10-02T00:00:00Z"}]}"#;

/// A row of the table `alert`.
const ALERT: &str =
    r#"{"kind":"mx-uncovered","subject":"mx2.a.example","what":"w","consequence":"c","remedy":"r"}"#;

/// A row of the table `domain`.
const DOMAIN: &str = r#"{"name":"a.example","mode":"enforce","mx":["mx1.a.example"],
"max_age":{"testing":86400,"enforce":604800,"before":31557600},"host":"self","dns":"rfc2136:ns1","repair":true,
"auto_promote":false,"delegated":true,"rua":["mailto:r@a.example"]}"#;

fn assert_round_trip<T: Serialize + DeserializeOwned>(row: &str) {
    let read: T = serde_json::from_str(row).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(row).unwrap());
}

#[test]
fn rows_of_earlier_versions_are_read_and_written_back_the_same() {
    assert_round_trip::<RolloutState>(ROLLOUT);
    assert_round_trip::<Decisions>(DECISIONS);
    assert_round_trip::<Alert>(ALERT);
    assert_round_trip::<DomainSpec>(DOMAIN);
}

#[test]
fn a_row_with_members_left_out_is_read() {
    assert_eq!(serde_json::from_str::<RolloutState>("{}").unwrap(), RolloutState::default());
    assert_eq!(serde_json::from_str::<Decisions>("{}").unwrap(), Decisions::default());
}
