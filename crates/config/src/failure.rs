//! Errors as people read them: what happened, why, and what to do; and the exit codes.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// There are findings.
    Findings = 1,
    /// The command or the configuration is wrong.
    Usage = 2,
    /// It could not tell, for the network or the machine.
    Unknown = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub struct Failure {
    what: String,
    why: String,
    remedy: String,
    /// How the program ends on it.
    pub exit: Exit,
}

impl Failure {
    /// For the network or the machine: `what` happened, since `why`; `remedy` says what to do.
    pub fn new(what: impl Into<String>, why: impl Display, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.to_string(), remedy: remedy.into(), exit: Exit::Unknown }
    }

    /// What happened, why, and what to do.
    pub fn parts(&self) -> (&str, &str, &str) {
        (&self.what, &self.why, &self.remedy)
    }

    /// The same, for a wrong command or configuration.
    pub fn usage(what: impl Into<String>, why: impl Display, remedy: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what, why, remedy) }
    }

    /// The same, for what is found.
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

/// Makes a folder that is to hold nothing but what this program puts there.
pub fn empty_folder(dir: &Path) -> Result<PathBuf, Failure> {
    let shown = dir.display();
    std::fs::create_dir_all(dir).map_err(|error| {
        Failure::usage(format!("the folder {shown} can't be made"), error, "Name another one with --dir.")
    })?;
    let mut inside = std::fs::read_dir(dir).map_err(|error| {
        Failure::usage(format!("the folder {shown} can't be read"), error, "Name another one with --dir.")
    })?;
    if inside.next().is_some() {
        return Err(Failure::usage(
            format!("the folder {shown} can't be used"),
            "it is not empty",
            "Name a new one with --dir, so that nothing of yours is overwritten.",
        ));
    }
    dir.canonicalize().map_err(|error| Failure::usage(format!("the folder {shown} can't be used"), error, ""))
}
