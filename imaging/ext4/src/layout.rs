//! Superblock and block group descriptors (Linux `Documentation/filesystems/ext4`).

use crate::bytes::{crc32c_raw, join, le16, le32, take};
use crate::error::{Ext4Error, Place, Result};

pub const SUPERBLOCK_AT: u64 = 1024;
pub const SUPERBLOCK_BYTES: usize = 1024;
/// Descriptors of a volume of 1 EiB at 4 KiB blocks would need more; no image does.
const MAX_GROUPS: u64 = 1 << 22;

pub mod incompat {
    pub const COMPRESSION: u32 = 0x1;
    pub const FILETYPE: u32 = 0x2;
    pub const RECOVER: u32 = 0x4;
    pub const JOURNAL_DEVICE: u32 = 0x8;
    pub const META_BG: u32 = 0x10;
    pub const EXTENTS: u32 = 0x40;
    pub const BITS64: u32 = 0x80;
    pub const MMP: u32 = 0x100;
    pub const FLEX_BG: u32 = 0x200;
    pub const EA_INODE: u32 = 0x400;
    pub const CSUM_SEED: u32 = 0x2000;
    pub const LARGE_DIR: u32 = 0x4000;
    pub const INLINE_DATA: u32 = 0x8000;
    pub const ENCRYPT: u32 = 0x1_0000;
    pub const CASEFOLD: u32 = 0x2_0000;
    pub const KNOWN: u32 = FILETYPE
        | RECOVER
        | META_BG
        | EXTENTS
        | BITS64
        | MMP
        | FLEX_BG
        | EA_INODE
        | CSUM_SEED
        | LARGE_DIR
        | INLINE_DATA
        | ENCRYPT
        | CASEFOLD;
}

mod ro_compat {
    pub const SPARSE_SUPER: u32 = 0x1;
    pub const GDT_CSUM: u32 = 0x10;
    pub const BIGALLOC: u32 = 0x200;
    pub const METADATA_CSUM: u32 = 0x400;
}

const COMPAT_SPARSE_SUPER2: u32 = 0x200;

#[derive(Clone, Debug)]
pub struct Superblock {
    pub block_bytes: u64,
    pub blocks: u64,
    pub free_blocks: u64,
    pub inodes: u32,
    pub inodes_per_group: u32,
    pub blocks_per_group: u32,
    pub first_data_block: u32,
    pub inode_bytes: u16,
    pub incompat: u32,
    pub ro_compat: u32,
    compat: u32,
    descriptor_bytes: u16,
    first_meta_bg: u32,
    backup_groups: [u32; 2],
    pub uuid: [u8; 16],
    pub label: String,
    pub journal_inode: u32,
    pub state_clean: bool,
    pub has_errors: bool,
    pub checksum_seed: u32,
}

impl Superblock {
    pub fn parse(raw: &[u8], volume_bytes: u64) -> Result<Self> {
        if le16(raw, 0x38) != Some(0xEF53) {
            return Err(Ext4Error::NotExt4);
        }
        let get16 = |at| le16(raw, at).ok_or(Ext4Error::NotExt4);
        let get32 = |at| le32(raw, at).ok_or(Ext4Error::NotExt4);
        let corrupt = |what, found: u64, limit: u64| Ext4Error::Corrupt {
            place: Place::Superblock,
            what,
            found,
            limit,
        };
        let incompat = get32(0x60)?;
        let dynamic = get32(0x4C)? >= 1;
        let refused = |what: &str| Err(Ext4Error::Unsupported { what: what.into() });
        if incompat & incompat::COMPRESSION != 0 {
            return refused("volume uses ext2 compression");
        }
        if incompat & incompat::JOURNAL_DEVICE != 0 {
            return refused("volume is the journal of another volume");
        }
        if incompat & !incompat::KNOWN != 0 {
            let what = format!("unknown ext4 features {:#x}", incompat & !incompat::KNOWN);
            return Err(Ext4Error::Unsupported { what });
        }
        let log_block = get32(0x18)?;
        if log_block > 6 {
            return Err(corrupt("block size", log_block.into(), 6));
        }
        let block_bytes = 1024_u64 << log_block;
        let bits64 = incompat & incompat::BITS64 != 0;
        let high = |at| if bits64 { get32(at) } else { Ok(0) };
        let blocks = join(high(0x150)?, get32(0x4)?);
        let inode_bytes = if dynamic { get16(0x58)? } else { 128 };
        if inode_bytes < 128 || u64::from(inode_bytes) > block_bytes {
            return Err(corrupt("inode size", inode_bytes.into(), block_bytes));
        }
        if blocks.checked_mul(block_bytes).is_none_or(|bytes| bytes > volume_bytes) {
            return Err(corrupt("blocks of the volume", blocks, volume_bytes / block_bytes));
        }
        let ro_compat = get32(0x64)?;
        if ro_compat & ro_compat::BIGALLOC == 0 && get32(0x20)? > 8 * block_bytes as u32 {
            return Err(corrupt("blocks per group", get32(0x20)?.into(), 8 * block_bytes));
        }
        let uuid: [u8; 16] = take(raw, 0x68).ok_or(Ext4Error::NotExt4)?;
        let checksum_seed = if incompat & incompat::CSUM_SEED != 0 {
            get32(0x270)?
        } else {
            crc32c_raw(u32::MAX, &uuid)
        };
        if ro_compat & ro_compat::METADATA_CSUM != 0 {
            let stored = get32(0x3FC)?;
            let counted = crc32c_raw(u32::MAX, raw.get(..0x3FC).ok_or(Ext4Error::NotExt4)?);
            if stored != counted {
                return Err(corrupt("checksum", stored.into(), counted.into()));
            }
        }
        let state = get16(0x3A)?;
        let label = raw.get(0x78..0x88).unwrap_or_default();
        let label_len = label.iter().position(|byte| *byte == 0).unwrap_or(label.len());
        let this = Self {
            block_bytes,
            blocks,
            free_blocks: join(high(0x158)?, get32(0xC)?),
            inodes: get32(0x0)?,
            inodes_per_group: get32(0x28)?,
            blocks_per_group: get32(0x20)?,
            first_data_block: get32(0x14)?,
            inode_bytes,
            incompat,
            ro_compat,
            compat: get32(0x5C)?,
            descriptor_bytes: if bits64 { get16(0xFE)?.max(32) } else { 32 },
            first_meta_bg: get32(0x104)?,
            backup_groups: [get32(0x24C)?, get32(0x250)?],
            uuid,
            label: String::from_utf8_lossy(&label[..label_len]).into_owned(),
            journal_inode: get32(0xE0)?,
            state_clean: state & 1 != 0,
            has_errors: state & 2 != 0,
            checksum_seed,
        };
        if this.blocks_per_group == 0 || this.inodes_per_group == 0 {
            return Err(corrupt("blocks or inodes per group", 0, 1));
        }
        if u64::from(this.inodes_per_group) > 8 * block_bytes {
            return Err(corrupt("inodes per group", this.inodes_per_group.into(), 8 * block_bytes));
        }
        if !this.descriptor_bytes.is_power_of_two()
            || u64::from(this.descriptor_bytes) > block_bytes
        {
            return Err(corrupt("descriptor size", this.descriptor_bytes.into(), block_bytes));
        }
        if this.group_count() > MAX_GROUPS {
            return Err(corrupt("block groups", this.group_count(), MAX_GROUPS));
        }
        if u64::from(this.inodes) > this.group_count() * u64::from(this.inodes_per_group) {
            let limit = this.group_count() * u64::from(this.inodes_per_group);
            return Err(corrupt("inodes", this.inodes.into(), limit));
        }
        Ok(this)
    }

    pub fn group_count(&self) -> u64 {
        let blocks = self.blocks.saturating_sub(self.first_data_block.into());
        blocks.div_ceil(self.blocks_per_group.into())
    }

    pub fn has_metadata_checksums(&self) -> bool {
        self.ro_compat & ro_compat::METADATA_CSUM != 0
    }

    pub fn has_group_checksums(&self) -> bool {
        self.ro_compat & (ro_compat::METADATA_CSUM | ro_compat::GDT_CSUM) != 0
    }

    fn has_backup_superblock(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat & COMPAT_SPARSE_SUPER2 != 0 {
            return self.backup_groups.iter().any(|backup| u64::from(*backup) == group);
        }
        if self.ro_compat & ro_compat::SPARSE_SUPER == 0 || group == 1 {
            return true;
        }
        [3, 5, 7].iter().any(|base| {
            let mut power = *base;
            while power < group {
                power *= base;
            }
            power == group
        })
    }

    /// The blocks that hold the group descriptors, in order.
    pub fn descriptor_blocks(&self) -> Vec<u64> {
        let per_block = self.block_bytes / u64::from(self.descriptor_bytes);
        let count = self.group_count().div_ceil(per_block);
        // With bigalloc, volumes of 1 KiB blocks begin at block 0 and have the superblock in block 1.
        let superblock = SUPERBLOCK_AT / self.block_bytes;
        let first = superblock + 1;
        (0..count)
            .map(|index| {
                let meta = self.incompat & incompat::META_BG != 0
                    && index >= u64::from(self.first_meta_bg);
                if !meta {
                    return first + index;
                }
                let group = index * per_block;
                let start =
                    u64::from(self.first_data_block) + group * u64::from(self.blocks_per_group);
                let shifted = group == 0 && superblock > u64::from(self.first_data_block);
                start + u64::from(self.has_backup_superblock(group)) + u64::from(shifted)
            })
            .collect()
    }

    pub fn descriptors_of(&self, raw: &[u8]) -> Result<Vec<Group>> {
        let size = usize::from(self.descriptor_bytes);
        let wide = size >= 64;
        let groups = raw.chunks_exact(size).take(self.group_count() as usize);
        groups
            .zip(0..)
            .map(|(raw, number)| {
                let low = |at| le32(raw, at).unwrap_or(0);
                let high = |at| if wide { low(at) } else { 0 };
                let unused = u32::from(le16(raw, 0x1C).unwrap_or(0)) | {
                    let high = if wide { le16(raw, 0x32).unwrap_or(0) } else { 0 };
                    u32::from(high) << 16
                };
                let group = Group {
                    inode_table: join(high(0x28), low(0x8)),
                    uninitialized: le16(raw, 0x12).unwrap_or(0) & 1 != 0
                        && self.has_group_checksums(),
                    unused_inodes: if self.has_group_checksums() { unused } else { 0 },
                };
                if group.inode_table == 0 || group.inode_table >= self.blocks {
                    return Err(Ext4Error::Corrupt {
                        place: Place::Group(number),
                        what: "inode table",
                        found: group.inode_table,
                        limit: self.blocks,
                    });
                }
                Ok(group)
            })
            .collect()
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub inode_table: u64,
    /// No inode of it was ever used.
    pub uninitialized: bool,
    /// Inodes at the end of the table that were never used.
    pub unused_inodes: u32,
}
