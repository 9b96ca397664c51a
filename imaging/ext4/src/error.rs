//! What can go wrong with an ext4 volume.

use std::io;

pub type Result<T, E = Ext4Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    #[error("not an ext2, ext3 or ext4 volume")]
    NotExt4,

    #[error("volume cannot be read: {0}")]
    Io(#[from] io::Error),

    #[error("{place} is corrupt: {what}: found {found:#x}, limit {limit:#x}")]
    Corrupt { place: Place, what: &'static str, found: u64, limit: u64 },

    #[error("{what}")]
    Unsupported { what: String },

    /// A name that has no form in UTF-16; renaming it silently would be wrong.
    #[error("name {name:?} in directory inode {directory} has no form in UTF-16")]
    Name { directory: u32, name: String },
}

/// Where on the volume something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Superblock,
    Group(u64),
    Inode(u32),
    Journal { block: u64 },
    Fat,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Superblock => write!(f, "superblock"),
            Self::Group(number) => write!(f, "block group {number}"),
            Self::Inode(number) => write!(f, "inode {number}"),
            Self::Fat => write!(f, "FAT volume"),
            Self::Journal { block } => write!(f, "journal block {block}"),
        }
    }
}

impl From<Ext4Error> for io::Error {
    fn from(error: Ext4Error) -> Self {
        match error {
            Ext4Error::Io(error) => error,
            Ext4Error::Corrupt { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
            other => io::Error::other(other),
        }
    }
}
