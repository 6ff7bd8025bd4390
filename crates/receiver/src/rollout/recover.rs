//! Looks after changes of records that were cut off, because the program was killed or lost the connection. What was made in
//! part is put back. Records that others have published since are never touched. A change that can't be ended, such as one in a
//! zone that was given up since, stops the plan until the operator drops it ([`Applier::drop_changes`]).

use super::apply::{Applier, ApplyError, RecordedChange};
use super::desired::DesiredState;
use crate::publish::{Change, DnsPublisher, Previous, PublishError};
use formats::DomainName;
use jiff::Timestamp;
use net::BoxFuture;
use store::StoreError;
use store::record_changes::{ChangeState, StoredChange};

/// A change that was cut off can't be ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not known how far a change of {name} has come that was interrupted at {at:.0}: {why}. If its zone or its DNS provider is another one now, drop the change: sternpost undo --drop-change --reason TEXT {domain}"
)]
pub struct CutOff {
    /// The domain whose plan the change belongs to.
    pub domain: DomainName,
    /// The owner name of the records, or what is wrong with the stored change.
    pub name: String,
    /// When the change began.
    pub at: Timestamp,
    /// Why it can't be ended.
    pub why: String,
}

/// What was done with the changes that could be ended, and the dropped ones.
pub type EndedChanges = (Vec<String>, Vec<DroppedChange>);

/// A change that was cut off, and that the operator has dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedChange {
    /// When it began.
    pub at: Timestamp,
    /// The change; `None` if this release can't read it.
    pub change: Option<RecordedChange>,
    /// Why it could not be ended.
    pub why: String,
}

impl DroppedChange {
    /// The owner name of the records, in words.
    pub fn name(&self) -> String {
        self.change.as_ref().map_or(UNREADABLE.to_owned(), |change| change.name.to_string())
    }

    /// The records before the change and those after it, in zone-file form; `None` if this release can't read them.
    pub fn records(&self) -> Option<[String; 2]> {
        let change = self.change.as_ref()?;
        let after = Change { name: change.name.clone(), records: change.after.clone() };
        let in_words = |lines: &[String]| match lines {
            [] => "no record".to_owned(),
            lines => lines.join(" and "),
        };
        Some([in_words(&change.before.lines), in_words(&after.lines())])
    }
}

/// Stands for the name in a stored change that can't be read.
const UNREADABLE: &str = "a record";

/// A change as it is stored, whatever its form.
type Stored = StoredChange<serde_json::Value>;

impl Applier {
    /// Ends all changes of records that were cut off: the old records are put back where a change was made in part. What the
    /// plan still needs is then published by its next step. Records that are neither the old nor the new ones, nor a part of
    /// both, are those of others, and stay. Returns what was done, for the journal and the operator. Should not be
    /// interrupted.
    ///
    /// # Errors
    ///
    /// [`ApplyError::CutOff`] if the publisher can't read or change the records, as after the zone has moved.
    pub fn recover<'a>(
        &'a self,
        desired: &'a DesiredState,
    ) -> BoxFuture<'a, Result<Vec<String>, ApplyError>> {
        Box::pin(async move {
            let mut done = Vec::new();
            for stored in self.cut_off(&desired.domain).await? {
                done.extend(self.end_change(&desired.domain, &stored).await?);
            }
            Ok(done)
        })
    }

    /// Drops the changes that were cut off and can't be ended, so that the plan goes on from what is observed. The others are
    /// ended as by [`Self::recover`]. Returns what was done with those, and the dropped ones. `who` and `reason` are for the
    /// journal.
    ///
    /// # Errors
    ///
    /// If the store fails, or if another program is changing the records.
    pub fn drop_changes<'a>(
        &'a self,
        desired: &'a DesiredState,
        who: &'a str,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<EndedChanges, ApplyError>> {
        Box::pin(async move {
            let (mut done, mut dropped) = (Vec::new(), Vec::new());
            for stored in self.cut_off(&desired.domain).await? {
                match self.end_change(&desired.domain, &stored).await {
                    Ok(what) => done.extend(what),
                    Err(ApplyError::CutOff(CutOff { at, why, .. })) => {
                        let one = DroppedChange { at, change: read(&stored).ok(), why };
                        self.drop_change(&desired.domain, stored.id, &one, who, reason).await?;
                        dropped.push(one);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok((done, dropped))
        })
    }

    async fn cut_off(&self, domain: &DomainName) -> Result<Vec<Stored>, StoreError> {
        let changes = self.store.record_changes(domain).await?;
        Ok(changes.into_iter().filter(|stored| stored.state == ChangeState::Begun).collect())
    }

    /// Ends one change, and returns what the operator should know about it.
    async fn end_change(&self, domain: &DomainName, stored: &Stored) -> Result<Option<String>, ApplyError> {
        let unknown = |name: String, why: String| CutOff { domain: domain.clone(), name, at: stored.at, why };
        let change = read(stored).map_err(|error| unknown(UNREADABLE.to_owned(), error.to_string()))?;
        self.store.check_lease()?;
        let (state, what) = match &self.publisher {
            Some(publisher) => match end(publisher.as_ref(), &change, stored.at).await {
                // Somebody changes the records at this moment.
                Err(error) if error.is_conflict => return Err(error.into()),
                ended => ended.map_err(|error| unknown(change.name.to_string(), error.to_string()))?,
            },
            None => {
                let why = "the operator changes the records now";
                (ChangeState::Unmade, Some(left(&change, stored.at, why)))
            }
        };
        if let Some(what) = &what {
            self.store.journal(domain, self.clock.now(), "planner", what).await?;
        }
        self.store.set_record_change(stored.id, state).await?;
        Ok(what)
    }

    async fn drop_change(
        &self,
        domain: &DomainName,
        id: i64,
        one: &DroppedChange,
        who: &str,
        reason: &str,
    ) -> Result<(), StoreError> {
        let records = match one.records() {
            Some([before, after]) => format!(". Before it: {before}. After it: {after}"),
            None => String::new(),
        };
        let what = format!(
            "a change of {} that was interrupted at {:.0} was dropped, although it is not known how far it has come ({}){records}. Reason: {reason}",
            one.name(),
            one.at,
            one.why
        );
        self.store.journal(domain, self.clock.now(), who, &what).await?;
        self.store.set_record_change(id, ChangeState::Unmade).await
    }
}

fn read(stored: &Stored) -> Result<RecordedChange, serde_json::Error> {
    serde_json::from_value(stored.change.clone())
}

/// Ends one change. Returns its new state, and the text for the operator if there is one.
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
            true => "another program has removed the records since".to_owned(),
            false => format!("another program has changed the records since: {}", there.lines.join(" and ")),
        };
        return Ok((ChangeState::Unmade, Some(left(cut, at, &why))));
    }
    let Some(old) = cut.before.records.clone() else {
        // As two TXT records of one version. The new record may announce what is no longer served: that is for the plan.
        return Ok((ChangeState::Unmade, Some(left(cut, at, "the old records can't be published again"))));
    };
    publisher.put(&Change { records: old, ..change }, &there).await?;
    let what = format!("a change of {} that was interrupted at {at:.0} was undone", cut.name);
    Ok((ChangeState::Unmade, Some(what)))
}

fn left(cut: &RecordedChange, at: Timestamp, why: &str) -> String {
    format!("a change of {} that was interrupted at {at:.0} was not undone: {why}", cut.name)
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
