//! Replays the journal (jbd2) of a volume that was not cleanly closed, in memory.
//!
//! ```text
//! superblock │ descriptor: block numbers │ copies .. │ commit │ descriptor ..   (a ring)
//!              revoke: blocks that later copies of earlier transactions must not overwrite
//! ```
//! Nothing is copied or written: a map tells for each replaced block where its newest committed
//! copy lies inside the journal.

use crate::bytes::{be16, be32, crc32c_raw, join};
use crate::error::{Ext4Error, Place, Result};
use crate::extents::Mapping;
use crate::layout::Superblock;
use std::collections::HashMap;

const MAGIC: u32 = 0xC03B_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

mod incompat {
    pub const BITS64: u32 = 2;
    pub const CSUM_V2: u32 = 8;
    pub const CSUM_V3: u32 = 0x10;
    pub const FAST_COMMIT: u32 = 0x20;
    pub const KNOWN: u32 = 0x1F;
}

mod tag_flag {
    pub const ESCAPED: u32 = 1;
    pub const SAME_UUID: u32 = 2;
    pub const LAST: u32 = 8;
}

/// Newest copy of a block of the volume.
#[derive(Clone, Copy, Debug)]
pub struct Replacement {
    /// Block of the volume that holds the copy.
    pub block: u64,
    /// The copy began with the journal's magic, which was blanked.
    pub escaped: bool,
}

pub type Overlay = HashMap<u64, Replacement>;

/// Reads the blocks of the journal inode.
pub struct Source<'a> {
    pub sb: &'a Superblock,
    pub mappings: &'a [Mapping],
    pub read_block: &'a dyn Fn(u64) -> Result<Vec<u8>>,
}

impl Source<'_> {
    fn physical(&self, block: u64) -> Result<u64> {
        let index = self.mappings.partition_point(|mapping| mapping.logical <= block);
        let mapping = index.checked_sub(1).and_then(|index| self.mappings.get(index));
        mapping
            .filter(|mapping| block < mapping.logical + mapping.blocks)
            .map(|mapping| mapping.physical + (block - mapping.logical))
            .ok_or_else(|| corrupt(block, "journal block is not mapped", block, 0))
    }

    fn block(&self, block: u64) -> Result<Vec<u8>> {
        (self.read_block)(self.physical(block)?)
    }
}

fn corrupt(block: u64, what: &'static str, found: u64, limit: u64) -> Ext4Error {
    Ext4Error::Corrupt { place: Place::Journal { block }, what, found, limit }
}

struct Journal<'a> {
    source: Source<'a>,
    /// First block of the ring and the one after its last.
    ring: (u64, u64),
    features: u32,
    seed: u32,
}

/// What the journal holds that the volume has not.
pub fn replay(source: Source<'_>) -> Result<Overlay> {
    let head = source.block(0)?;
    let get = |at| be32(&head, at).unwrap_or(0);
    if get(0) != MAGIC || !matches!(get(4), 3 | 4) {
        return Err(corrupt(0, "journal magic", get(0).into(), MAGIC.into()));
    }
    let (max_len, first, sequence, start) = (get(16), get(20), get(24), get(28));
    if u64::from(get(12)) != source.sb.block_bytes {
        return Err(corrupt(0, "journal block size", get(12).into(), source.sb.block_bytes));
    }
    let features = if get(4) == 4 { get(40) } else { 0 };
    if start == 0 {
        return Ok(Overlay::new());
    }
    if features & incompat::FAST_COMMIT != 0 {
        return Err(Ext4Error::Unsupported {
            what: "volume was not cleanly closed and its journal uses fast commits; mount it once"
                .into(),
        });
    }
    if features & !incompat::KNOWN != 0 {
        let what = format!("journal has unknown features {features:#x}");
        return Err(Ext4Error::Unsupported { what });
    }
    if first == 0 || first >= max_len || start < first || start >= max_len {
        return Err(corrupt(0, "journal start", start.into(), max_len.into()));
    }
    let seed = crc32c_raw(u32::MAX, head.get(48..64).unwrap_or_default());
    let ring = (u64::from(first), u64::from(max_len));
    let journal = Journal { source, ring, features, seed };
    journal.replay(start.into(), sequence)
}

/// A transaction's copies: block of the volume, block of the journal, escaped.
#[derive(Default)]
struct Transaction {
    copies: Vec<(u64, u64, bool)>,
    revoked: Vec<u64>,
}

impl Journal<'_> {
    fn replay(&self, start: u64, first_sequence: u32) -> Result<Overlay> {
        let mut at = start;
        let mut sequence = first_sequence;
        let mut open = Transaction::default();
        // Last transaction that revoked a block, and the copies in order.
        let mut revoked: HashMap<u64, u32> = HashMap::new();
        let mut copies: Vec<(u32, (u64, u64, bool))> = Vec::new();
        let mut seen = 0;
        // A ring that never ends would be walked once at most.
        while seen < self.ring.1 - self.ring.0 {
            let block = self.source.block(at)?;
            let get = |at| be32(&block, at).unwrap_or(0);
            if get(0) != MAGIC || get(8) != sequence {
                break;
            }
            let mut used = 1;
            match get(4) {
                DESCRIPTOR => {
                    if !self.tail_is_right(&block) {
                        break;
                    }
                    for (target, escaped) in self.tags(&block, at)? {
                        let copy = self.wrap(at + used);
                        open.copies.push((target, copy, escaped));
                        used += 1;
                    }
                }
                REVOKE => {
                    if !self.tail_is_right(&block) {
                        break;
                    }
                    self.revocations(&block, at, &mut open.revoked)?;
                }
                COMMIT => {
                    if !self.commit_is_right(&block) {
                        break;
                    }
                    let done = std::mem::take(&mut open);
                    for target in done.revoked {
                        revoked.insert(target, sequence);
                    }
                    copies.extend(done.copies.into_iter().map(|copy| (sequence, copy)));
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
            seen += used;
            at = self.wrap(at + used);
        }
        let mut overlay = Overlay::new();
        for (sequence, (target, copy, escaped)) in copies {
            let later = |by: &u32| (*by).wrapping_sub(sequence) as i32 >= 0;
            if revoked.get(&target).is_some_and(later) {
                continue;
            }
            let block = self.source.physical(copy)?;
            overlay.insert(target, Replacement { block, escaped });
        }
        Ok(overlay)
    }

    fn wrap(&self, at: u64) -> u64 {
        let (first, end) = self.ring;
        if at < end { at } else { first + (at - end) % (end - first) }
    }

    fn has_checksums(&self) -> bool {
        self.features & (incompat::CSUM_V2 | incompat::CSUM_V3) != 0
    }

    /// Descriptor and revoke blocks end with their checksum.
    fn tail_is_right(&self, block: &[u8]) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let at = block.len() - 4;
        let mut crc = crc32c_raw(self.seed, &block[..at]);
        crc = crc32c_raw(crc, &[0; 4]);
        be32(block, at) == Some(crc)
    }

    fn commit_is_right(&self, block: &[u8]) -> bool {
        if !self.has_checksums() {
            return true;
        }
        let mut crc = crc32c_raw(self.seed, &block[..16]);
        crc = crc32c_raw(crc, &[0; 4]);
        crc = crc32c_raw(crc, &block[20..]);
        be32(block, 16) == Some(crc)
    }

    fn tags(&self, block: &[u8], at: u64) -> Result<Vec<(u64, bool)>> {
        let v3 = self.features & incompat::CSUM_V3 != 0;
        let wide = self.features & incompat::BITS64 != 0;
        let tag_bytes = match (v3, self.features & incompat::CSUM_V2 != 0, wide) {
            (true, _, _) => 16,
            (false, true, true) => 14,
            (false, true, false) => 10,
            (false, false, true) => 12,
            (false, false, false) => 8,
        };
        let end = block.len() - if self.has_checksums() { 4 } else { 0 };
        let mut list = Vec::new();
        let mut position = 12;
        while position + tag_bytes <= end {
            let low = be32(block, position).unwrap_or(0);
            let flags = if v3 {
                be32(block, position + 4).unwrap_or(0)
            } else {
                be16(block, position + 6).unwrap_or(0).into()
            };
            let high = if wide { be32(block, position + 8).unwrap_or(0) } else { 0 };
            let target = join(high, low);
            if target >= self.source.sb.blocks {
                return Err(corrupt(at, "block to replay", target, self.source.sb.blocks));
            }
            list.push((target, flags & tag_flag::ESCAPED != 0));
            position += tag_bytes;
            if flags & tag_flag::SAME_UUID == 0 {
                position += 16;
            }
            if flags & tag_flag::LAST != 0 {
                break;
            }
        }
        Ok(list)
    }

    fn revocations(&self, block: &[u8], at: u64, list: &mut Vec<u64>) -> Result<()> {
        let used = be32(block, 12).unwrap_or(0) as usize;
        if used < 16 || used > block.len() {
            return Err(corrupt(at, "revoke count", used as u64, block.len() as u64));
        }
        if self.features & incompat::BITS64 != 0 {
            for entry in block[16..used].chunks_exact(8) {
                list.push(join(be32(entry, 0).unwrap_or(0), be32(entry, 4).unwrap_or(0)));
            }
        } else {
            for entry in block[16..used].chunks_exact(4) {
                list.push(be32(entry, 0).unwrap_or(0).into());
            }
        }
        Ok(())
    }
}
