//! Superblocks, group descriptors, bitmaps and the journal's own superblock.

use super::geometry::{
    Allocator, BLOCK_BYTES, BLOCKS_PER_GROUP, DESCRIPTOR_BYTES, FIRST_INODE, Geometry, INODE_BYTES,
    LOG_GROUPS_PER_FLEX,
};
use super::inodes::{JOURNAL, Plan};
use super::{BuildOptions, Built, WriteAt};
use crate::bytes::crc32c_raw;
use crate::error::Result;
use crate::layout::incompat;

const COMPAT: u32 = 0x4 | 0x8 | 0x20; // has_journal, ext_attr, dir_index
const INCOMPAT: u32 = incompat::FILETYPE | incompat::EXTENTS | incompat::BITS64 | incompat::FLEX_BG;
// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
/// The inode table holds zeros where nothing was written.
const TABLE_ZEROED: u16 = 0x4;

pub struct Ids {
    uuid: [u8; 16],
    label: String,
    pub created: u32,
    pub checksum_seed: u32,
}

impl Ids {
    pub fn new(options: &BuildOptions) -> Self {
        Self {
            uuid: options.uuid,
            label: options.label.clone(),
            created: options.created,
            checksum_seed: crc32c_raw(u32::MAX, &options.uuid),
        }
    }

    /// Checksums of an inode and of its blocks begin with its number and generation (0).
    pub fn inode_seed(&self, number: u32) -> u32 {
        crc32c_raw(crc32c_raw(self.checksum_seed, &number.to_le_bytes()), &[0; 4])
    }
}

pub fn journal_superblock(blocks: u64, ids: &Ids) -> Vec<u8> {
    let mut raw = vec![0; BLOCK_BYTES as usize];
    let fields = [(0, 0xC03B_3998_u32), (4, 4), (12, BLOCK_BYTES as u32), (16, blocks as u32)];
    for (at, value) in fields.into_iter().chain([(20, 1), (24, 1), (64, 1)]) {
        raw[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    raw[48..64].copy_from_slice(&ids.uuid);
    raw
}

struct Counts {
    free_blocks: u64,
    free_inodes: u64,
}

/// Writes what describes the whole volume; everything else must be in place.
pub fn write(
    geometry: &Geometry,
    space: &Allocator,
    plan: &Plan,
    ids: &Ids,
    out: &dyn WriteAt,
) -> Result<Built> {
    let per_group = geometry.inodes_per_group;
    let mut used_inodes = vec![false; (geometry.inodes()) as usize];
    used_inodes[..(FIRST_INODE - 1) as usize].fill(true);
    for (number, _) in &plan.inodes {
        used_inodes[(number - 1) as usize] = true;
    }
    let mut folders = vec![0_u64; geometry.groups as usize];
    for number in &plan.directories {
        folders[(u64::from(number - 1) / per_group) as usize] += 1;
    }
    let mut descriptors = vec![0; (geometry.descriptor_blocks * BLOCK_BYTES) as usize];
    let mut counts = Counts { free_blocks: 0, free_inodes: 0 };
    let mut used: Vec<_> = geometry.fixed();
    used.extend_from_slice(space.used());
    used.sort_by_key(|range| range.start);
    for group in 0..geometry.groups {
        let place = geometry.place(group);
        let (start, end) = (group * BLOCKS_PER_GROUP, geometry.group_end(group));

        let mut blocks = vec![0_u8; BLOCK_BYTES as usize];
        // Bits beyond the volume count as used.
        set_bits(&mut blocks, end - start..BLOCKS_PER_GROUP);
        let mut free_blocks = end - start;
        let from = used.partition_point(|range| range.end <= start);
        for range in used[from..].iter().take_while(|range| range.start < end) {
            let bits = range.start.max(start) - start..range.end.min(end) - start;
            free_blocks -= bits.end - bits.start;
            set_bits(&mut blocks, bits);
        }
        let mut inodes = vec![0_u8; BLOCK_BYTES as usize];
        set_bits(&mut inodes, per_group..BLOCK_BYTES * 8);
        let mine = &used_inodes[(group * per_group) as usize..][..per_group as usize];
        for (bit, _) in (0..).zip(mine).filter(|(_, used)| **used) {
            set_bits(&mut inodes, bit..bit + 1);
        }
        let free_inodes = mine.iter().filter(|used| !**used).count() as u64;
        let never_used = mine.iter().rev().take_while(|used| !**used).count() as u64;
        out.write_at(place.block_bitmap * BLOCK_BYTES, &blocks)?;
        out.write_at(place.inode_bitmap * BLOCK_BYTES, &inodes)?;

        let block_sum = crc32c_raw(ids.checksum_seed, &blocks);
        let inode_sum = crc32c_raw(ids.checksum_seed, &inodes[..(per_group / 8) as usize]);
        let at = (group * DESCRIPTOR_BYTES) as usize;
        let raw = &mut descriptors[at..at + DESCRIPTOR_BYTES as usize];
        let mut half = |low: usize, high: usize, value: u64| {
            raw[low..low + 2].copy_from_slice(&(value as u16).to_le_bytes());
            raw[high..high + 2].copy_from_slice(&((value >> 16) as u16).to_le_bytes());
        };
        half(0x0C, 0x2C, free_blocks);
        half(0x0E, 0x2E, free_inodes);
        half(0x10, 0x30, folders[group as usize]);
        half(0x18, 0x38, block_sum.into());
        half(0x1A, 0x3A, inode_sum.into());
        half(0x1C, 0x32, never_used);
        for (low, high, value) in [
            (0x0, 0x20, place.block_bitmap),
            (0x4, 0x24, place.inode_bitmap),
            (0x8, 0x28, place.inode_table),
        ] {
            raw[low..low + 4].copy_from_slice(&(value as u32).to_le_bytes());
            raw[high..high + 4].copy_from_slice(&((value >> 32) as u32).to_le_bytes());
        }
        raw[0x12..0x14].copy_from_slice(&TABLE_ZEROED.to_le_bytes());
        let crc = crc32c_raw(ids.checksum_seed, &(group as u32).to_le_bytes());
        let crc = crc32c_raw(crc, raw);
        raw[0x1E..0x20].copy_from_slice(&(crc as u16).to_le_bytes());
        counts.free_blocks += free_blocks;
        counts.free_inodes += free_inodes;
    }
    for group in (0..geometry.groups).filter(|group| Geometry::has_superblock(*group)) {
        let start = group * BLOCKS_PER_GROUP * BLOCK_BYTES;
        let raw = superblock(geometry, plan, ids, &counts, group);
        // In group 0 the first KiB belongs to a boot sector.
        out.write_at(start + if group == 0 { 1024 } else { 0 }, &raw)?;
        out.write_at(start + BLOCK_BYTES, &descriptors)?;
    }
    Ok(Built {
        total_bytes: geometry.blocks * BLOCK_BYTES,
        free_bytes: counts.free_blocks * BLOCK_BYTES,
        inodes: geometry.inodes() as u32,
    })
}

fn set_bits(map: &mut [u8], bits: std::ops::Range<u64>) {
    for bit in bits {
        map[(bit / 8) as usize] |= 1 << (bit % 8);
    }
}

fn superblock(geometry: &Geometry, plan: &Plan, ids: &Ids, counts: &Counts, group: u64) -> Vec<u8> {
    let mut raw = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
    let reserved = geometry.blocks / 20;
    let words: &[(usize, u32)] = &[
        (0x0, geometry.inodes() as u32),
        (0x4, geometry.blocks as u32),
        (0x8, reserved as u32),
        (0xC, counts.free_blocks as u32),
        (0x10, counts.free_inodes as u32),
        (0x14, 0),
        (0x18, 2),
        (0x1C, 2),
        (0x20, BLOCKS_PER_GROUP as u32),
        (0x24, BLOCKS_PER_GROUP as u32),
        (0x28, geometry.inodes_per_group as u32),
        (0x30, ids.created),
        (0x40, ids.created),
        (0x4C, 1),
        (0x54, FIRST_INODE),
        (0x5C, COMPAT),
        (0x60, INCOMPAT),
        (0x64, RO_COMPAT),
        (0xE0, JOURNAL),
        (0x100, 0xC), // default mount options: user_xattr, acl
        (0x108, ids.created),
        (0x150, (geometry.blocks >> 32) as u32),
        (0x154, (reserved >> 32) as u32),
        (0x158, (counts.free_blocks >> 32) as u32),
        (0x160, 1), // signed directory hash
    ];
    for (at, value) in words {
        put(*at, &value.to_le_bytes());
    }
    let shorts: &[(usize, u16)] = &[
        (0x36, u16::MAX), // never check by count
        (0x38, 0xEF53),
        (0x3A, 1),
        (0x3C, 1),
        (0x58, INODE_BYTES as u16),
        (0x5A, group as u16),
        (0xFE, DESCRIPTOR_BYTES as u16),
        (0x15C, 32),
        (0x15E, 32),
    ];
    for (at, value) in shorts {
        put(*at, &value.to_le_bytes());
    }
    put(0x68, &ids.uuid);
    put(0x78, ids.label.as_bytes());
    // The seed of directory hashes may be any number; the volume's own is as good.
    put(0xEC, &ids.uuid);
    put(0xFC, &[1, 1]); // half MD4; the journal's map is backed up here
    put(0x10C, &plan.journal_map);
    let journal_bytes = geometry.journal_blocks * BLOCK_BYTES;
    put(0x10C + 60, &((journal_bytes >> 32) as u32).to_le_bytes());
    put(0x10C + 64, &(journal_bytes as u32).to_le_bytes());
    put(0x174, &[LOG_GROUPS_PER_FLEX, 1]); // and the checksum type: CRC-32C
    let crc = crc32c_raw(u32::MAX, &raw[..0x3FC]);
    raw[0x3FC..].copy_from_slice(&crc.to_le_bytes());
    raw
}
