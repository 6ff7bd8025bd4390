//! Runs the cases about TLS reports: the messages of a day side by side, then the reports about that day, for all cases at once, since
//! a mail server ends its day once for all domains.

use super::{Options, Progress, Sender, Stop, phase};
use crate::conformance::case::Case;
use crate::conformance::oracle::Outcome;
use crate::conformance::report::{CaseResult, DayResult};
use crate::conformance::world::World;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One case on its way through the days.
struct Run {
    at: usize,
    case: Case,
    result: CaseResult,
    /// How many messages were sent.
    messages: usize,
    /// How many of its reports were judged.
    judged: usize,
    /// Whether the case has its outcome before its last day.
    is_over: bool,
}

/// Runs the cases, each with its place in the table, and returns the results with these places.
pub(super) async fn run(
    world: &Arc<World>,
    sender: &Arc<dyn Sender>,
    cases: &[(usize, &Case)],
    options: Options,
    progress: &(dyn Fn(&CaseResult) + Send + Sync),
) -> Vec<(usize, CaseResult)> {
    let new = |(at, case): &(usize, &Case)| Run {
        at: *at,
        case: (*case).clone(),
        result: CaseResult::new(case),
        messages: 0,
        judged: 0,
        is_over: false,
    };
    let mut runs: Vec<Run> = cases.iter().map(new).collect();
    let days = runs.iter().map(|run| run.case.days.len()).max().unwrap_or(0);
    for day in 0..days {
        let reporter = match sender.reporter() {
            Ok(reporter) => reporter,
            Err(why) => {
                runs.iter_mut().for_each(|run| run.stop(&why));
                break;
            }
        };
        runs = messages(world, sender, runs, day, options).await;
        match reporter.send_reports().await {
            Ok(Progress::Over) => {
                world.collect_reports();
            }
            Ok(Progress::Running) => settle(world, options).await,
            Err(why) => {
                runs.iter_mut().for_each(|run| run.stop(&why));
                break;
            }
        }
        runs.iter_mut().for_each(|run| run.judge(world, day));
    }
    runs.into_iter()
        .map(|run| {
            progress(&run.result);
            (run.at, run.result)
        })
        .collect()
}

async fn messages(
    world: &Arc<World>,
    sender: &Arc<dyn Sender>,
    runs: Vec<Run>,
    day: usize,
    options: Options,
) -> Vec<Run> {
    let permits = Arc::new(Semaphore::new(options.at_once.max(1)));
    let mut tasks = JoinSet::new();
    for mut run in runs {
        let (world, sender, permits) = (world.clone(), sender.clone(), permits.clone());
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            run.messages(&world, sender.as_ref(), day, options).await;
            run
        });
    }
    let mut runs = Vec::new();
    while let Some(done) = tasks.join_next().await {
        runs.extend(done.ok());
    }
    runs
}

impl Run {
    async fn messages(&mut self, world: &World, sender: &dyn Sender, day: usize, options: Options) {
        let messages = self.case.days.get(day).map_or(0, |day| day.messages);
        for _ in 0..messages {
            if self.is_over {
                return;
            }
            self.messages += 1;
            let outcome = phase(world, sender, &self.case, self.messages, options, &mut self.result).await;
            if matches!(outcome, Outcome::Violates | Outcome::DoesMore) {
                let seen = self.result.why.clone().unwrap_or_default();
                self.stop(&format!("what the report is about did not happen: {seen}"));
            }
            self.is_over |= outcome != Outcome::Conforms;
        }
    }

    fn stop(&mut self, why: &str) {
        if !self.is_over {
            self.result.stop(Stop::NotObservable(why.to_owned()));
            self.is_over = true;
        }
    }

    fn judge(&mut self, world: &World, number: usize) {
        let Some(day) = self.case.days.get(number).filter(|_| !self.is_over) else { return };
        let all = world.reports_of(&self.case);
        let (earlier, new) = all.split_at(self.judged.min(all.len()));
        let (outcome, why) = day.judge(&self.case.domain(), new, earlier);
        self.judged = all.len();
        self.result.days.push(DayResult {
            expected: day.sentence(),
            reports: new.iter().map(|one| one.line()).collect(),
        });
        if outcome != Outcome::Conforms {
            let day = if self.case.days.len() > 1 { format!("day {}: ", number + 1) } else { String::new() };
            (self.result.outcome, self.result.why) = (outcome, why.map(|why| day + &why));
            self.is_over = true;
        }
    }
}

/// Waits until no further report has arrived for a while. Reports about other domains may be all that arrive.
async fn settle(world: &World, options: Options) {
    let begun = Instant::now();
    let (mut count, mut last) = (world.collect_reports(), None);
    while begun.elapsed() < options.phase {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = world.collect_reports();
        if now != count {
            (count, last) = (now, Some(Instant::now()));
        }
        if last.is_some_and(|last: Instant| last.elapsed() > options.quiet) {
            return;
        }
    }
}
