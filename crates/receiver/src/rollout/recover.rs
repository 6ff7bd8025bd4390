//! Looks after changes of records that were cut off, because the program was killed or lost the connection. What was made in
//! part is put back. Records that others have published since are never touched.

use super::apply::{Applier, ApplyError, RecordedChange};
use super::desired::DesiredState;
use crate::publish::{Change, DnsPublisher, Previous, PublishError};
use jiff::Timestamp;
use net::BoxFuture;
use store::record_changes::ChangeState;

impl Applier {
    /// Ends all changes of records that were cut off: the old records are put back where a change was made in part. What the
    /// plan still needs is then published by its next step. Records that are neither the old nor the new ones, nor a part of
    /// both, are those of others, and stay. Returns what was done, for the journal and the operator. Should not be
    /// interrupted.
    pub fn recover<'a>(&'a self, wanted: &'a DesiredState) -> BoxFuture<'a, Result<Vec<String>, ApplyError>> {
        Box::pin(async move {
            let mut done = Vec::new();
            let changes = self.store.record_changes::<RecordedChange>(&wanted.domain).await?;
            for stored in changes.into_iter().filter(|stored| stored.state == ChangeState::Begun) {
                let (state, what) = match &self.publisher {
                    Some(publisher) => end(publisher.as_ref(), &stored.change, stored.at).await?,
                    None => {
                        let why = "the operator changes the records now";
                        (ChangeState::Unmade, Some(left(&stored.change, stored.at, why)))
                    }
                };
                if let Some(what) = what {
                    self.store.journal(&wanted.domain, self.clock.now(), "planner", &what).await?;
                    done.push(what);
                }
                self.store.set_record_change(stored.id, state).await?;
            }
            Ok(done)
        })
    }
}

/// Ends one change. Returns how far it has come, and what to tell.
async fn end(
    publisher: &dyn DnsPublisher,
    cut: &RecordedChange,
    at: Timestamp,
) -> Result<(ChangeState, Option<String>), PublishError> {
    let change = Change { name: cut.name.clone(), records: cut.after.clone() };
    let there = publisher.read(&change).await?;
    if there.is(&cut.after) {
        return Ok((ChangeState::Done, None));
    }
    if there.lines == cut.before.lines {
        return Ok((ChangeState::Unmade, None));
    }
    if publisher.is_whole() || !is_part(&there, &cut.before, &change) {
        let why = match there.lines.is_empty() {
            true => "others have removed the records since".to_owned(),
            false => format!("others have changed the records since: {}", there.lines.join(" and ")),
        };
        return Ok((ChangeState::Unmade, Some(left(cut, at, &why))));
    }
    let Some(old) = cut.before.records.clone() else {
        // As two TXT records of one version. The new record may announce what is no longer served: that is for the plan.
        return Ok((ChangeState::Unmade, Some(left(cut, at, "the old records can't be published again"))));
    };
    publisher.put(&Change { records: old, ..change }, &there).await?;
    let what = format!("a change of {} that was cut off at {at:.0} was undone", cut.name);
    Ok((ChangeState::Unmade, Some(what)))
}

fn left(cut: &RecordedChange, at: Timestamp, why: &str) -> String {
    format!("a change of {} that was cut off at {at:.0} was left as it is: {why}", cut.name)
}

/// True if all records that are there are old or new ones, as after a change that was cut in two.
fn is_part(there: &Previous, before: &Previous, after: &Change) -> bool {
    let after = after.lines();
    let known: Vec<_> = before.lines.iter().chain(&after).map(|line| content(line)).collect();
    there.lines.iter().all(|line| known.contains(&content(line)))
}

/// Type and data of a record in zone-file form, without its name and TTL, which publishers write in different ways.
fn content(line: &str) -> (String, String) {
    let mut words =
        line.split_whitespace().skip_while(|word| !matches!(*word, "TXT" | "CNAME" | "A" | "AAAA"));
    let kind = words.next().unwrap_or_default().to_owned();
    let data = words.collect::<Vec<_>>().join(" ");
    let data = data.trim_matches('"').trim_end_matches('.');
    let data = if kind == "TXT" { data.to_owned() } else { data.to_ascii_lowercase() };
    (kind, data)
}
