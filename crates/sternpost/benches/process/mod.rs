//! Processes of a benchmark: this program again with other words, watched through /proc.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A process that ends with its owner.
pub struct Process {
    child: Child,
    /// The first line that it printed.
    pub line: String,
    _output: BufReader<std::process::ChildStdout>,
}

impl Process {
    /// Starts this program again, and waits until it says a line.
    pub fn again(words: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(words);
        Self::start(command)
    }

    /// Starts a command, and waits until it says a line.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        Self { child, line: line.trim().to_owned(), _output: output }
    }

    /// Seconds of processor time used so far.
    pub fn cpu(&self) -> f64 {
        cpu(&self.child.id().to_string())
    }

    /// KiB in memory now.
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

/// Seconds of processor time of a process; `self` is this one.
pub fn cpu(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time, in hundredths of a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// KiB in memory of a process; `self` is this one.
pub fn resident(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The words after the program's name, when this is a benchmark or a process of one. `cargo test`
/// starts benchmarks too, without the word that `cargo bench` adds; then there is nothing to do.
pub fn words(roles: &[&str]) -> Option<Vec<String>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let is_role = words.first().is_some_and(|word| roles.contains(&word.as_str()));
    let is_bench = words.iter().any(|word| word == "--bench");
    words.retain(|word| word != "--bench");
    (is_bench || is_role).then_some(words)
}

/// The middle one: what a noisy neighbour did to a round or two does not count.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
