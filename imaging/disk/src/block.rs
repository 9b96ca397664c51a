//! The trait every disk reader has.

use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Random-access bytes that nobody writes to while we read. Shared by many threads.
///
/// The caller's duty: stay inside `0..len_bytes()`. The reader's duty: deliver every byte or an
/// error, never fewer bytes, never zeros in place of bytes it could not read.
pub trait BlockRead: Send + Sync {
    /// Size of the disk in bytes.
    fn len_bytes(&self) -> u64;

    /// Fills `buf` with the bytes from `offset`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// The sector size the disk shows to a guest, where the image says; else 512.
    fn sector_bytes(&self) -> u32 {
        512
    }

    /// Tells for each byte of `range`, in order and without gaps, which layer holds it.
    fn extents(&self, range: Range<u64>, each: &mut dyn FnMut(Extent)) -> io::Result<()> {
        if range.start < range.end {
            each(Extent {
                offset: range.start,
                len_bytes: range.end - range.start,
                content: ExtentContent::Data { depth: 0 },
            });
        }
        Ok(())
    }
}

/// A run of bytes with one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub len_bytes: u64,
    pub content: ExtentContent,
}

/// Where bytes come from. Depth 0 is the top layer: what was written since the layer below was
/// closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentContent {
    /// Stored bytes.
    Data { depth: u32 },
    /// Zeros that this layer recorded.
    Zero { depth: u32 },
    /// No layer holds them: zeros.
    Absent,
}

impl ExtentContent {
    /// The layer that decided about these bytes.
    pub fn depth(self) -> Option<u32> {
        match self {
            Self::Data { depth } | Self::Zero { depth } => Some(depth),
            Self::Absent => None,
        }
    }

    /// The same, seen from a layer above.
    pub(crate) fn below(self) -> Self {
        match self {
            Self::Data { depth } => Self::Data { depth: depth.saturating_add(1) },
            Self::Zero { depth } => Self::Zero { depth: depth.saturating_add(1) },
            Self::Absent => Self::Absent,
        }
    }
}

/// The extents of `range`, neighbours of one origin joined.
pub fn extent_list(disk: &dyn BlockRead, range: Range<u64>) -> io::Result<Vec<Extent>> {
    let mut list: Vec<Extent> = Vec::new();
    disk.extents(range, &mut |extent| {
        if extent.len_bytes == 0 {
            return;
        }
        if let Some(last) = list.last_mut()
            && last.content == extent.content
            && last.offset + last.len_bytes == extent.offset
        {
            last.len_bytes += extent.len_bytes;
            return;
        }
        list.push(extent);
    })?;
    Ok(list)
}

/// Units of `unit_bytes` that may hold something: first, and one past the last, of each run.
pub(crate) fn data_ranges(disk: &dyn BlockRead, unit_bytes: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    disk.extents(0..disk.len_bytes(), &mut |extent| {
        if matches!(extent.content, ExtentContent::Data { .. }) {
            let first = extent.offset / unit_bytes;
            let end = (extent.offset + extent.len_bytes).div_ceil(unit_bytes);
            match ranges.last_mut() {
                Some(last) if last.1 >= first => last.1 = last.1.max(end),
                _ => ranges.push((first, end)),
            }
        }
    })?;
    Ok(ranges)
}

impl<T: BlockRead + ?Sized> BlockRead for Arc<T> {
    fn len_bytes(&self) -> u64 {
        (**self).len_bytes()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }
    fn sector_bytes(&self) -> u32 {
        (**self).sector_bytes()
    }
    fn extents(&self, range: Range<u64>, each: &mut dyn FnMut(Extent)) -> io::Result<()> {
        (**self).extents(range, each)
    }
}

/// Bytes in memory: for tests and small images.
impl BlockRead for Vec<u8> {
    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let range = check_range(offset, buf.len(), self.len_bytes())?;
        // In range of a Vec, so both ends fit usize.
        buf.copy_from_slice(&self[range.start as usize..range.end as usize]);
        Ok(())
    }
}

/// `offset..offset + len`, or an error when it leaves the disk.
pub(crate) fn check_range(offset: u64, len: usize, limit: u64) -> io::Result<Range<u64>> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= limit => Ok(offset..end),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("read of {len} bytes at {offset:#x} leaves the disk of {limit:#x} bytes"),
        )),
    }
}
