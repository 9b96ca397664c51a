//! What can go wrong with a WIM, worded for the person who has the file.

use crate::tree::Sha1;
use std::io;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed underneath; `what` names the file or the piece of work.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },

    /// The bytes contradict the format.
    #[error("damaged WIM: {what} at offset {at:#x}: found {found}, expected {expected}")]
    Corrupt { at: u64, what: &'static str, found: String, expected: String },

    /// The bytes of a resource are not those its SHA-1 names.
    #[error(
        "resource at offset {at:#x} ({size_bytes} bytes) has SHA-1 {found}, expected {expected}"
    )]
    HashMismatch { at: u64, size_bytes: u64, found: Sha1, expected: Sha1 },

    /// The integrity table contradicts the file.
    #[error("integrity table: the {chunk_bytes} bytes from offset {at:#x} have changed")]
    IntegrityMismatch { at: u64, chunk_bytes: u64 },

    /// A valid file this version cannot handle.
    #[error("unsupported: {what}")]
    Unsupported { what: String },

    /// The contents are in another file: a delta's base, or another part of a split set.
    #[error("resource {sha1} is in none of the given files; name the base WIM or the other parts")]
    MissingResource { sha1: Sha1 },

    #[error("there is no image {index}: the file has {count}")]
    NoSuchImage { index: u32, count: u32 },

    /// A tree that cannot be written, or a name that cannot be created.
    #[error("{path}: {why}")]
    Tree { path: String, why: String },

    /// A stream delivered other bytes than it promised.
    #[error("{what} changed while it was read: {why}")]
    SourceChanged { what: String, why: String },

    /// Options that contradict each other.
    #[error("{0}")]
    Options(String),

    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub(crate) fn corrupt(
        at: u64,
        what: &'static str,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Self {
        Self::Corrupt { at, what, found: found.to_string(), expected: expected.to_string() }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }

    /// The file is damaged or is not what it claims to be.
    pub fn is_corruption(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. } | Self::HashMismatch { .. } | Self::IntegrityMismatch { .. }
        )
    }
}

/// Says what was being done when an I/O error came.
pub(crate) trait IoContext<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| from_io(source, what))
    }

    fn at(self, path: &Path) -> Result<T> {
        self.doing(|| PathBuf::from(path).display().to_string())
    }
}

/// Takes one of our own errors back out of an `io::Error` that carried it through `Read`.
pub(crate) fn from_io(source: io::Error, what: impl FnOnce() -> String) -> Error {
    match source.downcast::<Error>() {
        Ok(own) => own,
        Err(source) => Error::Io { what: what(), source },
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { source, .. } => source,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}
