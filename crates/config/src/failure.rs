//! Errors as operators read them, and the exit codes of commands. A [`Failure`] says what failed, why, and what to do.
//! Commands print it to stderr, pages show it, the admin API returns its three parts.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success, without findings.
    Fine = 0,
    /// The command worked and found problems.
    Findings = 1,
    /// The command line or the configuration is not valid.
    Usage = 2,
    /// The command failed because of the network or the machine, so the result is unknown.
    Unknown = 3,
    /// A signal ended the command before it was done.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// The exit code of a command that went on after these failures: theirs if all have the same, else [`Exit::Unknown`].
    /// `otherwise` if there are none.
    pub fn of_failures(failures: &[Failure], otherwise: Self) -> Self {
        match failures.first() {
            Some(first) if failures.iter().all(|failure| failure.exit == first.exit) => first.exit,
            Some(_) => Self::Unknown,
            None => otherwise,
        }
    }
}

/// A failed operation, as the operator reads it: what failed, why, and what to do.
#[derive(Debug)]
pub struct Failure {
    what: String,
    why: String,
    remedy: String,
    /// The exit code of a command that fails with it.
    pub exit: Exit,
}

impl Failure {
    /// A failure of the network or the machine ([`Exit::Unknown`]). `what` failed because of `why`. `remedy` says
    /// what to do; it may be empty.
    pub fn new(what: impl Into<String>, why: impl Display, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.to_string(), remedy: remedy.into(), exit: Exit::Unknown }
    }

    /// The same failure with another remedy.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }

    /// The parts: what failed, why, and what to do.
    pub fn parts(&self) -> (&str, &str, &str) {
        (&self.what, &self.why, &self.remedy)
    }

    /// An error in the command line or the configuration ([`Exit::Usage`]).
    pub fn usage(what: impl Into<String>, why: impl Display, remedy: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what, why, remedy) }
    }

    /// A finding: the operation works, and its result is negative ([`Exit::Findings`]).
    pub fn finding(what: impl Into<String>, why: impl Display, remedy: impl Into<String>) -> Self {
        Self { exit: Exit::Findings, ..Self::new(what, why, remedy) }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}: {}", self.what, self.why)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  {}", self.remedy.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

/// Creates an empty output directory, or accepts an existing empty one. Returns its canonical path.
///
/// # Errors
///
/// If the directory can't be created or read, or is not empty.
pub fn empty_folder(dir: &Path) -> Result<PathBuf, Failure> {
    let shown = dir.display();
    std::fs::create_dir_all(dir).map_err(|error| {
        Failure::usage(
            format!("can't create the directory {shown}"),
            error,
            "Name another directory with --dir.",
        )
    })?;
    let mut inside = std::fs::read_dir(dir).map_err(|error| {
        Failure::usage(
            format!("can't read the directory {shown}"),
            error,
            "Name another directory with --dir.",
        )
    })?;
    if inside.next().is_some() {
        return Err(Failure::usage(
            format!("can't use the directory {shown}"),
            "it is not empty",
            "Name a new directory with --dir, so that no existing file is overwritten.",
        ));
    }
    dir.canonicalize().map_err(|error| Failure::usage(format!("can't use the directory {shown}"), error, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_decide_the_exit_code_whatever_else_was_found() {
        let (usage, network) = (|| Failure::usage("a", "b", ""), || Failure::new("a", "b", ""));
        assert_eq!(Exit::of_failures(&[], Exit::Findings), Exit::Findings);
        assert_eq!(Exit::of_failures(&[usage(), usage()], Exit::Fine), Exit::Usage);
        assert_eq!(Exit::of_failures(&[usage(), network()], Exit::Fine), Exit::Unknown);
    }
}
