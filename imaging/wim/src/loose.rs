//! The loose form of a compressed resource: what differs little between two resources differs
//! little between their loose forms, so one can be kept as the difference to the other. The
//! resource comes back bit for bit.
//!
//! ```text
//! "giltloos", contents u64, chunk order u8 (log2 of the bytes of a chunk)
//! lengths   u32 of kinds, codes, steps, literals
//! kinds     per chunk: 1 taken apart; 0 as it is: its length u32, its bytes among the literals
//! codes, steps, literals   as `gilt_codec::loose` has them
//! ```

use gilt_codec::Codec;
use gilt_codec::loose::{Loosener, Streams, Taken};

use crate::{Compression, Error, Result};

const MAGIC: &[u8; 8] = b"giltloos";
const HEAD: usize = 8 + 8 + 1 + 16;

/// Bytes of one entry of the table of chunks in front of a resource.
fn entry_bytes(content_bytes: u64) -> usize {
    if content_bytes > u64::from(u32::MAX) { 8 } else { 4 }
}

/// The loose form of a resource stored as `stored`, with its table of chunks. `None` where there
/// is none: another compression than LZX, a pipable file, damaged bytes.
pub fn loosen(
    stored: &[u8],
    content_bytes: u64,
    compression: Compression,
    chunk_bytes: u32,
) -> Option<Vec<u8>> {
    if compression != Compression::Lzx {
        return None;
    }
    let mut loosener = Loosener::new(Codec::Lzx, chunk_bytes).ok()??;
    let chunk = u64::from(chunk_bytes);
    let count = usize::try_from(content_bytes.div_ceil(chunk)).ok()?;
    let width = entry_bytes(content_bytes);
    let table_bytes = count.checked_sub(1)?.checked_mul(width)?;
    let (table, data) = stored.split_at_checked(table_bytes)?;
    let mut streams = Streams::default();
    let mut kinds = Vec::with_capacity(count);
    let mut at = 0usize;
    for n in 0..count {
        let end = match table.get(n * width..(n + 1) * width) {
            Some(entry) => {
                let mut bytes = [0; 8];
                bytes[..width].copy_from_slice(entry);
                usize::try_from(u64::from_le_bytes(bytes)).ok()?
            }
            None => data.len(),
        };
        let packed = data.get(at..end)?;
        at = end;
        let content = chunk.min(content_bytes - n as u64 * chunk) as usize;
        // A chunk as long as its contents holds them as they are.
        let apart =
            packed.len() < content && loosener.loosen(packed, content, &mut streams).is_ok();
        kinds.push(u8::from(apart));
        if !apart {
            kinds.extend_from_slice(&u32::try_from(packed.len()).ok()?.to_le_bytes());
            streams.literals.extend_from_slice(packed);
        }
    }
    let mut loose = MAGIC.to_vec();
    loose.extend_from_slice(&content_bytes.to_le_bytes());
    loose.push(chunk_bytes.trailing_zeros() as u8);
    let parts = [&kinds, &streams.codes, &streams.steps, &streams.literals];
    for part in parts {
        loose.extend_from_slice(&u32::try_from(part.len()).ok()?.to_le_bytes());
    }
    for part in parts {
        loose.extend_from_slice(part);
    }
    // The table may hold what was not expected; then it does not come back.
    (tighten(&loose).ok()? == stored).then_some(loose)
}

/// The resource of a loose form. Any bytes are acceptable: what is not valid is an error, in time
/// and memory bounded by their length.
pub fn tighten(loose: &[u8]) -> Result<Vec<u8>> {
    let bad = |at: usize, what: &'static str| {
        Error::corrupt(at as u64, what, "no such thing", "a loose form")
    };
    let head = loose.get(..HEAD).filter(|head| head.starts_with(MAGIC));
    let head = head.ok_or_else(|| bad(0, "head of a loose resource"))?;
    let u32_at =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let content_bytes = u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32;
    let chunk_bytes = 1u32.checked_shl(u32::from(head[16])).unwrap_or(0);
    let loosener = Loosener::new(Codec::Lzx, chunk_bytes).ok().flatten();
    let mut loosener = loosener.ok_or_else(|| bad(16, "chunk size of a loose resource"))?;
    let mut rest = &loose[HEAD..];
    let mut part = |n: usize| {
        let (part, more) = rest.split_at_checked(u32_at(17 + 4 * n) as usize)?;
        rest = more;
        Some(part)
    };
    let (Some(mut kinds), Some(codes), Some(steps), Some(literals)) =
        (part(0), part(1), part(2), part(3))
    else {
        return Err(bad(17, "lengths of a loose resource"));
    };
    let chunk = u64::from(chunk_bytes);
    // Each chunk has a kind, so the count is bounded by the bytes that are there.
    let count = usize::try_from(content_bytes.div_ceil(chunk))
        .ok()
        .filter(|&count| count > 0 && count <= kinds.len())
        .ok_or_else(|| bad(8, "contents of a loose resource"))?;
    let width = entry_bytes(content_bytes);
    let mut taken = Taken::new(codes, steps, literals);
    let mut stored = vec![0; (count - 1) * width];
    for n in 0..count {
        let content = chunk.min(content_bytes - n as u64 * chunk) as usize;
        let failed = || bad(HEAD, "chunk of a loose resource");
        let (&kind, more) = kinds.split_first().ok_or_else(failed)?;
        kinds = more;
        if kind == 1 {
            let chunk = loosener.tighten(&mut taken, content).map_err(|_| failed())?;
            stored.extend_from_slice(&chunk);
        } else {
            let (len, more) = kinds.split_first_chunk::<4>().ok_or_else(failed)?;
            kinds = more;
            let bytes = taken.bytes(u32::from_le_bytes(*len) as usize).map_err(|_| failed())?;
            stored.extend_from_slice(bytes);
        }
        let end = (stored.len() - (count - 1) * width) as u64;
        if let Some(entry) = stored[..(count - 1) * width].get_mut(n * width..(n + 1) * width) {
            entry.copy_from_slice(&end.to_le_bytes()[..width]);
        }
    }
    if !kinds.is_empty() || !taken.is_empty() || !rest.is_empty() {
        return Err(bad(loose.len(), "end of a loose resource"));
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gilt_codec::{Compressor, Level};

    /// A resource of four chunks, of which the second does not compress.
    fn resource() -> (Vec<u8>, u64) {
        let mut contents = Vec::new();
        for n in 0..30_000u32 {
            let noise = n.wrapping_mul(2_654_435_761) ^ n.wrapping_mul(40_503) << 7;
            let word = if (8192..16_384).contains(&n) { noise } else { n / 7 };
            contents.extend_from_slice(&word.to_le_bytes());
        }
        let mut compressor = Compressor::new(Codec::Lzx, 32768, Level::Default).unwrap();
        let (mut table, mut data, mut packed) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in contents.chunks(32768) {
            if !data.is_empty() {
                table.extend_from_slice(&(data.len() as u32).to_le_bytes());
            }
            let smaller = compressor.compress(chunk, &mut packed);
            data.extend_from_slice(if smaller { &packed } else { chunk });
        }
        table.extend_from_slice(&data);
        (table, contents.len() as u64)
    }

    #[test]
    fn a_resource_comes_back_bit_for_bit() {
        let (stored, content_bytes) = resource();
        let loose = loosen(&stored, content_bytes, Compression::Lzx, 32768).unwrap();
        assert_eq!(tighten(&loose).unwrap(), stored);
        assert_eq!(loosen(&stored, content_bytes, Compression::Xpress, 32768), None);
        assert_eq!(loosen(&stored[..100], content_bytes, Compression::Lzx, 32768), None);
    }

    #[test]
    fn what_is_damaged_is_an_error_or_other_bytes() {
        let (stored, content_bytes) = resource();
        let loose = loosen(&stored, content_bytes, Compression::Lzx, 32768).unwrap();
        for len in (0..loose.len()).step_by(97).chain(0..HEAD) {
            assert!(tighten(&loose[..len]).is_err());
        }
        for at in (0..HEAD + 300).chain((0..loose.len()).step_by(211)) {
            let mut damaged = loose.clone();
            damaged[at] ^= 0x81;
            assert_ne!(tighten(&damaged).ok().as_ref(), Some(&stored), "{at:#x}");
        }
    }
}
