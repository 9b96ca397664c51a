//! `Read + Seek` over a disk, for libraries that want a file.

use crate::block::BlockRead;
use std::io::{self, Read, Seek, SeekFrom};

pub struct BlockCursor<'a> {
    disk: &'a dyn BlockRead,
    position: u64,
}

impl<'a> BlockCursor<'a> {
    pub fn new(disk: &'a dyn BlockRead) -> Self {
        Self { disk, position: 0 }
    }
}

impl Read for BlockCursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.disk.len_bytes().saturating_sub(self.position);
        let len = left.min(buf.len() as u64) as usize;
        self.disk.read_at(self.position, &mut buf[..len])?;
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for BlockCursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(at) => {
                self.position = at;
                return Ok(at);
            }
            SeekFrom::End(by) => (self.disk.len_bytes(), by),
            SeekFrom::Current(by) => (self.position, by),
        };
        self.position = base.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
