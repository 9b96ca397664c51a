//! The one face of all file systems we read.

use crate::error::Result;
use gilt_disk::BlockRead;
use gilt_ext4::Ext4Volume;
use gilt_wim::tree::{ContentId, ContentSource, Tree};
use std::io;
use std::ops::Range;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileSystem {
    /// Also ext2 and ext3.
    Ext4,
}

impl FileSystem {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
        }
    }

    /// Whether names that differ only in case are one file.
    pub fn ignores_case(self) -> bool {
        match self {
            Self::Ext4 => false,
        }
    }
}

/// A volume that can be captured: a tree, and the contents behind it.
pub trait VolumeReader: ContentSource {
    fn file_system(&self) -> FileSystem;

    /// The label users gave it.
    fn label(&self) -> String;

    /// A number of the volume that a copy of it shares and another volume does not.
    fn identity(&self) -> Vec<u8>;

    /// Reads all metadata.
    fn tree(&self) -> Result<Tree>;

    /// Byte ranges of the volume that hold the contents, in any order; none for what is kept inside
    /// the metadata.
    fn ranges(&self, id: ContentId) -> io::Result<Vec<Range<u64>>>;

    /// A digest of all that decides the contents but the bytes in [`ranges`](Self::ranges): equal
    /// stamps over ranges that nobody wrote in between mean equal contents. `None`: cannot be told.
    fn content_stamp(&self, id: ContentId) -> io::Result<Option<[u8; 20]>>;

    /// As the trait object the WIM writer takes.
    fn contents(&self) -> &dyn ContentSource;
}

impl VolumeReader for Ext4Volume {
    fn file_system(&self) -> FileSystem {
        FileSystem::Ext4
    }

    fn label(&self) -> String {
        self.info().label
    }

    fn identity(&self) -> Vec<u8> {
        self.info().uuid.to_vec()
    }

    fn tree(&self) -> Result<Tree> {
        Ok(Self::tree(self)?)
    }

    fn ranges(&self, id: ContentId) -> io::Result<Vec<Range<u64>>> {
        self.file_ranges(id)
    }

    fn content_stamp(&self, id: ContentId) -> io::Result<Option<[u8; 20]>> {
        Self::content_stamp(self, id)
    }

    fn contents(&self) -> &dyn ContentSource {
        self
    }
}

/// Opens the file system on `disk`; `None` when it is none we read.
pub fn open_volume(disk: Arc<dyn BlockRead>) -> Result<Option<Box<dyn VolumeReader>>> {
    if Ext4Volume::probe(&disk).unwrap_or(false) {
        return Ok(Some(Box::new(Ext4Volume::open(disk)?)));
    }
    Ok(None)
}
