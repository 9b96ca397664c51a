//! Why a stage failed, worded for the person who reads it and typed for the exit code.

use super::generalize::proof::Leftover;
use crate::cli::Exit;
use crate::evidence::diagnose;
use crate::fetch::FetchError;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Vm(#[from] gilt_vm::Error),

    /// A command in the guest ended with a code its step does not accept.
    #[error("{what} ended with exit code {code}")]
    Command { what: String, code: i32, tail: String },

    /// A command in the guest did not end in time.
    #[error("{what} did not end within {} s", limit.as_secs())]
    CommandTimedOut { what: String, limit: Duration, tail: String },

    #[error("{count} things of the build are left in the image, first: {} ({})", first.path, first.what)]
    Leftovers { count: usize, first: Leftover },

    /// The guest did not do what it was asked, though nothing failed.
    #[error("{0}")]
    Guest(String),

    /// An input is not what the template or the lock says.
    #[error("{0}")]
    Input(String),

    #[error(transparent)]
    Fetch(#[from] FetchError),

    /// This host cannot do it.
    #[error("{what}")]
    Host { what: String, hint: String },

    #[error("cannot {action}: {source}")]
    Io { action: String, source: std::io::Error },

    /// Reading the disk or writing the WIM.
    #[error("{0}")]
    Imaging(String),

    #[error("the store refused: {0}")]
    Store(String),

    #[error("cancelled")]
    Cancelled,
}

impl StageError {
    pub fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    pub fn exit(&self) -> Exit {
        use gilt_vm::Error as Vm;
        if self.is_disk_full() {
            return Exit::Host;
        }
        match self {
            Self::Vm(error) if error.is_timeout() => Exit::TimedOut,
            Self::Vm(Vm::HostLacks { .. } | Vm::PortTaken { .. } | Vm::Unsupported { .. }) => {
                Exit::Host
            }
            Self::Vm(Vm::InvalidSpec { .. } | Vm::BootCommand { .. } | Vm::NoSuchDriver { .. })
            | Self::Input(_) => Exit::Usage,
            Self::Vm(Vm::Ended { .. } | Vm::ConnectionLost { .. } | Vm::Ssh { .. }) => Exit::Guest,
            Self::Command { .. } | Self::Leftovers { .. } | Self::Guest(_) => Exit::Guest,
            Self::CommandTimedOut { .. } => Exit::TimedOut,
            Self::Host { .. } => Exit::Host,
            Self::Store(_) => Exit::Store,
            Self::Cancelled | Self::Fetch(FetchError::Cancelled) => Exit::Cancelled,
            Self::Fetch(FetchError::OtherDigest { .. }) => Exit::Corrupt,
            Self::Fetch(FetchError::Failed { .. }) => Exit::Usage,
            Self::Fetch(FetchError::Write { .. }) => Exit::Internal,
            Self::Imaging(_) | Self::Io { .. } | Self::Vm(_) => Exit::Internal,
        }
    }

    fn is_disk_full(&self) -> bool {
        match self {
            Self::Vm(error) => error.is_disk_full(),
            Self::Io { source, .. } | Self::Fetch(FetchError::Write { source, .. }) => {
                source.kind() == std::io::ErrorKind::StorageFull
            }
            Self::Imaging(text) | Self::Store(text) => text.contains("No space left on device"),
            _ => false,
        }
    }

    /// One line that names the cause; `serial` is the end of the guest's serial log.
    pub fn diagnosis(&self, serial: &str) -> String {
        if self.is_disk_full() {
            return format!("the disk of this host is full: {self}");
        }
        let clue = match self {
            Self::Command { tail, .. } | Self::CommandTimedOut { tail, .. } => diagnose(tail),
            Self::Vm(_) | Self::Guest(_) => diagnose(serial),
            _ => None,
        };
        match clue {
            Some(clue) => format!("{self}: {} ({})", clue.meaning, clue.line),
            None if matches!(self, Self::Vm(error) if error.is_timeout())
                && serial.trim().is_empty() =>
            {
                format!(
                    "{self}: the guest wrote nothing on its serial line, not even its firmware did"
                )
            }
            None => self.to_string(),
        }
    }

    /// The way out, where there is a plain one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Host { hint, .. } => Some(hint.clone()),
            Self::Vm(gilt_vm::Error::HostLacks { hint, .. }) => Some(hint.clone()),
            Self::Vm(gilt_vm::Error::PortTaken { .. }) => {
                Some("leave the port out to have a free one chosen".into())
            }
            _ if self.is_disk_full() => {
                Some("`gilt layers prune --keep TEMPLATE` removes checkpoints that template does not need".into())
            }
            Self::Leftovers { .. } => {
                Some(
                    "remove it in the layer that left it; a machine's own traces that are meant to stay \
                     are named in `generalize: {keep: […]}`"
                        .into(),
                )
            }
            _ => None,
        }
    }
}
