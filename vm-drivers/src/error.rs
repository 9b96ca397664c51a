//! What can go wrong with a machine, by what a caller does about it.

use std::{path::PathBuf, time::Duration};

use crate::{driver::ExitReason, process::ProcessError};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a driver, a machine or the way into its guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver cannot do this at all; another might.
    #[error("the {driver} driver cannot {what}")]
    Unsupported { driver: &'static str, what: String },

    /// `--driver` names none we have, or names it wrongly.
    #[error("there is no driver {asked:?}: {why}")]
    NoSuchDriver { asked: String, why: String },

    /// The host lacks something; `hint` says how to get it.
    #[error("this host lacks {what} ({hint})")]
    HostLacks { what: String, hint: String },

    /// The machine as described cannot exist.
    #[error("machine {machine}: {what}")]
    InvalidSpec { machine: String, what: String },

    /// A host port that was asked for by number is in use.
    #[error("port {port} on {address} is taken")]
    PortTaken { address: std::net::IpAddr, port: u16 },

    /// The hypervisor did not come up.
    #[error("machine {machine} did not start: {reason}")]
    StartFailed { machine: String, reason: String },

    /// A saved state does not fit this machine or host: start from power-on instead.
    #[error("the saved state {} cannot be resumed: {reason}", path.display())]
    StateMismatch { path: PathBuf, reason: String },

    /// The machine ended while something was expected of it.
    #[error("machine ended while waiting for {subject}: {reason}")]
    Ended { subject: String, reason: ExitReason, serial_tail: String },

    /// A wait reached its deadline; `last_seen` is how far things had come.
    #[error("timed out after {} waiting for {subject}{}", show_duration(*.after), also(last_seen))]
    TimedOut { subject: String, after: Duration, last_seen: String, serial_tail: String },

    /// The hypervisor's monitor refused a command or went away.
    #[error("the monitor refused {command}: {reason}")]
    Monitor { command: String, reason: String },

    /// A tool of the host failed.
    #[error(transparent)]
    Process(#[from] ProcessError),

    /// Something in a boot command cannot be understood.
    #[error("boot command, character {at}: {what}")]
    BootCommand { at: usize, what: String },

    /// The guest let us in no further.
    #[error("ssh to {target}: {reason}")]
    Ssh { target: String, reason: String },

    /// The connection to the guest broke in the middle of something.
    #[error("lost the connection to {target} during {during}: {reason}")]
    ConnectionLost { target: String, during: String, reason: String },

    /// A file could not be moved to or from the guest.
    #[error("{action} {path} in the guest: {reason}")]
    GuestFile { action: &'static str, path: String, reason: String },

    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    /// Data of a kind we must understand is not as it should be.
    #[error("{what}: {reason}")]
    Malformed { what: String, reason: String },
}

impl Error {
    /// Adapter for `map_err` on file operations.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }

    /// The end of the serial log that came with the failure, if any.
    pub fn serial_tail(&self) -> Option<&str> {
        match self {
            Error::Ended { serial_tail, .. } | Error::TimedOut { serial_tail, .. } => {
                Some(serial_tail)
            }
            _ => None,
        }
    }

    /// Whether this is a wait that ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::TimedOut { .. } | Error::Process(ProcessError::TimedOut { .. }))
    }

    /// Whether the host's storage is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Error::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Error::Ended { reason: ExitReason::StorageFailed { disk_full, .. }, .. } => *disk_full,
            Error::Process(ProcessError::Failed { stderr_tail, .. }) => {
                stderr_tail.contains("No space left on device")
            }
            _ => false,
        }
    }
}

fn also(last_seen: &str) -> String {
    if last_seen.is_empty() { String::new() } else { format!(" (last seen: {last_seen})") }
}

/// `90s`, `250ms`, `1m30s`: what people write.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1000 || (ms < 10_000 && !ms.is_multiple_of(1000)) {
        return if ms < 1000 { format!("{ms}ms") } else { format!("{:.1}s", ms as f64 / 1000.0) };
    }
    let s = duration.as_secs();
    match (s / 60, s % 60) {
        (0, s) => format!("{s}s"),
        (m, 0) => format!("{m}m"),
        (m, s) => format!("{m}m{s}s"),
    }
}
