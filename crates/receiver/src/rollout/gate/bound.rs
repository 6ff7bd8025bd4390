//! The confidence bound of a failure rate, used by the gate.

/// The one-sided 95 % upper bound (Clopper–Pearson) of the failure rate, as a fraction, for `failures` out of
/// `sessions`. It is close to 3/n without failures, and 1 without sessions.
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

/// The probability of at most `failures` failures in `sessions` sessions that each fail with probability `rate`.
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
