//! VHDX: fixed, dynamic and differencing (AVHDX), read-only ([MS-VHDX]); and fresh dynamic ones, written.
//!
//! ```text
//! guest offset ─ block ─ BAT entry ─ not present: parent or zeros │ zero │ fully present │ partially present:
//!                                     one bit for each sector in the chunk's bitmap: here or in the parent
//! ```
//! A log that was not replayed is replayed in memory; the file is never written.

mod header;
mod log;
mod write;

pub use header::{Header, MAGIC};
pub use write::write_vhdx;

use crate::block::{BlockRead, Extent, ExtentContent, check_range};
use crate::bytes::le64;
use crate::cache::Cache;
use crate::error::{DiskError, Result};
use crate::file::ImageFile;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Sectors that one bitmap block covers.
const SECTORS_PER_CHUNK: u64 = 1 << 23;
const BITMAP_BYTES: usize = 1 << 20;
/// Entries of the BAT read at once.
const BAT_PAGE: u64 = 8192;
const OFFSET_MASK: u64 = !0xF_FFFF;

mod state {
    pub const NOT_PRESENT: u64 = 0;
    pub const UNDEFINED: u64 = 1;
    pub const ZERO: u64 = 2;
    pub const UNMAPPED: u64 = 3;
    pub const FULLY_PRESENT: u64 = 6;
    pub const PARTIALLY_PRESENT: u64 = 7;
}

pub struct Vhdx {
    header: Header,
    file: Arc<ImageFile>,
    parent: Option<Arc<dyn BlockRead>>,
    chunk_ratio: u64,
    bat: Cache<[u64]>,
    bitmaps: Cache<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Data { host: u64 },
    Zero,
    Parent,
}

fn corrupt(file: &ImageFile, at: u64, what: &'static str, found: u64, limit: u64) -> DiskError {
    DiskError::Corrupt { image: file.path().display().to_string(), at, what, found, limit }
}

/// Bytes of the file as they are; past its end, zeros.
fn view(file: &ImageFile, at: u64, buf: &mut [u8]) -> Result<()> {
    file.read_padded_at(at, buf).map_err(DiskError::io(file.path()))
}

impl Vhdx {
    pub fn new(
        header: Header,
        file: Arc<ImageFile>,
        parent: Option<Arc<dyn BlockRead>>,
    ) -> Result<Self> {
        let chunk_ratio = SECTORS_PER_CHUNK * u64::from(header.sector_bytes) / header.block_bytes;
        let blocks = header.disk_bytes.div_ceil(header.block_bytes);
        let entries = match header.parent {
            // Bitmaps stand behind each whole chunk.
            Some(_) => blocks.div_ceil(chunk_ratio) * (chunk_ratio + 1),
            None => blocks + (blocks - 1) / chunk_ratio,
        };
        if entries * 8 > header.bat_len {
            return Err(corrupt(&file, header.bat_at, "block table", header.bat_len, entries * 8));
        }
        Ok(Self { header, file, parent, chunk_ratio, bat: Cache::new(64), bitmaps: Cache::new(16) })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the file, with what the log holds.
    fn read_file(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_padded_at(at, buf)?;
        if self.header.overlay.is_empty() {
            return Ok(());
        }
        self.header.overlay.apply(&self.file, at, buf)
    }

    fn bat_entry(&self, index: u64) -> io::Result<u64> {
        let page = index / BAT_PAGE;
        let entries = match self.bat.get(page) {
            Some(entries) => entries,
            None => {
                let at = page * BAT_PAGE * 8;
                let len = (BAT_PAGE * 8).min(self.header.bat_len.saturating_sub(at));
                let mut raw = vec![0; len as usize];
                self.read_file(self.header.bat_at + at, &mut raw)?;
                let count = raw.len() / 8;
                let entries: Arc<[u64]> =
                    (0..count).map(|index| le64(&raw, index * 8).unwrap_or(0)).collect();
                self.bat.put(page, entries.clone());
                entries
            }
        };
        Ok(entries.get((index % BAT_PAGE) as usize).copied().unwrap_or(0))
    }

    fn bitmap(&self, chunk: u64) -> io::Result<Arc<[u8]>> {
        if let Some(bitmap) = self.bitmaps.get(chunk) {
            return Ok(bitmap);
        }
        let index = chunk * (self.chunk_ratio + 1) + self.chunk_ratio;
        let entry = self.bat_entry(index)?;
        if entry & 7 != state::FULLY_PRESENT {
            let at = self.header.bat_at + index * 8;
            return Err(corrupt(&self.file, at, "state of a sector bitmap", entry & 7, 6).into());
        }
        let mut raw = vec![0; BITMAP_BYTES];
        self.read_file(self.data_offset(entry, index)?, &mut raw)?;
        let bitmap: Arc<[u8]> = raw.into();
        self.bitmaps.put(chunk, bitmap.clone());
        Ok(bitmap)
    }

    fn data_offset(&self, entry: u64, index: u64) -> Result<u64> {
        let host = entry & OFFSET_MASK;
        if host == 0 || host >= self.file.len_bytes() && self.header.overlay.is_empty() {
            let at = self.header.bat_at + index * 8;
            return Err(corrupt(&self.file, at, "block offset", host, self.file.len_bytes()));
        }
        Ok(host)
    }

    /// Where the bytes from `offset` are, and for how many of at most `max` that holds.
    fn run_at(&self, offset: u64, max: u64) -> io::Result<(Run, u64)> {
        let block = offset / self.header.block_bytes;
        let inside = offset % self.header.block_bytes;
        let max = max.min(self.header.block_bytes - inside);
        let index = block + block / self.chunk_ratio;
        let entry = self.bat_entry(index)?;
        match entry & 7 {
            state::NOT_PRESENT => Ok((Run::Parent, max)),
            state::UNDEFINED | state::ZERO | state::UNMAPPED => Ok((Run::Zero, max)),
            state::FULLY_PRESENT => {
                Ok((Run::Data { host: self.data_offset(entry, index)? + inside }, max))
            }
            state::PARTIALLY_PRESENT if self.header.parent.is_some() => {
                let host = self.data_offset(entry, index)? + inside;
                let bitmap = self.bitmap(block / self.chunk_ratio)?;
                let sector = u64::from(self.header.sector_bytes);
                let bit = |at: u64| {
                    let number = at / sector % SECTORS_PER_CHUNK;
                    bitmap[(number / 8) as usize] >> (number % 8) & 1 != 0
                };
                let here = bit(offset);
                let mut len = (sector - offset % sector).min(max);
                while len < max && bit(offset + len) == here {
                    len = (len + sector).min(max);
                }
                Ok((if here { Run::Data { host } } else { Run::Parent }, len))
            }
            other => {
                let at = self.header.bat_at + index * 8;
                Err(corrupt(&self.file, at, "state of a block", other, 7).into())
            }
        }
    }
}

impl BlockRead for Vhdx {
    fn len_bytes(&self) -> u64 {
        self.header.disk_bytes
    }

    fn sector_bytes(&self) -> u32 {
        self.header.sector_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len(), self.header.disk_bytes)?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (run, len) = self.run_at(at, (buf.len() - done) as u64)?;
            let part = &mut buf[done..done + len as usize];
            match (run, &self.parent) {
                (Run::Data { host }, _) => self.read_file(host, part)?,
                (Run::Parent, Some(parent)) => {
                    // A child may be larger than its parent.
                    let have = parent.len_bytes().saturating_sub(at).min(len) as usize;
                    let (head, tail) = part.split_at_mut(have);
                    tail.fill(0);
                    if !head.is_empty() {
                        parent.read_at(at, head)?;
                    }
                }
                _ => part.fill(0),
            }
            done += len as usize;
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, each: &mut dyn FnMut(Extent)) -> io::Result<()> {
        let end = range.end.min(self.header.disk_bytes);
        let mut at = range.start;
        while at < end {
            let (run, len) = self.run_at(at, end - at)?;
            let mut emit = |from: u64, to: u64, content| {
                if from < to {
                    each(Extent { offset: from, len_bytes: to - from, content });
                }
            };
            match (run, &self.parent) {
                (Run::Data { .. }, _) => emit(at, at + len, ExtentContent::Data { depth: 0 }),
                (Run::Zero, _) => emit(at, at + len, ExtentContent::Zero { depth: 0 }),
                (Run::Parent, None) => emit(at, at + len, ExtentContent::Absent),
                (Run::Parent, Some(parent)) => {
                    let below_end = parent.len_bytes().clamp(at, at + len);
                    parent.extents(at..below_end, &mut |extent| {
                        each(Extent { content: extent.content.below(), ..extent });
                    })?;
                    if below_end < at + len {
                        each(Extent {
                            offset: below_end,
                            len_bytes: at + len - below_end,
                            content: ExtentContent::Absent,
                        });
                    }
                }
            }
            at += len;
        }
        Ok(())
    }
}

impl Header {
    pub fn read(file: &ImageFile) -> Result<Self> {
        header::read(file)
    }

    /// What else is worth telling a user.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!("sectors of {} bytes", self.sector_bytes)];
        if self.parent.is_some() {
            notes.push("differencing".into());
        }
        if self.overlay.replayed > 0 {
            notes.push(format!("{} log entries replayed in memory", self.overlay.replayed));
        }
        notes
    }
}
