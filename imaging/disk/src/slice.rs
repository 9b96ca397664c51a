//! A part of a disk: a partition.

use crate::block::{BlockRead, Extent, check_range};
use crate::error::{DiskError, Result};
use std::io;
use std::ops::Range;
use std::sync::Arc;

#[derive(Clone)]
pub struct Slice {
    disk: Arc<dyn BlockRead>,
    start: u64,
    len_bytes: u64,
}

impl Slice {
    pub fn new(disk: Arc<dyn BlockRead>, range: Range<u64>) -> Result<Self> {
        if range.start > range.end || range.end > disk.len_bytes() {
            return Err(DiskError::Corrupt {
                image: "partition".into(),
                at: range.start,
                what: "end of the partition",
                found: range.end,
                limit: disk.len_bytes(),
            });
        }
        Ok(Self { disk, start: range.start, len_bytes: range.end - range.start })
    }

    /// Where it begins on the disk, in bytes.
    pub fn start(&self) -> u64 {
        self.start
    }
}

impl BlockRead for Slice {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn sector_bytes(&self) -> u32 {
        self.disk.sector_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len(), self.len_bytes)?;
        self.disk.read_at(self.start + offset, buf)
    }

    fn extents(&self, range: Range<u64>, each: &mut dyn FnMut(Extent)) -> io::Result<()> {
        let end = range.end.min(self.len_bytes);
        let start = range.start.min(end);
        self.disk.extents(self.start + start..self.start + end, &mut |mut extent| {
            extent.offset -= self.start;
            each(extent);
        })
    }
}
