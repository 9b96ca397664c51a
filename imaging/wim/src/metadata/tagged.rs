//! Tagged items: what a dentry carries beyond the fixed fields.
//!
//! `tag u32, length u32, data`, zero to a multiple of 8, until the dentry ends.
//!
//! | tag | what |
//! |---|---|
//! | 1 | NTFS object id, 16 or 64 bytes |
//! | 2 | extended attributes: value length u16, name length u8, flags u8, name, 0, value (packed) |
//! | 0x337DD873 | Unix uid, gid, mode, rdev, u32 each |
//! | 0x337DD874 | Linux extended attributes of old wimlibs |
//!
//! wimlib stores Linux attributes under tag 2 too. They are told apart by their namespace
//! (`user.` …), which no NTFS attribute has, and only where the Unix item is present.

use crate::header::{u16_at, u32_at};
use crate::tree::{Extra, TaggedItem, UnixData, Xattr};

const OBJECT_ID: u32 = 1;
const EXTENDED_ATTRIBUTES: u32 = 2;
const UNIX_DATA: u32 = 0x337D_D873;
const LINUX_XATTRS: u32 = 0x337D_D874;

/// Reads the items in `bytes`; what is cut off or odd inside is kept as unknown.
pub(crate) fn read(bytes: &[u8], extra: &mut Extra) {
    let mut at = 0;
    let mut attributes: Option<&[u8]> = None;
    while let Some(head) = bytes.get(at..at + 8) {
        let (tag, len) = (u32_at(head, 0), u32_at(head, 4) as usize);
        if tag == 0 && len == 0 {
            break;
        }
        let Some(data) = len.checked_add(at + 8).and_then(|end| bytes.get(at + 8..end)) else {
            break;
        };
        match tag {
            OBJECT_ID if (len == 16 || len == 64) && extra.object_id.is_none() => {
                extra.object_id = Some(data.into());
            }
            UNIX_DATA if len >= 16 && extra.unix.is_none() => {
                extra.unix = Some(UnixData {
                    uid: u32_at(data, 0),
                    gid: u32_at(data, 4),
                    mode: u32_at(data, 8),
                    rdev: u32_at(data, 12),
                });
            }
            EXTENDED_ATTRIBUTES if attributes.is_none() && parse_attributes(data).is_some() => {
                attributes = Some(data);
            }
            LINUX_XATTRS if extra.xattrs.is_empty() && parse_old_xattrs(data).is_some() => {
                extra.xattrs = parse_old_xattrs(data).unwrap_or_default();
            }
            _ => extra.unknown.push(TaggedItem { tag, data: data.into() }),
        }
        at = at.saturating_add(8).saturating_add(len.next_multiple_of(8));
    }
    if let Some(parsed) = attributes.and_then(parse_attributes) {
        let mut list = Vec::new();
        for attribute in parsed {
            if extra.unix.is_some() && has_linux_namespace(attribute.name) {
                extra
                    .xattrs
                    .push(Xattr { name: attribute.name.into(), value: attribute.value.into() });
            } else {
                list.push(attribute);
            }
        }
        if !list.is_empty() {
            extra.eas = Some(to_full_ea(&list).into());
        }
    }
}

/// Appends the items of `extra`. `Err` says what cannot be stored.
pub(crate) fn write(extra: &Extra, out: &mut Vec<u8>) -> Result<(), String> {
    if let Some(id) = &extra.object_id {
        item(out, OBJECT_ID, id);
    }
    let mut attributes = Vec::new();
    if let Some(eas) = &extra.eas {
        let list = parse_full_ea(eas).ok_or("its extended attributes are not a valid list")?;
        list.iter().for_each(|attribute| attribute.write(&mut attributes));
    }
    let mut old = Vec::new();
    for xattr in &extra.xattrs {
        let fits =
            u8::try_from(xattr.name.len()).is_ok() && u16::try_from(xattr.value.len()).is_ok();
        if fits && extra.unix.is_some() && has_linux_namespace(&xattr.name) {
            Attribute { flags: 0, name: &xattr.name, value: &xattr.value }.write(&mut attributes);
        } else {
            old.push(xattr);
        }
    }
    if !attributes.is_empty() {
        item(out, EXTENDED_ATTRIBUTES, &attributes);
    }
    if let Some(unix) = &extra.unix {
        let fields = [unix.uid, unix.gid, unix.mode, unix.rdev];
        let data: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        item(out, UNIX_DATA, &data);
    }
    if !old.is_empty() {
        let mut data = Vec::new();
        for xattr in old {
            let name_bytes = u16::try_from(xattr.name.len())
                .map_err(|_| "the name of an extended attribute is too long".to_owned())?;
            let value_bytes = u32::try_from(xattr.value.len())
                .map_err(|_| "an extended attribute is too long".to_owned())?;
            data.extend_from_slice(&name_bytes.to_le_bytes());
            data.extend_from_slice(&[0; 2]);
            data.extend_from_slice(&value_bytes.to_le_bytes());
            data.extend_from_slice(&xattr.name);
            data.extend_from_slice(&xattr.value);
            data.resize(data.len().next_multiple_of(4), 0);
        }
        item(out, LINUX_XATTRS, &data);
    }
    for unknown in &extra.unknown {
        item(out, unknown.tag, &unknown.data);
    }
    Ok(())
}

fn item(out: &mut Vec<u8>, tag: u32, data: &[u8]) {
    out.extend_from_slice(&tag.to_le_bytes());
    // Items come from memory we filled ourselves or from a dentry; both are far below 4 GiB.
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(8), 0);
}

fn has_linux_namespace(name: &[u8]) -> bool {
    [&b"user."[..], b"security.", b"system.", b"trusted."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

struct Attribute<'a> {
    flags: u8,
    name: &'a [u8],
    value: &'a [u8],
}

impl Attribute<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.value.len() as u16).to_le_bytes());
        out.push(self.name.len() as u8);
        out.push(self.flags);
        out.extend_from_slice(self.name);
        out.push(0);
        out.extend_from_slice(self.value);
    }
}

/// The form of tag 2. `None` if it does not come out even.
fn parse_attributes(data: &[u8]) -> Option<Vec<Attribute<'_>>> {
    let mut list = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let head = data.get(at..at + 4)?;
        let (value_bytes, name_bytes) = (usize::from(u16_at(head, 0)), usize::from(head[2]));
        let name = data.get(at + 4..at + 4 + name_bytes)?;
        if *data.get(at + 4 + name_bytes)? != 0 || name.is_empty() {
            // Padding of the item counted in its length.
            if head == [0; 4] && data[at..].iter().all(|byte| *byte == 0) {
                break;
            }
            return None;
        }
        let value_at = at + 5 + name_bytes;
        let value = data.get(value_at..value_at + value_bytes)?;
        list.push(Attribute { flags: head[3], name, value });
        at = value_at + value_bytes;
    }
    Some(list)
}

/// The form of `FILE_FULL_EA_INFORMATION` ([MS-FSCC] 2.4.16).
fn parse_full_ea(data: &[u8]) -> Option<Vec<Attribute<'_>>> {
    let mut list = Vec::new();
    let mut at = 0;
    loop {
        let head = data.get(at..at + 8)?;
        let next = u32_at(head, 0) as usize;
        let (name_bytes, value_bytes) = (usize::from(head[5]), usize::from(u16_at(head, 6)));
        let name = data.get(at + 8..at + 8 + name_bytes)?;
        let value_at = at + 9 + name_bytes;
        let value = data.get(value_at..value_at + value_bytes)?;
        list.push(Attribute { flags: head[4], name, value });
        if next == 0 {
            return Some(list);
        }
        if next < 9 + name_bytes + value_bytes {
            return None;
        }
        at = at.checked_add(next)?;
    }
}

fn to_full_ea(list: &[Attribute<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, attribute) in list.iter().enumerate() {
        let bytes = 9 + attribute.name.len() + attribute.value.len();
        let last = index + 1 == list.len();
        let next = if last { 0 } else { bytes.next_multiple_of(4) as u32 };
        out.extend_from_slice(&next.to_le_bytes());
        out.push(attribute.flags);
        out.push(attribute.name.len() as u8);
        out.extend_from_slice(&(attribute.value.len() as u16).to_le_bytes());
        out.extend_from_slice(attribute.name);
        out.push(0);
        out.extend_from_slice(attribute.value);
        if !last {
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
    out
}

/// `name length u16, 0 u16, value length u32, name, value`, to a multiple of 4.
fn parse_old_xattrs(data: &[u8]) -> Option<Vec<Xattr>> {
    let mut list = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let head = data.get(at..at + 8)?;
        let (name_bytes, value_bytes) = (usize::from(u16_at(head, 0)), u32_at(head, 4) as usize);
        let name = data.get(at + 8..at + 8 + name_bytes)?;
        let value_at = at + 8 + name_bytes;
        let value = data.get(value_at..value_at.checked_add(value_bytes)?)?;
        if name.is_empty() {
            return None;
        }
        list.push(Xattr { name: name.into(), value: value.into() });
        at = (value_at + value_bytes).next_multiple_of(4);
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(extra: &Extra) -> Extra {
        let mut bytes = Vec::new();
        write(extra, &mut bytes).unwrap();
        assert_eq!(bytes.len() % 8, 0);
        let mut out = Extra::default();
        read(&bytes, &mut out);
        out
    }

    #[test]
    fn every_kind_of_item_survives() {
        let xattr =
            |name: &str, value: &[u8]| Xattr { name: name.as_bytes().into(), value: value.into() };
        let full_ea = to_full_ea(&[
            Attribute { flags: 0x80, name: b"$KERNEL.PURGE.ESBCACHE", value: &[1, 2, 3] },
            Attribute { flags: 0, name: b"LXUID", value: &[0; 4] },
        ]);
        let extra = Extra {
            object_id: Some(vec![7; 64].into()),
            unix: Some(UnixData { uid: 1, gid: 2, mode: 0o100_644, rdev: 3 }),
            xattrs: vec![xattr("user.a", b""), xattr("security.capability", &[9; 20])],
            eas: Some(full_ea.into()),
            unknown: vec![TaggedItem { tag: 3, data: vec![1, 2, 3].into() }],
            ..Extra::default()
        };
        assert_eq!(there_and_back(&extra), extra);
    }

    #[test]
    fn extended_attribute_longer_than_64_kib_survives() {
        let extra = Extra {
            unix: Some(UnixData { uid: 0, gid: 0, mode: 0o100_644, rdev: 0 }),
            xattrs: vec![Xattr {
                name: b"user.big".as_slice().into(),
                value: vec![5; 65536].into(),
            }],
            ..Extra::default()
        };
        assert_eq!(there_and_back(&extra), extra);
    }

    #[test]
    fn item_cut_off_by_the_end_of_the_dentry_is_ignored() {
        let mut bytes = Vec::new();
        item(&mut bytes, OBJECT_ID, &[1; 16]);
        bytes.truncate(20);
        let mut out = Extra::default();
        read(&bytes, &mut out);
        assert_eq!(out, Extra::default());
    }
}
