//! What the operator demands of the evidence before enforcement.

/// What has to hold before enforcement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Days since the testing policy was seen in place.
    pub days_in_testing: u32,
    /// Clean days without a failing one between them.
    pub clean_days: u32,
    /// The failure rate that 95 % confidence must exclude, as a fraction.
    pub failure_rate: f64,
    /// Days in testing after which a clean run of any size will do, when our own looks at the MX hosts
    /// were all good.
    pub quiet_days: u32,
}

impl Default for Thresholds {
    /// 14 days, 7 of them clean in a row, under 0.5 %, or 28 days for quiet domains.
    fn default() -> Self {
        Self { days_in_testing: 14, clean_days: 7, failure_rate: 0.005, quiet_days: 28 }
    }
}
