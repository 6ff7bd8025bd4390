//! Child processes of a benchmark: the same program with other arguments, measured through /proc.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A child process that is killed when the value is dropped.
pub struct Process {
    child: Child,
    /// The first line of its standard output.
    pub line: String,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    /// Starts this program again, and waits for its first line of output.
    pub fn again(words: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(words);
        Self::start(command)
    }

    /// Starts a command, and waits for its first line of output.
    pub fn start(command: Command) -> Self {
        let mut process = Self::start_mute(command);
        process.output.read_line(&mut process.line).unwrap();
        process.line.truncate(process.line.trim_end().len());
        process
    }

    /// Starts a command that prints nothing.
    pub fn start_mute(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, line: String::new(), output }
    }

    /// Seconds of CPU time used so far.
    pub fn cpu(&self) -> f64 {
        cpu(&self.child.id().to_string())
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        resident(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of CPU time of a process; `self` is this process.
pub fn cpu(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time, in hundredths of a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Seconds of CPU time of the children that have ended and were waited for.
pub fn cpu_of_ended() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[13].parse::<f64>().unwrap() + fields[14].parse::<f64>().unwrap()) / 100.0
}

/// Resident memory of a process in KiB; `self` is this process.
pub fn resident(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The arguments, if this process is a benchmark or a child of one; else `None`. `cargo test` starts benchmarks too,
/// but without the argument `--bench` that `cargo bench` adds.
pub fn words(roles: &[&str]) -> Option<Vec<String>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let is_role = words.first().is_some_and(|word| roles.contains(&word.as_str()));
    let is_bench = words.iter().any(|word| word == "--bench");
    words.retain(|word| word != "--bench");
    (is_bench || is_role).then_some(words)
}

/// The median, which ignores a round or two that other load on the machine disturbed.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
