//! The confidence bound of a failure rate.

/// The largest failure rate that `failures` out of `sessions` do not exclude at 95 % (one-sided
/// Clopper and Pearson); close to 3/n when nothing failed. 1 without sessions.
pub fn upper_bound(failures: u64, sessions: u64) -> f64 {
    if failures >= sessions {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_most(failures, sessions, middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// The chance of at most `failures` failures in `sessions` sessions that each fail at `rate`.
fn at_most(failures: u64, sessions: u64, rate: f64) -> f64 {
    let (n, odds) = (sessions as f64, (rate / (1.0 - rate)).ln());
    let mut term = n * (1.0 - rate).ln();
    let mut sum = term.exp();
    for k in 0..failures {
        term += ((n - k as f64) / (k as f64 + 1.0)).ln() + odds;
        sum += term.exp();
    }
    sum
}
