//! `sternpost apply` for several domains. They are worked on side by side, in rounds: a round takes all steps that are possible
//! now, and prints what the operator has to publish. Then all domains that wait do so together, so that a thousand of them
//! take no longer than one. A domain that fails is reported, and the others go on.

use super::{Options, Outcome, Pace, Round, Work, in_words};
use crate::terminal::{marks, say};
use config::failure::Failure;
use futures_util::StreamExt;
use jiff::Timestamp;
use operations::RolloutContext;
use receiver::domain::DomainSpec;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Domains that are worked on at the same time.
const SIDE_BY_SIDE: usize = 16;
/// How long a round waits for a step of this program to become visible.
pub(super) const OWN_PATIENCE: Duration = Duration::from_secs(20);
/// Time between two rounds over the domains that wait.
const ROUND_INTERVAL: Duration = Duration::from_secs(10);
/// Domains that are named in the line about those that wait.
const MAX_NAMED: usize = 5;

/// A domain and what came of it; `None` before its first round has ended.
struct Item<'a> {
    spec: &'a DomainSpec,
    outcome: Option<Result<Outcome, Failure>>,
}

impl Item<'_> {
    /// When another round makes sense; `None` if the domain has come to its end.
    fn due(&self, options: &Options, is_patient: bool) -> Option<Due> {
        match self.outcome.as_ref()? {
            Ok(outcome) if outcome.rest == "unseen" && is_patient => Some(Due::Soon),
            Ok(outcome) if outcome.rest == "wait" && options.wait => outcome.resumes.map(Due::At),
            _ => None,
        }
    }
}

/// When a domain gets another round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// A step may become visible at any time.
    Soon,
    /// No step is safe before.
    At(Timestamp),
}

/// Works on all domains, and returns the outcomes and the failures in the order of `specs`.
pub(super) async fn all(
    context: &RolloutContext,
    specs: &[DomainSpec],
    options: &Options,
    stop: &CancellationToken,
) -> (Vec<Outcome>, Vec<Failure>) {
    let mut items: Vec<Item> = specs.iter().map(|spec| Item { spec, outcome: None }).collect();
    let everything: Vec<usize> = (0..items.len()).collect();
    round(context, &mut items, &everything, options, stop, true).await;
    let patience = Duration::from_secs(options.patience);
    let (mut progress, mut told) = (Instant::now(), None);
    while !stop.is_cancelled() {
        let is_patient = progress.elapsed() < patience;
        let waiting: Vec<(usize, Due)> = items
            .iter()
            .enumerate()
            .filter_map(|(at, item)| Some((at, item.due(options, is_patient)?)))
            .collect();
        if waiting.is_empty() {
            break;
        }
        if told != Some(waiting.len()) && !options.json {
            told = Some(waiting.len());
            say(&waiting_in_words(&items, &waiting, patience.saturating_sub(progress.elapsed())));
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(ROUND_INTERVAL.min(patience).max(Duration::from_secs(1))) => {}
        }
        let now = context.world.clock.now();
        let is_due = |due: &Due| match due {
            Due::Soon => true,
            Due::At(time) => *time <= now,
        };
        let again: Vec<usize> = waiting.iter().filter(|(_, due)| is_due(due)).map(|(at, _)| *at).collect();
        if round(context, &mut items, &again, options, stop, false).await {
            progress = Instant::now();
        }
    }
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for item in items {
        match item.outcome {
            Some(Ok(outcome)) => outcomes.push(outcome),
            Some(Err(failure)) => failures.push(failure),
            None => {}
        }
    }
    if !options.json {
        say(&summary(&outcomes, failures.len()));
    }
    (outcomes, failures)
}

/// Works on these domains side by side, and prints what is new about each. True if one of them got further.
async fn round(
    context: &RolloutContext,
    items: &mut [Item<'_>],
    chosen: &[usize],
    options: &Options,
    stop: &CancellationToken,
    is_first: bool,
) -> bool {
    let specs: Vec<(usize, &DomainSpec)> =
        chosen.iter().filter_map(|at| Some((*at, items.get(*at)?.spec))).collect();
    let started = specs.into_iter().map(move |(at, spec)| async move {
        if stop.is_cancelled() {
            return (at, None, String::new());
        }
        let pace = Pace::Round(Round { is_first, lines: Mutex::default() });
        match Work::new(context, spec, options, stop.clone(), pace) {
            Err(failure) => (at, Some(Err(failure)), String::new()),
            Ok(work) => {
                let outcome = work.under_lease().await;
                (at, Some(outcome), work.lines())
            }
        }
    });
    let mut ended = futures_util::stream::iter(started).buffer_unordered(SIDE_BY_SIDE);
    let mut has_progress = false;
    while let Some((at, outcome, lines)) = ended.next().await {
        let (Some(outcome), Some(item)) = (outcome, items.get_mut(at)) else { continue };
        let is_new = match (&item.outcome, &outcome) {
            (Some(Ok(before)), Ok(now)) => now.rest != before.rest || !now.done.is_empty(),
            _ => true,
        };
        if is_new && !options.json && !lines.is_empty() {
            say(lines.trim_end());
        }
        if let Err(failure) = &outcome {
            eprintln!("{failure}");
        }
        has_progress |= is_new;
        item.outcome = Some(joined(item.outcome.take(), outcome));
    }
    has_progress
}

/// The outcome of two rounds: the steps of both, and the end of the second.
fn joined(
    before: Option<Result<Outcome, Failure>>,
    now: Result<Outcome, Failure>,
) -> Result<Outcome, Failure> {
    match (before, now) {
        (Some(Ok(before)), Ok(now)) => {
            let done = before.done.into_iter().chain(now.done).collect();
            Ok(Outcome { done, ..now })
        }
        (_, now) => now,
    }
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
        (failed, "failed"),
    ];
    let said: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    let mark = match failed + count("unseen") + count("changed") + count("blocked") {
        0 => marks().fine,
        _ => marks().warning,
    };
    let all = outcomes.len() + failed;
    format!("{mark} {all} domains: {}", said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::DomainName;

    fn outcome(domain: &str, rest: &'static str) -> Outcome {
        Outcome {
            domain: domain.to_owned(),
            done: Vec::new(),
            rest,
            until: None,
            resumes: None,
            missing: None,
            outside: None,
        }
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
    }

    #[test]
    fn domains_that_wait_are_named_together_and_those_that_ended_are_not_worked_on_again() {
        let names: Vec<DomainSpec> =
            (0..7).map(|at| DomainSpec::new(DomainName::parse(&format!("c{at}.example")).unwrap())).collect();
        let items: Vec<Item> = names
            .iter()
            .map(|spec| Item { spec, outcome: Some(Ok(outcome(spec.name.as_str(), "unseen"))) })
            .collect();
        let waiting: Vec<(usize, Due)> = (0..7).map(|at| (at, Due::Soon)).collect();
        let line = waiting_in_words(&items, &waiting, Duration::from_secs(600));
        assert!(line.contains("c4.example and 2 more together, for up to 10 minutes"), "{line}");
        let options = |wait| Options {
            domains: Vec::new(),
            patience: 1,
            wait,
            new_id: false,
            new_certificate: false,
            take_over: false,
            json: false,
        };
        let due = |rest, resumes, wait, is_patient| {
            let outcome = Outcome { resumes, ..outcome("c0.example", rest) };
            Item { spec: &names[0], outcome: Some(Ok(outcome)) }.due(&options(wait), is_patient)
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
