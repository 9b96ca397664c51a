//! `$Secure:$SDS`: the security descriptors all files share.
//!
//! ```text
//! 256 KiB of entries, then the same 256 KiB again, then the next pair ...
//! entry, 16-aligned: u32 hash, u32 id, u64 own offset, u32 length with header, descriptor
//! ```

use std::collections::HashMap;

use crate::raw::{u32_at, u64_at};

const BLOCK: usize = 256 << 10;
const HEADER: usize = 20;
/// Far above any volume seen; a real one has some thousand descriptors in a few MiB.
pub(crate) const MAX_SDS_BYTES: u64 = 256 << 20;

/// Descriptors by their id, as byte ranges of the stream.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    bytes: Vec<u8>,
    by_id: HashMap<u32, (usize, usize)>,
}

impl Descriptors {
    /// What is damaged is passed over: whoever needs it will miss its id. An entry is only taken
    /// where its own offset and its hash are right, so looking for the next one every 16 bytes
    /// finds nothing that is none.
    pub fn parse(bytes: Vec<u8>) -> Self {
        let mut by_id = HashMap::new();
        let mut block = 0;
        while block < bytes.len() {
            let end = (block + BLOCK).min(bytes.len());
            let mirror_end = (end + BLOCK).min(bytes.len());
            let mut at = block;
            while at + HEADER <= end {
                let found = entry(&bytes, at, at, end)
                    .or_else(|| entry(&bytes, at + BLOCK, at, mirror_end));
                at = match found {
                    Some((id, start, len)) => {
                        by_id.insert(id, (start, len));
                        (at + HEADER + len).next_multiple_of(16)
                    }
                    None => at + 16,
                };
            }
            block += 2 * BLOCK;
        }
        Self { bytes, by_id }
    }

    pub fn get(&self, id: u32) -> Option<&[u8]> {
        let &(start, len) = self.by_id.get(&id)?;
        self.bytes.get(start..start + len)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
}

/// The entry at `at` that says it belongs at `own`, if it is sound: id, start, length.
fn entry(bytes: &[u8], at: usize, own: usize, end: usize) -> Option<(u32, usize, usize)> {
    let hash = u32_at(bytes, at)?;
    let id = u32_at(bytes, at + 4)?;
    let offset = u64_at(bytes, at + 8)?;
    let length = u32_at(bytes, at + 16)? as usize;
    if offset != own as u64 || length < HEADER || at.checked_add(length)? > end {
        return None;
    }
    let start = at + HEADER;
    let len = length - HEADER;
    (hash_of(&bytes[start..start + len]) == hash).then_some((id, start, len))
}

/// NTFS' hash of a descriptor: rotate by 3 and add, over 32-bit words.
fn hash_of(descriptor: &[u8]) -> u32 {
    descriptor.chunks_exact(4).fold(0u32, |hash, word| {
        hash.rotate_left(3).wrapping_add(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(sds: &mut [u8], at: usize, own: usize, id: u32, descriptor: &[u8]) {
        sds[at..at + 4].copy_from_slice(&hash_of(descriptor).to_le_bytes());
        sds[at + 4..at + 8].copy_from_slice(&id.to_le_bytes());
        sds[at + 8..at + 16].copy_from_slice(&(own as u64).to_le_bytes());
        let length = (HEADER + descriptor.len()) as u32;
        sds[at + 16..at + 20].copy_from_slice(&length.to_le_bytes());
        sds[at + 20..at + 20 + descriptor.len()].copy_from_slice(descriptor);
    }

    fn two_blocks() -> Vec<u8> {
        let mut sds = vec![0; 3 * BLOCK + 64];
        for copy in [0, BLOCK] {
            put(&mut sds, copy, 0, 0x100, b"first descriptor");
            put(&mut sds, copy + 48, 48, 0x101, b"second one..");
        }
        put(&mut sds, 2 * BLOCK, 2 * BLOCK, 0x102, b"in the second block ");
        sds
    }

    #[test]
    fn descriptors_of_all_blocks_are_found() {
        let found = Descriptors::parse(two_blocks());
        assert_eq!(found.len(), 3);
        assert_eq!(found.get(0x101), Some(&b"second one.."[..]));
        assert_eq!(found.get(0x102), Some(&b"in the second block "[..]));
    }

    #[test]
    fn a_damaged_descriptor_is_taken_from_its_copy() {
        let mut sds = two_blocks();
        sds[24] ^= 1;
        let found = Descriptors::parse(sds);
        assert_eq!(found.get(0x100), Some(&b"first descriptor"[..]));
    }

    #[test]
    fn damage_in_both_copies_loses_that_descriptor_and_no_other() {
        let mut sds = two_blocks();
        sds[24] ^= 1;
        sds[BLOCK + 24] ^= 1;
        let found = Descriptors::parse(sds);
        assert_eq!(found.get(0x100), None);
        assert_eq!(found.len(), 2);
    }
}
