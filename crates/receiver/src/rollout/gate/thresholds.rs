//! The thresholds that the evidence must reach before enforcement, from `[gate]` in the configuration.

/// The conditions for enforcement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Minimum number of days since the testing policy was first observed.
    pub days_in_testing: u32,
    /// Minimum number of consecutive clean days.
    pub clean_days: u32,
    /// The failure rate that 95 % confidence must exclude, as a fraction from 0 to 1.
    pub failure_rate: f64,
    /// Days in testing after which the number of sessions no longer matters, if all probes of the MX hosts succeeded.
    pub quiet_days: u32,
    /// Minimum number of registrable domains that report, unless the guard's probes of every MX host passed on the same
    /// days. Fewer than this number can't keep the gate shut by failures for longer than `delay_days` without the operator
    /// being asked.
    pub senders: u32,
    /// Maximum number of days that failures reported by few senders alone delay the result.
    pub delay_days: u32,
}

impl Default for Thresholds {
    /// 14 days in testing, 7 consecutive clean days, a failure rate below 0.5 %, 28 days for quiet domains, three
    /// senders, and a delay of 14 days.
    fn default() -> Self {
        Self {
            days_in_testing: 14,
            clean_days: 7,
            failure_rate: 0.005,
            quiet_days: 28,
            senders: 3,
            delay_days: 14,
        }
    }
}
