//! Extended attributes of a new inode: behind its fields when they fit, else in a block.

use super::geometry::{BLOCK_BYTES, INODE_BYTES};
use crate::bytes::{crc32c_raw, le16, le32};
use crate::error::{Ext4Error, Place, Result};
use crate::xattr::MAGIC;
use gilt_wim::tree::Xattr;

/// Fields end here: 128 bytes and 32 more.
pub const FIELDS_END: usize = 160;
const BODY_ROOM: usize = INODE_BYTES as usize - FIELDS_END - 4;
const BLOCK_HEAD: usize = 32;

const PREFIXES: &[(u8, &[u8])] = &[
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
];

struct Item {
    prefix: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Item {
    fn entry_len(&self) -> usize {
        (16 + self.name.len()).next_multiple_of(4)
    }

    fn value_len(&self) -> usize {
        self.value.len().next_multiple_of(4)
    }

    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0_u32, |hash, byte| {
            // Linux has always added the byte as a signed one here; names are ASCII.
            (hash << 5) ^ (hash >> 27) ^ u32::from(*byte)
        });
        let mut padded = self.value.clone();
        padded.resize(self.value_len(), 0);
        padded.chunks_exact(4).fold(name, |hash, word| {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            hash.rotate_left(16) ^ word
        })
    }
}

pub enum Placed {
    None,
    /// What follows the fields of the inode.
    Body(Vec<u8>),
    /// A block; its checksum waits for its number.
    Block(Vec<u8>),
}

pub fn place(inode: u32, xattrs: &[Xattr]) -> Result<Placed> {
    let refused = |what: String| Ext4Error::Unsupported { what };
    let mut items = Vec::new();
    for xattr in xattrs {
        let found = PREFIXES.iter().find(|(_, prefix)| xattr.name.starts_with(prefix));
        let (index, prefix) = found.ok_or_else(|| {
            let name = String::from_utf8_lossy(&xattr.name);
            refused(format!("attribute {name:?} has no form on ext4"))
        })?;
        let value = match index {
            2 | 3 => acl_on_disk(&xattr.value).ok_or(Ext4Error::Corrupt {
                place: Place::Inode(inode),
                what: "access control list",
                found: xattr.value.len() as u64,
                limit: 0,
            })?,
            _ => xattr.value.to_vec(),
        };
        items.push(Item { prefix: *index, name: xattr.name[prefix.len()..].to_vec(), value });
    }
    if items.is_empty() {
        return Ok(Placed::None);
    }
    items.sort_by(|a, b| (a.prefix, a.name.len(), &a.name).cmp(&(b.prefix, b.name.len(), &b.name)));
    let bytes = items.iter().map(|item| item.entry_len() + item.value_len()).sum::<usize>() + 4;
    if bytes <= BODY_ROOM {
        let mut body = MAGIC.to_le_bytes().to_vec();
        body.extend(area(&items, BODY_ROOM, 0));
        return Ok(Placed::Body(body));
    }
    let room = BLOCK_BYTES as usize - BLOCK_HEAD;
    if bytes > room {
        return Err(refused(format!("inode {inode} has {bytes} bytes of attributes, {room} fit")));
    }
    let hash = items.iter().fold(0_u32, |hash, item| hash.rotate_left(16) ^ item.hash());
    let mut block = Vec::with_capacity(BLOCK_BYTES as usize);
    for field in [MAGIC, 1, 1, hash, 0, 0, 0, 0] {
        block.extend(field.to_le_bytes());
    }
    block.extend(area(&items, room, BLOCK_HEAD));
    Ok(Placed::Block(block))
}

/// Entries from the front, values from the back. `base` is added to value offsets.
fn area(items: &[Item], room: usize, base: usize) -> Vec<u8> {
    let mut raw = vec![0; room];
    let (mut at, mut end) = (0, room);
    for item in items {
        end -= item.value_len();
        raw[end..end + item.value.len()].copy_from_slice(&item.value);
        let offset = if item.value.is_empty() { 0 } else { (base + end) as u16 };
        raw[at] = item.name.len() as u8;
        raw[at + 1] = item.prefix;
        raw[at + 2..at + 4].copy_from_slice(&offset.to_le_bytes());
        raw[at + 8..at + 12].copy_from_slice(&(item.value.len() as u32).to_le_bytes());
        raw[at + 12..at + 16].copy_from_slice(&item.hash().to_le_bytes());
        raw[at + 16..at + 16 + item.name.len()].copy_from_slice(&item.name);
        at += item.entry_len();
    }
    raw
}

/// The checksum of an attribute block that lies at `number`.
pub fn sum_block(seed: u32, number: u64, block: &mut [u8]) {
    let crc = crc32c_raw(crc32c_raw(seed, &number.to_le_bytes()), block);
    block[16..20].copy_from_slice(&crc.to_le_bytes());
}

/// From the form programs see (version 2) to the one on the disk (version 1).
fn acl_on_disk(raw: &[u8]) -> Option<Vec<u8>> {
    if le32(raw, 0)? != 2 || !(raw.len() - 4).is_multiple_of(8) {
        return None;
    }
    let mut out = 1_u32.to_le_bytes().to_vec();
    for entry in raw[4..].chunks_exact(8) {
        out.extend(&entry[..4]);
        // ACL_USER and ACL_GROUP name an id.
        if matches!(le16(entry, 0)?, 0x02 | 0x08) {
            out.extend(&entry[4..]);
        }
    }
    Some(out)
}
