//! A raw image: the file is the disk.

use crate::block::{BlockRead, Extent, ExtentContent, check_range};
use crate::file::ImageFile;
use std::io;
use std::ops::Range;
use std::sync::Arc;

#[derive(Debug)]
pub struct Raw {
    file: Arc<ImageFile>,
}

impl Raw {
    pub fn new(file: Arc<ImageFile>) -> Self {
        Self { file }
    }
}

impl BlockRead for Raw {
    fn len_bytes(&self) -> u64 {
        self.file.len_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(offset, buf)
    }

    fn extents(&self, range: Range<u64>, each: &mut dyn FnMut(Extent)) -> io::Result<()> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        check_range(range.start, len, self.len_bytes())?;
        let mut at = range.start;
        let mut emit = |from: u64, to: u64, content| {
            if from < to {
                each(Extent { offset: from, len_bytes: to - from, content });
            }
        };
        while at < range.end {
            let Some((start, end)) = self.file.next_data(at)? else {
                emit(at, range.end, ExtentContent::Absent);
                break;
            };
            let start = start.clamp(at, range.end);
            let end = end.clamp(start, range.end);
            emit(at, start, ExtentContent::Absent);
            emit(start, end, ExtentContent::Data { depth: 0 });
            if end == at {
                // A host that reports empty runs would keep us here for ever.
                emit(at, range.end, ExtentContent::Data { depth: 0 });
                break;
            }
            at = end;
        }
        Ok(())
    }
}
