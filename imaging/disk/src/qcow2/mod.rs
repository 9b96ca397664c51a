//! qcow2, version 2 and 3, read-only.
//!
//! ```text
//! guest offset ── L1[offset / span] ── L2[cluster] ── run: Data at host offset | Zero | Absent | Compressed
//!                                                       Absent: the backing image, zeros past its end
//! ```
//! With extended L2 each entry carries a bitmap of 32 sub-clusters. Runs of equal state are read in
//! one go; tables and decompressed clusters are kept in small caches.

mod header;
mod write;

pub use header::{Header, MAGIC};
pub use write::write_qcow2;

use crate::block::{BlockRead, Extent, ExtentContent, check_range};
use crate::bytes::be64;
use crate::cache::Cache;
use crate::decompress::decompress;
use crate::error::{DiskError, Result};
use crate::file::ImageFile;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bits 9..56 of an L1 or L2 entry: offset in the image.
const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
/// Bytes of L2 tables kept.
const L2_CACHE_BYTES: u64 = 32 << 20;
/// Bytes of decompressed clusters kept.
const CLUSTER_CACHE_BYTES: u64 = 16 << 20;

pub struct Qcow2 {
    header: Header,
    image: Arc<ImageFile>,
    /// Where data clusters are; the image itself unless it has an external data file.
    data: Arc<ImageFile>,
    external_data: bool,
    backing: Option<Arc<dyn BlockRead>>,
    disk_bytes: u64,
    l1: Vec<u64>,
    l2: Cache<[u64]>,
    clusters: Cache<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Data { host: u64 },
    Zero,
    Absent,
    Compressed { entry: u64 },
}

impl Qcow2 {
    /// `snapshot` names a disk state by name or id; else the current one. The backing image is the
    /// caller's to open: `header.backing_name` tells which.
    pub fn new(
        header: Header,
        image: Arc<ImageFile>,
        data: Option<Arc<ImageFile>>,
        backing: Option<Arc<dyn BlockRead>>,
        snapshot: Option<&str>,
    ) -> Result<Self> {
        let (l1_offset, l1_entries, disk_bytes) = match snapshot {
            None => (header.l1_offset, header.l1_entries, header.disk_bytes),
            Some(wanted) => {
                let all = &header.snapshots;
                let found = all.iter().find(|s| s.name == wanted);
                let found = found.or_else(|| all.iter().find(|s| s.id == wanted));
                let found = found.ok_or_else(|| {
                    let names: Vec<_> = all.iter().map(|s| s.name.as_str()).collect();
                    DiskError::NoSnapshot {
                        image: image.path().display().to_string(),
                        name: wanted.to_owned(),
                        known: if names.is_empty() { "none".into() } else { names.join(", ") },
                    }
                })?;
                let bytes = found.disk_bytes.unwrap_or(header.disk_bytes);
                (found.l1_offset, found.l1_entries, bytes)
            }
        };
        let l1 = read_table(&image, l1_offset, u64::from(l1_entries))?;
        let cluster = header.cluster_bytes();
        let entries = |bytes: u64, floor: u64| (bytes / cluster).clamp(floor, 4096) as usize;
        Ok(Self {
            l2: Cache::new(entries(L2_CACHE_BYTES, 8)),
            clusters: Cache::new(entries(CLUSTER_CACHE_BYTES, 4)),
            external_data: data.is_some(),
            data: data.unwrap_or_else(|| image.clone()),
            header,
            image,
            backing,
            disk_bytes,
            l1,
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    fn corrupt(&self, at: u64, what: &'static str, found: u64, limit: u64) -> DiskError {
        DiskError::Corrupt {
            image: self.image.path().display().to_string(),
            at,
            what,
            found,
            limit,
        }
    }

    fn l2_table(&self, l1_index: u64) -> Result<Option<Arc<[u64]>>> {
        let entry = usize::try_from(l1_index).ok().and_then(|index| self.l1.get(index));
        let offset = entry.copied().unwrap_or(0) & OFFSET_MASK;
        if offset == 0 {
            return Ok(None);
        }
        if !offset.is_multiple_of(self.header.cluster_bytes()) {
            return Err(self.corrupt(l1_index * 8, "L2 table offset", offset, 0));
        }
        if let Some(table) = self.l2.get(offset) {
            return Ok(Some(table));
        }
        let words = self.header.cluster_bytes() / 8;
        let table: Arc<[u64]> = read_table(&self.image, offset, words)?.into();
        self.l2.put(offset, table.clone());
        Ok(Some(table))
    }

    /// The state of the bytes from `offset`, and for how many of at most `max` bytes it holds.
    fn run_at(&self, offset: u64, max: u64) -> Result<(Run, u64)> {
        let span = self.header.l2_span_bytes();
        let cluster = self.header.cluster_bytes();
        let l1_index = offset / span;
        let span_end = l1_index.saturating_add(1).saturating_mul(span);
        let max = max.min(span_end - offset);
        let Some(table) = self.l2_table(l1_index)? else {
            return Ok((Run::Absent, max));
        };
        let unit = if self.header.extended_l2 { cluster / 32 } else { cluster };
        let first = self.unit_state(&table, offset, span)?;
        let mut len = (unit - offset % unit).min(max);
        let first = match first {
            Run::Data { host } => Run::Data { host: host + offset % unit },
            Run::Compressed { .. } => {
                return Ok((first, (cluster - offset % cluster).min(max)));
            }
            other => other,
        };
        while len < max {
            let next = self.unit_state(&table, offset + len, span)?;
            let goes_on = match (first, next) {
                (Run::Data { host }, Run::Data { host: next }) => host + len == next,
                (Run::Zero, Run::Zero) | (Run::Absent, Run::Absent) => true,
                _ => false,
            };
            if !goes_on {
                break;
            }
            len = (len + unit).min(max);
        }
        Ok((first, len))
    }

    /// State of the cluster or sub-cluster that holds `offset`; `host` is its beginning.
    fn unit_state(&self, table: &[u64], offset: u64, span: u64) -> Result<Run> {
        let cluster = self.header.cluster_bytes();
        let words = self.header.l2_entry_bytes() / 8;
        let index = (offset % span / cluster * words) as usize;
        let entry = table.get(index).copied().unwrap_or(0);
        if entry & COMPRESSED != 0 {
            return Ok(Run::Compressed { entry });
        }
        let host = entry & OFFSET_MASK;
        if !host.is_multiple_of(cluster) {
            return Err(self.corrupt(offset, "cluster offset", host, cluster));
        }
        if self.header.extended_l2 {
            let bitmap = table.get(index + 1).copied().unwrap_or(0);
            let sub = offset % cluster / (cluster / 32);
            let allocated = bitmap >> sub & 1 != 0;
            let zero = bitmap >> (32 + sub) & 1 != 0;
            return match (allocated, zero) {
                (true, true) => Err(self.corrupt(offset, "sub-cluster bitmap", bitmap, 0)),
                (true, false) => self.data_at(offset, host + sub * (cluster / 32)),
                (false, true) => Ok(Run::Zero),
                (false, false) => Ok(Run::Absent),
            };
        }
        if entry & ZERO != 0 {
            if self.header.version < 3 {
                return Err(self.corrupt(offset, "zero flag in version 2", entry, 0));
            }
            return Ok(Run::Zero);
        }
        // In an external data file the first cluster has offset 0 and is told by the flag.
        if host == 0 && !(self.external_data && entry & COPIED != 0) {
            return Ok(Run::Absent);
        }
        self.data_at(offset, host)
    }

    fn data_at(&self, guest: u64, host: u64) -> Result<Run> {
        // The file may end inside its last cluster; further on is a truncated image.
        if host >= self.data.len_bytes() && !self.external_data {
            let limit = self.data.len_bytes();
            return Err(self.corrupt(guest, "cluster beyond the end of the file", host, limit));
        }
        Ok(Run::Data { host })
    }

    /// Copies from a compressed cluster.
    fn read_compressed(&self, entry: u64, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let cluster = self.header.cluster_bytes();
        let inside = (offset % cluster) as usize;
        if inside == 0 && buf.len() as u64 == cluster {
            return self.decompress(entry, offset, buf);
        }
        let key = offset / cluster;
        let whole = match self.clusters.get(key) {
            Some(whole) => whole,
            None => {
                let mut whole = vec![0; cluster as usize];
                self.decompress(entry, offset, &mut whole)?;
                let whole: Arc<[u8]> = whole.into();
                self.clusters.put(key, whole.clone());
                whole
            }
        };
        buf.copy_from_slice(&whole[inside..inside + buf.len()]);
        Ok(())
    }

    fn decompress(&self, entry: u64, guest: u64, whole: &mut [u8]) -> io::Result<()> {
        // 0..x host offset, x..62 further sectors; x = 62 - (cluster bits - 8).
        let x = 62 - (self.header.cluster_bits - 8);
        let host = entry & ((1 << x) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> x;
        let end = (host / 512 + sectors + 1) * 512;
        // The last sector may be cut off by the end of the file.
        let end = end.min(self.data.len_bytes());
        if host >= end {
            let limit = self.data.len_bytes();
            return Err(self.corrupt(guest, "compressed cluster offset", host, limit).into());
        }
        let mut packed = vec![0; (end - host) as usize];
        self.data.read_exact_at(host, &mut packed)?;
        decompress(self.header.compression, &packed, whole).map_err(|error| {
            let image = self.image.path().display();
            let text = format!("{image}: compressed cluster of {guest:#x} at {host:#x}: {error}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    fn read_backing(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let Some(backing) = &self.backing else {
            buf.fill(0);
            return Ok(());
        };
        let have = backing.len_bytes().saturating_sub(offset).min(buf.len() as u64) as usize;
        let (head, tail) = buf.split_at_mut(have);
        tail.fill(0);
        if head.is_empty() { Ok(()) } else { backing.read_at(offset, head) }
    }
}

fn read_table(file: &ImageFile, offset: u64, entries: u64) -> Result<Vec<u64>> {
    let bytes = entries * 8;
    let in_file = offset.checked_add(bytes).is_some_and(|end| end <= file.len_bytes());
    if !in_file {
        return Err(DiskError::Corrupt {
            image: file.path().display().to_string(),
            at: offset,
            what: "table beyond the end of the file",
            found: bytes,
            limit: file.len_bytes(),
        });
    }
    let mut raw = vec![0; bytes as usize];
    file.read_exact_at(offset, &mut raw).map_err(DiskError::io(file.path()))?;
    Ok((0..entries as usize).map(|index| be64(&raw, index * 8).unwrap_or(0)).collect())
}

impl BlockRead for Qcow2 {
    fn len_bytes(&self) -> u64 {
        self.disk_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len(), self.disk_bytes)?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (run, len) = self.run_at(at, (buf.len() - done) as u64)?;
            let part = &mut buf[done..done + len as usize];
            match run {
                Run::Data { host } => self.data.read_padded_at(host, part)?,
                Run::Zero => part.fill(0),
                Run::Absent => self.read_backing(at, part)?,
                Run::Compressed { entry } => self.read_compressed(entry, at, part)?,
            }
            done += len as usize;
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, each: &mut dyn FnMut(Extent)) -> io::Result<()> {
        let end = range.end.min(self.disk_bytes);
        let mut at = range.start;
        while at < end {
            let (run, len) = self.run_at(at, end - at)?;
            let content = match run {
                Run::Data { .. } | Run::Compressed { .. } => ExtentContent::Data { depth: 0 },
                Run::Zero => ExtentContent::Zero { depth: 0 },
                Run::Absent => ExtentContent::Absent,
            };
            let below = match &self.backing {
                Some(backing) if run == Run::Absent => {
                    let below_end = backing.len_bytes().clamp(at, at + len);
                    backing.extents(at..below_end, &mut |extent| {
                        each(Extent { content: extent.content.below(), ..extent });
                    })?;
                    below_end
                }
                _ => at,
            };
            if below < at + len {
                each(Extent { offset: below, len_bytes: at + len - below, content });
            }
            at += len;
        }
        Ok(())
    }
}
