//! What was measured, as tables for docs/performance.md.

use crate::Plan;
use crate::answers::Answered;
use crate::sample::Sample;
use crate::strangers::Played;
use std::fmt::Write;
use std::path::PathBuf;

/// A file in the folder of build results.
pub fn file(name: &str) -> PathBuf {
    let target = std::env::var("CARGO_TARGET_DIR")
        .map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    target.join(name)
}

/// A percentile of sorted values.
pub fn percentile(sorted: &[u32], share: f64) -> u32 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn write(plan: &Plan, answered: &Answered, samples: &[Sample], played: &Played, honest: usize) {
    let mut text = String::new();
    rounds(&mut text, plan, answered, samples);
    resources(&mut text, plan, samples);
    let _ = writeln!(
        text,
        "\n{} cached answers and {} of new domains, all right. {honest} honest reports, all stored once and verified.\n",
        answered.asked, answered.new
    );
    strangers(&mut text, played);
    std::fs::write(file("endurance.md"), text).unwrap();
    std::fs::write(file("endurance.csv"), csv(samples)).unwrap();
}

fn rounds(text: &mut String, plan: &Plan, answered: &Answered, samples: &[Sample]) {
    let _ = writeln!(
        text,
        "| rounds | answers | p50 µs | p90 µs | p99 µs, median of the rounds | p99 of the worst round | p99.9 µs | longest ms | CPU, cores | other programs, cores |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for (name, has_strangers) in [("without strangers", false), ("with strangers", true)] {
        let chosen: Vec<&Vec<u32>> = (0..plan.rounds)
            .filter(|round| plan.has_strangers(*round) == has_strangers)
            .map(|round| &answered.rounds[round])
            .collect();
        let mut all: Vec<u32> = chosen.iter().flat_map(|round| round.iter().copied()).collect();
        all.sort_unstable();
        let p99: Vec<f64> = chosen.iter().map(|round| f64::from(percentile(round, 0.99))).collect();
        let worst = p99.iter().copied().fold(0.0, f64::max);
        let (own, others) = processors(plan, samples, has_strangers);
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {:.0} | {worst:.0} | {} | {:.1} | {own:.2} | {others:.2} |",
            all.len(),
            percentile(&all, 0.5),
            percentile(&all, 0.9),
            median(p99),
            percentile(&all, 0.999),
            f64::from(all.last().copied().unwrap_or_default()) / 1000.0
        );
    }
    let _ = writeln!(
        text,
        "\np99 with strangers, compared with the rounds before and after: {:.2}",
        ratio(plan, answered)
    );
}

/// The median over the rounds with strangers of the ratio of their p99 to the mean of the two beside it.
pub fn ratio(plan: &Plan, answered: &Answered) -> f64 {
    let p99 = |round: usize| f64::from(percentile(&answered.rounds[round], 0.99));
    let with = (0..plan.rounds - 1).filter(|round| plan.has_strangers(*round));
    median(with.map(|round| 2.0 * p99(round) / (p99(round - 1) + p99(round + 1))).collect())
}

/// Cores that the program and all others used in rounds of one kind.
fn processors(plan: &Plan, samples: &[Sample], has_strangers: bool) -> (f64, f64) {
    let (mut own, mut others, mut time) = (0.0, 0.0, 0.0);
    for pair in samples.windows(2) {
        if plan.has_strangers(pair[0].round) == has_strangers && pair[0].round == pair[1].round {
            own += pair[1].processor - pair[0].processor;
            others += pair[1].others - pair[0].others;
            time += (pair[1].after - pair[0].after).as_secs_f64();
        }
    }
    (own / time, others / time)
}

fn resources(text: &mut String, plan: &Plan, samples: &[Sample]) {
    let _ = writeln!(
        text,
        "\n| | at the start | most | most in a round without strangers | at the end |\n| --- | ---: | ---: | ---: | ---: |"
    );
    let mut row = |name: &str, of: &dyn Fn(&Sample) -> u64| {
        let most = samples.iter().map(of).max().unwrap_or_default();
        // The second half of a round: what strangers left is given back by then.
        let quiet = samples.iter().filter(|one| {
            let end = plan.round * u32::try_from(one.round + 1).unwrap_or(u32::MAX);
            !plan.has_strangers(one.round) && one.after + plan.round / 2 > end
        });
        let quiet = quiet.map(of).max().unwrap_or_default();
        let (first, last) = (of(&samples[0]), of(&samples[samples.len() - 1]));
        let _ = writeln!(text, "| {name} | {first} | {most} | {quiet} | {last} |");
    };
    row("anonymous memory, MiB", &|one| one.memory >> 20);
    row("descriptors", &|one| one.descriptors);
    row("threads", &|one| one.threads);
    row("store, MiB", &|one| one.store >> 20);
}

fn strangers(text: &mut String, played: &Played) {
    let _ = writeln!(text, "| strangers | what they got, and how often |\n| --- | --- |");
    for (kind, outcomes) in played.iter().filter(|(_, outcomes)| !outcomes.is_empty()) {
        let outcomes: Vec<String> = outcomes.iter().map(|(what, times)| format!("{what}: {times}")).collect();
        let _ = writeln!(text, "| {kind} | {} |", outcomes.join(", "));
    }
}

fn csv(samples: &[Sample]) -> String {
    let mut text = "seconds,round,memory,descriptors,threads,store,processor,others\n".to_owned();
    for one in samples {
        let _ = writeln!(
            text,
            "{:.1},{},{},{},{},{},{:.2},{:.2}",
            one.after.as_secs_f64(),
            one.round,
            one.memory,
            one.descriptors,
            one.threads,
            one.store,
            one.processor,
            one.others
        );
    }
    text
}
