//! What can go wrong between a disk and a WIM.

use std::io;
use std::path::PathBuf;

pub type Result<T, E = CaptureError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error(transparent)]
    Disk(#[from] gilt_disk::DiskError),

    #[error("ext4: {0}")]
    Ext4(#[from] gilt_ext4::Ext4Error),

    #[error("NTFS: {0}")]
    Ntfs(#[from] gilt_ntfs::Error),

    #[error(transparent)]
    Windows(#[from] crate::windows::WindowsError),

    #[error(transparent)]
    Wim(#[from] gilt_wim::Error),

    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("{path}: {source}")]
    File { path: String, source: io::Error },

    /// None of the partitions is one to capture; each is told.
    #[error("found no operating system to capture on the disk: {partitions}")]
    NoSystem { partitions: String },

    #[error("there is no partition {number}; the disk has: {partitions}")]
    NoPartition { number: u32, partitions: String },

    #[error("partition {number} is {what}")]
    NotReadable { number: u32, what: String },

    /// The disk was written to while it was read; nothing of the result can be trusted.
    #[error("{}: changed while it was captured", path.display())]
    Changed { path: PathBuf },

    /// The proof of an incremental capture failed.
    #[error("the index of the earlier capture is wrong: contents {content} were changed")]
    IndexWrong { content: u64 },

    #[error("{what}")]
    Layout { what: String },

    #[error("exclusion rules, line {line}: {what}")]
    Rules { line: usize, what: String },
}

impl CaptureError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
