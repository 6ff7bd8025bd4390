//! Metrics of the process and of the files of the store, read from `/proc/self` and the file system at each request. The
//! names of the process metrics are those of Prometheus's own client libraries, so that common dashboards show them.

use net::metrics::{self, Metric};
use nix::unistd::{SysconfVar, sysconf};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::path::{Path, PathBuf};

/// Reads the metrics of this process.
#[derive(Debug)]
pub struct ProcessMetrics {
    /// The path of the SQLite file; `None` if the store is a PostgreSQL database.
    pub store: Option<PathBuf>,
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some(process) = Process::read() {
            gauge(&mut encoder, &metrics::PROCESS_START, process.start)?;
            let cpu = ConstCounter::new(process.cpu_seconds);
            let row = &metrics::PROCESS_CPU;
            cpu.encode(encoder.encode_descriptor(row.family, row.help, None, cpu.metric_type())?)?;
            gauge(&mut encoder, &metrics::PROCESS_MEMORY, process.resident_bytes)?;
        }
        if let Some((open, most)) = descriptors() {
            gauge(&mut encoder, &metrics::PROCESS_FDS, open)?;
            gauge(&mut encoder, &metrics::PROCESS_MAX_FDS, most)?;
        }
        let Some(store) = &self.store else { return Ok(()) };
        let row = &metrics::STORE_BYTES;
        let files = [("database", store.clone()), ("log", wal(store))];
        let sizes = files.map(|(file, path)| (file, std::fs::metadata(path).map_or(0, |about| about.len())));
        let mut family = encoder.encode_descriptor(
            row.family,
            row.help,
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (file, size) in sizes {
            ConstGauge::new(number(size)).encode(family.encode_family(&[("file", file)])?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder, row: &Metric, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(number(value));
    gauge.encode(encoder.encode_descriptor(row.family, row.help, None, gauge.metric_type())?)
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The path of the write-ahead log of an SQLite file.
fn wal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// The kernel's figures about this process.
#[derive(Debug, PartialEq)]
struct Process {
    /// The start as a Unix time.
    start: u64,
    cpu_seconds: f64,
    resident_bytes: u64,
}

impl Process {
    fn read() -> Option<Self> {
        let constant = |variable| u64::try_from(sysconf(variable).ok()??).ok();
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let boot = std::fs::read_to_string("/proc/stat").ok();
        let boot = boot.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("btime ")));
        let boot = boot.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        Self::parse(&stat, boot, constant(SysconfVar::CLK_TCK)?, constant(SysconfVar::PAGE_SIZE)?)
    }

    /// Parses `/proc/self/stat` (proc_pid_stat(5)). `boot` is the Unix time of the start of the machine.
    fn parse(stat: &str, boot: u64, ticks_per_second: u64, page_bytes: u64) -> Option<Self> {
        // The name of the program, in parentheses, may contain spaces and parentheses. The field after it is the third.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
        let ticks_per_second = ticks_per_second.max(1);
        Some(Self {
            start: boot.saturating_add(field(22)? / ticks_per_second),
            cpu_seconds: field(14)?.saturating_add(field(15)?) as f64 / ticks_per_second as f64,
            resident_bytes: field(24)?.saturating_mul(page_bytes),
        })
    }
}

/// The number of open file descriptors, and the highest allowed number.
fn descriptors() -> Option<(u64, u64)> {
    // The folder itself is open while it is read.
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let most = line.split_ascii_whitespace().next()?.parse().unwrap_or(u64::MAX);
    Some((u64::try_from(open).ok()?, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_the_kernel_are_read_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 123 0 0 0 250 50 0 0 20 0 9 0 1000 4096000 250 18446744073709551615";
        let parsed = Process::parse(stat, 1_790_000_000, 100, 4096);
        let expected = Process { start: 1_790_000_010, cpu_seconds: 3.0, resident_bytes: 250 * 4096 };
        assert_eq!(parsed, Some(expected));
        assert_eq!(Process::parse("7 (a) S 1", 0, 100, 4096), None);
    }

    #[test]
    fn this_process_has_plausible_numbers() {
        let process = Process::read().unwrap();
        let now = jiff::Timestamp::now().as_second().unsigned_abs();
        assert!(process.start > 1_600_000_000 && process.start <= now, "{process:?}");
        assert!(process.resident_bytes > 1 << 20, "{process:?}");
        let (open, most) = descriptors().unwrap();
        assert!(open > 2 && open <= most, "{open} {most}");
    }
}
