//! What can go wrong with a disk image.

use std::io;
use std::path::PathBuf;

pub type Result<T, E = DiskError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    /// A running machine may write to it: what we would read is not one moment's state.
    #[error("{}: disk is in use by a running machine ({holder})", path.display())]
    InUse { path: PathBuf, holder: String },

    #[error("{image}: corrupt at {at:#x}: {what}: found {found:#x}, limit {limit:#x}")]
    Corrupt { image: String, at: u64, what: &'static str, found: u64, limit: u64 },

    #[error("{image}: {what}")]
    Unsupported { image: String, what: String },

    #[error("{}: {what}", path.display())]
    Chain { path: PathBuf, what: String },

    #[error("{}: cannot open its backing image: {source}", child.display())]
    Backing { child: PathBuf, source: Box<DiskError> },

    #[error("{image}: no snapshot {name:?} (it has: {known})")]
    NoSnapshot { image: String, name: String, known: String },

    #[error("no partition table: {reason}")]
    NoPartitionTable { reason: String },
}

impl DiskError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Io { path, source } => {
                io::Error::new(source.kind(), DiskError::Io { path, source })
            }
            DiskError::Corrupt { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
            other => io::Error::other(other),
        }
    }
}
