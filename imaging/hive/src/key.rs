//! Keys: names, subkeys, values.
//!
//! ```text
//! "nk"  0x02 u16 flags  0x04 u64 last written  0x10 u32 parent  0x14 u32 subkeys
//! 0x1C u32 list of subkeys  0x24 u32 values  0x28 u32 list of values  0x30 u32 class
//! 0x48 u16 name length  0x4A u16 class length  0x4C name
//! lists: "lf" "lh" (offset, hint) pairs; "li" offsets; "ri" offsets of the other lists
//! ```

use crate::cell::{NONE, cell, corrupt, name, same_name, u16_at, u32_at, u64_at};
use crate::error::Result;
use crate::hive::Hive;
use crate::value::Value;

const LATIN_NAME: u16 = 0x20;
/// The values field holds a handle instead of values.
const PREDEFINED_HANDLE: u16 = 0x40;
/// Smallest cell of a key, for bounds.
const KEY_BYTES: usize = 0x50;

/// A key of a hive.
#[derive(Clone, Copy)]
pub struct Key<'h> {
    hive: &'h Hive,
    offset: u32,
    nk: &'h [u8],
}

impl std::fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?} at {:#x})", self.name(), self.offset)
    }
}

impl<'h> Key<'h> {
    pub(crate) fn at(hive: &'h Hive, offset: u32) -> Result<Self> {
        let nk = cell(hive.bins(), offset)?;
        if nk.get(..2) != Some(b"nk") || nk.len() < 0x4C {
            return Err(corrupt(offset, "not a key"));
        }
        let key = Self { hive, offset, nk };
        let len = usize::from(key.u16(0x48));
        if nk.len() < 0x4C + len {
            return Err(corrupt(offset, "name of a key leaves its cell"));
        }
        Ok(key)
    }

    // The constructor has checked that all fixed fields are there.
    fn u16(&self, at: usize) -> u16 {
        u16_at(self.nk, at).unwrap_or(0)
    }

    fn u32(&self, at: usize) -> u32 {
        u32_at(self.nk, at).unwrap_or(0)
    }

    pub(crate) fn offset(&self) -> u32 {
        self.offset
    }

    pub fn name(&self) -> String {
        let len = usize::from(self.u16(0x48));
        let bytes = self.nk.get(0x4C..0x4C + len).unwrap_or(&[]);
        name(bytes, self.u16(2) & LATIN_NAME != 0)
    }

    /// FILETIME of the last change to the key or its values.
    pub fn last_written(&self) -> u64 {
        u64_at(self.nk, 4).unwrap_or(0)
    }

    /// What a program stored beside the key; most have none.
    pub fn class_name(&self) -> Result<Option<String>> {
        let len = usize::from(self.u16(0x4A));
        let offset = self.u32(0x30);
        if len == 0 || offset == NONE {
            return Ok(None);
        }
        let class = cell(self.hive.bins(), offset)?
            .get(..len)
            .ok_or_else(|| corrupt(offset, "class name leaves its cell"))?;
        Ok(Some(name(class, false)))
    }

    /// All subkeys, sorted by name as Windows keeps them.
    pub fn subkeys(&self) -> Result<Vec<Key<'h>>> {
        self.subkey_offsets()?.into_iter().map(|offset| Self::at(self.hive, offset)).collect()
    }

    /// The subkey of that name, without regard to case.
    pub fn subkey(&self, wanted: &str) -> Result<Option<Key<'h>>> {
        for offset in self.subkey_offsets()? {
            let key = Self::at(self.hive, offset)?;
            if same_name(&key.name(), wanted) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Follows a path of names divided by `\`.
    pub fn descend(&self, path: &str) -> Result<Option<Key<'h>>> {
        let mut key = *self;
        for part in path.split('\\').filter(|part| !part.is_empty()) {
            match key.subkey(part)? {
                Some(next) => key = next,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    fn subkey_offsets(&self) -> Result<Vec<u32>> {
        let (count, list) = (self.u32(0x14) as usize, self.u32(0x1C));
        if count == 0 || list == NONE {
            return Ok(Vec::new());
        }
        let bins = self.hive.bins();
        if count > bins.len() / KEY_BYTES {
            return Err(corrupt(self.offset, "key claims more subkeys than the hive can hold"));
        }
        let mut offsets = Vec::with_capacity(count);
        let index = cell(bins, list)?;
        if index.get(..2) == Some(b"ri") {
            let entries = usize::from(u16_at(index, 2).unwrap_or(0));
            for i in 0..entries {
                let leaf = u32_at(index, 4 + i * 4)
                    .ok_or_else(|| corrupt(list, "index of subkeys is cut"))?;
                leaf_offsets(bins, leaf, count, &mut offsets)?;
            }
        } else {
            leaf_offsets(bins, list, count, &mut offsets)?;
        }
        if offsets.len() != count {
            return Err(corrupt(list, "list of subkeys is shorter than its key says"));
        }
        Ok(offsets)
    }

    pub fn values(&self) -> Result<Vec<Value<'h>>> {
        self.value_offsets()?
            .map(|offset| Value::parse(self.hive.bins(), offset?, self.hive.minor_version()))
            .collect()
    }

    /// The value of that name, without regard to case; `""` is the default value.
    pub fn value(&self, wanted: &str) -> Result<Option<Value<'h>>> {
        for offset in self.value_offsets()? {
            let value = Value::parse(self.hive.bins(), offset?, self.hive.minor_version())?;
            if same_name(value.name(), wanted) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn value_offsets(&self) -> Result<impl Iterator<Item = Result<u32>> + 'h> {
        let (count, list) = (self.u32(0x24) as usize, self.u32(0x28));
        let none = count == 0 || list == NONE || self.u16(2) & PREDEFINED_HANDLE != 0;
        let (count, offsets) =
            if none { (0, &[][..]) } else { (count, cell(self.hive.bins(), list)?) };
        if offsets.len() / 4 < count {
            return Err(corrupt(list, "list of values is shorter than its key says"));
        }
        Ok((0..count).map(move |i| {
            u32_at(offsets, i * 4).ok_or_else(|| corrupt(list, "list of values is cut"))
        }))
    }

    /// The text of a value, where it is there and is text.
    pub fn text(&self, value: &str) -> Result<Option<String>> {
        Ok(self.value(value)?.and_then(|value| value.text().ok()))
    }

    /// The number of a value, where it is there and is one.
    pub fn dword(&self, value: &str) -> Result<Option<u32>> {
        Ok(self.value(value)?.and_then(|value| value.dword().ok()))
    }
}

fn leaf_offsets(bins: &[u8], list: u32, count: usize, out: &mut Vec<u32>) -> Result<()> {
    let leaf = cell(bins, list)?;
    let width = match leaf.get(..2) {
        Some(b"lf" | b"lh") => 8,
        Some(b"li") => 4,
        _ => return Err(corrupt(list, "not a list of subkeys")),
    };
    let entries = usize::from(u16_at(leaf, 2).unwrap_or(0));
    if out.len() + entries > count {
        return Err(corrupt(list, "list of subkeys is longer than its key says"));
    }
    for i in 0..entries {
        let offset =
            u32_at(leaf, 4 + i * width).ok_or_else(|| corrupt(list, "list of subkeys is cut"))?;
        out.push(offset);
    }
    Ok(())
}
