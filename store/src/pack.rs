//! Packs: many blobs in one object of about 64 MiB.
//!
//! ```text
//! stored bytes of blob 0, 1, 2 …
//! table      salt u64, count u32, then per blob: id 40, stored u64, encoding u8, base 40 if a delta
//! footer     table length u32, "giltpak1"
//! ```
//! A pack is named by the SHA-256 of all of it. The table is for `fsck`: the index objects can be
//! made again from the packs.

use std::collections::HashSet;

use bytes::Bytes;

use crate::digest::{BlobId, Cursor, Digest};
use crate::encoding::Encoding;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"giltpak1";
const FOOTER: u64 = 12;
/// A pack is closed when it has this many bytes.
pub(crate) const FULL: usize = 64 << 20;

pub(crate) const FOLDER: &str = "packs";

pub(crate) fn key(id: &Digest) -> String {
    let hex = id.hex();
    format!("{FOLDER}/{}/{hex}.pack", &hex[..2])
}

/// The digest a pack's key names.
pub(crate) fn id_of(key: &str) -> Result<Digest> {
    key.rsplit('/')
        .next()
        .and_then(|name| name.strip_suffix(".pack"))
        .and_then(Digest::from_hex)
        .filter(|id| self::key(id) == key)
        .ok_or_else(|| Error::corrupt(key, "not the name of a pack"))
}

/// Where one blob is in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub id: BlobId,
    pub offset: u64,
    /// Bytes it takes in the pack.
    pub stored: u64,
    pub encoding: Encoding,
    pub base: Option<BlobId>,
}

/// A pack that is whole.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    pub id: Digest,
    pub bytes: Bytes,
    pub blobs: Vec<Packed>,
}

#[derive(Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    blobs: Vec<Packed>,
}

impl Builder {
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    pub fn add(&mut self, id: BlobId, encoding: Encoding, base: Option<BlobId>, stored: &[u8]) {
        let offset = self.bytes.len() as u64;
        if self.bytes.is_empty() {
            self.bytes.reserve(stored.len());
        }
        self.bytes.extend_from_slice(stored);
        self.blobs.push(Packed { id, offset, stored: stored.len() as u64, encoding, base });
    }

    /// A pack whose name is none of those: gc may delete what has them. The salt makes it so.
    pub fn finish_avoiding(self, avoid: &HashSet<Digest>) -> Pack {
        let mut salt = 0;
        let blobs = self.blobs.clone();
        let mut pack = self.finish(salt);
        while avoid.contains(&pack.id) {
            salt = rand::random();
            let end = blobs.last().map_or(0, |blob| blob.offset + blob.stored);
            let bytes = pack.bytes.slice(..end as usize).to_vec();
            pack = Self { bytes, blobs: blobs.clone() }.finish(salt);
        }
        pack
    }

    fn finish(mut self, salt: u64) -> Pack {
        let table = self.bytes.len();
        self.bytes.extend_from_slice(&salt.to_le_bytes());
        self.bytes.extend_from_slice(&(self.blobs.len() as u32).to_le_bytes());
        for blob in &self.blobs {
            put_id(&mut self.bytes, &blob.id);
            self.bytes.extend_from_slice(&blob.stored.to_le_bytes());
            self.bytes.push(blob.encoding.code());
            if let Some(base) = &blob.base {
                put_id(&mut self.bytes, base);
            }
        }
        let table = (self.bytes.len() - table) as u32;
        self.bytes.extend_from_slice(&table.to_le_bytes());
        self.bytes.extend_from_slice(MAGIC);
        Pack { id: Digest::of(&self.bytes), bytes: self.bytes.into(), blobs: self.blobs }
    }
}

pub(crate) fn put_id(out: &mut Vec<u8>, id: &BlobId) {
    out.extend_from_slice(&id.digest.0);
    out.extend_from_slice(&id.size.to_le_bytes());
}

/// Reads the table of a whole pack.
pub(crate) fn parse(object: &str, bytes: &[u8]) -> Result<Vec<Packed>> {
    let len = bytes.len() as u64;
    let footer =
        len.checked_sub(FOOTER).ok_or_else(|| Error::corrupt(object, "shorter than a footer"))?;
    let mut cursor = Cursor::new(object, &bytes[footer as usize..]);
    let table_len = u64::from(cursor.u32()?);
    if cursor.array::<8>()? != *MAGIC {
        return Err(Error::corrupt_at(object, footer + 4, "does not end as a pack does"));
    }
    let table_at = footer
        .checked_sub(table_len)
        .ok_or_else(|| Error::corrupt_at(object, footer, "its table is longer than it"))?;
    let mut cursor = Cursor::new(object, &bytes[table_at as usize..footer as usize]);
    cursor.u64()?;
    let count = cursor.count(49)?;
    let mut blobs = Vec::with_capacity(count);
    let mut offset = 0u64;
    for _ in 0..count {
        let id = cursor.blob_id()?;
        let stored = cursor.u64()?;
        let code = cursor.u8()?;
        let encoding = Encoding::from_code(code).ok_or_else(|| {
            Error::corrupt_at(
                object,
                table_at + cursor.at(),
                format!("encoding {code} is not known"),
            )
        })?;
        let base = if encoding == Encoding::Delta { Some(cursor.blob_id()?) } else { None };
        blobs.push(Packed { id, offset, stored, encoding, base });
        offset = offset.checked_add(stored).filter(|&end| end <= table_at).ok_or_else(|| {
            Error::corrupt_at(object, table_at + cursor.at(), "a blob reaches beyond the blobs")
        })?;
    }
    if offset != table_at {
        return Err(Error::corrupt_at(object, offset, "bytes that belong to no blob"));
    }
    cursor.finish()?;
    Ok(blobs)
}
