//! What can go wrong, worded for "read this volume", with the place.

use std::fmt;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading byte {at:#x} of the volume: {source}")]
    Read { at: u64, source: io::Error },

    #[error("not an NTFS volume: {found}")]
    NotNtfs { found: &'static str },

    /// The volume header carries `-FVE-FS-`.
    #[error(
        "the volume is encrypted by BitLocker: in the machine run `manage-bde -off` and wait until \
         decryption is complete, then shut it down"
    )]
    BitLocker,

    #[error("damaged NTFS: {place}: {what}")]
    Corrupt { place: Place, what: &'static str },

    /// The machine was not shut down cleanly.
    #[error("the volume was not cleanly dismounted ({why}): {way_out}")]
    Unclean { why: Unclean, way_out: &'static str },

    /// Files whose contents are not in the volume as plain data.
    #[error("{path} {kind} ({count} such files): {way_out}")]
    ContentsElsewhere { path: String, kind: &'static str, count: usize, way_out: &'static str },

    /// A cap that protects memory; [`Limits`](crate::Limits) can raise it.
    #[error("the volume has more than {limit} {what}: raise the limit if it really is that large")]
    TooLarge { what: &'static str, limit: u64 },
}

pub type Result<T> = std::result::Result<T, Error>;

/// Why a volume cannot be trusted to be complete on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclean {
    /// `$Volume` has the dirty bit.
    DirtyFlag,
    /// The restart area of `$LogFile` has open clients and no clean mark.
    LogOpen,
    /// The log is in the form Windows 8 and later use while metadata is still cached
    /// ("fast startup").
    LogCached,
    /// `hiberfil.sys` holds a hibernated system.
    Hibernated,
}

impl fmt::Display for Unclean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DirtyFlag => "its dirty flag is set",
            Self::LogOpen => "its journal holds operations not yet carried out",
            Self::LogCached => "metadata is still in Windows' fast startup cache",
            Self::Hibernated => "hiberfil.sys holds a hibernated Windows",
        })
    }
}

/// Where in the volume something was found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Boot {
        offset: usize,
    },
    /// A byte of a file record, counted from the start of the record.
    Record {
        number: u64,
        offset: usize,
    },
    /// A byte of `$LogFile`.
    Log {
        offset: u64,
    },
    /// A byte of a stream of the file in record `number`.
    Stream {
        number: u64,
        offset: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot { offset } => write!(f, "boot sector, byte {offset:#x}"),
            Self::Record { number, offset } => {
                write!(f, "file record {number}, byte {offset:#x}")
            }
            Self::Log { offset } => write!(f, "$LogFile, byte {offset:#x}"),
            Self::Stream { number, offset } => {
                write!(f, "contents of file record {number}, byte {offset:#x}")
            }
        }
    }
}

/// Something wrong inside one structure; the caller knows which one it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub at: usize,
    pub what: &'static str,
}

impl Fault {
    pub fn new(at: usize, what: &'static str) -> Self {
        Self { at, what }
    }

    pub fn in_record(self, number: u64) -> Error {
        Error::Corrupt { place: Place::Record { number, offset: self.at }, what: self.what }
    }
}

/// The same words for a reader of contents, which speaks `io::Error`.
pub(crate) fn bad_data(place: Place, what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Error::Corrupt { place, what })
}
