//! Reading the contents of a job, which may not be any more what they were when it was made.

use super::{Job, JobSource};
use crate::error::{Error, Result, from_io};
use crate::tree::Sha1;
use std::io::{self, Read};

impl<'a> Job<'a> {
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + Send + 'a>> {
        match self.source {
            JobSource::Stream { contents, id } => contents.open(id),
            JobSource::Memory(bytes) | JobSource::Metadata { bytes, .. } => Ok(Box::new(bytes)),
        }
    }

    pub(super) fn io_error(&self, error: io::Error) -> Error {
        from_io(error, || format!("read contents of {} bytes", self.len_bytes))
    }

    pub(super) fn changed(&self, why: impl Into<String>) -> Error {
        let what = match self.source {
            JobSource::Stream { id, .. } => format!("contents {} ({} bytes)", id.0, self.len_bytes),
            JobSource::Memory(_) | JobSource::Metadata { .. } => "data in memory".into(),
        };
        Error::SourceChanged { what, why: why.into() }
    }

    /// Reads all contents; `buffer` has one byte more than they have.
    pub(super) fn read_whole(&self, buffer: &mut [u8]) -> Result<()> {
        let want = buffer.len() - 1;
        if let JobSource::Memory(bytes) | JobSource::Metadata { bytes, .. } = self.source {
            buffer[..want].copy_from_slice(bytes);
            return Ok(());
        }
        let mut reader = self.open().map_err(|e| self.io_error(e))?;
        let got = fill(&mut reader, buffer).map_err(|e| self.io_error(e))?;
        if got != want {
            let more = if got > want { "more" } else { "fewer" };
            return Err(self.changed(format!("it delivers {more} bytes than {want}")));
        }
        Ok(())
    }

    /// Fills `buffer`; contents that end before that have changed.
    pub(super) fn read_step(&self, reader: &mut dyn Read, buffer: &mut [u8]) -> Result<()> {
        if fill(reader, buffer).map_err(|e| self.io_error(e))? != buffer.len() {
            return Err(self.changed(format!("it delivers fewer than {} bytes", self.len_bytes)));
        }
        Ok(())
    }

    /// Contents that go on where they should end have changed.
    pub(super) fn expect_end(&self, reader: &mut dyn Read) -> Result<()> {
        if fill(reader, &mut [0]).map_err(|e| self.io_error(e))? != 0 {
            return Err(self.changed(format!("it delivers more than {} bytes", self.len_bytes)));
        }
        Ok(())
    }

    /// Contents with another hash than the source told have changed.
    pub(super) fn check_known(&self, sha1: Sha1) -> Result<()> {
        match self.known {
            Some(known) if known != sha1 => {
                Err(self.changed(format!("its SHA-1 is {sha1}, not what it was")))
            }
            _ => Ok(()),
        }
    }
}

/// Reads until `buf` is full or there is no more; returns how many bytes there were.
fn fill(reader: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match reader.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
