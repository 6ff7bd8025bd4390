//! The acts of the demo. Each runs the program's own code and then claims only what was observed: which messages
//! arrived, what the attacker read, what a store contains, what a sender fetches.

use super::playbill::Playbill;
use super::stage::{SECRET, Sender, Stage, deliver, describe, failed_at};
use check::Check;
use config::failure::Failure;
use formats::report::DateRange;
use formats::{Mode, PolicyId};
use lab::dns::{TamperedKind, Tampering};
use lab::reference_sender::{Delivery, Outcome, Protection};
use net::clock::Clock;
use receiver::rollout::gate::{Evidence, EvidenceInput, Gate, Thresholds, judge};
use receiver::rollout::plan::{Permit, PlannedStep, Step};
use receiver::rollout::{RolloutState, Verification};
use std::collections::BTreeSet;
use store::reports::Trust;

/// Messages that each sender delivers in a day; in two weeks enough for the gate to bound the failure rate.
const MESSAGES: usize = 25;
/// Maximum number of clean days until the gate must be open.
const MAX_POLLS: usize = 20;

/// Runs the seven acts; the summary follows as number eight.
pub async fn play(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    stripped(stage, bill).await?;
    explained(stage, bill).await;
    published(stage, bill).await?;
    reported(stage, bill).await?;
    repaired(stage, bill).await?;
    enforced(stage, bill).await?;
    defended(stage, bill).await
}

fn first(stage: &Stage) -> Result<&Sender, Failure> {
    stage.senders.first().ok_or_else(|| failed_at("the senders")(&"there are none"))
}

fn read_along(stage: &Stage) -> bool {
    stage.lab.mail_traffic.take_overheard().iter().any(|line| line.contains(SECRET))
}

async fn stripped(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("Without MTA-STS, STARTTLS is stripped and the message is read");
    stage.strip(true);
    let delivery = stage.deliver(first(stage)?).await?;
    let arrived = stage.lab.mail_traffic.take_received();
    let clear = arrived.iter().any(|mail| !mail.incoming.tls);
    bill.claim(
        "the sender delivers in the clear without any error",
        clear && in_the_clear(&delivery),
        describe(&delivery.outcome),
    );
    bill.claim(
        "the attacker has read the message",
        read_along(stage),
        format!("the attacker recorded: {SECRET}"),
    );
    Ok(())
}

fn in_the_clear(delivery: &Delivery) -> bool {
    matches!(delivery.outcome, Outcome::Delivered { protection: Protection::Clear, .. })
}

async fn explained(stage: &Stage, bill: &mut Playbill) {
    bill.act("`sternpost check` explains the problem");
    let seen = stage.checker.examine(&stage.domain).await;
    let found = |check| seen.findings.iter().find(|finding| finding.check == check);
    let shown = |check| {
        found(check).map_or(String::new(), |f| {
            let remedy = f.remedy.first().map_or(String::new(), |line| format!("\n{line}"));
            format!("{}: {}{remedy}", f.check, f.what)
        })
    };
    bill.claim(
        "it reports that the domain is not protected",
        seen.verdict.contains("not protected"),
        seen.verdict.clone(),
    );
    bill.claim(
        "it reports that no policy is announced",
        found(Check::StsTxtMissing).is_some(),
        shown(Check::StsTxtMissing),
    );
    bill.claim(
        "it reports that no TLS reports are requested",
        found(Check::RptTxtMissing).is_some(),
        shown(Check::RptTxtMissing),
    );
    bill.claim(
        "it detects that STARTTLS is stripped",
        found(Check::SmtpStripped).is_some(),
        shown(Check::SmtpStripped),
    );
    stage.strip(false);
}

async fn published(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("Plan and apply publish the policy in testing mode, in the safe order");
    let fail = failed_at("apply");
    let desired = stage.desired()?;
    let (applied, rests) =
        stage.applier.run(&desired, Permit::Testing, Verification::Await).await.map_err(|e| fail(&e))?;
    for step in &applied {
        bill.claim(step.step.to_string(), true, step.proof.clone());
    }
    let place = |wanted: fn(&Step) -> bool| applied.iter().position(|done| wanted(&done.step));
    let order =
        place(|step| matches!(step, Step::Serve(_))) < place(|step| matches!(step, Step::Announce(_)));
    bill.claim("the policy file was served before the record announced it", order && applied.len() == 3, "");
    bill.claim("the next step needs evidence", rests == PlannedStep::Gate, "");
    let seen = stage.applier.observe(&desired).await.map_err(|e| fail(&e))?.seen;
    let testing = seen.served.as_ref().is_some_and(|policy| policy.mode == Mode::Testing);
    bill.claim(
        "a sender finds the record and fetches a policy in testing mode",
        testing && seen.record.is_some(),
        "",
    );
    Ok(())
}

/// Simulates a day: messages, then midnight, then reports. Returns the number of reports sent.
async fn a_day(stage: &Stage) -> Result<u64, Failure> {
    let fail = failed_at("a day of mail");
    let today = DateRange::utc_day(stage.clock.now()).start;
    for sender in &stage.senders {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..MESSAGES {
            let (mail, domain, from) = (sender.mail.clone(), stage.domain.clone(), sender.name);
            tasks.spawn(async move { deliver(&mail, from, &domain).await });
        }
        let mut entries = Vec::new();
        while let Some(done) = tasks.join_next().await {
            entries.extend(done.map_err(|e| fail(&e))??.entries);
        }
        sender.store.add_to_tally(today, &entries).await.map_err(|e| fail(&e))?;
    }
    // Advance to ten minutes past midnight, when reports are built.
    let left = 86_400 - stage.clock.now().as_second().rem_euclid(86_400) + 600;
    stage.clock.advance(u32::try_from(left).map_err(|e| fail(&e))?);
    let mut sent = 0;
    for sender in &stage.senders {
        let before = sender.scheduler.counts.sent.get();
        sender.scheduler.turn().await.map_err(|e| fail(&e))?;
        sent += sender.scheduler.counts.sent.get() - before;
    }
    stage.lab.mail_traffic.take_received();
    stage.lab.mail_traffic.take_overheard();
    Ok(sent)
}

async fn evaluate(stage: &Stage) -> Result<(Evidence, Gate), Failure> {
    let fail = failed_at("the gate");
    let rollout: Option<RolloutState> = stage.store.rollout(&stage.domain).await.map_err(|e| fail(&e))?;
    let since = rollout.and_then(|rollout| rollout.mode).map_or(stage.clock.now(), |mode| mode.since);
    let reports = stage.store.reports_about(&stage.domain, since).await.map_err(|e| fail(&e))?;
    let (probes, mx_hosts, excused) = (&[], &[], &BTreeSet::new());
    let facts = EvidenceInput {
        reports: &reports,
        probes,
        mx_hosts,
        policy: None,
        since,
        excused,
        now: stage.clock.now(),
    };
    // The demo has two senders, and no guard.
    Ok(judge(&facts, &Thresholds { senders: 2, ..Thresholds::default() }))
}

async fn reported(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("Senders deliver, the attacker causes failures, and the reports contain them");
    stage.strip(true);
    let sent = a_day(stage).await?;
    bill.claim(
        "each sender's report is sent, and acknowledged only after it is stored",
        sent == 2,
        format!("{sent} reports by mail, DKIM-signed"),
    );
    let reports = stage
        .store
        .reports_about(&stage.domain, jiff::Timestamp::UNIX_EPOCH)
        .await
        .map_err(|e| failed_at("the reports")(&e))?;
    let verified = reports.iter().filter(|report| report.trust == Trust::Verified).count();
    bill.claim(
        "their DKIM signatures are valid",
        verified == 2,
        reports.iter().map(|r| r.submitter.as_str()).collect::<Vec<_>>().join(", "),
    );
    let (evidence, _) = evaluate(stage).await?;
    let stripped: u64 = evidence
        .failures
        .iter()
        .filter(|(cause, _)| cause.result == "starttls-not-supported")
        .map(|(_, count)| count)
        .sum();
    let causes: Vec<String> =
        evidence.failures.iter().map(|(cause, count)| format!("{cause}: {count} sessions")).collect();
    bill.claim(
        "the reports contain the failures that the attacker caused",
        stripped == 2 * MESSAGES as u64,
        causes.join("\n"),
    );
    Ok(())
}

async fn repaired(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("The gate stays closed, the fault is repaired, clean days follow, the gate opens");
    let fail = failed_at("the gate");
    let (_, shut) = evaluate(stage).await?;
    bill.claim("the gate refuses enforcement and gives the reason", shut != Gate::Ready, shut.to_string());
    let (applied, rests) = stage
        .applier
        .run(&stage.desired()?, permit(&shut), Verification::Await)
        .await
        .map_err(|e| fail(&e))?;
    bill.claim("the plan has no step to enforce mode", applied.is_empty() && rests == PlannedStep::Gate, "");
    stage.strip(false);
    bill.say("   · the device that stripped STARTTLS is removed; days pass");
    let mut days = 0;
    let mut state = shut;
    let mut last = None;
    while state != Gate::Ready && days < MAX_POLLS {
        a_day(stage).await?;
        days += 1;
        let (evidence, now) = evaluate(stage).await?;
        if days % 5 == 1 {
            bill.say(&format!("   · after day {days}: {now}"));
        }
        (state, last) = (now, Some(evidence));
    }
    let shown = last.map_or(String::new(), |e| {
        format!(
            "{} clean days, {} senders, {} sessions: failure rate below {:.2} % with 95 % confidence",
            e.clean_days,
            e.senders,
            e.clean_sessions,
            e.failure_rate_bound * 100.0
        )
    });
    bill.claim(format!("after {days} clean days the gate is open"), state == Gate::Ready && days >= 7, shown);
    Ok(())
}

fn permit(gate: &Gate) -> Permit {
    if *gate == Gate::Ready { Permit::Enforce } else { Permit::Testing }
}

async fn enforced(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("The policy changes to enforce with a new id, and senders fetch it again");
    let fail = failed_at("promotion");
    let desired = stage.desired()?;
    let before = stage.applier.observe(&desired).await.map_err(|e| fail(&e))?.seen;
    let (_, gate) = evaluate(stage).await?;
    let (applied, rests) =
        stage.applier.run(&desired, permit(&gate), Verification::Await).await.map_err(|e| fail(&e))?;
    let after = stage.applier.observe(&desired).await.map_err(|e| fail(&e))?.seen;
    let enforce = after.served.as_ref().is_some_and(|policy| policy.mode == Mode::Enforce);
    let shown = |id: &Option<PolicyId>| id.as_ref().map_or("none".to_owned(), ToString::to_string);
    let newer = before.record.as_ref().and_then(PolicyId::as_time)
        < after.record.as_ref().and_then(PolicyId::as_time);
    bill.claim(
        "the policy file has mode enforce, and the id is newer",
        enforce && newer && applied.len() == 2 && rests == PlannedStep::Done,
        format!("id {} to {}", shown(&before.record), shown(&after.record)),
    );
    for sender in &stage.senders {
        let delivery = stage.deliver(sender).await?;
        let held = sender.discovery.held(&stage.domain).await;
        let knows = held
            .is_some_and(|held| held.policy.mode == Mode::Enforce && Some(&held.id) == after.record.as_ref());
        bill.claim(
            format!("{} has fetched the new policy and verifies TLS", sender.name),
            knows && verified(&delivery),
            describe(&delivery.outcome),
        );
    }
    let tls = stage.lab.mail_traffic.take_received().iter().all(|mail| mail.incoming.tls);
    bill.claim("all messages arrived over TLS", tls, "");
    Ok(())
}

fn verified(delivery: &Delivery) -> bool {
    matches!(delivery.outcome, Outcome::Delivered { protection: Protection::Verified, .. })
}

async fn defended(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("The attacker strips STARTTLS again: mail is deferred instead of sent in the clear");
    let fail = failed_at("the last act");
    let record = format!("_mta-sts.{}.", stage.domain);
    let sender = first(stage)?;
    stage.strip(true);
    let waits = |delivery: &Delivery| {
        matches!(delivery.outcome, Outcome::Deferred(_))
            && stage.lab.mail_traffic.take_received().is_empty()
            && !read_along(stage)
    };
    let delivery = stage.deliver(sender).await?;
    bill.claim(
        "the message is deferred, and the attacker reads nothing",
        waits(&delivery),
        describe(&delivery.outcome),
    );
    stage.lab.names.meddle(&record, TamperedKind::Txt, Some(Tampering::Suppress)).map_err(|e| fail(&e))?;
    let delivery = stage.deliver(sender).await?;
    bill.claim(
        "with the record suppressed too, the cached policy still protects mail",
        waits(&delivery),
        describe(&delivery.outcome),
    );
    let restarted = stage.sender("north.test", "north.test").await?;
    let delivery = stage.deliver(&restarted).await?;
    bill.claim("after a restart of the sender, it still does", waits(&delivery), describe(&delivery.outcome));
    let stranger = stage.sender("west.test", "west.test").await?;
    let delivery = stage.deliver(&stranger).await?;
    bill.claim(
        "a sender without a cached policy is not protected: that needs DANE",
        in_the_clear(&delivery) && read_along(stage),
        describe(&delivery.outcome),
    );
    stage.lab.mail_traffic.take_received();
    stage.lab.names.meddle(&record, TamperedKind::Txt, None).map_err(|e| fail(&e))?;
    stage.strip(false);
    let delivery = stage.deliver(sender).await?;
    let arrived = stage.lab.mail_traffic.take_received().iter().any(|mail| mail.incoming.tls);
    bill.claim(
        "when the attack ends, the deferred message is delivered",
        verified(&delivery) && arrived,
        describe(&delivery.outcome),
    );
    let journal = stage.store.journal_of(&stage.domain).await.map_err(|e| fail(&e))?;
    bill.claim(
        "every step is recorded in the journal",
        journal.len() == 5,
        journal.iter().map(|line| format!("{} {}", line.at, line.what)).collect::<Vec<_>>().join("\n"),
    );
    stranger.store.close().await;
    restarted.store.close().await;
    Ok(())
}
