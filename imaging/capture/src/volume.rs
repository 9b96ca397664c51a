//! The one face of all file systems we read.

use crate::error::Result;
use gilt_disk::BlockRead;
use gilt_ext4::{Ext4Volume, FatVolume};
use gilt_ntfs::{Note, NoteKind, SpecialPolicy, Storage};
use gilt_wim::tree::{ContentId, ContentSource, NodeId, Tree};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileSystem {
    /// Also ext2 and ext3.
    Ext4,
    Ntfs,
    /// FAT12, FAT16 and FAT32.
    Fat,
}

impl FileSystem {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Ntfs => "NTFS",
            Self::Fat => "FAT",
        }
    }

    /// Whether names that differ only in case are one file.
    pub fn ignores_case(self) -> bool {
        match self {
            Self::Ext4 => false,
            Self::Ntfs | Self::Fat => true,
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

    /// Reads all metadata, or hands it over: asked for once.
    fn tree(&mut self) -> Result<Tree>;

    /// Byte ranges of the volume that hold the contents, in any order; none for what is kept inside
    /// the metadata.
    fn ranges(&self, id: ContentId) -> io::Result<Vec<Range<u64>>>;

    /// A digest of all that decides the contents but the bytes in [`ranges`](Self::ranges): equal
    /// stamps over ranges that nobody wrote in between mean equal contents. `None`: cannot be told.
    fn content_stamp(&self, id: ContentId) -> io::Result<Option<[u8; 20]>>;

    /// The number the file system gives the file these contents belong to.
    fn file_number(&self, _id: ContentId) -> Option<u64> {
        None
    }

    /// Applies `policy` to files of `tree` whose contents are not on the volume, as far as `captured`
    /// holds for them. An error names the first to refuse; else the nodes to leave out.
    fn judge_specials(
        &self,
        _tree: &Tree,
        _policy: SpecialPolicy,
        _captured: &dyn Fn(NodeId) -> bool,
    ) -> Result<Vec<NodeId>> {
        Ok(Vec::new())
    }

    /// What whoever captures the volume should know and that is no error.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

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

    fn tree(&mut self) -> Result<Tree> {
        Ok(Self::tree(self)?)
    }

    fn ranges(&self, id: ContentId) -> io::Result<Vec<Range<u64>>> {
        self.file_ranges(id)
    }

    fn content_stamp(&self, id: ContentId) -> io::Result<Option<[u8; 20]>> {
        Self::content_stamp(self, id)
    }

    fn file_number(&self, id: ContentId) -> Option<u64> {
        Some(id.0)
    }

    fn contents(&self) -> &dyn ContentSource {
        self
    }
}

/// An NTFS volume, and the number its boot sector gives it.
struct Ntfs {
    volume: gilt_ntfs::Volume,
    serial: [u8; 8],
}

impl ContentSource for Ntfs {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        ContentSource::open(&self.volume, id)
    }

    fn position(&self, id: ContentId) -> u64 {
        self.volume.position(id)
    }
}

impl VolumeReader for Ntfs {
    fn file_system(&self) -> FileSystem {
        FileSystem::Ntfs
    }

    fn label(&self) -> String {
        self.volume.label().to_display()
    }

    fn identity(&self) -> Vec<u8> {
        self.serial.to_vec()
    }

    fn tree(&mut self) -> Result<Tree> {
        Ok(self.volume.take_tree())
    }

    fn ranges(&self, id: ContentId) -> io::Result<Vec<Range<u64>>> {
        // Bytes inside a file record are part of the stamp.
        if self.volume.storage(id) == Some(Storage::Resident) {
            return Ok(Vec::new());
        }
        let extents = self.volume.extents(id).into_iter();
        Ok(extents.map(|extent| extent.offset..extent.offset + extent.len_bytes).collect())
    }

    fn content_stamp(&self, id: ContentId) -> io::Result<Option<[u8; 20]>> {
        Ok(self.volume.content_stamp(id))
    }

    fn file_number(&self, id: ContentId) -> Option<u64> {
        self.volume.record_of(id)
    }

    fn judge_specials(
        &self,
        tree: &Tree,
        policy: SpecialPolicy,
        captured: &dyn Fn(NodeId) -> bool,
    ) -> Result<Vec<NodeId>> {
        Ok(self.volume.judge_specials(tree, policy, captured)?)
    }

    fn notes(&self) -> Vec<String> {
        let told = |note: &Note| {
            let what = match note.kind {
                NoteKind::Orphan => "in use, but no folder leads to it: left out",
                NoteKind::StaleName => "a name in a folder that is gone: left out",
                NoteKind::CaseSensitiveDirectory => {
                    "its names are told apart by case, which a WIM cannot say of a folder"
                }
                NoteKind::Damaged(what) => what,
            };
            let name = note.name.as_ref().map_or_else(String::new, |name| name.to_display());
            format!("file record {} {name:?}: {what}", note.record)
        };
        self.volume.notes().iter().map(told).collect()
    }

    fn contents(&self) -> &dyn ContentSource {
        self
    }
}

impl VolumeReader for FatVolume {
    fn file_system(&self) -> FileSystem {
        FileSystem::Fat
    }

    fn label(&self) -> String {
        Self::label(self).to_owned()
    }

    fn identity(&self) -> Vec<u8> {
        self.serial().to_le_bytes().to_vec()
    }

    fn tree(&mut self) -> Result<Tree> {
        Ok(Self::tree(self)?)
    }

    fn ranges(&self, id: ContentId) -> io::Result<Vec<Range<u64>>> {
        self.file_ranges(id)
    }

    /// Such volumes are small: read anew each time.
    fn content_stamp(&self, _id: ContentId) -> io::Result<Option<[u8; 20]>> {
        Ok(None)
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
    let mut head = [0; 80];
    if disk.len_bytes() >= 512 && disk.read_at(0, &mut head).is_ok() && head[3..11] == *b"NTFS    "
    {
        let volume = gilt_ntfs::Volume::open(disk, &gilt_ntfs::Options::default())?;
        let mut serial = [0; 8];
        serial.copy_from_slice(&head[72..]);
        return Ok(Some(Box::new(Ntfs { volume, serial })));
    }
    if FatVolume::probe(&disk).unwrap_or(false) {
        return Ok(Some(Box::new(FatVolume::open(disk)?)));
    }
    Ok(None)
}
