//! Where the fixed structures of a volume are, and which blocks are free.

use crate::error::{Ext4Error, Result};
use std::ops::Range;

pub const BLOCK_BYTES: u64 = 4096;
pub const BLOCKS_PER_GROUP: u64 = 32_768;
pub const INODE_BYTES: u64 = 256;
pub const DESCRIPTOR_BYTES: u64 = 64;
/// First inode that is not reserved: lost+found.
pub const FIRST_INODE: u32 = 11;
const GROUPS_PER_FLEX: u64 = 16;
pub const LOG_GROUPS_PER_FLEX: u8 = 4;
/// mke2fs' own default: one inode for so many bytes.
const BYTES_PER_INODE: u64 = 16_384;
/// So that the tables of a flex group fit its first group.
const MAX_INODES_PER_GROUP: u64 = 24_576;
const INODES_PER_BLOCK: u64 = BLOCK_BYTES / INODE_BYTES;
/// Fewer are of no use.
const MIN_BLOCKS: u64 = 2048;

pub struct Geometry {
    pub blocks: u64,
    pub groups: u64,
    pub inodes_per_group: u64,
    pub descriptor_blocks: u64,
    pub journal_blocks: u64,
}

/// Where one group has its tables.
pub struct GroupPlace {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
}

impl Geometry {
    pub fn new(size_bytes: u64, last_inode: u32) -> Result<Self> {
        let mut blocks = size_bytes / BLOCK_BYTES;
        let too_small = |what: &str| Ext4Error::Unsupported {
            what: format!("a volume of {size_bytes} bytes is too small: {what}"),
        };
        // A last group too small for its backup superblock and some data is not worth having.
        let tail = blocks % BLOCKS_PER_GROUP;
        if blocks > BLOCKS_PER_GROUP && tail < 1024 {
            blocks -= tail;
        }
        if blocks < MIN_BLOCKS {
            return Err(too_small("8 MiB are the least"));
        }
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let wanted = (blocks * BLOCK_BYTES / BYTES_PER_INODE).max(u64::from(last_inode) + 256);
        let per_group = wanted.div_ceil(groups).next_multiple_of(INODES_PER_BLOCK * 8);
        if per_group > MAX_INODES_PER_GROUP {
            let limit = MAX_INODES_PER_GROUP * groups;
            return Err(too_small(&format!("{last_inode} files need inodes, {limit} fit")));
        }
        let journal_blocks = match blocks {
            0..32_768 => 1024,
            32_768..262_144 => 4096,
            262_144..524_288 => 8192,
            _ => 16_384,
        };
        let this = Self {
            blocks,
            groups,
            inodes_per_group: per_group,
            descriptor_blocks: (groups * DESCRIPTOR_BYTES).div_ceil(BLOCK_BYTES),
            journal_blocks,
        };
        // The first group of the last flex group holds the tables of all of it.
        for first in (0..groups).step_by(GROUPS_PER_FLEX as usize) {
            let end = this.flex_tables(first).end;
            if end > this.group_end(first) {
                return Err(too_small("its inode tables do not fit"));
            }
        }
        Ok(this)
    }

    pub fn inodes(&self) -> u64 {
        self.inodes_per_group * self.groups
    }

    pub fn table_blocks(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    pub fn group_end(&self, group: u64) -> u64 {
        ((group + 1) * BLOCKS_PER_GROUP).min(self.blocks)
    }

    /// Superblock and descriptors are repeated in groups 0, 1 and powers of 3, 5 and 7.
    pub fn has_superblock(group: u64) -> bool {
        group <= 1
            || [3, 5, 7].iter().any(|base| {
                let mut power = *base;
                while power < group {
                    power *= base;
                }
                power == group
            })
    }

    fn head_blocks(&self, group: u64) -> u64 {
        if Self::has_superblock(group) { 1 + self.descriptor_blocks } else { 0 }
    }

    fn flex_tables(&self, first: u64) -> Range<u64> {
        let groups = GROUPS_PER_FLEX.min(self.groups - first);
        let start = first * BLOCKS_PER_GROUP + self.head_blocks(first);
        start..start + groups * (2 + self.table_blocks())
    }

    pub fn place(&self, group: u64) -> GroupPlace {
        let first = group / GROUPS_PER_FLEX * GROUPS_PER_FLEX;
        let groups = GROUPS_PER_FLEX.min(self.groups - first);
        let (start, index) = (self.flex_tables(first).start, group - first);
        GroupPlace {
            block_bitmap: start + index,
            inode_bitmap: start + groups + index,
            inode_table: start + 2 * groups + index * self.table_blocks(),
        }
    }

    /// Blocks of fixed structures, in order.
    pub fn fixed(&self) -> Vec<Range<u64>> {
        let mut list = Vec::new();
        for group in 0..self.groups {
            let start = group * BLOCKS_PER_GROUP;
            let head = self.head_blocks(group);
            if group.is_multiple_of(GROUPS_PER_FLEX) {
                list.push(start..self.flex_tables(group).end);
            } else if head > 0 {
                list.push(start..start + head);
            }
        }
        list
    }
}

/// Hands out blocks from the front.
pub struct Allocator {
    free: Vec<Range<u64>>,
    /// Handed out, in order, neighbours joined.
    used: Vec<Range<u64>>,
    left: u64,
    total: u64,
}

impl Allocator {
    pub fn new(geometry: &Geometry) -> Self {
        let mut free = Vec::new();
        let mut at = 0;
        for fixed in geometry.fixed() {
            if at < fixed.start {
                free.push(at..fixed.start);
            }
            at = fixed.end;
        }
        if at < geometry.blocks {
            free.push(at..geometry.blocks);
        }
        let total = free.iter().map(|range| range.end - range.start).sum();
        free.reverse();
        Self { free, used: Vec::new(), left: total, total }
    }

    pub fn used(&self) -> &[Range<u64>] {
        &self.used
    }

    /// `blocks` blocks, in as few runs as there are.
    pub fn take(&mut self, mut blocks: u64) -> Result<Vec<Range<u64>>> {
        if blocks > self.left {
            let mib = |blocks: u64| (blocks * BLOCK_BYTES).div_ceil(1 << 20);
            return Err(Ext4Error::Unsupported {
                what: format!(
                    "the volume is too small: {} MiB fit, {} MiB more are needed at this point",
                    mib(self.total),
                    mib(blocks - self.left)
                ),
            });
        }
        self.left -= blocks;
        let mut runs = Vec::new();
        while blocks > 0 {
            let Some(range) = self.free.last_mut() else { break };
            let len = blocks.min(range.end - range.start);
            let run = range.start..range.start + len;
            range.start += len;
            if range.start == range.end {
                self.free.pop();
            }
            blocks -= len;
            match self.used.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => self.used.push(run.clone()),
            }
            runs.push(run);
        }
        Ok(runs)
    }

    pub fn take_one(&mut self) -> Result<u64> {
        Ok(self.take(1)?.first().map_or(0, |run| run.start))
    }
}
