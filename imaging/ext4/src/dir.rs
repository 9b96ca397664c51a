//! Directory entries. Hash-tree blocks look like empty ones when read front to back.

use crate::bytes::{le16, le32};
use crate::error::{Ext4Error, Place, Result};

pub struct DirEntry<'a> {
    pub inode: u32,
    pub name: &'a [u8],
}

/// Calls `each` for every used entry of one directory block, but `.` and `..`.
pub fn entries(
    directory: u32,
    block: &[u8],
    each: &mut dyn FnMut(DirEntry<'_>) -> Result<()>,
) -> Result<()> {
    let mut at = 0;
    while at + 8 <= block.len() {
        let raw_len = usize::from(le16(block, at + 4).unwrap_or(0));
        // 64 KiB blocks: the length of the whole block does not fit.
        let len = if raw_len == 0xFFFF || raw_len == 0 { 65_536 } else { raw_len & !3 };
        let name_len = usize::from(block[at + 6]);
        if len < 8 || at + len > block.len() || 8 + name_len > len {
            return Err(Ext4Error::Corrupt {
                place: Place::Inode(directory),
                what: "directory entry length",
                found: raw_len as u64,
                limit: (block.len() - at) as u64,
            });
        }
        let inode = le32(block, at).unwrap_or(0);
        let name = &block[at + 8..at + 8 + name_len];
        if inode != 0 && name_len != 0 && name != b"." && name != b".." {
            each(DirEntry { inode, name })?;
        }
        at += len;
    }
    Ok(())
}
