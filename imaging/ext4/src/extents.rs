//! Where the blocks of a file are: extent trees and the older block maps.

use crate::bytes::{join, le16, le32};
use crate::error::{Ext4Error, Place, Result};
use crate::inode::{Inode, flag};
use crate::volume::Ext4Volume;

const EXTENT_MAGIC: u16 = 0xF30A;
/// The kernel's own limit.
const MAX_DEPTH: u16 = 5;
/// Above this an extent is reserved but not written: zeros.
const MAX_WRITTEN: u16 = 32_768;

/// A run of blocks of a file. What no mapping covers is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First block in the file.
    pub logical: u64,
    /// First block on the volume.
    pub physical: u64,
    pub blocks: u64,
}

pub fn mappings(volume: &Ext4Volume, inode: &Inode) -> Result<Vec<Mapping>> {
    let mut walk = Walk {
        volume,
        inode: inode.number,
        next_logical: 0,
        list: Vec::new(),
        // Blocks behind the end of the file (left by a preallocation) are of no interest.
        end: inode.size_bytes.div_ceil(volume.superblock().block_bytes),
        budget: volume.superblock().blocks,
    };
    if inode.has(flag::INLINE_DATA) {
        return Ok(Vec::new());
    }
    if inode.has(flag::EXTENTS) {
        walk.node(&inode.block, None, u64::MAX)?;
    } else {
        walk.block_map(inode)?;
    }
    Ok(walk.list)
}

struct Walk<'a> {
    volume: &'a Ext4Volume,
    inode: u32,
    /// Extents must not go back; that also bounds the walk on a hostile tree.
    next_logical: u64,
    list: Vec<Mapping>,
    end: u64,
    /// Blocks a file may still have: all of the volume's. Bounds a walk through tables that repeat.
    budget: u64,
}

impl Walk<'_> {
    fn corrupt(&self, what: &'static str, found: u64, limit: u64) -> Ext4Error {
        Ext4Error::Corrupt { place: Place::Inode(self.inode), what, found, limit }
    }

    fn node(&mut self, raw: &[u8], want_depth: Option<u16>, limit: u64) -> Result<()> {
        let get16 = |at| le16(raw, at).unwrap_or(0);
        let (magic, entries, depth) = (get16(0), get16(2), get16(6));
        if magic != EXTENT_MAGIC {
            return Err(self.corrupt("extent magic", magic.into(), EXTENT_MAGIC.into()));
        }
        if depth > MAX_DEPTH || want_depth.is_some_and(|want| want != depth) {
            return Err(self.corrupt("extent depth", depth.into(), MAX_DEPTH.into()));
        }
        let room = raw.len() / 12 - 1;
        if usize::from(entries) > room {
            return Err(self.corrupt("extent entries", entries.into(), room as u64));
        }
        for index in 0..usize::from(entries) {
            let at = 12 + index * 12;
            let logical = u64::from(le32(raw, at).unwrap_or(0));
            if logical < self.next_logical || logical >= limit {
                return Err(self.corrupt("extent order", logical, limit));
            }
            if depth == 0 {
                let len = le16(raw, at + 4).unwrap_or(0);
                let high = le16(raw, at + 6).unwrap_or(0);
                let physical = join(high.into(), le32(raw, at + 8).unwrap_or(0));
                let written = len <= MAX_WRITTEN;
                let blocks = u64::from(if written { len } else { len - MAX_WRITTEN });
                if blocks == 0 || logical + blocks > limit {
                    return Err(self.corrupt("extent length", blocks, limit - logical));
                }
                self.next_logical = logical + blocks;
                if written {
                    self.push(Mapping { logical, physical, blocks })?;
                }
            } else {
                let high = le16(raw, at + 8).unwrap_or(0);
                let child = join(high.into(), le32(raw, at + 4).unwrap_or(0));
                let next = (index + 1 < usize::from(entries))
                    .then(|| le32(raw, at + 12))
                    .flatten()
                    .map_or(limit, u64::from);
                if next <= logical {
                    return Err(self.corrupt("extent order", next, logical));
                }
                // An empty child would let the same block be walked without end.
                self.next_logical = logical;
                let before = self.next_logical;
                let block = self.volume.read_block(child)?;
                self.node(&block, Some(depth - 1), next.min(limit))?;
                if self.next_logical == before {
                    return Err(self.corrupt("empty extent node", child, 0));
                }
            }
        }
        Ok(())
    }

    fn spend(&mut self, blocks: u64) -> Result<()> {
        let limit = self.volume.superblock().blocks;
        self.budget = self
            .budget
            .checked_sub(blocks)
            .ok_or_else(|| self.corrupt("more blocks than the volume has", blocks, limit))?;
        Ok(())
    }

    fn push(&mut self, mapping: Mapping) -> Result<()> {
        let limit = self.volume.superblock().blocks;
        self.spend(mapping.blocks)?;
        let end = mapping.physical.checked_add(mapping.blocks);
        if mapping.physical == 0 || end.is_none_or(|end| end > limit) {
            return Err(self.corrupt("extent on the volume", mapping.physical, limit));
        }
        let blocks = mapping.blocks.min(self.end.saturating_sub(mapping.logical));
        if blocks == 0 {
            return Ok(());
        }
        if let Some(last) = self.list.last_mut()
            && last.logical + last.blocks == mapping.logical
            && last.physical + last.blocks == mapping.physical
        {
            last.blocks += blocks;
            return Ok(());
        }
        self.list.push(Mapping { blocks, ..mapping });
        Ok(())
    }

    /// ext2 and ext3: 12 direct blocks, then trees of one, two and three levels.
    fn block_map(&mut self, inode: &Inode) -> Result<()> {
        let pointers = |raw: &[u8]| -> Vec<u32> {
            let whole = raw.chunks_exact(4);
            whole.map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
        };
        let root = pointers(&inode.block);
        let per_block = self.volume.superblock().block_bytes / 4;
        for (logical, physical) in (0..).zip(&root[..12]) {
            self.pointer(logical, *physical)?;
        }
        let mut first = 12;
        let mut span = 1_u64;
        for (level, pointer) in (1..=3).zip(&root[12..]) {
            span *= per_block;
            if first >= self.end {
                break;
            }
            if *pointer != 0 {
                self.indirect(first, *pointer, level, &pointers)?;
            }
            first += span;
        }
        Ok(())
    }

    fn indirect(
        &mut self,
        first: u64,
        block: u32,
        level: u32,
        pointers: &dyn Fn(&[u8]) -> Vec<u32>,
    ) -> Result<()> {
        self.spend(1)?;
        let table = pointers(&self.volume.read_block(block.into())?);
        let span = (table.len() as u64).pow(level - 1);
        for (logical, pointer) in table.iter().enumerate() {
            let logical = first + logical as u64 * span;
            if logical >= self.end {
                break;
            }
            match (*pointer, level) {
                (0, _) => {}
                (physical, 1) => self.pointer(logical, physical)?,
                (child, _) => self.indirect(logical, child, level - 1, pointers)?,
            }
        }
        Ok(())
    }

    fn pointer(&mut self, logical: u64, physical: u32) -> Result<()> {
        if physical == 0 || logical >= self.end {
            return Ok(());
        }
        self.push(Mapping { logical, physical: physical.into(), blocks: 1 })
    }
}
