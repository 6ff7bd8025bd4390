//! `sternpost apply` for several domains. They are worked on side by side, in rounds: a round takes all steps of a domain that
//! are possible now, and prints what the operator has to publish. All domains that wait do so together, so that a thousand of
//! them take no longer than one, and none waits for a round of another. A domain that fails is reported, and the others go on.

use super::{Options, lines};
use crate::terminal::{marks, say};
use config::failure::Failure;
use formats::counted::counted;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use operations::RolloutContext;
use operations::apply::{DoneStep, Outcome, Pace, Work, in_words};
use receiver::domain::DomainSpec;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Domains that are worked on at the same time.
const SIDE_BY_SIDE: usize = 16;
/// Time between two rounds over the domains that wait.
const ROUND_INTERVAL: Duration = Duration::from_secs(10);
/// Domains that are named in the line about those that wait.
const MAX_NAMED: usize = 5;

/// A domain and its outcome; `None` before its first round has ended.
struct Item<'a> {
    spec: &'a DomainSpec,
    outcome: Option<Result<Outcome, Failure>>,
    /// The steps of all rounds.
    done: Vec<DoneStep>,
    /// Whether Sternpost changed something in one of the rounds.
    changed: bool,
    /// True from when a round is due until it has ended.
    is_busy: bool,
}

impl Item<'_> {
    /// When another round makes sense; `None` if the domain has come to its end.
    fn due(&self, options: &Options, is_patient: bool) -> Option<Due> {
        match self.outcome.as_ref().filter(|_| !self.is_busy)? {
            Ok(outcome) if outcome.rest == "unseen" && is_patient => Some(Due::Soon),
            Ok(outcome) if outcome.rest == "wait" && options.wait => outcome.resumes.map(Due::At),
            _ => None,
        }
    }
}

impl<'a> Item<'a> {
    fn new(spec: &'a DomainSpec) -> Self {
        Self { spec, outcome: None, done: Vec::new(), changed: false, is_busy: true }
    }

    /// Takes the outcome of a round, and prints what is new about it. True if the domain got further.
    fn take(&mut self, outcome: Result<Outcome, Failure>, lines: &str, options: &Options) -> bool {
        let is_new = match (&self.outcome, &outcome) {
            (Some(Ok(before)), Ok(now)) => now.rest != before.rest || !now.done.is_empty(),
            _ => true,
        };
        if is_new && !options.json && !lines.is_empty() {
            say(lines.trim_end());
        }
        if let Err(failure) = &outcome {
            eprintln!("{failure}");
        }
        self.outcome = Some(outcome.map(|mut outcome| {
            self.done.append(&mut outcome.done);
            self.changed |= outcome.changed;
            outcome
        }));
        self.is_busy = false;
        is_new
    }
}

/// When a domain gets another round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// A step may become visible at any time.
    Soon,
    /// No step is safe before this time.
    At(Timestamp),
}

/// Works on all domains, and returns the outcomes and the failures in the order of `specs`.
pub(super) async fn all(
    context: &RolloutContext,
    specs: &[DomainSpec],
    options: &Options,
    stop: &CancellationToken,
) -> (Vec<Outcome>, Vec<Failure>) {
    let request = options.request();
    let round = async |spec: &DomainSpec, is_first: bool| {
        let said = Mutex::new(String::new());
        let print = |line: &str| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_str(line);
            said.push('\n');
        };
        let pace = Pace::Round { is_first };
        let outcome = match Work::begin(context, spec, &request, &lines(&print), stop.clone(), pace).await {
            Ok(work) => work.run().await,
            Err(failure) => Err(failure),
        };
        (outcome, said.into_inner().unwrap_or_else(PoisonError::into_inner))
    };
    let now = || context.world.clock.now();
    let items = rounds(specs, options, stop, &now, &round).await;
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for item in items {
        match item.outcome {
            Some(Ok(outcome)) => {
                outcomes.push(Outcome { done: item.done, changed: item.changed, ..outcome });
            }
            Some(Err(failure)) => {
                if item.changed || !item.done.is_empty() {
                    let outcome = Outcome::new(&item.spec.name);
                    let (done, changed) = (item.done, item.changed);
                    outcomes.push(Outcome { done, changed, rest: "failed", ..outcome });
                }
                failures.push(failure);
            }
            None => {
                outcomes.push(Outcome { rest: "not-begun", ..Outcome::new(&item.spec.name) });
            }
        }
    }
    if !options.json {
        say(&summary(&outcomes, failures.len()));
        if stop.is_cancelled() {
            say("  Nothing is held any more. `sternpost apply` resumes where each domain is.");
        }
    }
    (outcomes, failures)
}

/// Works on all domains, [`SIDE_BY_SIDE`] at a time, until none waits any more. `round` takes all steps of a domain that are
/// possible now; its second argument is true for the first round of a domain. A domain gets its next round whatever the others
/// do meanwhile.
async fn rounds<'a>(
    specs: &'a [DomainSpec],
    options: &Options,
    stop: &CancellationToken,
    now: &dyn Fn() -> Timestamp,
    round: &impl AsyncFn(&'a DomainSpec, bool) -> (Result<Outcome, Failure>, String),
) -> Vec<Item<'a>> {
    let mut items: Vec<Item> = specs.iter().map(Item::new).collect();
    let mut queue: VecDeque<(usize, bool)> = (0..items.len()).map(|at| (at, true)).collect();
    let mut running = FuturesUnordered::new();
    let patience = Duration::from_secs(options.patience);
    let pause = ROUND_INTERVAL.min(patience).max(Duration::from_secs(1));
    let (mut progress, mut told, mut next) = (Instant::now(), None, Instant::now() + pause);
    loop {
        while running.len() < SIDE_BY_SIDE && !stop.is_cancelled() {
            let Some((at, is_first)) = queue.pop_front() else { break };
            let Some(spec) = specs.get(at) else { continue };
            running.push(async move { (at, round(spec, is_first).await) });
        }
        let waiting = waiting(&items, options, progress.elapsed() < patience);
        if running.is_empty() && (waiting.is_empty() || stop.is_cancelled()) {
            return items;
        }
        if running.is_empty() && told != Some(waiting.len()) && !options.json {
            told = Some(waiting.len());
            say(&waiting_in_words(&items, &waiting, patience.saturating_sub(progress.elapsed())));
        }
        tokio::select! {
            Some((at, (outcome, lines))) = running.next() => {
                let Some(item) = items.get_mut(at) else { continue };
                if item.take(outcome, &lines, options) {
                    progress = Instant::now();
                }
                // Those that wait do so together, from when the last one ended.
                if running.is_empty() {
                    next = Instant::now() + pause;
                }
            }
            () = tokio::time::sleep_until(next) => {
                next = Instant::now() + pause;
                for (at, due) in waiting {
                    let is_due = match due {
                        Due::Soon => true,
                        Due::At(time) => time <= now(),
                    };
                    if let Some(item) = items.get_mut(at).filter(|_| is_due) {
                        item.is_busy = true;
                        queue.push_back((at, false));
                    }
                }
            }
            () = stop.cancelled(), if running.is_empty() => {}
        }
    }
}

/// The domains that wait for another round.
fn waiting(items: &[Item<'_>], options: &Options, is_patient: bool) -> Vec<(usize, Due)> {
    let due = |(at, item): (usize, &Item)| Some((at, item.due(options, is_patient)?));
    items.iter().enumerate().filter_map(due).collect()
}

fn waiting_in_words(items: &[Item<'_>], waiting: &[(usize, Due)], left: Duration) -> String {
    let names: Vec<&str> = waiting
        .iter()
        .take(MAX_NAMED)
        .filter_map(|(at, _)| Some(items.get(*at)?.spec.name.as_str()))
        .collect();
    let more = match waiting.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let until = match waiting.iter().any(|(_, due)| *due == Due::Soon) {
        true => format!("for up to {}", in_words(left.as_secs().max(1))),
        false => "until their waiting periods end".to_owned(),
    };
    format!(
        "waiting for {}{more} together, {until}. You can leave with Ctrl-C; `sternpost apply` resumes here.",
        names.join(", ")
    )
}

/// The last line: how many domains ended how.
fn summary(outcomes: &[Outcome], failed: usize) -> String {
    let count = |rest: &str| outcomes.iter().filter(|outcome| outcome.rest == rest).count();
    let parts = [
        (count("done"), "in the desired state"),
        (count("evidence"), "in testing, waiting for evidence"),
        (count("wait"), "in a waiting period"),
        (count("unseen"), "with a step that is not visible yet"),
        (count("changed"), "changed by another program"),
        (count("blocked"), "that can't begin"),
        (count("interrupted"), "interrupted"),
        (count("not-begun"), "not begun"),
        (failed, "failed"),
    ];
    let said: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    let is_open = ["unseen", "changed", "blocked", "interrupted", "not-begun"];
    let mark = match failed + is_open.into_iter().map(count).sum::<usize>() {
        0 => marks().fine,
        _ => marks().warning,
    };
    let all = outcomes.len() - count("failed") + failed;
    format!("{mark} {}: {}", counted(all, "domain"), said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;

    fn outcome(domain: &str, rest: &'static str) -> Outcome {
        Outcome { rest, ..Outcome::new(&DomainName::parse(domain).unwrap()) }
    }

    fn options() -> Options {
        Options {
            domains: Vec::new(),
            patience: 100,
            wait: false,
            new_id: false,
            new_certificate: false,
            take_over: false,
            json: true,
        }
    }

    /// Time passes as soon as nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn a_domain_whose_round_does_not_end_holds_up_no_other() {
        let specs: Vec<DomainSpec> = (0..40)
            .map(|at| DomainSpec::new(DomainName::parse(&format!("c{at}.example")).unwrap()))
            .collect();
        let stop = CancellationToken::new();
        let ended = std::cell::RefCell::new(Vec::new());
        let round = async |spec: &DomainSpec, is_first: bool| {
            let name = spec.name.as_str();
            if name == "c0.example" {
                // It ends by the signal.
                stop.cancelled().await;
                return (Ok(outcome(name, "interrupted")), String::new());
            }
            if is_first {
                return (Ok(outcome(name, "unseen")), String::new());
            }
            ended.borrow_mut().push(name.to_owned());
            if ended.borrow().len() == specs.len() - 1 {
                stop.cancel();
            }
            (Ok(outcome(name, "done")), String::new())
        };
        let items = rounds(&specs, &options(), &stop, &|| Timestamp::UNIX_EPOCH, &round).await;
        let rests: Vec<_> =
            items.iter().map(|item| item.outcome.as_ref().unwrap().as_ref().unwrap().rest).collect();
        assert_eq!((rests[0], rests[1..].iter().all(|rest| *rest == "done")), ("interrupted", true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_does_not_become_visible_is_waited_for_as_long_as_the_options_say() {
        let specs: Vec<DomainSpec> = (0..20)
            .map(|at| DomainSpec::new(DomainName::parse(&format!("c{at}.example")).unwrap()))
            .collect();
        let begun = Instant::now();
        let count = std::cell::Cell::new(0);
        let round = async |spec: &DomainSpec, _: bool| {
            count.set(count.get() + 1);
            (Ok(outcome(spec.name.as_str(), "unseen")), String::new())
        };
        let stop = CancellationToken::new();
        rounds(&specs, &options(), &stop, &|| Timestamp::UNIX_EPOCH, &round).await;
        assert_eq!((begun.elapsed().as_secs(), count.get()), (100, 20 * 11));
    }

    #[test]
    fn the_steps_of_all_rounds_are_kept_when_the_last_one_fails() {
        let spec = DomainSpec::new(DomainName::parse("c0.example").unwrap());
        let mut item = Item::new(&spec);
        for number in ["one", "two"] {
            let step = DoneStep { step: number.to_owned(), proof: String::new() };
            let now = Outcome { done: vec![step], ..outcome("c0.example", "unseen") };
            assert!(item.take(Ok(now), "", &options()));
        }
        item.take(Err(Failure::new("c0.example", "the store fails", "")), "", &options());
        let steps: Vec<&str> = item.done.iter().map(|done| done.step.as_str()).collect();
        assert_eq!((steps, item.outcome.is_some_and(|outcome| outcome.is_err())), (vec!["one", "two"], true));
        let failed = [outcome("c0.example", "failed"), outcome("c1.example", "done")];
        assert!(summary(&failed, 1).ends_with("2 domains: 1 in the desired state, 1 failed"));
    }

    #[test]
    fn the_last_line_counts_every_domain_once() {
        let all =
            [outcome("a.example", "done"), outcome("b.example", "unseen"), outcome("c.example", "unseen")];
        let line = summary(&all, 1);
        assert!(
            line.ends_with(
                "4 domains: 1 in the desired state, 2 with a step that is not visible yet, 1 failed"
            ),
            "{line}"
        );
        assert!(line.starts_with(marks().warning));
        assert!(summary(&all[..1], 0).starts_with(marks().fine));
        let ended = [
            outcome("a.example", "done"),
            outcome("b.example", "interrupted"),
            outcome("c.example", "not-begun"),
        ];
        let line = summary(&ended, 0);
        assert!(line.starts_with(marks().warning), "{line}");
        assert!(line.ends_with("3 domains: 1 in the desired state, 1 interrupted, 1 not begun"), "{line}");
    }

    #[test]
    fn domains_that_wait_are_named_together_and_those_that_ended_are_not_worked_on_again() {
        let names: Vec<DomainSpec> =
            (0..7).map(|at| DomainSpec::new(DomainName::parse(&format!("c{at}.example")).unwrap())).collect();
        let items: Vec<Item> = names
            .iter()
            .map(|spec| Item {
                spec,
                outcome: Some(Ok(outcome(spec.name.as_str(), "unseen"))),
                done: Vec::new(),
                changed: false,
                is_busy: false,
            })
            .collect();
        let waiting: Vec<(usize, Due)> = (0..7).map(|at| (at, Due::Soon)).collect();
        let line = waiting_in_words(&items, &waiting, Duration::from_secs(600));
        assert!(line.contains("c4.example and 2 more together, for up to 10 minutes"), "{line}");
        let options = |wait| Options { wait, ..options() };
        let due = |rest, resumes, wait, is_patient| {
            let outcome = Outcome { resumes, ..outcome("c0.example", rest) };
            Item { outcome: Some(Ok(outcome)), is_busy: false, ..Item::new(&names[0]) }
                .due(&options(wait), is_patient)
        };
        let later = Timestamp::from_second(9).unwrap();
        assert_eq!(due("unseen", None, false, true), Some(Due::Soon));
        assert_eq!(due("unseen", None, false, false), None);
        assert_eq!(due("wait", Some(later), false, true), None);
        assert_eq!(due("wait", Some(later), true, false), Some(Due::At(later)));
        for rest in ["done", "evidence", "changed", "blocked", "interrupted"] {
            assert_eq!(due(rest, None, true, true), None, "{rest}");
        }
    }
}
