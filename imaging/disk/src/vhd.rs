//! VHD, the format before VHDX: fixed, dynamic and differencing, read-only (Microsoft's "Virtual
//! Hard Disk Image Format Specification" of 2006). All numbers are big-endian.
//!
//! ```text
//! dynamic: copy of the footer │ header "cxsparse" │ table of sectors │ blocks: bitmap, data │ footer
//! fixed:   the disk │ footer "conectix"
//! ```

use crate::block::{BlockRead, Extent, ExtentContent, check_range};
use crate::bytes::{be32, be64, guid};
use crate::cache::Cache;
use crate::error::{DiskError, Result};
use crate::file::ImageFile;
use std::io;
use std::ops::Range;
use std::sync::Arc;

pub const COOKIE: &[u8; 8] = b"conectix";
const FOOTER: u64 = 512;
const SECTOR: u64 = 512;
const UNALLOCATED: u32 = u32::MAX;
/// The format ends at 2040 GiB.
const MAX_DISK_BYTES: u64 = 2040 << 30;
const TABLE_PAGE: u64 = 8192;

#[derive(Clone, Debug)]
pub struct VhdHeader {
    pub disk_bytes: u64,
    pub id: [u8; 16],
    layout: Layout,
    pub parent: Option<VhdParent>,
}

/// What a differencing disk says of its parent.
#[derive(Clone, Debug)]
pub struct VhdParent {
    pub id: [u8; 16],
    /// Paths to try, the relative one first.
    pub paths: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    Fixed,
    Dynamic { table_at: u64, entries: u32, block_bytes: u64 },
}

fn corrupt(file: &ImageFile, at: u64, what: &'static str, found: u64, limit: u64) -> DiskError {
    DiskError::Corrupt { image: file.path().display().to_string(), at, what, found, limit }
}

fn sum_is_right(raw: &[u8], at: usize) -> bool {
    let bytes = raw.iter().enumerate().filter(|(index, _)| !(at..at + 4).contains(index));
    let sum = bytes.fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    be32(raw, at) == Some(!sum)
}

/// The footer at the end, where it is a valid one.
pub fn footer_of(file: &ImageFile) -> Result<Option<Vec<u8>>> {
    let Some(at) = file.len_bytes().checked_sub(FOOTER) else { return Ok(None) };
    let mut raw = vec![0; FOOTER as usize];
    file.read_exact_at(at, &mut raw).map_err(DiskError::io(file.path()))?;
    Ok((raw.starts_with(COOKIE) && sum_is_right(&raw, 64)).then_some(raw))
}

impl VhdHeader {
    pub fn read(file: &ImageFile) -> Result<Self> {
        let footer = footer_of(file)?.ok_or_else(|| {
            corrupt(file, file.len_bytes().saturating_sub(FOOTER), "footer", 0, 0)
        })?;
        let disk_bytes = be64(&footer, 48).unwrap_or(0);
        if disk_bytes == 0 || disk_bytes > MAX_DISK_BYTES {
            return Err(corrupt(file, 48, "disk size", disk_bytes, MAX_DISK_BYTES));
        }
        let mut this = Self {
            disk_bytes,
            id: guid(&footer, 68).unwrap_or_default(),
            layout: Layout::Fixed,
            parent: None,
        };
        match be32(&footer, 60) {
            Some(2) => {
                if disk_bytes > file.len_bytes() - FOOTER {
                    let limit = file.len_bytes() - FOOTER;
                    return Err(corrupt(file, 48, "disk size", disk_bytes, limit));
                }
            }
            Some(kind @ (3 | 4)) => {
                let at = be64(&footer, 16).unwrap_or(0);
                this.read_dynamic(file, at, kind == 4)?;
            }
            kind => {
                let what = format!("VHD of type {} is not known", kind.unwrap_or(0));
                return Err(DiskError::Unsupported {
                    image: file.path().display().to_string(),
                    what,
                });
            }
        }
        Ok(this)
    }

    fn read_dynamic(&mut self, file: &ImageFile, at: u64, differencing: bool) -> Result<()> {
        let mut raw = vec![0; 1024];
        file.read_exact_at(at, &mut raw).map_err(DiskError::io(file.path()))?;
        if raw[..8] != *b"cxsparse" || !sum_is_right(&raw, 36) {
            return Err(corrupt(file, at, "dynamic header", 0, 0));
        }
        let block_bytes = u64::from(be32(&raw, 32).unwrap_or(0));
        if !block_bytes.is_power_of_two() || !(4096..=1 << 30).contains(&block_bytes) {
            return Err(corrupt(file, at + 32, "block size", block_bytes, 1 << 30));
        }
        let entries = be32(&raw, 28).unwrap_or(0);
        let needed = self.disk_bytes.div_ceil(block_bytes);
        if u64::from(entries) < needed {
            return Err(corrupt(file, at + 28, "table entries", entries.into(), needed));
        }
        let table_at = be64(&raw, 16).unwrap_or(0);
        self.layout = Layout::Dynamic { table_at, entries, block_bytes };
        if differencing {
            self.parent = Some(VhdParent {
                id: guid(&raw, 40).unwrap_or_default(),
                paths: parent_paths(file, &raw)?,
            });
        }
        Ok(())
    }

    pub fn is_fixed(&self) -> bool {
        matches!(self.layout, Layout::Fixed)
    }

    pub fn block_bytes(&self) -> Option<u64> {
        match self.layout {
            Layout::Fixed => None,
            Layout::Dynamic { block_bytes, .. } => Some(block_bytes),
        }
    }
}

/// Windows' locators (relative `W2ru`, absolute `W2ku`), then the plain name.
fn parent_paths(file: &ImageFile, raw: &[u8]) -> Result<Vec<String>> {
    let mut found: Vec<(u8, String)> = Vec::new();
    for entry in raw[576..768].chunks_exact(24) {
        let rank = match entry[..4] {
            [b'W', b'2', b'r', b'u'] => 0,
            [b'W', b'2', b'k', b'u'] => 1,
            _ => continue,
        };
        let (len, at) = (be32(entry, 8).unwrap_or(0), be64(entry, 16).unwrap_or(0));
        if len > 64 << 10 {
            return Err(corrupt(file, at, "length of the parent's path", len.into(), 64 << 10));
        }
        let mut path = vec![0; len as usize];
        file.read_padded_at(at, &mut path).map_err(DiskError::io(file.path()))?;
        let units: Vec<u16> =
            path.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        found.push((rank, text_of(&units)));
    }
    let units: Vec<u16> =
        raw[64..576].chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    found.push((2, text_of(&units)));
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).filter(|path| !path.is_empty()).collect())
}

fn text_of(units: &[u16]) -> String {
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16_lossy(&units[..end])
}

pub struct Vhd {
    header: VhdHeader,
    file: Arc<ImageFile>,
    parent: Option<Arc<dyn BlockRead>>,
    table: Cache<[u32]>,
    bitmaps: Cache<[u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Data { host: u64 },
    Parent,
}

impl Vhd {
    pub fn new(
        header: VhdHeader,
        file: Arc<ImageFile>,
        parent: Option<Arc<dyn BlockRead>>,
    ) -> Self {
        Self { header, file, parent, table: Cache::new(64), bitmaps: Cache::new(1024) }
    }

    fn table_entry(&self, table_at: u64, entries: u32, index: u64) -> io::Result<u32> {
        let page = index / TABLE_PAGE;
        let list = match self.table.get(page) {
            Some(list) => list,
            None => {
                let first = page * TABLE_PAGE;
                let count = TABLE_PAGE.min(u64::from(entries) - first);
                let mut raw = vec![0; (count * 4) as usize];
                self.file.read_exact_at(table_at.saturating_add(first * 4), &mut raw)?;
                let list: Arc<[u32]> = (0..count as usize)
                    .map(|index| be32(&raw, index * 4).unwrap_or(UNALLOCATED))
                    .collect();
                self.table.put(page, list.clone());
                list
            }
        };
        Ok(list.get((index % TABLE_PAGE) as usize).copied().unwrap_or(UNALLOCATED))
    }

    fn run_at(&self, offset: u64, max: u64) -> io::Result<(Run, u64)> {
        let Layout::Dynamic { table_at, entries, block_bytes } = self.header.layout else {
            return Ok((Run::Data { host: offset }, max));
        };
        let (block, inside) = (offset / block_bytes, offset % block_bytes);
        let max = max.min(block_bytes - inside);
        let sector = self.table_entry(table_at, entries, block)?;
        if sector == UNALLOCATED {
            return Ok((Run::Parent, max));
        }
        let start = u64::from(sector) * SECTOR;
        let bitmap_bytes = (block_bytes / SECTOR / 8).next_multiple_of(SECTOR);
        let host = start + bitmap_bytes + inside;
        if host >= self.file.len_bytes() {
            let limit = self.file.len_bytes();
            return Err(
                corrupt(&self.file, table_at + block * 4, "block offset", host, limit).into()
            );
        }
        // Without a parent a block is whole, whatever its bitmap says.
        if self.header.parent.is_none() {
            return Ok((Run::Data { host }, max));
        }
        let bitmap = match self.bitmaps.get(block) {
            Some(bitmap) => bitmap,
            None => {
                let mut raw = vec![0; bitmap_bytes as usize];
                self.file.read_exact_at(start, &mut raw)?;
                let bitmap: Arc<[u8]> = raw.into();
                self.bitmaps.put(block, bitmap.clone());
                bitmap
            }
        };
        let bit = |at: u64| {
            let number = at % block_bytes / SECTOR;
            bitmap[(number / 8) as usize] >> (7 - number % 8) & 1 != 0
        };
        let here = bit(offset);
        let mut len = (SECTOR - offset % SECTOR).min(max);
        while len < max && bit(offset + len) == here {
            len = (len + SECTOR).min(max);
        }
        Ok((if here { Run::Data { host } } else { Run::Parent }, len))
    }
}

impl BlockRead for Vhd {
    fn len_bytes(&self) -> u64 {
        self.header.disk_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len(), self.header.disk_bytes)?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (run, len) = self.run_at(at, (buf.len() - done) as u64)?;
            let part = &mut buf[done..done + len as usize];
            match (run, &self.parent) {
                (Run::Data { host }, _) => self.file.read_padded_at(host, part)?,
                (Run::Parent, Some(parent)) => {
                    let have = parent.len_bytes().saturating_sub(at).min(len) as usize;
                    let (head, tail) = part.split_at_mut(have);
                    tail.fill(0);
                    if !head.is_empty() {
                        parent.read_at(at, head)?;
                    }
                }
                (Run::Parent, None) => part.fill(0),
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
            let mut below_end = at;
            let mut content = ExtentContent::Absent;
            match (run, &self.parent) {
                (Run::Data { .. }, _) => content = ExtentContent::Data { depth: 0 },
                (Run::Parent, Some(parent)) => {
                    below_end = parent.len_bytes().clamp(at, at + len);
                    parent.extents(at..below_end, &mut |extent| {
                        each(Extent { content: extent.content.below(), ..extent });
                    })?;
                }
                (Run::Parent, None) => {}
            }
            if below_end < at + len {
                each(Extent { offset: below_end, len_bytes: at + len - below_end, content });
            }
            at += len;
        }
        Ok(())
    }
}
