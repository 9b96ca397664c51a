//! The log of a VHDX that was not cleanly closed, replayed in memory ([MS-VHDX] 2.3).
//!
//! ```text
//! entry: "loge" sum length tail sequence │ descriptors: "zero" or "desc" │ "data" sectors of 4 KiB
//! ```
//! The newest run of entries that is whole counts, from the one its last entry calls the tail. Nothing is
//! written: the map tells where in the log the newest bytes of each sector lie.

use super::{corrupt, view};
use crate::bytes::{guid, le32, le64};
use crate::error::{DiskError, Result};
use crate::file::ImageFile;
use std::collections::BTreeMap;

const SECTOR: u64 = 4096;
const ENTRY_HEAD: u64 = 64;
const DESCRIPTOR: u64 = 32;
/// An entry holds at most so much; Windows writes a few hundred KiB.
const MAX_ENTRY: u64 = 64 << 20;

/// Newest bytes of one 4 KiB sector of the file.
#[derive(Clone, Copy, Debug)]
pub struct Logged {
    /// Where the data sector is.
    at: u64,
    leading: [u8; 8],
    trailing: [u8; 4],
}

#[derive(Debug, Default)]
pub struct Overlay {
    sectors: BTreeMap<u64, Logged>,
    /// Ranges set to zero, newer than the file and older than `sectors` inside them.
    zeros: Vec<(u64, u64)>,
    pub replayed: usize,
}

impl Overlay {
    pub fn is_empty(&self) -> bool {
        self.sectors.is_empty() && self.zeros.is_empty()
    }

    /// Puts what is newer than the file into `buf`, the bytes from `offset`.
    pub fn apply(&self, file: &ImageFile, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let end = offset + buf.len() as u64;
        for (from, to) in &self.zeros {
            let (from, to) = ((*from).max(offset), (*to).min(end));
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize].fill(0);
            }
        }
        let first = offset / SECTOR * SECTOR;
        for (at, logged) in self.sectors.range(first..end) {
            let mut raw = [0; SECTOR as usize];
            file.read_exact_at(logged.at, &mut raw)?;
            raw[..8].copy_from_slice(&logged.leading);
            raw[SECTOR as usize - 4..].copy_from_slice(&logged.trailing);
            let (from, to) = ((*at).max(offset), (at + SECTOR).min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&raw[(from - at) as usize..(to - at) as usize]);
        }
        Ok(())
    }
}

pub struct Log<'a> {
    pub file: &'a ImageFile,
    pub at: u64,
    pub len: u64,
    pub id: [u8; 16],
}

struct Entry {
    sequence: u64,
    len: u64,
    tail: u64,
    flushed_bytes: u64,
    raw: Vec<u8>,
}

impl Log<'_> {
    pub fn replay(&self) -> Result<Overlay> {
        if self.len == 0 || !self.len.is_multiple_of(SECTOR) {
            return Err(corrupt(self.file, 0, "log length", self.len, SECTOR));
        }
        let end = self.at.checked_add(self.len);
        if end.is_none_or(|end| end > self.file.len_bytes()) {
            return Err(corrupt(self.file, self.at, "log", self.len, self.file.len_bytes()));
        }
        let active = self.active_sequence()?;
        if active.is_empty() {
            return Err(DiskError::Unsupported {
                image: self.file.path().display().to_string(),
                what: "was not cleanly closed and its log holds no whole sequence".into(),
            });
        }
        let mut overlay = Overlay { replayed: active.len(), ..Overlay::default() };
        for at in active {
            let entry = self.entry(at)?.ok_or_else(|| {
                corrupt(self.file, self.at + at, "log entry changed while it was read", at, 0)
            })?;
            if entry.flushed_bytes > self.file.len_bytes() {
                let (found, limit) = (self.file.len_bytes(), entry.flushed_bytes);
                return Err(corrupt(self.file, self.at + at, "file is cut off", found, limit));
            }
            self.apply(at, &entry, &mut overlay)?;
        }
        Ok(overlay)
    }

    /// Offsets of the entries to apply, oldest first.
    fn active_sequence(&self) -> Result<Vec<u64>> {
        let mut best: (u64, Vec<u64>) = (0, Vec::new());
        let mut start = 0;
        while start < self.len {
            let mut offsets = Vec::new();
            let mut at = start;
            let mut expected = None;
            let mut head = None;
            let mut walked = 0;
            while walked < self.len
                && let Some(entry) = self.entry(at)?
                && expected.is_none_or(|sequence| sequence == entry.sequence)
            {
                offsets.push(at);
                expected = entry.sequence.checked_add(1);
                walked += entry.len;
                at = (at + entry.len) % self.len;
                head = Some((entry.sequence, entry.tail));
                if expected.is_none() {
                    break;
                }
            }
            if let Some((sequence, tail)) = head
                && sequence > best.0
                && let Some(from) = offsets.iter().position(|offset| *offset == tail)
            {
                best = (sequence, offsets.split_off(from));
            }
            // Inside a run that was walked no other run begins, unless the ring was left.
            start = if walked == 0 { start + SECTOR } else { start + walked.max(SECTOR) };
        }
        Ok(best.1)
    }

    /// Bytes of the ring.
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        let mut raw = vec![0; len as usize];
        let first = len.min(self.len - at);
        let (head, tail) = raw.split_at_mut(first as usize);
        view(self.file, self.at + at, head)?;
        view(self.file, self.at, tail)?;
        Ok(raw)
    }

    /// A valid entry at `at`.
    fn entry(&self, at: u64) -> Result<Option<Entry>> {
        let head = self.read(at, SECTOR)?;
        if head[..4] != *b"loge" || guid(&head, 32) != Some(self.id) {
            return Ok(None);
        }
        let number = |at| le64(&head, at).unwrap_or(0);
        let len = u64::from(le32(&head, 8).unwrap_or(0));
        let count = u64::from(le32(&head, 24).unwrap_or(0));
        let fits = len > 0 && len.is_multiple_of(SECTOR) && len <= self.len.min(MAX_ENTRY);
        if !fits || ENTRY_HEAD + count * DESCRIPTOR > len || number(16) == 0 {
            return Ok(None);
        }
        let mut raw = self.read(at, len)?;
        let stored = le32(&raw, 4);
        raw[4..8].fill(0);
        if stored != Some(crc32c::crc32c(&raw)) {
            return Ok(None);
        }
        // Each descriptor and each data sector carries the number of its entry.
        let sequence = number(16);
        let mut data = (ENTRY_HEAD + count * DESCRIPTOR).next_multiple_of(SECTOR) as usize;
        for index in 0..count {
            let from = (ENTRY_HEAD + index * DESCRIPTOR) as usize;
            if le64(&raw, from + 24) != Some(sequence) {
                return Ok(None);
            }
            match raw.get(from..from + 4) {
                Some(b"zero") => {}
                Some(b"desc") => {
                    let Some(sector) = raw.get(data..data + SECTOR as usize) else {
                        return Ok(None);
                    };
                    let high = u64::from(le32(sector, 4).unwrap_or(0));
                    let low = u64::from(le32(sector, SECTOR as usize - 4).unwrap_or(0));
                    if sector[..4] != *b"data" || (high << 32 | low) != sequence {
                        return Ok(None);
                    }
                    data += SECTOR as usize;
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(Entry {
            sequence,
            len,
            tail: u64::from(le32(&head, 12).unwrap_or(0)),
            flushed_bytes: number(48),
            raw,
        }))
    }

    fn apply(&self, at: u64, entry: &Entry, overlay: &mut Overlay) -> Result<()> {
        let count = u64::from(le32(&entry.raw, 24).unwrap_or(0));
        let mut data = (ENTRY_HEAD + count * DESCRIPTOR).next_multiple_of(SECTOR);
        for index in 0..count {
            let from = (ENTRY_HEAD + index * DESCRIPTOR) as usize;
            let target = le64(&entry.raw, from + 16).unwrap_or(0);
            if !target.is_multiple_of(SECTOR) {
                return Err(corrupt(self.file, self.at + at, "logged offset", target, SECTOR));
            }
            if entry.raw[from..from + 4] == *b"zero" {
                let len = le64(&entry.raw, from + 8).unwrap_or(0);
                let end = target.checked_add(len).filter(|_| len.is_multiple_of(SECTOR));
                let end = end.ok_or_else(|| {
                    corrupt(self.file, self.at + at, "logged zero length", len, u64::MAX)
                })?;
                let gone: Vec<u64> = overlay.sectors.range(target..end).map(|(k, _)| *k).collect();
                for key in gone {
                    overlay.sectors.remove(&key);
                }
                overlay.zeros.push((target, end));
                continue;
            }
            let mut leading = [0; 8];
            let mut trailing = [0; 4];
            trailing.copy_from_slice(&entry.raw[from + 4..from + 8]);
            leading.copy_from_slice(&entry.raw[from + 8..from + 16]);
            // The ring is a multiple of 4 KiB, so a sector never wraps.
            let place = self.at + (at + data) % self.len;
            overlay.sectors.insert(target, Logged { at: place, leading, trailing });
            data += SECTOR;
        }
        Ok(())
    }
}
