//! Logs: pages that are to be written over a dirty hive.
//!
//! ```text
//! log    base block copy of 512 bytes, then
//!   since 8.1  type 6: entries "HvLE" u32 size, flags, sequence, bins length, pages,
//!              u64 hash 1 (pages), u64 hash 2 (first 32 bytes);
//!              (u32 offset, u32 size) for each page; the pages
//!   before     type 1, 2: "DIRT", one bit for each 512 bytes of bins; the pages with a bit
//! ```
//! Two logs are used in turn. Entries are applied in the order of their sequence numbers, from the
//! hive's second sequence on, and end at the first that is missing or torn.

use crate::base::Base;
use crate::cell::{u32_at, u64_at};

const PAGE: usize = 512;
const ENTRY_HEAD: usize = 40;
/// How much a log may grow a hive; a log itself is some MiB.
const MAX_GROWTH: usize = 64 << 20;

/// What became of the hive.
pub(crate) struct Replayed {
    pub entries: usize,
    pub root: u32,
    pub bins_bytes: u32,
}

/// Completes `bins` from `logs`; `None` (and `bins` untouched) if no log fits.
pub(crate) fn replay(base: &Base, bins: &mut Vec<u8>, logs: &[Vec<u8>]) -> Option<Replayed> {
    let known: Vec<(Base, &[u8])> = logs
        .iter()
        .filter_map(|log| Some((Base::parse(log)?, log.as_slice())))
        .filter(|(log, _)| log.checksum_fits)
        .collect();
    replay_entries(base, bins, &known).or_else(|| replay_pages(base, bins, &known))
}

struct Entry<'a> {
    sequence: u32,
    bins_bytes: u32,
    pages: Vec<(usize, &'a [u8])>,
}

fn replay_entries(base: &Base, bins: &mut Vec<u8>, logs: &[(Base, &[u8])]) -> Option<Replayed> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut newest = None;
    for (log_base, log) in logs.iter().filter(|(log, _)| log.file_type == 6) {
        let mut at = Base::LOG_BASE_BYTES;
        let mut previous = None;
        while let Some(entry) = log.get(at..).and_then(parse_entry) {
            // What follows with another number is left over from an earlier use of the file.
            if previous.is_some_and(|p: u32| p.wrapping_add(1) != entry.0.sequence) {
                break;
            }
            previous = Some(entry.0.sequence);
            at += entry.1;
            entries.push(entry.0);
        }
        if newest.is_none_or(|known: &Base| log_base.last_written > known.last_written) {
            newest = Some(log_base);
        }
    }
    entries.sort_by_key(|entry| entry.sequence);
    entries.dedup_by_key(|entry| entry.sequence);
    // With a broken base block nothing but the log tells where to begin.
    let first = if base.checksum_fits { base.secondary } else { 0 };
    let mut next = None;
    let mut applied = 0;
    let most_bytes = bins.len() + MAX_GROWTH;
    let mut bins_bytes = base.bins_bytes;
    for entry in entries.iter().filter(|entry| entry.sequence >= first) {
        if next.is_some_and(|next| next != entry.sequence) {
            break;
        }
        next = Some(entry.sequence.wrapping_add(1));
        if entry.bins_bytes as usize > most_bytes {
            break;
        }
        bins_bytes = entry.bins_bytes;
        if bins.len() < bins_bytes as usize {
            bins.resize(bins_bytes as usize, 0);
        }
        for (offset, page) in &entry.pages {
            bins[*offset..*offset + page.len()].copy_from_slice(page);
        }
        applied += 1;
    }
    let root = if base.checksum_fits { base.root } else { newest?.root };
    (applied > 0).then_some(Replayed { entries: applied, root, bins_bytes })
}

/// The entry at the start of `bytes` and its length, if it is sound.
fn parse_entry(bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    if bytes.get(..4)? != b"HvLE" {
        return None;
    }
    let size = u32_at(bytes, 4)? as usize;
    let entry = bytes.get(..size).filter(|_| size >= ENTRY_HEAD && size.is_multiple_of(PAGE))?;
    if marvin32(&entry[ENTRY_HEAD..]) != u64_at(entry, 24)?
        || marvin32(&entry[..32]) != u64_at(entry, 32)?
    {
        return None;
    }
    let bins_bytes = u32_at(entry, 16)?;
    let count = u32_at(entry, 20)? as usize;
    if count > size / 8 {
        return None;
    }
    let mut data_at = ENTRY_HEAD + count * 8;
    let mut pages = Vec::with_capacity(count);
    for i in 0..count {
        let offset = u32_at(entry, ENTRY_HEAD + i * 8)? as usize;
        let len = u32_at(entry, ENTRY_HEAD + i * 8 + 4)? as usize;
        let data = entry.get(data_at..data_at.checked_add(len)?)?;
        if offset.checked_add(len)? > bins_bytes as usize {
            return None;
        }
        pages.push((offset, data));
        data_at += len;
    }
    Some((Entry { sequence: u32_at(entry, 12)?, bins_bytes, pages }, size))
}

/// The older form: one set of pages.
fn replay_pages(base: &Base, bins: &mut Vec<u8>, logs: &[(Base, &[u8])]) -> Option<Replayed> {
    let (log_base, log) = logs
        .iter()
        .filter(|(log, _)| matches!(log.file_type, 1 | 2) && log.primary == log.secondary)
        .filter(|(log, _)| !base.checksum_fits || log.last_written == base.last_written)
        .filter(|(log, _)| log.bins_bytes as usize <= bins.len() + MAX_GROWTH)
        .max_by_key(|(log, _)| log.primary)?;
    let bits = log_base.bins_bytes as usize / PAGE;
    let vector = Base::LOG_BASE_BYTES;
    if log.get(vector..vector + 4)? != b"DIRT" {
        return None;
    }
    let bitmap = log.get(vector + 4..vector + 4 + bits.div_ceil(8))?;
    let mut data_at = (vector + 4 + bitmap.len()).next_multiple_of(PAGE);
    let mut pages = Vec::new();
    for i in (0..bits).filter(|i| bitmap[i / 8] & (1 << (i % 8)) != 0) {
        pages.push((i * PAGE, log.get(data_at..data_at + PAGE)?));
        data_at += PAGE;
    }
    if bins.len() < log_base.bins_bytes as usize {
        bins.resize(log_base.bins_bytes as usize, 0);
    }
    for (offset, page) in &pages {
        bins[*offset..offset + PAGE].copy_from_slice(page);
    }
    Some(Replayed { entries: 1, root: log_base.root, bins_bytes: log_base.bins_bytes })
}

/// Marvin32 with the seed the registry uses.
fn marvin32(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xC555_4E7A_884D_EF82;
    let (mut low, mut high) = (SEED as u32, (SEED >> 32) as u32);
    let mut mix = |word: u32| {
        low = low.wrapping_add(word);
        high ^= low;
        low = low.rotate_left(20).wrapping_add(high);
        high = high.rotate_left(9) ^ low;
        low = low.rotate_left(27).wrapping_add(high);
        high = high.rotate_left(19);
        (u64::from(high) << 32) | u64::from(low)
    };
    let words = bytes.chunks_exact(4);
    let mut tail = 0x80u32;
    for &byte in words.remainder().iter().rev() {
        tail = tail << 8 | u32::from(byte);
    }
    for word in words {
        mix(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
    mix(tail);
    mix(0)
}

#[cfg(test)]
mod tests {
    use super::marvin32;

    #[test]
    fn marvin_agrees_with_the_regf_crate() {
        for len in 0..40 {
            let bytes: Vec<u8> = (0..len).map(|i| i ^ 0x5A).collect();
            let other = regf::marvin32_hash(&bytes, regf::MARVIN32_SEED);
            assert_eq!(marvin32(&bytes), other, "{len}");
        }
    }
}
