//! Runs cases through a mail server: changes the domains, hands messages over, waits until the server has settled, and
//! judges what was seen. Cases run side by side; those that restart the server or move its clock run alone afterwards. The cases about TLS reports
//! come last, day by day (`run/days.rs`).

mod days;

use super::case::{Case, Change, Fate, Without};
use super::oracle::{Outcome, Seen, fate, judge};
use super::report::{CaseResult, PhaseResult};
use super::world::{SENDER, World};
use crate::traffic::{Event, FetchStep, MailStep, Observed, RecordType};
use net::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The mail server under test, and what can be done with it.
pub trait Sender: Send + Sync {
    /// Hands one message over. An error means that the server did not take it.
    fn inject<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<Progress, String>>;

    /// Lets so many seconds pass for the server and the mail for `domain`. An error is the reason why that can't be done.
    fn let_pass<'a>(&'a self, domain: &'a str, seconds: u32) -> BoxFuture<'a, Result<(), String>> {
        let _ = domain;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(seconds.into())).await;
            Ok(())
        })
    }

    /// The part that sends TLS reports. An error is the reason why there is none.
    fn reporter(&self) -> Result<&dyn SendsReports, String> {
        Err("nothing makes this mail server send TLS reports".to_owned())
    }

    /// Restarts the server. An error is the reason why that can't be done.
    fn restart(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Err("the mail server can't be restarted here".to_owned())))
    }
}

/// The part of a mail server that sends TLS reports (RFC 8460).
pub trait SendsReports: Send + Sync {
    /// Ends the day for the reporter: it sends its reports about all sessions so far, now. Sessions after that belong to the next
    /// day. An error is the reason why that can't be done.
    fn send_reports(&self) -> BoxFuture<'_, Result<Progress, String>>;
}

/// Whether the work is over when [`Sender::inject`] or [`SendsReports::send_reports`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is.
    Over,
    /// The server works on its own time.
    Running,
}

/// A message to hand over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The envelope sender.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The text with headers, lines ending in LF.
    pub text: String,
}

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many cases run side by side.
    pub at_once: usize,
    /// How long nothing may happen before the server counts as settled.
    pub quiet: Duration,
    /// The longest time for one phase.
    pub phase: Duration,
    /// The pause before each phase but the first, so that records with a TTL of a second expire in caches.
    pub pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            at_once: 24,
            quiet: Duration::from_secs(6),
            phase: Duration::from_secs(75),
            pause: Duration::from_secs(2),
        }
    }
}

/// The recipient of the message of phase number `number`, which is counted from 1.
pub fn recipient(case: &Case, number: usize) -> String {
    let below = case.phases.get(number.saturating_sub(1)).map(|phase| phase.below).unwrap_or_default();
    let dot = if below.is_empty() { "" } else { "." };
    format!("p{number}@{below}{dot}{}", case.domain())
}

/// The envelope sender of the message of phase number `number`.
pub fn envelope_sender(case: &Case, number: usize) -> String {
    format!("p{number}.{}@{SENDER}", case.id)
}

/// Runs all cases. `progress` is called with each result as soon as it is there; the returned results are in the order of
/// the cases.
pub async fn run(
    world: Arc<World>,
    sender: Arc<dyn Sender>,
    cases: &[Case],
    options: Options,
    progress: &(dyn Fn(&CaseResult) + Send + Sync),
) -> Vec<CaseResult> {
    let permits = Arc::new(Semaphore::new(options.at_once.max(1)));
    let mut tasks = JoinSet::new();
    let mut results: Vec<(usize, CaseResult)> = Vec::new();
    let has_days = |(_, case): &(usize, &Case)| !case.days.is_empty();
    let of_days: Vec<(usize, &Case)> = cases.iter().enumerate().filter(has_days).collect();
    let others = || cases.iter().enumerate().filter(|case| !has_days(case));
    for (at, case) in others().filter(|(_, case)| !case.runs_alone()) {
        let (world, sender, case, permits) = (world.clone(), sender.clone(), case.clone(), permits.clone());
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            (at, one(&world, sender.as_ref(), &case, options).await)
        });
    }
    while let Some(done) = tasks.join_next().await {
        if let Ok(result) = done {
            progress(&result.1);
            results.push(result);
        }
    }
    for (at, case) in others().filter(|(_, case)| case.runs_alone()) {
        let result = one(&world, sender.as_ref(), case, options).await;
        progress(&result);
        results.push((at, result));
    }
    results.extend(days::run(&world, &sender, &of_days, options, progress).await);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

async fn one(world: &World, sender: &dyn Sender, case: &Case, options: Options) -> CaseResult {
    let mut result = CaseResult::new(case);
    if let Some(why) = world.unable(case) {
        result.stop(Stop::NotObservable(why.to_owned()));
        return result;
    }
    for number in 1..=case.phases.len() {
        let outcome = phase(world, sender, case, number, options, &mut result).await;
        if outcome != Outcome::Conforms {
            break;
        }
    }
    result
}

async fn phase(
    world: &World,
    sender: &dyn Sender,
    case: &Case,
    number: usize,
    options: Options,
    result: &mut CaseResult,
) -> Outcome {
    let Some(phase) = case.phases.get(number - 1) else { return Outcome::LabFailed };
    for change in &phase.changes {
        let made = match change {
            Change::Pass(seconds) => {
                sender.let_pass(&case.domain(), *seconds).await.map_err(Stop::NotObservable)
            }
            Change::Restart => sender.restart().await.map_err(Stop::NotObservable),
            other => world.apply(case, other).await.map_err(|error| Stop::LabFailed(error.to_string())),
        };
        if let Err(stop) = made {
            return result.stop(stop);
        }
    }
    if number > 1 {
        tokio::time::sleep(options.pause).await;
    }
    let message = message(case, number);
    let (_, from) = world.events(case, usize::MAX);
    let injected = sender.inject(&message).await;
    let progress = match injected {
        Ok(progress) => progress,
        Err(why) => {
            return result.stop(Stop::LabFailed(format!("the mail server did not take the message: {why}")));
        }
    };
    if progress == Progress::Running {
        settle(world, case, number, from, options).await;
    }
    let (events, _) = world.events(case, from);
    if progress == Progress::Running && events.is_empty() {
        let why = format!("nothing was asked or tried within {} s", options.phase.as_secs());
        return result.stop(Stop::LabFailed(why));
    }
    let seen = Seen { fate: fate(case, number, &events), events };
    if progress == Progress::Running && number == 1 && case.without == Without::FallsShort && is_idle(&seen) {
        let why = "the mail server looked up addresses, and neither asked for a policy or TLSA records nor reached an MX host";
        return result.stop(Stop::NotObservable(why.into()));
    }
    let (outcome, why) = judge(case, phase, &seen);
    result.phases.push(PhaseResult::new(phase, &seen));
    result.judged(number, case.phases.len(), outcome, why)
}

/// Whether the message waits and the mail server did nothing that shows why: it may wait for its own limits. A sender that has no
/// policy in its cache can't know that it has to wait.
fn is_idle(seen: &Seen) -> bool {
    let says_something = |event: &Event| match &event.what {
        Observed::Dns(question) => matches!(question.kind, RecordType::TXT | RecordType::TLSA),
        Observed::Https(_) | Observed::Fetch(_) | Observed::Mail(_) => true,
    };
    seen.fate == Fate::Waits && !seen.events.iter().any(says_something)
}

/// Why a case ended without a verdict.
pub(super) enum Stop {
    /// The driver can't do what the case needs.
    NotObservable(String),
    /// The lab or the injection failed.
    LabFailed(String),
}

fn message(case: &Case, number: usize) -> Message {
    let (from, to) = (envelope_sender(case, number), recipient(case, number));
    let text = format!(
        "From: <{from}>\nTo: <{to}>\nSubject: {} {number}\nMessage-ID: <{}.{number}@{SENDER}>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\nA message of the yardstick.\n",
        case.id, case.id
    );
    Message { from, to, text }
}

/// Waits until the message has arrived or came back, or until no connection is open and nothing has happened for a while.
async fn settle(world: &World, case: &Case, number: usize, from: usize, options: Options) {
    let begun = Instant::now();
    let (mut count, mut last) = (0, begun);
    while begun.elapsed() < options.phase {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (events, _) = world.events(case, from);
        if events.len() != count {
            (count, last) = (events.len(), Instant::now());
        }
        let is_there = fate(case, number, &events) != Fate::Waits;
        let is_quiet = count > 0 && last.elapsed() > options.quiet && open_connections(&events) <= 0;
        if is_there || is_quiet {
            // What closes the connection is part of the record.
            tokio::time::sleep(Duration::from_millis(200)).await;
            return;
        }
    }
}

fn open_connections(events: &[Event]) -> i64 {
    let change = |event: &Event| match &event.what {
        Observed::Fetch(fetch) => match fetch.step {
            FetchStep::Hello => 1,
            FetchStep::Ended(_) => -1,
            _ => 0,
        },
        Observed::Mail(mail) => match mail.step {
            MailStep::Connected => 1,
            MailStep::Closed => -1,
            _ => 0,
        },
        _ => 0,
    };
    events.iter().map(change).sum()
}
