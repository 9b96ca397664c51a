//! A file opened for reading that no running machine writes to.
//!
//! QEMU marks what it does with an image by byte locks (`block/file-posix.c`, "image locking"):
//! byte `100 + p` is read-locked while permission `p` is used, byte `200 + p` while permission `p` is
//! not shared with others; 0 consistent read, 1 write, 2 write unchanged, 3 resize. We look for a holder
//! of write or resize, and then take the locks of a reader that shares neither, so that a machine started
//! on this disk while we read it is refused by QEMU itself.

use crate::block::check_range;
use crate::error::{DiskError, Result};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What tells whether a file was changed since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    pub device: u64,
    pub inode: u64,
    pub len_bytes: u64,
    /// Nanoseconds since 1970.
    pub modified_ns: i128,
    /// Nanoseconds since 1970; 0 where the host has no such stamp.
    pub changed_ns: i128,
}

#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    file: File,
    len_bytes: u64,
    stamp: FileStamp,
}

impl ImageFile {
    /// Opens `path` read-only. Unless `allow_in_use`, refuses what QEMU has open for writing.
    pub fn open(path: &Path, allow_in_use: bool) -> Result<Self> {
        let file = File::open(path).map_err(DiskError::io(path))?;
        let metadata = file.metadata().map_err(DiskError::io(path))?;
        if metadata.is_dir() {
            return Err(DiskError::Unsupported {
                image: path.display().to_string(),
                what: "is a folder, not a disk image".into(),
            });
        }
        if !allow_in_use {
            lock::claim(&file, path)?;
        }
        let len_bytes = if metadata.is_file() {
            metadata.len()
        } else {
            // A block device has no length in its metadata.
            use std::io::{Seek, SeekFrom};
            (&file).seek(SeekFrom::End(0)).map_err(DiskError::io(path))?
        };
        let stamp = stamp_of(&metadata, len_bytes);
        Ok(Self { path: path.to_owned(), file, len_bytes, stamp })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    pub fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// Whether the path still names the file that was opened, with its size and times.
    pub fn is_unchanged(&self) -> Result<bool> {
        let metadata = std::fs::metadata(&self.path).map_err(DiskError::io(&self.path))?;
        let len_bytes = if metadata.is_file() { metadata.len() } else { self.len_bytes };
        Ok(stamp_of(&metadata, len_bytes) == self.stamp)
    }

    /// Fills `buf`; bytes past the end of the file are an error.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len(), self.len_bytes)?;
        positional::read_exact_at(&self.file, buf, offset)
    }

    /// Fills `buf`; bytes past the end of the file are zeros.
    pub fn read_padded_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let have = self.len_bytes.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (head, tail) = buf.split_at_mut(have);
        tail.fill(0);
        if head.is_empty() {
            return Ok(());
        }
        positional::read_exact_at(&self.file, head, offset)
    }

    /// The next stored byte at or after `offset`, and the next hole after that; `None` when only a
    /// hole follows. Where the host cannot tell, everything is stored.
    pub(crate) fn next_data(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        sparse::next_data(&self.file, offset, self.len_bytes)
    }
}

#[cfg(unix)]
fn stamp_of(metadata: &std::fs::Metadata, len_bytes: u64) -> FileStamp {
    use std::os::unix::fs::MetadataExt;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    FileStamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        len_bytes,
        modified_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
    }
}

#[cfg(not(unix))]
fn stamp_of(metadata: &std::fs::Metadata, len_bytes: u64) -> FileStamp {
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| i128::try_from(since.as_nanos()).ok());
    FileStamp { device: 0, inode: 0, len_bytes, modified_ns: modified.unwrap_or(0), changed_ns: 0 }
}

#[cfg(unix)]
mod positional {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    pub fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(buf, offset)
    }
}

#[cfg(windows)]
mod positional {
    use std::fs::File;
    use std::io;
    use std::os::windows::fs::FileExt;

    pub fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let got = file.seek_read(buf, offset)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf = &mut buf[got..];
            offset += got as u64;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod sparse {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    use std::fs::File;
    use std::io;

    pub fn next_data(file: &File, offset: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
        if offset >= len {
            return Ok(None);
        }
        let start = match seek(file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // No support for holes here: all of it is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE) => return Ok(Some((offset, len))),
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(file, SeekFrom::Hole(start)).unwrap_or(len);
        Ok(Some((start.min(len), end.clamp(start.min(len), len))))
    }
}

#[cfg(not(target_os = "linux"))]
mod sparse {
    use std::fs::File;
    use std::io;

    pub fn next_data(_file: &File, offset: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
        Ok((offset < len).then_some((offset, len)))
    }
}

#[cfg(target_os = "linux")]
mod lock {
    use crate::error::{DiskError, Result};
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    use std::fs::File;
    use std::path::Path;

    const USES: i64 = 100;
    const REFUSES_TO_SHARE: i64 = 200;
    const CONSISTENT_READ: i64 = 0;
    const WRITE: i64 = 1;
    const RESIZE: i64 = 3;

    fn byte(kind: i32, at: i64) -> libc::flock {
        libc::flock {
            // The constants are small; their type differs from that of the field.
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: at,
            l_len: 1,
            l_pid: 0,
        }
    }

    pub fn claim(file: &File, path: &Path) -> Result<()> {
        for (at, what) in [
            (USES + WRITE, "it holds the image open for writing"),
            (USES + RESIZE, "it holds the image open for resizing"),
            (REFUSES_TO_SHARE + CONSISTENT_READ, "it lets nobody else read the image"),
        ] {
            let mut probe = byte(libc::F_WRLCK, at);
            match fcntl(file, FcntlArg::F_OFD_GETLK(&mut probe)) {
                Ok(_) if i32::from(probe.l_type) != libc::F_UNLCK => {
                    return Err(DiskError::InUse { path: path.into(), holder: what.into() });
                }
                Ok(_) => {}
                // A file system without locks cannot tell.
                Err(Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                    return Ok(());
                }
                Err(errno) => {
                    return Err(DiskError::Io { path: path.into(), source: errno.into() });
                }
            }
        }
        for at in [USES + CONSISTENT_READ, REFUSES_TO_SHARE + WRITE, REFUSES_TO_SHARE + RESIZE] {
            match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at))) {
                Ok(_) | Err(Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    return Err(DiskError::InUse {
                        path: path.into(),
                        holder: "it took the image while we opened it".into(),
                    });
                }
                Err(errno) => {
                    return Err(DiskError::Io { path: path.into(), source: errno.into() });
                }
            }
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod lock {
    use crate::error::Result;
    use std::fs::File;
    use std::path::Path;

    /// Windows refuses to open a disk attached for writing by itself (sharing modes).
    pub fn claim(_file: &File, _path: &Path) -> Result<()> {
        Ok(())
    }
}
