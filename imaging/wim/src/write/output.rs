//! The file being written: buffered, under a temporary name until it is complete. Bytes copied from
//! another file are collected, so that neighbours there are copied in one go.

use crate::error::{IoContext, Result};
use crate::header::{HEADER_BYTES, Header, ResourceHeader};
use crate::resource::Backing;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Bytes collected before a write; few enough to be in the processor's cache still.
const BUFFER_BYTES: usize = 256 << 10;
/// A copy shorter than this goes through the buffer, with what is around it.
const SHORT_COPY_BYTES: u64 = 64 << 10;
/// Bytes of a copy read and written at a time; no more than fit the caches of a core. Writes end at
/// multiples of it, where the system's pages end too, however large it makes them.
const COPY_STEP_BYTES: u64 = 256 << 10;
/// Copies from here on are done by two threads: one does not keep the memory busy.
#[cfg(unix)]
const PARALLEL_COPY_BYTES: u64 = 4 << 20;
/// Copies are done when they reach this, so that a cancelled write ends soon.
const MAX_COPY_BYTES: u64 = 32 << 20;

pub(crate) struct Output {
    temp: NamedTempFile,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Bytes in the file, without those in `buffer` and those still to be copied.
    flushed: u64,
    /// What comes after the buffer.
    copy: Option<Copy>,
}

/// Bytes of another file.
struct Copy {
    from: Arc<Backing>,
    at: u64,
    len_bytes: u64,
}

/// How many of `left` bytes to copy next to the place `to_at`.
fn copy_step(to_at: u64, left: u64) -> u64 {
    left.min(COPY_STEP_BYTES - to_at % COPY_STEP_BYTES)
}

/// Copies `len_bytes` bytes of `from` to a place of `to`, half of them on another thread.
#[cfg(unix)]
fn parallel_copy(from: &Backing, at: u64, to: &File, to_at: u64, len_bytes: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let half = (len_bytes / 2) + copy_step(to_at + len_bytes / 2, len_bytes);
    let copy = |range: std::ops::Range<u64>| -> io::Result<()> {
        let mut buffer = vec![0; COPY_STEP_BYTES as usize];
        let mut done = range.start;
        while done < range.end {
            let step = copy_step(to_at + done, range.end - done) as usize;
            from.read_exact(&mut buffer[..step], at + done).map_err(io::Error::other)?;
            to.write_all_at(&buffer[..step], to_at + done)?;
            done += step as u64;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| copy(half..len_bytes));
        copy(0..half)?;
        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The end of the file, for threads that each write at their own place.
pub(crate) struct Places<'a> {
    file: &'a File,
    path: &'a Path,
    start: u64,
}

impl Places<'_> {
    /// The first place.
    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        #[cfg(unix)]
        let done = std::os::unix::fs::FileExt::write_all_at(self.file, bytes, at);
        #[cfg(windows)]
        let done = write_all_at(self.file, bytes, at);
        done.at(self.path)
    }
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                bytes = &bytes[len..];
                at += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
            copy: None,
        };
        output.append(&[0; HEADER_BYTES])?;
        Ok(output)
    }

    pub fn position(&self) -> u64 {
        let copied = self.copy.as_ref().map_or(0, |copy| copy.len_bytes);
        self.flushed + self.buffer.len() as u64 + copied
    }

    /// Appends `len_bytes` bytes of another file. They are read later, with their neighbours.
    pub fn append_copy(&mut self, from: &Arc<Backing>, at: u64, len_bytes: u64) -> Result<()> {
        match &mut self.copy {
            Some(copy) if Arc::ptr_eq(&copy.from, from) && copy.at + copy.len_bytes == at => {
                copy.len_bytes += len_bytes;
            }
            _ => {
                self.finish_copy()?;
                self.copy = Some(Copy { from: from.clone(), at, len_bytes });
            }
        }
        match &self.copy {
            Some(copy) if copy.len_bytes >= MAX_COPY_BYTES => self.finish_copy(),
            _ => Ok(()),
        }
    }

    fn finish_copy(&mut self) -> Result<()> {
        let Some(Copy { from, mut at, len_bytes: mut left }) = self.copy.take() else {
            return Ok(());
        };
        if left < SHORT_COPY_BYTES {
            if self.buffer.len() as u64 + left > BUFFER_BYTES as u64 {
                self.write_buffer()?;
            }
            let start = self.buffer.len();
            self.buffer.resize(start + left as usize, 0);
            return from.read_exact(&mut self.buffer[start..], at);
        }
        self.write_buffer()?;
        #[cfg(unix)]
        if left >= PARALLEL_COPY_BYTES {
            parallel_copy(&from, at, self.temp.as_file(), self.flushed, left).at(&self.path)?;
            self.flushed += left;
            return self.seek(self.flushed);
        }
        while left > 0 {
            let step = copy_step(self.flushed, left);
            self.buffer.resize(step as usize, 0);
            from.read_exact(&mut self.buffer, at)?;
            self.write_buffer()?;
            at += step;
            left -= step;
        }
        Ok(())
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.finish_copy()?;
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
        self.finish_copy()?;
        self.write_buffer()
    }

    fn write_buffer(&mut self) -> Result<()> {
        self.temp.as_file_mut().write_all(&self.buffer).at(&self.path)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Overwrites bytes written before.
    pub fn patch(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.finish_copy()?;
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
        self.finish_copy()?;
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

    /// Lets threads write past the end. [`continue_at`](Self::continue_at) tells where they ended.
    pub fn places(&mut self) -> Result<Places<'_>> {
        self.flush()?;
        Ok(Places { file: self.temp.as_file(), path: &self.path, start: self.flushed })
    }

    /// Goes on at `end`, up to which all has been written.
    pub fn continue_at(&mut self, end: u64) -> Result<()> {
        self.flushed = end;
        self.seek(end)
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
