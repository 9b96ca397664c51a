//! An open ext4 volume.

use crate::error::{Ext4Error, Place, Result};
use crate::extents::{self, Mapping};
use crate::inode::{Inode, flag, mode};
use crate::journal::{self, Overlay};
use crate::layout::{Group, SUPERBLOCK_AT, SUPERBLOCK_BYTES, Superblock, incompat};
use crate::xattr;
use gilt_disk::BlockRead;
use gilt_wim::tree::{ContentId, ContentSource};
use sha1::{Digest, Sha1};
use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Longest file whose inline data or symlink we read into memory.
const MAX_INLINE: u64 = 64 << 10;

pub struct Ext4Volume {
    disk: Arc<dyn BlockRead>,
    sb: Superblock,
    groups: Vec<Group>,
    overlay: Overlay,
    /// Filled by the scan: the inodes that a tree's contents come from.
    pub(crate) files: OnceLock<HashMap<u32, FileInode>>,
}

/// What is kept of a regular file to read it later.
pub(crate) struct FileInode {
    pub inode: Inode,
    /// First byte on the volume, for reading in disk order.
    pub position: u64,
}

/// What the superblock says, for people.
#[derive(Clone, Debug)]
pub struct VolumeInfo {
    pub label: String,
    pub uuid: [u8; 16],
    pub block_bytes: u64,
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u32,
    /// The journal had to be replayed in memory.
    pub replayed: bool,
    /// The kernel noted errors on it.
    pub has_errors: bool,
}

impl Ext4Volume {
    /// Whether `disk` looks like ext2, ext3 or ext4.
    pub fn probe(disk: &dyn BlockRead) -> io::Result<bool> {
        if disk.len_bytes() < SUPERBLOCK_AT + SUPERBLOCK_BYTES as u64 {
            return Ok(false);
        }
        let mut magic = [0; 2];
        disk.read_at(SUPERBLOCK_AT + 0x38, &mut magic)?;
        Ok(magic == [0x53, 0xEF])
    }

    pub fn open(disk: Arc<dyn BlockRead>) -> Result<Self> {
        if disk.len_bytes() < SUPERBLOCK_AT + SUPERBLOCK_BYTES as u64 {
            return Err(Ext4Error::NotExt4);
        }
        let mut raw = vec![0; SUPERBLOCK_BYTES];
        disk.read_at(SUPERBLOCK_AT, &mut raw)?;
        let sb = Superblock::parse(&raw, disk.len_bytes())?;
        let mut volume =
            Self { disk, sb, groups: vec![], overlay: Overlay::new(), files: OnceLock::new() };
        volume.groups = volume.read_groups()?;
        if volume.sb.incompat & incompat::RECOVER != 0 {
            volume.replay_journal()?;
        }
        Ok(volume)
    }

    pub fn info(&self) -> VolumeInfo {
        VolumeInfo {
            label: self.sb.label.clone(),
            uuid: self.sb.uuid,
            block_bytes: self.sb.block_bytes,
            total_bytes: self.sb.blocks * self.sb.block_bytes,
            free_bytes: self.sb.free_blocks.saturating_mul(self.sb.block_bytes),
            inodes: self.sb.inodes,
            replayed: !self.overlay.is_empty(),
            has_errors: self.sb.has_errors || !self.sb.state_clean && self.overlay.is_empty(),
        }
    }

    fn read_groups(&self) -> Result<Vec<Group>> {
        let mut raw = Vec::new();
        for block in self.sb.descriptor_blocks() {
            raw.extend_from_slice(&self.read_block(block)?);
        }
        self.sb.descriptors_of(&raw)
    }

    fn replay_journal(&mut self) -> Result<()> {
        if self.sb.journal_inode == 0 {
            return Err(Ext4Error::Unsupported {
                what: "volume was not cleanly closed and its journal is on another disk".into(),
            });
        }
        let inode = self.inode(self.sb.journal_inode)?;
        let mappings = extents::mappings(self, &inode)?;
        let overlay = journal::replay(journal::Source {
            sb: &self.sb,
            mappings: &mappings,
            read_block: &|block| self.read_block(block),
        })?;
        self.overlay = overlay;
        // What the replay brought may be these two themselves.
        let block_bytes = self.sb.block_bytes;
        let at = SUPERBLOCK_AT % block_bytes;
        let block = self.read_block(SUPERBLOCK_AT / block_bytes)?;
        let raw = block.get(at as usize..at as usize + SUPERBLOCK_BYTES);
        let raw = raw.ok_or(Ext4Error::NotExt4)?;
        let journal_inode = self.sb.journal_inode;
        self.sb = Superblock::parse(raw, self.disk.len_bytes())?;
        self.sb.journal_inode = journal_inode;
        self.groups = self.read_groups()?;
        Ok(())
    }

    /// Whether the journal holds a newer copy of one of these blocks.
    fn is_replayed(&self, blocks: &Range<u64>) -> bool {
        // Whichever is fewer is walked.
        if (self.overlay.len() as u64) < blocks.end - blocks.start {
            self.overlay.keys().any(|block| blocks.contains(block))
        } else {
            blocks.clone().any(|block| self.overlay.contains_key(&block))
        }
    }

    pub(crate) fn superblock(&self) -> &Superblock {
        &self.sb
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(crate) fn read_block(&self, block: u64) -> Result<Vec<u8>> {
        let mut raw = vec![0; self.sb.block_bytes as usize];
        self.read_blocks(block, &mut raw)?;
        Ok(raw)
    }

    /// Whole blocks from `first`, replayed ones in their newest form.
    pub(crate) fn read_blocks(&self, first: u64, buf: &mut [u8]) -> Result<()> {
        let bytes = self.sb.block_bytes;
        let count = buf.len() as u64 / bytes;
        if first.checked_add(count).is_none_or(|end| end > self.sb.blocks) {
            return Err(Ext4Error::Corrupt {
                place: Place::Superblock,
                what: "block number",
                found: first,
                limit: self.sb.blocks,
            });
        }
        self.disk.read_at(first * bytes, buf)?;
        if self.overlay.is_empty() {
            return Ok(());
        }
        for (number, block) in (first..).zip(buf.chunks_exact_mut(bytes as usize)) {
            if let Some(newer) = self.overlay.get(&number) {
                self.disk.read_at(newer.block * bytes, block)?;
                if newer.escaped {
                    block[..4].copy_from_slice(&0xC03B_3998_u32.to_be_bytes());
                }
            }
        }
        Ok(())
    }

    pub(crate) fn inode(&self, number: u32) -> Result<Inode> {
        let per_group = self.sb.inodes_per_group;
        let index = number.checked_sub(1).filter(|_| number <= self.sb.inodes);
        let index = index.ok_or(Ext4Error::Corrupt {
            place: Place::Inode(number),
            what: "inode number",
            found: number.into(),
            limit: self.sb.inodes.into(),
        })?;
        let group = self.groups.get((index / per_group) as usize);
        let table = group.map_or(0, |group| group.inode_table);
        let size = u64::from(self.sb.inode_bytes);
        let at = u64::from(index % per_group) * size;
        let block = self.read_block(table + at / self.sb.block_bytes)?;
        let from = (at % self.sb.block_bytes) as usize;
        let raw = block.get(from..from + size as usize).unwrap_or_default();
        Inode::parse(raw, number, &self.sb)?.ok_or(Ext4Error::Corrupt {
            place: Place::Inode(number),
            what: "inode is not in use",
            found: 0,
            limit: 0,
        })
    }

    /// The first `len` bytes of a file's contents.
    pub(crate) fn read_head(&self, inode: &Inode, len: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; len];
        if inode.has(flag::INLINE_DATA) {
            let data = self.inline_data(inode)?;
            let part = data.len().min(len);
            out[..part].copy_from_slice(&data[..part]);
            return Ok(out);
        }
        let mut reader = FileReader::new(self, inode)?;
        reader.left = len as u64;
        reader.read_exact(&mut out)?;
        Ok(out)
    }

    pub(crate) fn inline_data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let len = inode.size_bytes;
        if len > MAX_INLINE {
            return Err(Ext4Error::Corrupt {
                place: Place::Inode(inode.number),
                what: "inline size",
                found: len,
                limit: MAX_INLINE,
            });
        }
        let mut data = inode.block.to_vec();
        let attributes = xattr::read(self, inode)?;
        data.extend_from_slice(xattr::inline_rest(&attributes).unwrap_or_default());
        data.resize(len as usize, 0);
        Ok(data)
    }

    pub(crate) fn symlink_target(&self, inode: &Inode) -> Result<Vec<u8>> {
        let len = inode.size_bytes;
        // PATH_MAX.
        if len == 0 || len > 4096 {
            return Err(Ext4Error::Corrupt {
                place: Place::Inode(inode.number),
                what: "length of the symbolic link",
                found: len,
                limit: 4096,
            });
        }
        if len < 60 && !inode.has(flag::EXTENTS | flag::INLINE_DATA) {
            return Ok(inode.block[..len as usize].to_vec());
        }
        self.read_head(inode, len as usize)
    }

    fn file(&self, id: ContentId) -> io::Result<&FileInode> {
        let number = u32::try_from(id.0).ok();
        let files = self.files.get().zip(number);
        files.and_then(|(files, number)| files.get(&number)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no file with inode {}", id.0))
        })
    }

    /// Byte ranges of the volume that hold the file, in the order of the file. Empty for inline data.
    pub fn file_ranges(&self, id: ContentId) -> io::Result<Vec<Range<u64>>> {
        let file = self.file(id)?;
        let bytes = self.sb.block_bytes;
        let list = extents::mappings(self, &file.inode)?;
        Ok(list.iter().map(|m| m.physical * bytes..(m.physical + m.blocks) * bytes).collect())
    }

    /// A digest of all that decides the contents but the blocks themselves: length, where each block
    /// is, or the bytes where they are in the inode. Equal stamps over blocks that nobody wrote in
    /// between mean equal contents. `None` where the journal holds newer blocks of the file.
    pub fn content_stamp(&self, id: ContentId) -> io::Result<Option<[u8; 20]>> {
        let inode = &self.file(id)?.inode;
        let mut hash = Sha1::new();
        hash.update(inode.size_bytes.to_le_bytes());
        if inode.has(flag::INLINE_DATA) {
            hash.update(self.inline_data(inode)?);
            return Ok(Some(hash.finalize().into()));
        }
        hash.update(self.sb.block_bytes.to_le_bytes());
        for mapping in extents::mappings(self, inode)? {
            for number in [mapping.logical, mapping.physical, mapping.blocks] {
                hash.update(number.to_le_bytes());
            }
            let blocks = mapping.physical..mapping.physical + mapping.blocks;
            if self.is_replayed(&blocks) {
                return Ok(None);
            }
        }
        Ok(Some(hash.finalize().into()))
    }
}

impl ContentSource for Ext4Volume {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        let file = self.file(id)?;
        if file.inode.has(flag::INLINE_DATA) {
            return Ok(Box::new(io::Cursor::new(self.inline_data(&file.inode)?)));
        }
        Ok(Box::new(FileReader::new(self, &file.inode)?))
    }

    fn position(&self, id: ContentId) -> u64 {
        self.file(id).map_or(0, |file| file.position)
    }
}

/// Reads a file by its extents; holes are zeros.
struct FileReader<'a> {
    volume: &'a Ext4Volume,
    mappings: Vec<Mapping>,
    next: usize,
    position: u64,
    left: u64,
}

impl<'a> FileReader<'a> {
    fn new(volume: &'a Ext4Volume, inode: &Inode) -> Result<Self> {
        if inode.has(flag::ENCRYPTED) && inode.kind() == mode::REGULAR {
            return Err(Ext4Error::Unsupported {
                what: format!("inode {} is encrypted (fscrypt)", inode.number),
            });
        }
        let mappings = extents::mappings(volume, inode)?;
        Ok(Self { volume, mappings, next: 0, position: 0, left: inode.size_bytes })
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = self.left.min(buf.len() as u64);
        if want == 0 {
            return Ok(0);
        }
        let bytes = self.volume.sb.block_bytes;
        while let Some(mapping) = self.mappings.get(self.next)
            && (mapping.logical + mapping.blocks) * bytes <= self.position
        {
            self.next += 1;
        }
        let mapping = self.mappings.get(self.next);
        let start = mapping.map_or(u64::MAX, |mapping| mapping.logical * bytes);
        let len = match mapping {
            Some(mapping) if start <= self.position => {
                let end = (mapping.logical + mapping.blocks) * bytes;
                let len = want.min(end - self.position);
                let at = mapping.physical * bytes + (self.position - start);
                self.volume.read_bytes(at, &mut buf[..len as usize])?;
                len
            }
            _ => {
                let len = want.min(start - self.position);
                buf[..len as usize].fill(0);
                len
            }
        };
        self.position += len;
        self.left -= len;
        Ok(len as usize)
    }
}

impl Ext4Volume {
    /// Any bytes; those of replayed blocks (data=journal) in their newest form.
    fn read_bytes(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        if self.overlay.is_empty() {
            return Ok(self.disk.read_at(at, buf)?);
        }
        let bytes = self.sb.block_bytes;
        let mut done = 0;
        while done < buf.len() {
            let position = at + done as u64;
            let inside = (position % bytes) as usize;
            let len = (bytes as usize - inside).min(buf.len() - done);
            let block = self.read_block(position / bytes)?;
            buf[done..done + len].copy_from_slice(&block[inside..inside + len]);
            done += len;
        }
        Ok(())
    }
}
