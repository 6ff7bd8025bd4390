//! The acts. Each does something through the product's own code and claims only what it observed:
//! what arrived, what the attacker read, what is in a store, what a sender fetches.

use super::playbill::Playbill;
use super::stage::{SECRET, Sender, Stage, deliver, told, trouble};
use check::Check;
use config::failure::Failure;
use formats::report::DateRange;
use formats::{Mode, PolicyId};
use lab::dns::{TamperedKind, Tampering};
use net::clock::Clock;
use receiver::rollout::gate::{Evidence, Gate, Thresholds, evidence, gate};
use receiver::rollout::plan::{Permit, PlannedStep, Step};
use receiver::rollout::{RolloutState, Verification};
use sender::walk::{Outcome, Protection, Walk};
use std::collections::BTreeSet;
use store::reports::Trust;

/// Messages that each sender delivers on a day: over two weeks enough to bound the failure rate.
const MESSAGES: usize = 25;
/// Clean days after which the gate has to be open.
const MAX_POLLS: usize = 20;

/// Plays the seven acts; the eighth is the summary.
pub async fn play(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    stripped(stage, bill).await?;
    explained(stage, bill).await;
    put_up(stage, bill).await?;
    tested(stage, bill).await?;
    cured(stage, bill).await?;
    enforced(stage, bill).await?;
    defended(stage, bill).await
}

fn first(stage: &Stage) -> Result<&Sender, Failure> {
    stage.senders.first().ok_or_else(|| trouble("the senders")(&"there are none"))
}

fn read_along(stage: &Stage) -> bool {
    stage.lab.post.take_overheard().iter().any(|line| line.contains(SECRET))
}

async fn stripped(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("Without MTA-STS, STARTTLS is stripped and the message is read");
    stage.strip(true);
    let walk = stage.deliver(first(stage)?).await?;
    let arrived = stage.lab.post.take_received();
    let clear = arrived.iter().any(|mail| !mail.incoming.tls);
    bill.claim(
        "the sender delivers in the clear and notices nothing",
        clear && in_the_clear(&walk),
        told(&walk.outcome),
    );
    bill.claim("the attacker has read the message", read_along(stage), format!("he wrote down: {SECRET}"));
    Ok(())
}

fn in_the_clear(walk: &Walk) -> bool {
    matches!(walk.outcome, Outcome::Delivered { protection: Protection::Clear, .. })
}

async fn explained(stage: &Stage, bill: &mut Playbill) {
    bill.act("The check explains");
    let seen = stage.checker.examine(&stage.domain).await;
    let found = |check| seen.findings.iter().find(|finding| finding.check == check);
    let shown = |check| {
        found(check).map_or(String::new(), |f| {
            let remedy = f.remedy.first().map_or(String::new(), |line| format!("\n{line}"));
            format!("{}: {}{remedy}", f.check, f.what)
        })
    };
    bill.claim(
        "it sees that the domain is not protected",
        seen.verdict.contains("not protected"),
        seen.verdict.clone(),
    );
    bill.claim(
        "it finds that no policy is announced",
        found(Check::StsTxtMissing).is_some(),
        shown(Check::StsTxtMissing),
    );
    bill.claim(
        "it finds that nobody is asked for reports",
        found(Check::RptTxtMissing).is_some(),
        shown(Check::RptTxtMissing),
    );
    bill.claim(
        "it sees the hand on the line",
        found(Check::SmtpStripped).is_some(),
        shown(Check::SmtpStripped),
    );
    stage.strip(false);
}

async fn put_up(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("Plan and apply put up the policy in testing, in the safe order");
    let fail = trouble("apply");
    let wanted = stage.wanted()?;
    let (applied, rests) =
        stage.applier.run(&wanted, Permit::Testing, Verification::Await).await.map_err(|e| fail(&e))?;
    for step in &applied {
        bill.claim(step.step.to_string(), true, step.proof.clone());
    }
    let place = |wanted: fn(&Step) -> bool| applied.iter().position(|done| wanted(&done.step));
    let order =
        place(|step| matches!(step, Step::Serve(_))) < place(|step| matches!(step, Step::Announce(_)));
    bill.claim("the file was served before the record announced it", order && applied.len() == 3, "");
    bill.claim("what is left takes evidence", rests == PlannedStep::Gate, "");
    let (_, seen) = stage.applier.look(&wanted).await.map_err(|e| fail(&e))?;
    let testing = seen.served.as_ref().is_some_and(|policy| policy.mode == Mode::Testing);
    bill.claim(
        "a sender finds the record and fetches a policy in testing",
        testing && seen.record.is_some(),
        "",
    );
    Ok(())
}

/// A day: messages, then midnight, then reports.
async fn a_day(stage: &Stage) -> Result<u64, Failure> {
    let fail = trouble("a day of mail");
    let today = DateRange::utc_day(stage.clock.now()).start;
    for sender in &stage.senders {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..MESSAGES {
            let (walker, domain, from) = (sender.walker.clone(), stage.domain.clone(), sender.name);
            tasks.spawn(async move { deliver(&walker, from, &domain).await });
        }
        let mut entries = Vec::new();
        while let Some(done) = tasks.join_next().await {
            entries.extend(done.map_err(|e| fail(&e))??.entries);
        }
        sender.store.add_to_tally(today, &entries).await.map_err(|e| fail(&e))?;
    }
    // Ten minutes past the next midnight, when reports are built.
    let left = 86_400 - stage.clock.now().as_second().rem_euclid(86_400) + 600;
    stage.clock.advance(u32::try_from(left).map_err(|e| fail(&e))?);
    let mut sent = 0;
    for sender in &stage.senders {
        let before = sender.scheduler.counts.sent.get();
        sender.scheduler.turn().await.map_err(|e| fail(&e))?;
        sent += sender.scheduler.counts.sent.get() - before;
    }
    stage.lab.post.take_received();
    stage.lab.post.take_overheard();
    Ok(sent)
}

async fn weigh(stage: &Stage) -> Result<(Evidence, Gate), Failure> {
    let fail = trouble("the gate");
    let rollout: Option<RolloutState> = stage.store.rollout(&stage.domain).await.map_err(|e| fail(&e))?;
    let since = rollout.and_then(|rollout| rollout.mode).map_or(stage.clock.now(), |mode| mode.since);
    let reports = stage.store.reports_about(&stage.domain, since).await.map_err(|e| fail(&e))?;
    let evidence = evidence(&reports, &[], since, &BTreeSet::new(), stage.clock.now());
    let gate = gate(&evidence, &Thresholds::default());
    Ok((evidence, gate))
}

async fn tested(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("Senders deliver, the attacker makes failures, and reports tell of them");
    stage.strip(true);
    let sent = a_day(stage).await?;
    bill.claim(
        "each sender's report is sent, and taken in only once it is stored",
        sent == 2,
        format!("{sent} reports by mail, DKIM-signed"),
    );
    let reports = stage
        .store
        .reports_about(&stage.domain, jiff::Timestamp::UNIX_EPOCH)
        .await
        .map_err(|e| trouble("the reports")(&e))?;
    let verified = reports.iter().filter(|report| report.trust == Trust::Verified).count();
    bill.claim(
        "their signatures hold",
        verified == 2,
        reports.iter().map(|r| r.submitter.as_str()).collect::<Vec<_>>().join(", "),
    );
    let (evidence, _) = weigh(stage).await?;
    let stripped: u64 = evidence
        .failures
        .iter()
        .filter(|(cause, _)| cause.result == "starttls-not-supported")
        .map(|(_, count)| count)
        .sum();
    let causes: Vec<String> =
        evidence.failures.iter().map(|(cause, count)| format!("{cause}: {count} sessions")).collect();
    bill.claim("the reports say what the attacker did", stripped == 2 * MESSAGES as u64, causes.join("\n"));
    Ok(())
}

async fn cured(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("The gate refuses, the fault is cured, clean days follow, the gate opens");
    let fail = trouble("the gate");
    let (_, shut) = weigh(stage).await?;
    bill.claim("the gate refuses enforcement and says why", shut != Gate::Ready, shut.to_string());
    let (applied, rests) = stage
        .applier
        .run(&stage.wanted()?, permit(&shut), Verification::Await)
        .await
        .map_err(|e| fail(&e))?;
    bill.claim("the plan has no step to enforce", applied.is_empty() && rests == PlannedStep::Gate, "");
    stage.strip(false);
    bill.say("   · the box that stripped STARTTLS is taken out; days pass");
    let mut days = 0;
    let mut state = shut;
    let mut last = None;
    while state != Gate::Ready && days < MAX_POLLS {
        a_day(stage).await?;
        days += 1;
        let (evidence, now) = weigh(stage).await?;
        if days % 5 == 1 {
            bill.say(&format!("   · after {days}: {now}"));
        }
        (state, last) = (now, Some(evidence));
    }
    let shown = last.map_or(String::new(), |e| {
        format!(
            "{} clean days, {} senders, {} sessions: under {:.2} % fail, at 95 %",
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
    bill.act("The policy goes to enforce under a new id, and senders fetch it again");
    let fail = trouble("promotion");
    let wanted = stage.wanted()?;
    let (_, before) = stage.applier.look(&wanted).await.map_err(|e| fail(&e))?;
    let (_, gate) = weigh(stage).await?;
    let (applied, rests) =
        stage.applier.run(&wanted, permit(&gate), Verification::Await).await.map_err(|e| fail(&e))?;
    let (_, after) = stage.applier.look(&wanted).await.map_err(|e| fail(&e))?;
    let enforce = after.served.as_ref().is_some_and(|policy| policy.mode == Mode::Enforce);
    let shown = |id: &Option<PolicyId>| id.as_ref().map_or("none".to_owned(), ToString::to_string);
    let newer = before.record.as_ref().and_then(PolicyId::as_time)
        < after.record.as_ref().and_then(PolicyId::as_time);
    bill.claim(
        "the file says enforce, and the id is newer",
        enforce && newer && applied.len() == 2 && rests == PlannedStep::Done,
        format!("id {} to {}", shown(&before.record), shown(&after.record)),
    );
    for sender in &stage.senders {
        let walk = stage.deliver(sender).await?;
        let held = sender.walker.discovery.held(&stage.domain).await;
        let knows = held
            .is_some_and(|held| held.policy.mode == Mode::Enforce && Some(&held.id) == after.record.as_ref());
        bill.claim(
            format!("{} has fetched the new policy and verifies TLS", sender.name),
            knows && verified(&walk),
            told(&walk.outcome),
        );
    }
    let tls = stage.lab.post.take_received().iter().all(|mail| mail.incoming.tls);
    bill.claim("all of it arrived through TLS", tls, "");
    Ok(())
}

fn verified(walk: &Walk) -> bool {
    matches!(walk.outcome, Outcome::Delivered { protection: Protection::Verified, .. })
}

async fn defended(stage: &Stage, bill: &mut Playbill) -> Result<(), Failure> {
    bill.act("The attacker strips again: mail waits instead of going in the clear");
    let fail = trouble("the last act");
    let record = format!("_mta-sts.{}.", stage.domain);
    let sender = first(stage)?;
    stage.strip(true);
    let waits = |walk: &Walk| {
        matches!(walk.outcome, Outcome::Deferred(_))
            && stage.lab.post.take_received().is_empty()
            && !read_along(stage)
    };
    let walk = stage.deliver(sender).await?;
    bill.claim("the message is deferred, and the attacker reads nothing", waits(&walk), told(&walk.outcome));
    stage.lab.names.meddle(&record, TamperedKind::Txt, Some(Tampering::Suppress)).map_err(|e| fail(&e))?;
    let walk = stage.deliver(sender).await?;
    bill.claim(
        "with the record suppressed too, the cached policy still protects",
        waits(&walk),
        told(&walk.outcome),
    );
    let restarted = stage.sender("north.test", "north.test").await?;
    let walk = stage.deliver(&restarted).await?;
    bill.claim("and after a restart of the sender as well", waits(&walk), told(&walk.outcome));
    let stranger = stage.sender("west.test", "west.test").await?;
    let walk = stage.deliver(&stranger).await?;
    bill.claim(
        "a sender that never met the domain can't know: DANE is for that",
        in_the_clear(&walk) && read_along(stage),
        told(&walk.outcome),
    );
    stage.lab.post.take_received();
    stage.lab.names.meddle(&record, TamperedKind::Txt, None).map_err(|e| fail(&e))?;
    stage.strip(false);
    let walk = stage.deliver(sender).await?;
    let arrived = stage.lab.post.take_received().iter().any(|mail| mail.incoming.tls);
    bill.claim(
        "when the attack ends, the waiting message is delivered",
        verified(&walk) && arrived,
        told(&walk.outcome),
    );
    let journal = stage.store.journal_of(&stage.domain).await.map_err(|e| fail(&e))?;
    bill.claim(
        "every step stands in the journal",
        journal.len() == 5,
        journal.iter().map(|line| format!("{} {}", line.at, line.what)).collect::<Vec<_>>().join("\n"),
    );
    stranger.store.close().await;
    restarted.store.close().await;
    Ok(())
}
