//! `$Extend\$ObjId`: the birth ids of files, which their own records do not hold.
//!
//! ```text
//! $INDEX_ROOT:$O        0x08 u32 block size  0x10 index header
//! $INDEX_ALLOCATION:$O  "INDX" blocks        0x18 index header   in use as $BITMAP:$O says
//! header  u32 first entry, u32 end of entries, both counted from the header
//! entry   u16 data offset, u16 data length, 0x08 u16 length, u16 key length, u16 flags (2 = last)
//!         key: object id   data: u64 file, birth volume, birth object, domain
//! ```
//! The order of the tree does not matter here, so blocks are read one after the other.

use std::collections::HashMap;

use crate::error::{Fault, Result};
use crate::raw::{u16_at, u32_at, u64_at};
use crate::record::{FileRef, fix_up, kind};
use crate::scan::Scanner;

/// Room for some hundred thousand object ids.
const MAX_INDEX_BYTES: u64 = 64 << 20;
const LAST_ENTRY: u16 = 2;

/// All 64 bytes of an object id, by file.
pub(crate) type ObjectIds = HashMap<FileRef, [u8; 64]>;

/// From the record of `$ObjId`.
pub(crate) fn object_ids(scanner: &Scanner<'_>, record: u64) -> Result<ObjectIds> {
    let name: Vec<u8> = "$O".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let value = |kind| scanner.system_value(record, kind, &name, MAX_INDEX_BYTES);
    let damaged = |what| Fault::new(0, what).in_record(record);
    let mut found = ObjectIds::new();
    let Some(root) = value(kind::INDEX_ROOT)? else { return Ok(found) };
    entries(root.get(0x10..).unwrap_or(&[]), &mut found)
        .ok_or_else(|| damaged("index root of object ids is damaged"))?;

    let Some(mut blocks) = value(kind::INDEX_ALLOCATION)? else { return Ok(found) };
    let bitmap = value(kind::BITMAP)?.unwrap_or_default();
    let size = u32_at(&root, 8)
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| size.is_power_of_two() && (512..=65536).contains(size))
        .ok_or_else(|| damaged("index block size of object ids is impossible"))?;
    for (i, block) in blocks.chunks_exact_mut(size).enumerate() {
        if bitmap.get(i / 8).is_none_or(|byte| byte & (1 << (i % 8)) == 0) {
            continue;
        }
        let sound = block.get(..4) == Some(b"INDX") && fix_up(block).is_ok();
        sound
            .then(|| entries(&block[0x18..], &mut found))
            .flatten()
            .ok_or_else(|| damaged("index block of object ids is damaged"))?;
    }
    Ok(found)
}

fn entries(index: &[u8], found: &mut ObjectIds) -> Option<()> {
    let mut at = u32_at(index, 0)? as usize;
    let end = u32_at(index, 4)? as usize;
    let index = index.get(..end)?;
    loop {
        let entry = index.get(at..)?;
        let length = usize::from(u16_at(entry, 8)?);
        if u16_at(entry, 12)? & LAST_ENTRY != 0 {
            return Some(());
        }
        let entry = entry.get(..length).filter(|entry| entry.len() >= 16 + 16)?;
        let data_at = usize::from(u16_at(entry, 0)?);
        let file = FileRef::from_raw(u64_at(entry, data_at)?);
        let mut id = [0; 64];
        id[..16].copy_from_slice(&entry[16..32]);
        id[16..].copy_from_slice(entry.get(data_at + 8..data_at + 56)?);
        found.insert(file, id);
        at += length;
    }
}
