//! Extended attributes: behind the fields of an inode, in a block of their own, or in an inode of
//! their own.

use crate::bytes::{le16, le32};
use crate::error::{Ext4Error, Place, Result};
use crate::inode::{Inode, flag};
use crate::volume::Ext4Volume;
use gilt_wim::tree::Xattr;

pub const MAGIC: u32 = 0xEA02_0000;
/// Linux' own limit for a value.
const MAX_VALUE: u64 = 64 << 10;
const ACL_VERSION_ON_DISK: u32 = 1;
const ACL_VERSION_IN_XATTR: u32 = 2;

/// The attribute that holds the second part of inline data.
const SYSTEM: u8 = 7;
const DATA: &[u8] = b"data";

pub struct Attribute {
    prefix: u8,
    name: Box<[u8]>,
    value: Box<[u8]>,
}

/// All attributes of `inode`, as they lie on the disk.
pub fn read(volume: &Ext4Volume, inode: &Inode) -> Result<Vec<Attribute>> {
    let mut list = Vec::new();
    if !inode.tail.is_empty() {
        // Value offsets count from the first entry, which follows the magic.
        let area = &inode.tail[4..];
        entries(volume, inode, area, area, &mut list)?;
    }
    if inode.xattr_block != 0 {
        let block = volume.read_block(inode.xattr_block)?;
        let magic = le32(&block, 0).unwrap_or(0);
        if magic != MAGIC {
            return Err(corrupt(inode, "attribute block magic", magic.into(), MAGIC.into()));
        }
        entries(volume, inode, &block[32..], &block, &mut list)?;
    }
    Ok(list)
}

fn corrupt(inode: &Inode, what: &'static str, found: u64, limit: u64) -> Ext4Error {
    Ext4Error::Corrupt { place: Place::Inode(inode.number), what, found, limit }
}

fn entries(
    volume: &Ext4Volume,
    inode: &Inode,
    entries: &[u8],
    values: &[u8],
    list: &mut Vec<Attribute>,
) -> Result<()> {
    let mut at = 0;
    while le32(entries, at).is_some_and(|head| head != 0) {
        let limit = entries.len() as u64;
        let cut = || corrupt(inode, "attribute entry", at as u64, limit);
        let head = entries.get(at..at + 16).ok_or_else(cut)?;
        let name_len = usize::from(head[0]);
        let name = entries.get(at + 16..at + 16 + name_len).ok_or_else(cut)?;
        let value_inode = le32(head, 4).unwrap_or(0);
        let size = u64::from(le32(head, 8).unwrap_or(0));
        if size > MAX_VALUE {
            return Err(corrupt(inode, "attribute size", size, MAX_VALUE));
        }
        let value: Box<[u8]> = if value_inode != 0 {
            let holder = volume.inode(value_inode)?;
            if !holder.has(flag::EA_INODE) || holder.size_bytes < size {
                return Err(corrupt(inode, "attribute inode", value_inode.into(), size));
            }
            volume.read_head(&holder, size as usize)?.into()
        } else {
            let from = usize::from(le16(head, 2).unwrap_or(0));
            let value = values.get(from..from + size as usize).ok_or_else(cut)?;
            value.into()
        };
        list.push(Attribute { prefix: head[1], name: name.into(), value });
        at += (16 + name_len).next_multiple_of(4);
    }
    Ok(())
}

/// What inline data continues with.
pub fn inline_rest(list: &[Attribute]) -> Option<&[u8]> {
    let found = list.iter().find(|one| one.prefix == SYSTEM && &*one.name == DATA)?;
    Some(&found.value)
}

/// As Linux shows them to programs.
pub fn for_users(inode: &Inode, list: Vec<Attribute>) -> Result<Vec<Xattr>> {
    let mut out = Vec::new();
    for attribute in list {
        let (prefix, acl): (&[u8], bool) = match attribute.prefix {
            0 => (b"", false),
            1 => (b"user.", false),
            2 => (b"system.posix_acl_access", true),
            3 => (b"system.posix_acl_default", true),
            4 => (b"trusted.", false),
            6 => (b"security.", false),
            SYSTEM if &*attribute.name == DATA => continue,
            SYSTEM => (b"system.", false),
            8 => (b"system.richacl", false),
            other => return Err(corrupt(inode, "attribute prefix", other.into(), 8)),
        };
        let value = match acl {
            true => acl_for_users(&attribute.value)
                .ok_or_else(|| corrupt(inode, "access control list", 0, 0))?,
            false => attribute.value,
        };
        out.push(Xattr { name: [prefix, &attribute.name].concat().into(), value });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

/// On disk: version 1, ids only where they mean something. For programs: version 2, an id in each.
fn acl_for_users(raw: &[u8]) -> Option<Box<[u8]>> {
    if le32(raw, 0)? != ACL_VERSION_ON_DISK {
        return None;
    }
    let mut out = ACL_VERSION_IN_XATTR.to_le_bytes().to_vec();
    let mut at = 4;
    while at < raw.len() {
        let tag = le16(raw, at)?;
        out.extend_from_slice(raw.get(at..at + 4)?);
        at += 4;
        // ACL_USER and ACL_GROUP name an id.
        if matches!(tag, 0x02 | 0x08) {
            out.extend_from_slice(raw.get(at..at + 4)?);
            at += 4;
        } else {
            out.extend_from_slice(&u32::MAX.to_le_bytes());
        }
    }
    Some(out.into())
}
