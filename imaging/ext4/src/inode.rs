//! One inode, from its raw bytes.

use crate::bytes::{crc32c_raw, join, le16, le32, take};
use crate::error::{Ext4Error, Place, Result};
use crate::layout::Superblock;
use gilt_wim::tree::FileTime;

pub mod mode {
    pub const TYPE: u32 = 0xF000;
    pub const FIFO: u32 = 0x1000;
    pub const CHARACTER: u32 = 0x2000;
    pub const DIRECTORY: u32 = 0x4000;
    pub const BLOCK: u32 = 0x6000;
    pub const REGULAR: u32 = 0x8000;
    pub const SYMLINK: u32 = 0xA000;
    pub const SOCKET: u32 = 0xC000;
}

pub mod flag {
    pub const ENCRYPTED: u32 = 0x800;
    pub const EXTENTS: u32 = 0x8_0000;
    pub const EA_INODE: u32 = 0x20_0000;
    pub const INLINE_DATA: u32 = 0x1000_0000;
}

#[derive(Clone, Debug)]
pub struct Inode {
    pub number: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size_bytes: u64,
    pub flags: u32,
    /// Block map, extent tree root, short symlink, or inline data.
    pub block: [u8; 60],
    pub accessed: FileTime,
    pub modified: FileTime,
    pub created: FileTime,
    pub xattr_block: u64,
    /// The part of the inode behind its fields, where attributes may be.
    pub tail: Box<[u8]>,
}

impl Inode {
    /// `None` for an inode that is not in use.
    pub fn parse(raw: &[u8], number: u32, sb: &Superblock) -> Result<Option<Self>> {
        let mode = u32::from(le16(raw, 0).unwrap_or(0));
        let links = le16(raw, 0x1A).unwrap_or(0);
        if mode == 0 || links == 0 {
            return Ok(None);
        }
        let get32 = |at| le32(raw, at).unwrap_or(0);
        let get16 = |at| le16(raw, at).unwrap_or(0);
        let extra = if raw.len() > 128 { usize::from(get16(0x80)) } else { 0 };
        if raw.len() > 128 && (128 + extra > raw.len() || !extra.is_multiple_of(4)) {
            return Err(Ext4Error::Corrupt {
                place: Place::Inode(number),
                what: "extra size",
                found: extra as u64,
                limit: raw.len() as u64 - 128,
            });
        }
        check_sum(raw, number, extra, sb)?;
        let has = |end: usize| raw.len() > 128 && 128 + extra >= end;
        let time = |at: usize, extra_at: usize| {
            let extra = if has(extra_at + 4) { get32(extra_at) } else { 0 };
            // Bit 31 is a sign, the two epoch bits count on from there.
            let seconds = i64::from(get32(at) as i32) + (i64::from(extra & 3) << 32);
            FileTime::from_unix(seconds, extra >> 2)
        };
        let regular = mode & mode::TYPE == mode::REGULAR;
        let large = regular || mode & mode::TYPE == mode::DIRECTORY;
        let modified = time(0x10, 0x88);
        let created = if has(0x98) { time(0x90, 0x94) } else { modified };
        Ok(Some(Self {
            number,
            mode,
            uid: u32::from(get16(0x78)) << 16 | u32::from(get16(0x2)),
            gid: u32::from(get16(0x7A)) << 16 | u32::from(get16(0x18)),
            size_bytes: join(if large { get32(0x6C) } else { 0 }, get32(0x4)),
            flags: get32(0x20),
            block: take(raw, 0x28).unwrap_or([0; 60]),
            accessed: time(0x8, 0x8C),
            modified,
            created,
            xattr_block: join(get16(0x76).into(), get32(0x68)),
            tail: raw.get(128 + extra..).filter(|tail| has_xattr(tail)).unwrap_or(&[]).into(),
        }))
    }

    pub fn kind(&self) -> u32 {
        self.mode & mode::TYPE
    }

    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Linux `makedev` form.
    pub fn rdev(&self) -> u32 {
        if !matches!(self.kind(), mode::CHARACTER | mode::BLOCK) {
            return 0;
        }
        let (old, new) = (le32(&self.block, 0).unwrap_or(0), le32(&self.block, 4).unwrap_or(0));
        // The old form is major << 8 | minor with 8 bits each: the same numbers in either form.
        if old != 0 { old & 0xFFFF } else { new }
    }
}

fn has_xattr(tail: &[u8]) -> bool {
    le32(tail, 0) == Some(crate::xattr::MAGIC)
}

fn check_sum(raw: &[u8], number: u32, extra: usize, sb: &Superblock) -> Result<()> {
    if !sb.has_metadata_checksums() {
        return Ok(());
    }
    let Some((head, generation)) = raw.get(..128).zip(raw.get(0x64..0x68)) else { return Ok(()) };
    let mut crc = crc32c_raw(sb.checksum_seed, &number.to_le_bytes());
    crc = crc32c_raw(crc, generation);
    crc = crc32c_raw(crc, &head[..0x7C]);
    crc = crc32c_raw(crc, &[0; 2]);
    crc = crc32c_raw(crc, &head[0x7E..]);
    let mut stored = u32::from(le16(raw, 0x7C).unwrap_or(0));
    let mut mask = 0xFFFF;
    if raw.len() > 128 {
        let wide = extra >= 4;
        crc = crc32c_raw(crc, &raw[0x80..0x82]);
        crc = crc32c_raw(crc, if wide { &[0; 2] } else { &raw[0x82..0x84] });
        crc = crc32c_raw(crc, &raw[0x84..]);
        if wide {
            stored |= u32::from(le16(raw, 0x82).unwrap_or(0)) << 16;
            mask = u32::MAX;
        }
    }
    if stored != crc & mask {
        return Err(Ext4Error::Corrupt {
            place: Place::Inode(number),
            what: "checksum",
            found: stored.into(),
            limit: (crc & mask).into(),
        });
    }
    Ok(())
}
