//! The one map from failures to exit codes and hints.

use std::path::PathBuf;

/// Exit codes of gilt; documented in docs/exit-codes.md. Clap itself exits with 2 on bad usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A defect of gilt, or an I/O error nothing else names.
    Internal = 1,
    /// Bad usage, or a template, layer or other input file that is wrong.
    Usage = 2,
    /// This host lacks something: a program, a capability, disk space.
    Host = 3,
    /// The guest failed: a script, a kernel, an installer.
    Guest = 4,
    /// A deadline passed.
    TimedOut = 5,
    /// The store refused: a gate, a signature, a race lost, a broken backend.
    Store = 6,
    /// Data is damaged or not what its digest says.
    Corrupt = 7,
    /// Ctrl-C or SIGTERM.
    Cancelled = 130,
}

/// Why a command failed, in words for a person.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: anyhow::Error,
    /// The way out, if there is one.
    pub hint: Option<String>,
    /// What was kept of a failed build; printed last.
    pub evidence: Option<PathBuf>,
    /// Disks and files left where they are (`--on-error=abort`).
    pub kept: Option<PathBuf>,
}

impl Failure {
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hint: None, evidence: None, kept: None }
    }

    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self::new(Exit::Usage, anyhow::anyhow!("{message}"))
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `error: …` with its causes, then `hint: …`, on stderr.
    pub fn print(&self) {
        eprintln!("error: {:#}", self.error);
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        if let Some(folder) = &self.kept {
            eprintln!("kept: {}", folder.display());
        }
        if let Some(folder) = &self.evidence {
            eprintln!("evidence: {}", folder.display());
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Internal, error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Internal, error)
    }
}
