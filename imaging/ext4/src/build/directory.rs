//! Directory blocks: names one after another, a checksum at the end of each block.

use super::geometry::BLOCK_BYTES;
use crate::bytes::crc32c_raw;

/// An entry of a directory that is being made.
pub struct NewEntry<'a> {
    pub inode: u32,
    pub kind: u8,
    pub name: &'a [u8],
}

/// `file_type` of directory entries.
pub mod kind {
    pub const REGULAR: u8 = 1;
    pub const DIRECTORY: u8 = 2;
    pub const CHARACTER: u8 = 3;
    pub const BLOCK: u8 = 4;
    pub const FIFO: u8 = 5;
    pub const SOCKET: u8 = 6;
    pub const SYMLINK: u8 = 7;
}

const TAIL_BYTES: usize = 12;
const ROOM: usize = BLOCK_BYTES as usize - TAIL_BYTES;
const TAIL_KIND: u8 = 0xDE;

/// The blocks of directory `inode`; `.` and `..` are the caller's first entries. `seed` is that of
/// the inode's checksums.
pub fn blocks(seed: u32, entries: &[NewEntry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block = Vec::with_capacity(BLOCK_BYTES as usize);
    let mut last = 0;
    for entry in entries {
        let len = (8 + entry.name.len()).next_multiple_of(4);
        if block.len() + len > ROOM {
            finish(seed, &mut block, last, &mut out);
        }
        last = block.len();
        block.extend(entry.inode.to_le_bytes());
        // A name has at most 255 bytes: checked when inode numbers were given out.
        block.extend((len as u16).to_le_bytes());
        block.push(entry.name.len() as u8);
        block.push(entry.kind);
        block.extend(entry.name);
        block.resize(last + len, 0);
    }
    finish(seed, &mut block, last, &mut out);
    out
}

/// Stretches the last entry to the tail.
fn finish(seed: u32, block: &mut Vec<u8>, last: usize, out: &mut Vec<u8>) {
    let len = (ROOM - last) as u16;
    block[last + 4..last + 6].copy_from_slice(&len.to_le_bytes());
    block.resize(ROOM, 0);
    let checksum = crc32c_raw(seed, block);
    block.extend([0, 0, 0, 0, TAIL_BYTES as u8, 0, 0, TAIL_KIND]);
    block.extend(checksum.to_le_bytes());
    out.append(block);
}
