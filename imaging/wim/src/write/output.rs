//! The file being written: buffered, under a temporary name until it is complete.

use crate::error::{IoContext, Result};
use crate::header::{HEADER_BYTES, Header, ResourceHeader};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Bytes collected before a write; few enough to be in the processor's cache still.
const BUFFER_BYTES: usize = 256 << 10;

pub(crate) struct Output {
    temp: NamedTempFile,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Bytes in the file, without those in `buffer`.
    flushed: u64,
}

impl Output {
    /// Opens a temporary file beside `path`, with room for the header.
    pub fn create(path: &Path) -> Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".gilt-").suffix(".wim.tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // What any new file gets: the umask still applies.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let temp = builder.tempfile_in(folder).at(folder)?;
        let mut output = Self {
            temp,
            path: path.to_owned(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            flushed: 0,
        };
        output.append(&[0; HEADER_BYTES])?;
        Ok(output)
    }

    pub fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES / 2 {
            self.flush()?;
            self.temp.as_file_mut().write_all(bytes).at(&self.path)?;
            self.flushed += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Appends `bytes` as an uncompressed resource.
    pub fn append_plain(&mut self, bytes: &[u8]) -> Result<ResourceHeader> {
        let size = bytes.len() as u64;
        let offset = self.position();
        self.append(bytes)?;
        Ok(ResourceHeader { offset, stored_bytes: size, size_bytes: size, flags: 0 })
    }

    pub fn flush(&mut self) -> Result<()> {
        self.temp.as_file_mut().write_all(&self.buffer).at(&self.path)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Overwrites bytes written before.
    pub fn patch(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let end = at + bytes.len() as u64;
        if at >= self.flushed {
            let from = (at - self.flushed) as usize;
            self.buffer[from..from + bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        debug_assert!(end <= self.flushed);
        self.seek(at)?;
        self.temp.as_file_mut().write_all(bytes).at(&self.path)?;
        self.seek(self.flushed)
    }

    /// Takes back everything from `at` on.
    pub fn truncate(&mut self, at: u64) -> Result<()> {
        if at >= self.flushed {
            self.buffer.truncate((at - self.flushed) as usize);
            return Ok(());
        }
        self.buffer.clear();
        self.flushed = at;
        self.temp.as_file().set_len(at).at(&self.path)?;
        self.seek(at)
    }

    fn seek(&mut self, at: u64) -> Result<()> {
        self.temp.as_file_mut().seek(SeekFrom::Start(at)).at(&self.path)?;
        Ok(())
    }

    pub fn file(&self) -> &File {
        self.temp.as_file()
    }

    pub fn write_header(&mut self, header: &Header) -> Result<()> {
        self.flush()?;
        self.patch(0, &header.to_bytes())
    }

    /// Gives the file its name.
    pub fn publish(mut self, sync: bool) -> Result<()> {
        self.flush()?;
        if sync {
            self.temp.as_file().sync_all().at(&self.path)?;
        }
        let folder = self.path.parent().map(Path::to_owned);
        self.temp.persist(&self.path).map_err(|error| error.error).at(&self.path)?;
        if sync && cfg!(unix) {
            let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or_else(|| PathBuf::from("."));
            File::open(&folder).and_then(|folder| folder.sync_all()).at(&folder)?;
        }
        Ok(())
    }
}
