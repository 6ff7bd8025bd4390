//! `sternpost domains strangers`: domains whose owners point their policy host here although it has no policy for them.

use crate::terminal::show;
use config::failure::Failure;
use operations::{RolloutContext, store_failure};
use std::fmt::Write;
use store::strangers::Stranger;

/// Prints the domains, those that were requested last first.
pub async fn list(context: &RolloutContext, json: bool, limit: u32) -> Result<(), Failure> {
    let all = context.store.strangers(limit).await.map_err(|error| store_failure(&error))?;
    match json {
        true => show(&format!("{}\n", members(&all))),
        false => show(&table(&all)),
    }
    Ok(())
}

fn members(all: &[Stranger]) -> serde_json::Value {
    let one = |one: &Stranger| {
        serde_json::json!({
            "domain": one.domain, "first": one.first_at, "last": one.last_at, "requests": one.requests,
        })
    };
    serde_json::json!({ "schema": 1, "strangers": all.iter().map(one).collect::<Vec<_>>() })
}

fn table(all: &[Stranger]) -> String {
    if all.is_empty() {
        return "No domain is known that points here without a policy.\n".to_owned();
    }
    let mut out = format!("{:<40} {:>10} {:<17} LAST, UTC\n", "DOMAIN", "REFUSED", "FIRST, UTC");
    let minute = |at: jiff::Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
    for one in all {
        let (first, last) = (minute(one.first_at), minute(one.last_at));
        let _ = writeln!(out, "{:<40} {:>10} {first:<17} {last}", one.domain.as_str(), one.requests);
    }
    out.push_str(
        "\nTheir owners point mta-sts.DOMAIN here, and clients that ask for the policy get a TLS error. A sender that has an earlier policy \
         keeps it until it expires.\nFor a customer, add the domain: sternpost domains add DOMAIN\nFor anybody else, ask the owner to remove \
         the records at mta-sts.DOMAIN and _mta-sts.DOMAIN.\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_to_do_about_each_domain() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let one = Stranger {
            domain: formats::DomainName::parse("left.example").unwrap(),
            first_at: at(1_800_000_000),
            last_at: at(1_800_086_400),
            requests: 12,
        };
        let text = table(std::slice::from_ref(&one));
        assert!(
            text.contains(
                "left.example                                     12 2027-01-15 08:00  2027-01-16 08:00\n"
            ),
            "{text}"
        );
        assert!(text.contains("sternpost domains add DOMAIN"), "{text}");
        assert_eq!(members(&[one])["strangers"][0]["last"], "2027-01-16T08:00:00Z");
        assert!(table(&[]).starts_with("No domain is known"));
    }
}
